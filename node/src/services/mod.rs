//! What a node does for its user, one file a capability. Each service works on the parts of the node that
//! [`Context`] holds; none knows the local API or the commands.

pub(crate) mod access;
pub(crate) mod announcer;
pub(crate) mod driven;
pub(crate) mod events;
pub(crate) mod files;
pub(crate) mod follower;
pub(crate) mod groups;
pub(crate) mod healer;
pub(crate) mod ipni;
pub(crate) mod journal;
pub(crate) mod names;
pub(crate) mod outbox;
pub(crate) mod publisher;
pub(crate) mod records;
pub(crate) mod rendezvous;
pub(crate) mod syncer;

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use dagmesh_announce::Validator;
use dagmesh_dagsync::{feed_sync::BlockHook, net::Client};
use libp2p::identity::Keypair;
use parking_lot::Mutex;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{error::NodeError, services::events::Events, store::Store, swarm::SwarmHandle};

/// The parts of a running node that its services share. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) key: Arc<Keypair>,
    pub(crate) network: String,
    pub(crate) store: Arc<Store>,
    pub(crate) swarm: SwarmHandle,
    pub(crate) client: Client,
    pub(crate) events: Events,
    /// Knows the newest head of each feed that was announced; shared with the swarm's worker, so held for moments only.
    pub(crate) validator: Arc<Mutex<Validator>>,
    pub(crate) hook: Option<Arc<dyn BlockHook>>,
    pub(crate) outbox: outbox::Outbox,
    pub(crate) stop: CancellationToken,
    /// Every task of every service: stopping waits for them.
    pub(crate) tasks: TaskTracker,
}

impl Context {
    /// Runs a task until it ends or the node stops.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            stop.run_until_cancelled(task).await;
        });
    }

    /// As [`blocking`](Self::blocking), after every other task has ended.
    pub(crate) async fn blocking_at_the_end<T, F>(&self, work: F) -> Result<T, NodeError>
    where
        T: Send + 'static,
        F: FnOnce(&Store) -> Result<T, NodeError> + Send + 'static,
    {
        let store = Arc::clone(&self.store);
        let task = tokio::task::spawn_blocking(move || work(&store));
        task.await.map_err(|error| NodeError::other(format!("a thread of the store broke: {error}")))?
    }

    /// Runs `work`, which reads or writes the store, on a thread that may block. The work goes on to its end even where
    /// the returned future is dropped.
    pub(crate) async fn blocking<T, F>(&self, work: F) -> Result<T, NodeError>
    where
        T: Send + 'static,
        F: FnOnce(&Store) -> Result<T, NodeError> + Send + 'static,
    {
        let store = Arc::clone(&self.store);
        let task = self.tasks.spawn_blocking(move || work(&store));
        task.await.map_err(|error| NodeError::other(format!("a thread of the store broke: {error}")))?
    }
}

/// Now, in Unix milliseconds.
pub(crate) fn unix_ms() -> u64 {
    unix_ms_of(SystemTime::now())
}

/// A time of the system's clock, in Unix milliseconds.
pub(crate) fn unix_ms_of(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_millis().try_into().unwrap_or(u64::MAX)
}
