//! How a chain of advertisements is followed, and what its entries say.

use cid::Cid;
use dagmesh_dag::{Block, Blockstore, Digests, FeedName, StoreError};
use dagmesh_dagsync::feed_sync::{Link, Schema};
use dagmesh_ipnisync::{Advertisement, NO_ENTRIES, Signers};

/// The field that links an advertisement to the one before it.
pub(crate) const PREVIOUS: &str = "PreviousID";
/// What the name of a followed chain begins with; the name of its network follows. Own feeds may not be named so.
const PREFIX: &str = "ipni:";

/// Advertisements of the IPNI network.
pub(crate) const ADS: Schema = Schema {
    field: PREVIOUS,
    read: |block| {
        let ad = Advertisement::from_block(block).map_err(|error| error.to_string())?;
        Ok(Link { seq: None, previous: ad.previous_id, content: ad.entries })
    },
    accept: |block| check(block).map(drop),
    grows: false,
    digests: Digests::OrCut,
};

/// The name under which the chain of a publisher in this network is followed.
pub(crate) fn feed_of(network: &str) -> Option<FeedName> {
    FeedName::new(&format!("{PREFIX}{network}")).ok()
}

/// The network whose chain is followed under this name; `None` where it is one of our own kind of feed.
pub(crate) fn network_of(feed: &FeedName) -> Option<&str> {
    feed.as_str().strip_prefix(PREFIX)
}

/// The topic on which a network announces its heads.
pub(crate) fn topic(network: &str) -> String {
    format!("/indexer/ingest/{network}")
}

/// Reads an advertisement and checks all its signatures.
pub(crate) fn check(block: &Block) -> Result<(Advertisement, Signers), String> {
    let ad = Advertisement::from_block(block).map_err(|error| error.to_string())?;
    let signers = ad.verify().map_err(|error| error.to_string())?;
    Ok((ad, signers))
}

/// Sees to it that what stands for no entries is held, like any other entries: nobody serves it.
pub(crate) fn hold_no_entries(store: &dyn Blockstore) -> Result<(), StoreError> {
    if store.has(&NO_ENTRIES)? {
        return Ok(());
    }
    store.put(&Block::verify_with(NO_ENTRIES, Vec::new(), Digests::OrCut)?)
}

/// Whether `entry` stands in the chain from `latest` back, as far as that is held.
pub(crate) fn is_behind(store: &dyn Blockstore, latest: Cid, entry: &Cid) -> Result<bool, StoreError> {
    // What is new is not held: the usual answer costs one look.
    if latest == *entry {
        return Ok(true);
    }
    if !store.has(entry)? {
        return Ok(false);
    }
    let mut next = Some(latest);
    while let Some(cid) = next {
        if cid == *entry {
            return Ok(true);
        }
        let block = store.block(&cid)?;
        next = block.and_then(|block| Advertisement::from_block(&block).ok()).and_then(|ad| ad.previous_id);
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use dagmesh_dag::{Codec, MemoryBlockstore};
    use libp2p::identity::Keypair;

    use super::*;

    fn ad(key: &Keypair, previous: Option<Cid>) -> Block {
        let mut ad = Advertisement {
            previous_id: previous,
            provider: key.public().to_peer_id().to_string(),
            addresses: vec!["/ip4/127.0.0.1/tcp/4101".to_owned()],
            signature: Vec::new(),
            entries: NO_ENTRIES,
            context_id: vec![1],
            metadata: Vec::new(),
            is_rm: false,
            extended_provider: None,
        };
        ad.sign(key).expect("signs");
        ad.to_block(Codec::DagJson).expect("a block")
    }

    #[test]
    fn a_chain_is_followed_under_a_name_of_its_own() {
        let feed = feed_of("mainnet").expect("a name");
        assert_eq!((feed.as_str(), network_of(&feed)), ("ipni:mainnet", Some("mainnet")));
        assert_eq!(network_of(&FeedName::default()), None);
        assert_eq!(feed_of(&"n".repeat(200)), None);
        assert_eq!(topic("mainnet"), "/indexer/ingest/mainnet");
    }

    #[test]
    fn an_old_head_is_told_from_a_new_one() {
        let (key, store) = (Keypair::generate_ed25519(), MemoryBlockstore::new());
        let mut chain: Vec<Block> = Vec::new();
        for _ in 0..4 {
            chain.push(ad(&key, chain.last().map(|block| *block.cid())));
        }
        store.put_many(&chain[..3]).expect("puts");
        let at = |n: usize| *chain[n].cid();
        let behind = |entry: Cid| is_behind(&store, at(2), &entry).expect("a store");
        assert_eq!([0, 1, 2, 3].map(|n| behind(at(n))), [true, true, true, false]);
        let other = ad(&Keypair::generate_ed25519(), None);
        let fork = ad(&key, Some(*other.cid()));
        store.put_many(&[other, fork.clone()]).expect("puts");
        assert!(!behind(*fork.cid()), "it is held, and of another history");
    }

    #[test]
    fn an_advertisement_whose_signature_does_not_hold_is_refused_and_read_all_the_same() {
        let key = Keypair::generate_ed25519();
        let block = ad(&key, None);
        assert!((ADS.accept)(&block).is_ok());
        let mut forged = Advertisement::from_block(&block).expect("an advertisement");
        forged.metadata = vec![7];
        let forged = forged.to_block(Codec::DagJson).expect("a block");
        assert!((ADS.accept)(&forged).is_err());
        let read = (ADS.read)(&forged).expect("an advertisement");
        assert_eq!(read, Link { seq: None, previous: None, content: NO_ENTRIES });
    }

    #[test]
    fn no_entries_are_held_once_asked_for() {
        let store = MemoryBlockstore::new();
        hold_no_entries(&store).expect("puts");
        hold_no_entries(&store).expect("puts");
        assert_eq!(store.get(&NO_ENTRIES).expect("a store").as_deref(), Some(&[][..]));
    }
}
