//! A node embedded in a program of your own: it publishes a folder and says how others get it.
//!
//! `cargo run --example embed [FOLDER]`

use dagmesh::{
    Api, Node,
    api::ProgressSink,
    config::Profile,
    types::{Content, PublishRequest, TicketRequest},
};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let folder = std::env::args().nth(1).unwrap_or_else(|| "examples".to_owned());
    let home = tempfile::tempdir()?;
    let node = Node::builder().home(home.path()).profile(Profile::Test).start().await?;

    let content = Content::Path(std::fs::canonicalize(folder)?);
    let published = node.publish(PublishRequest::new(content), ProgressSink::none()).await?;
    println!("entry {} of feed {}: {}", published.seq, published.feed, published.content);
    println!("dagmesh follow {}", node.ticket(TicketRequest::default()).await?.ticket);

    node.shutdown().await?;
    Ok(())
}
