//! `file`: one file of 1 GiB from one machine to another, as a user does it: from the command to its end.

use std::{
    env, fs,
    io::{BufReader, Read},
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use dagmesh_tests::{Daemon, DaemonOptions};
use tokio::{
    io::{AsyncBufReadExt, BufReader as AsyncBufReader},
    process::Command,
    time::timeout,
};

use crate::{Args, Bar, Row, content::write_noise, nodes, nodes::PATIENCE, runtime};

/// Names a `sendme` program to be measured beside ours.
const SENDME: &str = "DAGMESH_BENCH_SENDME";
/// What sendme 0.37 needs for 1 GiB on 2 cores over loopback, from the command to its end.
const SENDME_SECS: f64 = 5.4;

/// The rows of `file`.
pub fn run(args: &Args) -> Result<Vec<Row>> {
    let bytes = args.scaled(1 << 30);
    runtime()?.block_on(async {
        let folder = nodes::home()?;
        let source = folder.path().join("source");
        write_noise(&source, bytes)?;
        let publisher = Daemon::start_with(options()).await;
        let published = publisher.json(&["publish", text(&source)?]).await;
        let content = published.get("content").and_then(|cid| cid.as_str()).context("no content was published")?;
        let sendme = env::var_os(SENDME).map(PathBuf::from);
        let (mut ours, mut theirs): (Option<Took>, Option<Duration>) = (None, None);
        // By turns, so that a busy spell of the machine falls on both.
        for _ in 0..args.runs {
            let took = receive(&publisher, content, folder.path()).await?;
            if ours.as_ref().is_none_or(|best| took.all() < best.all()) {
                ours = Some(took);
            }
            if let Some(program) = &sendme {
                let took = receive_with_sendme(program, &source, folder.path()).await?;
                theirs = Some(theirs.map_or(took, |best| best.min(took)));
            }
        }
        let ours = ours.context("no run")?;
        let row = Row::new("file", format!("one file of {} MiB", bytes >> 20), ours.all().as_secs_f64(), "s");
        let row = match theirs {
            Some(theirs) => row
                .ceiling(theirs.as_secs_f64())
                .bar(Bar::RatioAtMost(1.0))
                .note("the ceiling is `sendme receive` of the same file, from the command to its end, in the same run"),
            None => row.bar(Bar::FigureAtMost(SENDME_SECS)).note(format!(
                "the bar is what sendme 0.37 took on 2 cores; {SENDME} names a program to be measured in the same run"
            )),
        };
        Ok(vec![row.note(format!(
            "from the start of a daemon with an empty home until the file stands on the disk, verified: {:.2} s until \
             it was ready, {:.2} s for `follow --wait`, {:.2} s for `get`",
            ours.start.as_secs_f64(),
            ours.follow.as_secs_f64(),
            ours.get.as_secs_f64()
        ))])
    })
}

/// How long each command took.
struct Took {
    start: Duration,
    follow: Duration,
    get: Duration,
}

impl Took {
    fn all(&self) -> Duration {
        self.start + self.follow + self.get
    }
}

async fn receive(publisher: &Daemon, content: &str, folder: &Path) -> Result<Took> {
    let output = folder.join("received");
    let target = publisher.addr("tcp");
    let begun = Instant::now();
    let mut follower = Daemon::start_with(options()).await;
    let start = begun.elapsed();
    follower.json(&["follow", "--wait", &target]).await;
    let follow = begun.elapsed() - start;
    follower.json(&["get", content, "-o", text(&output)?]).await;
    let get = begun.elapsed() - start - follow;
    follower.stop().await;
    take_the_same(&folder.join("source"), &output)?;
    Ok(Took { start, follow, get })
}

async fn receive_with_sendme(program: &Path, source: &Path, folder: &Path) -> Result<Duration> {
    let place = folder.join("sendme");
    fs::create_dir_all(&place)?;
    let mut sender = Command::new(program)
        .args(["send", "--no-progress"])
        .arg(source)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("starting sendme")?;
    let mut lines = AsyncBufReader::new(sender.stdout.take().context("no standard output")?).lines();
    let ticket = async {
        while let Some(line) = lines.next_line().await? {
            if let Some(ticket) = line.split_whitespace().find(|word| word.starts_with("blob")) {
                return Ok(ticket.to_owned());
            }
        }
        anyhow::bail!("sendme printed no ticket")
    };
    let ticket = timeout(PATIENCE, ticket).await.context("sendme printed no ticket")??;
    let begun = Instant::now();
    let mut receiver = Command::new(program);
    receiver.args(["receive", "--no-progress", &ticket]).current_dir(&place).stdin(Stdio::null()).kill_on_drop(true);
    let status =
        timeout(PATIENCE, receiver.stdout(Stdio::null()).status()).await.context("sendme takes too long")??;
    let elapsed = begun.elapsed();
    sender.kill().await?;
    ensure!(status.success(), "sendme ended with {status}");
    take_the_same(source, &place.join("source"))?;
    Ok(elapsed)
}

/// Removes `copy` after it was found to be the same as `source`.
fn take_the_same(source: &Path, copy: &Path) -> Result<()> {
    let mut files = [source, copy].map(|path| fs::File::open(path).map(|file| BufReader::with_capacity(1 << 20, file)));
    let [Ok(a), Ok(b)] = &mut files else { anyhow::bail!("there is no {}", copy.display()) };
    ensure!(a.get_ref().metadata()?.len() == b.get_ref().metadata()?.len(), "the copy is of another length");
    let (mut left, mut right) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    loop {
        let len = a.read(&mut left)?;
        if len == 0 {
            break;
        }
        let (left, right) = (left.get(..len).unwrap_or_default(), right.get_mut(..len).unwrap_or_default());
        b.read_exact(right)?;
        ensure!(left == right, "the copy is another file");
    }
    Ok(fs::remove_file(copy)?)
}

fn options() -> DaemonOptions {
    let mut options = DaemonOptions::default();
    options.command_deadline = Some(PATIENCE);
    options
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is no text")
}
