//! What killed daemons leave on their disks, against all that they ever told.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use dagmesh::{
    dag::{
        Blockstore, Entry,
        walk::{Found, closure},
    },
    store::{FrontierKey, Store, StoreOptions},
};
use dagmesh_tests::{assert_same_folder, make_folder, wait_for};
use serde_json::{Value, json};

use super::cycles::{FEEDS, Mesh, Watched};
use crate::support::{SOON, api_call, assert_sound, number, str_of};

/// The heads of one feed that anybody has been told of or has seen, by their numbers.
#[derive(Default)]
pub(super) struct Told {
    pub(super) heads: BTreeMap<u64, String>,
    /// The number of the folder that was published, where that was acknowledged.
    pub(super) folders: BTreeMap<u64, u64>,
    /// The newest number that the follower said it has whole.
    moved: u64,
}

impl Told {
    pub(super) fn add(&mut self, seq: u64, head: &str) {
        let before = self.heads.insert(seq, head.to_owned());
        assert!(before.as_deref().is_none_or(|before| before == head), "{seq} was {before:?}, and is {head} too");
    }

    pub(super) fn newest(&self) -> u64 {
        self.heads.last_key_value().map_or(0, |(seq, _)| *seq)
    }
}

impl Mesh {
    /// Keeps in mind what a daemon told of heads.
    pub(super) fn note(&mut self, events: &[Value]) {
        for event in events {
            let Some(told) = event["feed"].as_str().and_then(|feed| self.told.get_mut(feed)) else { continue };
            match str_of(event, "event") {
                "published" | "head_announced" => told.add(number(event, "seq"), str_of(event, "head")),
                "latest_moved" => {
                    told.add(number(event, "seq"), str_of(event, "entry"));
                    told.moved = told.moved.max(number(event, "seq"));
                }
                "equivocation" => panic!("a number was used twice: {event}"),
                _ => {}
            }
        }
    }

    /// Each number that anybody saw is on the publisher's disk, and all that its heads lead to.
    pub(super) fn look_at_publisher(&mut self) {
        let store = open(self.publisher.daemon.home());
        assert_store_is_sound(&store);
        let heads = store.own_heads().expect("its heads");
        assert_eq!(heads.len(), FEEDS.len());
        for head in heads {
            let told = self.told.get_mut(head.feed().as_str()).expect("a feed");
            assert!(head.seq() >= told.newest(), "{} was seen, and {} is left", told.newest(), head.seq());
            told.add(head.seq(), &head.head().to_string());
        }
    }

    /// What the follower said it has is there, and `latest` is not ahead of what is.
    pub(super) fn look_at_follower(&mut self) {
        let store = open(self.follower.daemon.home());
        assert_store_is_sound(&store);
        let follows = store.follows().expect("its follows");
        assert_eq!(follows.len(), FEEDS.len());
        for (publisher, feed, record) in follows {
            let told = self.told.get_mut(feed.as_str()).expect("a feed");
            assert!(record.latest_seq >= told.moved, "{} was told, and {} is left", told.moved, record.latest_seq);
            let latest = record.latest.expect("it was in sync once");
            told.add(record.latest_seq, &latest.to_string());
            let head = record.head().expect("a head");
            told.add(head.seq(), &head.head().to_string());
            let entry = store.block(&latest).expect("a look").expect("the latest entry");
            let entry = Entry::from_block(&entry).expect("an entry");
            assert_eq!(entry.seq, record.latest_seq);
            // Of the fleeting feed the newest content alone is wanted: that of an entry passed on the way to it is not.
            let wanted = (feed.as_str() == FEEDS[0] || head.seq() == entry.seq).then_some(entry.content);
            for found in closure(&*store, wanted) {
                let found = found.expect("a look");
                assert!(matches!(found, Found::Block(_)), "latest of {feed} is ahead of its closure: {found:?}");
            }
            store.load_frontier(&FrontierKey::Follow(publisher, feed)).expect("what was saved can be read");
        }
    }

    /// End to end: both have the same chains, and every content of theirs comes out as it was published.
    pub(super) async fn assert_all_is_there(&mut self) {
        let heads = open_heads(&mut self.publisher).await;
        self.publisher.restart().await;
        let publisher = self.publisher.daemon.addr("tcp");
        api_call(&self.follower.daemon, "connect", &json!({"addr": publisher})).await;
        wait_for(SOON, &format!("a follower in sync at {heads:?}"), async || {
            let follows = api_call(&self.follower.daemon, "follows", &json!({})).await;
            heads.iter().all(|(feed, seq)| {
                let at = |follow: &&Value| follow["feed"] == *feed && follow["latest_seq"] == *seq;
                follows.as_array().expect("follows").iter().any(|follow| at(&follow) && follow["state"] == "in_sync")
            })
        })
        .await;
        assert_sound(&self.publisher.daemon).await;
        assert_sound(&self.follower.daemon).await;
        for publisher in [true, false] {
            let mut contents = Vec::new();
            for (feed, seq) in &heads {
                let told = &self.told[feed];
                let victim = if publisher { &mut self.publisher } else { &mut self.follower };
                victim.daemon.kill9().await;
                let chain = chain(&open(victim.daemon.home()), &told.heads[seq]);
                assert!(chain.keys().copied().eq(1..=*seq), "from its first entry to its head there is no gap");
                for (seq, head) in &told.heads {
                    assert_eq!(chain[seq].0, *head, "entry {seq} of {feed}");
                }
                let kept = if publisher || feed == FEEDS[0] { *seq } else { 1 };
                let kept = chain.into_iter().rev().take(kept as usize);
                contents.extend(kept.map(|(seq, (_, content))| (told.folders.get(&seq).copied(), content)));
            }
            let victim = if publisher { &mut self.publisher } else { &mut self.follower };
            victim.restart().await;
            println!("{} contents are compared", contents.len());
            let (copy, source) = (self.folder.path().join("copy"), self.folder.path().join("source"));
            for (folder, content) in contents {
                api_call(&victim.daemon, "get", &json!({"cid": content, "output": copy, "overwrite": true})).await;
                let written =
                    std::fs::read_to_string(copy.join(NUMBER)).expect("its number").parse().expect("a number");
                assert!(folder.is_none_or(|folder| folder == written), "{content} was {folder:?}, and is {written}");
                make_source(&source, written);
                assert_same_folder(&source, &copy);
                std::fs::remove_dir_all(&copy).expect("removed");
            }
        }
    }
}

/// The store of a daemon that does not run.
pub(super) fn open(home: &Path) -> Arc<Store> {
    let mut options = StoreOptions::default();
    options.reserve_bytes = 0;
    Store::open_with(home.join("store"), &options).expect("a store that opens")
}

/// Each block matches its hash, nothing that a head, a follow's `latest` or a pin needs is missing, and the counters
/// agree with what is there.
fn assert_store_is_sound(store: &Store) {
    let report = store.verify(|_| ()).expect("verified");
    assert!(report.is_sound(), "{report:?}");
    assert_eq!((store.stat().blocks, store.stat().bytes), (report.blocks, report.bytes), "what is counted is there");
}

/// The numbers of the publisher's newest heads, by feed.
async fn open_heads(publisher: &mut Watched) -> BTreeMap<String, u64> {
    publisher.daemon.kill9().await;
    let heads = open(publisher.daemon.home()).own_heads().expect("its heads");
    heads.iter().map(|head| (head.feed().to_string(), head.seq())).collect()
}

/// Entries and contents of a chain, by number.
fn chain(store: &Store, head: &str) -> BTreeMap<u64, (String, String)> {
    let (mut chain, mut next) = (BTreeMap::new(), Some(head.parse().expect("a CID")));
    while let Some(cid) = next {
        let block = store.block(&cid).expect("a look").unwrap_or_else(|| panic!("entry {cid} is lost"));
        let entry = Entry::from_block(&block).expect("an entry");
        chain.insert(entry.seq, (cid.to_string(), entry.content.to_string()));
        next = entry.previous;
    }
    chain
}

/// The file that says which folder it is in.
const NUMBER: &str = "number";

/// Makes the folder of this number anew, the same each time.
pub(super) fn make_source(path: &Path, number: u64) {
    let _ = std::fs::remove_dir_all(path);
    make_folder(path, 10 + number as usize % 30, (256 + number * 370 % 3840) << 10, number);
    std::fs::write(path.join(NUMBER), number.to_string()).expect("written");
}
