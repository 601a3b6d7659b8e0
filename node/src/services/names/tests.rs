//! Names of own feeds, in a real node. What others read of them is in the tests across nodes.

use std::path::Path;

use dagmesh_core::limits::MAX_RECORD_NAME_BYTES;

use super::*;
use crate::{
    Api, ErrorKind, Node,
    api::ProgressSink,
    config::Profile,
    testing::until,
    types::{AnnounceRequest, Content, DagPutRequest, DataFormat, KeyName, KeyRequest, PublishRequest, Published},
};

async fn start(home: &Path) -> Node {
    Node::builder().home(home).profile(Profile::Test).start().await.expect("starts")
}

async fn publish(node: &Node, feed: &str, text: &str, name: Option<&str>) -> Published {
    let put = DagPutRequest {
        input: DataFormat::Raw,
        codec: DataFormat::Raw,
        hash: Default::default(),
        data: text.as_bytes().to_vec(),
    };
    let cid = node.dag_put(put).await.expect("stores").cid;
    let feed = FeedName::new(feed).expect("a name");
    let request = PublishRequest { feed, name: name.map(key_name), ..PublishRequest::new(Content::Cid(cid)) };
    node.publish(request, ProgressSink::none()).await.expect("publishes")
}

fn key_name(name: &str) -> KeyName {
    KeyName::new(name).expect("a name of a key")
}

fn own(node: &Node) -> IpnsName {
    IpnsName::try_from(node.peer_id()).expect("a name")
}

/// The head that stands under a name of this node, and the number of the record.
fn head_under(node: &Node, name: &IpnsName, feed: &str) -> Option<(SignedHead, u64)> {
    let owner = name.public_key().expect("holds its key");
    let record = dagmesh_records::RecordName::new(format!("head/{feed}")).expect("a name");
    let key = dagmesh_records::record_key(&owner, &record);
    let held = node.records().list(true).into_iter().find(|held| held.key == key)?;
    let value = node.record_service().held_value(&key, 0)?;
    Some((SignedHead::decode(&value).expect("a head"), held.sequence))
}

/// Where the IPNS name points.
fn path(node: &Node, name: &IpnsName) -> Option<String> {
    node.record_service().held_value(&name.key(), 0).map(|value| String::from_utf8(value).expect("a path"))
}

#[tokio::test]
async fn many_publications_make_one_put_at_a_time_and_the_newest_stands_in_the_end() {
    const MANY: u64 = 100;
    let home = tempfile::tempdir().expect("a dir");
    let node = start(home.path()).await;
    let name = own(&node);
    let named = publish(&node, "main", "first", Some("self")).await;
    assert_eq!(named.name, Some(name.to_string()));
    until("name", async || (path(&node, &name) == Some(format!("/ipfs/{}", named.head))).then_some(())).await;
    let (_, before) = head_under(&node, &name, "main").expect("is put");
    // No put ends meanwhile.
    let places = node.names().hold_places().await;
    let mut last = None;
    for n in 0..MANY {
        last = Some(publish(&node, "main", &n.to_string(), None).await);
    }
    drop(places);
    let last = last.expect("published");
    assert_eq!(last.name, Some(name.to_string()), "it is bound for good");
    until("newest head", async || (path(&node, &name) == Some(format!("/ipfs/{}", last.head))).then_some(())).await;
    let (head, sequence) = head_under(&node, &name, "main").expect("is put");
    assert_eq!((*head.head(), head.seq(), head.publisher()), (last.head, MANY + 1, node.peer_id()));
    assert!(sequence - before <= 2, "{} puts of {MANY} publications", sequence - before);
    node.shutdown().await.expect("stops");
}

#[tokio::test]
async fn a_binding_outlives_a_restart_until_it_is_ended_and_a_name_shows_the_feed_bound_last() {
    let home = tempfile::tempdir().expect("a dir");
    let node = start(home.path()).await;
    let name = own(&node);
    let one = publish(&node, "one", "1", Some("self")).await;
    until("name", async || (path(&node, &name) == Some(format!("/ipfs/{}", one.head))).then_some(())).await;
    let other = publish(&node, "other", "2", Some("self")).await;
    until("name", async || (path(&node, &name) == Some(format!("/ipfs/{}", other.head))).then_some(())).await;
    let one = publish(&node, "one", "3", None).await;
    until("head of its own", async || head_under(&node, &name, "one").filter(|(head, _)| *head.head() == one.head))
        .await;
    assert_eq!(path(&node, &name), Some(format!("/ipfs/{}", other.head)), "the feed bound last");
    let unnamed = publish(&node, "unnamed", "4", None).await;
    assert_eq!(unnamed.name, None);
    node.shutdown().await.expect("stops");
    drop(node);

    let node = start(home.path()).await;
    let other = publish(&node, "other", "5", None).await;
    assert_eq!(other.name, Some(name.to_string()));
    until("name", async || (path(&node, &name) == Some(format!("/ipfs/{}", other.head))).then_some(())).await;
    assert!(head_under(&node, &name, "unnamed").is_none());

    let feed = FeedName::new("other").expect("a name");
    let announce = |cid, name: Option<&str>, no_name| AnnounceRequest {
        feed: feed.clone(),
        name: name.map(key_name),
        no_name,
        ..AnnounceRequest::new(cid)
    };
    let ended = node.announce(announce(other.head, None, true)).await.expect("announces");
    assert_eq!(ended.name, None);
    let unmoved = publish(&node, "other", "6", None).await;
    assert_eq!(unmoved.name, None);
    let one = publish(&node, "one", "7", None).await;
    until("name of the feed that is left", async || {
        (path(&node, &name) == Some(format!("/ipfs/{}", one.head))).then_some(())
    })
    .await;
    assert_eq!(
        head_under(&node, &name, "other").map(|(head, _)| *head.head()),
        Some(other.head),
        "what was put stands"
    );

    let unknown = node.announce(announce(unmoved.head, Some("no-such-key"), false)).await.expect_err("no key");
    assert_eq!(unknown.kind, ErrorKind::NotFound, "{unknown}");
    let both = node.announce(announce(unmoved.head, Some("self"), true)).await.expect_err("contradict");
    assert_eq!(both.kind, ErrorKind::Usage, "{both}");
    let again = node.announce(announce(unmoved.head, Some("self"), false)).await.expect("announces");
    assert_eq!(again.name, Some(name.to_string()));
    until("name", async || (path(&node, &name) == Some(format!("/ipfs/{}", unmoved.head))).then_some(())).await;
    node.shutdown().await.expect("stops");
}

#[tokio::test]
async fn another_key_may_name_a_feed_whose_publisher_signs_its_heads() {
    let home = tempfile::tempdir().expect("a dir");
    let node = start(home.path()).await;
    let key = node.key_gen(KeyRequest { name: key_name("other") }).await.expect("makes a key");
    let name: IpnsName = key.ipns.parse().expect("a name");
    let published = publish(&node, "main", "1", Some("other")).await;
    assert_eq!(published.name, Some(key.ipns));
    until("name", async || (path(&node, &name) == Some(format!("/ipfs/{}", published.head))).then_some(())).await;
    let (head, _) = head_under(&node, &name, "main").expect("is put");
    assert_eq!((head.publisher(), *head.head()), (node.peer_id(), published.head));
    node.shutdown().await.expect("stops");
}

#[test]
fn the_longest_name_of_a_feed_fits_into_that_of_a_record() {
    let feed = FeedName::new(&"f".repeat(128)).expect("the longest");
    assert!(FeedName::new(&"f".repeat(129)).is_err());
    assert!(record_name(&feed).len() <= MAX_RECORD_NAME_BYTES);
}
