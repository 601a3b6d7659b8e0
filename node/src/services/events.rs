//! The node's events, for any number of watchers.

use dagmesh_core::limits;
use futures::stream;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio_util::sync::CancellationToken;

use crate::{api::EventStream, types::Event};

/// Where services tell what happened. Cheap to clone; never blocks. A watcher that is more than
/// [`limits::EVENT_QUEUE`] behind is told how many it missed.
#[derive(Clone)]
pub(crate) struct Events {
    sender: broadcast::Sender<Event>,
    stop: CancellationToken,
}

impl Events {
    /// Events until `stop` is cancelled.
    pub(crate) fn new(stop: CancellationToken) -> Self {
        Self { sender: broadcast::Sender::new(limits::EVENT_QUEUE), stop }
    }

    pub(crate) fn tell(&self, event: Event) {
        // Nobody may be watching.
        let _ = self.sender.send(event);
    }

    /// The events from now on; ends when the node stops.
    pub(crate) fn watch(&self) -> EventStream {
        let watcher = (self.sender.subscribe(), self.stop.clone());
        Box::pin(stream::unfold(watcher, |(mut receiver, stop)| async move {
            let received = tokio::select! {
                // What was told before the end is still told.
                biased;
                received = receiver.recv() => received,
                () = stop.cancelled() => return None,
            };
            match received {
                Ok(event) => Some((event, (receiver, stop))),
                Err(RecvError::Lagged(missed)) => Some((Event::Lagged { missed }, (receiver, stop))),
                Err(RecvError::Closed) => None,
            }
        }))
    }
}
