//! Damage on the disk (row 34 of the table of faults) is found, put aside, and healed by putting the block again.

use dagmesh_core::cbor;
use dagmesh_dag::FeedName;
use dagmesh_ipnisync::Advertisement;
use libp2p::identity::Keypair;

use super::{tables::entry, *};

/// Overwrites a stored block, as a disk that rots would.
fn damage(store: &Store, block: &Block) {
    let mut bytes = block.data().to_vec();
    bytes[0] ^= 1;
    store.engine.keyspaces.blocks.journalled().insert(block.cid().hash().to_bytes(), bytes).expect("inserts");
}

#[test]
fn row_34_a_flipped_bit_is_found_and_the_block_can_come_again() {
    let store = TempStore::new();
    let blocks: Vec<_> = (0..3_000).map(|n| raw(format!("block {n}"))).collect();
    store.put_many(&blocks).expect("puts");
    damage(&store, &blocks[1_234]);
    let mut steps = Vec::new();
    let report = store.verify(|progress| steps.push(progress.blocks)).expect("verifies");
    assert_eq!((report.blocks, report.damaged, report.missing), (3_000, 1, 0));
    assert_eq!(report.damaged_cids, [*blocks[1_234].cid()]);
    assert!(steps.len() >= 3 && steps.is_sorted(), "{steps:?}");
    assert!(!store.has(blocks[1_234].cid()).expect("has"));
    assert_eq!(store.damaged().expect("reads"), [*blocks[1_234].cid()]);
    let aside = store.engine.keyspaces.quarantine.get(blocks[1_234].cid().hash().to_bytes()).expect("gets");
    assert_eq!(aside.map(|bytes| bytes.len()), Some(blocks[1_234].data().len()), "its bytes are kept aside");
    assert_eq!(store.put_many(&blocks).expect("puts"), 1);
    assert_eq!(store.damaged().expect("reads"), [], "it is held again");
    assert!(store.verify(|_| ()).expect("verifies").is_sound());
}

#[test]
fn row_34_a_sampled_read_puts_a_damaged_block_aside() {
    let store = TempStore::new();
    let block = raw("block");
    store.put(&block).expect("puts");
    damage(&store, &block);
    assert_eq!(store.verified_block(block.cid()).expect("reads"), None);
    assert!(!store.has(block.cid()).expect("has"));
    assert_eq!(store.stat().quarantined, 1);
}

#[test]
fn what_is_missing_below_a_root_is_listed() {
    let store = TempStore::new();
    let key = Keypair::generate_ed25519();
    let (leaf, lost) = (raw("leaf"), raw("lost"));
    let root = cbor::to_vec(&[*leaf.cid(), *lost.cid()]).expect("encodes");
    let root = Block::new(Codec::DagCbor, HashCode::Sha2_256, root).expect("a block");
    store.put_many(&[root.clone(), leaf]).expect("puts");
    let (first, head) = entry(&key, None, root.cid());
    store.publish_entry(&first, &head).expect("publishes");
    let report = store.verify(|_| ()).expect("verifies");
    assert_eq!((report.missing, report.missing_cids.as_slice()), (1, [*lost.cid()].as_slice()));
    assert!(!report.is_sound());
    store.put(&lost).expect("puts");
    assert!(store.verify(|_| ()).expect("verifies").is_sound());

    // A follow whose depth ends its chain early lacks nothing; one without does.
    let other = Keypair::generate_ed25519();
    let (_, absent) = entry(&other, None, raw("absent").cid());
    let (newest, newest_head) = entry(&other, Some(&absent), root.cid());
    store.put(&newest).expect("puts");
    let with = |depth| FollowRecord {
        policy: FollowPolicy { depth, ..FollowPolicy::default() },
        latest: Some(*newest.cid()),
        ..FollowRecord::default()
    };
    let publisher = newest_head.publisher();
    store.set_follow(&publisher, &FeedName::default(), &with(Some(1))).expect("follows");
    assert!(store.verify(|_| ()).expect("verifies").is_sound());
    store.set_follow(&publisher, &FeedName::default(), &with(None)).expect("follows");
    assert_eq!(store.verify(|_| ()).expect("verifies").missing_cids, [*absent.head()]);
    // A depth that is lifted later brings nothing back.
    let cut = FollowRecord { cut: true, ..with(None) };
    store.set_follow(&publisher, &FeedName::default(), &cut).expect("follows");
    assert!(store.verify(|_| ()).expect("verifies").is_sound());
}

#[test]
fn of_a_chain_that_is_being_followed_only_the_entries_to_be_kept_can_be_missing() {
    let (store, key) = (TempStore::new(), Keypair::generate_ed25519());
    let mut chain: Vec<Block> = Vec::new();
    for n in 0..4 {
        let entries = raw([n]);
        let mut ad = Advertisement {
            previous_id: chain.last().map(|ad| *ad.cid()),
            provider: key.public().to_peer_id().to_string(),
            addresses: Vec::new(),
            signature: Vec::new(),
            entries: *entries.cid(),
            context_id: Vec::new(),
            metadata: Vec::new(),
            is_rm: false,
            extended_provider: None,
        };
        ad.sign(&key).expect("signs");
        chain.push(ad.to_block(Codec::DagJson).expect("a block"));
        if n >= 2 {
            store.put(&entries).expect("puts");
        }
    }
    store.put_many(&chain).expect("puts");
    let (feed, publisher) = (FeedName::new("ipni:mainnet").expect("a name"), key.public().to_peer_id());
    let missing = |latest: usize, newest: Option<Cid>| {
        let policy = FollowPolicy { keep: Some(2), ..FollowPolicy::default() };
        let latest = Some(*chain[latest].cid());
        let record = FollowRecord { policy, latest, newest_entry: newest, ..FollowRecord::default() };
        store.set_follow(&publisher, &feed, &record).expect("follows");
        store.verify(|_| ()).expect("verifies").missing
    };
    assert_eq!(missing(3, None), 0);
    assert_eq!(missing(1, Some(*chain[3].cid())), 0, "`latest` is on its way past those that are not kept");
    assert_eq!(missing(2, Some(*chain[3].cid())), 0);
    assert_eq!(missing(2, Some(*chain[2].cid())), 1);
    assert_eq!(missing(1, Some(*raw("a head that is not fetched yet").cid())), 0);
    assert_eq!(missing(1, None), 2);
}

#[test]
fn row_34_a_bit_flipped_in_the_file_of_a_block_is_found_by_reading_it() {
    let store = TempStore::new();
    let (sound, hit) = (raw(vec![1; 100_000]), raw(vec![2; 100_000]));
    store.put_many(&[sound.clone(), hit.clone()]).expect("puts");
    store.sync().expect("syncs");
    store.engine.flush_blocks().expect("flushes");
    let TempStore { store, dir } = store;
    drop(store);
    let flipped = flip_in_files(dir.path(), &[2; 1_000]);
    assert!(flipped > 0, "the block's bytes stand in some file");
    let store = TempStore { store: open(dir.path()), dir };
    assert_eq!(store.get(hit.cid()).expect("reads"), None);
    assert!(!store.has(hit.cid()).expect("has"), "it counts as not held");
    assert_eq!(store.damaged().expect("reads"), [*hit.cid()], "also where its bytes could not be read");
    assert_eq!(store.verified_block(sound.cid()).expect("reads").as_ref(), Some(&sound));
    store.put(&hit).expect("puts");
    assert_eq!(store.verified_block(hit.cid()).expect("reads").as_ref(), Some(&hit));
    assert!(store.verify(|_| ()).expect("verifies").is_sound());
}

/// Flips a bit in the middle of each occurrence of `pattern` in a file that is no journal; how many.
pub(super) fn flip_in_files(dir: &Path, pattern: &[u8]) -> usize {
    let mut flipped = 0;
    for entry in std::fs::read_dir(dir).expect("lists") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            flipped += flip_in_files(&path, pattern);
        } else if path.extension().is_none_or(|extension| extension != "jnl") {
            let mut bytes = std::fs::read(&path).expect("reads");
            if let Some(at) = bytes.windows(pattern.len()).position(|window| window == pattern) {
                bytes[at + pattern.len() / 2] ^= 1;
                std::fs::write(&path, bytes).expect("writes");
                flipped += 1;
            }
        }
    }
    flipped
}
