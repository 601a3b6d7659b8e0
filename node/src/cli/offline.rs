//! Commands on the store alone, while no daemon runs.

use super::{Backend, Client, Context};
use crate::{
    api::{ProgressSink, Result},
    error::{ErrorKind, NodeError},
    types::{GcReport, GcRequest, RepoStat, VerifyReport},
};

/// A store without a node. The calls block on the disk.
pub trait OfflineStore: Send + 'static {
    /// Removes what nothing refers to.
    fn gc(&self, request: GcRequest, progress: &ProgressSink) -> Result<GcReport>;
    /// Hashes every block again.
    fn verify(&self, progress: &ProgressSink) -> Result<VerifyReport>;
    /// Its size.
    fn stat(&self) -> Result<RepoStat>;
}

/// The daemon of our home where one answers.
pub(super) async fn live<B>(context: &Context<'_, B>) -> Result<Option<Client>> {
    match context.client() {
        Ok(client) if client.is_alive().await => Ok(Some(client)),
        Ok(_) => Ok(None),
        Err(error) if error.kind == ErrorKind::NoDaemon => Ok(None),
        Err(error) => Err(error),
    }
}

/// Opens the store of our home and runs `work` on it, off the async threads. Not cancel-safe: dropped, `work` goes on
/// until it is done.
pub(super) async fn on_store<B: Backend, T: Send + 'static>(
    context: &Context<'_, B>,
    work: impl FnOnce(&B::Store) -> Result<T> + Send + 'static,
) -> Result<T> {
    let config = context.config()?.config;
    let folder = config.store.path.clone().unwrap_or_else(|| context.home.store_dir());
    if !folder.is_dir() {
        return Err(NodeError::not_found(format!(
            "there is no store in {}; `dagmesh daemon` creates it",
            folder.display()
        )));
    }
    let store = context.backend.open_store(&context.home, &config)?;
    let done = tokio::task::spawn_blocking(move || work(&store)).await;
    done.unwrap_or_else(|error| Err(NodeError::other(format!("the work on the store broke off: {error}"))))
}
