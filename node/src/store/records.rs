//! What the node holds of the DHT's records: the records, marks of those that are gone, and bans.
//!
//! Rows of one keyspace, the kind first: `r` and a key of the DHT the record, `m` and such a key the mark, `b` and a peer
//! the ban. Nothing here is judged: whoever takes records back checks each again.

use dagmesh_core::cbor;
use dagmesh_dag::StoreError;
use dagmesh_records::{Ban, Mark, Order, Row, Source};
use libp2p::PeerId;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_bytes::ByteBuf;

use super::{Batch, Error, Store, engine::Table, error::bad_row};

const RECORD: u8 = b'r';
const MARK: u8 = b'm';
const BAN: u8 = b'b';

/// All that is kept of records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeptRecords {
    /// The records, by key.
    pub rows: Vec<Row>,
    /// The marks of those that are gone, by key.
    pub marks: Vec<(Vec<u8>, Mark)>,
    /// Who is banned, or was and that is not forgotten.
    pub bans: Vec<(PeerId, Ban)>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct RecordRow {
    bytes: ByteBuf,
    /// The peer that brought it, in bytes; `None` where this node did.
    source: Option<ByteBuf>,
    received_ms: u64,
    mark_until_ms: u64,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct MarkRow {
    sequence: u64,
    secs: u64,
    nanos: u32,
    digest: ByteBuf,
    until_ms: u64,
    source: ByteBuf,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct BanRow {
    count: u32,
    until_ms: u64,
}

impl Store {
    /// All that is kept of records. Reads every row: for the start.
    pub fn kept_records(&self) -> Result<KeptRecords, Error> {
        let record = |key: Vec<u8>, row: RecordRow| {
            let source = row.source.map_or(Ok(Source::Own), |peer| peer_of(&peer).map(Source::Peer))?;
            let RecordRow { bytes, received_ms, mark_until_ms, .. } = row;
            Ok(Row { key, bytes: bytes.into_vec(), source, received_ms, mark_until_ms })
        };
        let mark = |key: Vec<u8>, row: MarkRow| {
            let MarkRow { sequence, secs, nanos, digest, until_ms, source } = row;
            let digest = <[u8; 32]>::try_from(digest.as_slice()).map_err(|error| bad_row("records", error))?;
            let order = Order { sequence, secs, nanos, digest };
            Ok((key, Mark { order, until_ms, source: peer_of(&source)? }))
        };
        let ban = |peer: Vec<u8>, BanRow { count, until_ms }| Ok((peer_of(&peer)?, Ban { count, until_ms }));
        Ok(KeptRecords {
            rows: self.record_rows(RECORD, record)?,
            marks: self.record_rows(MARK, mark)?,
            bans: self.record_rows(BAN, ban)?,
        })
    }

    fn record_rows<R: DeserializeOwned, T>(
        &self,
        kind: u8,
        read: impl Fn(Vec<u8>, R) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, Error> {
        let rows = self.engine.keyspaces.rows(Table::Records, &[kind]);
        let read = |row: Result<(fjall::Slice, fjall::Slice), StoreError>| {
            let (key, value) = row?;
            let row = cbor::from_slice(&value).map_err(|error| bad_row("records", error))?;
            Ok(read(key.get(1..).unwrap_or_default().to_vec(), row)?)
        };
        rows.map(read).collect()
    }
}

impl Batch<'_> {
    /// Keeps a record, in the place of one with the same key.
    pub fn set_record(&mut self, row: &Row) -> Result<(), Error> {
        let source = match row.source {
            Source::Own => None,
            Source::Peer(peer) => Some(ByteBuf::from(peer.to_bytes())),
        };
        let &Row { ref key, ref bytes, received_ms, mark_until_ms, .. } = row;
        let value = RecordRow { bytes: ByteBuf::from(bytes.as_slice()), source, received_ms, mark_until_ms };
        self.put_row(Table::Records, &row_key(RECORD, key), cbor::to_vec(&value)?)?;
        Ok(())
    }

    /// Forgets the record of this key.
    pub fn remove_record(&mut self, key: &[u8]) -> Result<(), Error> {
        self.delete_row(Table::Records, &row_key(RECORD, key))?;
        Ok(())
    }

    /// Keeps the mark of a record that is gone, in the place of one with the same key.
    pub fn set_record_mark(&mut self, key: &[u8], mark: &Mark) -> Result<(), Error> {
        let Order { sequence, secs, nanos, digest } = mark.order;
        let (digest, source) = (ByteBuf::from(digest), ByteBuf::from(mark.source.to_bytes()));
        let value = MarkRow { sequence, secs, nanos, digest, until_ms: mark.until_ms, source };
        self.put_row(Table::Records, &row_key(MARK, key), cbor::to_vec(&value)?)?;
        Ok(())
    }

    /// Forgets the mark of this key.
    pub fn remove_record_mark(&mut self, key: &[u8]) -> Result<(), Error> {
        self.delete_row(Table::Records, &row_key(MARK, key))?;
        Ok(())
    }

    /// Keeps a ban, in the place of one of the same peer.
    pub fn set_ban(&mut self, peer: &PeerId, ban: &Ban) -> Result<(), Error> {
        let value = BanRow { count: ban.count, until_ms: ban.until_ms };
        self.put_row(Table::Records, &row_key(BAN, &peer.to_bytes()), cbor::to_vec(&value)?)?;
        Ok(())
    }

    /// Forgets the ban of a peer.
    pub fn remove_ban(&mut self, peer: &PeerId) -> Result<(), Error> {
        self.delete_row(Table::Records, &row_key(BAN, &peer.to_bytes()))?;
        Ok(())
    }
}

fn row_key(kind: u8, key: &[u8]) -> Vec<u8> {
    [&[kind], key].concat()
}

fn peer_of(bytes: &[u8]) -> Result<PeerId, StoreError> {
    PeerId::from_bytes(bytes).map_err(|error| bad_row("records", error))
}
