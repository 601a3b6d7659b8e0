//! What others are told when they ask.

use std::time::{Duration, Instant};

use dagmesh_core::limits::{
    MAX_GROUP_GOSSIP_HEAD_BYTES, MAX_GROUP_PAGE_BYTES, MAX_GROUP_PAGE_HEADS, MAX_GROUP_PENDING_ANSWERS,
};
use libp2p_identity::PeerId;
use rand::RngExt;

use super::{Acceptance, Event, Group, produce};
use crate::{
    head::GroupHead,
    message::{Answer, Cursor, Gossip, Page, Request},
};

/// Shortest time between two answers of ours to calls to the whole group: each may be 48 KiB for everybody.
const ANSWER_PAUSE: Duration = Duration::from_secs(1);

impl Group {
    /// The answer to a request; `None` where it breaks the protocol.
    pub(super) fn serve(&mut self, now: Instant, peer: PeerId, bytes: &[u8]) -> Option<Vec<u8>> {
        if !self.peers.take(now, peer) {
            return Answer::Busy.encode().ok();
        }
        let answer = match Request::decode(bytes).map_err(|error| error.to_string()) {
            Ok(Request::Hello(state)) => {
                let answer = Answer::Digest(self.state.summary());
                self.observe(now, state, &[peer], true);
                Ok(answer)
            }
            Ok(Request::Recover { from, state: _, heads }) => match self.check(now, &heads) {
                Ok(checked) => {
                    self.learn(now, checked.heads, true);
                    Ok(Answer::Page(self.page(&from, MAX_GROUP_PAGE_BYTES)))
                }
                Err(error) => Err(error.to_string()),
            },
            Err(reason) => Err(reason),
        };
        match answer {
            Ok(answer) => answer.encode().ok(),
            Err(reason) => {
                self.event(Event::Misbehaved { peer, reason });
                None
            }
        }
    }

    /// What is to be told from there on: what has changed since the base where that is known, else everything; always in
    /// the fixed order, up to `max_bytes` of heads.
    pub(super) fn page(&self, from: &Cursor, max_bytes: usize) -> Page {
        let state = self.state.summary();
        let changed = if from.base == state.root { Some(Default::default()) } else { self.log.since(&from.base) };
        let difference = changed.is_some();
        let mut told: Box<dyn Iterator<Item = &GroupHead>> = match changed {
            Some(keys) => {
                let behind = keys.into_iter().filter(|key| from.after.is_none_or(|after| *key > after));
                Box::new(behind.filter_map(|key| self.state.get(&key)))
            }
            None => Box::new(self.state.heads_after(from.after)),
        };
        let (mut heads, mut bytes, mut next) = (Vec::new(), 0, None);
        for head in &mut told {
            bytes += head.encode().len();
            if bytes > max_bytes || heads.len() >= MAX_GROUP_PAGE_HEADS {
                next = heads.last().map(|head: &&GroupHead| head.key());
                break;
            }
            heads.push(head);
        }
        Page { state, difference, heads: produce::list(heads).unwrap_or_default(), next }
    }

    /// The whole group is called: answer after a while, unless another does.
    pub(super) fn called(&mut self, now: Instant, from: Cursor) -> Acceptance {
        let delay = self.config.answer_delay.mul_f64(self.rng.random_range(0.1..1.0));
        let room = self.answers.len() < MAX_GROUP_PENDING_ANSWERS;
        if from.base != self.state.summary().root && room {
            self.answers.entry(from).or_insert(now + delay);
        }
        if room { Acceptance::Accept } else { Acceptance::Ignore }
    }

    pub(super) fn answer_calls(&mut self, now: Instant) {
        if self.answer_after > now {
            return;
        }
        let due = self.answers.iter().filter(|(_, at)| **at <= now).min_by_key(|(_, at)| **at).map(|(from, _)| *from);
        let Some(to) = due else { return };
        self.answers.remove(&to);
        let page = self.page(&to, MAX_GROUP_GOSSIP_HEAD_BYTES);
        if !page.heads.is_empty() {
            self.answer_after = now + ANSWER_PAUSE;
            self.tell(&Gossip::Page { to, page });
        }
    }
}
