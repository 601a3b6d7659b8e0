//! What publications carry: long texts, files, folders, and their next versions.

use dagmesh::types::GroupEvent;
use dagmesh_tests::{
    assert_same_folder, edit_files,
    group::{self, GroupWatch},
    make_folder,
};
use futures::future::join_all;
use serde_json::json;

use super::{GROUP, island, line_to, members};
use crate::support::{api_call, assert_sound, text};

/// The longest text that one publication carries.
const LONGEST: usize = 16 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_longest_texts_and_letters_of_all_kinds_are_told_as_they_were_said() {
    let daemons = members(3).await;
    let watches = join_all(daemons.iter().map(|daemon| GroupWatch::from(daemon, GROUP, 0))).await;
    let odd = "zwölf Boxkämpfer \u{1b}[2J\u{0}\r\n♔→♚ \u{202e}\u{feff}";
    let mut texts = vec![odd.to_owned(), " ".to_owned(), "\n".to_owned(), "{}".to_owned(), "-".to_owned()];
    texts.extend((0..8u8).map(|n| char::from(b'a' + n).to_string().repeat(LONGEST)));
    texts.push("é".repeat(LONGEST / 2));
    for said in &texts {
        group::say(&daemons[0], GROUP, said).await;
    }
    for watch in &watches {
        let told = watch.told(texts.len()).await;
        assert!(told.iter().map(|entry| entry.text.as_ref()).eq(texts.iter().map(Some)), "word for word");
    }
    // The command line gives them on as they are, and what is one byte too long is refused everywhere.
    let log = daemons[1].json(&["group", "log", GROUP]).await;
    assert_eq!(log[0]["text"], odd);
    let over = "x".repeat(LONGEST + 1);
    let error = group::try_say(&daemons[0], GROUP, &over).await.expect_err("one byte too much");
    assert!(error.starts_with("400") && error.contains("usage"), "{error}");
    daemons[0].run(&["group", "send", GROUP, &over]).await.assert_code(2);
    group::say(&daemons[0], GROUP, "next").await;
    assert_eq!(watches[2].told(texts.len() + 1).await.last().expect("one").seq, texts.len() as u64 + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_is_whole_at_every_member_and_of_its_next_version_only_what_is_new_travels() {
    let [publisher, near, far] = [island().await, island().await, island().await];
    let ticket = group::create(&publisher, GROUP).await.ticket;
    let (line, over) = line_to(&publisher, GROUP).await;
    group::join(&near, &ticket).await;
    group::join(&far, &over).await;
    for member in [&near, &far] {
        group::has_peers(member, GROUP, 1).await;
    }
    let files = tempfile::tempdir().expect("a folder");
    let folder = files.path().join("folder");
    make_folder(&folder, 1000, 2_000_000, 7);
    let watches = [GroupWatch::from(&near, GROUP, 0).await, GroupWatch::from(&far, GROUP, 0).await];
    let publish = async || {
        let added = publisher.json(&["add", text(&folder), "--hidden"]).await;
        let published = publisher.json(&["group", "publish", GROUP, added["cid"].as_str().expect("a CID")]).await;
        let head = published["head"].as_str().expect("a head").parse::<cid::Cid>().expect("a CID");
        let before = line.bytes_from_target();
        for watch in &watches {
            watch.fetched(&head).await;
        }
        (head, line.bytes_from_target() - before)
    };
    let begun = line.bytes_from_target();
    let (first, _) = publish().await;
    let first_bytes = line.bytes_from_target() - begun;
    assert!(first_bytes > 1_500_000, "{first_bytes} bytes for a folder of nearly 2 MB");
    assert_eq!(edit_files(&folder, 3, 8).len(), 3);
    let before = line.bytes_from_target();
    let (second, _) = publish().await;
    let second_bytes = line.bytes_from_target() - before;
    println!("{first_bytes} bytes for the first version, {second_bytes} for the second");
    assert!(first != second && second_bytes < first_bytes / 20, "{second_bytes} of {first_bytes} bytes travel again");

    for (name, member) in [("near", &near), ("far", &far)] {
        let copy = files.path().join(name);
        api_call(member, "get", &json!({"cid": second.to_string(), "output": copy})).await;
        assert!(assert_same_folder(&folder, &copy) > 1000);
        // What was told of, and whole, is kept: the earlier version too.
        api_call(member, "gc", &json!({})).await;
        for head in [first, second] {
            let stat = member.json(&["dag", "stat", &head.to_string()]).await;
            assert_eq!(stat["missing"], 0, "{stat}");
        }
        assert_sound(member).await;
    }
    let heads = |watch: &GroupWatch| watch.entries().iter().filter_map(|entry| entry.head).collect::<Vec<_>>();
    assert_eq!((heads(&watches[0]), heads(&watches[1])), (vec![first, second], vec![first, second]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_of_several_members_come_whole_and_a_text_does_not_wait_for_them() {
    let daemons = members(3).await;
    let watches = join_all(daemons.iter().map(|daemon| GroupWatch::from(daemon, GROUP, 0))).await;
    let files = tempfile::tempdir().expect("a folder");
    let mut published = Vec::new();
    for (number, daemon) in daemons.iter().enumerate() {
        let path = files.path().join(number.to_string());
        std::fs::write(&path, (0..1u32 << 18).flat_map(|n| (n * 4 + number as u32).to_be_bytes()).collect::<Vec<_>>())
            .expect("a file");
        let head = group::publish(daemon, GROUP, &path).await.head.expect("a head");
        group::say(daemon, GROUP, "there it is").await;
        published.push((path, head));
    }
    for (number, (daemon, watch)) in daemons.iter().zip(&watches).enumerate() {
        assert_eq!(watch.told(6).await.iter().filter(|entry| entry.text.is_some()).count(), 3);
        for (path, head) in &published {
            watch.fetched(head).await;
            let copy = files.path().join(format!("{number} of {head}"));
            api_call(daemon, "get", &json!({"cid": head.to_string(), "output": copy})).await;
            assert!(std::fs::read(path).expect("reads") == std::fs::read(copy).expect("reads"), "the same bytes");
        }
        let whole = watch.all("fetched");
        assert_eq!(whole.len(), 3, "each is told to be whole once: {whole:?}");
        assert!(whole.iter().all(|event| matches!(event, GroupEvent::Fetched { .. })));
    }
    // What is not held cannot be told of.
    let absent = cid::Cid::new_v1(0x55, cid::multihash::Multihash::wrap(0x12, &[7; 32]).expect("fits")).to_string();
    let refused = daemons[0].run(&["group", "publish", GROUP, &absent]).await;
    refused.assert_code(4);
}
