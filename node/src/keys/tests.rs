use std::sync::Barrier;

use super::*;

fn name(text: &str) -> KeyName {
    KeyName::new(text).expect("a name")
}

struct Bench {
    folder: tempfile::TempDir,
    keys: Keyring,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let home = Home::locate(Some(folder.path())).expect("a home");
        let keys = Keyring::new(&home, Keypair::generate_ed25519());
        Self { folder, keys }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join("keys").join(format!("{name}.key"))
    }
}

#[test]
fn a_key_is_made_found_and_listed_and_is_private() {
    let bench = Bench::new();
    assert_eq!(bench.keys.list().expect("lists").len(), 1, "the own one alone");
    let made = bench.keys.generate(&name("work")).expect("makes");
    let key = bench.keys.get(&name("work")).expect("is there");
    assert_eq!(key.public().to_peer_id(), made.peer_id);
    assert_eq!((made.kind.as_str(), &made.public_key), ("ed25519", &made.peer_id.to_string()));
    assert_eq!(made.ipns.parse::<IpnsName>().expect("a name").peer_id(), made.peer_id);
    bench.keys.generate(&name("Another.1_2-3")).expect("makes");
    std::fs::write(bench.folder.path().join("keys/.tmpabc"), "left by a kill").expect("writes");
    let all = bench.keys.list().expect("lists");
    let names = all.iter().map(|info| info.name.as_str()).collect::<Vec<_>>();
    assert_eq!(names, ["self", "Another.1_2-3", "work"]);
    assert!(all[0].own && !all[1].own && all[2] == made);
    #[cfg(unix)]
    for (path, mode) in [(bench.file("work"), 0o600), (bench.folder.path().join("keys"), 0o700)] {
        let metadata = std::fs::metadata(path).expect("is there");
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o777, mode);
    }
}

#[test]
fn what_is_exported_is_taken_elsewhere_whatever_its_kind() {
    let (from, to) = (Bench::new(), Bench::new());
    let kinds = [
        ("ed25519", Keypair::generate_ed25519()),
        ("secp256k1", Keypair::generate_secp256k1()),
        ("ecdsa", Keypair::generate_ecdsa()),
    ];
    for (kind, pair) in kinds {
        let bytes = PrivateKey(pair.to_protobuf_encoding().expect("encodes"));
        let taken = from.keys.import(&name(kind), &bytes).expect("takes");
        assert_eq!((taken.kind.as_str(), taken.peer_id), (kind, pair.public().to_peer_id()));
        let exported = from.keys.export(&name(kind)).expect("exports");
        assert_eq!(exported, bytes);
        assert_eq!(to.keys.import(&name("same"), &exported).expect("takes").peer_id, taken.peer_id);
        std::fs::remove_file(to.file("same")).expect("removes");
        assert!(RecordTarget::public_key_of_text(&taken.public_key).expect("reads") == pair.public());
    }
    // libp2p reads RSA keys and writes none, so what came is what is kept; the key is in no id, so it is told apart.
    let rsa = PrivateKey(include_bytes!("testdata/rsa2048.key").to_vec());
    let taken = from.keys.import(&name("rsa"), &rsa).expect("takes");
    assert_eq!((taken.kind.as_str(), from.keys.export(&name("rsa"))), ("rsa", Ok(rsa)));
    assert!(taken.peer_id.to_string().starts_with("Qm") && taken.public_key.starts_with('u'), "{taken:?}");
    let own = from.keys.export(&KeyName::own()).expect("exports");
    let copy = to.keys.import(&name("copy"), &own).expect("takes");
    assert_eq!(copy.peer_id, from.keys.list().expect("lists")[0].peer_id);
    assert!(!format!("{own:?}").contains(&format!("{:?}", own.0)), "a log shows no key");
}

#[test]
fn a_key_is_never_written_over_and_the_own_one_neither_made_nor_taken() {
    let bench = Bench::new();
    let made = bench.keys.generate(&name("work")).expect("makes");
    let other = PrivateKey(Keypair::generate_ed25519().to_protobuf_encoding().expect("encodes"));
    for (error, part) in [
        (bench.keys.generate(&name("work")), "already"),
        (bench.keys.import(&name("work"), &other), "already"),
        (bench.keys.generate(&KeyName::own()), "the node's own"),
        (bench.keys.import(&KeyName::own(), &other), "the node's own"),
    ] {
        let error = error.expect_err("stays");
        assert!(error.kind == ErrorKind::Usage && error.message.contains(part), "{error}");
    }
    assert_eq!(bench.keys.get(&name("work")).expect("is there").public().to_peer_id(), made.peer_id);
    let none = bench.keys.get(&name("none")).expect_err("is not there");
    assert_eq!(none.kind, ErrorKind::NotFound, "{none}");
}

#[test]
fn of_many_that_make_one_key_at_once_one_does() {
    let bench = Bench::new();
    let (keys, barrier) = (&bench.keys, &Barrier::new(8));
    let made = std::thread::scope(|scope| {
        let one = || {
            barrier.wait();
            keys.generate(&name("work"))
        };
        let all = [(); 8].map(|()| scope.spawn(one));
        all.map(|one| one.join().expect("no panic")).into_iter().filter_map(Result::ok).collect::<Vec<_>>()
    });
    assert_eq!(made, [bench.keys.list().expect("lists").remove(1)]);
    assert_eq!(std::fs::read_dir(bench.folder.path().join("keys")).expect("lists").count(), 1, "nothing is left");
}

#[test]
fn what_is_no_name_or_no_key_is_refused_with_the_reason() {
    let bench = Bench::new();
    let long = "x".repeat(129);
    for text in ["", "a/b", "../x", "..", ".hidden", "-o", "a b", "ä", "a\0", &long] {
        let error = KeyName::new(text).expect_err(text);
        assert_eq!(error.kind, ErrorKind::Usage, "{error}");
    }
    assert!(KeyName::new(&long[1..]).is_ok());
    // Ed25519, its halves of two keys; a kind that is not known; too long.
    let halves = [Keypair::generate_ed25519(), Keypair::generate_ed25519()];
    let [mut mixed, other] = halves.map(|key| key.to_protobuf_encoding().expect("encodes"));
    mixed[36..].copy_from_slice(&other[36..]);
    for bytes in [b"no key".to_vec(), Vec::new(), mixed, vec![8, 9, 18, 1, 0], vec![8; MAX_KEY_FILE_BYTES + 1]] {
        let error = bench.keys.import(&name("x"), &PrivateKey(bytes)).expect_err("is none");
        assert!(error.kind == ErrorKind::Usage && error.message.contains("libp2p's protobuf"), "{error}");
    }
    assert_eq!(bench.keys.list().expect("lists").len(), 1);
    bench.keys.generate(&name("work")).expect("makes");
    std::fs::write(bench.file("work"), "damaged").expect("writes");
    let error = bench.keys.list().expect_err("is told");
    assert!(error.kind == ErrorKind::Verification && error.message.contains("work.key"), "{error}");
}
