//! A few members and a network in virtual time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::*;
use crate::head::GroupId;

pub(super) fn start() -> Instant {
    #[allow(clippy::disallowed_methods, reason = "a test needs some instant to count from")]
    Instant::now()
}

pub(super) fn peer(n: usize) -> PeerId {
    key(n as u16).public().to_peer_id()
}

/// What is under way to a member.
enum Parcel {
    Tell(Input),
    Request { call: CallId, from: usize, bytes: Vec<u8> },
}

pub(super) struct Pump {
    pub(super) groups: Vec<Group>,
    group: GroupId,
    membership: Membership,
    /// Members below this one and the others do not hear each other.
    pub(super) cut: usize,
    pub(super) gossip_lost: bool,
    pub(super) requests_fail: bool,
    /// Each gossip message comes twice.
    pub(super) twice: bool,
    /// Messages that were ignored.
    pub(super) ignored: usize,
    flooded: bool,
    pub(super) gossips: usize,
    pub(super) gossip_bytes: usize,
    pub(super) recover_requests: usize,
    pub(super) page_bytes: usize,
    /// Events marked as recovery.
    pub(super) recovered: usize,
    loss: f64,
    rng: ChaCha8Rng,
    now: Instant,
    under_way: BinaryHeap<Reverse<(Instant, u64)>>,
    parcels: BTreeMap<u64, (usize, Parcel)>,
    /// By token: who asked, and which call it was.
    asked: BTreeMap<u64, (usize, CallId)>,
    sent: u64,
    /// By member, producer and session: the last number that was told.
    told: BTreeMap<(usize, PeerId, u64), u64>,
}

impl Pump {
    /// So many members, all connected to one another, member n with producer n.
    pub(super) fn new(members: usize, seed: u64, loss: f64) -> Self {
        Self::of(group(), Membership::Open, members, seed, loss)
    }

    /// The same in the group of [`closed_group`], whose owner is member 0.
    pub(super) fn closed(members: usize, seed: u64, loss: f64) -> Self {
        Self::of(closed_group(), Membership::Closed { owner: peer(0) }, members, seed, loss)
    }

    fn of(group: GroupId, membership: Membership, members: usize, seed: u64, loss: f64) -> Self {
        let mut pump = Self {
            groups: Vec::new(),
            group,
            membership,
            cut: 0,
            gossip_lost: false,
            requests_fail: false,
            twice: false,
            ignored: 0,
            flooded: false,
            gossips: 0,
            gossip_bytes: 0,
            recover_requests: 0,
            page_bytes: 0,
            recovered: 0,
            loss,
            rng: ChaCha8Rng::seed_from_u64(seed),
            now: start(),
            under_way: BinaryHeap::new(),
            parcels: BTreeMap::new(),
            asked: BTreeMap::new(),
            sent: 0,
            told: BTreeMap::new(),
        };
        for _ in 0..members {
            pump.add();
        }
        pump
    }

    pub(super) fn add(&mut self) -> usize {
        let at = self.groups.len();
        let config = Config { membership: self.membership, ..Config::new(self.group, NOW_MS, at as u64 + 1000) };
        self.groups.push(Group::new(self.now, config));
        self.tell(at, Input::AddProducer { key: Box::new(key(at as u16)), session: None });
        for other in 0..at {
            self.tell(at, Input::PeerJoined(peer(other)));
            self.tell(other, Input::PeerJoined(peer(at)));
        }
        at
    }

    pub(super) fn publish(&mut self, member: usize) {
        self.publish_as(member, member);
    }

    pub(super) fn publish_as(&mut self, member: usize, producer: usize) {
        let payload = Payload::inline(b"text").expect("short");
        self.tell(member, Input::Publish { producer: peer(producer), payload });
    }

    /// A member is told bytes of no use, at once; what it says to that is not looked at.
    pub(super) fn flood(&mut self, member: usize, neighbour: usize, bytes: Vec<u8>) {
        self.flooded = true;
        let neighbour = peer(neighbour);
        let message = Input::Gossip { token: 0, author: neighbour, neighbour, bytes };
        self.groups[member].handle(self.now, message);
        while self.groups[member].poll_effect().is_some() {}
    }

    pub(super) fn is_whole(&self) -> bool {
        let first = self.groups[0].state().summary();
        self.groups.iter().all(|group| group.state().summary() == first)
    }

    /// Runs until all agree and nothing is under way but heartbeats, for at most so long.
    pub(super) fn converge(&mut self, within: Duration) {
        let end = self.now + within;
        // What has just been published is still on its way to the disk.
        self.run(Duration::from_millis(100));
        while !self.is_whole() {
            assert!(self.now < end, "not whole after {within:?}: {:?}", self.summaries());
            self.run(Duration::from_millis(50));
        }
    }

    fn summaries(&self) -> Vec<(u64, u64)> {
        self.groups.iter().map(|group| group.state().summary()).map(|state| (state.leaves, state.sum)).collect()
    }

    /// Every member was told of so many publications, its own with the others'.
    pub(super) fn told_all(&self, publications: u64) {
        for member in 0..self.groups.len() {
            let told: u64 = self.told.iter().filter(|((of, ..), _)| *of == member).map(|(_, last)| last).sum();
            assert_eq!(told, publications, "member {member}");
        }
    }

    pub(super) fn tell(&mut self, member: usize, input: Input) {
        self.groups[member].handle(self.now, input);
        self.drain(member);
    }

    /// Gives a member a state that it was told of in an earlier life.
    pub(super) fn restore(&mut self, member: usize, heads: Vec<GroupHead>) {
        let told = heads.iter().map(|head| ((member, head.producer(), head.session()), head.sequence()));
        self.told.extend(told);
        self.tell(member, Input::Restored(heads));
    }

    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let parcel = self.under_way.peek().map(|Reverse((at, _))| *at);
            let timers = self.groups.iter().enumerate();
            let timer = timers.filter_map(|(n, group)| Some((group.poll_timeout()?, n))).min();
            let next = parcel.into_iter().chain(timer.map(|(at, _)| at)).min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            if parcel == Some(next) {
                let Some(Reverse((_, id))) = self.under_way.pop() else { break };
                let (to, parcel) = self.parcels.remove(&id).expect("it is under way");
                self.deliver(to, parcel);
            } else if let Some((_, member)) = timer {
                self.groups[member].handle_timeout(self.now);
                self.drain(member);
            }
        }
        self.now = end;
    }

    fn deliver(&mut self, to: usize, parcel: Parcel) {
        match parcel {
            Parcel::Tell(input) => self.tell(to, input),
            Parcel::Request { call, from, bytes } => {
                self.sent += 1;
                self.asked.insert(self.sent, (from, call));
                self.tell(to, Input::Request { token: self.sent, peer: peer(from), bytes });
            }
        }
    }

    fn send(&mut self, to: usize, after: Duration, parcel: Parcel) {
        self.sent += 1;
        self.under_way.push(Reverse((self.now + after, self.sent)));
        self.parcels.insert(self.sent, (to, parcel));
    }

    /// Whether something from one to the other gets through.
    fn arrives(&mut self, from: usize, to: usize) -> bool {
        (from < self.cut) == (to < self.cut) && !self.rng.random_bool(self.loss)
    }

    fn latency(&mut self) -> Duration {
        Duration::from_millis(self.rng.random_range(5..50))
    }

    fn drain(&mut self, member: usize) {
        while let Some(effect) = self.groups[member].poll_effect() {
            match effect {
                Effect::Gossip(bytes) => self.gossip(member, &bytes),
                Effect::Request { call, peer: to, bytes } => {
                    let to = (0..self.groups.len()).find(|n| peer(*n) == to).expect("a member");
                    self.recover_requests +=
                        usize::from(matches!(Request::decode(&bytes), Ok(Request::Recover { .. })));
                    let (arrives, latency) = (self.arrives(member, to) && !self.requests_fail, self.latency());
                    let request = Parcel::Request { call, from: member, bytes };
                    match arrives {
                        true => self.send(to, latency, request),
                        false => self.send(member, latency, Parcel::Tell(Input::Failed(call))),
                    }
                }
                Effect::Answer { token, answer } => {
                    let (asker, call) = self.asked.remove(&token).expect("a question");
                    let (arrives, latency) = (self.arrives(member, asker), self.latency());
                    let bytes = answer.expect("all are honest");
                    self.page_bytes += bytes.len();
                    let input = if arrives { Input::Answered { call, bytes } } else { Input::Failed(call) };
                    self.send(asker, latency, Parcel::Tell(input));
                }
                Effect::PersistSession { id, .. } | Effect::PersistHead { id, .. } => {
                    self.send(member, Duration::from_millis(2), Parcel::Tell(Input::Persisted(id)));
                }
                Effect::Event(event) => self.event(member, event),
                Effect::Verdict { acceptance, .. } => {
                    let may_ignore = self.flooded || self.membership != Membership::Open;
                    self.ignored += usize::from(acceptance == Acceptance::Ignore);
                    assert!(acceptance == Acceptance::Accept || (may_ignore && acceptance == Acceptance::Ignore));
                }
                Effect::Store(_) | Effect::StoreMembers(_) => {}
            }
        }
    }

    fn gossip(&mut self, from: usize, bytes: &[u8]) {
        self.gossips += 1;
        self.gossip_bytes += bytes.len();
        let times = if self.twice { 2 } else { 1 };
        let others = (0..self.groups.len()).filter(|to| *to != from);
        for to in others.flat_map(|to| std::iter::repeat_n(to, times)).collect::<Vec<_>>() {
            let latency = self.latency();
            if self.arrives(from, to) && !self.gossip_lost {
                let (author, neighbour) = (peer(from), peer(from));
                let message = Input::Gossip { token: 0, author, neighbour, bytes: bytes.to_vec() };
                self.send(to, latency, Parcel::Tell(message));
            }
        }
    }

    fn event(&mut self, member: usize, event: Event) {
        let (head, first) = match event {
            Event::New { head, first, is_recovery } => {
                self.recovered += usize::from(is_recovery);
                (head, first)
            }
            Event::Published(head) => {
                let first = head.sequence();
                (head, first)
            }
            Event::Initialized | Event::MemberSeen(_) | Event::SessionOpened { .. } => return,
            Event::MembersEquivocation { .. } => return,
            Event::MembersChanged { .. } => {
                // Who comes back is told anew.
                let group = &self.groups[member];
                return self.told.retain(|(of, producer, _), _| *of != member || group.is_member(producer));
            }
            wrong => panic!("member {member}: {wrong:?}"),
        };
        let last = self.told.entry((member, head.producer(), head.session())).or_default();
        assert_eq!(first, *last + 1, "each number is told once and in order");
        *last = head.sequence();
    }
}
