//! Requests that no honest client makes.

use cid::Cid;
use dagmesh::{
    dag::Selector,
    dagsync::{End, Status, message::Frame},
};
use dagmesh_core::{
    cbor,
    frame::{self, FrameReader},
    limits,
};
use futures::AsyncWriteExt;
use ipld_core::{ipld, ipld::Ipld};
use libp2p::{PeerId, Stream};

use super::{Hostile, SYNC};
use crate::peer::SOON;

/// A request before it is encoded, without a bound on anything.
#[derive(Debug, Clone)]
pub struct Loose {
    /// CIDs, each with the index of its selector.
    pub roots: Vec<(Ipld, u64)>,
    /// Encoded selectors, or whatever stands there.
    pub selectors: Vec<Vec<u8>>,
    /// Stop links.
    pub stop: Vec<Cid>,
    /// Depth, blocks, bytes.
    pub budgets: (Option<u64>, u64, u64),
}

impl Loose {
    /// Everything below `root`.
    pub fn all(root: &Cid) -> Self {
        let selectors = vec![Selector::all().to_cbor().expect("encodes")];
        Self { roots: vec![(Ipld::Link(*root), 0)], selectors, stop: Vec::new(), budgets: (None, 1 << 20, 1 << 32) }
    }

    /// Everything below `root` that this selector names, whatever it is.
    pub fn selected(root: &Cid, selector: &Ipld) -> Self {
        Self { selectors: vec![cbor::to_vec(selector).expect("encodes")], ..Self::all(root) }
    }

    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let roots = self.roots.iter().map(|(cid, selector)| ipld!([cid.clone(), *selector as i128, null])).collect();
        let stop = self.stop.iter().map(|cid| Ipld::Link(*cid)).collect();
        let selectors = self.selectors.iter().map(|bytes| Ipld::Bytes(bytes.clone())).collect();
        let (depth, blocks, bytes) = self.budgets;
        let mut request = ipld!({
            "v": 1,
            "roots": Ipld::List(roots),
            "sels": Ipld::List(selectors),
            "stop": Ipld::List(stop),
            "blocks": blocks as i128,
            "bytes": bytes as i128,
        });
        if let (Ipld::Map(fields), Some(depth)) = (&mut request, depth) {
            fields.insert("depth".to_owned(), Ipld::Integer(depth.into()));
        }
        cbor::to_vec(&request).expect("encodes")
    }
}

/// Selectors whose work, written out, has no bound: each with what it is.
pub fn bombs() -> Vec<(&'static str, Ipld)> {
    let all = |next: Ipld| ipld!({"a": {">": next}});
    let edge = || ipld!({"@": {}});
    let matcher = || ipld!({".": {}});
    let recursive = |sequence: Ipld| ipld!({"R": {"l": {"none": {}}, ":>": sequence}});
    let path = |len: usize, end: Ipld| (0..len).fold(end, |next, _| all(next));
    let deepest = limits::MAX_SELECTOR_DEPTH;
    vec![
        ("clauses inside one another, one too deep", path(deepest, matcher())),
        ("more clauses than may stand", ipld!({"|": Ipld::List(vec![matcher(); limits::MAX_SELECTOR_NODES])})),
        (
            "recursions inside one another, one too many",
            (0..limits::MAX_SELECTOR_RECURSIONS)
                .fold(recursive(all(edge())), |inner, _| recursive(ipld!({"|": [all(edge()), inner]}))),
        ),
        (
            "edges at every depth: in hand they double with each step",
            recursive(Ipld::Map(
                [("|".to_owned(), Ipld::List((1..=12).map(|len| path(len, edge())).collect()))].into(),
            )),
        ),
        (
            "recursions side by side whose steps differ in length",
            Ipld::Map([("|".to_owned(), Ipld::List((1..12).map(|len| recursive(path(len, edge()))).collect()))].into()),
        ),
    ]
}

/// Sends bytes as a request, behind their length; the stream, to read the answer from.
pub async fn send(hostile: &Hostile, peer: PeerId, request: &[u8]) -> Stream {
    let mut stream = hostile.open(peer, SYNC).await;
    // A server that refuses from the prefix does not wait for the rest.
    let _ = async {
        frame::write(&mut stream, request).await?;
        stream.flush().await
    }
    .await;
    stream
}

/// Makes a request and reads its whole answer; nothing where the stream is reset without one.
pub async fn ask(hostile: &Hostile, peer: PeerId, request: &[u8]) -> Vec<Frame> {
    let exchange = async {
        let mut reader = FrameReader::new(send(hostile, peer, request).await, limits::MAX_RESPONSE_FRAME_BYTES);
        let mut frames = Vec::new();
        while let Ok(Some(frame)) = reader.next().await {
            frames.push(Frame::decode(frame).expect("an honest server's frame"));
        }
        frames
    };
    tokio::time::timeout(SOON, exchange).await.expect("an end of the answer in time")
}

/// The end of an answer.
#[track_caller]
pub fn end_of(answer: &[Frame]) -> &End {
    match answer.last() {
        Some(Frame::End(end)) => end,
        last => panic!("an answer whose last frame is {last:?}"),
    }
}

/// Asserts that a request was refused without a block of an answer, and why.
#[track_caller]
pub fn assert_refused(answer: &[Frame], why: &str) {
    let end = end_of(answer);
    assert_eq!((answer.len(), end.status, end.blocks), (1, Status::Refused, 0), "{answer:?}");
    assert!(end.reason().contains(why), "{why:?} expected in {:?}", end.reason());
}
