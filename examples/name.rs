//! Points an IPNS name at one node, resolves it at another, and sees it change there; over real sockets.
//!
//! `cargo run --example name`

use std::time::Duration;

use anyhow::{Context, ensure};
use dagmesh::{
    Api, ErrorKind, Node,
    config::Profile,
    types::{DagPutRequest, DataFormat, HashName, NamePublish, NameResolved, RecordPutDone},
};
use futures::{Stream, StreamExt};

/// How long anything may take.
const DEADLINE: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let homes = [tempfile::tempdir()?, tempfile::tempdir()?];
    let owner = Node::builder().home(homes[0].path()).profile(Profile::Test).start().await?;
    let hub = owner.addrs().await?.into_iter().next().context("no address")?;
    let reader = Node::builder().home(homes[1].path()).profile(Profile::Test).bootstrap(hub).start().await?;

    let mut changes = Box::pin(reader.records().watch_name(&owner.peer_id().to_string())?);
    let mut last = 0;
    for text in ["one", "two"] {
        let (raw, data) = (DataFormat::Raw, text.as_bytes().to_vec());
        let block = DagPutRequest { input: raw, codec: raw, hash: HashName::default(), data };
        let value = format!("/ipfs/{}", owner.dag_put(block).await?.cid);
        let done = publish(&owner, &value).await?;
        ensure!(done.sequence > last, "the numbers of a name grow");
        last = done.sequence;
        println!("{} points at {value}: number {last}, held by {} of {}", owner.peer_id(), done.replicas, done.wanted);

        let name = reader.records().resolve_name(&owner.peer_id().to_string()).await?;
        ensure!(name.value == value && name.sequence == last, "another node reads {}", name.value);
        seen(&mut changes, &value).await?;
    }
    println!("another node has read both, and was told of the change");

    reader.shutdown().await?;
    owner.shutdown().await?;
    Ok(())
}

/// Points the name of a node's own key. A node that has just begun is known to nobody: then it is tried again.
async fn publish(node: &Node, value: &str) -> anyhow::Result<RecordPutDone> {
    let publishing = async {
        loop {
            match node.records().publish_name(NamePublish::new(value)).await {
                Err(error) if error.kind == ErrorKind::NoPeers => tokio::time::sleep(Duration::from_millis(50)).await,
                done => return Ok(done?),
            }
        }
    };
    tokio::time::timeout(DEADLINE, publishing).await.context("no other node holds the record")?
}

/// Waits until a watched name points there.
async fn seen(changes: &mut (impl Stream<Item = NameResolved> + Unpin), value: &str) -> anyhow::Result<()> {
    let seeing = async {
        while let Some(name) = changes.next().await {
            if name.value == value {
                return Ok(());
            }
        }
        anyhow::bail!("the watch ended")
    };
    tokio::time::timeout(DEADLINE, seeing).await.context("the change was not seen")?
}
