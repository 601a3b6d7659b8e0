//! Our own producers: sessions and publications, each durable before it is used.

use std::{collections::VecDeque, time::Instant};

use dagmesh_core::limits::{GROUP_VECTOR_BYTES, MAX_GROUP_PRODUCERS, MAX_GROUP_PUBLISH_QUEUE};
use libp2p_identity::{Keypair, PeerId};

use super::{Effect, Event, Group, PersistId};
use crate::{
    head::{GroupHead, LeafKey, Payload},
    members::Membership,
    message::{Gossip, HeadBytes, HeadList, Update},
    state::Applied,
    tree::Digest,
};

const NO_MEMBER: &str = "it is no member by the newest list that is known";

#[derive(Debug)]
pub(super) struct Producer {
    key: Keypair,
    /// The session to publish under, once it is durable.
    session: Option<u64>,
    /// The last number that was used in it.
    sequence: u64,
    opening: Option<(PersistId, u64)>,
    writing: Option<(PersistId, GroupHead)>,
    queue: VecDeque<Payload>,
}

impl Group {
    pub(super) fn add_producer(&mut self, now: Instant, key: Keypair, session: Option<u64>) {
        let id = key.public().to_peer_id();
        if self.producers.contains_key(&id) {
            return;
        }
        if self.producers.len() >= MAX_GROUP_PRODUCERS {
            let reason = format!("{MAX_GROUP_PRODUCERS} producers publish here");
            return self.event(Event::Refused { producer: id, reason });
        }
        let known = session.and_then(|session| self.state.get(&LeafKey::new(&id, session)));
        let sequence = known.map_or(0, GroupHead::sequence);
        // A list of members may have taken the head out that knew the number.
        let lost = known.is_none() && self.config.membership != Membership::Open;
        let (session, later_than) = match self.left.remove(&id) {
            Some(left) => (None, session.max(Some(left))),
            None if lost => (None, session),
            None => (session, None),
        };
        let producer = Producer { key, session, sequence, opening: None, writing: None, queue: VecDeque::new() };
        self.producers.insert(id, producer);
        match session {
            Some(session) => self.event(Event::SessionOpened { producer: id, session }),
            None => self.open_session(now, id, later_than.unwrap_or(0)),
        }
    }

    pub(super) fn remove_producer(&mut self, id: PeerId) {
        let Some(producer) = self.producers.remove(&id) else { return };
        let session = producer.session.max(producer.opening.map(|(_, session)| session));
        self.left.extend(session.map(|session| (id, session)));
    }

    /// Begins a session: the clock, but later than every session of this producer that is known.
    fn open_session(&mut self, now: Instant, id: PeerId, later_than: u64) {
        let name = LeafKey::new(&id, 0).name;
        let known = self.state.of_producer(name).map(GroupHead::session).max().unwrap_or(0).max(later_than);
        let session = self.unix_ms(now).max(known.saturating_add(1));
        let persist = self.persist_id();
        if let Some(producer) = self.producers.get_mut(&id) {
            producer.session = None;
            producer.opening = Some((persist, session));
            self.effects.push_back(Effect::PersistSession { id: persist, producer: id, session });
        }
    }

    pub(super) fn publish(&mut self, now: Instant, id: PeerId, payload: Payload) {
        let is_member = self.is_member(&id);
        let refusal = match self.producers.get_mut(&id) {
            Some(_) if !is_member => NO_MEMBER.to_owned(),
            None => "no such producer publishes here".to_owned(),
            Some(producer) if producer.queue.len() >= MAX_GROUP_PUBLISH_QUEUE => {
                format!("{MAX_GROUP_PUBLISH_QUEUE} publications wait for the disk")
            }
            Some(producer) => {
                producer.queue.push_back(payload);
                if producer.session.is_none() && producer.opening.is_none() {
                    return self.open_session(now, id, 0);
                }
                return self.write_next(now, id);
            }
        };
        self.event(Event::Refused { producer: id, reason: refusal });
    }

    /// Signs the next publication and has it written. One at a time: the next number waits for this one's.
    fn write_next(&mut self, now: Instant, id: PeerId) {
        let (group, time, persist) = (self.config.group, self.unix_ms(now), self.persist_id());
        loop {
            let Some(producer) = self.producers.get_mut(&id) else { return };
            let (Some(session), None) = (producer.session, &producer.writing) else { return };
            let Some(payload) = producer.queue.pop_front() else { return };
            match GroupHead::sign(&producer.key, &group, session, producer.sequence + 1, payload, time) {
                Ok(head) => {
                    producer.sequence += 1;
                    producer.writing = Some((persist, head.clone()));
                    let head = Box::new(head);
                    return self.effects.push_back(Effect::PersistHead { id: persist, head });
                }
                Err(error) => self.event(Event::Refused { producer: id, reason: error.to_string() }),
            }
        }
    }

    pub(super) fn persisted(&mut self, now: Instant, persist: PersistId, durable: bool) {
        let ids: Vec<_> = self.producers.keys().copied().collect();
        for id in ids {
            let Some(producer) = self.producers.get_mut(&id) else { continue };
            if let Some((_, session)) = producer.opening.take_if(|(opening, _)| *opening == persist) {
                if !durable {
                    // What waits is told to have failed; the next publication tries again.
                    let waiting = std::mem::take(&mut producer.queue).len();
                    let reason = "the session could not be stored".to_owned();
                    return (0..waiting).for_each(|_| {
                        self.event(Event::Refused { producer: id, reason: reason.clone() });
                    });
                }
                (producer.session, producer.sequence) = (Some(session), 0);
                self.event(Event::SessionOpened { producer: id, session });
                return self.write_next(now, id);
            }
            if let Some((_, head)) = producer.writing.take_if(|(writing, _)| *writing == persist) {
                match durable {
                    true => self.say(now, head),
                    // The number stays used: it may be on disk after all.
                    false => {
                        let reason = "the publication could not be stored".to_owned();
                        self.event(Event::Refused { producer: id, reason });
                    }
                }
                return self.write_next(now, id);
            }
        }
    }

    /// Takes a durable head of ours into the state and tells the group at once.
    fn say(&mut self, now: Instant, head: GroupHead) {
        if !self.is_member(&head.producer()) {
            return self.event(Event::Refused { producer: head.producer(), reason: NO_MEMBER.to_owned() });
        }
        let before = self.state.summary().root;
        let applied = self.state.apply(self.unix_ms(now), [head.clone()]).pop();
        if !matches!(applied, Some(Applied::New { .. })) {
            let reason = format!("the state does not take it: {applied:?}");
            return self.event(Event::Refused { producer: head.producer(), reason });
        }
        self.log.push(before, vec![head.key()]);
        if let Some(bytes) = self.update(before, &head) {
            self.effects.push_back(Effect::Gossip(bytes));
        }
        self.event(Event::Published(Box::new(head)));
        self.heartbeat.differ(now, &mut self.rng);
    }

    fn update(&self, previous: Digest, head: &GroupHead) -> Option<Vec<u8>> {
        let others = || self.state.heads().filter(|other| other.key() != head.key());
        let mut size = head.encode().len();
        let fits = others().all(|other| {
            size += other.encode().len();
            size <= GROUP_VECTOR_BYTES
        });
        let changed = list([head])?;
        let alone = Update { previous, state: self.state.summary(), changed, vector: HeadList::default() };
        let whole = fits.then(|| list(others())).flatten().map(|vector| Update { vector, ..alone.clone() });
        let whole = whole.and_then(|update| Gossip::Update(update).encode().ok());
        whole.filter(|bytes| bytes.len() <= GROUP_VECTOR_BYTES).or_else(|| Gossip::Update(alone).encode().ok())
    }

    /// A head of a producer of ours that we have not made: another process has its key, or our disk is an old one. The
    /// session is left to it.
    pub(super) fn own_session_taken(&mut self, now: Instant, head: &GroupHead) {
        let id = head.producer();
        let Some(producer) = self.producers.get_mut(&id) else { return };
        let opening = producer.opening.map(|(_, session)| session);
        if producer.session != Some(head.session()) && opening != Some(head.session()) {
            return;
        }
        if let Some((_, unsaid)) = producer.writing.take() {
            let inline = unsaid.inline().and_then(|bytes| Payload::inline(bytes).ok()).and_then(|text| text.inline);
            producer.queue.push_front(Payload { content: unsaid.content().copied(), inline });
        }
        self.open_session(now, id, head.session());
    }
}

/// Heads as they travel.
pub(super) fn list<'a>(heads: impl IntoIterator<Item = &'a GroupHead>) -> Option<HeadList> {
    let heads: Result<Vec<_>, _> = heads.into_iter().map(|head| HeadBytes::new(head.encode())).collect();
    HeadList::new(heads.ok()?).ok()
}
