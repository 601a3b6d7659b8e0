package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	"github.com/ipld/go-ipld-prime"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipni/go-libipni/dagsync/ipnisync"
	"github.com/ipni/go-libipni/ingest/schema"
	"github.com/ipni/go-libipni/metadata"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multihash"
)

// blockStore keeps blocks under their CIDs, and counts what is asked of it and what is put into it. What a publisher
// is asked for is told apart by the hint that go-libipni's syncers send along.
type blockStore struct {
	blocks datastore.Datastore

	mutex  sync.Mutex
	loads  map[string]uint64
	stores uint64
}

func newBlockStore(blocks datastore.Datastore) *blockStore {
	return &blockStore{blocks: blocks, loads: map[string]uint64{}}
}

// linkSystem reads and writes blocks as go-libipni expects it; what is absent is ErrNotExists, which becomes a 404.
func (s *blockStore) linkSystem() ipld.LinkSystem {
	system := cidlink.DefaultLinkSystem()
	system.StorageReadOpener = func(link ipld.LinkContext, to ipld.Link) (io.Reader, error) {
		s.countLoad(link.Ctx)
		block, err := s.get(to.(cidlink.Link).Cid)
		if errors.Is(err, datastore.ErrNotFound) {
			return nil, ipld.ErrNotExists{}
		}
		return bytes.NewReader(block), err
	}
	system.StorageWriteOpener = func(ipld.LinkContext) (io.Writer, ipld.BlockWriteCommitter, error) {
		var block bytes.Buffer
		return &block, func(link ipld.Link) error {
			s.mutex.Lock()
			s.stores++
			s.mutex.Unlock()
			return s.blocks.Put(context.Background(), key(link.(cidlink.Link).Cid), block.Bytes())
		}, nil
	}
	return system
}

func (s *blockStore) countLoad(ctx context.Context) {
	hint := "none"
	if ctx != nil {
		if told, err := ipnisync.CidSchemaFromCtx(ctx); err == nil && told != "" {
			hint = told
		}
	}
	s.mutex.Lock()
	s.loads[hint]++
	s.mutex.Unlock()
}

func (s *blockStore) get(id cid.Cid) ([]byte, error) {
	return s.blocks.Get(context.Background(), key(id))
}

func (s *blockStore) has(id cid.Cid) (bool, error) {
	return s.blocks.Has(context.Background(), key(id))
}

func (s *blockStore) stored() uint64 {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.stores
}

// loaded gives how often blocks were read, by the hint of what they are.
func (s *blockStore) loaded() map[string]uint64 {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	told := map[string]uint64{}
	for hint, count := range s.loads {
		told[hint] = count
	}
	return told
}

func key(id cid.Cid) datastore.Key {
	return datastore.NewKey(id.String())
}

// providerAddr is where the contents would be had that the advertisements tell of; nobody listens there.
const providerAddr = "/ip4/127.0.0.1/tcp/3104/http"

// chain is a chain of advertisements that grows at its head. What it holds follows from its seed alone.
type chain struct {
	system   ipld.LinkSystem
	links    cidlink.LinkPrototype
	key      crypto.PrivKey
	seed     uint64
	perChunk int

	length int
	head   ipld.Link
}

// newKey gives the key that belongs to a seed.
func newKey(seed uint64) (crypto.PrivKey, error) {
	secret := sha256.Sum256(binary.BigEndian.AppendUint64([]byte("dagmesh-interop-key"), seed))
	key, _, err := crypto.GenerateEd25519Key(bytes.NewReader(secret[:]))
	return key, err
}

// linksOf gives how blocks are named: DAG-JSON under sha2-256, its digest whole or cut to so many bytes.
func linksOf(digest int) (cidlink.LinkPrototype, error) {
	links := schema.Linkproto
	switch digest {
	case sha256.Size:
		return links, nil
	case 16:
		links.MhLength = digest
		return links, nil
	default:
		return links, fmt.Errorf("digests of %d bytes are not made here: 16 or 32", digest)
	}
}

// extend puts another advertisement at the head: of entries in chunks, of none, or one that removes what an earlier
// one, named by its place in the chain, brought.
func (c *chain) extend(entries int, remove *int) error {
	provider, err := peer.IDFromPrivateKey(c.key)
	if err != nil {
		return err
	}
	context := fmt.Sprintf("context-%d", c.length)
	if remove != nil {
		entries, context = 0, fmt.Sprintf("context-%d", *remove)
	}
	list, err := c.entryChunks(entries)
	if err != nil {
		return err
	}
	protocols := metadata.Default.New(metadata.IpfsGatewayHttp{})
	meta, err := protocols.MarshalBinary()
	if err != nil {
		return err
	}
	ad := schema.Advertisement{
		PreviousID: c.head, Provider: provider.String(), Addresses: []string{providerAddr}, Entries: list,
		ContextID: []byte(context), Metadata: meta, IsRm: remove != nil,
	}
	if err := ad.Sign(c.key); err != nil {
		return fmt.Errorf("signing an advertisement: %w", err)
	}
	if err := ad.Validate(); err != nil {
		return err
	}
	node, err := ad.ToNode()
	if err != nil {
		return err
	}
	head, err := c.system.Store(ipld.LinkContext{}, c.links, node)
	if err != nil {
		return err
	}
	c.head = head
	c.length++
	return nil
}

// cid is the head's, undefined where there is no advertisement yet.
func (c *chain) cid() cid.Cid {
	if c.head == nil {
		return cid.Undef
	}
	return c.head.(cidlink.Link).Cid
}

// entryChunks writes so many multihashes, and gives the first chunk of their list, which holds the last ones.
func (c *chain) entryChunks(entries int) (ipld.Link, error) {
	if entries == 0 {
		return schema.NoEntries, nil
	}
	var next ipld.Link
	for begin := 0; begin < entries; begin += c.perChunk {
		chunk := schema.EntryChunk{Next: next}
		for at := begin; at < min(begin+c.perChunk, entries); at++ {
			chunk.Entries = append(chunk.Entries, entry(c.seed, c.length, at))
		}
		node, err := chunk.ToNode()
		if err != nil {
			return nil, err
		}
		if next, err = c.system.Store(ipld.LinkContext{}, c.links, node); err != nil {
			return nil, err
		}
	}
	return next, nil
}

func entry(seed uint64, ad, at int) multihash.Multihash {
	name := fmt.Sprintf("entry %d of advertisement %d of %d", at, ad, seed)
	digest := sha256.Sum256([]byte(name))
	hash, err := multihash.Encode(digest[:], multihash.SHA2_256)
	if err != nil {
		panic(err)
	}
	return hash
}
