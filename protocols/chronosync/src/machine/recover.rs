//! Catching up: with one peer, or by a call to the whole group.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use dagmesh_core::limits::{
    MAX_GROUP_GOSSIP_HEAD_BYTES, MAX_GROUP_HEAD_BYTES, MAX_GROUP_LEAVES, MAX_GROUP_PAGE_BYTES, MAX_GROUP_PAGE_HEADS,
    MAX_GROUP_PEERS, MAX_GROUP_RECOVERIES, MAX_GROUP_RECOVERY_PAGES,
};
use libp2p_identity::PeerId;
use rand::RngExt;

use super::{Acceptance, CallId, Effect, Event, Group, produce};
use crate::{
    head::{GroupHead, HeadError, LeafKey},
    message::{Answer, Cursor, Gossip, HeadList, Page, Request},
    tree::Digest,
};

/// Neighbours that are asked where none who claimed a digest answers.
const NEIGHBOURS: usize = 2;
/// How long one who is asked has for each page before another is asked too: three long round trips. Who does not answer
/// must not keep us until its request is given up, and who is only slow costs a page more.
const HEDGE: Duration = Duration::from_secs(1);
/// Shortest time between two calls to the whole group, unless the next is for a further page.
const WIDE_PAUSE: Duration = Duration::from_secs(10);
/// How long the group may take to answer one.
const WIDE_TIMEOUT: Duration = Duration::from_secs(5);

/// A request of ours that runs.
#[derive(Debug, Clone)]
pub(super) enum Call {
    Hello { peer: PeerId, deadline: Instant },
    Recover(Recovery),
}

#[derive(Debug, Clone)]
pub(super) struct Recovery {
    peer: PeerId,
    /// The digest that it is for.
    claim: Digest,
    from: Cursor,
    pages: u32,
    heads: usize,
    gained: bool,
    /// The peer lacked heads that we had.
    gave: bool,
    /// Our list of members went with it.
    gave_members: bool,
    started: Instant,
    deadline: Instant,
}

/// A call to the whole group.
#[derive(Debug)]
pub(super) struct Wide {
    pub(super) from: Cursor,
    pub(super) pages: u32,
    pub(super) deadline: Instant,
}

impl Call {
    pub(super) fn deadline(&self) -> Instant {
        match self {
            Self::Hello { deadline, .. } => *deadline,
            Self::Recover(recovery) => recovery.deadline,
        }
    }
}

impl Group {
    pub(super) fn hello(&mut self, now: Instant, peer: PeerId) {
        if self.calls.len() >= MAX_GROUP_PEERS {
            // Peers that come and go faster than they answer.
            return;
        }
        let call = Call::Hello { peer, deadline: now + self.config.request_timeout };
        self.request(peer, &Request::Hello(self.state.summary()), call);
    }

    fn request(&mut self, peer: PeerId, request: &Request, running: Call) {
        let Ok(bytes) = request.encode() else { return };
        self.next_id += 1;
        let call = CallId(self.next_id);
        self.calls.insert(call, running);
        self.effects.push_back(Effect::Request { call, peer, bytes });
    }

    fn recoveries(&self) -> impl Iterator<Item = &Recovery> {
        self.calls.values().filter_map(|call| match call {
            Call::Recover(recovery) => Some(recovery),
            Call::Hello { .. } => None,
        })
    }

    /// Goes after each unknown digest whose moment is over.
    pub(super) fn recover(&mut self, now: Instant) {
        for (root, claim) in self.claims.due(now) {
            let ours = self.state.summary();
            let over = claim.tried.is_empty() && now > claim.since + self.config.request_timeout;
            if over || self.is_known(&claim.state) || !claim.state.is_ahead_of(&ours) {
                // Whoever is behind us asks us; what found no room is claimed again by the next heartbeat.
                self.claims.remove(&root);
                continue;
            }
            let recent = self.recoveries().any(|running| now < running.started + self.config.moment / 2);
            if recent || self.recoveries().count() >= MAX_GROUP_RECOVERIES {
                // What runs may bring this one too.
                let later = now + self.moment();
                if let Some(claim) = self.claims.get_mut(&root) {
                    claim.due = Some(later);
                }
                continue;
            }
            let free = |peer: &PeerId| {
                !claim.tried.contains(peer)
                    && self.peers.is_askable(now, peer)
                    && self.recoveries().all(|running| running.peer != *peer)
            };
            let mut askable: Vec<_> = claim.claimers.iter().copied().filter(free).collect();
            // Those who are connected first; the order of claims among them.
            askable.sort_by_key(|peer| !self.peers.is_joined(peer));
            let others = claim.tried.iter().filter(|peer| !claim.claimers.contains(peer)).count();
            if askable.is_empty() && others < NEIGHBOURS && !claim.tried.is_empty() {
                askable = self.peers.joined().filter(free).collect();
                let at = self.rng.random_range(0..askable.len().max(1));
                askable = askable.get(at).copied().into_iter().collect();
            }
            match askable.first() {
                Some(peer) => self.ask(now, root, *peer),
                None if self.recoveries().any(|running| running.claim == root) => {
                    if let Some(claim) = self.claims.get_mut(&root) {
                        claim.due = None;
                    }
                }
                None => {
                    self.claims.remove(&root);
                    if !claim.tried.is_empty() {
                        self.call_all(now);
                    }
                }
            }
        }
    }

    fn ask(&mut self, now: Instant, claim: Digest, peer: PeerId) {
        if let Some(claim) = self.claims.get_mut(&claim) {
            claim.tried.insert(peer);
            claim.due = Some(now + HEDGE);
        }
        let state = self.state.summary();
        let from = Cursor { base: state.root, after: None };
        let deadline = now + self.config.request_timeout;
        let recovery = Recovery {
            peer,
            claim,
            from,
            pages: 0,
            heads: 0,
            gained: false,
            gave: false,
            gave_members: false,
            started: now,
            deadline,
        };
        let request = Request::Recover { from, state, heads: HeadList::default(), members: None };
        self.request(peer, &request, Call::Recover(recovery));
    }

    pub(super) fn answered(&mut self, now: Instant, call: CallId, bytes: &[u8]) {
        let Some(running) = self.calls.remove(&call) else { return };
        let answer = Answer::decode(bytes).map_err(|error| error.to_string());
        let (peer, result) = match (running, answer) {
            (Call::Hello { peer, .. }, Ok(Answer::Digest(state))) => {
                self.observe(now, state, &[peer], true);
                (peer, Ok(()))
            }
            (Call::Hello { peer, .. }, Ok(Answer::Busy)) => (peer, Ok(())),
            (Call::Hello { peer, .. }, Ok(_)) => (peer, Err("a page in answer to a digest".to_owned())),
            (Call::Hello { peer, .. }, Err(reason)) => (peer, Err(reason)),
            (Call::Recover(recovery), Ok(Answer::Page(page))) => {
                let (peer, claim) = (recovery.peer, recovery.claim);
                let taken = self.take_page(now, recovery, page);
                (peer, taken.inspect_err(|_| self.ask_another(now, claim, peer)))
            }
            (Call::Recover(recovery), other) => {
                self.ask_another(now, recovery.claim, recovery.peer);
                let wrong = match other {
                    Ok(Answer::Busy) => Ok(()),
                    Ok(_) => Err("a digest in answer to a question for a page".to_owned()),
                    Err(reason) => Err(reason),
                };
                (recovery.peer, wrong)
            }
        };
        if let Err(reason) = result {
            self.event(Event::Misbehaved { peer, reason });
        }
    }

    pub(super) fn call_failed(&mut self, now: Instant, call: CallId) {
        if let Some(Call::Recover(recovery)) = self.calls.remove(&call) {
            self.ask_another(now, recovery.claim, recovery.peer);
        }
    }

    pub(super) fn give_up_calls(&mut self, now: Instant) {
        let late: Vec<_> = self.calls.iter().filter(|(_, call)| call.deadline() <= now).map(|(id, _)| *id).collect();
        late.into_iter().for_each(|call| self.call_failed(now, call));
        self.wide.take_if(|wide| wide.deadline <= now);
    }

    fn ask_another(&mut self, now: Instant, claim: Digest, failed: PeerId) {
        self.peers.failed(now, failed);
        if let Some(claim) = self.claims.get_mut(&claim) {
            claim.due = Some(now);
        }
    }

    /// Applies a page and asks for the next one; with it goes what this one shows the peer to lack.
    fn take_page(&mut self, now: Instant, mut recovery: Recovery, page: Page) -> Result<(), String> {
        recovery.heads += page.heads.len();
        // Some may be news since the first page.
        if recovery.heads > MAX_GROUP_LEAVES + MAX_GROUP_PAGE_HEADS {
            return Err("pages of more heads than a group has".to_owned());
        }
        let before = self.state.summary().members;
        if let Some(list) = &page.members {
            self.hear_members(now, list).map_err(|error| error.to_string())?;
        }
        let after = recovery.from.after;
        let checked = self.check(now, &page.heads, false).map_err(|error| error.to_string())?;
        if page.next.is_some() && page.next <= after {
            return Err("a page that leads back".to_owned());
        }
        let told = |key: &LeafKey| after.is_none_or(|after| *key > after) && page.next.is_none_or(|next| *key <= next);
        if checked.numbers.len() < page.heads.len() || !checked.numbers.keys().all(told) {
            return Err("a page with heads twice or out of its place".to_owned());
        }
        recovery.pages += 1;
        let lacking = match page.difference {
            true => HeadList::default(),
            false => self.lacking(after, page.next, &checked.numbers),
        };
        let ours = self.state.summary().members;
        recovery.gained |= ours > before;
        recovery.gained |= self.learn(now, checked.heads, true) > 0;
        // Its list is the older one, or is another of the same version.
        let gives = page.state.members < ours || (page.state.members == ours && checked.foreign);
        let members = self.list_bytes().filter(|_| gives && !recovery.gave_members);
        recovery.gave_members |= members.is_some();
        recovery.gave |= !lacking.is_empty();
        let end = LeafKey { name: [u8::MAX; 32], session: u64::MAX };
        let tells = !lacking.is_empty() || members.is_some();
        if recovery.pages < MAX_GROUP_RECOVERY_PAGES && (page.next.is_some() || tells) {
            recovery.from.after = Some(page.next.unwrap_or(end));
            recovery.deadline = now + self.config.request_timeout;
            if let Some(claim) = self.claims.get_mut(&recovery.claim) {
                claim.due = claim.due.map(|_| now + HEDGE);
            }
            let (from, state) = (recovery.from, self.state.summary());
            let request = Request::Recover { from, state, heads: lacking, members };
            self.request(recovery.peer, &request, Call::Recover(recovery));
            return Ok(());
        }
        let ours = self.state.summary();
        match self.claims.get_mut(&recovery.claim) {
            // Who passed it on may lack it too: on to who signed it.
            Some(claim)
                if claim.state.is_ahead_of(&ours) && claim.claimers.iter().any(|peer| !claim.tried.contains(peer)) =>
            {
                claim.due = Some(now);
            }
            _ => self.claims.remove(&recovery.claim),
        }
        if recovery.gained || !page.state.is_ahead_of(&ours) {
            self.peers.helped(&recovery.peer);
        } else {
            self.peers.failed(now, recovery.peer);
        }
        if recovery.gained && recovery.gave {
            // Both went their own ways, as over a cut, and so did those behind us.
            self.heartbeat.at_once(now, &mut self.rng);
        } else if (page.state.members, page.state.root) == (ours.members, ours.root) {
            self.heartbeat.agree();
        }
        self.initialized();
        Ok(())
    }

    /// Our heads behind `after`, up to `to`, that a full page of numbers lacks; a page of them at most, in the fixed
    /// order. What is beyond that is asked for by the peer, which is behind us then.
    fn lacking(&self, after: Option<LeafKey>, to: Option<LeafKey>, told: &BTreeMap<LeafKey, u64>) -> HeadList {
        let range = self.state.heads_after(after).take_while(|head| to.is_none_or(|to| head.key() <= to));
        let lacking = range.filter(|head| told.get(&head.key()).is_none_or(|number| *number < head.sequence()));
        let mut bytes = 0;
        let page = lacking.take(MAX_GROUP_PAGE_HEADS).take_while(|head| {
            bytes += head.encode().len();
            bytes <= MAX_GROUP_PAGE_BYTES
        });
        produce::list(page.collect::<Vec<&GroupHead>>()).unwrap_or_default()
    }

    /// No peer answers: ask everybody.
    fn call_all(&mut self, now: Instant) {
        if self.wide.is_some() || self.wide_after > now {
            return;
        }
        let from = Cursor { base: self.state.summary().root, after: None };
        self.wide_after = now + WIDE_PAUSE;
        self.call_on(now, from, 0);
    }

    fn call_on(&mut self, now: Instant, from: Cursor, pages: u32) {
        self.wide = Some(Wide { from, pages, deadline: now + WIDE_TIMEOUT });
        let members = self.state.summary().members;
        let call = Gossip::Recover { from, members, bucket: self.bucket(now) };
        self.tell(&call);
    }

    /// Whether this page tells the caller all that ours would: a pending answer gives way to no less, or a page of next to
    /// nothing would silence everybody. One who lacks our list of members is given that besides.
    fn answers_for_us(&self, to: &Cursor, page: &Page, told: &BTreeMap<LeafKey, u64>) -> bool {
        let Some((_, members)) = self.answers.get(to) else { return false };
        let bytes: usize = page.heads.iter().map(|head| head.len()).sum();
        let full =
            bytes + MAX_GROUP_HEAD_BYTES > MAX_GROUP_GOSSIP_HEAD_BYTES || page.heads.len() >= MAX_GROUP_PAGE_HEADS;
        if *members < self.state.summary().members || (page.next.is_some() && !full) {
            return false;
        }
        let mut ours = self.told(to).1.filter(|head| page.next.is_none_or(|next| head.key() <= next));
        ours.all(|head| told.get(&head.key()).is_some_and(|number| *number >= head.sequence()))
    }

    /// An answer to such a call, ours or another's.
    pub(super) fn take_wide_page(
        &mut self,
        now: Instant,
        to: Cursor,
        page: Page,
        claimers: &[PeerId],
    ) -> Result<Acceptance, HeadError> {
        let checked = self.check(now, &page.heads, true)?;
        let gained = self.learn(now, checked.heads, true) > 0;
        if self.answers_for_us(&to, &page, &checked.numbers) {
            self.answers.remove(&to);
        }
        let goes_on = page.next > to.after;
        match self.wide.take_if(|wide| wide.from == to && (gained || goes_on)) {
            Some(wide) if goes_on && wide.pages < MAX_GROUP_RECOVERY_PAGES => {
                self.call_on(now, Cursor { after: page.next, ..to }, wide.pages + 1);
            }
            Some(_) => self.initialized(),
            None => {}
        }
        self.observe(now, page.state, claimers, false);
        Ok(if checked.left_out { Acceptance::Ignore } else { Acceptance::Accept })
    }
}
