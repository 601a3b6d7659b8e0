//! What a follower and a publisher go through with one another, by the names that other implementations of DAG sync have
//! for it.

mod announce;
mod latest;
mod sync;
mod watch;

use std::sync::{Arc, Condvar, Mutex};

use dagmesh::{dag::Block, dagsync::Flow};

use crate::support::SOON;

/// Holds up every sync of a node while it is closed.
#[derive(Clone, Default)]
pub(super) struct Gate(Arc<(Mutex<GateState>, Condvar)>);

#[derive(Default)]
struct GateState {
    closed: bool,
    waiting: usize,
}

impl Gate {
    pub(super) fn hook(&self) -> impl Fn(&Block, bool) -> Flow + Send + Sync + 'static {
        let gate = self.clone();
        move |_, _| {
            let (state, changed) = &*gate.0;
            let mut state = state.lock().expect("the gate");
            state.waiting += 1;
            while state.closed {
                // A test that fails must not leave a thread that waits for ever.
                let (after, timeout) = changed.wait_timeout(state, SOON).expect("the gate");
                state = after;
                if timeout.timed_out() {
                    return Flow::Fail("nobody opened the gate".to_owned());
                }
            }
            state.waiting -= 1;
            Flow::Continue
        }
    }

    pub(super) fn set_closed(&self, closed: bool) {
        self.0.0.lock().expect("the gate").closed = closed;
        self.0.1.notify_all();
    }

    pub(super) fn waiting(&self) -> usize {
        self.0.0.lock().expect("the gate").waiting
    }
}
