//! Daemons killed at random moments of what they do, many times over.
//!
//! Each cycle runs one operation, kills the daemon that does it at a moment drawn over the time that it usually takes,
//! looks into the store that is left before anybody goes on (`left.rs`), and starts the daemon again.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use dagmesh_core::limits;
use dagmesh_tests::{Daemon, wait_for};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    task::JoinHandle,
    time::timeout,
};

use super::left::{Told, make_source, open};
use crate::support::{
    SOON, Watch, api_call, api_connect, api_request, api_try, daemon, free_port, number, seed, str_of,
};

/// Kills of the ordinary run. `DAGMESH_CRASH_CYCLES` asks for more: `just crash`.
const CYCLES: u32 = 8;
/// From so many kills on, each operation must have been caught in flight often enough to call it tried.
const MANY: u32 = 100;
/// The feed of which all is kept, and the one of which the newest content alone is: the rest of it is garbage.
pub(super) const FEEDS: [&str; 2] = ["main", "fleeting"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_32_daemons_killed_at_random_moments_lose_nothing_acknowledged_and_reuse_no_number() {
    let cycles = std::env::var("DAGMESH_CRASH_CYCLES").map_or(CYCLES, |cycles| cycles.parse().expect("a number"));
    let mut mesh = Mesh::start(seed()).await;
    for cycle in 0..cycles {
        let operation = Operation::ALL[cycle as usize % Operation::ALL.len()];
        print!("{cycle}: ");
        mesh.kill_during(operation).await;
    }
    mesh.assert_all_is_there().await;

    for (operation, Tally { kills, in_flight, .. }) in &mesh.tallies {
        println!("{operation:?}: {kills} kills, {in_flight} of them in flight");
        assert!(cycles < MANY || *in_flight >= kills / 5, "{operation:?} was hardly ever caught in flight");
    }
    assert_eq!(mesh.tallies.values().map(|tally| tally.kills).sum::<u32>(), cycles);
    assert!(mesh.tallies.values().any(|tally| tally.in_flight > 0), "no operation was caught in flight");
}

/// What a daemon is killed in the middle of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Operation {
    /// An import and an entry, by the publisher.
    Publish,
    /// A sync, by the follower.
    Sync,
    /// A collection of garbage, by either, beside a publication or a sync.
    Collect,
    /// A start, of either.
    Start,
}

impl Operation {
    const ALL: [Self; 4] = [Self::Publish, Self::Sync, Self::Collect, Self::Start];

    /// Events in the middle of it.
    fn events(self) -> &'static [&'static str] {
        match self {
            Self::Publish => &["published"],
            Self::Sync => &["sync_started", "latest_moved"],
            Self::Collect | Self::Start => &[],
        }
    }
}

/// How often an operation was killed.
#[derive(Debug, Default)]
struct Tally {
    kills: u32,
    /// Before it was acknowledged.
    in_flight: u32,
    /// How long it takes where nobody kills it.
    usual: Duration,
}

/// When a kill comes.
struct Moment {
    /// After this event, where there is one.
    event: Option<&'static str>,
    delay: Duration,
}

/// A publisher, its follower, and all that they ever told.
pub(super) struct Mesh {
    random: ChaCha8Rng,
    pub(super) folder: TempDir,
    pub(super) publisher: Watched,
    pub(super) follower: Watched,
    pub(super) told: BTreeMap<String, Told>,
    /// Folders made so far.
    folders: u64,
    tallies: BTreeMap<Operation, Tally>,
}

/// A daemon and what it tells.
pub(super) struct Watched {
    pub(super) daemon: Daemon,
    watch: Option<Watch>,
}

impl Watched {
    async fn start() -> Self {
        // The same port after each kill, so that the other one finds it again.
        let daemon = daemon(&["--listen", &format!("/ip4/127.0.0.1/tcp/{}", free_port())]).await;
        let watch = Some(Watch::direct(&daemon).await);
        Self { daemon, watch }
    }

    fn watch(&self) -> &Watch {
        self.watch.as_ref().expect("it runs")
    }

    /// Kills it at `moment`, or at once where the command has ended by then; what the command came to.
    async fn kill_at(&mut self, moment: &Moment, since: u64, mut command: JoinHandle<Answer>) -> Answer {
        if let Some(event) = moment.event {
            let fits = |seen: &Value| seen["event"] == event && seen["seq"].as_u64() > Some(since);
            self.watch().wait(event, fits).await;
        }
        let early = timeout(moment.delay, &mut command).await;
        self.daemon.kill9().await;
        match early {
            Ok(answer) => answer.expect("a task"),
            Err(_) => command.await.expect("a task"),
        }
    }

    /// Starts it again; how long the start took.
    pub(super) async fn restart(&mut self) -> Duration {
        let begun = Instant::now();
        self.daemon.restart().await;
        let took = begun.elapsed();
        self.watch = Some(Watch::direct(&self.daemon).await);
        took
    }
}

impl Mesh {
    /// Starts both, has each operation run once to its end, and notes how long that takes.
    async fn start(seed: u64) -> Self {
        let (publisher, follower) = tokio::join!(Watched::start(), Watched::start());
        let mut mesh = Self {
            random: ChaCha8Rng::seed_from_u64(seed),
            folder: tempfile::tempdir().expect("a folder"),
            publisher,
            follower,
            told: FEEDS.into_iter().map(|feed| (feed.to_owned(), Told::default())).collect(),
            folders: 0,
            tallies: Operation::ALL.into_iter().map(|operation| (operation, Tally::default())).collect(),
        };
        let target = mesh.publisher.daemon.addr("tcp");
        for feed in FEEDS {
            let usual = mesh.publish(feed).await;
            let keep = (feed != FEEDS[0]).then_some(1);
            let follow = json!({"target": target, "feed": feed, "keep": keep, "wait": true});
            api_call(&mesh.follower.daemon, "follow", &follow).await;
            mesh.tally(Operation::Publish).usual = usual;
        }
        let (feed, seq, head) = mesh.publish_unheard(FEEDS[1]).await;
        let announced = mesh.announce(feed, &head).await;
        let begun = Instant::now();
        mesh.follower.watch().finished(&head).await;
        mesh.tally(Operation::Sync).usual = begun.elapsed();
        announced.await.expect("a task").expect("an answer").expect("announced");
        assert_eq!(mesh.told[feed].newest(), seq);
        let begun = Instant::now();
        let freed = api_call(&mesh.follower.daemon, "gc", &json!({})).await;
        assert!(number(&freed, "removed") > 0, "the older content of a feed of which one is kept: {freed}");
        mesh.tally(Operation::Collect).usual = begun.elapsed();
        mesh.publisher.daemon.kill9().await;
        mesh.tally(Operation::Start).usual = mesh.publisher.restart().await;
        mesh
    }

    /// One kill, and a look at what it left.
    async fn kill_during(&mut self, operation: Operation) {
        let publisher = match operation {
            Operation::Publish => true,
            Operation::Sync => false,
            Operation::Collect | Operation::Start => self.chance(2),
        };
        let moment = self.moment(operation);
        let ended = match operation {
            Operation::Publish => self.kill_publish(&moment).await,
            Operation::Sync => self.kill_sync(&moment).await,
            Operation::Collect => self.kill_collect(publisher, moment.delay).await,
            Operation::Start => self.kill_start(publisher, moment.delay).await,
        };
        let victim = if publisher { "publisher" } else { "follower" };
        let tally = self.tally(operation);
        tally.kills += 1;
        let how = match ended {
            Ended::Unbegun => "before it began",
            Ended::InFlight => {
                tally.in_flight += 1;
                // It takes longer than was thought, or this was early.
                tally.usual = tally.usual.mul_f64(1.1);
                "in flight"
            }
            Ended::Before(took) => {
                tally.usual = (tally.usual + took) / 2;
                "just after its end"
            }
        };
        let after = moment.event.map(|event| format!(" after {event}")).unwrap_or_default();
        println!("the {victim} was killed at {operation:?}, {:?}{after}, {how}", moment.delay);
        // What the daemon told before it died counts; then what it left is looked at, before it goes on.
        let victim = if publisher { &mut self.publisher } else { &mut self.follower };
        let events = victim.watch.take().expect("it was watched").end().await;
        self.note(&events);
        if publisher {
            self.look_at_publisher()
        } else {
            self.look_at_follower()
        }
        if publisher { &mut self.publisher } else { &mut self.follower }.restart().await;
    }

    async fn kill_publish(&mut self, moment: &Moment) -> Ended {
        let feed = self.feed();
        let (folder, ask) = self.next_folder(feed);
        let since = self.told[feed].newest();
        let begun = Instant::now();
        let publishing = call(&self.publisher.daemon, "publish", &ask).await;
        match self.publisher.kill_at(moment, since, publishing).await {
            Some(published) => {
                self.acknowledged(&published.expect("published"), folder);
                Ended::Before(begun.elapsed())
            }
            None => Ended::InFlight,
        }
    }

    async fn kill_sync(&mut self, moment: &Moment) -> Ended {
        let feed = self.feed();
        let (feed, seq, head) = self.publish_unheard(feed).await;
        let announced = self.announce(feed, &head).await;
        let begun = Instant::now();
        let watch = self.follower.watch();
        if let Some(event) = moment.event {
            let fits = |seen: &Value| seen["event"] == event && (seen["head"] == head || seen["entry"] == head);
            watch.wait(event, fits).await;
        }
        let finished = timeout(moment.delay, watch.finished(&head)).await;
        let took = begun.elapsed();
        self.follower.daemon.kill9().await;
        // Whether the follower still could answer is all the same.
        let _ = announced.await.expect("a task");
        let follows = open(self.follower.daemon.home()).follows().expect("follows");
        let (_, _, left) = follows.into_iter().find(|(_, name, _)| name.as_str() == feed).expect("the follow");
        assert!(finished.is_err() || left.latest_seq == seq, "{seq} was finished, and {left:?} is left");
        // The head is kept as soon as its sync begins.
        let begun = left.head().is_some_and(|head| head.seq() == seq);
        match (begun, left.latest_seq == seq) {
            (false, _) => Ended::Unbegun,
            (true, false) => Ended::InFlight,
            (true, true) => Ended::Before(took),
        }
    }

    async fn kill_collect(&mut self, publisher: bool, delay: Duration) -> Ended {
        let beside = self.chance(2);
        let mut other = None;
        if publisher {
            // Its content is taken in, then the entry is refused: garbage.
            let (_, mut ask) = self.next_folder(FEEDS[0]);
            ask["meta"] = json!({"large": "x".repeat(limits::MAX_ENTRY_META_BYTES + 1)});
            let refused = call(&self.publisher.daemon, "publish", &ask).await.await.expect("a task");
            refused.expect("an answer").expect_err("an entry too large");
        } else {
            let (feed, _, head) = self.publish_unheard(FEEDS[1]).await;
            let announced = self.announce(feed, &head).await;
            self.follower.watch().finished(&head).await;
            let _ = announced.await.expect("a task");
        }
        if beside {
            other = Some(if publisher {
                let feed = self.feed();
                let (folder, ask) = self.next_folder(feed);
                (Some(folder), call(&self.publisher.daemon, "publish", &ask).await)
            } else {
                let feed = self.feed();
                let (feed, _, head) = self.publish_unheard(feed).await;
                (None, self.announce(feed, &head).await)
            });
        }
        let begun = Instant::now();
        let victim = if publisher { &mut self.publisher } else { &mut self.follower };
        let collecting = call(&victim.daemon, "gc", &json!({})).await;
        let report = victim.kill_at(&Moment { event: None, delay }, 0, collecting).await;
        let took = begun.elapsed();
        if let Some((folder, other)) = other
            && let (Some(folder), Some(published)) = (folder, other.await.expect("a task"))
        {
            self.acknowledged(&published.expect("published"), folder);
        }
        match report {
            Some(report) => {
                report.expect("collected");
                Ended::Before(took)
            }
            None => Ended::InFlight,
        }
    }

    async fn kill_start(&mut self, publisher: bool, delay: Duration) -> Ended {
        let victim = if publisher { &mut self.publisher } else { &mut self.follower };
        let begun = Instant::now();
        if victim.daemon.restart_killed_after(delay).await { Ended::Before(begun.elapsed()) } else { Ended::InFlight }
    }

    /// Publishes a new folder and announces it; how long that took.
    async fn publish(&mut self, feed: &str) -> Duration {
        let (folder, ask) = self.next_folder(feed);
        let begun = Instant::now();
        let published = api_call(&self.publisher.daemon, "publish", &ask).await;
        let took = begun.elapsed();
        self.acknowledged(&published, folder);
        took
    }

    /// Publishes a new folder that nobody is told of yet.
    async fn publish_unheard<'a>(&mut self, feed: &'a str) -> (&'a str, u64, String) {
        let (folder, mut ask) = self.next_folder(feed);
        ask["no_announce"] = json!(true);
        let published = api_call(&self.publisher.daemon, "publish", &ask).await;
        self.acknowledged(&published, folder);
        (feed, number(&published, "seq"), str_of(&published, "head").to_owned())
    }

    /// Begins to tell the follower of a head.
    async fn announce(&self, feed: &str, head: &str) -> JoinHandle<Answer> {
        let addr = self.follower.daemon.addr("tcp");
        // Between two fixed ports a connection may have to wait until the kernel has forgotten the one before.
        wait_for(SOON, "a connection with the follower", async || {
            api_try(&self.publisher.daemon, "connect", &json!({"addr": addr})).await.is_ok()
        })
        .await;
        let ask = json!({"cid": head, "feed": feed, "to": addr});
        call(&self.publisher.daemon, "announce", &ask).await
    }

    /// Makes the next folder: its number, and the request that publishes it.
    fn next_folder(&mut self, feed: &str) -> (u64, Value) {
        self.folders += 1;
        let path = self.folder.path().join("source");
        make_source(&path, self.folders);
        (self.folders, json!({"content": {"path": path}, "feed": feed, "hidden": true}))
    }

    fn acknowledged(&mut self, published: &Value, folder: u64) {
        let (seq, told) = (number(published, "seq"), self.told.get_mut(str_of(published, "feed")).expect("a feed"));
        told.add(seq, str_of(published, "head"));
        told.folders.insert(seq, folder);
    }

    fn tally(&mut self, operation: Operation) -> &mut Tally {
        self.tallies.get_mut(&operation).expect("all are there")
    }

    /// Mostly the feed of which all is kept.
    fn feed(&mut self) -> &'static str {
        FEEDS[usize::from(self.chance(4))]
    }

    /// A moment of an operation, anywhere from its begin to its usual end; sometimes soon after an event.
    fn moment(&mut self, operation: Operation) -> Moment {
        let usual = self.tallies[&operation].usual;
        let fraction = f64::from(self.random.next_u32()) / f64::from(u32::MAX);
        match operation.events() {
            events if !events.is_empty() && self.chance(4) => {
                let event = events[self.random.next_u32() as usize % events.len()];
                Moment { event: Some(event), delay: usual.mul_f64(fraction / 4.0) }
            }
            _ => Moment { event: None, delay: usual.mul_f64(fraction) },
        }
    }

    /// True once in `of` times.
    fn chance(&mut self, of: u32) -> bool {
        self.random.next_u32().is_multiple_of(of)
    }
}

/// How far an operation was when the kill came.
enum Ended {
    /// It had not even begun.
    Unbegun,
    InFlight,
    /// It was acknowledged, after so long.
    Before(Duration),
}

/// What a command came to: its result, or its error; nothing where the daemon died before it answered.
type Answer = Option<Result<Value, String>>;

/// Begins a command, which then goes on by itself.
async fn call(daemon: &Daemon, command: &str, ask: &Value) -> JoinHandle<Answer> {
    let (stream, request) = (api_connect(daemon).await, api_request(daemon, command, &ask.to_string()));
    tokio::spawn(async move {
        let mut stream = BufReader::new(stream);
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut lines = stream.lines();
        while let Some(line) = lines.next_line().await.ok()? {
            let mut value = serde_json::from_str::<Value>(&line).unwrap_or_default();
            match (value.get_mut("result").map(Value::take), value.get("error")) {
                (Some(result), _) => return Some(Ok(result)),
                (None, Some(error)) => return Some(Err(error.to_string())),
                (None, None) => {}
            }
        }
        None
    })
}
