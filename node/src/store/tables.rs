//! The small tables: outbox, pins, peers, and values of other services.

use bytes::Bytes;
use cid::Cid;
use dagmesh_core::{cbor, limits};
use dagmesh_dag::StoreError;
use libp2p::{Multiaddr, PeerId};
use serde::{Deserialize, Serialize};

use super::{Batch, Error, Store, engine::Table, error::bad_row, follows::addrs};

// ---- Outbox ----------------------------------------------------------------------------------------------------

impl Store {
    /// Up to `limit` rows of the outbox, oldest first, from number `from` on. Each stays until it is removed.
    pub fn outbox(&self, from: u64, limit: usize) -> Result<Vec<(u64, Bytes)>, Error> {
        let rows = self.engine.keyspaces.of(Table::Outbox).range(from.to_be_bytes()..).take(limit);
        let read = |row: fjall::Guard| {
            let (key, value) = row.into_inner().map_err(super::error::from_engine)?;
            let id = <[u8; 8]>::try_from(&*key).map_err(|_| bad_row("outbox", "its key"))?;
            Ok((u64::from_be_bytes(id), Bytes::copy_from_slice(&value)))
        };
        rows.map(read).collect()
    }

    /// Removes a row from the outbox, durable; whether it was there.
    pub fn remove_outbox(&self, id: u64) -> Result<bool, Error> {
        self.transaction(|batch| batch.remove_outbox(id))
    }
}

impl Batch<'_> {
    /// Appends a row to the outbox and returns its number. Numbers grow, and none is used twice.
    pub fn push_outbox(&mut self, row: &[u8]) -> Result<u64, Error> {
        let id = self.counters.next_outbox;
        self.counters.next_outbox += 1;
        self.put_row(Table::Outbox, &id.to_be_bytes(), row.to_vec())?;
        Ok(id)
    }

    /// Removes a row from the outbox; whether it was there.
    pub fn remove_outbox(&mut self, id: u64) -> Result<bool, Error> {
        Ok(self.delete_row(Table::Outbox, &id.to_be_bytes())?)
    }
}

// ---- Pins ------------------------------------------------------------------------------------------------------

/// How much a pin keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PinKind {
    /// The block and all that it links to.
    #[default]
    Recursive,
    /// The block alone.
    Direct,
    /// The block, and what is held of all that it links to: gaps are as they were meant.
    Held,
}

/// A pin: what it points to stays. The default is recursive and has no name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Pin {
    /// How much it keeps.
    pub kind: PinKind,
    /// A name for people; may be empty.
    #[serde(default)]
    pub name: String,
}

impl Store {
    /// Pins a CID, or changes its pin; durable.
    pub fn pin(&self, cid: &Cid, pin: &Pin) -> Result<(), Error> {
        self.transaction(|batch| batch.pin(cid, pin))
    }

    /// Removes a pin, durable; whether there was one.
    pub fn unpin(&self, cid: &Cid) -> Result<bool, Error> {
        self.transaction(|batch| batch.unpin(cid))
    }

    /// All pins.
    pub fn pins(&self) -> Result<Vec<(Cid, Pin)>, Error> {
        let read = |row: Result<(fjall::Slice, fjall::Slice), StoreError>| {
            let (key, value) = row?;
            let cid = Cid::try_from(&*key).map_err(|error| bad_row("pins", error))?;
            Ok((cid, cbor::from_slice(&value).map_err(|error| bad_row("pins", error))?))
        };
        self.engine.keyspaces.rows(Table::Pins, &[]).map(read).collect()
    }
}

impl Batch<'_> {
    /// Pins a CID, or changes its pin.
    pub fn pin(&mut self, cid: &Cid, pin: &Pin) -> Result<(), Error> {
        if self.put_row(Table::Pins, &cid.to_bytes(), cbor::to_vec(pin)?)? {
            self.counters.pins += 1;
        }
        self.roots(|| [*cid]);
        Ok(())
    }

    /// Removes a pin; whether there was one.
    pub fn unpin(&mut self, cid: &Cid) -> Result<bool, Error> {
        let held = self.delete_row(Table::Pins, &cid.to_bytes())?;
        if held {
            self.counters.pins = self.counters.pins.saturating_sub(1);
        }
        Ok(held)
    }
}

// ---- Peers -----------------------------------------------------------------------------------------------------

/// Where a peer was last found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PeerRecord {
    /// Its addresses; the first [`limits::MAX_ANNOUNCEMENT_ADDRS`] are kept.
    #[serde(with = "addrs")]
    pub addrs: Vec<Multiaddr>,
    /// When it was last heard of, in Unix milliseconds.
    pub last_seen_ms: u64,
}

impl Store {
    /// Remembers a peer, or what changed of it. Of more than [`limits::MAX_PERSISTED_PEERS`], the one not heard of
    /// for longest is forgotten. Not synced: losing the newest addresses costs a lookup.
    pub fn record_peer(&self, peer: &PeerId, record: &PeerRecord) -> Result<(), Error> {
        self.transaction_unsynced(|batch| {
            let mut record = record.clone();
            record.addrs.retain(|addr| addr.len() <= limits::MAX_ADDR_BYTES);
            record.addrs.truncate(limits::MAX_ANNOUNCEMENT_ADDRS);
            if batch.put_row(Table::Peers, &peer.to_bytes(), cbor::to_vec(&record)?)? {
                batch.counters.peers += 1;
            }
            if batch.counters.peers > limits::MAX_PERSISTED_PEERS as u64
                && let Some((oldest, _)) = self.peers()?.pop()
            {
                batch.forget_peer(&oldest)?;
            }
            Ok(())
        })
    }

    /// Forgets a peer; whether it was known. Not synced.
    pub fn forget_peer(&self, peer: &PeerId) -> Result<bool, Error> {
        self.transaction_unsynced(|batch| batch.forget_peer(peer))
    }

    /// The peers that are remembered, the one heard of last first.
    pub fn peers(&self) -> Result<Vec<(PeerId, PeerRecord)>, Error> {
        let read = |row: Result<(fjall::Slice, fjall::Slice), StoreError>| {
            let (key, value) = row?;
            let peer = PeerId::from_bytes(&key).map_err(|error| bad_row("peers", error))?;
            Ok::<_, Error>((peer, cbor::from_slice(&value).map_err(|error| bad_row("peers", error))?))
        };
        let mut peers: Vec<(PeerId, PeerRecord)> =
            self.engine.keyspaces.rows(Table::Peers, &[]).map(read).collect::<Result<_, _>>()?;
        peers.sort_by_key(|(peer, record)| (std::cmp::Reverse(record.last_seen_ms), *peer));
        Ok(peers)
    }
}

impl Batch<'_> {
    fn forget_peer(&mut self, peer: &PeerId) -> Result<bool, Error> {
        let held = self.delete_row(Table::Peers, &peer.to_bytes())?;
        if held {
            self.counters.peers = self.counters.peers.saturating_sub(1);
        }
        Ok(held)
    }
}

// ---- Values of other services ----------------------------------------------------------------------------------

impl Store {
    /// A small value that another service keeps. Keys are paths, the service's name first: `announce/seen`.
    pub fn kv_get(&self, key: &str) -> Result<Option<Bytes>, Error> {
        Ok(self.read_row(Table::Kv, key.as_bytes())?.map(Bytes::from))
    }

    /// Keeps a small value, durable.
    pub fn kv_put(&self, key: &str, value: &[u8]) -> Result<(), Error> {
        self.transaction(|batch| batch.kv_put(key, value))
    }

    /// Forgets a value, durable; whether it was there.
    pub fn kv_remove(&self, key: &str) -> Result<bool, Error> {
        self.transaction(|batch| batch.kv_remove(key))
    }

    /// The values whose keys start with `prefix`, by key.
    pub fn kv_list(&self, prefix: &str) -> Result<Vec<(String, Bytes)>, Error> {
        let read = |row: Result<(fjall::Slice, fjall::Slice), StoreError>| {
            let (key, value) = row?;
            let key = std::str::from_utf8(&key).map_err(|error| bad_row("kv", error))?;
            Ok((key.to_owned(), Bytes::copy_from_slice(&value)))
        };
        self.engine.keyspaces.rows(Table::Kv, prefix.as_bytes()).map(read).collect()
    }
}

impl Batch<'_> {
    /// A value as this batch leaves it.
    pub fn kv_get(&self, key: &str) -> Result<Option<Bytes>, Error> {
        Ok(self.row(Table::Kv, key.as_bytes())?.map(Bytes::from))
    }

    /// Keeps a small value. A key is 1 to 65,535 bytes.
    pub fn kv_put(&mut self, key: &str, value: &[u8]) -> Result<(), Error> {
        if key.is_empty() || key.len() > usize::from(u16::MAX) {
            return Err(Error::Full { what: "bytes of a key", max: usize::from(u16::MAX) });
        }
        self.put_row(Table::Kv, key.as_bytes(), value.to_vec())?;
        Ok(())
    }

    /// Forgets a value; whether it was there.
    pub fn kv_remove(&mut self, key: &str) -> Result<bool, Error> {
        Ok(self.delete_row(Table::Kv, key.as_bytes())?)
    }
}
