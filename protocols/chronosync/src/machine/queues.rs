use dagmesh_core::limits::{
    MAX_GROUP_LEAVES, MAX_GROUP_LOG_ROOTS, MAX_GROUP_PEERS, MAX_GROUP_PENDING_ANSWERS, MAX_GROUP_PENDING_DIGESTS,
    MAX_GROUP_PRODUCERS, MAX_GROUP_PUBLISH_QUEUE, MAX_GROUP_RECOVERIES,
};

use super::Group;

impl Group {
    /// What the machine holds: of what, how many, and how many at most.
    pub fn queues(&self) -> [(&'static str, usize, usize); 8] {
        let waiting = self.producers.values().map(|producer| producer.waiting()).max();
        [
            ("leaves", self.state.heads().len(), MAX_GROUP_LEAVES),
            ("roots in the log", self.log.len(), MAX_GROUP_LOG_ROOTS),
            ("peers", self.peers.len(), MAX_GROUP_PEERS),
            ("unknown digests", self.claims.len(), MAX_GROUP_PENDING_DIGESTS),
            ("requests", self.calls.len(), MAX_GROUP_PEERS + MAX_GROUP_RECOVERIES),
            ("answers to the group", self.answers.len(), MAX_GROUP_PENDING_ANSWERS),
            ("producers", self.producers.len(), MAX_GROUP_PRODUCERS),
            ("publications of one producer", waiting.unwrap_or_default(), MAX_GROUP_PUBLISH_QUEUE),
        ]
    }
}
