package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/ipni/go-libipni/announce"
	"github.com/ipni/go-libipni/announce/gossiptopic"
	"github.com/ipni/go-libipni/announce/httpsender"
	"github.com/ipni/go-libipni/announce/message"
	"github.com/ipni/go-libipni/announce/p2psender"
	"github.com/ipni/go-libipni/dagsync/ipnisync"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
)

// publisherOptions say what chain a publisher begins with, and how it serves it.
type publisherOptions struct {
	ads     int
	entries int
	chunk   int
	digest  int
	seed    uint64
	http    bool
	plain   bool
	path    string
	stream  bool
	topic   string
}

func (o *publisherOptions) flags(flags *flag.FlagSet) {
	flags.IntVar(&o.ads, "ads", 1, "advertisements to begin with")
	flags.IntVar(&o.entries, "entries", 10, "multihashes of each advertisement")
	flags.IntVar(&o.chunk, "chunk", 16384, "multihashes of a chunk at most")
	flags.IntVar(&o.digest, "digest", 32, "bytes of the digest in a block's CID: 32, as go-libipni has it, or 16")
	flags.Uint64Var(&o.seed, "seed", 1, "what its key and its multihashes follow from")
	flags.BoolVar(&o.http, "http", false, "serve over HTTP, with libp2p's well-known resource")
	flags.BoolVar(&o.plain, "plain", false, "serve over HTTP by a server of net/http, which knows nothing of libp2p")
	flags.StringVar(&o.path, "path", "", "the path before /ipni/v1/ad")
	flags.BoolVar(&o.stream, "stream", false, "serve over streams of libp2p")
	flags.StringVar(&o.topic, "topic", "/indexer/ingest/test", "the topic of its announcements and its heads")
}

func (o *publisherOptions) key() (crypto.PrivKey, error) {
	return newKey(o.seed)
}

// publishing is a publisher of go-libipni and the chain that it serves.
type publishing struct {
	host     host.Host
	blocks   *blockStore
	chain    *chain
	entries  int
	own      *ipnisync.Publisher
	addrs    []multiaddr.Multiaddr
	requests atomic.Uint64
	gossip   *p2psender.Sender
}

// add makes a host a publisher of go-libipni. The event ready tells its head, and under publisher where it serves.
//
//	append N [ENTRIES]         N more advertisements; the result is the head
//	remove N                   an advertisement that takes back the one at this place of the chain, counted from 0
//	head                       the CID of the head, and the length of the chain
//	chain                      the CIDs of all advertisements, the head first
//	announce-gossip [ADDR...]  announces the head on the topic, at these addresses or where it serves; dial somebody first
//	announce-http URL [ADDR..] announces the head by PUT, in CBOR
//	announce-json URL [ADDR..] announces the head by PUT, in JSON
//	served                     blocks that were asked for, by what syncers said they were; requests in all of -plain
func (o *publisherOptions) add(host host.Host, commands map[string]command, ready map[string]any) error {
	p := &publishing{
		host: host, entries: o.entries,
		blocks: newBlockStore(dssync.MutexWrap(datastore.NewMapDatastore())),
	}
	links, err := linksOf(o.digest)
	if err != nil {
		return err
	}
	key := host.Peerstore().PrivKey(host.ID())
	if err := p.serve(o, key); err != nil {
		return fmt.Errorf("starting the publisher: %w", err)
	}
	p.chain = &chain{system: p.blocks.linkSystem(), links: links, key: key, seed: o.seed, perChunk: o.chunk}
	if err := p.extend(o.ads, o.entries); err != nil {
		return err
	}
	if err := p.join(o.topic); err != nil {
		return err
	}
	commands["append"] = p.appendAds
	commands["remove"] = p.removeAd
	commands["head"] = func(context.Context, []string) (any, error) { return p.head(), nil }
	commands["chain"] = func(context.Context, []string) (any, error) { return p.cids() }
	commands["announce-gossip"] = func(ctx context.Context, args []string) (any, error) {
		return p.announce(ctx, p.gossip, args)
	}
	commands["announce-http"] = func(ctx context.Context, args []string) (any, error) {
		return p.announceHTTP(ctx, args, false)
	}
	commands["announce-json"] = func(ctx context.Context, args []string) (any, error) {
		return p.announceHTTP(ctx, args, true)
	}
	commands["served"] = func(context.Context, []string) (any, error) {
		return map[string]any{"blocks": p.blocks.loaded(), "requests": p.requests.Load()}, nil
	}
	ready["publisher"], ready["head"], ready["length"] = p.fullAddrs(), cidOrNull(p.chain.cid()), p.chain.length
	return nil
}

// serve starts go-libipni's own server, or a server of net/http with its handler.
func (p *publishing) serve(o *publisherOptions, key crypto.PrivKey) error {
	system := p.blocks.linkSystem()
	options := []ipnisync.PubOption{ipnisync.WithHeadTopic(o.topic), ipnisync.WithHandlerPath(o.path)}
	if o.plain {
		if o.stream || o.http {
			return fmt.Errorf("-plain goes with neither -http nor -stream")
		}
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		options = append(options, ipnisync.WithStartServer(false), ipnisync.WithHTTPListenAddrs(listener.Addr().String()))
		if p.own, err = ipnisync.NewPublisher(system, key, options...); err != nil {
			return err
		}
		p.addrs = p.own.Addrs()
		go func() {
			_ = http.Serve(listener, http.HandlerFunc(func(answer http.ResponseWriter, request *http.Request) {
				p.requests.Add(1)
				p.own.ServeHTTP(answer, request)
			}))
		}()
		return nil
	}
	if o.http {
		options = append(options, ipnisync.WithHTTPListenAddrs("127.0.0.1:0"))
	}
	if o.stream {
		options = append(options, ipnisync.WithStreamHost(p.host))
	}
	own, err := ipnisync.NewPublisher(system, key, options...)
	if err != nil {
		return err
	}
	p.own, p.addrs = own, own.Addrs()
	return nil
}

// join takes part in the topic of announcements, as go-libipni sets it up.
func (p *publishing) join(name string) error {
	topic, _, err := gossiptopic.MakeTopic(p.host, name)
	if err != nil {
		return err
	}
	events, err := topic.EventHandler()
	if err != nil {
		return err
	}
	go tellMembers(context.Background(), name, events)
	p.gossip, err = p2psender.New(p.host, "", p2psender.WithTopic(topic))
	return err
}

func (p *publishing) extend(ads, entries int) error {
	for range ads {
		if err := p.chain.extend(entries, nil); err != nil {
			return err
		}
	}
	if p.chain.head != nil {
		p.own.SetRoot(p.chain.cid())
	}
	return nil
}

func (p *publishing) appendAds(_ context.Context, args []string) (any, error) {
	if len(args) < 1 || len(args) > 2 {
		return nil, fmt.Errorf("how many advertisements, and of how many entries?")
	}
	ads, err := strconv.Atoi(args[0])
	if err != nil {
		return nil, err
	}
	entries := p.entries
	if len(args) == 2 {
		if entries, err = strconv.Atoi(args[1]); err != nil {
			return nil, err
		}
	}
	if err := p.extend(ads, entries); err != nil {
		return nil, err
	}
	return p.head(), nil
}

func (p *publishing) removeAd(_ context.Context, args []string) (any, error) {
	text, err := one(args)
	if err != nil {
		return nil, err
	}
	place, err := strconv.Atoi(text)
	if err != nil {
		return nil, err
	}
	if err := p.chain.extend(0, &place); err != nil {
		return nil, err
	}
	p.own.SetRoot(p.chain.cid())
	return p.head(), nil
}

func (p *publishing) head() any {
	return map[string]any{"head": cidOrNull(p.chain.cid()), "length": p.chain.length}
}

func (p *publishing) cids() (any, error) {
	cids := []string{}
	for next := p.chain.cid(); next != cid.Undef; {
		cids = append(cids, next.String())
		ad, err := advertisement(p.blocks, next)
		if err != nil {
			return nil, err
		}
		next = ad.PreviousCid()
	}
	return cids, nil
}

func (p *publishing) announceHTTP(ctx context.Context, args []string, json bool) (any, error) {
	if len(args) == 0 {
		return nil, fmt.Errorf("to which URL?")
	}
	to, err := url.Parse(args[0])
	if err != nil {
		return nil, err
	}
	sender, err := httpsender.New([]*url.URL{to}, p.host.ID())
	if err != nil {
		return nil, err
	}
	defer sender.Close()
	if json {
		return p.announce(ctx, jsonSender{sender}, args[1:])
	}
	return p.announce(ctx, sender, args[1:])
}

// jsonSender sends what go-libipni would send in CBOR as JSON, by its own code.
type jsonSender struct{ *httpsender.Sender }

func (s jsonSender) Send(ctx context.Context, announcement message.Message) error {
	return s.SendJson(ctx, announcement)
}

func (p *publishing) announce(ctx context.Context, sender announce.Sender, at []string) (any, error) {
	addrs := p.addrs
	if len(at) > 0 {
		addrs = nil
	}
	for _, text := range at {
		addr, err := multiaddr.NewMultiaddr(text)
		if err != nil {
			return nil, err
		}
		addrs = append(addrs, addr)
	}
	if err := announce.Send(ctx, p.chain.cid(), addrs, sender); err != nil {
		return nil, err
	}
	return map[string]any{"head": cidOrNull(p.chain.cid()), "addrs": addrs}, nil
}

// fullAddrs gives where it serves, each with its peer id.
func (p *publishing) fullAddrs() []string {
	addrs := []string{}
	for _, addr := range p.addrs {
		text := addr.String()
		if !strings.Contains(text, "/p2p/") {
			text = fmt.Sprintf("%s/p2p/%s", text, p.host.ID())
		}
		addrs = append(addrs, text)
	}
	return addrs
}

// addrInfos reads addresses, separated by commas, that all name the same peer.
func addrInfos(list string) (peer.AddrInfo, error) {
	var addrs []multiaddr.Multiaddr
	for _, text := range strings.Split(list, ",") {
		addr, err := multiaddr.NewMultiaddr(text)
		if err != nil {
			return peer.AddrInfo{}, err
		}
		addrs = append(addrs, addr)
	}
	infos, err := peer.AddrInfosFromP2pAddrs(addrs...)
	if err != nil {
		return peer.AddrInfo{}, err
	}
	if len(infos) != 1 {
		return peer.AddrInfo{}, fmt.Errorf("addresses of one peer expected, not of %d", len(infos))
	}
	return infos[0], nil
}
