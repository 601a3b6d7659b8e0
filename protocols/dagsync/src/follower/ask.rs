//! Heads: which is taken, and the look-ups behind it.

use std::time::{Duration, Instant};

use dagmesh_core::limits;
use dagmesh_dag::HeadOrder;
use libp2p_identity::PeerId;

use super::{
    CallId, Effect, Event, FollowKey, Follower, Head, cut,
    follow::{Ask, Follow, Work},
};

/// How long after the publisher was asked a new connection with it is no cause to ask again.
const ASK_FLOOR: Duration = Duration::from_secs(10);

impl Follower {
    /// Takes a head of this feed into account: only a higher number moves anything.
    pub(super) fn take_head(&mut self, now: Instant, key: &FollowKey, head: Head) {
        let Some(follow) = self.follows.get_mut(key) else { return };
        let order = follow.head.as_ref().map_or(HeadOrder::Newer, |known| head.compare(known));
        match (order, &follow.head) {
            (HeadOrder::Newer, _) => {
                let event = Event::HeadAnnounced { key: key.clone(), head: head.place() };
                follow.head = Some(head);
                follow.hurry(now + Duration::from_millis(limits::NEWS_RETRY_MS));
                self.event(event);
            }
            (HeadOrder::Fork, Some(Head::Signed(known))) if follow.forked != head.seq() => {
                follow.forked = head.seq();
                let Head::Signed(head) = head else { return };
                let (known, other) = (Box::new(known.clone()), Box::new(head));
                self.event(Event::Equivocation { key: key.clone(), known, other });
            }
            _ => {}
        }
    }

    pub(super) fn announced(&mut self, now: Instant, head: Head) {
        let key = head.key();
        if self.refused.contains(&key.publisher) || !self.follows.contains_key(&key) {
            return;
        }
        self.take_head(now, &key, head);
        self.advance(now, &key);
    }

    pub(super) fn connected(&mut self, now: Instant, peer: PeerId) {
        for key in self.keys(|key| key.publisher == peer) {
            let retry_min = self.config.retry_min;
            let Some(follow) = self.follows.get_mut(&key) else { continue };
            match follow.ask {
                Ask::Rest { .. } if follow.asked.is_none_or(|at| now >= at + ASK_FLOOR) => follow.ask_now(now),
                // No need to look for it any longer.
                Ask::Peer { call, .. } => {
                    self.calls.remove(&call);
                    self.query_head(now, &key, true);
                }
                _ => {}
            }
            if let Some(follow) = self.follows.get_mut(&key)
                && matches!(follow.work, Work::Pause { .. })
            {
                follow.hurry(now + retry_min);
            }
            self.advance(now, &key);
        }
    }

    pub(super) fn head_found(&mut self, now: Instant, call: CallId, head: Option<Head>) {
        let Some(key) = self.calls.remove(&call) else { return };
        if head.as_ref().is_some_and(|head| head.key() != key) {
            return self.ask_failed(now, &key, "publisher answers with the head of another feed".into());
        }
        let next = now + self.jitter(self.config.head_check);
        let Some(follow) = self.follows.get_mut(&key) else { return };
        follow.ask = Ask::Rest { next };
        follow.asked = Some(now);
        follow.ask_failures = 0;
        follow.ask_trouble = head.is_none().then(|| "publisher has published nothing in this feed yet".to_owned());
        if matches!(follow.work, Work::Pause { .. }) {
            follow.hurry(now + Duration::from_millis(limits::NEWS_RETRY_MS));
        }
        if let Some(head) = head {
            self.take_head(now, &key, head);
        }
        self.advance(now, &key);
    }

    pub(super) fn head_failed(&mut self, now: Instant, call: CallId, reason: &str) {
        let Some(key) = self.calls.remove(&call) else { return };
        let Some(follow) = self.follows.get_mut(&key) else { return };
        let trouble = format!("publisher cannot be reached: {}", cut(reason));
        match follow.ask {
            Ask::Head { again: false, .. } => {
                follow.ask_trouble = Some(trouble);
                let (call, deadline) = self.call(now, &key);
                if let Some(follow) = self.follows.get_mut(&key) {
                    follow.ask = Ask::Peer { call, deadline };
                }
                self.effects.push_back(Effect::FindPeer { call, key: key.clone() });
                self.advance(now, &key);
            }
            _ => self.ask_failed(now, &key, trouble),
        }
    }

    pub(super) fn peer_found(&mut self, now: Instant, call: CallId) {
        let Some(key) = self.calls.remove(&call) else { return };
        self.query_head(now, &key, true);
        self.advance(now, &key);
    }

    pub(super) fn peer_not_found(&mut self, now: Instant, call: CallId, reason: &str) {
        let Some(key) = self.calls.remove(&call) else { return };
        let Some(follow) = self.follows.get(&key) else { return };
        let before = follow.ask_trouble.as_deref().unwrap_or("publisher cannot be reached");
        let trouble = format!("{before}; and it was not found: {}", cut(reason));
        self.ask_failed(now, &key, trouble);
    }

    /// The publisher does not answer for now.
    fn ask_failed(&mut self, now: Instant, key: &FollowKey, trouble: String) {
        let Some(follow) = self.follows.get_mut(key) else { return };
        follow.ask_failures = follow.ask_failures.saturating_add(1);
        follow.ask_trouble = Some(trouble);
        follow.asked = Some(now);
        let failures = follow.ask_failures;
        let next = now + self.backoff(failures);
        if let Some(follow) = self.follows.get_mut(key) {
            follow.ask = Ask::Rest { next };
        }
        self.advance(now, key);
    }

    pub(super) fn query_head(&mut self, now: Instant, key: &FollowKey, again: bool) {
        let (call, deadline) = self.call(now, key);
        if let Some(follow) = self.follows.get_mut(key) {
            follow.ask = Ask::Head { call, deadline, again };
        }
        self.effects.push_back(Effect::QueryHead { call, key: key.clone() });
    }

    pub(super) fn find_providers(&mut self, now: Instant, key: &FollowKey) {
        let Some(head) = self.follows.get(key).and_then(Follow::announced) else { return };
        let (call, deadline) = self.call(now, key);
        if let Some(follow) = self.follows.get_mut(key) {
            follow.work = Work::Searching { call, deadline };
        }
        self.effects.push_back(Effect::FindProviders { call, key: key.clone(), head: head.entry });
    }

    pub(super) fn providers_found(&mut self, now: Instant, call: CallId, providers: Vec<PeerId>) {
        let Some(key) = self.calls.remove(&call) else { return };
        let Some(follow) = self.follows.get_mut(&key) else { return };
        follow.set_providers(&key, &self.config, providers);
        follow.search = false;
        // It has waited for its next try already.
        follow.work = Work::Rest;
        self.advance(now, &key);
    }

    fn call(&mut self, now: Instant, key: &FollowKey) -> (CallId, Instant) {
        let call = CallId(self.fresh());
        self.calls.insert(call, key.clone());
        (call, now + Duration::from_secs(limits::LOOKUP_TIMEOUT_SECS))
    }
}
