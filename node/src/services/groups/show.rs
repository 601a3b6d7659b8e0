//! What a group looks like to its user: its log, its members, its state, and what happens in it.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, atomic::Ordering},
};

use dagmesh_chronosync::{Body, Entry, LeafKey};
use dagmesh_core::limits;
use dagmesh_dag::Blockstore;
use data_encoding::HEXLOWER;
use futures::stream;
use libp2p::PeerId;
use tokio::sync::{broadcast, watch};

use super::member::Member;
use crate::{
    api::GroupEventStream,
    error::NodeError,
    store::{GroupContentState, GroupGap, GroupKey, GroupLeaf, GroupLogRow, Store},
    ticket::GroupTicket,
    types::{GroupEntry, GroupEvent, GroupHeadInfo, GroupInfo, GroupMember, GroupMembers, GroupState},
};

/// Rows of the log that one call lists at the most.
const MAX_LISTED: usize = 10_000;

impl Member {
    /// What it is.
    pub(super) async fn info(&self) -> Result<GroupInfo, NodeError> {
        let own = self.producer();
        let addrs = self.context.swarm.addrs().await?;
        let addrs = addrs.get(..addrs.len().min(limits::MAX_ANNOUNCEMENT_ADDRS)).unwrap_or_default();
        let ticket = GroupTicket::new(&self.name, self.owner, own, addrs)
            .map_err(|error| NodeError::other(format!("no ticket can be made: {error}")))?;
        Ok(GroupInfo {
            group: self.name.clone(),
            id: HEXLOWER.encode(self.group.as_bytes()),
            closed: self.owner.is_some(),
            owner: self.owner,
            writable: self.may_write(&own),
            initialized: *self.initialized.borrow(),
            peers: self.peers().len(),
            entries: self.entries.load(Ordering::Relaxed),
            ticket: ticket.to_string(),
        })
    }

    /// A part of its log.
    pub(super) async fn log(&self, from: Option<u64>, limit: usize) -> Result<Vec<GroupEntry>, NodeError> {
        if limit > MAX_LISTED {
            return Err(NodeError::usage(format!("at most {MAX_LISTED} entries are listed at once")));
        }
        let id = *self.group.as_bytes();
        let list = move |store: &Store| {
            let from = match from {
                Some(from) => from,
                None => store.group_log_end(&id)?.saturating_sub(limit as u64),
            };
            read_log(store, &id, from, limit)
        };
        self.context.blocking(list).await
    }

    /// Who is in it.
    pub(super) fn members(&self) -> GroupMembers {
        let connected: BTreeSet<PeerId> = self.peers().into_iter().collect();
        let mut newest: BTreeMap<PeerId, (u64, u64)> = BTreeMap::new();
        self.machine.look(|machine| {
            for head in machine.state().heads() {
                let newest = newest.entry(head.producer()).or_default();
                *newest = (head.session(), head.sequence()).max(*newest);
            }
        });
        let (version, listed) = self.list();
        let all: BTreeSet<PeerId> = connected.iter().chain(newest.keys()).chain(&listed).copied().collect();
        let member = |producer: PeerId| {
            let newest = newest.get(&producer).copied();
            GroupMember {
                producer,
                writer: self.may_write(&producer),
                connected: connected.contains(&producer),
                session: newest.map(|(session, _)| session),
                seq: newest.map_or(0, |(_, seq)| seq),
            }
        };
        GroupMembers { group: self.name.clone(), version, members: all.into_iter().map(member).collect() }
    }

    /// Its state.
    pub(super) fn state(&self) -> GroupState {
        let tracker = self.tracker.lock();
        let told = |key: &LeafKey| tracker.leaves.get(key).map_or(0, |leaf| leaf.progress.told);
        let missing = tracker.leaves.values().map(super::tracker::Leaf::missing).sum();
        self.machine.look(|machine| {
            let (summary, state) = (machine.state().summary(), machine.state());
            let head = |head: &dagmesh_chronosync::GroupHead| GroupHeadInfo {
                producer: head.producer(),
                session: head.session(),
                seq: head.sequence(),
                told: told(&head.key()),
            };
            let mut heads: Vec<_> = state.heads().map(head).collect();
            heads.sort_unstable_by_key(|head| (head.producer, head.session));
            let members: BTreeSet<PeerId> = heads.iter().map(|head| head.producer).collect();
            GroupState {
                group: self.name.clone(),
                root: HEXLOWER.encode(&summary.root),
                leaves: summary.leaves,
                sum: summary.sum,
                members: members.len() as u64,
                peers: machine.peers().count(),
                initialized: machine.is_initialized(),
                ahead: machine.ahead(),
                missing,
                heads,
            }
        })
    }

    /// What happens in it: from this index of the log on, or from now.
    pub(super) async fn watch(self: &Arc<Self>, from: Option<u64>) -> Result<GroupEventStream, NodeError> {
        // Watched before the log is looked at, so that nothing is missed between.
        let (changes, live) = (self.changes.subscribe(), self.events.subscribe());
        let initialized = self.initialized.subscribe();
        let id = *self.group.as_bytes();
        let start = self.context.blocking(move |store| {
            Ok(match from {
                Some(from) => {
                    let before = store.group_gaps(&id, 0, usize::MAX)?;
                    let first = before.iter().find(|(_, gap)| gap.at >= from).map(|(number, _)| *number);
                    (from, first.map_or_else(|| store.group_gaps_end(&id), Ok)?, Vec::new())
                }
                None => {
                    let mut waiting = Vec::new();
                    for leaf in store.group_waiting(&id)? {
                        let rows = store.group_contents(&id, &leaf, WAITING.saturating_sub(waiting.len()))?;
                        waiting.extend(rows.into_iter().map(|(index, row)| (index, leaf, row.content)));
                    }
                    (store.group_log_end(&id)?, store.group_gaps_end(&id)?, waiting)
                }
            })
        });
        let (next, gap, waiting) = start.await?;
        let watcher = Watcher {
            member: Arc::clone(self),
            next,
            gap,
            waiting,
            ready: VecDeque::new(),
            changes,
            initialized: Some(initialized),
            live,
        };
        Ok(Box::pin(stream::unfold(watcher, |mut watcher| async move {
            let event = watcher.next().await?;
            Some((event, watcher))
        })))
    }
}

/// Contents that one watch waits for; of further ones it does not tell that they are whole.
const WAITING: usize = 4096;

/// Reads the log as fast as it is taken, so that whoever is slow misses nothing.
struct Watcher {
    member: Arc<Member>,
    /// The next row of the log, and the next gap.
    next: u64,
    gap: u64,
    /// Contents that were told of and may still become whole.
    waiting: Vec<(u64, GroupLeaf, cid::Cid)>,
    ready: VecDeque<GroupEvent>,
    changes: watch::Receiver<u64>,
    /// Until it is told.
    initialized: Option<watch::Receiver<bool>>,
    live: broadcast::Receiver<GroupEvent>,
}

impl Watcher {
    async fn next(&mut self) -> Option<GroupEvent> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            self.changes.mark_unchanged();
            if let Err(error) = self.read().await {
                tracing::warn!(group = self.member.name, %error, "the log of a group cannot be read; a watch of it ends");
                return None;
            }
            if !self.ready.is_empty() {
                continue;
            }
            // What stood in the log when the state became that of the others is told before.
            if self.initialized.take_if(|initialized| *initialized.borrow()).is_some() {
                return Some(GroupEvent::Initialized);
            }
            let initialized = async {
                match &mut self.initialized {
                    Some(initialized) => initialized.wait_for(|is| *is).await.map(drop).map_err(drop),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = self.changes.changed() => changed.ok()?,
                told = initialized => told.ok()?,
                event = self.live.recv() => match event {
                    Ok(event) => return Some(event),
                    Err(broadcast::error::RecvError::Lagged(missed)) => {
                        tracing::debug!(group = self.member.name, missed, "a watch of a group is slow");
                    }
                    Err(broadcast::error::RecvError::Closed) => return None,
                },
                () = self.member.context.stop.cancelled() => return None,
            }
        }
    }

    async fn read(&mut self) -> Result<(), NodeError> {
        let (id, next, gap) = (*self.member.group.as_bytes(), self.next, self.gap);
        let waiting = std::mem::take(&mut self.waiting);
        let read = move |store: &Store| {
            let entries = read_log(store, &id, next, limits::GROUP_LOG_ROWS)?;
            let gaps = store.group_gaps(&id, gap, limits::GROUP_LOG_ROWS)?;
            let (mut still, mut ended) = (Vec::new(), Vec::new());
            let known = entries.iter().filter_map(|entry| {
                let LeafKey { name, session } = LeafKey::new(&entry.producer, entry.session);
                Some((entry.index, (name, session), entry.head?))
            });
            for (index, leaf, content) in waiting.into_iter().chain(known) {
                let head = content;
                match store.group_content(&id, &leaf, index)? {
                    GroupContentState::Whole => ended.push(GroupEvent::Fetched { index, head }),
                    GroupContentState::Broken(reason) => ended.push(GroupEvent::NotFetched { index, head, reason }),
                    GroupContentState::Waits if still.len() < WAITING => still.push((index, leaf, content)),
                    GroupContentState::Waits | GroupContentState::Gone => {}
                }
            }
            Ok((entries, gaps, still, ended))
        };
        let (entries, gaps, still, ended) = self.member.context.blocking(read).await?;
        self.waiting = still;
        let full = entries.len() >= limits::GROUP_LOG_ROWS;
        // A gap stands where the log was when it was found.
        let mut gaps = gaps.into_iter().peekable();
        for entry in entries {
            while let Some((number, gap)) = gaps.next_if(|(_, gap)| gap.at <= entry.index) {
                self.gap = number + 1;
                self.ready.extend(shown_gap(gap));
            }
            self.next = entry.index + 1;
            self.ready.push_back(GroupEvent::Entry(Box::new(entry)));
        }
        for (number, gap) in gaps.filter(|_| !full) {
            self.gap = number + 1;
            self.ready.extend(shown_gap(gap));
        }
        self.ready.extend(ended);
        Ok(())
    }
}

fn shown_gap(gap: GroupGap) -> Option<GroupEvent> {
    let GroupGap { producer, session, first, last, reason, .. } = gap;
    Some(GroupEvent::Gap { producer: PeerId::from_bytes(&producer).ok()?, session, first, last, reason })
}

/// Rows of the log, with what their entries say.
fn read_log(store: &Store, group: &GroupKey, from: u64, limit: usize) -> Result<Vec<GroupEntry>, NodeError> {
    store.group_log(group, from, limit)?.into_iter().map(|(index, row)| entry(store, index, row)).collect()
}

fn entry(store: &Store, index: u64, row: GroupLogRow) -> Result<GroupEntry, NodeError> {
    let GroupLogRow { producer, session, sequence, entry, recovery, received_ms } = row;
    let broken = |error: String| NodeError::other(format!("row {index} of the log cannot be read: {error}"));
    let producer = PeerId::from_bytes(&producer).map_err(|error| broken(error.to_string()))?;
    // A damaged block counts as not held until it is healed: then the row is told without what it says.
    let read = store.block(&entry)?.map(|block| Entry::from_block(&block)).transpose();
    let read = read.map_err(|error| broken(error.to_string()))?;
    let (text, head) = match read.as_ref().map(|entry| &entry.body) {
        Some(Body::Text(text)) => (Some(text.clone()), None),
        Some(Body::Content(content)) => (None, Some(*content)),
        None => (None, None),
    };
    let time = read.map_or(0, |entry| entry.time);
    Ok(GroupEntry { index, producer, session, seq: sequence, text, head, entry, time, received: received_ms, recovery })
}
