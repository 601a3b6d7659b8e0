//! Nodes in processes of their own: what such a process takes is theirs alone, and it can be killed.
//!
//! This program starts itself again with a role in its environment. The child tells what it did in lines of JSON
//! on its standard output, does the next thing when a line comes in, and ends when its standard input does.

use std::{
    env,
    path::PathBuf,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use dagmesh::{
    Api,
    ticket::Target,
    types::{AnnounceRequest, HeadRequest},
};
use futures::future::try_join_all;
use libp2p::identity::Keypair;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines, Stdin},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

use crate::{
    content::Content,
    machine,
    nodes::{self, PATIENCE, Running},
    runtime,
};

const ROLE: &str = "DAGMESH_BENCH_ROLE";
const ANNOUNCE: &str = "announce";

/// What a child is to be.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Role {
    /// Publishes and tells [`Published`]. For every line that comes in it publishes the content that stands there, and
    /// tells it; announces, where it says so; or tells its [`Usage`].
    Publish(Content),
    /// Starts nodes, tells their [`Usage`], and follows when a line comes in; then tells [`Followed`]. With the next
    /// line it waits until they have settled in the mesh, and tells [`Usage`]. For every further line it waits until
    /// they are in sync with the head that it names, and tells [`Followed`] again.
    Follow {
        /// Whom.
        target: String,
        /// How many nodes there are in the process, each with a fresh home.
        nodes: usize,
        /// The home of the one node, where it is not to be a fresh one.
        home: Option<PathBuf>,
    },
}

/// What a publishing child tells once its content is published.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Published {
    /// Where it is followed.
    pub(crate) target: String,
    /// The entry.
    pub(crate) head: String,
    /// From the call of publish until the head is signed.
    pub(crate) elapsed: Duration,
    /// All blocks that it holds, the entry among them.
    pub(crate) blocks: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
    pub(crate) usage: Usage,
}

/// What a following child tells once all its nodes are in sync.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Followed {
    /// From the line that came in until the last one was in sync, all durable.
    pub(crate) elapsed: Duration,
    /// Blocks held, all nodes together.
    pub(crate) blocks: u64,
    pub(crate) usage: Usage,
}

/// What a process takes.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Usage {
    /// The most memory that it has had resident.
    pub(crate) peak_bytes: u64,
    /// What it has resident now.
    pub(crate) resident_bytes: u64,
    /// CPU time since its start, on all cores.
    pub(crate) cpu: Duration,
}

impl Usage {
    /// Of this process. What the system does not tell is as much as there can be, so that no bar holds by it.
    fn of_this_process() -> Self {
        Self {
            peak_bytes: machine::peak_resident_bytes().unwrap_or(u64::MAX),
            resident_bytes: machine::resident_bytes().unwrap_or(u64::MAX),
            cpu: machine::cpu_time().unwrap_or(Duration::MAX),
        }
    }
}

/// A child that runs; killed when this is dropped.
pub(crate) struct Process {
    child: Child,
    stdin: ChildStdin,
    stdout: Lines<BufReader<ChildStdout>>,
}

impl Process {
    /// Starts a child. What it has to complain about goes to our own standard error.
    pub(crate) fn spawn(role: &Role) -> Result<Self> {
        let program = env::current_exe().context("finding this program")?;
        let mut child = Command::new(program)
            .env(ROLE, serde_json::to_string(role)?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("starting a process for a node")?;
        let stdin = child.stdin.take().context("no standard input")?;
        let stdout = BufReader::new(child.stdout.take().context("no standard output")?).lines();
        Ok(Self { child, stdin, stdout })
    }

    /// Its process id.
    pub(crate) fn id(&self) -> Result<u32> {
        self.child.id().context("the process has ended")
    }

    /// What it tells next.
    pub(crate) async fn told<T: DeserializeOwned>(&mut self) -> Result<T> {
        let line = timeout(PATIENCE, self.stdout.next_line()).await.context("a node's process is silent")??;
        let line = line.context("a node's process has ended early")?;
        serde_json::from_str(&line).with_context(|| format!("a node's process said: {line}"))
    }

    /// Tells it to do the next thing.
    pub(crate) async fn go(&mut self) -> Result<()> {
        self.order("").await
    }

    /// Tells it to do this.
    pub(crate) async fn order(&mut self, what: &str) -> Result<()> {
        self.stdin.write_all(format!("{what}\n").as_bytes()).await.context("a node's process has ended early")
    }

    /// Has a publishing child publish another content, without a word to anybody.
    pub(crate) async fn publish(&mut self, content: &Content) -> Result<Published> {
        self.order(&serde_json::to_string(content)?).await?;
        self.told().await
    }

    /// Has a publishing child announce its head.
    pub(crate) async fn announce(&mut self) -> Result<()> {
        self.order(ANNOUNCE).await
    }

    /// What a publishing child takes.
    pub(crate) async fn usage(&mut self) -> Result<Usage> {
        self.go().await?;
        self.told().await
    }

    /// Kills it (SIGKILL).
    pub(crate) async fn kill(mut self) -> Result<()> {
        self.child.kill().await.context("killing a node's process")
    }

    /// Has it stop its nodes, and waits for its end.
    pub(crate) async fn end(self) -> Result<()> {
        let Self { mut child, stdin, stdout } = self;
        drop(stdin);
        let status = timeout(PATIENCE, child.wait()).await.context("a node's process does not end")??;
        drop(stdout);
        ensure!(status.success(), "a node's process ended with {status}");
        Ok(())
    }
}

/// Publishes `content` in a process of its own.
pub(crate) async fn publish(content: Content) -> Result<(Process, Published)> {
    let mut process = Process::spawn(&Role::Publish(content))?;
    let published = process.told().await?;
    Ok((process, published))
}

/// Follows with one fresh node in a process of its own. Gives what it took before it began, too.
pub(crate) async fn follow(target: &str) -> Result<(Usage, Followed)> {
    let mut process = Process::spawn(&Role::Follow { target: target.to_owned(), nodes: 1, home: None })?;
    let started = process.told().await?;
    process.go().await?;
    let followed = process.told().await?;
    process.end().await?;
    Ok((started, followed))
}

/// Does what the environment asks of this process, if it is a child; says whether it was.
pub fn run() -> Result<bool> {
    let Some(role) = env::var_os(ROLE) else { return Ok(false) };
    let role: Role = serde_json::from_str(&role.to_string_lossy()).context("reading the role")?;
    runtime()?.block_on(async {
        let mut orders = BufReader::new(tokio::io::stdin()).lines();
        match role {
            Role::Publish(content) => be_publisher(content, &mut orders).await,
            Role::Follow { target, nodes, home } => be_followers(&target, nodes, home, &mut orders).await,
        }
    })?;
    Ok(true)
}

async fn be_publisher(content: Content, orders: &mut Lines<BufReader<Stdin>>) -> Result<()> {
    let publisher = Running::fresh().await?;
    tell(&publish_one(&publisher, &content).await?)?;
    while let Some(order) = orders.next_line().await? {
        match order.as_str() {
            "" => tell(&Usage::of_this_process())?,
            ANNOUNCE => {
                let head = publisher.node.head(HeadRequest::default()).await?;
                publisher.node.announce(AnnounceRequest { feed: head.feed, ..AnnounceRequest::new(head.head) }).await?;
            }
            content => tell(&publish_one(&publisher, &serde_json::from_str(content)?).await?)?,
        }
    }
    publisher.stop().await
}

async fn publish_one(publisher: &Running, content: &Content) -> Result<Published> {
    let elapsed = content.publish(publisher).await?;
    let head = publisher.node.head(HeadRequest::default()).await?.head.to_string();
    let stat = publisher.node.repo_stat().await?;
    let target = publisher.target().await?.to_string();
    Ok(Published { target, head, elapsed, blocks: stat.blocks, bytes: stat.bytes, usage: Usage::of_this_process() })
}

async fn be_followers(
    target: &str,
    count: usize,
    home: Option<PathBuf>,
    orders: &mut Lines<BufReader<Stdin>>,
) -> Result<()> {
    let target: Target = target.parse()?;
    let followers = match home {
        Some(home) => vec![Running::in_home(home, Keypair::generate_ed25519()).await?],
        None => try_join_all((0..count).map(|_| Running::fresh())).await?,
    };
    let mut events = try_join_all(followers.iter().map(|follower| follower.node.watch())).await?;
    tell(&Usage::of_this_process())?;
    orders.next_line().await?;
    let begun = Instant::now();
    try_join_all(followers.iter().map(|follower| nodes::follow(&follower.node, &target))).await?;
    tell(&followed(&followers, begun).await?)?;
    if orders.next_line().await?.is_some() {
        settle().await?;
        tell(&Usage::of_this_process())?;
    }
    while let Some(head) = orders.next_line().await? {
        let (begun, head) = (Instant::now(), head.parse()?);
        try_join_all(events.iter_mut().map(|events| nodes::finished(events, &head))).await?;
        tell(&followed(&followers, begun).await?)?;
    }
    try_join_all(followers.into_iter().map(Running::stop)).await?;
    Ok(())
}

/// Waits until this process takes less than a fifth of a core: a hundred nodes that join at once fill a machine with
/// the searches of their DHT for half a minute.
async fn settle() -> Result<()> {
    const STEP: Duration = Duration::from_secs(1);
    let begun = Instant::now();
    let mut before = Usage::of_this_process().cpu;
    while begun.elapsed() < PATIENCE {
        tokio::time::sleep(STEP).await;
        let now = Usage::of_this_process().cpu;
        if now - before < STEP / 5 {
            return Ok(());
        }
        before = now;
    }
    bail!("the nodes do not come to rest")
}

async fn followed(followers: &[Running], begun: Instant) -> Result<Followed> {
    let (elapsed, usage) = (begun.elapsed(), Usage::of_this_process());
    let mut blocks = 0;
    for follower in followers {
        blocks += follower.node.repo_stat().await?.blocks;
    }
    Ok(Followed { elapsed, blocks, usage })
}

fn tell<T: Serialize>(what: &T) -> Result<()> {
    println!("{}", serde_json::to_string(what)?);
    Ok(())
}
