//! Connections that are kept open for the next request.
//!
//! `hyper-util` has a client with a pool. It knows an origin by its URL alone, which leaves no room for a name that is
//! for TLS only, and it opens a connection beside each wait for one, so that their number has no bound.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use bytes::Bytes;
use dagmesh_core::limits::MAX_IPNI_IDLE_CONNECTIONS;
use http_body_util::Full;
use hyper::client::conn::http1::SendRequest;
use tokio::time::Instant;

use crate::net::addr::Family;

/// Sends requests over one connection; the connection closes when it is dropped.
pub(super) type Sender = SendRequest<Full<Bytes>>;

/// Connections with the same origin are as good as one another.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Origin {
    pub(super) tls: bool,
    pub(super) host: String,
    pub(super) port: u16,
    /// The host to connect with, where that is another.
    pub(super) dial: Option<String>,
    pub(super) family: Family,
    /// Whether it may lead anywhere, since the operator named it.
    pub(super) trusted: bool,
}

/// At most [`MAX_IPNI_IDLE_CONNECTIONS`] that nothing is asked over, none of them for longer than `idle`.
pub(super) struct Pool {
    idle: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    kept: HashMap<Origin, Vec<(Sender, Instant)>>,
    len: usize,
    /// Whether a task closes those that have been idle for too long.
    swept: bool,
}

impl Pool {
    pub(super) fn new(idle: Duration) -> Arc<Self> {
        Arc::new(Self { idle, state: Mutex::default() })
    }

    /// A connection that is open, as far as is known; the server may be closing it.
    pub(super) async fn take(&self, origin: &Origin) -> Option<Sender> {
        while let Some(mut sender) = self.pop(origin) {
            // At once, but for the moment in which its last answer ends.
            if sender.ready().await.is_ok() {
                return Some(sender);
            }
        }
        None
    }

    /// Keeps a connection whose last answer was read to its end.
    pub(super) fn keep(self: &Arc<Self>, origin: Origin, sender: Sender) {
        let mut state = self.state();
        if state.len >= MAX_IPNI_IDLE_CONNECTIONS || sender.is_closed() {
            return;
        }
        state.len += 1;
        state.kept.entry(origin).or_default().push((sender, Instant::now()));
        if !std::mem::replace(&mut state.swept, true) {
            tokio::spawn(sweep(Arc::downgrade(self), self.idle));
        }
    }

    fn pop(&self, origin: &Origin) -> Option<Sender> {
        let mut state = self.state();
        let kept = state.kept.get_mut(origin)?;
        // The one used last: the others grow old and are closed.
        let popped = kept.pop();
        if kept.is_empty() {
            state.kept.remove(origin);
        }
        state.len -= usize::from(popped.is_some());
        popped.map(|(sender, _)| sender)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closes what has been idle for too long, until nothing is left.
async fn sweep(pool: Weak<Pool>, idle: Duration) {
    loop {
        tokio::time::sleep(idle / 2).await;
        let Some(pool) = pool.upgrade() else { return };
        let mut state = pool.state();
        let now = Instant::now();
        state.kept.retain(|_, kept| {
            kept.retain(|(sender, since)| !sender.is_closed() && now.duration_since(*since) < idle);
            !kept.is_empty()
        });
        state.len = state.kept.values().map(Vec::len).sum();
        if state.len == 0 {
            state.swept = false;
            return;
        }
    }
}
