//! `follow`, `follows`, `unfollow`, `sync`, `watch`: the feeds of others.

use cid::Cid;
use dagmesh_dag::FeedName;

use super::{
    Backend, Context, Outcome, cid, feed,
    output::{ago, count, fields, size, table},
    progress::Bar,
};
use crate::{
    ticket::Target,
    types::{Done, Event, Follow, FollowRequest, FollowState, SyncRequest, Synced, UnfollowRequest, Unfollowed},
};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Follows a publisher's feed.
    Follow {
        /// Whom: ticket, peer id or multiaddr; or an IPNS name (`/ipns/NAME`, `/ipns/NAME/FEED`), which is looked up in the
        /// DHT now and from then on.
        #[arg(value_name = "TICKET|PEER|MULTIADDR|NAME")]
        target: Target,
        /// Which feed; the ticket's or name's, or `main`, where absent.
        #[arg(long, value_name = "NAME", value_parser = feed)]
        feed: Option<FeedName>,
        /// Most entries that the first sync takes.
        #[arg(long, value_name = "N")]
        depth: Option<u64>,
        /// Keeps the content of the newest N entries; 0 keeps the chain alone.
        #[arg(long, value_name = "N")]
        keep: Option<u64>,
        /// Returns when in sync.
        #[arg(long)]
        wait: bool,
    },
    /// Lists what is followed and how far it is.
    Follows,
    /// Follows no longer.
    Unfollow {
        /// Whom: ticket, peer id, multiaddr, or the name that it is followed by.
        #[arg(value_name = "TICKET|PEER|MULTIADDR|NAME")]
        target: Target,
        /// Which feed; the ticket's, or all of that publisher, where absent.
        #[arg(long, value_name = "NAME", value_parser = feed)]
        feed: Option<FeedName>,
    },
    /// Syncs once.
    Sync {
        /// With whom: ticket, peer id or multiaddr.
        #[arg(value_name = "PEER|MULTIADDR")]
        target: Target,
        /// Which feed; the ticket's, or `main`, where absent.
        #[arg(long, value_name = "NAME", value_parser = feed)]
        feed: Option<FeedName>,
        /// From this head; the publisher's newest where absent.
        #[arg(long, value_name = "CID", value_parser = cid)]
        head: Option<Cid>,
        /// Down to this link, which is not fetched.
        #[arg(long, value_name = "CID", value_parser = cid)]
        stop: Option<Cid>,
        /// Most entries of the chain.
        #[arg(long, value_name = "N")]
        depth: Option<u64>,
        /// Most blocks of a segment.
        #[arg(long, value_name = "N")]
        segment: Option<u64>,
        /// Walks the whole chain again.
        #[arg(long)]
        resync: bool,
    },
    /// Prints the events of the node as they happen.
    Watch,
}

pub(super) async fn run<B: Backend>(context: &mut Context<'_, B>, command: Command) -> Outcome {
    match command {
        Command::Follow { target, feed, depth, keep, wait } => {
            let ask = FollowRequest { target, feed, depth, keep, wait };
            let client = context.client()?;
            let follow: Follow = client.call_watched("follow", &ask, &mut Bar::new(&context.output)).await?;
            context.output.result(&follow, follow_text)
        }
        Command::Follows => {
            let follows: Vec<Follow> = context.client()?.call("follows", &Done {}).await?;
            context.output.result(&follows, |follows| follows_text(follows))
        }
        Command::Unfollow { target, feed } => {
            let ask = UnfollowRequest { target, feed };
            let unfollowed: Unfollowed = context.client()?.call("unfollow", &ask).await?;
            context.output.result(&unfollowed, |unfollowed| {
                let feeds = unfollowed.feeds.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                format!("no longer following {feeds} of {}; `dagmesh gc` frees its blocks", unfollowed.publisher)
            })
        }
        Command::Sync { target, feed, head, stop, depth, segment, resync } => {
            sync(context, SyncRequest { target, feed, head, stop, depth, segment, resync, ipni: None }).await
        }
        Command::Watch => {
            let client = context.client()?;
            let output = &mut context.output;
            client
                .lines("watch", &Done {}, |line| {
                    if output.json {
                        return output.object(&line);
                    }
                    match serde_json::from_value::<Event>(line.clone()) {
                        Ok(event) => output.line(event_text(&event)),
                        // An event of a newer daemon.
                        Err(_) => output.line(line),
                    }
                })
                .await
        }
    }
}

/// Syncs once, and says what that moved.
pub(super) async fn sync<B: Backend>(context: &mut Context<'_, B>, ask: SyncRequest) -> Outcome {
    let client = context.client()?;
    let synced: Synced = client.call_watched("sync", &ask, &mut Bar::new(&context.output)).await?;
    context.output.result(&synced, |synced| {
        fields(&[
            ("head", synced.head.to_string()),
            ("stop", synced.stop.map_or("the chain's start".into(), |stop| stop.to_string())),
            ("fetched", format!("{}, {}", count(synced.blocks, "block"), size(synced.bytes))),
            ("held before", count(synced.from_cache, "block")),
            ("segments", synced.segments.to_string()),
        ])
    })
}

fn state_text(state: FollowState) -> &'static str {
    match state {
        FollowState::Waiting => "waiting",
        FollowState::Behind => "behind",
        FollowState::Syncing => "syncing",
        FollowState::InSync => "in sync",
        FollowState::Failed => "failed",
    }
}

pub(super) fn follow_text(follow: &Follow) -> String {
    let entry = |cid: &Option<Cid>, seq: Option<u64>| match (cid, seq) {
        (Some(cid), Some(seq)) => format!("{cid} (entry {seq})"),
        (Some(cid), None) => cid.to_string(),
        (None, _) => "none yet".into(),
    };
    let mut lines = vec![
        ("publisher", follow.publisher.to_string()),
        ("feed", follow.feed.to_string()),
        ("state", state_text(follow.state).to_owned()),
        ("latest", entry(&follow.latest, follow.latest_seq)),
        ("announced", entry(&follow.announced, follow.announced_seq)),
    ];
    if let Some(name) = &follow.name {
        lines.push(("name", format!("/ipns/{name}")));
    }
    if let Some(reason) = &follow.reason {
        lines.push(("because", reason.clone()));
    }
    fields(&lines)
}

fn follows_text(follows: &[Follow]) -> String {
    if follows.is_empty() {
        return "nothing is followed; `dagmesh follow TICKET` begins".into();
    }
    let mut rows =
        vec![["PUBLISHER", "FEED", "STATE", "ENTRY", "BLOCKS", "SINCE", "BECAUSE"].map(String::from).to_vec()];
    for follow in follows {
        let seq = |seq: Option<u64>| seq.map_or("-".into(), |seq| seq.to_string());
        rows.push(vec![
            follow.publisher.to_string(),
            follow.feed.to_string(),
            state_text(follow.state).into(),
            format!("{}/{}", seq(follow.latest_seq), seq(follow.announced_seq)),
            format!("{}/{}", follow.have_blocks, follow.known_blocks),
            ago(follow.since),
            follow.reason.clone().unwrap_or_default(),
        ]);
    }
    table(&rows)
}

fn event_text(event: &Event) -> String {
    let text = match event {
        Event::Published { feed, head, seq } => format!("{feed} at {seq}: {head}"),
        Event::HeadAnnounced { publisher, feed, head, seq } => format!("{publisher} {feed} at {seq}: {head}"),
        Event::SyncStarted { publisher, feed, head, from, .. } => format!("{publisher} {feed} {head} from {from}"),
        Event::SyncProgress { publisher, feed, have_blocks, known_blocks, bytes, stalled_ms, .. } => {
            let stalled =
                if *stalled_ms >= 3000 { format!(", nothing for {} s", stalled_ms / 1000) } else { String::new() };
            format!("{publisher} {feed} {have_blocks}/{known_blocks} blocks, {}{stalled}", size(*bytes))
        }
        Event::SyncFinished { publisher, feed, head, count: entries, blocks, bytes, duration_ms, from } => {
            let (blocks, bytes) = (count(*blocks, "block"), size(*bytes));
            let shares = from.iter().map(|share| format!("{} from {}", size(share.bytes), share.peer_id));
            let from = match shares.collect::<Vec<_>>() {
                shares if shares.len() > 1 => format!(": {}", shares.join(", ")),
                _ => String::new(),
            };
            format!("{publisher} {feed} {head}: {entries} new, {blocks}, {bytes}, {duration_ms} ms{from}")
        }
        Event::SyncFailed { publisher, feed, reason, retry_in_ms, .. } => {
            let next = retry_in_ms.map_or("not tried again by itself".into(), |ms| format!("next try in {ms} ms"));
            format!("{publisher} {feed}: {reason}; {next}")
        }
        Event::LatestMoved { publisher, feed, entry, seq, .. } => format!("{publisher} {feed} at {seq}: {entry}"),
        Event::EntryRefused { publisher, feed, entry, reason } => {
            format!("{publisher} {feed} {entry} is not believed: {reason}")
        }
        Event::Equivocation { publisher, feed, seq, heads } => {
            let heads = heads.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ");
            format!("{publisher} {feed} signed two heads at {seq}: {heads}")
        }
        Event::PeerConnected { peer_id, addr } => format!("{peer_id} at {addr}"),
        Event::PeerDisconnected { peer_id, reason } => {
            format!("{peer_id} {}", super::lifecycle::printable(reason.as_deref().unwrap_or_default()))
        }
        Event::Lagged { missed } => format!("{} missed", count(*missed, "event")),
    };
    format!("{:<17} {text}", event.name())
}
