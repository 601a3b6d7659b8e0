//! The digest tree: one digest that is equal where two states are.
//!
//! Leaves are sorted by the hash of their producer's name, then by session, and hang in 256 buckets by the first byte of
//! that hash; 16 buckets under a node, 16 nodes under the root. A change of one leaf of 10,000 hashes that leaf, the
//! about 40 of its bucket (1.3 KiB), and twice 16 digests. Names are hashes, so buckets fill evenly; who grinds keys
//! into one bucket gets a bucket, never a tree, as slow as the whole list.

use multihash_codetable::{Code, MultihashDigest};

use crate::head::LeafKey;

/// A SHA-256 digest: of a leaf, a node, or a state.
pub type Digest = [u8; 32];

const BUCKETS: usize = 256;
const FANOUT: usize = 16;

pub(crate) fn sha256(bytes: &[u8]) -> Digest {
    // SHA-256 has 32 bytes; the code of the table cannot say so in its type.
    Code::Sha2_256.digest(bytes).digest().try_into().unwrap_or_default()
}

/// The digest of a leaf: SHA-256 over the name's hash, the session and the sequence, eight bytes each, big endian.
pub(crate) fn leaf(key: &LeafKey, sequence: u64) -> Digest {
    sha256(&[&key.name[..], &key.session.to_be_bytes(), &sequence.to_be_bytes()].concat())
}

/// Digests of all buckets and nodes. Leaves are kept by their owner.
#[derive(Debug, Clone)]
pub(crate) struct Tree {
    buckets: Vec<Digest>,
    nodes: Vec<Digest>,
    root: Digest,
}

impl Tree {
    pub(crate) fn new() -> Self {
        let mut tree =
            Self { buckets: vec![sha256(&[]); BUCKETS], nodes: vec![Digest::default(); FANOUT], root: [0; 32] };
        tree.update((0..=u8::MAX).map(|bucket| (bucket, Vec::new())));
        tree
    }

    pub(crate) fn root(&self) -> Digest {
        self.root
    }

    /// Takes the leaves' digests, in order, of each bucket that has changed.
    pub(crate) fn update(&mut self, changed: impl Iterator<Item = (u8, Vec<Digest>)>) {
        let mut touched = [false; FANOUT];
        for (index, leaves) in changed {
            let index = usize::from(index);
            if let (Some(bucket), Some(touched)) = (self.buckets.get_mut(index), touched.get_mut(index / FANOUT)) {
                *bucket = sha256(&leaves.concat());
                *touched = true;
            }
        }
        let nodes = self.nodes.iter_mut().zip(self.buckets.chunks(FANOUT)).zip(touched);
        for ((node, below), _) in nodes.filter(|(_, touched)| *touched) {
            *node = sha256(&below.concat());
        }
        self.root = sha256(&self.nodes.concat());
    }
}
