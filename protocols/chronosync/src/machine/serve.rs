//! What others are told when they ask.

use std::time::{Duration, Instant};

use dagmesh_core::limits::{
    MAX_GROUP_GOSSIP_HEAD_BYTES, MAX_GROUP_PAGE_BYTES, MAX_GROUP_PAGE_HEADS, MAX_GROUP_PENDING_ANSWERS,
};
use libp2p_identity::PeerId;
use rand::RngExt;

use super::{Acceptance, Event, Group, produce};
use crate::{
    head::{GroupHead, HeadError},
    message::{Answer, Cursor, Gossip, HeadList, MemberBytes, Page, Request},
    state::Summary,
};

/// Shortest time between two answers of ours to calls to the whole group: each may be 48 KiB for everybody.
const ANSWER_PAUSE: Duration = Duration::from_secs(1);

impl Group {
    /// The answer to a request; `None` where it breaks the protocol.
    pub(super) fn serve(&mut self, now: Instant, peer: PeerId, bytes: &[u8]) -> Option<Vec<u8>> {
        if !self.peers.take_request(now, peer) {
            return Answer::Busy.encode().ok();
        }
        let answer = match Request::decode(bytes).map_err(|error| error.to_string()) {
            Ok(Request::Hello(state)) => {
                let answer = Answer::Digest(self.state.summary());
                self.observe(now, state, &[peer], true);
                Ok(answer)
            }
            Ok(Request::Recover { from, state, heads, members }) => {
                // Beyond its rate a peer is still told, and what it tells is left: we ask for that ourselves.
                let heads = if self.peers.take_bytes(now, peer, bytes.len()) { heads } else { HeadList::default() };
                self.page_for(now, &from, &state, &heads, members).map_err(|error| error.to_string())
            }
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

    /// Takes what the asker tells, and makes its page: with our list of members where it has an older one, or another of
    /// the same version.
    fn page_for(
        &mut self,
        now: Instant,
        from: &Cursor,
        state: &Summary,
        heads: &HeadList,
        members: Option<MemberBytes>,
    ) -> Result<Answer, HeadError> {
        if let Some(list) = &members {
            self.hear_members(now, list)?;
        }
        let checked = self.check(now, heads, false)?;
        if self.learn(now, checked.heads, true) > 0 {
            // Those behind us lack it too.
            self.heartbeat.at_once(now, &mut self.rng);
        }
        let ours = self.state.summary().members;
        let list = self.list_bytes();
        let other = checked.foreign && state.members == ours && members.is_none();
        let gives = state.members < ours || other || (members.is_some() && members != list);
        Ok(Answer::Page(Page { members: list.filter(|_| gives), ..self.page(from, MAX_GROUP_PAGE_BYTES) }))
    }

    /// What is to be told from there on: what has changed since the base where that is known, else everything; always in
    /// the fixed order, up to `max_bytes` of heads.
    pub(super) fn page(&self, from: &Cursor, max_bytes: usize) -> Page {
        let state = self.state.summary();
        let (difference, mut told) = self.told(from);
        let (mut heads, mut bytes, mut next) = (Vec::new(), 0, None);
        for head in &mut told {
            bytes += head.encode().len();
            if bytes > max_bytes || heads.len() >= MAX_GROUP_PAGE_HEADS {
                next = heads.last().map(|head: &&GroupHead| head.key());
                break;
            }
            heads.push(head);
        }
        Page { state, difference, heads: produce::list(heads).unwrap_or_default(), next, members: None }
    }

    /// The heads that are to be told from there on, and whether they are what has changed since the base.
    pub(super) fn told(&self, from: &Cursor) -> (bool, Box<dyn Iterator<Item = &GroupHead> + '_>) {
        let is_ours = from.base == self.state.summary().root;
        let changed = if is_ours { Some(Default::default()) } else { self.log.since(&from.base) };
        let after = from.after;
        match changed {
            Some(keys) => {
                let behind = keys.into_iter().filter(move |key| after.is_none_or(|after| *key > after));
                (true, Box::new(behind.filter_map(|key| self.state.get(&key))))
            }
            None => (false, Box::new(self.state.heads_after(after))),
        }
    }

    /// The whole group is called, by one with this version of the list of members: answer after a while, unless another
    /// does.
    pub(super) fn called(&mut self, now: Instant, from: Cursor, members: u64) -> Acceptance {
        let delay = self.config.answer_delay.mul_f64(self.rng.random_range(0.1..1.0));
        let room = self.answers.len() < MAX_GROUP_PENDING_ANSWERS;
        let ours = self.state.summary();
        if (from.base != ours.root || members < ours.members) && room {
            let answer = self.answers.entry(from).or_insert((now + delay, members));
            answer.1 = answer.1.min(members);
        }
        if room { Acceptance::Accept } else { Acceptance::Ignore }
    }

    pub(super) fn answer_calls(&mut self, now: Instant) {
        if self.answer_after > now {
            return;
        }
        let due = self.answers.iter().filter(|(_, (at, _))| *at <= now).min_by_key(|(_, at)| **at);
        let Some((to, (_, members))) = due.map(|(to, answer)| (*to, *answer)) else { return };
        self.answers.remove(&to);
        if let Some(list) = self.list_bytes().filter(|_| members < self.state.summary().members) {
            self.answer_after = now + ANSWER_PAUSE;
            self.tell(&Gossip::Members(list));
        }
        let page = self.page(&to, MAX_GROUP_GOSSIP_HEAD_BYTES);
        if !page.heads.is_empty() {
            self.answer_after = now + ANSWER_PAUSE;
            self.tell(&Gossip::Page { to, page });
        }
    }
}
