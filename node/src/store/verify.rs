//! Checking the store: every block against its hash, and every root for completeness.

use std::{cell::RefCell, ops::Bound};

use bytes::Bytes;
use cid::{Cid, multihash::Multihash};
use dagmesh_dag::{Blockstore, Codec, HashCode, StoreError};
use dagmesh_ipnisync::Advertisement;
use fjall::{Guard, Keyspace, Slice};

use super::{
    Error, FollowRecord, PinKind, Store,
    blocks::Found,
    closure::Closure,
    error::{from_engine, is_damage},
};

/// Blocks checked before the caller hears of it.
const STEP_BLOCKS: usize = 1024;
/// Most CIDs that a report lists; of more it gives the count.
const MAX_LISTED: usize = 1024;

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Blocks hashed again.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Blocks whose bytes did not match, and which are put aside.
    pub damaged: u64,
    /// The first 1,024 of them. The store knows no codec, so they are told as raw.
    pub damaged_cids: Vec<Cid>,
    /// Blocks under a hash that this version does not know; left as they are.
    pub unknown: u64,
    /// Blocks that something needs and that are not held.
    pub missing: u64,
    /// The first 1,024 of them.
    pub missing_cids: Vec<Cid>,
}

impl VerifyReport {
    /// Whether all is as it should be.
    pub fn is_sound(&self) -> bool {
        self.damaged == 0 && self.missing == 0
    }
}

/// How far a check is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifyProgress {
    /// Blocks hashed again so far.
    pub blocks: u64,
    /// Of about so many.
    pub of: u64,
    /// Their bytes so far.
    pub bytes: u64,
}

impl Store {
    /// Hashes every stored block again and puts aside those that do not match; then walks below every own head, every
    /// follow's `latest` and every pin that has no gaps, and lists what is missing there, and of the entries that the logs of
    /// groups name.
    ///
    /// `progress` is called every 1,024 blocks. The store can be used meanwhile; what is put while it runs may or may
    /// not be checked. Memory: 16 bytes a block and the overhead of a set, in the second part.
    pub fn verify(&self, mut progress: impl FnMut(VerifyProgress)) -> Result<VerifyReport, Error> {
        let mut report = VerifyReport::default();
        for lane in self.engine.keyspaces.blocks.all() {
            let mut after = Bound::Unbounded;
            while let Some(last) = self.verify_step(lane, &after, &mut report)? {
                after = Bound::Excluded(last);
                progress(VerifyProgress { blocks: report.blocks, of: self.writer.lock().blocks, bytes: report.bytes });
            }
        }
        self.engine.sync()?;
        self.find_missing(&mut report)?;
        Ok(report)
    }

    /// Checks the next blocks after a place, and returns the key of the last one.
    fn verify_step(
        &self,
        lane: &Keyspace,
        after: &Bound<Slice>,
        report: &mut VerifyReport,
    ) -> Result<Option<Slice>, Error> {
        let rows = lane.range::<Slice, _>((after.clone(), Bound::Unbounded));
        let mut last = None;
        for row in rows.take(STEP_BLOCKS) {
            let (key, value) = read(row)?;
            if let Ok(hash) = Multihash::<64>::from_bytes(&key) {
                report.blocks += 1;
                report.bytes += value.as_ref().map_or(0, |value| value.len() as u64);
                match value.map_or(Some(false), |value| matches(&hash, &value)) {
                    Some(true) => {}
                    Some(false) => self.verify_damaged(&hash, report)?,
                    None => report.unknown += 1,
                }
            }
            last = Some(key);
        }
        Ok(last)
    }

    fn verify_damaged(&self, hash: &Multihash<64>, report: &mut VerifyReport) -> Result<(), Error> {
        let cid = Cid::new_v1(Codec::Raw as u64, *hash);
        let still = self.transaction_unsynced(|batch| {
            // Somebody may have put it anew since it was read.
            let still = match self.read_block(hash)? {
                Found::Bytes(bytes) => matches(hash, &bytes) == Some(false),
                Found::Damaged => true,
                Found::Nothing => false,
            };
            if still {
                batch.quarantine_block(hash)?;
            }
            Ok::<_, StoreError>(still)
        })?;
        if still {
            tracing::warn!(%cid, "a stored block is damaged and counts as not held");
            report.damaged += 1;
            list(&mut report.damaged_cids, cid);
        }
        Ok(())
    }

    fn find_missing(&self, report: &mut VerifyReport) -> Result<(), Error> {
        let mut found = |cid: Cid| {
            report.missing += 1;
            list(&mut report.missing_cids, cid);
        };
        let mut closure = Closure::new(self, Some(&mut found));
        for head in self.own_heads()? {
            closure.chain(*head.head(), None, false)?;
        }
        for (_, chain) in self.own_chains()? {
            closure.chain(chain.head, None, false)?;
        }
        for (_, _, record) in self.follows()? {
            if let Some(latest) = record.latest {
                let open = record.cut || record.policy.cuts();
                // Contents are kept of the newest entries that are known; `latest` may be on its way past older ones.
                let keep = match record.policy.keep {
                    Some(keep) => Some(keep.saturating_sub(self.entries_ahead(&record, latest, keep)?)),
                    None => None,
                };
                closure.chain(latest, keep, open)?;
            }
        }
        // Contents that wait and entries that cannot be had are no damage.
        self.each_logged_entry(|entry| closure.block(&entry))?;
        for (cid, pin) in self.pins()? {
            match pin.kind {
                PinKind::Recursive => closure.tree(cid)?,
                PinKind::Direct => closure.block(&cid)?,
                PinKind::Held => {}
            }
        }
        Ok(())
    }
}

impl Store {
    /// How many entries `latest` is behind the newest one that is known. Where these have no numbers no more than `most`
    /// are counted, and it is `most` as well where the newest one does not lead back to `latest`, as far as it is held.
    fn entries_ahead(&self, record: &FollowRecord, latest: Cid, most: u64) -> Result<u64, Error> {
        if let Some(head) = record.head() {
            return Ok(head.seq().saturating_sub(record.latest_seq));
        }
        let mut next = Some(record.newest_entry.unwrap_or(latest));
        for ahead in 0..most {
            let Some(cid) = next else { break };
            if cid == latest {
                return Ok(ahead);
            }
            let ad = self.block(&cid)?.and_then(|block| Advertisement::from_block(&block).ok());
            next = ad.and_then(|ad| ad.previous_id);
        }
        Ok(most)
    }
}

/// A row's key, and its value where the engine can read it.
fn read(row: Guard) -> Result<(Slice, Option<Bytes>), StoreError> {
    let seen = RefCell::new(None);
    let read = row.into_inner_if(|key| {
        *seen.borrow_mut() = Some(key.clone());
        true
    });
    match (read, seen.into_inner()) {
        (Ok((key, value)), _) => Ok((key, value.map(Bytes::from_owner))),
        (Err(error), Some(key)) if is_damage(&error) => Ok((key, None)),
        (Err(error), _) => Err(from_engine(error)),
    }
}

/// Whether `value` hashes to `hash`; `None` where the hash is not known. A digest may be cut to 16 bytes.
fn matches(hash: &Multihash<64>, value: &[u8]) -> Option<bool> {
    let digest = HashCode::try_from(hash.code()).ok()?.digest(value)?;
    Some(hash.digest().len() >= 16 && digest.digest().starts_with(hash.digest()))
}

fn list(listed: &mut Vec<Cid>, cid: Cid) {
    if listed.len() < MAX_LISTED {
        listed.push(cid);
    }
}
