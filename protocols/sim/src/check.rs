//! What must hold, and the report where it does not.

use std::{
    fmt::{self, Display, Formatter},
    time::Duration,
};

use crate::{Host, Simulation};

/// An invariant is broken, or a limit of the simulator reached: what is needed to see it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which one.
    pub invariant: String,
    /// What it says.
    pub why: String,
    /// The seed of the run.
    pub seed: u64,
    /// When, from the beginning of the run.
    pub at: Duration,
    /// After how many events.
    pub step: u64,
    /// The last events, a line each, the newest last.
    pub last: Vec<String>,
}

impl Display for Violation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { invariant, why, seed, at, step, last } = self;
        write!(f, "seed {seed}: `{invariant}` does not hold at {:.6} s, step {step}: {why}", at.as_secs_f64())?;
        last.iter().try_for_each(|line| write!(f, "\n  {line}"))
    }
}

impl std::error::Error for Violation {}

type Rule<H> = Box<dyn FnMut(&Simulation<H>) -> Result<(), String>>;

/// The invariants of a run.
pub(crate) struct Checks<H: Host> {
    always: Vec<(String, u64, Rule<H>)>,
    finally: Vec<(String, Rule<H>)>,
}

impl<H: Host> Default for Checks<H> {
    fn default() -> Self {
        Self { always: Vec::new(), finally: Vec::new() }
    }
}

impl<H: Host> Simulation<H> {
    /// Checks this after every `every`-th event (1: after each), and at the end of the run.
    pub fn always(
        &mut self,
        name: impl Into<String>,
        every: u64,
        rule: impl FnMut(&Self) -> Result<(), String> + 'static,
    ) {
        self.checks.always.push((name.into(), every.max(1), Box::new(rule)));
    }

    /// Checks this at the end of the run, in [`finish`](Self::finish).
    pub fn finally(&mut self, name: impl Into<String>, rule: impl FnMut(&Self) -> Result<(), String> + 'static) {
        self.checks.finally.push((name.into(), Box::new(rule)));
    }

    /// Ends the run: checks every invariant once more.
    ///
    /// # Errors
    /// The first one that does not hold.
    pub fn finish(&mut self) -> Result<(), Violation> {
        self.check(|_| true)?;
        let mut checks = std::mem::take(&mut self.checks);
        let broken = checks.finally.iter_mut().find_map(|(name, rule)| Some((name.clone(), rule(self).err()?)));
        self.checks = checks;
        self.fail(broken)
    }

    /// Checks what is due after this step.
    pub(crate) fn check_step(&mut self) -> Result<(), Violation> {
        let step = self.steps;
        self.check(|every| step.is_multiple_of(every))
    }

    fn check(&mut self, due: impl Fn(u64) -> bool) -> Result<(), Violation> {
        if let Some(broken) = &self.broken {
            return Err(broken.clone());
        }
        // Taken out for a moment, since the rules look at the rest.
        let mut checks = std::mem::take(&mut self.checks);
        let broken = checks
            .always
            .iter_mut()
            .filter(|(_, every, _)| due(*every))
            .find_map(|(name, _, rule)| Some((name.clone(), rule(self).err()?)));
        self.checks = checks;
        self.fail(broken)
    }

    fn fail(&mut self, broken: Option<(String, String)>) -> Result<(), Violation> {
        if let Some((invariant, why)) = broken {
            self.break_off(&invariant, why);
        }
        self.broken.clone().map_or(Ok(()), Err)
    }

    /// Ends the run here: nothing that happens after it counts.
    pub(crate) fn break_off(&mut self, invariant: &str, why: String) {
        if self.broken.is_none() {
            let (seed, at, step) = (self.config.seed, self.elapsed(), self.steps);
            let last = self.trace.last();
            self.broken = Some(Violation { invariant: invariant.to_owned(), why, seed, at, step, last });
        }
    }
}
