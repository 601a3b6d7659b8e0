//! Saved frontiers: the links still to walk of a sync, so that it goes on where it stood.
//!
//! A frontier can have a million links, so it is written in chunks under a new generation before one header row makes
//! it the saved one: saving replaces it atomically and never takes a batch of its whole size. Chunks that no header
//! names are left over from a kill and removed at the next start.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use cid::Cid;
use dagmesh_core::{cbor, limits};
use dagmesh_dag::{FeedName, StoreError};
use libp2p::PeerId;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::{
    Batch, Error, Store,
    engine::Table,
    error::{bad_row, from_engine},
    follows,
};

/// Links in one row.
const CHUNK_LINKS: usize = 1024;
/// Rows written in one batch.
const BATCH_CHUNKS: usize = 32;

/// Whose frontier it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum FrontierKey {
    /// That of a followed feed.
    Follow(PeerId, FeedName),
    /// That of a sync that belongs to no follow, by a name of the caller's.
    Sync(String),
}

/// One link still to walk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrontierLink {
    /// The root it was reached from, by its position in the request.
    pub root: u32,
    /// Where it leads.
    pub cid: Cid,
    /// The selector to go on with from there, as DAG-CBOR.
    pub selector: Bytes,
    /// A DAG held in whole that it is to be compared with.
    pub held: Option<Cid>,
}

/// The frontier of a sync, as saved.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SavedFrontier {
    /// What the sync set out from. Whatever is held below these is kept from the collection of garbage.
    pub roots: Vec<Cid>,
    /// The links still to walk, next first; at most [`limits::MAX_FRONTIER_LINKS`].
    pub links: Vec<FrontierLink>,
    /// Whatever the caller wants back with it.
    pub state: Bytes,
}

/// Links that are written but not yet saved; see [`Store::stage_frontier`].
#[derive(Debug)]
#[must_use = "links count only once they are saved"]
pub struct StagedFrontier {
    generation: u64,
    chunks: u32,
    links: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Header {
    generation: u64,
    chunks: u32,
    links: u64,
    roots: Vec<Cid>,
    state: ByteBuf,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Chunk {
    /// The different selectors of this chunk: there are few.
    selectors: Vec<ByteBuf>,
    /// Root, position of the selector, CID, held.
    links: Vec<(u32, u32, Cid, Option<Cid>)>,
}

impl Store {
    /// Saves a frontier in place of the one saved before; atomic and durable.
    pub fn save_frontier(&self, key: &FrontierKey, frontier: &SavedFrontier) -> Result<(), Error> {
        let staged = self.stage_frontier(&frontier.links)?;
        self.transaction(|batch| batch.save_frontier(key, staged, &frontier.roots, &frontier.state))
    }

    /// Writes the links of a frontier, of any number up to [`limits::MAX_FRONTIER_LINKS`], without saving them yet:
    /// [`Batch::save_frontier`] does, together with what else belongs into the same transaction.
    pub fn stage_frontier(&self, links: &[FrontierLink]) -> Result<StagedFrontier, Error> {
        if links.len() > limits::MAX_FRONTIER_LINKS {
            return Err(Error::Full { what: "links of a frontier", max: limits::MAX_FRONTIER_LINKS });
        }
        let generation = self.transaction_unsynced(|batch| {
            batch.counters.next_frontier += 1;
            Ok::<_, Error>(batch.counters.next_frontier)
        })?;
        let rows = &self.engine.keyspaces.frontier_links;
        let mut chunks = 0;
        for group in links.chunks(CHUNK_LINKS * BATCH_CHUNKS) {
            self.transaction_unsynced(|batch| {
                for links in group.chunks(CHUNK_LINKS) {
                    batch.insert(rows, &chunk_key(generation, chunks), &encode_chunk(links)?);
                    chunks += 1;
                }
                Ok::<_, Error>(())
            })?;
        }
        Ok(StagedFrontier { generation, chunks, links: links.len() as u64 })
    }

    /// The frontier saved under `key`.
    pub fn load_frontier(&self, key: &FrontierKey) -> Result<Option<SavedFrontier>, Error> {
        self.load(&encode_key(key))
    }

    fn load(&self, key: &[u8]) -> Result<Option<SavedFrontier>, Error> {
        loop {
            let Some(row) = self.read_row(Table::Frontiers, key)? else { return Ok(None) };
            let header = decode_header(&row)?;
            if let Some(links) = self.read_links(&header)? {
                let state = header.state.into_vec().into();
                return Ok(Some(SavedFrontier { roots: header.roots, links, state }));
            }
            // Either it was replaced between the header and the links, or links are lost.
            if self.read_row(Table::Frontiers, key)? == Some(row) {
                return Err(bad_row("frontiers", "links that were saved are not there").into());
            }
        }
    }

    /// Forgets a frontier, durable; whether there was one.
    pub fn remove_frontier(&self, key: &FrontierKey) -> Result<bool, Error> {
        self.transaction(|batch| batch.remove_frontier(key))
    }

    /// Calls `found` for every CID that a saved frontier names.
    pub(super) fn each_frontier_cid(&self, mut found: impl FnMut(Cid)) -> Result<(), Error> {
        let keys = self.engine.keyspaces.rows(Table::Frontiers, &[]).map(|row| Ok(row?.0.to_vec()));
        for key in keys.collect::<Result<Vec<_>, StoreError>>()? {
            let Some(frontier) = self.load(&key)? else { continue };
            frontier.roots.into_iter().for_each(&mut found);
            for link in frontier.links {
                found(link.cid);
                link.held.into_iter().for_each(&mut found);
            }
        }
        Ok(())
    }

    /// Removes chunks that no header names.
    pub(super) fn drop_stale_frontiers(&self) -> Result<(), Error> {
        let named: HashSet<u64> = self
            .engine
            .keyspaces
            .rows(Table::Frontiers, &[])
            .map(|row| Ok::<_, Error>(decode_header(&row?.1)?.generation))
            .collect::<Result<_, _>>()?;
        let rows = &self.engine.keyspaces.frontier_links;
        let mut from = 0;
        while let Some(row) = rows.range(chunk_key(from, 0)..).next() {
            let key = row.key().map_err(from_engine)?;
            let generation = generation_of(&key).ok_or_else(|| bad_row("frontier_links", "its key"))?;
            if !named.contains(&generation) {
                self.transaction_unsynced(|batch| {
                    for row in rows.prefix(generation.to_be_bytes()) {
                        batch.remove(rows, &row.key().map_err(from_engine)?);
                    }
                    Ok::<_, StoreError>(())
                })?;
            }
            match generation.checked_add(1) {
                Some(next) => from = next,
                None => break,
            }
        }
        Ok(())
    }

    /// The links of a frontier; `None` where some are not there.
    fn read_links(&self, header: &Header) -> Result<Option<Vec<FrontierLink>>, Error> {
        let mut links = Vec::new();
        for chunk in 0..header.chunks {
            let key = chunk_key(header.generation, chunk);
            let Some(row) = self.engine.keyspaces.frontier_links.get(key).map_err(from_engine)? else {
                return Ok(None);
            };
            links.append(&mut decode_chunk(&row)?);
        }
        Ok((links.len() as u64 == header.links).then_some(links))
    }
}

impl Batch<'_> {
    /// Makes staged links the frontier saved under `key`, in place of the one before.
    pub fn save_frontier(
        &mut self,
        key: &FrontierKey,
        staged: StagedFrontier,
        roots: &[Cid],
        state: &[u8],
    ) -> Result<(), Error> {
        self.remove_frontier(key)?;
        let StagedFrontier { generation, chunks, links } = staged;
        let header = Header { generation, chunks, links, roots: roots.to_vec(), state: ByteBuf::from(state) };
        self.put_row(Table::Frontiers, &encode_key(key), cbor::to_vec(&header)?)?;
        self.roots(|| roots.to_vec());
        Ok(())
    }

    /// Forgets a frontier; whether there was one.
    pub fn remove_frontier(&mut self, key: &FrontierKey) -> Result<bool, Error> {
        let key = encode_key(key);
        let Some(row) = self.row(Table::Frontiers, &key)? else { return Ok(false) };
        let header = decode_header(&row)?;
        let rows = &self.store.engine.keyspaces.frontier_links;
        for chunk in 0..header.chunks {
            self.remove(rows, &chunk_key(header.generation, chunk));
        }
        self.delete_row(Table::Frontiers, &key)?;
        Ok(true)
    }
}

fn encode_key(key: &FrontierKey) -> Vec<u8> {
    match key {
        FrontierKey::Follow(publisher, feed) => [&[1], follows::key(publisher, feed).as_slice()].concat(),
        FrontierKey::Sync(name) => [&[2], name.as_bytes()].concat(),
    }
}

fn chunk_key(generation: u64, chunk: u32) -> [u8; 12] {
    let mut key = [0; 12];
    let (first, second) = key.split_at_mut(8);
    first.copy_from_slice(&generation.to_be_bytes());
    second.copy_from_slice(&chunk.to_be_bytes());
    key
}

fn generation_of(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(*key.first_chunk()?))
}

fn decode_header(row: &[u8]) -> Result<Header, Error> {
    cbor::from_slice(row).map_err(|error| bad_row("frontiers", error).into())
}

fn encode_chunk(links: &[FrontierLink]) -> Result<Vec<u8>, Error> {
    let mut chunk = Chunk::default();
    let mut known: HashMap<&[u8], u32> = HashMap::new();
    for link in links {
        let selector = *known.entry(&link.selector).or_insert_with(|| {
            chunk.selectors.push(ByteBuf::from(link.selector.as_ref()));
            chunk.selectors.len() as u32 - 1
        });
        chunk.links.push((link.root, selector, link.cid, link.held));
    }
    Ok(cbor::to_vec(&chunk)?)
}

fn decode_chunk(row: &[u8]) -> Result<Vec<FrontierLink>, Error> {
    let chunk: Chunk = cbor::from_slice(row).map_err(|error| bad_row("frontiers", error))?;
    let selectors: Vec<Bytes> = chunk.selectors.into_iter().map(|selector| selector.into_vec().into()).collect();
    let link = |(root, selector, cid, held): (u32, u32, Cid, Option<Cid>)| {
        let selector = selectors.get(selector as usize).ok_or_else(|| bad_row("frontiers", "a selector is missing"))?;
        Ok(FrontierLink { root, cid, selector: selector.clone(), held })
    };
    chunk.links.into_iter().map(link).collect()
}
