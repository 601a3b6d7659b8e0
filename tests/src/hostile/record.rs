//! Records that no honest node puts, and requests about records that none makes.

use std::collections::BTreeMap;

use dagmesh_core::{
    cbor,
    frame::{self, FrameReader},
    limits,
};
use dagmesh_records::{
    Answer, Draft, IpnsDraft, IpnsName, IpnsRecord, PROTOCOL, Record, RecordName, Request, Validity, net,
};
use futures::AsyncWriteExt;
use ipld_core::ipld::Ipld;
use libp2p::{PeerId, Stream, StreamProtocol, identity::Keypair};

use super::{Hostile, group::unix_ms};
use crate::peer::SOON;

/// The stream protocol of a request about a record.
pub const RECORDS: StreamProtocol = StreamProtocol::new(PROTOCOL);
/// An hour, in milliseconds.
pub const HOUR_MS: u64 = 60 * 60 * 1000;

/// Signs records as it likes.
pub struct Writer {
    /// With this key.
    pub key: Keypair,
}

impl Default for Writer {
    fn default() -> Self {
        Self { key: Keypair::generate_ed25519() }
    }
}

impl Writer {
    /// What an honest owner signs now, for an hour.
    pub fn draft(&self, name: &str, sequence: u64, value: &[u8]) -> Draft {
        let name = RecordName::new(name).expect("a name");
        let timestamp_ms = unix_ms();
        let expires_ms = timestamp_ms + HOUR_MS;
        Draft { name, value: value.to_vec(), sequence, timestamp_ms, expires_ms, meta: BTreeMap::new() }
    }

    /// An honest record.
    pub fn record(&self, name: &str, sequence: u64, value: &[u8]) -> Record {
        self.sign(self.draft(name, sequence, value))
    }

    /// Signs any times.
    pub fn at(&self, name: &str, sequence: u64, timestamp_ms: u64, expires_ms: u64) -> Record {
        self.sign(Draft { timestamp_ms, expires_ms, ..self.draft(name, sequence, b"at any time") })
    }

    /// Signs a draft.
    pub fn sign(&self, draft: Draft) -> Record {
        Record::sign(&self.key, draft).expect("a record")
    }

    /// A record with a value of any length, over the bound too.
    pub fn with_value(&self, name: &str, len: usize) -> (Vec<u8>, Vec<u8>) {
        let empty = self.record(name, 1, &[]);
        let Ok(Ipld::List(mut fields)) = cbor::from_slice(empty.encode()) else { panic!("a record is a list") };
        *fields.get_mut(3).expect("a value") = Ipld::Bytes(vec![7; len]);
        fields.pop();
        let mut signed = Vec::new();
        frame::append(&mut signed, &[b"dagmesh-record-v1"]);
        signed.extend(cbor::to_vec(&fields).expect("a list"));
        fields.push(Ipld::Bytes(self.key.sign(&signed).expect("a signature")));
        (empty.key(), cbor::to_vec(&fields).expect("a list"))
    }

    /// An IPNS record of this number, with a validity of an hour from `now_ms` on.
    pub fn ipns(&self, sequence: u64, value: &[u8], now_ms: u64) -> IpnsRecord {
        let validity = Validity::from_unix_ms(now_ms + HOUR_MS);
        let draft = IpnsDraft { value: value.to_vec(), sequence, validity, ttl_ns: 0 };
        IpnsRecord::sign(&self.key, draft).expect("an IPNS record")
    }

    /// Where its IPNS record stands.
    pub fn ipns_key(&self) -> Vec<u8> {
        IpnsName::of(&self.key.public()).key()
    }
}

/// A message behind its length.
pub fn framed(message: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::append(&mut bytes, &[message]);
    bytes
}

/// The record with a signature that does not hold.
pub fn forged(record: &[u8]) -> Vec<u8> {
    let mut bytes = record.to_vec();
    *bytes.last_mut().expect("bytes") ^= 1;
    bytes
}

impl Hostile {
    /// Asks a peer about a record; `None` where it gives no answer.
    pub async fn ask_record(&self, peer: PeerId, request: &Request) -> Option<Answer> {
        let asking = async { net::ask(&mut self.streams(), peer, request).await.ok() };
        tokio::time::timeout(SOON, asking).await.expect("an end of the request in time")
    }

    /// Puts any bytes under any key that fit into a request; `None` where there is no answer.
    pub async fn put_record(&self, peer: PeerId, key: &[u8], record: &[u8]) -> Option<Answer> {
        self.ask_record(peer, &Request::put(key, record).expect("fits")).await
    }

    /// What a peer holds under a key.
    pub async fn get_record(&self, peer: PeerId, key: &[u8]) -> Option<Vec<u8>> {
        match self.ask_record(peer, &Request::get(key).expect("fits")).await.expect("an answer") {
            Answer::Record(record) => Some(record.to_vec()),
            Answer::Absent => None,
            other => panic!("a get is answered with {other:?}"),
        }
    }

    /// Whether a peer answers a get at all.
    pub async fn is_answered(&self, peer: PeerId, key: &[u8]) -> bool {
        self.ask_record(peer, &Request::get(key).expect("fits")).await.is_some()
    }

    /// Sends a peer any bytes as a request; `None` where it gives no answer.
    pub async fn ask_record_raw(&self, peer: PeerId, bytes: &[u8]) -> Option<Answer> {
        let asking = async {
            let mut stream = self.streams().open_stream(peer, RECORDS).await.ok()?;
            stream.write_all(bytes).await.ok()?;
            // Nothing more will come, so that half a frame is known as one.
            stream.close().await.ok()?;
            let answer = FrameReader::new(stream, limits::MAX_RECORD_MESSAGE_BYTES).next().await.ok()??;
            Some(Answer::decode(&answer).expect("an honest node's answer"))
        };
        tokio::time::timeout(SOON, asking).await.expect("an end of the request in time")
    }

    /// Opens a stream for a request about a record, and writes these bytes and nothing more; `None` where it is refused.
    pub async fn record_stream(&self, peer: PeerId, bytes: &[u8]) -> Option<Stream> {
        let mut stream = self.streams().open_stream(peer, RECORDS).await.ok()?;
        stream.write_all(bytes).await.ok()?;
        stream.flush().await.ok()?;
        Some(stream)
    }
}

/// A request to put this record, however large it is, behind its length.
pub fn loose_put(key: &[u8], record: &[u8]) -> Vec<u8> {
    let fields = Ipld::List(vec![Ipld::Bytes(key.to_vec()), Ipld::Bytes(record.to_vec())]);
    let request = cbor::to_vec(&Ipld::Map([("p".to_owned(), fields)].into())).expect("a request");
    assert!(request.len() <= limits::MAX_RECORD_MESSAGE_BYTES, "it would be refused for its length");
    framed(&request)
}
