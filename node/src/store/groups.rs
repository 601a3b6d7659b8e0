//! Groups: what this node is a member of, the newest heads of each, how far it has told of them, and the log of what it
//! told.
//!
//! Rows of one keyspace, the kind first, then the group's id: `g` the membership; `h` and a leaf's place the head;
//! `p` and a leaf's place how far its entries are told; `l` and an index a row of the log; `c`, a leaf and such an index
//! a content that is not whole yet, `b` one that never will be; `x` and a number a gap.

use std::collections::BTreeSet;

use bytes::Bytes;
use cid::Cid;
use dagmesh_chronosync::LeafKey;
use dagmesh_core::{cbor, limits};
use dagmesh_dag::StoreError;
use libp2p::{Multiaddr, PeerId};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::{
    Batch, Error, Store,
    engine::Table,
    error::{bad_row, from_engine},
    follows::addrs,
};

/// The id of a group.
pub type GroupKey = [u8; 32];
/// Where a leaf stands: the hash of its producer's name, and its session.
pub type GroupLeaf = ([u8; 32], u64);

/// Rows removed in one step when a group is left.
const STEP_ROWS: usize = 1024;

/// A membership. Fields may be added; an older row has their default.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct GroupRecord {
    /// What the group is called here.
    pub name: String,
    /// Whose list says who may write, as the bytes of a peer id; `None` where the group is open to all.
    pub owner: Option<ByteBuf>,
    /// The newest list, as its owner signed it.
    pub members: Option<ByteBuf>,
    /// The session that this node publishes under.
    pub session: Option<u64>,
    /// Since when it is a member, in Unix milliseconds.
    pub joined_ms: u64,
    /// Members to dial first, the newest last.
    pub peers: Vec<GroupPeer>,
    /// It has been left, and its rows are being removed.
    pub left: bool,
}

/// A member, and where it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupPeer {
    /// Its peer id, in bytes.
    pub peer: ByteBuf,
    /// Its addresses.
    #[serde(with = "addrs")]
    pub addrs: Vec<Multiaddr>,
}

impl GroupPeer {
    /// A member at these addresses.
    pub fn new(peer: &PeerId, addrs: Vec<Multiaddr>) -> Self {
        Self { peer: ByteBuf::from(peer.to_bytes()), addrs }
    }

    /// Who it is; `None` where the row is of no use.
    pub fn id(&self) -> Option<PeerId> {
        PeerId::from_bytes(&self.peer).ok()
    }
}

/// How far the entries of one session of one producer are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct GroupProgress {
    /// The last number told.
    pub told: u64,
    /// Its entry.
    pub entry: Option<Cid>,
    /// The last content that is whole: the next one is compared with it.
    pub base: Option<Cid>,
}

/// A row of a group's log: one publication.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupLogRow {
    /// Whose, as the bytes of a peer id.
    pub producer: ByteBuf,
    /// In which session.
    pub session: u64,
    /// Its number.
    pub sequence: u64,
    /// Its entry.
    pub entry: Cid,
    /// Whether it was learnt by catching up.
    pub recovery: bool,
    /// When it was told, in Unix milliseconds.
    pub received_ms: u64,
}

/// A content that is to become whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupContent {
    /// Whose publication, as the bytes of a peer id.
    pub producer: ByteBuf,
    /// Its root.
    pub content: Cid,
}

/// How a content of a group stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupContentState {
    /// It is to become whole.
    Waits,
    /// It is whole.
    Whole,
    /// It never will be, for this reason.
    Broken(String),
    /// Its row of the log has given way.
    Gone,
}

/// Publications that cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupGap {
    /// Whose, as the bytes of a peer id.
    pub producer: ByteBuf,
    /// In which session.
    pub session: u64,
    /// The first number.
    pub first: u64,
    /// The last number.
    pub last: u64,
    /// Why.
    pub reason: String,
    /// The index that the log was at.
    pub at: u64,
}

/// A head, and the entry that it names: what keeps that entry.
#[derive(Debug, Serialize, Deserialize)]
struct HeadRow {
    head: ByteBuf,
    content: Option<Cid>,
}

/// What a membership keeps from a collection of garbage.
#[derive(Debug, Clone, Copy)]
pub(super) enum GroupRoot {
    /// One entry and its content, whatever lies below it in its chain: that has a row of the log, or has given way.
    Entry(Cid),
    /// A content.
    Content(Cid),
    /// The entries of a session from its newest one back to the last one that was told, as far as they are held.
    Ahead { newest: Cid, told: Option<Cid> },
}

impl Store {
    /// What this node is a member of, or was until its rows are removed.
    pub fn groups(&self) -> Result<Vec<(GroupKey, GroupRecord)>, Error> {
        let read = |row: Result<(fjall::Slice, fjall::Slice), StoreError>| {
            let (key, value) = row?;
            let group = key.get(1..).and_then(|key| GroupKey::try_from(key).ok());
            let group = group.ok_or_else(|| bad_row("groups", "its key"))?;
            Ok((group, decode(&value)?))
        };
        self.engine.keyspaces.rows(Table::Groups, b"g").map(read).collect()
    }

    /// The membership in a group; `None` where there is none.
    pub fn group(&self, group: &GroupKey) -> Result<Option<GroupRecord>, Error> {
        self.read_row(Table::Groups, &key(b'g', group, &[]))?.map(|row| decode(&row)).transpose()
    }

    /// Becomes a member, or changes a membership; durable. See [`Batch::set_group`].
    pub fn set_group(&self, group: &GroupKey, record: &GroupRecord) -> Result<(), Error> {
        self.transaction(|batch| batch.set_group(group, record))
    }

    /// The newest heads of a group, as they were signed.
    pub fn group_heads(&self, group: &GroupKey) -> Result<Vec<(GroupLeaf, Bytes)>, Error> {
        let read = |row: Result<(fjall::Slice, fjall::Slice), StoreError>| {
            let (key, value) = row?;
            let row: HeadRow = decode(&value)?;
            Ok((leaf_of(&key)?, row.head.into_vec().into()))
        };
        self.engine.keyspaces.rows(Table::Groups, &key(b'h', group, &[])).map(read).collect()
    }

    /// The sessions of which there is a head, or something told: of all producers, or of the one of this name.
    pub fn group_leaves(&self, group: &GroupKey, name: Option<&[u8; 32]>) -> Result<BTreeSet<GroupLeaf>, Error> {
        let rest = name.map_or(&[][..], |name| name);
        let rows = |kind| self.engine.keyspaces.rows(Table::Groups, &key(kind, group, rest));
        rows(b'h').chain(rows(b'p')).map(|row| Ok(leaf_of(&row?.0)?)).collect()
    }

    /// How far the entries of one session are told.
    pub fn group_progress_of(&self, group: &GroupKey, leaf: &GroupLeaf) -> Result<Option<GroupProgress>, Error> {
        self.read_row(Table::Groups, &leaf_key(b'p', group, leaf))?.map(|row| decode(&row)).transpose()
    }

    /// How far the entries of each session are told.
    pub fn group_progress(&self, group: &GroupKey) -> Result<Vec<(GroupLeaf, GroupProgress)>, Error> {
        let read = |row: Result<(fjall::Slice, fjall::Slice), StoreError>| {
            let (key, value) = row?;
            Ok((leaf_of(&key)?, decode(&value)?))
        };
        self.engine.keyspaces.rows(Table::Groups, &key(b'p', group, &[])).map(read).collect()
    }

    /// Up to `limit` rows of a group's log, oldest first, from this index on.
    pub fn group_log(&self, group: &GroupKey, from: u64, limit: usize) -> Result<Vec<(u64, GroupLogRow)>, Error> {
        self.group_rows(b'l', group, from, limit)
    }

    /// The index that the next row of a group's log gets; the first one is 0.
    pub fn group_log_end(&self, group: &GroupKey) -> Result<u64, Error> {
        self.group_end(b'l', group)
    }

    /// The sessions that have contents which are to become whole.
    pub fn group_waiting(&self, group: &GroupKey) -> Result<Vec<GroupLeaf>, Error> {
        let (mut leaves, mut from) = (Vec::new(), key(b'c', group, &[]));
        let to = key(b'c', group, &[u8::MAX; 48]);
        while let Some(row) = self.engine.keyspaces.of(Table::Groups).range(from.clone()..=to.clone()).next() {
            let leaf = leaf_of(row.key().map_err(from_engine)?.get(..73).unwrap_or_default())?;
            // Past the last row of this one.
            from = [leaf_key(b'c', group, &leaf), vec![u8::MAX; 9]].concat();
            leaves.push(leaf);
        }
        Ok(leaves)
    }

    /// Up to `limit` contents of a session that are to become whole, oldest first, each with the index of its row.
    pub fn group_contents(
        &self,
        group: &GroupKey,
        leaf: &GroupLeaf,
        limit: usize,
    ) -> Result<Vec<(u64, GroupContent)>, Error> {
        let rows = self.engine.keyspaces.rows(Table::Groups, &leaf_key(b'c', group, leaf)).take(limit);
        let read = |row: Result<(fjall::Slice, fjall::Slice), StoreError>| {
            let (key, value) = row?;
            Ok((index_of(&key)?, decode(&value)?))
        };
        rows.map(read).collect()
    }

    /// How the content of this row of the log stands.
    pub fn group_content(&self, group: &GroupKey, leaf: &GroupLeaf, index: u64) -> Result<GroupContentState, Error> {
        if self.read_row(Table::Groups, &content_key(b'c', group, leaf, index))?.is_some() {
            return Ok(GroupContentState::Waits);
        }
        if let Some(reason) = self.read_row(Table::Groups, &content_key(b'b', group, leaf, index))? {
            return Ok(GroupContentState::Broken(decode(&reason)?));
        }
        let row = self.read_row(Table::Groups, &key(b'l', group, &index.to_be_bytes()))?;
        Ok(if row.is_some() { GroupContentState::Whole } else { GroupContentState::Gone })
    }

    /// Up to `limit` gaps, from this number on.
    pub fn group_gaps(&self, group: &GroupKey, from: u64, limit: usize) -> Result<Vec<(u64, GroupGap)>, Error> {
        self.group_rows(b'x', group, from, limit)
    }

    /// The number that the next gap gets; the first one is 0.
    pub fn group_gaps_end(&self, group: &GroupKey) -> Result<u64, Error> {
        self.group_end(b'x', group)
    }

    fn group_end(&self, kind: u8, group: &GroupKey) -> Result<u64, Error> {
        let last = self.engine.keyspaces.rows(Table::Groups, &key(kind, group, &[])).next_back();
        Ok(match last {
            Some(row) => index_of(&row?.0)?.saturating_add(1),
            None => 0,
        })
    }

    fn group_rows<T: serde::de::DeserializeOwned>(
        &self,
        kind: u8,
        group: &GroupKey,
        from: u64,
        limit: usize,
    ) -> Result<Vec<(u64, T)>, Error> {
        let (from, to) = (key(kind, group, &from.to_be_bytes()), key(kind, group, &u64::MAX.to_be_bytes()));
        let rows = self.engine.keyspaces.of(Table::Groups).range(from..=to).take(limit);
        let read = |row: fjall::Guard| {
            let (key, value) = row.into_inner().map_err(from_engine)?;
            Ok((index_of(&key)?, decode(&value)?))
        };
        rows.map(read).collect()
    }

    /// Leaves a group, durable: first the membership ends, then its rows go, a few at a time. Called again after a kill it
    /// goes on. The blocks go with the next collection of garbage.
    pub fn remove_group(&self, group: &GroupKey) -> Result<bool, Error> {
        let Some(record) = self.group(group)? else { return Ok(false) };
        if !record.left {
            self.set_group(group, &GroupRecord { left: true, ..record })?;
        }
        for kind in [b'h', b'p', b'l', b'c', b'b', b'x'] {
            loop {
                let rows = self.engine.keyspaces.rows(Table::Groups, &key(kind, group, &[])).take(STEP_ROWS);
                let keys: Vec<Vec<u8>> = rows.map(|row| Ok(row?.0.to_vec())).collect::<Result<_, StoreError>>()?;
                if keys.is_empty() {
                    break;
                }
                self.transaction_unsynced(|batch| {
                    keys.iter().try_for_each(|key| batch.delete_row(Table::Groups, key).map(drop))
                })?;
            }
        }
        self.transaction(|batch| Ok::<_, Error>(batch.delete_row(Table::Groups, &key(b'g', group, &[]))?))
    }

    /// Calls `found` for each thing that a membership keeps.
    pub(super) fn each_group_root(&self, mut found: impl FnMut(GroupRoot) -> Result<(), Error>) -> Result<(), Error> {
        for (group, _) in self.groups()?.into_iter().filter(|(_, record)| !record.left) {
            for (_, progress) in self.group_progress(&group)? {
                progress.entry.map(GroupRoot::Entry).into_iter().try_for_each(&mut found)?;
                progress.base.map(GroupRoot::Content).into_iter().try_for_each(&mut found)?;
            }
            for row in self.engine.keyspaces.rows(Table::Groups, &key(b'h', &group, &[])) {
                let (key, row) = row?;
                let Some(newest) = decode::<HeadRow>(&row)?.content else { continue };
                let told = self.group_progress_of(&group, &leaf_of(&key)?)?.and_then(|progress| progress.entry);
                found(GroupRoot::Ahead { newest, told })?;
            }
            self.each_group_entry(&group, |entry| found(GroupRoot::Entry(entry)))?;
        }
        Ok(())
    }

    /// Calls `found` for the entry of each row of each log.
    pub(super) fn each_logged_entry(&self, mut found: impl FnMut(Cid) -> Result<(), Error>) -> Result<(), Error> {
        for (group, _) in self.groups()?.into_iter().filter(|(_, record)| !record.left) {
            self.each_group_entry(&group, &mut found)?;
        }
        Ok(())
    }

    fn each_group_entry(&self, group: &GroupKey, mut found: impl FnMut(Cid) -> Result<(), Error>) -> Result<(), Error> {
        let mut from = 0;
        loop {
            let rows = self.group_log(group, from, STEP_ROWS)?;
            let Some((last, _)) = rows.last() else { return Ok(()) };
            from = last.saturating_add(1);
            rows.into_iter().map(|(_, row)| row.entry).try_for_each(&mut found)?;
        }
    }
}

impl Batch<'_> {
    /// The membership in a group, as this batch leaves it.
    pub fn group(&self, group: &GroupKey) -> Result<Option<GroupRecord>, Error> {
        self.row(Table::Groups, &key(b'g', group, &[]))?.map(|row| decode(&row)).transpose()
    }

    /// Becomes a member, or changes a membership. At most [`limits::MAX_GROUPS`]; one more is [`Error::Full`].
    pub fn set_group(&mut self, group: &GroupKey, record: &GroupRecord) -> Result<(), Error> {
        if self.put_row(Table::Groups, &key(b'g', group, &[]), cbor::to_vec(record)?)?
            && self.store.groups()?.len() >= limits::MAX_GROUPS
        {
            return Err(Error::Full { what: "groups", max: limits::MAX_GROUPS });
        }
        Ok(())
    }

    /// Keeps the head of a leaf, and the entry that it names.
    pub fn set_group_head(
        &mut self,
        group: &GroupKey,
        leaf: &GroupLeaf,
        head: &[u8],
        content: Option<Cid>,
    ) -> Result<(), Error> {
        let row = cbor::to_vec(&HeadRow { head: ByteBuf::from(head), content })?;
        self.put_row(Table::Groups, &leaf_key(b'h', group, leaf), row)?;
        self.roots(|| content);
        Ok(())
    }

    /// Forgets the head of a leaf.
    pub fn remove_group_head(&mut self, group: &GroupKey, leaf: &GroupLeaf) -> Result<(), Error> {
        self.delete_row(Table::Groups, &leaf_key(b'h', group, leaf))?;
        Ok(())
    }

    /// Forgets how far the entries of a leaf are told.
    pub fn remove_group_progress(&mut self, group: &GroupKey, leaf: &GroupLeaf) -> Result<(), Error> {
        self.delete_row(Table::Groups, &leaf_key(b'p', group, leaf))?;
        Ok(())
    }

    /// Keeps how far the entries of a leaf are told.
    pub fn set_group_progress(
        &mut self,
        group: &GroupKey,
        leaf: &GroupLeaf,
        progress: &GroupProgress,
    ) -> Result<(), Error> {
        self.put_row(Table::Groups, &leaf_key(b'p', group, leaf), cbor::to_vec(progress)?)?;
        self.roots(|| [progress.entry, progress.base].into_iter().flatten());
        Ok(())
    }

    /// Writes a row of the log, each index once and in order. The row [`limits::MAX_GROUP_LOG`] before it gives way, with
    /// what is remembered of its content.
    pub fn put_group_log(&mut self, group: &GroupKey, index: u64, row: &GroupLogRow) -> Result<(), Error> {
        self.put_row(Table::Groups, &key(b'l', group, &index.to_be_bytes()), cbor::to_vec(row)?)?;
        self.roots(|| [row.entry]);
        let Some(oldest) = index.checked_sub(limits::MAX_GROUP_LOG) else { return Ok(()) };
        let place = key(b'l', group, &oldest.to_be_bytes());
        let Some(row) = self.row(Table::Groups, &place)? else { return Ok(()) };
        self.delete_row(Table::Groups, &place)?;
        let GroupLogRow { producer, session, .. } = decode(&row)?;
        if let Ok(producer) = PeerId::from_bytes(&producer) {
            let LeafKey { name, session } = LeafKey::new(&producer, session);
            for kind in [b'c', b'b'] {
                self.delete_row(Table::Groups, &content_key(kind, group, &(name, session), oldest))?;
            }
        }
        Ok(())
    }

    /// Keeps that the content of this row of the log is to become whole.
    pub fn put_group_content(
        &mut self,
        group: &GroupKey,
        leaf: &GroupLeaf,
        index: u64,
        row: &GroupContent,
    ) -> Result<(), Error> {
        self.put_row(Table::Groups, &content_key(b'c', group, leaf, index), cbor::to_vec(row)?)?;
        Ok(())
    }

    /// The content of this row of the log is whole, or, with a reason, never will be.
    pub fn end_group_content(
        &mut self,
        group: &GroupKey,
        leaf: &GroupLeaf,
        index: u64,
        broken: Option<&str>,
    ) -> Result<(), Error> {
        let waited = self.delete_row(Table::Groups, &content_key(b'c', group, leaf, index))?;
        if let Some(reason) = broken.filter(|_| waited) {
            self.put_row(Table::Groups, &content_key(b'b', group, leaf, index), cbor::to_vec(reason)?)?;
        }
        Ok(())
    }

    /// Writes a gap, each number once and in order. The one [`limits::MAX_GROUP_GAPS`] before it gives way.
    pub fn put_group_gap(&mut self, group: &GroupKey, number: u64, gap: &GroupGap) -> Result<(), Error> {
        self.put_row(Table::Groups, &key(b'x', group, &number.to_be_bytes()), cbor::to_vec(gap)?)?;
        if let Some(oldest) = number.checked_sub(limits::MAX_GROUP_GAPS) {
            self.delete_row(Table::Groups, &key(b'x', group, &oldest.to_be_bytes()))?;
        }
        Ok(())
    }
}

fn key(kind: u8, group: &GroupKey, rest: &[u8]) -> Vec<u8> {
    [&[kind], group.as_slice(), rest].concat()
}

fn leaf_key(kind: u8, group: &GroupKey, (name, session): &GroupLeaf) -> Vec<u8> {
    key(kind, group, &[name.as_slice(), &session.to_be_bytes()].concat())
}

fn content_key(kind: u8, group: &GroupKey, leaf: &GroupLeaf, index: u64) -> Vec<u8> {
    [leaf_key(kind, group, leaf).as_slice(), &index.to_be_bytes()].concat()
}

fn leaf_of(key: &[u8]) -> Result<GroupLeaf, StoreError> {
    let leaf = key.get(33..).and_then(|rest| {
        let (name, session) = rest.split_first_chunk::<32>()?;
        Some((*name, u64::from_be_bytes(session.try_into().ok()?)))
    });
    leaf.ok_or_else(|| bad_row("groups", "its key"))
}

fn index_of(key: &[u8]) -> Result<u64, StoreError> {
    let index = key.last_chunk::<8>().map(|index| u64::from_be_bytes(*index));
    index.ok_or_else(|| bad_row("groups", "its key"))
}

fn decode<T: serde::de::DeserializeOwned>(row: &[u8]) -> Result<T, Error> {
    cbor::from_slice(row).map_err(|error| bad_row("groups", error).into())
}
