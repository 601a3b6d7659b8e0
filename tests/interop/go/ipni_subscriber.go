package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	leveldb "github.com/ipfs/go-ds-leveldb"
	"github.com/ipni/go-libipni/announce"
	"github.com/ipni/go-libipni/announce/gossiptopic"
	"github.com/ipni/go-libipni/announce/message"
	"github.com/ipni/go-libipni/dagsync"
	"github.com/ipni/go-libipni/ingest/schema"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
)

// subscriberOptions are go-libipni's own, and what this program does with what was synced.
type subscriberOptions struct {
	topic        string
	strict       bool
	segment      int64
	depth        int64
	firstDepth   int64
	entriesDepth int64
	entries      bool
	http         bool
	resend       bool
	quiet        bool
	dir          string
}

func (o *subscriberOptions) flags(flags *flag.FlagSet) {
	flags.StringVar(&o.topic, "topic", "/indexer/ingest/test", "the topic of announcements to follow")
	flags.BoolVar(&o.strict, "strict", true, "StrictAdsSelector: follow PreviousID alone")
	flags.Int64Var(&o.segment, "segment", -1, "SegmentDepthLimit: advertisements of a segment; -1 syncs all at once")
	flags.Int64Var(&o.depth, "depth", 0, "AdsDepthLimit: advertisements at most; 0 is without limit")
	flags.Int64Var(&o.firstDepth, "first-depth", 0, "FirstSyncDepth: as -depth, for the first sync with a publisher")
	flags.Int64Var(&o.entriesDepth, "entries-depth", 0, "EntriesDepthLimit: chunks at most; 0 is without limit")
	flags.BoolVar(&o.entries, "entries", false, "sync the entries of each advertisement too, the oldest first")
	flags.BoolVar(&o.http, "http", false, "take announcements over HTTP at /announce")
	flags.BoolVar(&o.resend, "resend", false, "pass announcements that came over HTTP on to the topic")
	flags.BoolVar(&o.quiet, "quiet", false, "count what was synced, and leave out the event of each advertisement")
	flags.StringVar(&o.dir, "dir", "", "keep blocks in LevelDB in this folder; in memory where it is not given")
}

// subscribing is a subscriber of go-libipni, and what it has synced and not yet told.
type subscribing struct {
	options *subscriberOptions
	blocks  *blockStore
	own     *dagsync.Subscriber

	// ingest is held while what was synced is looked through, so that nobody else takes it.
	ingest sync.Mutex
	mutex  sync.Mutex
	// synced has the advertisements of each publisher, the newest first, in the order of their hooks.
	synced map[peer.ID][]cid.Cid
}

// add makes a host a subscriber of go-libipni. By itself it syncs what is announced on the topic; the event synced
// tells how that went, ad tells each advertisement with whether its signature holds, and announced what came over HTTP.
//
//	sync ADDR[,ADDR...] [head=CID] [stop=CID] [depth=N] [segment=N] [resync=true]
//	    syncs with a publisher at these addresses, each with its peer id; tells latest, ads, verified, bad, entries,
//	    chunks, blocks and ms
//	latest PEER           the head of the last sync with a publisher, or null
//	set-latest PEER CID   makes this the head of the last sync
//	has CID               whether a block is there
//	blocks                how many blocks were stored
func (o *subscriberOptions) add(host host.Host, commands map[string]command, ready map[string]any) error {
	blocks, err := o.datastore()
	if err != nil {
		return err
	}
	s := &subscribing{
		options: o, blocks: newBlockStore(blocks),
		synced: map[peer.ID][]cid.Cid{},
	}
	topic, _, err := gossiptopic.MakeTopic(host, o.topic)
	if err != nil {
		return err
	}
	events, err := topic.EventHandler()
	if err != nil {
		return err
	}
	go tellMembers(context.Background(), o.topic, events)
	s.own, err = dagsync.NewSubscriber(host, s.blocks.linkSystem(),
		dagsync.RecvAnnounce(o.topic, announce.WithTopic(topic), announce.WithResend(o.resend)),
		dagsync.BlockHook(s.hook),
		dagsync.StrictAdsSelector(o.strict),
		dagsync.SegmentDepthLimit(o.segment),
		dagsync.AdsDepthLimit(o.depth),
		dagsync.FirstSyncDepth(o.firstDepth),
		dagsync.EntriesDepthLimit(o.entriesDepth),
	)
	if err != nil {
		return fmt.Errorf("starting the subscriber: %w", err)
	}
	if o.http {
		at, err := s.takeAnnouncements()
		if err != nil {
			return err
		}
		ready["announce"] = at
	}
	finished, _ := s.own.OnSyncFinished()
	go func() {
		for sync := range finished {
			s.tellSynced(sync)
		}
	}()
	commands["sync"] = s.sync
	commands["latest"] = func(_ context.Context, args []string) (any, error) {
		publisher, err := peerID(args)
		if err != nil {
			return nil, err
		}
		return s.latest(publisher), nil
	}
	commands["set-latest"] = func(_ context.Context, args []string) (any, error) {
		if len(args) != 2 {
			return nil, fmt.Errorf("a peer and a CID expected")
		}
		publisher, err := peer.Decode(args[0])
		if err != nil {
			return nil, err
		}
		head, err := cid.Decode(args[1])
		if err != nil {
			return nil, err
		}
		return nil, s.own.SetLatestSync(publisher, head)
	}
	commands["has"] = func(_ context.Context, args []string) (any, error) {
		wanted, err := cidOf(args)
		if err != nil {
			return nil, err
		}
		return s.blocks.has(wanted)
	}
	commands["blocks"] = func(context.Context, []string) (any, error) { return s.blocks.stored(), nil }
	return nil
}

// hook is called for each block of a sync, whether it was fetched or there already, and names the next advertisement
// where a segment ends.
func (s *subscribing) hook(publisher peer.ID, block cid.Cid, actions dagsync.SegmentSyncActions) {
	ad, err := advertisement(s.blocks, block)
	if err != nil {
		// What is no advertisement is the first chunk of some entries, unless it cannot be read at all.
		if _, err := entryChunk(s.blocks, block); err != nil {
			actions.FailSync(err)
		}
		return
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.synced[publisher] = append(s.synced[publisher], block)
	actions.SetNextSyncCid(ad.PreviousCid())
}

// sync is an explicit sync with one publisher.
func (s *subscribing) sync(ctx context.Context, args []string) (any, error) {
	if len(args) == 0 {
		return nil, fmt.Errorf("with whom?")
	}
	publisher, err := addrInfos(args[0])
	if err != nil {
		return nil, err
	}
	options, err := syncOptions(args[1:])
	if err != nil {
		return nil, err
	}
	s.ingest.Lock()
	defer s.ingest.Unlock()
	begun, stored := time.Now(), s.blocks.stored()
	head, err := s.own.SyncAdChain(ctx, publisher, options...)
	ads := s.take(publisher.ID)
	if err != nil {
		return nil, err
	}
	told, err := s.ingestAds(ctx, publisher, ads)
	if err != nil {
		return nil, err
	}
	told["head"], told["latest"] = cidOrNull(head), s.latest(publisher.ID)
	told["ms"] = float64(time.Since(begun).Microseconds()) / 1e3
	told["blocks"] = s.blocks.stored() - stored
	return told, nil
}

func syncOptions(args []string) ([]dagsync.SyncOption, error) {
	options := []dagsync.SyncOption{}
	for _, arg := range args {
		name, value, _ := strings.Cut(arg, "=")
		switch name {
		case "head", "stop":
			at, err := cid.Decode(value)
			if err != nil {
				return nil, err
			}
			if name == "head" {
				options = append(options, dagsync.WithHeadAdCid(at))
			} else {
				options = append(options, dagsync.WithStopAdCid(at))
			}
		case "depth", "segment":
			limit, err := strconv.ParseInt(value, 10, 64)
			if err != nil {
				return nil, err
			}
			if name == "depth" {
				options = append(options, dagsync.ScopedDepthLimit(limit))
			} else {
				options = append(options, dagsync.ScopedSegmentDepthLimit(limit))
			}
		case "resync":
			options = append(options, dagsync.WithAdsResync(value == "true"))
		default:
			return nil, fmt.Errorf("a sync has no option %q", name)
		}
	}
	return options, nil
}

// tellSynced tells how a sync ended that an announcement began. Of those that the command began, which tells them
// itself, nothing is left here.
func (s *subscribing) tellSynced(sync dagsync.SyncFinished) {
	s.ingest.Lock()
	defer s.ingest.Unlock()
	ads := s.take(sync.PeerID)
	event := map[string]any{"event": "synced", "peer": sync.PeerID, "head": sync.Cid.String(), "count": sync.Count}
	if sync.Err != nil {
		event["error"] = sync.Err.Error()
		emit(event)
		return
	}
	if len(ads) == 0 {
		return
	}
	// Where the publisher is, the sync noted down.
	told, err := s.ingestAds(context.Background(), peer.AddrInfo{ID: sync.PeerID}, ads)
	if err != nil {
		event["error"] = err.Error()
	}
	maps.Copy(event, told)
	event["latest"] = s.latest(sync.PeerID)
	emit(event)
}

// take gives the advertisements that syncs with a publisher brought, the newest first, and forgets them.
func (s *subscribing) take(publisher peer.ID) []cid.Cid {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	synced := s.synced[publisher]
	delete(s.synced, publisher)
	return synced
}

// ingestAds looks through the advertisements that a sync brought, the oldest first, as an indexer does, and syncs their
// entries where it was told to.
func (s *subscribing) ingestAds(ctx context.Context, publisher peer.AddrInfo, ads []cid.Cid) (map[string]any, error) {
	slices.Reverse(ads)
	verified, bad, entries, chunks := 0, 0, 0, 0
	for _, id := range ads {
		ad, err := advertisement(s.blocks, id)
		if err != nil {
			return nil, err
		}
		event := map[string]any{
			"event": "ad", "publisher": publisher.ID, "cid": id.String(), "previous": cidOrNull(ad.PreviousCid()),
			"provider": ad.Provider, "addrs": ad.Addresses, "entries": ad.Entries.String(),
			"context_id": string(ad.ContextID), "is_rm": ad.IsRm,
		}
		if signer, err := ad.VerifySignature(); err != nil {
			bad++
			event["signed"], event["error"] = false, err.Error()
		} else {
			verified++
			event["signed"], event["signer"] = true, signer
		}
		if s.options.entries && ad.Entries != schema.NoEntries {
			hashes, of, err := s.syncEntries(ctx, publisher, ad)
			if err != nil {
				return nil, fmt.Errorf("syncing the entries of %s: %w", id, err)
			}
			entries, chunks = entries+hashes, chunks+of
			event["multihashes"], event["chunks"] = hashes, of
		}
		if !s.options.quiet {
			emit(event)
		}
	}
	return map[string]any{
		"ads": len(ads), "verified": verified, "bad": bad, "entries": entries, "chunks": chunks,
	}, nil
}

// syncEntries fetches the first chunk by itself and then the others, as an indexer does that does not know yet whether
// it will find a list or a HAMT; it gives how many multihashes there were, in how many chunks.
func (s *subscribing) syncEntries(ctx context.Context, publisher peer.AddrInfo, ad *schema.Advertisement) (int, int, error) {
	first, err := cid.Decode(ad.Entries.String())
	if err != nil {
		return 0, 0, err
	}
	if err := s.own.SyncOneEntry(ctx, publisher, first); err != nil {
		return 0, 0, err
	}
	chunk, err := entryChunk(s.blocks, first)
	if err != nil {
		return 0, 0, err
	}
	hashes, chunks := len(chunk.Entries), 1
	if chunk.Next == nil {
		return hashes, chunks, nil
	}
	next, err := cid.Decode(chunk.Next.String())
	if err != nil {
		return 0, 0, err
	}
	each := func(_ peer.ID, block cid.Cid, actions dagsync.SegmentSyncActions) {
		chunk, err := entryChunk(s.blocks, block)
		if err != nil {
			actions.FailSync(err)
			return
		}
		chunks++
		hashes += len(chunk.Entries)
		following := cid.Undef
		if chunk.Next != nil {
			following, _ = cid.Decode(chunk.Next.String())
		}
		actions.SetNextSyncCid(following)
	}
	err = s.own.SyncEntries(ctx, publisher, next, dagsync.ScopedBlockHook(each))
	return hashes, chunks, err
}

func (s *subscribing) latest(publisher peer.ID) any {
	latest := s.own.GetLatestSync(publisher)
	if latest == nil {
		return nil
	}
	return latest.String()
}

// takeAnnouncements serves PUT /announce as an indexer does, and gives its URL.
func (s *subscribing) takeAnnouncements() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	routes := http.NewServeMux()
	routes.HandleFunc("PUT /announce", func(answer http.ResponseWriter, request *http.Request) {
		if err := s.takeAnnouncement(request); err != nil {
			http.Error(answer, err.Error(), http.StatusBadRequest)
			return
		}
		answer.WriteHeader(http.StatusNoContent)
	})
	go func() { _ = http.Serve(listener, routes) }()
	return fmt.Sprintf("http://%s/announce", listener.Addr()), nil
}

func (s *subscribing) takeAnnouncement(request *http.Request) error {
	var told message.Message
	switch kind := request.Header.Get("Content-Type"); kind {
	case "application/octet-stream":
		if err := told.UnmarshalCBOR(request.Body); err != nil {
			return err
		}
	case "application/json":
		if err := json.NewDecoder(request.Body).Decode(&told); err != nil {
			return err
		}
	default:
		return fmt.Errorf("cannot read content of type %q", kind)
	}
	addrs, err := told.GetAddrs()
	if err != nil {
		return err
	}
	publishers, err := peer.AddrInfosFromP2pAddrs(addrs...)
	if err != nil {
		return err
	}
	if len(publishers) != 1 {
		return fmt.Errorf("addresses of one publisher expected, not of %d", len(publishers))
	}
	emit(map[string]any{
		"event": "announced", "peer": publishers[0].ID, "cid": cidOrNull(told.Cid), "addrs": publishers[0].Addrs,
		"extra_data": len(told.ExtraData), "orig_peer": told.OrigPeer, "type": request.Header.Get("Content-Type"),
	})
	return s.own.Announce(request.Context(), told.Cid, publishers[0])
}

// datastore is where blocks are kept.
func (o *subscriberOptions) datastore() (datastore.Datastore, error) {
	if o.dir == "" {
		return dssync.MutexWrap(datastore.NewMapDatastore()), nil
	}
	return leveldb.NewDatastore(o.dir, nil)
}

func cidOrNull(id cid.Cid) any {
	if id == cid.Undef {
		return nil
	}
	return id.String()
}

// advertisement reads one from the store.
func advertisement(blocks *blockStore, id cid.Cid) (*schema.Advertisement, error) {
	block, err := blocks.get(id)
	if err != nil {
		return nil, err
	}
	ad, err := schema.BytesToAdvertisement(id, block)
	return &ad, err
}

// entryChunk reads one from the store.
func entryChunk(blocks *blockStore, id cid.Cid) (*schema.EntryChunk, error) {
	block, err := blocks.get(id)
	if err != nil {
		return nil, err
	}
	chunk, err := schema.BytesToEntryChunk(id, block)
	return &chunk, err
}
