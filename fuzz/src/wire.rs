//! Frames and messages.

use std::{
    collections::HashMap,
    io,
    pin::Pin,
    sync::{Arc, LazyLock, Mutex},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use cid::Cid;
use dagmesh_announce::{
    Acceptance, Announcement, Answer, IngestValidator, Ingested, Origin, Publishers, Validator, ValidatorConfig,
    Verdict, is_globally_reachable,
};
use dagmesh_core::{
    frame::{self, FrameError, FrameReader},
    limits,
};
use dagmesh_dag::{Block, Codec, FeedName, HashCode, SignedHead};
use dagmesh_dagsync::{
    head::{HeadQuery, MAX_HEADS, answer, ask},
    message::{Frame, Request},
};
use futures::{AsyncRead, AsyncWrite, executor::block_on};
use libp2p_identity::{Keypair, PeerId};

use crate::input::Input;

/// A peer whose words are given and whose hearing is kept; it sends `piece` bytes at a time.
#[derive(Clone)]
struct Wire<'a> {
    says: &'a [u8],
    piece: usize,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl<'a> Wire<'a> {
    fn new(says: &'a [u8], piece: usize) -> Self {
        Self { says, piece, heard: Arc::default() }
    }

    fn heard(&self) -> Vec<u8> {
        self.heard.lock().expect("no panic before").clone()
    }
}

impl AsyncRead for Wire<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let len = self.piece.min(into.len()).min(self.says.len());
        let (now, later) = self.says.split_at(len);
        into[..len].copy_from_slice(now);
        self.says = later;
        Poll::Ready(Ok(len))
    }
}

impl AsyncWrite for Wire<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.heard.lock().expect("no panic before").extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Frames of a stream, and those of the sync protocol inside them. However the bytes come, the frames are the same;
/// none is over the cap; all together are the bytes that came.
pub fn frame(data: &[u8]) {
    let mut input = Input::new(data);
    let max = [0, 1, 64, 4096, limits::MAX_RESPONSE_FRAME_BYTES][input.below(5)];
    let piece = 1 + usize::from(input.byte());
    let bytes = input.rest();
    let (frames, end) = frames(bytes, max, piece);
    let (whole, whole_end) = self::frames(bytes, max, usize::MAX);
    assert_eq!((&frames, end.is_ok()), (&whole, whole_end.is_ok()), "the pieces change nothing");
    let mut again = Vec::new();
    for body in &frames {
        assert!(body.len() <= max);
        frame::append(&mut again, &[body]);
        sync_frame(body);
    }
    assert!(bytes.starts_with(&again));
    match end {
        Ok(()) => assert_eq!(again.len(), bytes.len()),
        Err(FrameError::TooLong { len, max: cap }) => assert!(cap == max && len > max as u64),
        Err(FrameError::CutShort | FrameError::Prefix) => assert!(again.len() < bytes.len()),
        Err(error) => panic!("{error}"),
    }
}

fn frames(bytes: &[u8], max: usize, piece: usize) -> (Vec<Bytes>, Result<(), FrameError>) {
    block_on(async {
        let mut reader = FrameReader::new(Wire::new(bytes, piece), max);
        let mut frames = Vec::new();
        loop {
            match reader.next().await {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => return (frames, Ok(())),
                Err(error) => return (frames, Err(error)),
            }
        }
    })
}

fn sync_frame(body: &Bytes) {
    let Ok(decoded) = Frame::decode(body.clone()) else { return };
    let mut again = Vec::new();
    decoded.append(&mut again).expect("what was decoded can be written");
    let (written, _) = frames(&again, limits::MAX_RESPONSE_FRAME_BYTES, usize::MAX);
    if let Frame::End(end) = &decoded {
        assert!(end.frontier.len() <= limits::MAX_END_FRONTIER && end.reason().len() <= limits::MAX_REASON_BYTES);
        assert_eq!(Frame::decode(written[0].clone()).expect("decodes"), decoded);
    } else {
        assert_eq!(&written[0], body, "a block has one form");
    }
}

/// The request for a segment: its lists are bounded, its selectors are, and it comes back as it was.
pub fn request(data: &[u8]) {
    let Ok(request) = Request::decode(data) else { return };
    assert!((1..=limits::MAX_REQUEST_ROOTS).contains(&request.roots.len()));
    assert!(request.stop.len() <= limits::MAX_STOP_LINKS);
    let again = request.encode().expect("what was decoded can be written");
    assert!(again.len() <= limits::MAX_REQUEST_BYTES);
    assert_eq!(Request::decode(&again).expect("decodes"), request);
}

static KEYS: LazyLock<Vec<Keypair>> =
    LazyLock::new(|| (1..=4).map(|n| Keypair::ed25519_from_bytes([n; 32]).expect("a key")).collect());

/// A head of publisher `key`; another `text` makes it a fork.
pub(crate) fn head(key: usize, feed: &str, seq: u64, time: u64, text: &str) -> SignedHead {
    type Name = (usize, String, u64, u64, String);
    static HEADS: LazyLock<Mutex<HashMap<Name, SignedHead>>> = LazyLock::new(Mutex::default);
    let sign = || {
        let feed = FeedName::new(feed).expect("a name");
        let entry = Block::new(Codec::Raw, HashCode::Sha2_256, format!("{seq} {text}").into_bytes());
        SignedHead::sign(&KEYS[key], &feed, *entry.expect("a block").cid(), seq, time).expect("signs")
    };
    let mut heads = HEADS.lock().expect("no panic before");
    heads.entry((key, feed.to_owned(), seq, time, text.to_owned())).or_insert_with(sign).clone()
}

fn peer(key: usize) -> PeerId {
    KEYS[key].public().to_peer_id()
}

/// The question for heads and its answer: the first byte says which side the bytes come from. A question that is
/// understood gets an answer that the asker takes; heads that were not asked for are refused.
pub fn heads(data: &[u8]) {
    static HEADS: LazyLock<Vec<SignedHead>> = LazyLock::new(|| (1..70).map(|n| head(0, "main", n, 1, "")).collect());
    let mut input = Input::new(data);
    let asked = input.byte() % 2 == 0;
    let wire = Wire::new(input.rest(), 100);
    if asked {
        let mut query = None;
        let find = |asked: HeadQuery| {
            query = Some(asked.clone());
            let ours = asked.publisher.is_none_or(|publisher| publisher == peer(0));
            let fits = |head: &&SignedHead| ours && asked.feed.as_ref().is_none_or(|feed| feed == head.feed());
            let heads: Vec<_> = HEADS.iter().filter(fits).cloned().collect();
            async move { heads }
        };
        let answered = block_on(answer(wire.clone(), find));
        assert_eq!(answered.is_ok(), query.is_some(), "a question that is understood is answered");
        let Some(query) = query else { return };
        let said = wire.heard();
        let heads = block_on(ask(Wire::new(&said, 1000), &query, peer(0))).expect("our own answer is taken");
        assert!(heads.len() <= MAX_HEADS);
    } else {
        let query = HeadQuery { publisher: Some(peer(0)), feed: Some(FeedName::default()) };
        let Ok(heads) = block_on(ask(wire, &query, peer(1))) else { return };
        assert!(heads.len() <= MAX_HEADS);
        assert!(heads.iter().all(|head| head.publisher() == peer(0) && head.feed().as_str() == "main"));
    }
}

/// The announcement in both its forms, and the answer to a direct one.
pub fn announcement(data: &[u8]) {
    if let Ok(read) = Announcement::decode(data) {
        assert!(read.addrs.len() <= limits::MAX_ANNOUNCEMENT_ADDRS);
        assert!(read.addrs.iter().all(|addr| addr.len() <= limits::MAX_ADDR_BYTES));
        for addr in &read.addrs {
            let _ = is_globally_reachable(addr);
        }
        let again = read.encode().expect("what was decoded can be written");
        assert_eq!(Announcement::decode(&again).expect("decodes"), read);
        if let Some(Ok(head)) = read.signed_head() {
            assert_eq!(*head.head(), read.cid);
        }
    }
    if let Ok(read) = Announcement::decode_json(data) {
        let again = read.encode_json().expect("what was decoded can be written");
        assert_eq!(Announcement::decode_json(&again).as_ref(), Ok(&read));
        assert_eq!(Announcement::decode(&read.encode().expect("fits in both forms")), Ok(read));
    }
    if let Ok(answer) = Answer::decode(data) {
        let again = answer.encode().expect("what was decoded can be written");
        assert!(again.len() <= limits::MAX_ANSWER_BYTES);
        assert_eq!(Answer::decode(&again).expect("decodes"), answer);
    }
}

/// The rules for announcements of the IPNI network over a stretch of time: addresses name nobody but the publisher and are
/// filtered, only who has signed is believed to be the publisher, nothing is taken twice in the window, and nobody has more
/// taken than its rate.
pub fn ingest(data: &[u8]) {
    let mut input = Input::new(data);
    let own = peer(3);
    let only_reachable = input.byte() % 2 == 0;
    let config = ValidatorConfig { own, publishers: Publishers::Except([peer(2)].into()), only_reachable };
    let mut validator = IngestValidator::new(config);
    let begin = Instant::now();
    let mut at_ms = 0u64;
    let mut taken: Vec<(u64, Cid, PeerId, bool)> = Vec::new();
    for _ in 0..64 {
        if input.is_empty() {
            break;
        }
        let (kind, author, relayed) = (input.byte(), peer(input.below(4)), peer(input.below(4)));
        at_ms += u64::from(input.byte()) * 400;
        let cid = Cid::new_v1(0x0129, *head(0, "main", 1 + u64::from(input.byte() % 4), 1, "").head().hash());
        let addr = |named: Option<PeerId>, text: &str| {
            let named = named.map(|peer| format!("/p2p/{peer}")).unwrap_or_default();
            format!("{text}{named}").parse().expect("an address")
        };
        let named = (kind & 1 == 0).then_some(author);
        let other = if kind & 2 == 0 { named } else { Some(relayed) };
        let addrs = [addr(named, "/ip4/127.0.0.1/tcp/1/http"), addr(other, "/ip4/8.8.8.8/tcp/1")];
        let mut announcement = Announcement::bare(cid, addrs);
        if kind & 4 != 0 {
            announcement = announcement.relayed(relayed);
        }
        let now = begin + Duration::from_millis(at_ms);
        let over_http = kind & 8 != 0;
        let sender = (kind & 16 != 0).then_some(author);
        let result = if over_http {
            validator.http(now, sender, announcement)
        } else {
            let mut bytes = announcement.encode().expect("encodes");
            if kind & 32 != 0 {
                let at = usize::from(input.byte()) % bytes.len();
                bytes[at] ^= input.byte();
            }
            validator.gossip(now, &Origin::gossip(peer(input.below(3)), (kind & 64 == 0).then_some(author)), &bytes)
        };
        let Ok(Ingested { publisher, head, addrs, by_publisher }) = result else { continue };
        assert!(publisher != own && publisher != peer(2), "neither our own nor one that is refused");
        let signer = if over_http { sender } else { Some(author) };
        assert_eq!(by_publisher, signer == Some(publisher), "who says so itself, and nobody else");
        assert!(addrs.iter().all(|addr| !only_reachable || is_globally_reachable(addr)));
        let leads = |addr: String| addr.rsplit_once("/p2p/").is_none_or(|(_, named)| named == publisher.to_string());
        assert!(addrs.iter().all(|addr| leads(addr.to_string())), "{addrs:?}");
        let again = |(at, cid, of, by): &(u64, Cid, PeerId, bool)| {
            (*cid, *of, *by) == (head, publisher, by_publisher) && at_ms - at < limits::DUPLICATE_WINDOW_MS
        };
        assert!(!taken.iter().any(again), "taken twice");
        taken.push((at_ms, head, publisher, by_publisher));
    }
}

/// The rules for announcements over a stretch of time: what is known of a feed never goes back, news are newer than
/// all before, addresses are filtered, a neighbour has no more accepted than its rate, nothing invented is accepted.
pub fn validator(data: &[u8]) {
    const DAY_MS: u64 = 24 * 60 * 60 * 1000;
    let mut input = Input::new(data);
    let own = peer(3);
    let publishers = match input.byte() % 3 {
        0 => Publishers::Any,
        1 => Publishers::Only([peer(0)].into()),
        _ => Publishers::Except([peer(0)].into()),
    };
    let only_reachable = input.byte() % 2 == 0;
    let config = ValidatorConfig { own, publishers: publishers.clone(), only_reachable };
    let mut validator = Validator::new(config);
    let begin = Instant::now();
    let (mut at_ms, mut taken) = (0u64, 0u64);
    for _ in 0..64 {
        if input.is_empty() {
            break;
        }
        let (key, seq, kind) = (input.below(4), 1 + u64::from(input.byte() % 4), input.byte());
        at_ms += u64::from(input.byte()) * 400;
        let neighbour = peer(input.below(3));
        let head =
            head(key, "main", seq, if kind & 1 == 0 { 1 } else { DAY_MS }, if kind & 2 == 0 { "" } else { "fork" });
        let addrs = ["/ip4/127.0.0.1/tcp/1", "/ip4/8.8.8.8/tcp/1"].map(|addr| addr.parse().expect("an address"));
        let mut announcement = Announcement::new(&head, addrs);
        if kind & 4 != 0 {
            announcement = announcement.relayed(peer(input.below(4)));
        }
        let mut bytes = announcement.encode().expect("encodes");
        let whole = kind & 8 == 0;
        if !whole {
            let at = usize::from(input.byte()) % bytes.len();
            bytes[at] ^= input.byte();
        }
        let author = match kind >> 6 {
            0 => None,
            1 => Some(neighbour),
            _ => Some(head.publisher()),
        };
        let before = validator.known(head.publisher(), head.feed()).map(SignedHead::seq);
        let now = begin + Duration::from_millis(at_ms);
        let verdict = validator.check(now, at_ms, &Origin::gossip(neighbour, author), &bytes);
        let known = validator.known(head.publisher(), head.feed()).map(SignedHead::seq);
        assert!(known >= before, "what is known never goes back");
        if let Verdict::Accept(verified) = &verdict {
            assert!(author.is_some() && verified.head.publisher() != own);
            assert!(publishers.allow(&verified.head.publisher()));
            assert!(!verified.news || before.is_none_or(|before| verified.head.seq() > before));
            assert!(!only_reachable || verified.addrs.iter().all(is_globally_reachable));
            taken += 1;
        }
        if verdict.acceptance() == Acceptance::Reject {
            assert_eq!(known, before, "what is rejected is not remembered");
        }
    }
    let rate =
        u64::from(limits::ANNOUNCEMENTS_PER_SECOND) * at_ms.div_ceil(1000) + u64::from(limits::ANNOUNCEMENT_BURST);
    assert!(taken <= KEYS.len() as u64 * rate);
}
