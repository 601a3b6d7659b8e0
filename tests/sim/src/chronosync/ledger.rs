//! What the applications of all members were told, held against what they may be.

use std::collections::{BTreeMap, BTreeSet};

use super::{Number, Numbers};

/// What outlives a crash, since it is in somebody's head: which numbers were used, and what was told to whom. It looks
/// at the run from outside; nothing that a member does depends on it.
#[derive(Debug, Default)]
pub struct Ledger {
    used: Numbers,
    refused: BTreeSet<Number>,
    told: BTreeMap<u32, Told>,
    broken: Option<String>,
}

#[derive(Debug, Default)]
struct Told {
    wipes: u32,
    numbers: Numbers,
}

impl Ledger {
    /// A member starts and finds these numbers on its disk, which was emptied so often. They are what its application
    /// knows from now on.
    ///
    /// Broken where the disk has lost what the application was told.
    pub fn boot(&mut self, node: u32, wipes: u32, found: &Numbers) {
        for ((producer, session), sequence) in found.iter().filter(|((producer, _), _)| *producer == node) {
            let used = self.used.entry((*producer, *session)).or_default();
            *used = (*used).max(*sequence);
        }
        let told = self.told.entry(node).or_default();
        if std::mem::replace(&mut told.wipes, wipes) != wipes {
            told.numbers.clear();
        }
        let lost = told.numbers.iter().find(|(key, number)| found.get(*key).copied().unwrap_or_default() < **number);
        let lost = lost.map(|(key, number)| format!("n{node} was told {number} of {key:?} and its disk does not know"));
        told.numbers.clone_from(found);
        lost.into_iter().for_each(|why| self.fail(why));
    }

    /// A member publishes a number of its own. Broken where it was used before.
    pub fn publish(&mut self, number: Number) {
        let Number { producer, session, sequence } = number;
        let used = self.used.entry((producer, session)).or_default();
        if sequence <= *used {
            let why = format!("{number:?} is published, and {used} was before");
            return self.fail(why);
        }
        *used = sequence;
        self.refused.remove(&number);
        self.told.entry(producer).or_default().numbers.insert((producer, session), sequence);
    }

    /// A member's disk did not take this number: it is spent, and no publication.
    pub fn refuse(&mut self, number: Number) {
        self.refused.insert(number);
    }

    /// A member's application is told this number; whether it stands for a publication. Broken where it is not the one
    /// after the last of its session.
    pub fn tell(&mut self, node: u32, number: Number) -> bool {
        let Number { producer, session, sequence } = number;
        let told = self.told.entry(node).or_default().numbers.entry((producer, session)).or_default();
        let last = std::mem::replace(told, sequence);
        if sequence != last + 1 {
            self.fail(format!("n{node} is told {number:?} after {last}"));
        }
        !self.refused.contains(&number)
    }

    /// How often a node's disk was emptied, as of its last start.
    pub fn wipes(&self, node: u32) -> u32 {
        self.told.get(&node).map_or(0, |told| told.wipes)
    }

    /// Whether this number was spent without a publication.
    pub fn is_refused(&self, number: &Number) -> bool {
        self.refused.contains(number)
    }

    /// Something that must not happen did.
    pub fn fail(&mut self, why: String) {
        self.broken.get_or_insert(why);
    }

    /// The first thing that is broken.
    ///
    /// # Errors
    /// What it is.
    pub fn check(&self) -> Result<(), String> {
        self.broken.clone().map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(sequence: u64) -> Number {
        Number { producer: 1, session: 9, sequence }
    }

    fn ledger() -> Ledger {
        let mut ledger = Ledger::default();
        ledger.publish(number(1));
        assert!(ledger.tell(2, number(1)));
        assert_eq!(ledger.check(), Ok(()));
        ledger
    }

    #[test]
    fn what_must_not_happen_is_seen() {
        let tell = |ledger: &mut Ledger, node, sequence| {
            let _ = ledger.tell(node, number(sequence));
        };
        let breaks: [&dyn Fn(&mut Ledger); 5] = [
            &|ledger| ledger.publish(number(1)),
            &|ledger| tell(ledger, 2, 1),
            &|ledger| tell(ledger, 2, 3),
            &|ledger| tell(ledger, 3, 2),
            &|ledger| ledger.boot(2, 0, &Numbers::new()),
        ];
        for (n, action) in breaks.into_iter().enumerate() {
            let mut ledger = ledger();
            action(&mut ledger);
            assert!(ledger.check().is_err(), "case {n}");
        }
    }

    #[test]
    fn a_new_disk_is_told_again_and_a_refused_number_is_none() {
        let mut ledger = ledger();
        ledger.boot(2, 1, &Numbers::new());
        assert!(ledger.tell(2, number(1)));
        ledger.refuse(number(2));
        ledger.publish(number(3));
        assert!(!ledger.tell(2, number(2)) && ledger.tell(2, number(3)));
        assert_eq!(ledger.check(), Ok(()));
    }
}
