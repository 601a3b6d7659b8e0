//! Feeds and blocks that no honest node makes, beside some that one does.

use std::sync::Arc;

use cid::{Cid, multihash::Multihash};
use dagmesh::dag::{Block, Blockstore, Codec, Entry, FeedName, HashCode, MemoryBlockstore, SignedHead};
use dagmesh_core::cbor;
use ipld_core::ipld::Ipld;
use libp2p::identity::Keypair;

/// A feed, and the blocks of it: the chain, and whatever is put beside it.
#[derive(Clone)]
pub struct Feed {
    key: Keypair,
    name: FeedName,
    store: Arc<MemoryBlockstore>,
    entries: Vec<Cid>,
}

impl Feed {
    /// The feed `main` of whoever has this key; empty.
    pub fn new(key: &Keypair) -> Self {
        Self { key: key.clone(), name: FeedName::default(), store: Arc::default(), entries: Vec::new() }
    }

    /// Another feed of the same publisher, empty, whose blocks are in the same store.
    pub fn beside(&self, name: FeedName) -> Self {
        Self { name, entries: Vec::new(), ..self.clone() }
    }

    /// Its blocks.
    pub fn store(&self) -> Arc<MemoryBlockstore> {
        Arc::clone(&self.store)
    }

    /// Its blocks as the trait that a server reads.
    pub fn blocks(&self) -> Arc<dyn Blockstore> {
        self.store()
    }

    /// The CIDs of its entries, oldest first.
    pub fn entries(&self) -> &[Cid] {
        &self.entries
    }

    /// Puts blocks beside the chain.
    pub fn put(&self, blocks: &[Block]) {
        self.store.put_many(blocks).expect("a store in memory");
    }

    /// Publishes an entry with this content; its head.
    pub fn publish(&mut self, content: Cid) -> SignedHead {
        self.append(content, None);
        self.head()
    }

    /// Adds an entry, and signs nothing yet.
    pub fn append(&mut self, content: Cid, meta: Option<Ipld>) {
        let seq = self.entries.len() as u64 + 1;
        let entry = Entry { previous: self.entries.last().copied(), seq, time: seq, content, meta };
        self.append_block(&entry.to_block().expect("an entry"));
    }

    /// Publishes an entry whose content is the first of these blocks; its head.
    pub fn publish_dag(&mut self, blocks: &[Block]) -> SignedHead {
        self.put(blocks);
        self.publish(*blocks.first().expect("a root").cid())
    }

    /// Publishes an entry with this text as its content; its head.
    pub fn publish_text(&mut self, text: &str) -> SignedHead {
        self.publish_dag(&[leaf(text)])
    }

    /// Publishes any block in the place of an entry; its head.
    pub fn publish_block(&mut self, entry: &Block) -> SignedHead {
        self.append_block(entry);
        self.head()
    }

    fn append_block(&mut self, entry: &Block) {
        self.put(std::slice::from_ref(entry));
        self.entries.push(*entry.cid());
    }

    /// The head of its newest entry.
    pub fn head(&self) -> SignedHead {
        self.sign(*self.entries.last().expect("an entry"), self.entries.len() as u64)
    }

    /// A head that says so, true or not.
    pub fn sign(&self, head: Cid, seq: u64) -> SignedHead {
        SignedHead::sign(&self.key, &self.name, head, seq, seq).expect("a head")
    }
}

// ---- Blocks ----------------------------------------------------------------------------------------------------

/// A raw block.
pub fn leaf(text: &str) -> Block {
    block(Codec::Raw, text.as_bytes().to_vec())
}

/// A list of links in DAG-CBOR.
pub fn node(links: &[Cid]) -> Block {
    let links = links.iter().map(|link| Ipld::Link(*link)).collect();
    block(Codec::DagCbor, cbor::to_vec(&Ipld::List(links)).expect("encodes"))
}

/// Any bytes as a block, under a CID that is right.
pub fn block(codec: Codec, data: Vec<u8>) -> Block {
    Block::new(codec, HashCode::Sha2_256, data).expect("a block")
}

/// A message in DAG-CBOR with another link in the place of `old`, also in DAG-CBOR that it carries as bytes.
pub fn with_link(message: &[u8], old: &Cid, new: &Cid) -> Vec<u8> {
    fn replace(value: Ipld, old: &Cid, new: &Cid) -> Ipld {
        match value {
            Ipld::Link(link) if link == *old => Ipld::Link(*new),
            Ipld::List(items) => Ipld::List(items.into_iter().map(|item| replace(item, old, new)).collect()),
            Ipld::Map(items) => {
                Ipld::Map(items.into_iter().map(|(name, item)| (name, replace(item, old, new))).collect())
            }
            Ipld::Bytes(bytes) => match cbor::from_slice::<Ipld>(&bytes) {
                Ok(inner @ Ipld::Map(_)) => Ipld::Bytes(cbor::to_vec(&replace(inner, old, new)).expect("encodes")),
                _ => Ipld::Bytes(bytes),
            },
            other => other,
        }
    }
    let value = cbor::from_slice(message).expect("DAG-CBOR");
    cbor::to_vec(&replace(value, old, new)).expect("encodes")
}

/// `layers` layers of two nodes each, every node linked to both of the layer below: 2^layers paths. The root is first.
pub fn diamonds(layers: usize) -> Vec<Block> {
    diamonds_over(layers, [leaf("left"), leaf("right")])
}

/// The same, down to these two.
pub fn diamonds_over(layers: usize, lowest: [Block; 2]) -> Vec<Block> {
    let mut below = lowest;
    let mut blocks = below.to_vec();
    for _ in 0..layers {
        let [left, right] = below.map(|block| *block.cid());
        below = [node(&[left, right]), node(&[right, left])];
        blocks.extend(below.clone());
    }
    blocks.push(node(&below.map(|block| *block.cid())));
    blocks.reverse();
    blocks
}

/// An identity block.
pub fn inline(data: &[u8]) -> Block {
    Block::new(Codec::Raw, HashCode::Identity, data.to_vec()).expect("an inline block")
}

/// A DAG-CBOR list of so many links, each inline and of eight bytes, so that 100,000 fit into a block.
pub fn many_inline_links(links: usize) -> Block {
    node(&vec![*inline(b"").cid(); links])
}

// ---- DAG-CBOR by hand --------------------------------------------------------------------------------------------

/// The head of an item: its major type, and the argument in the shortest form.
pub fn head(major: u8, argument: u64) -> Vec<u8> {
    let major = major << 5;
    let be = argument.to_be_bytes();
    match argument {
        0..=23 => vec![major | argument as u8],
        24..=0xff => vec![major | 24, be[7]],
        0x100..=0xffff => [&[major | 25], &be[6..]].concat(),
        0x1_0000..=0xffff_ffff => [&[major | 26], &be[4..]].concat(),
        _ => [&[major | 27], &be[..]].concat(),
    }
}

/// A text.
pub fn text(text: &str) -> Vec<u8> {
    [head(3, text.len() as u64), text.as_bytes().to_vec()].concat()
}

/// A link to a CID that is given by its bytes, whatever these are.
pub fn link(cid: &[u8]) -> Vec<u8> {
    [vec![0xd8, 0x2a], head(2, cid.len() as u64 + 1), vec![0], cid.to_vec()].concat()
}

/// A map with these keys and encoded values, in this order, right or not.
pub fn map(entries: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let body = entries.iter().flat_map(|(key, value)| [key.clone(), value.clone()].concat());
    head(5, entries.len() as u64).into_iter().chain(body).collect()
}

/// The first entry of a feed, with any bytes in the place of the link to its content.
pub fn entry_with(content: &[u8]) -> Block {
    let one = head(0, 1);
    let entries = [("seq", one.clone()), ("time", one), ("content", content.to_vec())];
    block(Codec::DagCbor, map(&entries.map(|(key, value)| (text(key), value))))
}

/// Lists inside one another, so deep, around a zero.
pub fn deep(levels: usize) -> Vec<u8> {
    [vec![0x81; levels], vec![0]].concat()
}

/// The bytes of a CID of version 1, whatever the parts are; no type of ours holds those over a bound.
pub fn cid_bytes(codec: u64, hash: u64, digest: &[u8]) -> Vec<u8> {
    [varint(1), varint(codec), varint(hash), varint(digest.len() as u64), digest.to_vec()].concat()
}

/// A CID with any hash and digest that the type holds.
pub fn cid(hash: u64, digest: &[u8]) -> Cid {
    Cid::new_v1(Codec::Raw as u64, Multihash::wrap(hash, digest).expect("at most 64 bytes"))
}

/// A CID of a block that nobody has, another one for each number, made without hashing.
pub fn cid_of(number: u64) -> Cid {
    cid(HashCode::Sha2_256 as u64, &[&[0; 24], &number.to_be_bytes()[..]].concat())
}

/// An unsigned varint.
pub fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}
