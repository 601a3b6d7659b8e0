//! The node's events, for any number of watchers.

use dagmesh_core::limits;
use futures::stream;
use tokio::sync::broadcast::{self, error::RecvError};

use crate::{api::EventStream, types::Event};

/// Where services tell what happened. Cheap to clone; never blocks. A watcher that is more than
/// [`limits::EVENT_QUEUE`] behind is told how many it missed.
#[derive(Clone)]
pub(crate) struct Events(broadcast::Sender<Event>);

impl Events {
    pub(crate) fn new() -> Self {
        Self(broadcast::Sender::new(limits::EVENT_QUEUE))
    }

    pub(crate) fn tell(&self, event: Event) {
        // Nobody may be watching.
        let _ = self.0.send(event);
    }

    /// The events from now on; ends when the node is gone.
    pub(crate) fn watch(&self) -> EventStream {
        Box::pin(stream::unfold(self.0.subscribe(), |mut receiver| async move {
            match receiver.recv().await {
                Ok(event) => Some((event, receiver)),
                Err(RecvError::Lagged(missed)) => Some((Event::Lagged { missed }, receiver)),
                Err(RecvError::Closed) => None,
            }
        }))
    }
}
