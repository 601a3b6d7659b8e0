//! Runs a [`Machine`] on the real clock.

use std::{sync::Arc, time::Instant};

use dagmesh_core::Machine;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// A machine with a driver: inputs are taken at once from anywhere, effects are acted on by one task.
///
/// An input is a function call and cannot queue up; what it makes the machine want waits in the machine, whose own
/// rules bound it.
pub(crate) struct Driven<M> {
    machine: Arc<Mutex<M>>,
    wake: Arc<Notify>,
}

impl<M> Clone for Driven<M> {
    fn clone(&self) -> Self {
        Self { machine: Arc::clone(&self.machine), wake: Arc::clone(&self.wake) }
    }
}

impl<M: Machine> Driven<M> {
    pub(crate) fn new(machine: M) -> Self {
        Self { machine: Arc::new(Mutex::new(machine)), wake: Arc::new(Notify::new()) }
    }

    /// Tells the machine something.
    pub(crate) fn input(&self, input: M::Input) {
        self.machine.lock().handle(Instant::now(), input);
        self.wake.notify_one();
    }

    /// Looks at the machine.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&M) -> T) -> T {
        look(&self.machine.lock())
    }

    /// Acts on effects and keeps the machine's time, for ever. `act` must not block.
    pub(crate) async fn run(&self, mut act: impl FnMut(M::Effect)) {
        loop {
            while let Some(effect) = self.next_effect() {
                act(effect);
            }
            let timeout = self.machine.lock().poll_timeout();
            let due = async {
                match timeout {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.wake.notified() => {}
                () = due => self.machine.lock().handle_timeout(Instant::now()),
            }
        }
    }

    fn next_effect(&self) -> Option<M::Effect> {
        self.machine.lock().poll_effect()
    }
}
