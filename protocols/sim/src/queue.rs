//! What happens next: a heap of events in a stable order, and one timer a node.

use std::{
    cmp::Ordering,
    collections::{BTreeSet, BinaryHeap},
};

/// Nanoseconds since the beginning.
pub(crate) type At = u64;

/// What waits for its time. Events of one instant come in the order in which they were put in; timers after them, by
/// node.
pub(crate) struct Queue<T> {
    heap: BinaryHeap<Entry<T>>,
    timers: BTreeSet<(At, u32)>,
    count: u64,
}

pub(crate) enum Next<T> {
    Event(T),
    Timer(u32),
}

struct Entry<T> {
    at: At,
    number: u64,
    what: T,
}

impl<T> Queue<T> {
    pub(crate) fn new() -> Self {
        Self { heap: BinaryHeap::new(), timers: BTreeSet::new(), count: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.heap.len()
    }

    pub(crate) fn push(&mut self, at: At, what: T) {
        self.count += 1;
        self.heap.push(Entry { at, number: self.count, what });
    }

    /// Moves a node's only timer.
    pub(crate) fn set_timer(&mut self, node: u32, old: Option<At>, new: Option<At>) {
        if old != new {
            old.map(|at| self.timers.remove(&(at, node)));
            new.map(|at| self.timers.insert((at, node)));
        }
    }

    /// The next one that is due by `end`. A timer stays until it is moved.
    pub(crate) fn pop(&mut self, end: At) -> Option<(At, Next<T>)> {
        let event = self.heap.peek().map(|entry| entry.at);
        let timer = self.timers.first().copied();
        match (event, timer) {
            (Some(at), _) if at <= end && timer.is_none_or(|(timer, _)| at <= timer) => {
                self.heap.pop().map(|entry| (at, Next::Event(entry.what)))
            }
            (_, Some((at, node))) if at <= end => Some((at, Next::Timer(node))),
            _ => None,
        }
    }
}

impl<T> Ord for Entry<T> {
    /// The earliest is the greatest, as the heap wants it.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl<T> Eq for Entry<T> {}
