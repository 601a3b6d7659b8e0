//! Heads that nobody may sign so, and two of one number; heads that come in any order, and again.

use dagmesh::types::GroupEvent;
use dagmesh_chronosync::{GroupHead, GroupId, Payload};
use dagmesh_tests::{
    Daemon,
    api::api_call,
    group::{self, GroupWatch},
    hostile::{
        Hostile,
        group::{Writer, bringing, in_the_name_of, topic, unix_ms, update},
    },
};
use serde_json::json;

use super::{GROUP, Scene};

/// 25 hours.
const TOO_FAR_MS: u64 = 25 * 60 * 60 * 1000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_29_a_head_that_its_producer_has_not_signed_for_this_group_is_never_told() {
    let mut scene = Scene::start().await;
    let honest = group::peer(&scene.honest);
    let root = group::state(&scene.daemon, GROUP).await;
    let forged = |kind: &str, writer: &Writer| -> Vec<u8> {
        let head = writer.clone().say("forged");
        let far = |number| writer.head(number, Payload { content: head.content().copied(), inline: None });
        match kind {
            "a bit of the signature" => {
                let mut bytes = head.encode().to_vec();
                *bytes.last_mut().expect("a signature") ^= 1;
                bytes
            }
            "the next number of another" => in_the_name_of(&far(root.sum + 1), &honest),
            "a high number of another" => in_the_name_of(&far(1 << 40), &honest),
            "of another group" => {
                let other = GroupId::open("another").expect("a name");
                Writer::new(&writer.key, other).say("of another group").encode().to_vec()
            }
            "of a session from the future" => {
                Writer { session: unix_ms() + TOO_FAR_MS, ..writer.clone() }.say("tomorrow").encode().to_vec()
            }
            _ => b"no head at all".to_vec(),
        }
    };
    let kinds = [
        "a bit of the signature",
        "the next number of another",
        "a high number of another",
        "of another group",
        "of a session from the future",
        "nothing",
    ];
    for kind in kinds {
        // Over the topic, beside a request's answer, and with a request.
        let (hostile, writer) = scene.intruder().await;
        let bad = forged(kind, &writer);
        scene.gossip(&hostile, &[&bad]).await;
        let answer = hostile.ask_group(scene.peer_id(), &scene.group, &bringing(&[&bad])).await;
        println!("{kind}: {}", if answer.is_some() { "answered, and not taken" } else { "dropped" });
        let state = group::state(&scene.daemon, GROUP).await;
        assert_eq!((state.leaves, state.members), (1, 1), "{kind}: {state:?}");
        scene.honest_is_heard().await;
    }
    let heads = group::state(&scene.daemon, GROUP).await.heads;
    assert_eq!((heads.len(), heads[0].producer, heads[0].seq), (1, honest, scene.said));
    scene.assert_told_only(&[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_29_who_inflates_its_own_numbers_is_told_with_a_gap_and_harms_nobody_else() {
    let mut scene = Scene::start().await;
    let (hostile, mut writer) = scene.intruder().await;
    hostile.serve(&writer.store);
    for text in ["one", "two"] {
        writer.append(text);
    }
    writer.number = 999_999;
    let far = writer.say("three");
    scene.gossip(&hostile, &[far.encode()]).await;
    let gap = scene.watch.wait("a gap", |event| matches!(event, GroupEvent::Gap { .. })).await;
    let GroupEvent::Gap { producer, session, first, last, .. } = gap else { panic!("a gap is {gap:?}") };
    assert_eq!((producer, session, first, last), (writer.producer(), writer.session, 1, 999_997));
    assert_eq!(scene.told_head(&far).await.text.as_deref(), Some("three"));
    let next = writer.say("four");
    scene.gossip(&hostile, &[next.encode()]).await;
    assert_eq!(scene.told_head(&next).await.text.as_deref(), Some("four"));
    scene.honest_is_heard().await;
    let state = group::state(&scene.daemon, GROUP).await;
    assert_eq!((state.missing, state.leaves, state.sum), (0, 2, 1_000_001 + scene.said));
    let log = group::log(&scene.daemon, GROUP).await;
    let own = log.iter().filter(|entry| entry.producer == writer.producer());
    assert!(own.map(|entry| entry.seq).eq(999_998..=1_000_001), "what there is is told, in order");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_29_two_heads_of_one_number_are_surfaced_with_both_entries_at_every_member() {
    let mut scene = Scene::start().await;
    let other = GroupWatch::from(&scene.honest, GROUP, 0).await;
    let (hostile, mut writer) = scene.intruder().await;
    let mut twin = writer.clone();
    let (one, two) = (writer.say("white"), twin.say("black"));
    scene.gossip(&hostile, &[one.encode()]).await;
    scene.told_head(&one).await;
    scene.gossip(&hostile, &[two.encode()]).await;
    let mut kept = Vec::new();
    for watch in [&scene.watch, &other] {
        let event = watch.wait("an equivocation", |event| matches!(event, GroupEvent::Equivocation { .. })).await;
        let GroupEvent::Equivocation { producer, session, seq, mut entries } = event else { panic!("it is {event:?}") };
        assert_eq!((producer, session, seq), (writer.producer(), writer.session, 1));
        kept.push(entries[0]);
        let mut both = [*one.content().expect("an entry"), *two.content().expect("an entry")];
        both.sort_unstable();
        entries.sort_unstable();
        assert_eq!(entries, both);
    }
    assert_eq!(kept[0], kept[1], "all keep the same one");
    scene.assert_told_only(&[writer.producer()]).await;
    let log = group::log(&scene.daemon, GROUP).await;
    assert_eq!(log.iter().filter(|entry| entry.producer == writer.producer()).count(), 1, "a number is told once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_35_heads_that_come_twice_late_and_in_any_order_are_told_once_and_in_order() {
    let mut scene = Scene::start().await;
    let (hostile, mut writer) = scene.intruder().await;
    hostile.serve(&writer.store);
    let heads: Vec<GroupHead> = (0..40).map(|n| writer.say(&format!("number {n}"))).collect();
    // 7 and 40 have no divisor in common: each place once, and each a second time.
    for n in 0..80 {
        scene.gossip(&hostile, &[heads[n * 7 % 40].encode()]).await;
    }
    scene.told_head(&heads[39]).await;
    let all: Vec<&[u8]> = heads.iter().rev().map(GroupHead::encode).collect();
    scene.gossip(&hostile, &all).await;
    hostile.ask_group(scene.peer_id(), &scene.group, &bringing(&all)).await;
    scene.assert_told_only(&[writer.producer()]).await;
    let log = group::log(&scene.daemon, GROUP).await;
    let own = log.iter().filter(|entry| entry.producer == writer.producer());
    let texts = own.filter_map(|entry| entry.text.clone()).collect::<Vec<_>>();
    assert_eq!(texts, (0..40).map(|n| format!("number {n}")).collect::<Vec<_>>());
    // The other member, who has it from the daemon alone, has the same.
    assert_eq!(group::agree(&[&scene.daemon, &scene.honest], GROUP, 40 + scene.said).await.len(), 64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_29_a_stranger_in_a_closed_group_is_heard_by_nobody() {
    let (owner, member) = tokio::join!(Daemon::start(), Daemon::start());
    let ask = json!({"name": GROUP, "closed": true, "members": [member.peer_id()]});
    let made = api_call(&owner, "group/create", &ask).await;
    group::join_wait(&member, made["ticket"].as_str().expect("a ticket")).await;
    let watch = GroupWatch::from(&owner, GROUP, 0).await;
    let id = made["id"].as_str().expect("an id");
    let bytes = (0..32).map(|n| u8::from_str_radix(&id[2 * n..2 * n + 2], 16).expect("hexadecimal"));
    let group = GroupId::from_bytes(bytes.collect::<Vec<_>>().try_into().expect("32 bytes"));

    let hostile = Hostile::start().await;
    hostile.connect(owner.addr("tcp").parse().expect("an address")).await;
    let mut writer = Writer::new(hostile.key(), group);
    for n in 0..5 {
        let head = writer.say(&format!("{n} of a stranger"));
        hostile.gossip(&topic(&group), update(&[head.encode()])).await;
        hostile.ask_group(group::peer(&owner), &group, &bringing(&[head.encode()])).await;
    }
    for n in 0..5 {
        group::say(&member, GROUP, &format!("{n} of a member")).await;
    }
    let told = watch.told(5).await;
    assert!(told.iter().all(|entry| entry.producer == group::peer(&member)), "{told:?}");
    for daemon in [&owner, &member] {
        let state = group::state(daemon, GROUP).await;
        assert_eq!((state.leaves, state.sum, state.members), (1, 5, 1), "{state:?}");
    }
}
