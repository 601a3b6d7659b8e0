//! What waits for the disk, in the order in which the machine wanted it.

use std::collections::VecDeque;

use cid::Cid;
use dagmesh_chronosync::{Event, GroupHead, LeafKey, MemberList, PersistId};
use dagmesh_core::limits;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::store::GroupContent;

/// One thing to be written, or to be told once what came before it is written.
#[derive(Debug)]
pub(super) enum Work {
    /// A session of ours is to be durable.
    Session(PersistId, u64),
    /// A head of ours is to be durable, with its entry.
    Head(PersistId, Box<GroupHead>),
    /// Heads of others.
    Store(Vec<GroupHead>),
    /// The list of members.
    Members(MemberList),
    /// Something happened.
    Event(Event),
    /// The entries of a session up to its head are held, as far as they can be had.
    Chain(Box<Chain>),
    /// Contents of a session that are whole, and one that never will be, with the reason.
    Contents(LeafKey, Vec<(u64, GroupContent)>, Option<(u64, String)>),
}

/// What a producer's chain holds below a head.
#[derive(Debug)]
pub(super) struct Chain {
    pub(super) key: LeafKey,
    /// The head's number, and its entry.
    pub(super) head: (u64, Cid),
    /// The last number that was told when this was looked for.
    pub(super) after: u64,
    /// The entries, oldest first; the last one is the head's, and each has one number more than the one before.
    pub(super) entries: Vec<Link>,
    /// Why there are fewer than numbers.
    pub(super) reason: Option<String>,
}

/// One entry of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) entry: Cid,
    /// The DAG that it publishes, where that is no text.
    pub(super) content: Option<Cid>,
}

impl Work {
    /// Heads, entries and events in it.
    fn weight(&self) -> usize {
        match self {
            Self::Store(heads) => heads.len().max(1),
            Self::Chain(chain) => chain.entries.len().max(1),
            _ => 1,
        }
    }
}

/// Work in order. Adding to it never waits; who takes in messages from the network waits for [`room`](Self::room) first,
/// so that it holds no more than [`limits::GROUP_WRITE_QUEUE`] and what the messages being judged bring.
pub(super) struct Backlog {
    queue: Mutex<VecDeque<Work>>,
    weight: watch::Sender<usize>,
    ready: Notify,
}

impl Backlog {
    pub(super) fn new() -> Self {
        Self { queue: Mutex::default(), weight: watch::Sender::new(0), ready: Notify::new() }
    }

    pub(super) fn push(&self, work: Work) {
        self.weight.send_modify(|weight| *weight += work.weight());
        self.queue.lock().push_back(work);
        self.ready.notify_one();
    }

    /// Waits until there is something, and takes as much of it as one transaction should hold.
    pub(super) async fn take(&self) -> Vec<Work> {
        loop {
            let mut taken = Vec::new();
            let mut weight = 0;
            {
                let mut queue = self.queue.lock();
                while weight < limits::GROUP_WRITE_QUEUE
                    && let Some(work) = queue.pop_front()
                {
                    weight += work.weight();
                    taken.push(work);
                }
            }
            if !taken.is_empty() {
                self.weight.send_modify(|left| *left = left.saturating_sub(weight));
                return taken;
            }
            self.ready.notified().await;
        }
    }

    /// Waits until there is room for more from the network.
    pub(super) async fn room(&self) {
        // The sender lives as long as this does.
        let _ = self.weight.subscribe().wait_for(|weight| *weight < limits::GROUP_WRITE_QUEUE).await;
    }
}

#[cfg(test)]
mod tests {
    use dagmesh_chronosync::Event;
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn room_ends_at_the_cap_and_comes_back_as_work_is_taken() {
        let backlog = Backlog::new();
        for _ in 0..limits::GROUP_WRITE_QUEUE - 1 {
            backlog.push(Work::Event(Event::Initialized));
        }
        assert!(backlog.room().now_or_never().is_some(), "one below the cap");
        backlog.push(Work::Event(Event::Initialized));
        assert!(backlog.room().now_or_never().is_none(), "at the cap");
        assert_eq!(backlog.take().await.len(), limits::GROUP_WRITE_QUEUE);
        assert!(backlog.room().now_or_never().is_some());
        assert!(backlog.take().now_or_never().is_none(), "nothing is left");
    }
}
