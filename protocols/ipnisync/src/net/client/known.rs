//! What is known of publishers.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use dagmesh_core::limits::{MAX_IPNI_PARALLEL, MAX_IPNI_PLACES, MAX_IPNI_PUBLISHERS};
use hashlink::LruCache;
use libp2p::PeerId;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::Instant,
};
use url::Url;

use crate::net::{NetError, addr::Place};

/// All that were asked, the one unused for longest making room.
pub(super) struct Publishers(Mutex<LruCache<PeerId, Arc<Known>>>);

impl Default for Publishers {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(MAX_IPNI_PUBLISHERS)))
    }
}

impl Publishers {
    pub(super) fn of(&self, publisher: PeerId) -> Arc<Known> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match all.get(&publisher) {
            Some(known) => Arc::clone(known),
            None => {
                let known = Arc::new(Known::default());
                all.insert(publisher, Arc::clone(&known));
                known
            }
        }
    }
}

/// What is known of one.
pub(super) struct Known {
    slots: Semaphore,
    state: Mutex<State>,
    pub(super) named: tokio::sync::Mutex<HashMap<Place, Named>>,
}

/// Below what a publisher says itself that its chain is served, `None` where it does not say so; or when it could not be
/// asked, and why.
pub(super) type Named = Result<Option<Url>, (Instant, NetError)>;

#[derive(Default)]
struct State {
    /// Where it was asked last with success.
    last: Option<Place>,
    /// Below what its chain was found.
    bases: HashMap<Place, Url>,
}

impl Default for Known {
    fn default() -> Self {
        Self { slots: Semaphore::new(MAX_IPNI_PARALLEL), state: Mutex::default(), named: tokio::sync::Mutex::default() }
    }
}

impl Known {
    /// Leave to make one request. `None` cannot be: nobody closes the semaphore.
    pub(super) async fn slot(&self) -> Option<SemaphorePermit<'_>> {
        self.slots.acquire().await.ok()
    }

    /// `places`, the one that worked last first.
    pub(super) fn in_order(&self, places: &[Place]) -> Vec<Place> {
        let mut places = places.to_vec();
        let last = self.state().last.clone();
        // Stable: the others keep their order.
        places.sort_by_key(|place| Some(place) != last.as_ref());
        places
    }

    pub(super) fn worked(&self, place: Place) {
        self.state().last = Some(place);
    }

    pub(super) fn base(&self, place: &Place) -> Option<Url> {
        self.state().bases.get(place).cloned()
    }

    pub(super) fn proven(&self, place: &Place, base: Url) {
        let bases = &mut self.state().bases;
        // Whose addresses change finds the path again.
        if bases.len() > 2 * MAX_IPNI_PLACES {
            bases.clear();
        }
        bases.insert(place.clone(), base);
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
