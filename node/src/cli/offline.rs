//! Commands on the store alone, while no daemon runs.

use std::{path::Path, sync::Arc};

use super::{Client, Context};
use crate::{
    api::Result,
    config::{Config, Home},
    error::{ErrorKind, NodeError},
    store::Store,
    upkeep,
};

/// Opens the store of a home where no daemon runs. It must exist: looking at it is no reason to make one. The call
/// blocks on the disk.
pub(super) fn open_store(home: &Home, config: &Config) -> Result<Arc<Store>> {
    let dir = upkeep::store_dir(home, config);
    if !dir.is_dir() {
        let message = format!("there is no store in {}; `dagmesh daemon` creates it", dir.display());
        return Err(NodeError::not_found(message));
    }
    Ok(Store::open_with(dir, &upkeep::store_options(config))?)
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

/// Opens the store of our home and runs `work` on it and its directory, off the async threads. Not cancel-safe:
/// dropped, `work` goes on until it is done.
pub(super) async fn on_store<B, T: Send + 'static>(
    context: &Context<'_, B>,
    work: impl FnOnce(&Store, &Path) -> Result<T> + Send + 'static,
) -> Result<T> {
    let (home, config) = (context.home.clone(), context.config()?.config);
    let working = tokio::task::spawn_blocking(move || {
        let store = open_store(&home, &config)?;
        work(&store, &upkeep::store_dir(&home, &config))
    });
    let broke = |error| NodeError::other(format!("the work on the store broke off: {error}"));
    working.await.unwrap_or_else(|error| Err(broke(error)))
}
