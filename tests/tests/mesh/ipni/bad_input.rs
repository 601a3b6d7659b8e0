//! Bad input of the commands of the IPNI network gets a clear error with the right exit code.

use std::process::Stdio;

use dagmesh_tests::{Daemon, ipni};

use super::ours;
use crate::support::{SOON, assert_fails, daemon, text};

/// Something that is well-formed, and is held nowhere.
const NOWHERE: &str = "baguqeeraxcdqnsmkbpzgydq6bguhsxdsmy6bptpirjg6znzavmyjzdgvlzma";

#[tokio::test]
async fn what_cannot_be_published_is_named_and_moves_no_head() {
    let here = ours().await;
    let head = ipni::publish(&here, 1, true).await.remove(0);
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).expect("a file");
        text(&path).to_owned()
    };
    let good = file("good", format!("1220{:064x}\n", 7).as_bytes());
    let publish = async |args: &[&str]| here.run(&[&["ipni", "publish"], args].concat()).await;
    assert_fails(&publish(&["/no/such/file"]).await, 4, &["/no/such/file"]);
    let garbage = file("garbage", &[0xff, 0, 7, 0xfe, 9, 9, 9]);
    assert_fails(&publish(&[&garbage]).await, 2, &[&garbage, "neither a list of multihashes nor a CAR"]);
    let words = file("words", b"# a list\nof words\n");
    assert_fails(&publish(&[&words]).await, 2, &[&words, "line 2", "of words"]);
    let folder_itself = text(folder.path()).to_owned();
    assert_fails(&publish(&[&folder_itself]).await, 1, &[&folder_itself]);
    assert_fails(&publish(&[&good, "--metadata", "xyz"]).await, 2, &["metadata", "hexadecimal"]);
    assert_fails(&publish(&[&good, "--metadata", "abc"]).await, 2, &["metadata", "hexadecimal"]);
    assert_fails(&publish(&[&good, "--metadata", &"00".repeat(1025)]).await, 2, &["metadata", "1025", "1024"]);
    let long = "c".repeat(65);
    assert_fails(&publish(&[&good, "--context-id", &long]).await, 2, &["context id", "65", "64"]);
    assert_fails(&here.run(&["ipni", "remove", &long]).await, 2, &["context id", "65", "64"]);
    assert_eq!(here.json(&["ipni", "ad", "get"]).await["cid"], head, "the head is where it was");

    // At the bounds it is taken; empty lists are advertisements without entries.
    let (context, metadata) = ("c".repeat(64), "00".repeat(1024));
    publish(&[&good, "--context-id", &context, "--metadata", &metadata]).await.assert_code(0);
    let empty = publish(&[&file("empty", b"\n# nothing\n")]).await;
    assert_eq!((&empty.json()["multihashes"], &empty.json()["ads"]), (&0.into(), &3.into()), "{empty}");
}

#[tokio::test]
async fn what_is_not_there_or_makes_no_sense_is_named() {
    let here = daemon(&[]).await;
    let run = async |args: &[&str]| here.run(&[&["ipni"], args].concat()).await;
    for ad in [&["ad", "get"][..], &["ad", "list"], &["ad", "verify"], &["announce", "--to", "http://127.0.0.1:9"]] {
        assert_fails(&run(ad).await, 4, &["published no advertisement", "ipni publish"]);
    }
    ipni::publish(&here, 1, true).await;
    for ad in ["get", "verify"] {
        assert_fails(&run(&["ad", ad, NOWHERE]).await, 4, &[NOWHERE, "not held"]);
        assert_fails(&run(&["ad", ad, "bafynonsense"]).await, 2, &["bafynonsense"]);
    }
    // A block that is held, and no advertisement.
    let entries = here.json(&["ipni", "ad", "get"]).await["entries"].as_str().expect("a CID").to_owned();
    assert_fails(&run(&["ad", "verify", &entries]).await, 2, &[&entries, "no advertisement"]);
    for (url, words) in [
        ("nonsense", &["nonsense"][..]),
        ("ftp://127.0.0.1/", &["ftp"]),
        ("http://me:secret@127.0.0.1/", &["names and passwords"]),
        ("http://", &["http://"]),
    ] {
        assert_fails(&run(&["announce", "--to", url]).await, 2, words);
    }
    let closed = format!("http://127.0.0.1:{}", dagmesh_tests::daemon::free_port());
    assert_fails(&run(&["announce", "--to", &closed]).await, 5, &[&closed]);
    assert_fails(&run(&["announce"]).await, 2, &["--to"]);

    let peer = "12D3KooWKnDdG3iXw9eTFijk3EWSunZcFi54Zka4wmtqtt6rPxc8";
    assert_fails(&run(&["ad", "list", peer]).await, 4, &[peer, "not followed"]);
    assert_fails(&run(&["ad", "list", "nobody"]).await, 2, &["nobody"]);
    assert_fails(&run(&["follow", "nobody"]).await, 2, &["nobody"]);
    assert_fails(&run(&["follow", "/ip4/127.0.0.1/tcp/80/http"]).await, 2, &["/p2p/"]);
    assert_fails(&run(&["follow", here.peer_id()]).await, 2, &["own peer id"]);
    for network in ["", "no such network", "Mainnet", &"n".repeat(65)] {
        assert_fails(&run(&["follow", peer, "--network", network]).await, 2, &["no name of a network"]);
    }
    assert_eq!(here.json(&["follows"]).await, serde_json::json!([]), "nothing is followed by accident");
}

#[tokio::test]
async fn names_of_chains_are_not_those_of_feeds() {
    let here = daemon(&[]).await;
    let peer = "12D3KooWKnDdG3iXw9eTFijk3EWSunZcFi54Zka4wmtqtt6rPxc8";
    let path = here.home().join("content");
    std::fs::write(&path, "content").expect("a file");
    let words = ["ipni:mainnet", "dagmesh ipni publish"];
    assert_fails(&here.run(&["publish", "--feed", "ipni:mainnet", text(&path)]).await, 2, &words);
    assert_fails(&here.run(&["follow", "--feed", "ipni:mainnet", peer]).await, 2, &words);
    assert_eq!(here.json(&["follows"]).await, serde_json::json!([]));
}

/// Arguments and environment of a daemon, what its error is to name, and its exit code.
type Wrong<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)], &'a [&'a str], i32);

/// Starts another daemon with these arguments and this environment, which is to end; its exit code and stderr.
async fn start(here: &Daemon, args: &[&str], env: &[(&str, &str)]) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = here.command();
    command.arg("--home").arg(folder.path()).args(["daemon", "--profile", "test", "--api", "127.0.0.1:0"]).args(args);
    command.envs(env.iter().copied()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let output = tokio::time::timeout(SOON, command.output()).await.expect("an end in time").expect("a command");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test]
async fn a_taken_port_or_half_a_certificate_stops_the_start_and_says_what_to_do() {
    let here = ours().await;
    let taken = ipni::url(&here).await.trim_start_matches("http://").to_owned();
    let (code, error) = start(&here, &["--ipni-http", &taken], &[]).await;
    assert!(code == Some(1) && error.contains(&taken) && error.contains("--ipni-http"), "{code:?} {error}");

    let folder = tempfile::tempdir().expect("a folder");
    let garbage = folder.path().join("garbage.pem");
    std::fs::write(&garbage, "no certificate").expect("a file");
    let (cert, key) = ("DAGMESH_IPNI__TLS_CERT", "DAGMESH_IPNI__TLS_KEY");
    let http = ["--ipni-http", "127.0.0.1:0"];
    let wrong: [Wrong; 6] = [
        (&http, &[(cert, text(&garbage))], &["ipni.tls_cert", "ipni.tls_key"], 2),
        (&http, &[(key, text(&garbage))], &["ipni.tls_cert", "ipni.tls_key"], 2),
        (&[], &[(cert, text(&garbage)), (key, text(&garbage))], &["ipni.http"], 2),
        (&http, &[(cert, text(&garbage)), (key, text(&garbage))], &["ipni.tls_cert", "PEM"], 2),
        (&http, &[(cert, "/no/such.pem"), (key, text(&garbage))], &["/no/such.pem"], 4),
        (&http, &[("DAGMESH_IPNI__NETWORK", "No Such")], &["ipni.network", "No Such"], 2),
    ];
    for (args, env, words, expected) in wrong {
        let (code, error) = start(&here, args, env).await;
        assert!(code == Some(expected) && words.iter().all(|word| error.contains(word)), "{env:?}: {code:?} {error}");
    }
    let (code, error) = start(&here, &["--ipni-http", "nowhere"], &[]).await;
    assert!(code == Some(2) && error.contains("nowhere"), "{code:?} {error}");
}
