//! Running syncs: how they start, stop and end.

use std::time::{Duration, Instant};

use cid::Cid;
use dagmesh_core::limits;
use libp2p_identity::PeerId;

use super::{
    Effect, Event, FailureKind, FollowKey, Follower, Head, Latest, StartSync, Summary, SyncId, cut,
    follow::{Follow, Work},
};

/// A sync that has been started and has not ended.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) key: FollowKey,
    head: Head,
    started: Instant,
    /// When it is to make room, if others wait.
    pub(super) slice_due: Instant,
    /// Why it was told to stop, if it was.
    pub(super) stop: Option<Stop>,
    /// Whether its start was overtaken by another `latest` or policy.
    stale: bool,
    have_blocks: u64,
    moved: bool,
    /// When it last made progress.
    pub(super) moved_at: Instant,
}

/// Why a sync is told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// Others wait.
    Yield,
    /// It is to start anew from elsewhere.
    Again,
    /// Its feed is followed no longer.
    Drop,
    /// Its publisher is refused.
    Refused,
    /// All is to stop.
    Close,
}

/// How a sync ended.
#[derive(Debug)]
pub(super) enum Outcome {
    Finished(Summary),
    Failed { provider: Option<PeerId>, reason: String, kind: FailureKind },
    Cancelled,
}

impl Follower {
    pub(super) fn start(&mut self, now: Instant, key: &FollowKey) {
        let id = SyncId(self.fresh());
        let Some(follow) = self.follows.get_mut(key) else { return };
        let Some(head) = follow.head.clone() else { return };
        let providers = follow.candidates(now, key, &self.config);
        let attempt = follow.failures.saturating_add(1);
        follow.work = Work::Running { id };
        follow.known_blocks = 0;
        follow.have_blocks = 0;
        self.runs.insert(
            id,
            Run {
                key: key.clone(),
                head: head.clone(),
                started: now,
                slice_due: now + self.config.slice,
                stop: None,
                stale: false,
                have_blocks: 0,
                moved: false,
                moved_at: now,
            },
        );
        let started = Event::SyncStarted {
            id,
            key: key.clone(),
            head: head.place(),
            stop: follow.latest,
            from: providers.first().copied().unwrap_or(key.publisher),
            attempt,
        };
        let (latest, policy) = (follow.latest, follow.policy);
        let sync = StartSync { id, key: key.clone(), head, latest, policy, providers, attempt };
        self.effects.push_back(Effect::StartSync(Box::new(sync)));
        self.event(started);
    }

    /// Tells a sync to stop, once. Whatever else wants it gone outweighs that it should make room.
    pub(super) fn stop(&mut self, id: SyncId, why: Stop) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        run.stale |= why == Stop::Again;
        match run.stop {
            None => {
                run.stop = Some(why);
                self.effects.push_back(Effect::CancelSync(id));
            }
            Some(Stop::Yield) => run.stop = Some(why),
            Some(_) => {}
        }
    }

    /// The sync that runs, or ends, for this feed.
    pub(super) fn run_of(&self, key: &FollowKey) -> Option<SyncId> {
        self.runs.iter().find(|(_, run)| run.key == *key).map(|(id, _)| *id)
    }

    /// Stops a sync that has had its slice, if somebody waits whom that would let in.
    pub(super) fn check_slice(&mut self, now: Instant, id: SyncId) {
        let Some(run) = self.runs.get(&id).filter(|run| run.slice_due <= now && run.stop.is_none()) else { return };
        let left = |key: &FollowKey| {
            let of_publisher = |other: &&Run| other.key.publisher == key.publisher;
            let count = self.runs.values().filter(of_publisher).count() - usize::from(of_publisher(&run));
            count < self.config.max_syncs_per_publisher && self.run_of(key).is_none()
        };
        if self.ready.any(left) {
            self.stop(id, Stop::Yield);
        } else if let Some(run) = self.runs.get_mut(&id) {
            run.slice_due = now + self.config.slice;
        }
    }

    pub(super) fn progress(&mut self, now: Instant, id: SyncId, known_blocks: u64, have_blocks: u64) {
        let Some((run, follow)) = self.running(id) else { return };
        if have_blocks > run.have_blocks {
            run.have_blocks = have_blocks;
            run.moved = true;
            run.moved_at = now;
        }
        follow.known_blocks = known_blocks;
        follow.have_blocks = have_blocks;
    }

    pub(super) fn latest_moved(&mut self, now: Instant, id: SyncId, latest: Latest, content: Cid) {
        let Some((run, follow)) = self.running(id) else { return };
        run.moved = true;
        run.moved_at = now;
        follow.move_latest(latest);
        let key = run.key.clone();
        self.event(Event::LatestMoved { key, latest, content });
    }

    pub(super) fn provider_failed(&mut self, now: Instant, id: SyncId, provider: PeerId, bad: bool) {
        let Some((run, follow)) = self.running(id) else { return };
        follow.blame(now, &run.key, provider, bad);
    }

    pub(super) fn ended(&mut self, now: Instant, id: SyncId, outcome: Outcome) {
        let Some(run) = self.runs.remove(&id) else { return };
        let key = run.key.clone();
        let follow = self.follows.get_mut(&key);
        let followed = follow.is_some();
        if let Some(follow) = follow.filter(|follow| follow.work == Work::Running { id }) {
            follow.work = Work::Rest;
            match (outcome, run.stop) {
                (Outcome::Finished(summary), _) => self.finished(now, id, &run, summary),
                (_, Some(_)) => {}
                (Outcome::Cancelled, None) => {
                    self.failed(now, id, &run, None, "the sync was cancelled", FailureKind::Retryable);
                }
                (Outcome::Failed { provider, reason, kind }, None) => {
                    self.failed(now, id, &run, provider, &reason, kind);
                }
            }
        } else if !followed {
            self.event(Event::Unfollowed(key.clone()));
        }
        self.advance(now, &key);
        self.closed_if_quiet();
    }

    fn finished(&mut self, now: Instant, id: SyncId, run: &Run, summary: Summary) {
        let Some(follow) = self.follows.get_mut(&run.key) else { return };
        let head = run.head.place();
        if !run.stale {
            follow.move_latest(head);
        }
        follow.forgive(now);
        let took = now.saturating_duration_since(run.started);
        self.event(Event::SyncFinished { id, key: run.key.clone(), head, summary, took });
    }

    fn failed(
        &mut self,
        now: Instant,
        id: SyncId,
        run: &Run,
        provider: Option<PeerId>,
        reason: &str,
        kind: FailureKind,
    ) {
        let Some(follow) = self.follows.get_mut(&run.key) else { return };
        // What moved something was no failure in a row.
        follow.failures = if run.moved { 1 } else { follow.failures.saturating_add(1) };
        let failures = follow.failures;
        if let Some(provider) = provider {
            follow.blame(now, &run.key, provider, kind == FailureKind::BadPeer);
        }
        let reason = match provider {
            Some(provider) => format!("sync from {provider} failed: {}", cut(reason)),
            None => format!("sync failed: {}", cut(reason)),
        };
        follow.trouble = Some(reason.clone());
        let overtaken = follow.head.as_ref().is_some_and(|head| head.entry() != run.head.entry());
        let retry_in = match kind {
            // The newer head was heard of when there was nothing to wake up yet.
            FailureKind::Fatal => overtaken.then_some(Duration::from_millis(limits::NEWS_RETRY_MS)),
            _ => Some(self.backoff(failures)),
        };
        if let Some(follow) = self.follows.get_mut(&run.key) {
            follow.search = true;
            follow.work = retry_in.map_or(Work::Failed, |wait| Work::Pause { next: now + wait });
        }
        let (key, head) = (run.key.clone(), run.head.place());
        self.event(Event::SyncFailed { id, key, head, provider, reason, retry_in });
    }

    /// The run with this id and its follow, if the two still belong together.
    fn running(&mut self, id: SyncId) -> Option<(&mut Run, &mut Follow)> {
        let run = self.runs.get_mut(&id)?;
        let follow = self.follows.get_mut(&run.key).filter(|follow| follow.work == Work::Running { id })?;
        Some((run, follow))
    }
}
