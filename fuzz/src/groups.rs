//! Groups: what travels in one, and the machine that keeps its state.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use cid::Cid;
use dagmesh_chronosync::{
    Answer, CallId, Config, Cursor, Effect, Entry, Event, Gossip, Group, GroupHead, GroupId, HeadBytes, HeadList,
    Input as Told, LeafKey, MemberList, Membership, Page, Payload, PersistId, Request, Summary, Update,
};
use dagmesh_core::{Machine, limits};
use dagmesh_dag::{Block, Codec, HashCode};
use libp2p_identity::PeerId;

use crate::{
    input::Input,
    records::{KEYS, NOW_MS},
};

pub(crate) fn id() -> GroupId {
    GroupId::open("chess").expect("a name")
}

pub(crate) fn peer(n: usize) -> PeerId {
    KEYS[n].public().to_peer_id()
}

/// Heads, lists of members, messages, entries; the first byte says which: what is taken is within its bounds and is written
/// back to the same bytes, and what we sign is taken.
pub fn group(data: &[u8]) {
    let mut input = Input::new(data);
    match input.byte() % 5 {
        0 => head(input.rest()),
        1 => list(input.rest()),
        2 => message(input.rest()),
        3 => entry(input.rest()),
        _ => signed(input),
    }
}

fn head(bytes: &[u8]) {
    let Ok(head) = GroupHead::decode(&id(), bytes) else { return };
    assert_eq!(head.encode(), bytes);
    assert!(bytes.len() <= limits::MAX_GROUP_HEAD_BYTES);
    assert!((1..=limits::MAX_GROUP_SEQUENCE).contains(&head.sequence()));
    assert!(head.content().is_some() || head.inline().is_some(), "a publication has something to say");
    let _ = Entry::of_head(&head);
}

fn list(bytes: &[u8]) {
    let Ok(list) = MemberList::decode(&id(), &peer(0), bytes) else { return };
    assert_eq!(list.encode(), bytes);
    assert!(list.members().len() <= limits::MAX_GROUP_MEMBERS && list.owner() == peer(0));
}

fn message(bytes: &[u8]) {
    if let Ok(gossip) = Gossip::decode(bytes) {
        assert_eq!(gossip.encode().expect("encodes"), bytes);
    }
    if let Ok(request) = Request::decode(bytes) {
        assert_eq!(request.encode().expect("encodes"), bytes);
    }
    if let Ok(answer) = Answer::decode(bytes) {
        assert_eq!(answer.encode().expect("encodes"), bytes);
    }
}

fn entry(bytes: &[u8]) {
    let block = Block::new(Codec::DagCbor, HashCode::Sha2_256, bytes.to_vec()).expect("a block");
    let Ok(entry) = Entry::from_block(&block) else { return };
    assert_eq!(entry.to_block().expect("encodes").cid(), block.cid());
    assert!(Entry::payload(&block).is_ok(), "what is read can be published");
}

fn signed(mut input: Input<'_>) {
    let (by, session, sequence, time) = (input.below(KEYS.len()), input.number(), input.number(), input.number());
    let Ok(payload) = Payload::inline(input.rest()) else { return };
    if let Ok(head) = GroupHead::sign(&KEYS[by], &id(), session, sequence, payload, time) {
        assert_eq!(GroupHead::decode(&id(), head.encode()).as_ref(), Ok(&head), "what we sign is taken");
    }
}

/// A member that is told anything by others: each message gets its verdict and each request its answer, once; queues stay
/// under their caps, heads never go back, and each number of a session is told once, in order, over restarts too.
pub fn group_machine(data: &[u8]) {
    let mut input = Input::new(data);
    let mut run = Run::new();
    for _ in 0..96 {
        if input.is_empty() {
            break;
        }
        run.step(&mut input);
        run.settle();
    }
    // Whoever waits for something is told, at the latest when its time is over.
    run.pass(Duration::from_secs(120));
    assert!(run.verdicts.is_empty() && run.answers.is_empty(), "{:?} {:?}", run.verdicts, run.answers);
}

/// The machine, and what its world looks like.
struct Run {
    machine: Group,
    now: Instant,
    tokens: u64,
    /// Messages and requests that wait for their verdict or answer.
    verdicts: BTreeSet<u64>,
    answers: BTreeSet<u64>,
    calls: Vec<(CallId, PeerId)>,
    persists: Vec<(PersistId, Option<Box<GroupHead>>)>,
    session: Option<u64>,
    /// What is on the disk.
    disk: BTreeMap<LeafKey, GroupHead>,
    /// Up to which number each session was told.
    told: BTreeMap<LeafKey, u64>,
}

impl Run {
    fn new() -> Self {
        let now = Instant::now();
        let config = Config { membership: Membership::Open, ..Config::new(id(), NOW_MS, 1) };
        let mut this = Self {
            machine: Group::new(now, config),
            now,
            tokens: 0,
            verdicts: BTreeSet::new(),
            answers: BTreeSet::new(),
            calls: Vec::new(),
            persists: Vec::new(),
            session: None,
            disk: BTreeMap::new(),
            told: BTreeMap::new(),
        };
        this.begin();
        this
    }

    /// From what is on the disk.
    fn begin(&mut self) {
        self.tell(Told::Restored(self.disk.values().cloned().collect()));
        self.told = self.disk.iter().map(|(key, head)| (*key, head.sequence())).collect();
        self.tell(Told::AddProducer { key: Box::new(KEYS[0].clone()), session: self.session });
    }

    fn tell(&mut self, told: Told) {
        self.machine.handle(self.now, told);
    }

    fn token(&mut self) -> u64 {
        self.tokens += 1;
        self.tokens
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let by = peer(1 + input.below(KEYS.len() - 1));
        match input.byte() % 12 {
            0 => self.tell(Told::PeerJoined(by)),
            1 => self.tell(Told::PeerLeft(by)),
            2 | 3 => {
                let bytes = self.gossip(input);
                let token = self.token();
                self.verdicts.insert(token);
                self.tell(Told::Gossip { token, author: peer(1 + input.below(3)), neighbour: by, bytes });
            }
            4 => {
                let bytes = self.request(input);
                let token = self.token();
                self.answers.insert(token);
                self.tell(Told::Request { token, peer: by, bytes });
            }
            5 | 6 if !self.calls.is_empty() => {
                let (call, _) = self.calls.swap_remove(input.below(self.calls.len()));
                match input.byte() % 4 {
                    0 => self.tell(Told::Failed(call)),
                    _ => {
                        let bytes = self.answer(input);
                        self.tell(Told::Answered { call, bytes });
                    }
                }
            }
            7 => {
                let payload = Payload::inline(input.take(8)).expect("fits");
                self.tell(Told::Publish { producer: peer(0), payload });
            }
            8 if !self.persists.is_empty() => {
                let (write, head) = self.persists.remove(0);
                if input.byte() % 4 == 0 {
                    self.tell(Told::PersistFailed(write));
                } else {
                    self.disk.extend(head.map(|head| (head.key(), *head)));
                    self.tell(Told::Persisted(write));
                }
            }
            9 => self.tell(Told::Clock(NOW_MS + u64::from(input.byte()) * 1000)),
            10 if input.byte() % 8 == 0 => self.restart(),
            _ => self.pass(Duration::from_millis(u64::from(input.byte()) * 20)),
        }
    }

    /// A kill: what is not on the disk is lost.
    fn restart(&mut self) {
        let config = Config::new(id(), NOW_MS, self.tokens);
        self.machine = Group::new(self.now, config);
        (self.verdicts, self.answers, self.calls, self.persists) = Default::default();
        self.begin();
    }

    /// A head of one of the others, mostly of a low number.
    fn head(input: &mut Input<'_>) -> GroupHead {
        let (by, session) = (1 + input.below(3), NOW_MS - input.below(3) as u64);
        let number = match input.byte() {
            255 => input.number().clamp(1, limits::MAX_GROUP_SEQUENCE),
            low => 1 + u64::from(low % 8),
        };
        let payload = match input.byte() % 3 {
            0 => Payload::content(Cid::new_v1(0x71, HashCode::Sha2_256.digest(&[low(number)]).expect("a hash"))),
            other => Payload::inline(&[other]).expect("fits"),
        };
        GroupHead::sign(&KEYS[by], &id(), session, number, payload, NOW_MS).expect("signs")
    }

    fn heads(input: &mut Input<'_>) -> HeadList {
        let heads = (0..input.below(4)).map(|_| {
            let mut bytes = Self::head(input).encode().to_vec();
            // Now and then a signature that does not hold.
            if input.byte() % 16 == 0 {
                *bytes.last_mut().expect("bytes") ^= 1;
            }
            HeadBytes::new(bytes).expect("fits")
        });
        HeadList::new(heads.collect::<Vec<_>>()).expect("few")
    }

    /// Our state, or one that nobody has.
    fn summary(&self, input: &mut Input<'_>) -> Summary {
        let ours = self.machine.state().summary();
        match input.byte() % 3 {
            0 => ours,
            1 => Summary { root: [input.byte(); 32], leaves: ours.leaves + 1, sum: ours.sum + 1, ..ours },
            _ => Summary { root: [input.byte(); 32], leaves: input.number(), sum: input.number(), ..ours },
        }
    }

    fn cursor(&self, input: &mut Input<'_>) -> Cursor {
        let after = self.machine.state().heads().nth(input.below(8)).map(GroupHead::key);
        Cursor { base: self.summary(input).root, after }
    }

    fn page(&self, input: &mut Input<'_>) -> Page {
        let (state, heads) = (self.summary(input), Self::heads(input));
        let next = self.machine.state().heads().nth(input.below(8)).map(GroupHead::key);
        Page { state, difference: input.byte() % 2 == 0, heads, next, members: None }
    }

    fn gossip(&self, input: &mut Input<'_>) -> Vec<u8> {
        let gossip = match input.byte() % 5 {
            0 => return input.take(64).to_vec(),
            1 => Gossip::Digest { state: self.summary(input), bucket: input.number() },
            2 => Gossip::Recover { from: self.cursor(input), members: 0, bucket: input.number() },
            3 => Gossip::Page { to: self.cursor(input), page: self.page(input) },
            _ => Gossip::Update(Update {
                previous: self.summary(input).root,
                state: self.summary(input),
                changed: Self::heads(input),
                vector: Self::heads(input),
            }),
        };
        gossip.encode().unwrap_or_default()
    }

    fn request(&self, input: &mut Input<'_>) -> Vec<u8> {
        let request = match input.byte() % 4 {
            0 => return input.take(64).to_vec(),
            1 => Request::Hello(self.summary(input)),
            _ => Request::Recover {
                from: self.cursor(input),
                state: self.summary(input),
                heads: Self::heads(input),
                members: None,
            },
        };
        request.encode().unwrap_or_default()
    }

    fn answer(&self, input: &mut Input<'_>) -> Vec<u8> {
        let answer = match input.byte() % 5 {
            0 => return input.take(64).to_vec(),
            1 => Answer::Busy,
            2 => Answer::Digest(self.summary(input)),
            _ => Answer::Page(self.page(input)),
        };
        answer.encode().unwrap_or_default()
    }

    /// Time goes by, each time-out at its time.
    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        for _ in 0..10_000 {
            let Some(due) = self.machine.poll_timeout().filter(|due| *due <= until) else {
                self.now = until;
                return;
            };
            self.now = due.max(self.now);
            self.machine.handle_timeout(self.now);
            self.settle();
        }
        panic!("it is never at rest");
    }

    /// Carries out what the machine wants, and looks at all of it.
    fn settle(&mut self) {
        while let Some(effect) = self.machine.poll_effect() {
            match effect {
                Effect::Gossip(bytes) => {
                    assert!(bytes.len() <= limits::MAX_GROUP_GOSSIP_BYTES && Gossip::decode(&bytes).is_ok());
                }
                Effect::Verdict { token, .. } => assert!(self.verdicts.remove(&token), "a second verdict"),
                Effect::Answer { token, answer } => {
                    assert!(self.answers.remove(&token), "a second answer");
                    assert!(answer.is_none_or(|answer| Answer::decode(&answer).is_ok()));
                }
                Effect::Request { call, peer, bytes } => {
                    assert!(Request::decode(&bytes).is_ok() && self.calls.iter().all(|(known, _)| *known != call));
                    self.calls.push((call, peer));
                }
                Effect::PersistSession { id, session, .. } => {
                    self.session = Some(session);
                    self.persists.push((id, None));
                }
                Effect::PersistHead { id, head } => self.persists.push((id, Some(head))),
                Effect::Store(heads) => {
                    for head in heads {
                        let before = self.disk.insert(head.key(), head.clone());
                        assert!(before.is_none_or(|before| before.sequence() <= head.sequence()), "it went back");
                    }
                }
                Effect::StoreMembers(_) => panic!("an open group has no list"),
                Effect::Event(Event::New { head, first, .. }) => {
                    let told = self.told.insert(head.key(), head.sequence()).unwrap_or_default();
                    assert!(first == told + 1 && head.sequence() >= first, "{first} after {told}");
                    let kept = self.disk.get(&head.key()).map(GroupHead::sequence);
                    assert!(kept >= Some(head.sequence()), "told before it was kept");
                }
                Effect::Event(_) => {}
            }
        }
        for (what, held, most) in self.machine.queues() {
            assert!(held <= most, "{held} {what} of {most}");
        }
    }
}

fn low(number: u64) -> u8 {
    number.to_le_bytes()[0]
}
