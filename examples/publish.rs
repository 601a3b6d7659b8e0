//! Publishes a folder from one node and follows it from another, over real sockets, until both hold the same.
//!
//! `cargo run --example publish [FOLDER]`

use dagmesh::{
    Api, Node,
    api::ProgressSink,
    config::Profile,
    types::{Content, FollowRequest, GetRequest, PublishRequest, TicketRequest},
};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let folder = std::fs::canonicalize(std::env::args().nth(1).unwrap_or_else(|| "examples".to_owned()))?;
    let homes = [tempfile::tempdir()?, tempfile::tempdir()?];
    let publisher = Node::builder().home(homes[0].path()).profile(Profile::Test).start().await?;
    let follower = Node::builder().home(homes[1].path()).profile(Profile::Test).start().await?;

    let published = publisher.publish(PublishRequest::new(Content::Path(folder)), ProgressSink::none()).await?;
    println!("published {} as entry {} ({} blocks)", published.content, published.seq, published.blocks_added);

    let ticket = publisher.ticket(TicketRequest::default()).await?.ticket;
    let follow = FollowRequest { wait: true, ..FollowRequest::new(ticket.parse()?) };
    let follow = follower.follow(follow, ProgressSink::none()).await?;
    println!("in sync with entry {:?}", follow.latest_seq);

    let output = homes[1].path().join("export");
    let got = follower.get(GetRequest::new(published.content, output), ProgressSink::none()).await?;
    println!("exported {} files, {} bytes", got.files, got.bytes);

    follower.shutdown().await?;
    publisher.shutdown().await?;
    Ok(())
}
