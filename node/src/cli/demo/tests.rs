use std::{
    ffi::OsString,
    fs,
    io::{self, Write},
    os::unix::fs::symlink,
};

use parking_lot::Mutex;
use serde_json::Value;

use super::*;
use crate::cli::{NodeBackend, Streams};

static GO: AtomicBool = AtomicBool::new(false);

#[derive(Clone, Default)]
struct Printed(Arc<Mutex<Vec<u8>>>);

impl Printed {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock()).into_owned()
    }
}

impl Write for Printed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Exit code, stdout and stderr of `dagmesh demo ARGS`.
async fn demo(args: &[&str]) -> (u8, String, String) {
    let (out, err) = (Printed::default(), Printed::default());
    let (out_is_terminal, err_is_terminal) = (false, false);
    let streams = Streams { out: Box::new(out.clone()), err: Box::new(err.clone()), out_is_terminal, err_is_terminal };
    let args = ["dagmesh", "demo"].iter().chain(args).map(OsString::from).collect();
    let code = tokio::time::timeout(Duration::from_secs(120), crate::cli::run(&NodeBackend, args, streams)).await;
    (code.expect("the demo ends"), out.text(), err.text())
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_of_every_sort_comes_out_the_same_and_only_new_blocks_move() {
    let temp = tempfile::tempdir().expect("a folder");
    let root = temp.path().join("Grüße 数据");
    fs::create_dir_all(root.join("empty/er")).expect("made");
    for index in 0..30 {
        fs::write(root.join(format!("file {index}")), format!("content of {index}").repeat(index * 200)).expect("made");
    }
    // The same content at two places moves once.
    fs::write(root.join(".hidden"), "content of 7".repeat(1400)).expect("made");
    fs::write(root.join("large"), vec![7; 700_000]).expect("made");
    symlink("large", root.join("link")).expect("made");
    symlink("../nowhere", root.join("broken")).expect("made");
    let before = Tree::list(&root, false, &GO).expect("listed");

    let (code, out, err) = demo(&[text(&root), "--json"]).await;
    assert_eq!(code, 0, "{out}{err}");
    let report: Value = serde_json::from_str(&out).expect("one object");
    let step = |name: &str| {
        let steps = report["steps"].as_array().expect("steps").iter().filter(|step| step["step"] == name);
        steps.map(|step| step["blocks"].as_u64().expect("a count")).collect::<Vec<_>>()
    };
    assert_eq!(report["identical"], true);
    assert_eq!(report["change"], serde_json::json!({"edited": 10, "added": 1, "removed": 1, "renamed": 1}));
    assert_eq!(step("fetch"), [step("publish")[0]; 2], "all that was published travels, once to each");
    assert_eq!(step("sync"), [step("change")[0]; 2], "and then all that is new");
    assert_eq!(report["had_to"].as_u64(), Some(step("sync")[0]));
    assert!(step("sync")[0] < step("fetch")[0], "{report}");
    assert_eq!(Tree::list(&root, false, &GO).expect("listed"), before, "what is published is only read");
}

#[tokio::test]
async fn a_path_that_is_not_there_is_named() {
    let (code, out, err) = demo(&["/no/such/folder"]).await;
    assert_eq!((code, out.as_str()), (4, ""));
    assert!(err.contains("cannot read /no/such/folder"), "{err}");
}

#[test]
fn a_repository_gives_its_protocols_and_elsewhere_a_sample_is_made() {
    let temp = tempfile::tempdir().expect("a folder");
    let (here, found) = (temp.path(), |path: &Path| Source::Path { path: path.to_owned(), named: false });
    fs::create_dir(here.join("protocols")).expect("made");
    assert_eq!(Source::choose(None, here).expect("chosen"), Source::Sample);
    fs::write(here.join("Cargo.toml"), "").expect("made");
    assert_eq!(Source::choose(None, here).expect("chosen"), found(&here.join("protocols")));
    fs::remove_dir(here.join("protocols")).expect("removed");
    assert_eq!(Source::choose(None, here).expect("chosen"), found(here));
}

#[test]
fn builds_and_history_are_left_out_at_the_top_alone() {
    let temp = tempfile::tempdir().expect("a folder");
    for folder in [".git", "target", "src/target"] {
        fs::create_dir_all(temp.path().join(folder)).expect("made");
        fs::write(temp.path().join(folder).join("file"), "x").expect("made");
    }
    let count = |skip| Tree::list(temp.path(), skip, &GO).expect("listed").file_count();
    assert_eq!((count(true), count(false)), (1, 3));
}

#[test]
fn every_kind_of_difference_is_found() {
    let temp = tempfile::tempdir().expect("a folder");
    let (a, b) = (temp.path().join("a"), temp.path().join("b"));
    fs::create_dir_all(a.join("folder")).expect("made");
    fs::write(a.join("folder/file"), "content").expect("made");
    symlink("folder", a.join("link")).expect("made");
    let list = |root: &Path| Tree::list(root, false, &GO).expect("listed");
    let difference = |a: &Path, b: &Path| list(a).difference(a, &list(b), b, &GO).expect("compared");
    let after = |break_it: &dyn Fn(&Path)| {
        let _ = fs::remove_dir_all(&b);
        list(&a).copy(&a, &b, &GO, |_| {}).expect("copied");
        assert_eq!(difference(&a, &b), None);
        break_it(&b);
        difference(&a, &b).expect("a difference")
    };
    assert!(after(&|b| fs::write(b.join("folder/file"), "contenT").expect("written")).contains("other bytes"));
    assert!(after(&|b| fs::write(b.join("folder/file"), "").expect("written")).contains("File(0)"));
    assert!(after(&|b| fs::write(b.join("more"), "").expect("written")).contains("should not be"));
    assert!(after(&|b| fs::remove_file(b.join("link")).expect("removed")).contains("is not there"));
}

#[test]
fn a_change_never_misses_and_never_hits_the_same_file_twice() {
    for files in [0, 1, 9, 10, 19, 20, 21, 25, 100] {
        let temp = tempfile::tempdir().expect("a folder");
        let (before, after) = (temp.path().join("before"), temp.path().join("after"));
        fs::create_dir(&before).expect("made");
        for index in 0..files {
            fs::write(before.join(format!("{index:03}")), vec![1; index * 7]).expect("made");
        }
        let tree = Tree::list(&before, false, &GO).expect("listed");
        tree.copy(&before, &after, &GO, |_| {}).expect("copied");
        let change = folder::change(&after, &tree).expect("changed");
        let many = u64::from(files >= 20);
        let edited = files.min(10) as u64;
        assert_eq!(change, Change { edited, added: 1, removed: many, renamed: many }, "{files} files");
        let gone = fs::read_dir(&before).expect("read").filter(|entry| {
            let name = entry.as_ref().expect("an entry").file_name();
            fs::read(before.join(&name)).ok() != fs::read(after.join(&name)).ok()
        });
        assert_eq!(gone.count() as u64, edited + 2 * many, "{files} files");
    }
}

#[test]
fn one_block_too_many_or_too_few_is_a_problem() {
    let had_to = HadTo { blocks: 5, bytes: 500 };
    let moved = |blocks, bytes| Moved { blocks, bytes, ..Moved::default() };
    assert_eq!(had_to.problem(&moved(5, 500)), None);
    assert!(had_to.problem(&moved(7, 500)).expect("a problem").contains("2 blocks more than the 5"));
    assert!(had_to.problem(&moved(4, 400)).is_some());
    assert!(had_to.problem(&moved(5, 499)).is_some());
    let after_a_failure = Moved { failed: Some("a stream broke".to_owned()), ..moved(3, 300) };
    assert_eq!(had_to.problem(&after_a_failure), None);
}
