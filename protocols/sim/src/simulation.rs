//! The network: what it is made of, how it is run, and what can be read from it.

use std::{
    collections::BTreeMap,
    fmt::{self, Debug, Formatter},
    time::{Duration, Instant},
};

use dagmesh_core::{
    Machine,
    limits::{MAX_SIM_NODES, MAX_SIM_QUEUE},
};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::{
    Boot, Counters, Disk, DiskModel, Histogram, Host, Input, Link, NodeId, TraceHash, Violation,
    carry::Call,
    check::Checks,
    host::Action,
    overlay::{Overlay, Seen},
    queue::{At, Next, Queue},
    step::What,
    trace::{Record, Trace},
};

/// What a simulated network is like.
#[derive(Debug, Clone)]
pub struct Config {
    /// Decides everything.
    pub seed: u64,
    /// Every link that [`Simulation::set_link`] does not name.
    pub link: Link,
    /// Neighbours of a node on the overlay; 0: nothing can be published.
    pub degree: usize,
    /// How long a node remembers the id of a publication.
    pub seen_for: Duration,
    /// Every disk that [`Simulation::set_disk`] does not name.
    pub disk: DiskModel,
    /// How long until both ends notice that a connection broke, or can be made again.
    pub notice: Duration,
}

impl Config {
    /// As dagmesh's nodes on the internet have it: 6 neighbours, ids remembered for 120 s; nothing is lost, no disk
    /// fails, and what breaks is noticed after 2 s.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            link: Link::default(),
            degree: 6,
            seen_for: Duration::from_secs(120),
            disk: DiskModel::default(),
            notice: Duration::from_secs(2),
        }
    }
}

/// A network of nodes in virtual time, in one thread.
///
/// The seed and the calls decide everything that happens: the same give the same [`trace_hash`](Self::trace_hash) (on
/// one platform: the logarithms of some latencies may differ by a bit on another). Time is counted from the beginning
/// of the run. Nothing happens but in [`run_to`](Self::run_to) and its like, and in the calls that change the network
/// at once.
///
/// Every queue has a bound in [`dagmesh_core::limits`]; to reach one of those that a machine in good order does not
/// reach ends the run with a [`Violation`].
pub struct Simulation<H: Host> {
    pub(crate) config: Config,
    pub(crate) build: Box<dyn FnMut(Boot<'_>) -> H>,
    base: Instant,
    pub(crate) now: At,
    pub(crate) steps: u64,
    pub(crate) queue: Queue<What<H>>,
    pub(crate) nodes: Vec<Slot<H>>,
    pub(crate) links: BTreeMap<(NodeId, NodeId), Link>,
    pub(crate) overlay: Overlay,
    /// By their number: the group of each node, 0 for those that are not named.
    pub(crate) cuts: BTreeMap<u64, Vec<u16>>,
    pub(crate) next_cut: u64,
    pub(crate) calls: BTreeMap<u64, Call>,
    pub(crate) next_call: u64,
    pub(crate) link_rng: ChaCha8Rng,
    pub(crate) disk_rng: ChaCha8Rng,
    pub(crate) overlay_rng: ChaCha8Rng,
    pub(crate) churn_rng: ChaCha8Rng,
    pub(crate) counters: Counters,
    pub(crate) delays: Histogram,
    pub(crate) events: BTreeMap<H::Event, Spread>,
    pub(crate) trace: Trace,
    pub(crate) checks: Checks<H>,
    pub(crate) broken: Option<Violation>,
    /// Room for actions and neighbours, kept from one step to the next.
    pub(crate) actions: Vec<Action<H::Event>>,
    pub(crate) peers: Vec<u32>,
}

/// A place for a node, whether it runs or not.
pub(crate) struct Slot<H> {
    pub(crate) host: Option<H>,
    /// How often it was started; tells what was meant for an earlier life.
    pub(crate) life: u32,
    /// How often its disk was emptied.
    pub(crate) wipes: u32,
    pub(crate) disk: Disk,
    pub(crate) disk_model: DiskModel,
    pub(crate) seen: Seen,
    pub(crate) timer: Option<At>,
    /// The instant of the last timeout, and how many came at it.
    pub(crate) timeouts: (At, usize),
}

/// How far an event of the application has come.
#[derive(Debug, Clone)]
pub struct Spread {
    pub(crate) since: Duration,
    pub(crate) told: Vec<u64>,
}

impl Spread {
    /// When it was published, from the beginning of the run.
    pub fn since(&self) -> Duration {
        self.since
    }

    /// Whether the application of this node published it or was told it.
    pub fn reached(&self, node: NodeId) -> bool {
        self.told.get(node.0 as usize / 64).is_some_and(|word| word >> (node.0 % 64) & 1 == 1)
    }

    /// How many nodes' applications published it or were told it.
    pub fn count(&self) -> usize {
        self.told.iter().map(|word| word.count_ones() as usize).sum()
    }
}

impl<H: Host> Simulation<H> {
    /// A network of this many nodes that run. `build` makes each node's host, at its first start and at every other.
    pub fn new(config: Config, nodes: usize, build: impl FnMut(Boot<'_>) -> H + 'static) -> Self {
        let rng = |stream| {
            let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
            rng.set_stream(stream);
            rng
        };
        let (link_rng, disk_rng, mut overlay_rng, churn_rng) = (rng(0), rng(1), rng(2), rng(3));
        let first = nodes.min(MAX_SIM_NODES) as u32;
        let overlay = Overlay::random(first, config.degree, &mut overlay_rng);
        let mut network = Self {
            config,
            build: Box::new(build),
            base: base(),
            now: 0,
            steps: 0,
            queue: Queue::new(),
            nodes: Vec::new(),
            links: BTreeMap::new(),
            overlay,
            cuts: BTreeMap::new(),
            next_cut: 0,
            calls: BTreeMap::new(),
            next_call: 0,
            link_rng,
            disk_rng,
            overlay_rng,
            churn_rng,
            counters: Counters::default(),
            delays: Histogram::default(),
            events: BTreeMap::new(),
            trace: Trace::default(),
            checks: Checks::default(),
            broken: None,
            actions: Vec::new(),
            peers: Vec::new(),
        };
        let seed = network.config.seed;
        network.trace.add(Record::new(0, "seed", NodeId(first)).number(seed));
        network.begin(first);
        if nodes > MAX_SIM_NODES {
            network.break_off("limit", format!("{nodes} nodes are more than {MAX_SIM_NODES}"));
        }
        network
    }

    /// Runs until this time from the beginning.
    ///
    /// # Errors
    /// The first invariant that does not hold; the run ends there.
    pub fn run_to(&mut self, end: Duration) -> Result<(), Violation> {
        self.run(end, |_| false).map(|_| ())
    }

    /// Runs for this long.
    ///
    /// # Errors
    /// The first invariant that does not hold; the run ends there.
    pub fn run_for(&mut self, span: Duration) -> Result<(), Violation> {
        self.run_to(self.elapsed().saturating_add(span))
    }

    /// Runs until this holds after an event, or until the time `end` from the beginning: whether it held.
    ///
    /// # Errors
    /// The first invariant that does not hold; the run ends there.
    pub fn run_until(&mut self, end: Duration, holds: impl FnMut(&Self) -> bool) -> Result<bool, Violation> {
        self.run(end, holds)
    }

    fn run(&mut self, end: Duration, mut holds: impl FnMut(&Self) -> bool) -> Result<bool, Violation> {
        let end = nanos(end);
        if self.broken.is_none() && holds(self) {
            return Ok(true);
        }
        while self.broken.is_none() {
            let Some((at, next)) = self.queue.pop(end) else { break };
            self.now = at;
            self.steps += 1;
            match next {
                Next::Event(what) => self.happen(what),
                Next::Timer(node) => self.time_out(node),
            }
            self.check_step()?;
            if holds(self) {
                return Ok(true);
            }
        }
        self.now = self.now.max(end);
        self.broken.clone().map_or(Ok(false), Err)
    }

    /// Does this at a time from the beginning, or now where that has passed.
    pub fn at(&mut self, time: Duration, action: impl FnOnce(&mut Self) + 'static) {
        self.push(nanos(time), What::Script(Box::new(action)));
    }

    /// Hands an input to a node's machine, now. Whether the node runs.
    pub fn tell(&mut self, node: NodeId, input: Input<H>) -> bool {
        self.trace.add(Record::new(self.now, "told", node));
        let now = self.now();
        let Some(host) = self.slot_mut(node).and_then(|slot| slot.host.as_mut()) else { return false };
        host.machine_mut().handle(now, input);
        let out = self.outbox(node);
        self.settle(node, out);
        true
    }

    /// Makes the link from one node to another, in this direction, one of its own.
    pub fn set_link(&mut self, from: NodeId, to: NodeId, link: Link) {
        self.links.insert((from, to), link);
    }

    /// Changes all links that [`set_link`](Self::set_link) does not name.
    pub fn set_links(&mut self, link: Link) {
        self.config.link = link;
    }

    /// Changes a node's disk; what is on it stays.
    pub fn set_disk(&mut self, node: NodeId, model: DiskModel) {
        if let Some(slot) = self.slot_mut(node) {
            slot.disk_model = model;
        }
    }

    /// Time from the beginning.
    pub fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.now)
    }

    /// The instant that the machines are told.
    pub fn now(&self) -> Instant {
        self.base + self.elapsed()
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.config.seed
    }

    /// How many events there were.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The hash of all that happened so far, in order: deliveries with their content, timeouts, starts and ends; and
    /// that a node was told something by [`tell`](Self::tell), whose content has no bytes.
    pub fn trace_hash(&self) -> TraceHash {
        self.trace.hash()
    }

    /// How many nodes there ever were; their numbers are those below.
    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// A node's host, if it runs.
    pub fn host(&self, node: NodeId) -> Option<&H> {
        self.nodes.get(node.0 as usize)?.host.as_ref()
    }

    /// The hosts that run, in order.
    pub fn hosts(&self) -> impl Iterator<Item = (NodeId, &H)> {
        (0..).map(NodeId).zip(&self.nodes).filter_map(|(node, slot)| Some((node, slot.host.as_ref()?)))
    }

    /// A node's disk.
    pub fn disk(&self, node: NodeId) -> Option<&Disk> {
        self.nodes.get(node.0 as usize).map(|slot| &slot.disk)
    }

    /// The neighbours that a node is connected to on the overlay, in order.
    pub fn neighbours(&self, node: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        self.overlay.connected(node.0).map(NodeId)
    }

    /// What the run cost so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// From an event's publication until each other application was told it, the first time.
    pub fn delays(&self) -> &Histogram {
        &self.delays
    }

    /// The events that were published, in their own order, and how far they came.
    pub fn events(&self) -> impl Iterator<Item = (&H::Event, &Spread)> {
        self.events.iter()
    }

    /// How far this event has come, once it is published.
    pub fn spread(&self, event: &H::Event) -> Option<&Spread> {
        self.events.get(event)
    }

    pub(crate) fn slot_mut(&mut self, node: NodeId) -> Option<&mut Slot<H>> {
        self.nodes.get_mut(node.0 as usize)
    }

    pub(crate) fn instant(&self, at: Instant) -> At {
        nanos(at.saturating_duration_since(self.base))
    }

    pub(crate) fn push(&mut self, at: At, what: What<H>) {
        match self.queue.len() < MAX_SIM_QUEUE {
            true => self.queue.push(at.max(self.now), what),
            false => self.break_off("limit", format!("{MAX_SIM_QUEUE} events wait already")),
        }
    }

    pub(crate) fn push_after(&mut self, wait: Duration, what: What<H>) {
        self.push(self.now.saturating_add(nanos(wait)), what);
    }
}

impl<H: Host> Debug for Simulation<H> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (elapsed, nodes, waiting) = (self.elapsed(), self.nodes.len(), self.queue.len());
        write!(f, "Simulation(seed {}, {elapsed:?}, {nodes} nodes, {waiting} events wait)", self.config.seed)
    }
}

fn nanos(time: Duration) -> At {
    // 584 years; room is left so that sums do not overflow.
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).min(u64::MAX / 4)
}

/// An `Instant` has no zero, so some instant must be the beginning. Nothing depends on which: only differences count.
#[expect(
    clippy::disallowed_methods,
    reason = "the one way to have an Instant at all; it is never compared with another"
)]
fn base() -> Instant {
    Instant::now()
}
