//! How follows are shown: events and states.

use cid::Cid;
use dagmesh_dagsync::follower::{Event as Said, FollowKey, Latest, Share, State, Status};

use super::Follower;
use crate::{
    services::unix_ms,
    types::{self, Event, Follow, FollowState},
};

impl Follower {
    /// Tells whoever watches.
    pub(super) fn tell(&self, event: Said) {
        let said = match event {
            Said::StateChanged(_) => {
                self.changes.send_modify(|count| *count = count.wrapping_add(1));
                return;
            }
            Said::FollowRefused { key, reason } => return tracing::warn!(%key, %reason, "a feed is not followed"),
            Said::HeadAnnounced { key, head } => {
                Event::HeadAnnounced { publisher: key.publisher, feed: key.feed, head: head.entry, seq: head.seq }
            }
            Said::SyncStarted { key, head, stop, from, .. } => Event::SyncStarted {
                publisher: key.publisher,
                feed: key.feed,
                head: head.entry,
                stop: stop.map(|stop| stop.entry),
                from,
            },
            Said::SyncFinished { key, head, summary, took, .. } => Event::SyncFinished {
                publisher: key.publisher,
                feed: key.feed,
                head: head.entry,
                count: summary.entries,
                blocks: summary.blocks,
                bytes: summary.bytes,
                duration_ms: took.as_millis() as u64,
                from: summary.from.iter().map(shown_share).collect(),
            },
            Said::SyncFailed { key, head, reason, retry_in, .. } => Event::SyncFailed {
                publisher: key.publisher,
                feed: key.feed,
                head: Some(head.entry),
                reason,
                retry_in_ms: retry_in.map(|wait| wait.as_millis() as u64),
            },
            Said::LatestMoved { key, latest, content } => Event::LatestMoved {
                publisher: key.publisher,
                feed: key.feed,
                entry: latest.entry,
                seq: latest.seq,
                content,
            },
            Said::Equivocation { key, known, other } => Event::Equivocation {
                publisher: key.publisher,
                feed: key.feed,
                seq: known.seq(),
                heads: vec![*known.head(), *other.head()],
            },
            _ => return,
        };
        self.context.events.tell(said);
    }
}

impl Follower {
    /// The name that it is followed by.
    pub(super) fn show_name(&self, follow: &mut Follow) {
        let key = FollowKey { publisher: follow.publisher, feed: follow.feed.clone() };
        follow.name = self.name_of(&key).map(|name| name.to_string());
    }
}

fn shown_share(share: &Share) -> types::Share {
    types::Share { peer_id: share.provider, blocks: share.blocks, bytes: share.bytes }
}

pub(super) fn shown(status: Status) -> Follow {
    let now = unix_ms();
    let reason = status.sentence();
    let cid = |latest: Option<Latest>| -> Option<Cid> { latest.map(|latest| latest.entry) };
    Follow {
        publisher: status.key.publisher,
        feed: status.key.feed,
        state: match status.state {
            State::Waiting => FollowState::Waiting,
            State::Behind => FollowState::Behind,
            State::Syncing => FollowState::Syncing,
            State::InSync => FollowState::InSync,
            State::Failed => FollowState::Failed,
        },
        reason,
        latest: cid(status.latest),
        announced: cid(status.announced),
        known_blocks: status.known_blocks,
        have_blocks: status.have_blocks,
        latest_seq: status.latest.map(|latest| latest.seq),
        // Chains without numbers are counted as they are synced.
        announced_seq: status.announced.map(|head| head.seq).filter(|seq| *seq > 0),
        since: now.saturating_sub(status.for_how_long.as_millis() as u64),
        retry_at: status.next_try.map(|wait| now + wait.as_millis() as u64),
        keep: status.policy.keep,
        depth: status.policy.first_sync_depth,
        name: None,
    }
}
