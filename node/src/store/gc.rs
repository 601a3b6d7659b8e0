//! Collecting garbage: what no root reaches goes.

use std::{ops::Bound, time::Duration};

use cid::{Cid, multihash::Multihash};
use dagmesh_dag::StoreError;
use fjall::{Keyspace, Slice};

use super::{
    Error, PinKind, Store,
    closure::Closure,
    error::from_engine,
    gate::{BlockId, Gate, block_id},
    groups::GroupRoot,
    lanes::size_of,
};

/// Keys looked at, and removed, in one step.
const STEP_KEYS: usize = 1024;
/// How long a collection waits for work that began before it.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a collection did, or would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[non_exhaustive]
pub struct GcReport {
    /// Blocks removed.
    pub removed: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Blocks that stay.
    pub kept: u64,
}

impl Store {
    /// Removes the blocks that nothing needs any more; with `dry_run` it only counts them.
    ///
    /// What stays: own feeds, entries and content; of followed feeds what is held below `latest` and below the newest
    /// head, as far as the policy keeps it; what is held below the roots of saved frontiers, and what they compare
    /// with; what is held below the heads and the logs of groups; pins; what is held below `roots`; and whatever is put, found held, or becomes a root while it runs, so
    /// that it may run at any time. It first waits for each [`Protection`](super::Protection) that is older than it.
    ///
    /// Afterwards the files are rewritten without what was removed (a flush and a major compaction of the blocks,
    /// which drops dead blob files and rewrites those of which a quarter is dead); the journal that still holds the
    /// oldest writes goes with one of the next flushes.
    ///
    /// Fails with [`Error::Busy`] while another collection runs, or where such work does not end within a minute.
    /// Stopped halfway it has removed only garbage.
    pub fn gc(&self, roots: &[Cid], dry_run: bool) -> Result<GcReport, Error> {
        self.gc_with(roots, dry_run, PATIENCE, || {})
    }

    /// `marked` is called between marking and sweeping.
    pub(super) fn gc_with(
        &self,
        roots: &[Cid],
        dry_run: bool,
        patience: Duration,
        marked: impl FnOnce(),
    ) -> Result<GcReport, Error> {
        let Some(_running) = self.collecting.try_lock() else {
            return Err(Error::Busy("another collection of garbage is running"));
        };
        let _recording = Recording::start(&self.gate);
        // Who wrote before the record began has finished once the lock can be had.
        drop(self.writer.lock());
        if !self.gate.wait_for_earlier(patience) {
            return Err(Error::Busy("a sync or import that began earlier has not reached its next checkpoint"));
        }
        let mut closure = Closure::new(self, None);
        self.mark(roots, &mut closure)?;
        marked();
        let report = self.sweep(dry_run, &mut closure)?;
        if !dry_run {
            self.forget_damage(&closure)?;
            self.engine.sync()?;
            if report.removed > 0 {
                self.engine.reclaim()?;
            }
        }
        Ok(report)
    }

    fn mark(&self, roots: &[Cid], closure: &mut Closure<'_>) -> Result<(), Error> {
        for root in roots {
            closure.tree(*root)?;
        }
        for head in self.own_heads()? {
            closure.chain(*head.head(), None, true)?;
        }
        for (_, chain) in self.own_chains()? {
            closure.chain(chain.head, None, true)?;
        }
        for (_, _, record) in self.follows()? {
            for head in [record.newest(), record.latest].into_iter().flatten() {
                closure.chain(head, record.policy.keep, true)?;
            }
        }
        self.each_group_root(|root| match root {
            GroupRoot::Entry(entry) => closure.group_entry(entry).map(drop),
            GroupRoot::Content(content) => closure.tree(content),
            GroupRoot::Ahead { newest, told } => closure.group_chain(newest, told),
        })?;
        for (cid, pin) in self.pins()? {
            match pin.kind {
                PinKind::Recursive | PinKind::Held => closure.tree(cid)?,
                PinKind::Direct => closure.block(&cid)?,
            }
        }
        let mut failed = Ok(());
        self.each_frontier_cid(|cid| {
            if failed.is_ok() {
                failed = closure.tree(cid);
            }
        })?;
        failed
    }

    fn sweep(&self, dry_run: bool, closure: &mut Closure<'_>) -> Result<GcReport, Error> {
        let mut report = GcReport::default();
        for lane in self.engine.keyspaces.blocks.all() {
            self.sweep_lane(lane, dry_run, closure, &mut report)?;
        }
        Ok(report)
    }

    fn sweep_lane(
        &self,
        lane: &Keyspace,
        dry_run: bool,
        closure: &mut Closure<'_>,
        report: &mut GcReport,
    ) -> Result<(), Error> {
        let mut after = Bound::Unbounded;
        loop {
            let keys = next_keys(lane, &after)?;
            let Some(last) = keys.last() else { return Ok(()) };
            after = Bound::Excluded(last.clone());
            let (dead, kept): (Vec<_>, Vec<_>) = keys
                .into_iter()
                .filter_map(|key| Some((block_id(&Multihash::from_bytes(&key).ok()?), key)))
                .partition(|(id, _)| !closure.has(*id));
            report.kept += kept.len() as u64;
            if !dead.is_empty() {
                self.sweep_step(lane, dead, dry_run, closure, report)?;
            }
        }
    }

    fn sweep_step(
        &self,
        lane: &Keyspace,
        mut dead: Vec<(BlockId, Slice)>,
        dry_run: bool,
        closure: &mut Closure<'_>,
        report: &mut GcReport,
    ) -> Result<(), Error> {
        loop {
            let writer = self.writer.lock();
            let Some(mut recorded) = self.gate.enter() else { return Ok(()) };
            let roots = std::mem::take(&mut recorded.roots);
            if !roots.is_empty() {
                // Something has become a root since: what is below it stays.
                drop((recorded, writer));
                for root in roots {
                    closure.tree(root)?;
                }
                let before = dead.len();
                dead.retain(|(id, _)| !closure.has(*id));
                report.kept += (before - dead.len()) as u64;
                continue;
            }
            // With both locks held nobody puts a block or finds it held until it is gone.
            return self.write_with(writer, |batch| {
                for (id, key) in &dead {
                    if recorded.touched.contains(id) {
                        report.kept += 1;
                        continue;
                    }
                    report.bytes += size_of(lane, key)?;
                    report.removed += 1;
                    if !dry_run {
                        batch.remove_block(key)?;
                    }
                }
                Ok(())
            });
        }
    }

    /// Forgets damaged blocks that nothing needs any more, so that nobody is asked for them.
    fn forget_damage(&self, closure: &Closure<'_>) -> Result<(), Error> {
        let quarantine = &self.engine.keyspaces.quarantine;
        let dead: Vec<_> = (self.damaged()?.into_iter()).filter(|cid| !closure.has(block_id(cid.hash()))).collect();
        self.transaction_unsynced(|batch| {
            dead.iter().for_each(|cid| batch.remove(quarantine, &cid.hash().to_bytes()));
            Ok(())
        })
    }
}

/// The next keys after a place. Each step looks anew, so that no snapshot is held for long.
fn next_keys(lane: &Keyspace, after: &Bound<Slice>) -> Result<Vec<Slice>, StoreError> {
    let rows = lane.range::<Slice, _>((after.clone(), Bound::Unbounded)).take(STEP_KEYS);
    rows.map(|row| row.key().map_err(from_engine)).collect()
}

/// The gate records while this lives.
struct Recording<'a>(&'a Gate);

impl<'a> Recording<'a> {
    fn start(gate: &'a Gate) -> Self {
        gate.start();
        Self(gate)
    }
}

impl Drop for Recording<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}
