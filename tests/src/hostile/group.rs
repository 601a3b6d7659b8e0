//! What a hostile peer says in a group: heads, digests and pages that no honest member makes.
//!
//! [`Writer`] signs publications as it likes; [`update`] and [`digest`] are messages on the group's [`topic`]. With
//! [`Hostile::answer_group`] it answers the requests of members, with [`Hostile::ask_group`] it makes some.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use cid::Cid;
use dagmesh::dag::{Block, Blockstore, MemoryBlockstore};
use dagmesh_chronosync::{
    Answer, Body, Cursor, Entry, Gossip, GroupHead, GroupId, HeadBytes, HeadList, Page, Payload, Request, Summary,
    Update, net,
};
use dagmesh_core::{frame::FrameReader, limits};
use futures::{AsyncWriteExt, StreamExt};
use libp2p::{PeerId, identity::Keypair};
use tokio::task::JoinHandle;

use super::{Hostile, play, script};
use crate::peer::SOON;

/// A state that nobody has: ahead of all that a test makes.
pub const AHEAD: Summary = Summary { members: 0, root: [0xee; 32], leaves: 1000, sum: 1_000_000 };

/// The clock, in Unix milliseconds.
pub fn unix_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a time after 1970");
    now.as_millis() as u64
}

/// A group's topic.
pub fn topic(group: &GroupId) -> String {
    let hex = group.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    format!("/dagmesh/groups/{hex}")
}

/// A producer of a group that numbers and links its publications as it likes.
#[derive(Clone)]
pub struct Writer {
    /// Signs.
    pub key: Keypair,
    /// Where.
    pub group: GroupId,
    /// In which session.
    pub session: u64,
    /// Its entries.
    pub store: Arc<MemoryBlockstore>,
    /// The newest of them.
    pub last: Option<Cid>,
    /// How many there are.
    pub number: u64,
}

impl Writer {
    /// A producer that has said nothing, with a session of now.
    pub fn new(key: &Keypair, group: GroupId) -> Self {
        Self { key: key.clone(), group, session: unix_ms(), store: Arc::default(), last: None, number: 0 }
    }

    /// Who it is.
    pub fn producer(&self) -> PeerId {
        self.key.public().to_peer_id()
    }

    /// Appends an entry to its chain, and says nothing yet.
    pub fn append(&mut self, text: &str) -> Block {
        let entry = Entry { previous: self.last, time: unix_ms(), body: Body::Text(text.to_owned()) };
        let block = entry.to_block().expect("a block");
        self.store.put(&block).expect("a store in memory");
        self.last = Some(*block.cid());
        self.number += 1;
        block
    }

    /// Appends an entry; the head that an honest producer signs for it.
    pub fn say(&mut self, text: &str) -> GroupHead {
        let block = self.append(text);
        self.head(self.number, Entry::payload(&block).expect("an entry"))
    }

    /// Signs any number with any payload.
    pub fn head(&self, number: u64, payload: Payload) -> GroupHead {
        GroupHead::sign(&self.key, &self.group, self.session, number, payload, unix_ms()).expect("a head")
    }
}

/// The head with another producer's key in the place of its own; its signature is none of that key.
pub fn in_the_name_of(head: &GroupHead, other: &PeerId) -> Vec<u8> {
    // The id of an ed25519 key is the key itself, behind two bytes.
    let key = |peer: &PeerId| peer.to_bytes().split_off(2);
    let (bytes, own) = (head.encode(), key(&head.producer()));
    let at = bytes.windows(own.len()).position(|window| window == own).expect("its key");
    let (before, rest) = bytes.split_at(at);
    let (_, after) = rest.split_at(own.len());
    [before, &key(other), after].concat()
}

/// Heads as they travel, whatever they are.
pub fn list(heads: &[&[u8]]) -> HeadList {
    let heads = heads.iter().map(|head| HeadBytes::new(head.to_vec()).expect("within the cap"));
    HeadList::new(heads.collect::<Vec<_>>()).expect("few")
}

/// A message that says that these heads are new.
pub fn update(heads: &[&[u8]]) -> Vec<u8> {
    let state = Summary { members: 0, root: [heads.len() as u8; 32], leaves: 1, sum: 1 };
    let update = Update { previous: [0; 32], state, changed: list(heads), vector: HeadList::default() };
    Gossip::Update(update).encode().expect("a message")
}

/// A heartbeat of a state that nobody has, another one for each number.
pub fn digest(number: u64) -> Vec<u8> {
    Gossip::Digest { state: unknown(number), bucket: number }.encode().expect("a message")
}

/// A state that nobody has, another one for each number.
pub fn unknown(number: u64) -> Summary {
    let mut root = [0xdd; 32];
    root[..8].copy_from_slice(&number.to_be_bytes());
    Summary { root, ..AHEAD }
}

/// A request that brings these heads.
pub fn bringing(heads: &[&[u8]]) -> Vec<u8> {
    let from = Cursor { base: [0; 32], after: None };
    Request::Recover { from, state: AHEAD, heads: list(heads), members: None }.encode().expect("a request")
}

/// An honest page but for what is in it.
pub fn page(heads: &[&[u8]]) -> Page {
    Page { state: AHEAD, difference: false, heads: list(heads), next: None, members: None }
}

/// Answers of a hostile node to requests of members; counts those. Ends when dropped.
pub struct Answering {
    asked: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Answering {
    /// How many requests have come.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Hostile {
    /// Answers requests about groups with what `script` makes of each; `nth` counts from 0.
    pub fn answer_group(
        &self,
        script: impl Fn(usize, &Request) -> script::Answer + Send + Sync + 'static,
    ) -> Answering {
        let mut streams = self.streams().accept(net::PROTOCOL).expect("a protocol that is not served yet");
        let asked = Arc::new(AtomicUsize::new(0));
        let (count, script) = (Arc::clone(&asked), Arc::new(script));
        let task = tokio::spawn(async move {
            while let Some((_, stream)) = streams.next().await {
                let (count, script) = (Arc::clone(&count), Arc::clone(&script));
                tokio::spawn(async move {
                    let mut reader = FrameReader::new(stream, limits::MAX_GROUP_MESSAGE_BYTES + 32);
                    let Ok(Some(request)) = reader.next().await else { return };
                    let request =
                        Request::decode(request.get(32..).expect("a group")).expect("an honest member's request");
                    let answer = script(count.fetch_add(1, Ordering::Relaxed), &request);
                    play(reader.into_inner().0, answer, &script::Exchange::default()).await;
                });
            }
        });
        Answering { asked, task }
    }

    /// The same, with answers that can be encoded.
    pub fn answer_pages(&self, script: impl Fn(usize, &Request) -> Answer + Send + Sync + 'static) -> Answering {
        self.answer_group(move |nth, request| {
            let answer = script(nth, request).encode().expect("an answer");
            script::steps([script::framed(&[&answer])])
        })
    }

    /// Sends a member bytes as a request about a group, behind their length; its answer, or that it gave none.
    pub async fn ask_group(&self, peer: PeerId, group: &GroupId, request: &[u8]) -> Option<Answer> {
        self.ask_group_raw(peer, script::framed(&[group.as_bytes(), request])).await
    }

    /// Sends a member any bytes as a request.
    pub async fn ask_group_raw(&self, peer: PeerId, step: script::Step) -> Option<Answer> {
        let script::Step::Bytes(bytes) = step else { panic!("bytes are sent") };
        let asking = async {
            let mut stream = self.streams().open_stream(peer, net::PROTOCOL).await.ok()?;
            stream.write_all(&bytes).await.ok()?;
            stream.flush().await.ok()?;
            let answer = FrameReader::new(stream, limits::MAX_GROUP_MESSAGE_BYTES).next().await.ok()??;
            Some(Answer::decode(&answer).expect("an honest member's answer"))
        };
        tokio::time::timeout(SOON, asking).await.expect("an end of the request in time")
    }
}
