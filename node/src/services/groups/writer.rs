//! Writes what the machine wants kept, and the log with it: one transaction after another, each for all that waits.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use cid::Cid;
use dagmesh_chronosync::{Body, Entry, Event, GroupHead, Input, LeafKey, MemberList, Refused};
use dagmesh_core::limits::{MAX_GROUP_LEAVES, MAX_GROUP_SESSIONS};
use dagmesh_dag::Block;
use libp2p::PeerId;
use serde_bytes::ByteBuf;

use super::{
    backlog::{Chain, Link, Work},
    member::Member,
    tracker::Leaf,
};
use crate::{
    error::NodeError,
    services::unix_ms,
    store::{GroupContent, GroupGap, GroupLogRow, GroupProgress, Store},
    types::GroupEvent,
};

/// Log rows of one transaction: a long chain is told in several.
const MAX_ROWS: usize = 4096;

/// Where the log and the gaps end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ends {
    pub(super) log: u64,
    pub(super) gaps: u64,
}

/// What one transaction holds.
struct Draft<'a> {
    member: &'a Member,
    store: &'a Store,
    ends: Ends,
    /// Leaves as they are once it is written.
    leaves: BTreeMap<LeafKey, Leaf>,
    heads: BTreeMap<LeafKey, GroupHead>,
    session: Option<u64>,
    list: Option<MemberList>,
    blocks: Vec<Block>,
    rows: Vec<(u64, GroupLogRow)>,
    gaps: Vec<(u64, GroupGap)>,
    /// Contents that are to become whole.
    contents: Vec<(u64, LeafKey, GroupContent)>,
    /// Contents that are whole, or, with a reason, never will be.
    ended: Vec<(u64, LeafKey, Option<String>)>,
    /// Leaves that have left the state, and whether for good.
    gone: BTreeMap<LeafKey, bool>,
    now_ms: u64,
}

/// What stands on the disk now.
struct Written {
    ends: Ends,
    leaves: BTreeMap<LeafKey, Leaf>,
    /// Sessions that have given way to later ones of their producer.
    displaced: Vec<LeafKey>,
}

/// Writes for as long as the group is taken part in.
pub(super) async fn run(member: Arc<Member>, mut ends: Ends) {
    loop {
        for works in split(member.backlog.take().await) {
            let this = Arc::clone(&member);
            let written = member.context.blocking(move |store| {
                let _until_it_is_written = this.writing.lock();
                // Left meanwhile: nothing may be written after what was has been removed.
                let written = match this.context.stop.is_cancelled() {
                    true => Err(NodeError::stopping()),
                    false => write(&this, store, ends, &works),
                };
                Ok((written, works))
            });
            match written.await {
                Ok((Ok(written), works)) => {
                    ends = written.ends;
                    member.wrote(written, works);
                }
                // The store says itself whether it takes more.
                Ok((Err(error), works)) => {
                    tracing::error!(group = member.name, %error, "what a group has to keep was not written");
                    member.write_failed(works);
                }
                Err(error) => return tracing::error!(group = member.name, %error, "a group keeps nothing any more"),
            }
        }
    }
}

/// A long chain is a transaction of its own.
fn split(works: Vec<Work>) -> Vec<Vec<Work>> {
    let mut parts: Vec<Vec<Work>> = vec![Vec::new()];
    for work in works {
        let long = matches!(&work, Work::Chain(chain) if chain.entries.len() > MAX_ROWS / 8);
        if long {
            parts.push(Vec::new());
        }
        if let Some(part) = parts.last_mut() {
            part.push(work);
        }
        if long {
            parts.push(Vec::new());
        }
    }
    parts.retain(|part| !part.is_empty());
    parts
}

fn write(member: &Member, store: &Store, ends: Ends, works: &[Work]) -> Result<Written, NodeError> {
    let mut draft = Draft {
        member,
        store,
        ends,
        leaves: BTreeMap::new(),
        heads: BTreeMap::new(),
        session: None,
        list: None,
        blocks: Vec::new(),
        rows: Vec::new(),
        gaps: Vec::new(),
        contents: Vec::new(),
        ended: Vec::new(),
        gone: BTreeMap::new(),
        now_ms: unix_ms(),
    };
    for work in works {
        match work {
            Work::Session(_, session) => draft.session = Some(*session),
            Work::Members(list) => draft.list = Some(list.clone()),
            Work::Head(_, head) => draft.own(head)?,
            Work::Store(heads) => draft.heads.extend(heads.iter().map(|head| (head.key(), head.clone()))),
            Work::Event(Event::New { head, is_recovery, .. }) => draft.news(head, *is_recovery)?,
            // Told when it was written, unless its entry was not the next.
            Work::Event(Event::Published(head)) => draft.news(head, false)?,
            Work::Event(_) => {}
            Work::Chain(chain) => {
                draft.chain(chain)?;
                // What a kill costs of a long chain is one part of it.
                if draft.rows.len() > MAX_ROWS {
                    draft.commit_parts(store)?;
                }
            }
            Work::Contents(key, whole, broken) => draft.ended(key, whole, broken.as_ref())?,
        }
    }
    draft.give_way()?;
    draft.commit(store)?;
    let displaced = draft.gone.into_iter().filter(|(_, for_good)| *for_good).map(|(key, _)| key).collect();
    Ok(Written { ends: draft.ends, leaves: draft.leaves, displaced })
}

impl Draft<'_> {
    /// A session as this draft leaves it. One that is not in memory may be on the disk: of a member that was taken off the
    /// list, or that began many later ones.
    fn leaf(&mut self, key: &LeafKey, producer: PeerId) -> Result<&mut Leaf, NodeError> {
        if !self.leaves.contains_key(key) {
            let known = self.member.tracker.lock().leaves.get(key).cloned();
            let leaf = match known {
                Some(leaf) => leaf,
                None => {
                    let group = self.member.group.as_bytes();
                    let progress = self.store.group_progress_of(group, &(key.name, key.session))?;
                    Leaf::new(producer, progress.unwrap_or_default())
                }
            };
            self.leaves.insert(*key, leaf);
        }
        self.leaves.get_mut(key).ok_or_else(|| NodeError::other("a session was lost"))
    }

    /// A head of ours: its entry is at hand, and its content is ours.
    fn own(&mut self, head: &GroupHead) -> Result<(), NodeError> {
        self.heads.insert(head.key(), head.clone());
        let own = self.member.own_block.lock().clone();
        let block = own.filter(|block| Some(block.cid()) == head.content());
        let Some((block, entry)) = block.and_then(|block| Some((block.clone(), Entry::from_block(&block).ok()?)))
        else {
            return Ok(());
        };
        self.blocks.push(block);
        let leaf = self.leaf(&head.key(), head.producer())?;
        leaf.aim(head, false);
        if head.sequence() == leaf.progress.told + 1 && follows(&entry, leaf) {
            let link = link(head, &entry);
            leaf.progress.base = link.content.or(leaf.progress.base);
            self.tell(&head.key(), head.sequence(), Link { content: None, ..link });
        }
        Ok(())
    }

    /// A head of others. Where its entry is in it and is the next one, it is told at once.
    fn news(&mut self, head: &GroupHead, recovery: bool) -> Result<(), NodeError> {
        let leaf = self.leaf(&head.key(), head.producer())?;
        if head.sequence() <= leaf.progress.told {
            return Ok(());
        }
        leaf.aim(head, recovery);
        match Entry::of_head(head) {
            Ok(Some((block, entry))) => {
                let next = head.sequence() == leaf.progress.told + 1 && follows(&entry, leaf);
                self.blocks.push(block);
                if next {
                    self.tell(&head.key(), head.sequence(), link(head, &entry));
                }
            }
            // Its entry is fetched.
            Ok(None) if head.content().is_some() => {}
            Ok(None) => self.lost(&head.key(), head.sequence(), None, "its head names no entry".to_owned()),
            Err(error) => self.lost(&head.key(), head.sequence(), head.content().copied(), error.to_string()),
        }
        Ok(())
    }

    fn tell(&mut self, key: &LeafKey, number: u64, link: Link) {
        let Link { entry, content } = link;
        let index = self.ends.log;
        self.ends.log += 1;
        let Some(leaf) = self.leaves.get_mut(key) else { return };
        let recovery = leaf.is_recovery();
        leaf.tell(number, Some(entry));
        let producer = ByteBuf::from(leaf.producer.to_bytes());
        if let Some(content) = content {
            leaf.waiting = true;
            self.contents.push((index, *key, GroupContent { producer: producer.clone(), content }));
        }
        let (session, received_ms) = (key.session, self.now_ms);
        let row = GroupLogRow { producer, session, sequence: number, entry, recovery, received_ms };
        self.rows.push((index, row));
    }

    /// The numbers from the next one up to `last` cannot be had.
    fn lost(&mut self, key: &LeafKey, last: u64, entry: Option<Cid>, reason: String) {
        let at = self.ends.log;
        let Some(leaf) = self.leaves.get_mut(key) else { return };
        let first = leaf.progress.told + 1;
        tracing::info!(producer = %leaf.producer, session = key.session, first, last, reason, "publications of a group cannot be had");
        leaf.tell(last, entry);
        let producer = ByteBuf::from(leaf.producer.to_bytes());
        self.gaps.push((self.ends.gaps, GroupGap { producer, session: key.session, first, last, reason, at }));
        self.ends.gaps += 1;
    }

    fn chain(&mut self, chain: &Chain) -> Result<(), NodeError> {
        let Chain { key, head: (number, entry), after, entries, reason } = chain;
        let producer = self.member.tracker.lock().leaves.get(key).map(|leaf| leaf.producer);
        let Some(producer) = producer else { return Ok(()) };
        let told = self.leaf(key, producer)?.progress.told;
        // Told meanwhile, or said to be lost: what is behind it is looked for anew.
        if told != *after || told >= *number {
            return Ok(());
        }
        let first = number + 1 - (entries.len() as u64).min(*number);
        if first > told + 1 {
            let reason = reason.clone().unwrap_or_else(|| "its producer has left these numbers out".to_owned());
            // The chain goes on below the first entry that is there.
            self.lost(key, first - 1, Some(*entry), reason);
        }
        for (link, number) in entries.iter().zip(first..) {
            self.tell(key, number, *link);
        }
        Ok(())
    }

    fn ended(
        &mut self,
        key: &LeafKey,
        whole: &[(u64, GroupContent)],
        broken: Option<&(u64, String)>,
    ) -> Result<(), NodeError> {
        for (index, row) in whole {
            self.ended.push((*index, *key, None));
            if let Ok(producer) = PeerId::from_bytes(&row.producer) {
                self.leaf(key, producer)?.progress.base = Some(row.content);
            }
        }
        self.ended.extend(broken.map(|(index, reason)| (*index, *key, Some(reason.clone()))));
        Ok(())
    }

    /// Finds whose heads are of no use any more: of those who are not on a new list, and, where a producer begins a session,
    /// those of its sessions that [`MAX_GROUP_SESSIONS`] later ones have displaced. Those are never taken again.
    fn give_way(&mut self) -> Result<(), NodeError> {
        let group = self.member.group.as_bytes();
        let key = |(name, session)| LeafKey { name, session };
        if let Some(list) = &self.list {
            let listed: BTreeSet<_> = list.members().iter().map(|member| LeafKey::new(member, 0).name).collect();
            let stored = self.store.group_leaves(group, None)?.into_iter().map(key);
            let gone = stored.chain(self.heads.keys().copied()).filter(|key| !listed.contains(&key.name));
            self.gone.extend(gone.map(|key| (key, false)));
        }
        let begun: BTreeSet<_> = {
            let tracker = self.member.tracker.lock();
            self.heads.keys().filter(|key| !tracker.leaves.contains_key(key)).map(|key| key.name).collect()
        };
        for name in begun {
            let stored = self.store.group_leaves(group, Some(&name))?.into_iter().map(key);
            let known: BTreeSet<_> = stored.chain(self.heads.keys().copied().filter(|key| key.name == name)).collect();
            if known.len() > MAX_GROUP_SESSIONS {
                self.member.machine.look(|machine| {
                    // The clock does not matter to one that is older than all others.
                    let old = |key: &LeafKey| machine.state().refuses(u64::MAX, key) == Some(Refused::OldSession);
                    self.gone.extend(known.into_iter().filter(old).map(|key| (key, true)));
                });
            }
        }
        let gone = &self.gone;
        self.heads.retain(|key, _| !gone.contains_key(key));
        self.leaves.retain(|key, _| gone.get(key) != Some(&true));
        Ok(())
    }

    /// Writes a long chain in parts, each whole in itself.
    fn commit_parts(&mut self, store: &Store) -> Result<(), NodeError> {
        let rows = std::mem::take(&mut self.rows);
        let contents = std::mem::take(&mut self.contents);
        let (leaves, gaps) = (std::mem::take(&mut self.leaves), std::mem::take(&mut self.gaps));
        let [(key, leaf)] = leaves.iter().collect::<Vec<_>>()[..] else {
            // Several leaves in it: then it is not that long.
            (self.rows, self.contents, self.leaves, self.gaps) = (rows, contents, leaves, gaps);
            return Ok(());
        };
        let (key, leaf) = (*key, leaf.clone());
        self.gaps = gaps;
        for part in rows.chunks(MAX_ROWS) {
            let (Some((from, _)), Some((to, last))) = (part.first(), part.last()) else { continue };
            let mut upto = leaf.clone();
            upto.progress.told = last.sequence;
            upto.progress.entry = Some(last.entry);
            self.rows = part.to_vec();
            self.contents = contents.iter().filter(|(index, ..)| (from..=to).contains(&index)).cloned().collect();
            self.leaves = BTreeMap::from([(key, upto)]);
            self.commit(store)?;
            (self.rows, self.contents, self.gaps) = Default::default();
        }
        self.leaves = BTreeMap::from([(key, leaf)]);
        Ok(())
    }

    fn commit(&self, store: &Store) -> Result<(), NodeError> {
        let group = self.member.group.as_bytes();
        store.transaction(|batch| {
            if (self.session.is_some() || self.list.is_some())
                && let Some(mut record) = batch.group(group)?
            {
                record.session = self.session.or(record.session);
                record.members = self.list.as_ref().map(|list| ByteBuf::from(list.encode())).or(record.members);
                batch.set_group(group, &record)?;
            }
            batch.put_blocks(&self.blocks)?;
            for (key, head) in &self.heads {
                batch.set_group_head(group, &(key.name, key.session), head.encode(), head.content().copied())?;
            }
            for (key, for_good) in &self.gone {
                batch.remove_group_head(group, &(key.name, key.session))?;
                if *for_good {
                    batch.remove_group_progress(group, &(key.name, key.session))?;
                }
            }
            for (key, leaf) in &self.leaves {
                batch.set_group_progress(group, &(key.name, key.session), &leaf.progress)?;
            }
            for (index, row) in &self.rows {
                batch.put_group_log(group, *index, row)?;
            }
            for (number, gap) in &self.gaps {
                batch.put_group_gap(group, *number, gap)?;
            }
            for (index, key, content) in &self.contents {
                batch.put_group_content(group, &(key.name, key.session), *index, content)?;
            }
            for (index, key, broken) in &self.ended {
                batch.end_group_content(group, &(key.name, key.session), *index, broken.as_deref())?;
            }
            Ok::<_, crate::store::Error>(())
        })?;
        Ok(())
    }
}

/// Whether an entry links to the last one that was told of its session; before the first one anything may stand.
fn follows(entry: &Entry, leaf: &Leaf) -> bool {
    leaf.progress.told == 0 || entry.previous == leaf.progress.entry
}

fn link(head: &GroupHead, entry: &Entry) -> Link {
    let content = match &entry.body {
        Body::Text(_) => None,
        Body::Content(content) => Some(*content),
    };
    Link { entry: head.content().copied().unwrap_or_default(), content }
}

impl Member {
    /// All of this is durable: the machine, the user and whoever fetches are told.
    fn wrote(&self, written: Written, works: Vec<Work>) {
        let Written { ends, leaves, displaced } = written;
        {
            let mut tracker = self.tracker.lock();
            leaves.into_iter().for_each(|(key, leaf)| tracker.wrote(key, leaf));
            // What of them is not told yet will not be: whoever begins sessions without end is not waited for in each.
            displaced.iter().for_each(|key| drop(tracker.leaves.remove(key)));
            if tracker.leaves.len() > 2 * MAX_GROUP_LEAVES {
                tracker.forget_told(MAX_GROUP_LEAVES);
            }
            for work in &works {
                match work {
                    Work::Chain(chain) => {
                        tracker.leaves.get_mut(&chain.key).into_iter().for_each(|leaf| leaf.entries.done())
                    }
                    Work::Contents(key, ..) => {
                        tracker.leaves.get_mut(key).into_iter().for_each(Leaf::contents_done);
                    }
                    _ => {}
                }
            }
        }
        self.entries.store(ends.log, Ordering::Relaxed);
        self.changes.send_modify(|count| *count += 1);
        for work in works {
            match work {
                Work::Session(id, _) | Work::Head(id, _) => self.machine.input(Input::Persisted(id)),
                Work::Event(event) => self.happened(event),
                Work::Store(_) | Work::Members(_) | Work::Chain(_) | Work::Contents(..) => {}
            }
        }
        self.wanted.notify_one();
    }

    fn happened(&self, event: Event) {
        let own = self.producer();
        match event {
            Event::New { .. } => {}
            Event::Published(head) if head.producer() == own => self.acknowledge(Ok(*head)),
            Event::Refused { producer, reason } if producer == own => self.acknowledge(Err(reason)),
            Event::Initialized => {
                self.initialized.send_replace(true);
            }
            Event::MembersChanged { version } => self.tell(GroupEvent::MembersChanged { version }),
            Event::MembersEquivocation { version } => {
                tracing::warn!(group = self.name, version, "the owner of a group has signed two lists of one version");
                self.tell(GroupEvent::MembersEquivocation { version });
            }
            Event::MemberSeen(producer) => self.tell(GroupEvent::MemberSeen { producer }),
            Event::Equivocation { kept, other } => self.tell(GroupEvent::Equivocation {
                producer: kept.producer(),
                session: kept.session(),
                seq: kept.sequence(),
                entries: [&kept, &other].into_iter().filter_map(|head| head.content().copied()).collect(),
            }),
            Event::Misbehaved { peer, reason } => {
                let times = self.misbehaved.fetch_add(1, Ordering::Relaxed) + 1;
                tracing::debug!(group = self.name, %peer, reason, times, "a peer of a group misbehaves");
            }
            other => tracing::trace!(group = self.name, ?other, "a group"),
        }
    }

    /// Nothing of this is on the disk. Heads come again, publications are told to have failed, and what was to be told is
    /// tried again after a while.
    fn write_failed(&self, works: Vec<Work>) {
        let now = Instant::now();
        for work in works {
            match work {
                Work::Session(id, _) | Work::Head(id, _) => self.machine.input(Input::PersistFailed(id)),
                Work::Event(Event::New { head, is_recovery, .. }) => {
                    let new = || Leaf::new(head.producer(), GroupProgress::default());
                    let mut tracker = self.tracker.lock();
                    let leaf = tracker.leaves.entry(head.key()).or_insert_with(new);
                    leaf.aim(&head, is_recovery);
                    leaf.entries.failed(now);
                }
                Work::Event(event) => self.happened(event),
                Work::Chain(chain) => {
                    self.tracker.lock().leaves.get_mut(&chain.key).into_iter().for_each(|leaf| leaf.entries.failed(now))
                }
                Work::Contents(key, ..) => {
                    self.tracker.lock().leaves.get_mut(&key).into_iter().for_each(|leaf| leaf.contents_failed(now))
                }
                Work::Store(_) | Work::Members(_) => {}
            }
        }
        self.wanted.notify_one();
    }
}
