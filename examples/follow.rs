//! Syncs a feed with a hook that looks at each block and ends the sync after ten entries.
//!
//! `cargo run --example follow`

use std::sync::atomic::{AtomicUsize, Ordering};

use dagmesh::{
    Api, Node,
    api::ProgressSink,
    config::Profile,
    dag::{Block, Entry},
    dagsync::Flow,
    types::{Content, PublishRequest, SyncRequest, TicketRequest},
};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let homes = [tempfile::tempdir()?, tempfile::tempdir()?];
    let publisher = Node::builder().home(homes[0].path()).profile(Profile::Test).start().await?;
    let follower = Node::builder().home(homes[1].path()).profile(Profile::Test).start().await?;

    let note = homes[0].path().join("note.txt");
    for version in 1..=50 {
        std::fs::write(&note, format!("version {version}\n"))?;
        publisher.publish(PublishRequest::new(Content::Path(note.clone())), ProgressSink::none()).await?;
    }

    // The chain comes newest first. A hook sees each block before the next one and decides at once.
    let seen = AtomicUsize::new(0);
    let hook = move |block: &Block, _received: bool| match Entry::from_block(block) {
        Ok(entry) if seen.fetch_add(1, Ordering::Relaxed) < 10 => {
            println!("entry {} carries {}", entry.seq, entry.content);
            Flow::Continue
        }
        Ok(entry) => Flow::Fail(format!("entry {} is one too many", entry.seq)),
        Err(_) => Flow::Continue,
    };
    let ticket = publisher.ticket(TicketRequest::default()).await?.ticket;
    let stopped = follower.sync_with_hook(SyncRequest::new(ticket.parse()?), hook, ProgressSink::none()).await;
    println!("{}", stopped.err().map_or("nothing stopped it".to_owned(), |error| error.to_string()));

    follower.shutdown().await?;
    publisher.shutdown().await?;
    Ok(())
}
