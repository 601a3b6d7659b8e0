//! `publish`, `head`, `announce`, `ticket`: our own feeds.

use std::path::Path;

use cid::Cid;
use dagmesh_dag::FeedName;

use super::{
    Backend, Context, Outcome, absolute, cid, feed,
    output::{ago, count, fields},
    progress::Bar,
};
use crate::{
    api::Result,
    error::NodeError,
    ticket::Target,
    types::{
        AnnounceRequest, Announced, Content, Head, HeadRequest, KeyName, PublishRequest, Published, TicketMade,
        TicketRequest,
    },
};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Appends an entry to a feed, moves its head and announces it.
    Publish {
        /// File or folder, or the CID of what is held already. A path that reads as a CID is written `./...`.
        #[arg(value_name = "PATH|CID")]
        content: String,
        /// Which feed.
        #[arg(long, value_name = "NAME", value_parser = feed, default_value = "main")]
        feed: FeedName,
        /// Moves the head without announcing it.
        #[arg(long)]
        no_announce: bool,
        /// Also takes what starts with a dot.
        #[arg(long)]
        hidden: bool,
        /// Kept in the entry: a value in DAG-JSON.
        #[arg(long, value_name = "JSON", value_parser = json)]
        meta: Option<serde_json::Value>,
        /// Gives the feed a name in the DHT: from now on every publication moves it, and `follow /ipns/NAME` finds the feed
        /// though its publisher be away. KEY is one of `dagmesh key ls`; the node's own where absent.
        #[arg(long, value_name = "KEY", num_args = 0..=1, require_equals = true, default_missing_value = "self")]
        name: Option<KeyName>,
    },
    /// Prints the signed head of a feed, our own or a peer's.
    Head {
        /// Whose: ticket, peer id or multiaddr; our own where absent.
        #[arg(value_name = "PEER")]
        target: Option<Target>,
        /// Which feed.
        #[arg(long, value_name = "NAME", value_parser = feed)]
        feed: Option<FeedName>,
    },
    /// Announces a head again.
    Announce {
        /// The head.
        #[arg(value_parser = cid)]
        cid: Cid,
        /// Of which feed.
        #[arg(long, value_name = "NAME", value_parser = feed, default_value = "main")]
        feed: FeedName,
        /// Tells this peer alone, directly, not the topic.
        #[arg(long, value_name = "TICKET|PEER|MULTIADDR")]
        to: Option<Target>,
        /// Gives the feed a name in the DHT, as `publish --name` does, and puts its head there.
        #[arg(long, value_name = "KEY", num_args = 0..=1, require_equals = true, default_missing_value = "self")]
        name: Option<KeyName>,
        /// Moves the feed's name no longer; what the DHT has of it expires.
        #[arg(long, conflicts_with = "name")]
        no_name: bool,
    },
    /// Prints one string that leads others to a feed.
    Ticket {
        /// Which feed.
        #[arg(long, value_name = "NAME", value_parser = feed, default_value = "main")]
        feed: FeedName,
    },
}

pub(super) async fn run<B: Backend>(context: &mut Context<'_, B>, command: Command) -> Outcome {
    match command {
        Command::Publish { content, feed, no_announce, hidden, meta, name } => {
            let ask = PublishRequest { content: content_of(&content)?, feed, no_announce, hidden, meta, name };
            let client = context.client()?;
            let published: Published = client.call_watched("publish", &ask, &mut Bar::new(&context.output)).await?;
            context.output.essential(
                &published,
                |published| published.head.to_string(),
                |published| {
                    let mut lines = vec![
                        ("feed", format!("{} at {}", published.feed, published.seq)),
                        ("head", published.head.to_string()),
                        ("content", published.content.to_string()),
                        ("added", count(published.blocks_added, "block")),
                        (
                            "announced",
                            match (no_announce, published.peers) {
                                (true, _) => "no, as asked".into(),
                                (false, 0) => "as soon as a peer is connected".into(),
                                (false, peers) => format!("to {}", count(peers as u64, "peer")),
                            },
                        ),
                    ];
                    lines.extend(published.name.as_ref().map(|name| ("name", format!("/ipns/{name}"))));
                    fields(&lines)
                },
            )
        }
        Command::Head { target, feed } => {
            let head: Head = context.client()?.call("head", &HeadRequest { target, feed }).await?;
            context.output.essential(
                &head,
                |head| head.head.to_string(),
                |head| {
                    fields(&[
                        ("publisher", head.publisher.to_string()),
                        ("feed", format!("{} at {}", head.feed, head.seq)),
                        ("head", head.head.to_string()),
                        ("signed", ago(head.time)),
                    ])
                },
            )
        }
        Command::Announce { cid, feed, to, name, no_name } => {
            let ask = AnnounceRequest { cid, feed, to, name, no_name };
            let announced: Announced = context.client()?.call("announce", &ask).await?;
            context.output.result(&announced, |announced| {
                let text = match announced.peers {
                    0 => format!("{} is announced as soon as a peer is connected", announced.head),
                    peers => format!("{} announced to {}", announced.head, count(peers as u64, "peer")),
                };
                let name = announced.name.as_ref().map(|name| format!("; its name is /ipns/{name}"));
                text + &name.unwrap_or_default()
            })
        }
        Command::Ticket { feed } => {
            let ticket: TicketMade = context.client()?.call("ticket", &TicketRequest { feed }).await?;
            let text = |ticket: &TicketMade| ticket.ticket.clone();
            if ticket.addrs.is_empty() {
                context.output.note("the ticket holds no address yet: others find this node through the DHT alone");
            }
            context.output.essential(&ticket, text, text)
        }
    }
}

/// A path where one is there, else a CID.
pub(super) fn content_of(text: &str) -> Result<Content> {
    let path = Path::new(text);
    if path.symlink_metadata().is_ok() {
        return Ok(Content::Path(absolute(path)?));
    }
    cid(text).map(Content::Cid).map_err(|_| {
        NodeError::not_found(format!("cannot publish {text:?}: there is no such file or folder, and it is no CID"))
    })
}

fn json(text: &str) -> std::result::Result<serde_json::Value, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}
