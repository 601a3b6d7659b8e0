//! Gossip: what is passed on, what is held until it is judged, and the caps.

use super::*;

#[tokio::test]
async fn gossip_travels_both_ways() {
    let (mut a, mut b) = subscribed_pair().await;
    assert_eq!(a.handle.publish(TOPIC, b"from a".to_vec()).await.unwrap(), 1);
    let message = b.message().await;
    assert_eq!((message.author, message.propagation), (Some(a.peer()), a.peer()));
    assert_eq!((message.topic.as_str(), message.data.as_slice()), (TOPIC, b"from a".as_slice()));
    b.handle.publish(TOPIC, b"from b".to_vec()).await.unwrap();
    assert_eq!(a.message().await.data, b"from b");
    until("mesh", async || (a.handle.mesh_peers(TOPIC).await.unwrap() == [b.peer()]).then_some(())).await;
    assert_eq!(b.handle.metrics().gossip_accepted, 1);
}

#[tokio::test]
async fn publishing_without_peers_names_the_topic_and_the_connected() {
    let (a, b) = (Node::start().await, Node::start().await);
    a.handle.connect(b.tcp().await).await.unwrap();
    a.sees("identify", b.peer(), |it| it.agent.is_some()).await;
    let error = a.handle.publish(TOPIC, vec![1]).await.unwrap_err();
    assert_eq!(error.to_string(), format!("no peers on {TOPIC} (1 connected)"));
}

#[tokio::test]
async fn a_message_over_the_cap_is_refused_before_it_is_sent() {
    let (a, _b) = subscribed_pair().await;
    let error = a.handle.publish(TOPIC, vec![0; limits::MAX_GOSSIP_BYTES + 1]).await.unwrap_err();
    assert!(matches!(error, PublishError::TooLarge { .. }), "{error}");
}

#[tokio::test]
async fn what_a_validator_rejects_is_not_passed_on() {
    let picky = |_: Instant, _: PeerId, message: &Message| match message.data.as_slice() {
        b"bad" => MessageAcceptance::Reject,
        b"dull" => MessageAcceptance::Ignore,
        _ => MessageAcceptance::Accept,
    };
    let (a, mut b, mut c) = (Node::start().await, Node::validated(|_| (), Box::new(picky)).await, Node::start().await);
    // A line a - b - c: the ends must not find one another in the DHT.
    a.handle.ban(c.peer()).await.unwrap();
    c.handle.ban(a.peer()).await.unwrap();
    for node in [&a, &b, &c] {
        node.handle.subscribe(TOPIC).await.unwrap();
    }
    a.handle.connect(b.tcp().await).await.unwrap();
    c.handle.connect(b.tcp().await).await.unwrap();
    a.sees_subscriber(b.peer(), TOPIC).await;
    b.sees_subscriber(c.peer(), TOPIC).await;
    for data in ["bad", "dull", "good"] {
        a.handle.publish(TOPIC, data.as_bytes().to_vec()).await.unwrap();
    }
    assert_eq!(c.message().await.data, b"good");
    assert_eq!(b.message().await.data, b"good");
    let metrics = b.handle.metrics();
    assert_eq!((metrics.gossip_rejected, metrics.gossip_ignored, metrics.gossip_accepted), (1, 1, 1));
    assert_eq!(c.handle.metrics().gossip_accepted, 1);
}

const HELD: &str = "/dagmesh/groups/test";

#[tokio::test]
async fn a_held_message_goes_on_once_it_is_judged_and_not_before() {
    let (a, b, mut c) = (Node::start().await, Node::start().await, Node::start().await);
    // A line a - b - c: the ends must not find one another in the DHT.
    a.handle.ban(c.peer()).await.unwrap();
    c.handle.ban(a.peer()).await.unwrap();
    let mut held = b.handle.subscribe_held(HELD, limits::GROUP_GOSSIP_BYTES).await.unwrap();
    a.handle.subscribe(HELD).await.unwrap();
    c.handle.subscribe(HELD).await.unwrap();
    a.handle.connect(b.tcp().await).await.unwrap();
    c.handle.connect(b.tcp().await).await.unwrap();
    a.sees_subscriber(b.peer(), HELD).await;
    b.sees_subscriber(c.peer(), HELD).await;
    until("mesh", async || b.handle.mesh_peers(HELD).await.unwrap().contains(&c.peer()).then_some(())).await;
    for (data, verdict) in
        [("bad", MessageAcceptance::Reject), ("dull", MessageAcceptance::Ignore), ("good", MessageAcceptance::Accept)]
    {
        a.handle.publish(HELD, data.as_bytes().to_vec()).await.unwrap();
        let message = within("a held message", held.recv()).await.unwrap();
        assert_eq!((message.author, message.neighbour, message.data.as_slice()), (a.peer(), a.peer(), data.as_bytes()));
        b.handle.judge(message.held, verdict).await.unwrap();
    }
    assert_eq!(c.message().await.data, b"good");
    let metrics = b.handle.metrics();
    assert_eq!((metrics.gossip_rejected, metrics.gossip_ignored, metrics.gossip_accepted), (1, 1, 1));
}

#[tokio::test]
async fn a_topic_holds_so_many_bytes_of_one_neighbour_and_leaves_room_to_others() {
    let (a, b, other) = (Node::start().await, Node::start().await, Node::start().await);
    let mut held = b.handle.subscribe_held(HELD, limits::GROUP_GOSSIP_BYTES).await.unwrap();
    for node in [&a, &other] {
        node.handle.subscribe(HELD).await.unwrap();
        node.handle.connect(b.tcp().await).await.unwrap();
        node.sees_subscriber(b.peer(), HELD).await;
    }
    let large = limits::MAX_GOSSIP_BYTES - 1024;
    let fit = limits::GROUP_GOSSIP_BYTES / 2 / large;
    for n in 0..fit as u32 + 1 {
        let mut data = vec![0; large];
        data[..4].copy_from_slice(&n.to_be_bytes());
        while let Err(error) = a.handle.publish(HELD, data.clone()).await {
            assert!(matches!(error, PublishError::Failed { .. }), "{error}");
            tokio::task::yield_now().await;
        }
        // One after the other: the queue of the sender holds few of these.
        until("message", async || {
            (held.len() + b.handle.metrics().gossip_overflow as usize > n as usize).then_some(())
        })
        .await;
    }
    assert_eq!((held.len(), b.handle.metrics().gossip_overflow), (fit, 1));
    other.handle.publish(HELD, vec![9; large]).await.unwrap();
    until("another neighbour's message", async || (held.len() == fit + 1).then_some(())).await;
    // A verdict frees its share.
    let message = within("a held message", held.recv()).await.unwrap();
    b.handle.judge(message.held, MessageAcceptance::Ignore).await.unwrap();
    a.handle.publish(HELD, vec![1; large]).await.unwrap();
    until("room", async || (held.len() == fit + 1).then_some(())).await;
    // Those who judge have gone: what comes is ignored.
    drop(held);
    a.handle.publish(HELD, vec![2; large]).await.unwrap();
    until("overflow", async || (b.handle.metrics().gossip_overflow == 2).then_some(())).await;
}

#[tokio::test]
async fn a_verdict_counts_until_gossipsub_forgets_the_message_and_not_later() {
    let (a, b) = (Node::start().await, Node::start().await);
    let mut held = b.handle.subscribe_held(HELD, limits::GROUP_GOSSIP_BYTES).await.unwrap();
    a.handle.connect(b.tcp().await).await.unwrap();
    a.sees_subscriber(b.peer(), HELD).await;
    // Three seconds below it, for a machine that is busy, and at it.
    for (ago_ms, counts) in [(limits::GROUP_VERDICT_MS - 3000, (1, 0)), (limits::GROUP_VERDICT_MS, (1, 1))] {
        a.handle.publish(HELD, ago_ms.to_be_bytes().to_vec()).await.unwrap();
        let mut message = within("a held message", held.recv()).await.unwrap();
        message.held.since = message.held.since.checked_sub(Duration::from_millis(ago_ms)).unwrap();
        b.handle.judge(message.held, MessageAcceptance::Accept).await.unwrap();
        let counted = || (b.handle.metrics().gossip_accepted, b.handle.metrics().gossip_late);
        until("verdict", async || (counted() == counts).then_some(())).await;
    }
}

#[tokio::test]
async fn a_topic_holds_so_many_small_messages_of_one_neighbour_and_no_more() {
    let (a, b) = (Node::start().await, Node::start().await);
    let held = b.handle.subscribe_held(HELD, limits::GROUP_GOSSIP_BYTES).await.unwrap();
    a.handle.connect(b.tcp().await).await.unwrap();
    a.sees_subscriber(b.peer(), HELD).await;
    let fit = limits::GROUP_GOSSIP_BYTES / 2 / limits::HELD_MESSAGE_BYTES;
    for n in 0..=fit {
        a.handle.publish(HELD, n.to_be_bytes().to_vec()).await.unwrap();
        // A few at a time: the queue of the sender is bounded too.
        if n % 64 == 63 || n >= fit - 1 {
            until("message", async || (held.len() + b.handle.metrics().gossip_overflow as usize > n).then_some(()))
                .await;
        }
        assert_eq!(b.handle.metrics().gossip_overflow, (n / fit) as u64);
    }
    assert_eq!(held.len(), fit);
}

#[tokio::test]
async fn a_peer_that_comes_back_before_its_old_connection_has_ended_is_told_our_topics() {
    let key = Keypair::generate_ed25519();
    let start_again = async || {
        let running = start(SwarmConfig::for_profile(Profile::Test), key.clone(), Box::new(AcceptAll)).await.unwrap();
        let events = running.handle.events();
        let node = Node { handle: running.handle, gossip: running.gossip, events };
        node.handle.subscribe(TOPIC).await.unwrap();
        node
    };
    let (before, b) = (start_again().await, Node::start().await);
    b.handle.subscribe(TOPIC).await.unwrap();
    before.handle.connect(b.tcp().await).await.unwrap();
    b.sees_subscriber(before.peer(), TOPIC).await;
    // It has lived for a while, and is no dial that crosses with another.
    b.sees("an old connection", before.peer(), |it| it.connected_for > Duration::from_millis(1100)).await;
    let after = start_again().await;
    after.handle.connect(b.tcp().await).await.unwrap();
    b.sees("both connections", after.peer(), |it| it.connections == 2).await;
    before.handle.shutdown().await.unwrap();
    until("topic", async || {
        // It is connected with still, or again.
        let _closing = after.handle.connect(b.tcp().await).await;
        let peers = after.handle.peers().await.unwrap();
        peers.iter().any(|it| it.peer == b.peer() && it.topics.iter().any(|name| name == TOPIC)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_full_queue_ignores_messages_and_counts_them() {
    let (a, mut b) = subscribed_pair().await;
    for i in 0..limits::GOSSIP_QUEUE as u32 + 1 {
        while let Err(error) = a.handle.publish(TOPIC, i.to_be_bytes().to_vec()).await {
            assert!(matches!(error, PublishError::Failed { .. }), "{error}");
            tokio::task::yield_now().await;
        }
    }
    until("overflow", async || {
        let metrics = b.handle.metrics();
        (metrics.gossip_accepted + metrics.gossip_overflow > limits::GOSSIP_QUEUE as u64).then_some(())
    })
    .await;
    assert_eq!(b.handle.metrics().gossip_accepted, limits::GOSSIP_QUEUE as u64);
    assert_eq!(b.handle.metrics().gossip_overflow, 1);
    assert_eq!(b.message().await.data, 0u32.to_be_bytes());
}

#[tokio::test]
async fn a_peer_is_followed_into_a_hundred_topics_and_not_one_more() {
    let (a, b) = (Node::start().await, Node::with(|config| config.max_topics = 2 * limits::MAX_TOPICS).await);
    a.handle.connect(b.tcp().await).await.unwrap();
    let name = |i: usize| format!("/dagmesh/cap/{i}");
    for i in 0..limits::MAX_TOPICS {
        b.handle.subscribe(name(i)).await.unwrap();
    }
    a.sees("all topics up to the cap", b.peer(), |it| it.topics.len() == limits::MAX_TOPICS).await;
    b.handle.subscribe(name(limits::MAX_TOPICS)).await.unwrap();
    // Subscriptions arrive in order: once this one's end is seen, the one before it has been decided on.
    b.handle.unsubscribe(name(0)).await.unwrap();
    let info = a.sees("an unsubscription", b.peer(), |it| !it.topics.contains(&name(0))).await;
    assert_eq!(info.topics.len(), limits::MAX_TOPICS - 1);
    assert!(!info.topics.contains(&name(limits::MAX_TOPICS)));
}

#[tokio::test]
async fn own_subscriptions_are_capped_and_bound_to_the_prefixes() {
    let a = Node::with(|config| config.max_topics = 2).await;
    assert!(a.handle.subscribe("/dagmesh/1").await.unwrap());
    assert!(a.handle.subscribe("/dagmesh/2").await.unwrap());
    assert!(!a.handle.subscribe("/dagmesh/2").await.unwrap());
    let error = a.handle.subscribe("/dagmesh/3").await.unwrap_err();
    assert!(error.to_string().contains("2 topics"), "{error}");
    assert!(a.handle.unsubscribe("/dagmesh/1").await.unwrap());
    assert!(a.handle.subscribe("/dagmesh/3").await.unwrap());
    let error = a.handle.subscribe("/eth2/blocks").await.unwrap_err();
    assert!(error.to_string().contains("/dagmesh/"), "{error}");
}
