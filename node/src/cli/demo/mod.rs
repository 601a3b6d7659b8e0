//! `demo`: a mesh of real nodes in one process, which publishes a folder, follows it, changes it, syncs the change,
//! and checks each of its claims.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use cid::Cid;
use dagmesh_core::limits;
use futures::future::{try_join, try_join_all};
use serde::Serialize;
use tokio_util::task::TaskTracker;

use super::{
    Context, Outcome,
    daemon::{OPEN_FILES, Signals, init_logs},
    output::{Output, count, duration, size},
};
use crate::{
    api::{Api, ProgressSink, Result},
    config::LogConfig,
    error::{ErrorKind, NodeError},
    node::Node,
    types::{Content, GetRequest, PublishRequest, Published},
};

mod folder;
mod mesh;
mod screen;
#[cfg(test)]
mod tests;

use folder::{Change, Source, Tree};
use mesh::{Mesh, Moved, Running};
use screen::{Screen, Step};

/// How many blocks more than it had to a follower may fetch: not one.
const MAX_EXTRA_BLOCKS: u64 = 0;
/// What is on the disk at the end: the copy, three stores, two exports, and some room for the stores' journals.
const COPIES_ON_DISK: u64 = 7;
/// Room for the nodes themselves.
const NODES_BYTES: u64 = 64 * 1024 * 1024;

#[derive(Debug, clap::Args)]
pub(crate) struct DemoArgs {
    /// File or folder to publish, which is only read; a folder of this repository where absent.
    path: Option<PathBuf>,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    steps: Vec<Step>,
    /// Whether both exports are the published folder.
    identical: bool,
    /// Blocks that each follower lacked of the change.
    had_to: u64,
    /// Blocks that the follower fetched for it that fetched most.
    moved: u64,
    /// How many more than `had_to` may move.
    bound: u64,
    /// What did not hold; empty if all did.
    problems: Vec<String>,
    path: String,
    files: u64,
    bytes: u64,
    change: Change,
    ms: u64,
}

/// Runs the demo and cleans up after it, whatever its end.
pub(super) async fn run<B>(context: &mut Context<'_, B>, args: DemoArgs) -> Outcome {
    if context.global.verbose > 0 {
        init_logs(&LogConfig::default(), context.global.verbose);
    }
    let _ = rlimit::increase_nofile_limit(OPEN_FILES);
    let here = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("."));
    let source = Source::choose(args.path.as_deref(), &here)?;
    let temp = std::env::temp_dir();
    // The error of `tempfile` names the path once more.
    let failed = |error: std::io::Error| NodeError::file("make a folder in", &temp, &error.kind().into());
    let temp = tempfile::Builder::new().prefix("dagmesh-demo-").tempdir().map_err(failed)?;

    let (running, work, screen) = (Running::default(), Work::default(), Screen::new(&context.output));
    let mut signals = Signals::new()?;
    let outcome = {
        let stage = Stage { running: &running, work: &work, screen: &screen, source: &source, dir: temp.path() };
        tokio::select! {
            outcome = stage.play(&mut context.output) => outcome,
            () = signals.next() => Err(NodeError::new(ErrorKind::Interrupted, "interrupted; cleaned up").into()),
        }
    };
    screen.clear();
    // Nothing may write below the folder any more when it goes.
    let ending = async {
        work.end().await;
        running.stop().await
    };
    let ended = tokio::select! {
        ended = ending => ended,
        () = signals.next() => Err(NodeError::new(ErrorKind::Interrupted, "ended at once, as asked")),
    };
    let path = temp.path().to_owned();
    let removed = temp.close().map_err(|error| NodeError::file("remove", &path, &error));
    outcome.and(ended.and(removed).map_err(Into::into))
}

/// Work on threads that may block, which ends early when asked.
#[derive(Default)]
struct Work {
    stop: Arc<AtomicBool>,
    tasks: TaskTracker,
}

impl Work {
    async fn run<T: Send + 'static>(&self, work: impl FnOnce(&AtomicBool) -> Result<T> + Send + 'static) -> Result<T> {
        let stop = Arc::clone(&self.stop);
        let task = self.tasks.spawn_blocking(move || work(&stop));
        task.await.map_err(|error| NodeError::other(format!("a thread of the demo broke: {error}")))?
    }

    async fn end(&self) {
        self.stop.store(true, Ordering::Relaxed);
        self.tasks.close();
        let _ = tokio::time::timeout(Duration::from_secs(limits::SHUTDOWN_SECS), self.tasks.wait()).await;
    }
}

/// What the demo is played with.
struct Stage<'a> {
    running: &'a Running,
    work: &'a Work,
    screen: &'a Screen,
    source: &'a Source,
    dir: &'a Path,
}

impl Stage<'_> {
    async fn play(&self, output: &mut Output) -> Outcome {
        let began = Instant::now();
        say(output, &format!("Publishing {} from one node to two others, all on this machine.", self.source.shown()))?;
        // The nodes start while the folder is copied.
        let starting = self.screen.spinner("starting four nodes");
        let (mut mesh, (copy, first)) = try_join(Mesh::start(self.running, self.dir), self.copy()).await?;
        starting.finish_and_clear();
        let started = duration(began.elapsed());
        let bootstrap = mesh.bootstrap.peer_id();
        say(
            output,
            &format!(
                "\nFour nodes are up after {started}, each with its own key, store on disk, TCP and QUIC sockets:\n\
                 \x20 bootstrap   {bootstrap}  the one address that the others are given\n\
                 \x20 publisher   {}\n\
                 \x20 follower-1  {}  given the publisher's peer id, nothing else\n\
                 \x20 follower-2  {}  the same\n",
                mesh.publisher.peer_id(),
                mesh.followers.first().map_or(bootstrap, |follower| follower.node.peer_id()),
                mesh.followers.last().map_or(bootstrap, |follower| follower.node.peer_id()),
            ),
        )?;
        let mut problems = Vec::new();

        let (published, mut step) = self.publish(&mesh.publisher, &copy, first.bytes(), "1 publish").await?;
        step.step = "publish";
        say(
            output,
            &format!(
                "1 publish  {} became {} ({}). Entry 1 of the feed points at them; its head is signed.",
                files(&first),
                count(step.blocks, "block"),
                size(step.bytes)
            ),
        )?;
        let old = self.blocks_of(&mesh.publisher, published.content).await?;
        let had_to = HadTo { blocks: old.len() as u64 + 1, bytes: step.bytes };
        let mut steps = vec![step];

        let fetched = self.sync(&mut mesh, published.head, "fetch", "2 fetch", had_to, &mut problems).await?;
        let how = fetched.iter().map(|step| {
            let time = duration(Duration::from_millis(step.ms));
            format!("{} over {} in {time}", step.node, step.via.unwrap_or("?"))
        });
        say(
            output,
            &format!(
                "2 fetch    Both found the publisher's address in the DHT and fetched the folder:\n           {}.",
                how.collect::<Vec<_>>().join(", ")
            ),
        )?;
        steps.extend(fetched);

        let root = copy.clone();
        let changing = self.work.run(move |stop| Ok((folder::change(&root, &first)?, Tree::list(&root, false, stop)?)));
        let (change, second) = changing.await?;
        let (changed, mut step) = self.publish(&mesh.publisher, &copy, second.bytes(), "3 change").await?;
        step.step = "change";
        let had_to = self.had_to(&mesh.publisher, old, &changed).await?;
        say(
            output,
            &format!(
                "3 change   {} in the demo's own copy.\n           \
                 Published as entry 2: {} of its blocks are new.",
                change_text(&change),
                had_to.blocks
            ),
        )?;
        steps.push(step);

        let synced = self.sync(&mut mesh, changed.head, "sync", "4 sync", had_to, &mut problems).await?;
        let moved = synced.iter().map(|step| step.blocks).max().unwrap_or(0);
        say(
            output,
            &format!(
                "4 sync     The announcement reached both, and each fetched what it did not hold yet.\n           \
                 had to: {}, moved: {moved} (bound: not one block more than it had to).",
                had_to.blocks
            ),
        )?;
        steps.extend(synced);

        let (exported, differences) = self.export(&mesh, &changed, &copy, &second).await?;
        let identical = differences.is_empty();
        problems.extend(differences);
        if identical {
            let what = format!("{}, {}", files(&second), size(second.bytes()));
            say(
                output,
                &format!("5 export   Both followers wrote the folder out: byte for byte the same ({what}).\n"),
            )?;
        }
        steps.extend(exported);

        let report = Report {
            steps,
            identical,
            had_to: had_to.blocks,
            moved,
            bound: MAX_EXTRA_BLOCKS,
            problems,
            path: self.source.shown(),
            files: second.file_count(),
            bytes: second.bytes(),
            change,
            ms: millis(began),
        };
        tell(output, &report)
    }

    /// Copies what is published, or makes the sample, so that nothing of the user's is ever changed.
    async fn copy(&self) -> Result<(PathBuf, Tree)> {
        let (dir, to) = (self.dir.to_owned(), self.dir.join("copy"));
        let copy = to.join(self.source.name());
        let target = copy.clone();
        let bar = self.screen.bytes("copying", "", 0);
        let path = match self.source {
            Source::Path { path, named } => Some((path.clone(), *named)),
            Source::Sample => None,
        };
        let tree = self.work.run(move |stop| {
            std::fs::create_dir(&to).map_err(|error| NodeError::file("create", &to, &error))?;
            let Some((from, named)) = path else {
                folder::make_sample(&target, stop)?;
                return Tree::list(&target, false, stop);
            };
            let tree = Tree::list(&from, !named, stop)?;
            folder::check_space(&dir, tree.bytes() * COPIES_ON_DISK + NODES_BYTES)?;
            bar.set_length(tree.bytes());
            tree.copy(&from, &target, stop, |bytes| bar.inc(bytes))?;
            bar.finish_and_clear();
            // Files may have grown while they were copied.
            Tree::list(&target, false, stop)
        });
        Ok((copy, tree.await?))
    }

    async fn publish(
        &self,
        publisher: &Node,
        path: &Path,
        bytes: u64,
        title: &'static str,
    ) -> Result<(Published, Step)> {
        let bar = self.screen.bytes(title, "", bytes);
        let (sink, mut reports) = ProgressSink::channel();
        let request = PublishRequest { hidden: true, ..PublishRequest::new(Content::Path(path.to_owned())) };
        let before = publisher.repo_stat().await?;
        let began = Instant::now();
        let show = async {
            while let Some(report) = reports.recv().await {
                bar.set_position(report.bytes);
                bar.set_message(count(report.files, "file"));
            }
        };
        // The reports end when the publisher drops its end of them.
        let (published, ()) = futures::future::join(publisher.publish(request, sink), show).await;
        let (published, ms) = (published?, millis(began));
        bar.finish_and_clear();
        let after = publisher.repo_stat().await?;
        let step = Step {
            step: "",
            node: "publisher",
            blocks: after.blocks - before.blocks,
            bytes: after.bytes - before.bytes,
            ms,
            had_to: None,
            via: None,
            sync_ms: None,
        };
        Ok((published, step))
    }

    /// Waits until both followers are in sync with `head`; in the first step they begin to follow.
    async fn sync(
        &self,
        mesh: &mut Mesh,
        head: Cid,
        name: &'static str,
        title: &'static str,
        had_to: HadTo,
        problems: &mut Vec<String>,
    ) -> Result<Vec<Step>> {
        let publisher = mesh.publisher.peer_id();
        let began = Instant::now();
        let syncs = mesh.followers.iter_mut().map(|follower| {
            let bar = self.screen.blocks(title, follower.name, had_to.blocks);
            async move {
                if name == "fetch" {
                    bar.set_message("looking for the publisher");
                    follower.follow(publisher).await?;
                }
                let moved = follower.in_sync_with(head, &bar).await?;
                let ms = millis(began);
                bar.finish();
                let (via, holds) = (follower.transport(publisher).await?, follower.holds(head).await?);
                Ok::<_, NodeError>((follower.name, moved, ms, via, holds))
            }
        });
        let mut steps = Vec::new();
        for (node, moved, ms, via, holds) in try_join_all(syncs).await? {
            if !holds {
                problems.push(format!("{name}: {node} says that it does not hold entry {head}"));
            }
            problems.extend(had_to.problem(&moved).map(|problem| format!("{name}: {node} {problem}")));
            let Moved { blocks, bytes, sync_ms, .. } = moved;
            let (had_to, via, sync_ms) = (Some(had_to.blocks), Some(via), Some(sync_ms));
            steps.push(Step { step: name, node, blocks, bytes, ms, had_to, via, sync_ms });
        }
        self.screen.clear();
        Ok(steps)
    }

    async fn export(
        &self,
        mesh: &Mesh,
        published: &Published,
        copy: &Path,
        expected: &Tree,
    ) -> Result<(Vec<Step>, Vec<String>)> {
        let (mut steps, mut differences) = (Vec::new(), Vec::new());
        let exports = mesh.followers.iter().map(|follower| {
            let to = self.dir.join(format!("export-of-{}", follower.name));
            let bar = self.screen.bytes("5 export", follower.name, expected.bytes());
            let (sink, mut reports) = ProgressSink::channel();
            async move {
                let began = Instant::now();
                let show = async {
                    while let Some(report) = reports.recv().await {
                        bar.set_position(report.bytes);
                    }
                };
                let request = GetRequest::new(published.content, to.clone());
                let (gotten, ()) = futures::future::join(follower.node.get(request, sink), show).await;
                bar.finish();
                Ok::<_, NodeError>((follower.name, gotten?.bytes, to, millis(began)))
            }
        });
        for (node, bytes, to, ms) in try_join_all(exports).await? {
            steps.push(Step { step: "export", node, blocks: 0, bytes, ms, had_to: None, via: None, sync_ms: None });
            let copy = copy.to_owned();
            let difference = self.work.run(move |stop| {
                let (expected, found) = (Tree::list(&copy, false, stop)?, Tree::list(&to, false, stop)?);
                expected.difference(&copy, &found, &to, stop)
            });
            differences.extend(difference.await?.map(|difference| format!("export: {node}: {difference}")));
        }
        self.screen.clear();
        Ok((steps, differences))
    }

    async fn blocks_of(&self, node: &Node, root: Cid) -> Result<HashSet<Cid>> {
        let store = node.blockstore();
        self.work.run(move |_| mesh::blocks_of(&*store, root)).await
    }

    /// What a follower lacks of a change that holds the blocks `old`.
    async fn had_to(&self, node: &Node, old: HashSet<Cid>, published: &Published) -> Result<HadTo> {
        let (store, head, content) = (node.blockstore(), published.head, published.content);
        let count = move |_: &AtomicBool| {
            let mut new = mesh::blocks_of(&*store, content)?;
            new.retain(|cid| !old.contains(cid));
            new.insert(head);
            Ok(HadTo { blocks: new.len() as u64, bytes: mesh::bytes_of(&*store, &new)? })
        };
        self.work.run(count).await
    }
}

/// What a follower cannot do without.
#[derive(Debug, Clone, Copy)]
struct HadTo {
    blocks: u64,
    bytes: u64,
}

impl HadTo {
    fn problem(&self, moved: &Moved) -> Option<String> {
        let Self { blocks, bytes } = *self;
        if moved.blocks > blocks + MAX_EXTRA_BLOCKS {
            let extra = moved.blocks - blocks;
            return Some(format!("fetched {} more than the {blocks} that it had to", count(extra, "block")));
        }
        // Of a try that failed, blocks came that no event counts.
        if moved.failed.is_none() && (moved.blocks < blocks || moved.bytes != bytes) {
            let (least, came) = (size(bytes), size(moved.bytes));
            let moved = moved.blocks;
            return Some(format!(
                "says that it fetched {moved} blocks ({came}) where {blocks} ({least}) were new to it"
            ));
        }
        None
    }
}

/// A line for a person, as the demo goes on.
fn say(output: &mut Output, text: &str) -> Outcome {
    if output.json || output.quiet { Ok(()) } else { output.bytes(format!("{text}\n").as_bytes()) }
}

/// The end: table, verdict, exit code.
fn tell(output: &mut Output, report: &Report) -> Outcome {
    output.result(report, |report| {
        let mut text = screen::table(&report.steps);
        if report.problems.is_empty() {
            let time = duration(Duration::from_millis(report.ms));
            text += &format!("\nAll of it was checked, in {time}: identical folders, and only new blocks moved.");
        }
        text
    })?;
    if report.problems.is_empty() {
        return Ok(());
    }
    Err(NodeError::verification(format!("the demo did not hold what it says: {}", report.problems.join("; "))).into())
}

fn files(tree: &Tree) -> String {
    count(tree.file_count(), "file")
}

fn change_text(change: &Change) -> String {
    let Change { edited, added, removed, renamed } = *change;
    let parts = [(edited, "edited"), (added, "added"), (removed, "removed"), (renamed, "renamed")];
    let parts = parts.into_iter().filter(|(n, _)| *n > 0).enumerate();
    let parts = parts.map(
        |(index, (n, what))| {
            if index == 0 { format!("{} {what}", count(n, "file")) } else { format!("{n} {what}") }
        },
    );
    parts.collect::<Vec<_>>().join(", ")
}

fn millis(since: Instant) -> u64 {
    since.elapsed().as_millis() as u64
}
