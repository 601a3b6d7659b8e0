//! Gossip: which topics are taken part in, how messages are named, how peers are scored.

use std::collections::HashMap;
use std::time::Duration;

use dagmesh_core::limits;
use dagmesh_dag::hash::HashCode;
use libp2p::gossipsub::{
    self, Config, ConfigBuilder, MaxCountSubscriptionFilter, Message, MessageAuthenticity, MessageId, PeerScoreParams,
    PeerScoreThresholds, TopicHash, TopicScoreParams, TopicSubscriptionFilter, ValidationMode,
};
use libp2p::identity::Keypair;

use super::config::{Profile, SwarmConfig};
use super::error::SwarmError;

/// What the topics of groups begin with; the group's id in hexadecimal follows.
pub(super) const GROUPS: &str = "/dagmesh/groups/";

/// The gossip behaviour of this node.
pub(super) type Gossip = gossipsub::Behaviour<gossipsub::IdentityTransform, Filter>;
/// At most so many topics a peer, each with a known beginning.
pub(super) type Filter = MaxCountSubscriptionFilter<PrefixFilter>;

/// Topics with one of the known beginnings.
///
/// A peer names its topics once, when it connects; so the rule must not depend on what we are subscribed to.
#[derive(Debug, Clone)]
pub(super) struct PrefixFilter(Vec<String>);

impl PrefixFilter {
    pub(super) fn allows(&self, topic: &str) -> bool {
        topic.len() <= limits::MAX_TOPIC_BYTES && self.0.iter().any(|prefix| topic.starts_with(prefix))
    }
}

impl TopicSubscriptionFilter for PrefixFilter {
    fn can_subscribe(&mut self, topic: &TopicHash) -> bool {
        self.allows(topic.as_str())
    }
}

/// The gossip behaviour: strictly signed, each message held back until it is validated.
pub(super) fn behaviour(config: &SwarmConfig, keypair: &Keypair) -> Result<Gossip, SwarmError> {
    let failed = |reason: String| SwarmError::Transport { what: "gossipsub", reason };
    let filter = MaxCountSubscriptionFilter {
        filter: filter(config),
        max_subscribed_topics: config.max_topics,
        max_subscriptions_per_request: limits::MAX_SUBSCRIPTIONS_PER_MESSAGE,
    };
    let mut gossip = Gossip::new_with_subscription_filter(
        MessageAuthenticity::Signed(keypair.clone()),
        gossip_config().map_err(failed)?,
        filter,
    )
    .map_err(|error| failed(error.to_owned()))?;
    gossip.with_peer_score(score_params(config.profile), thresholds()).map_err(failed)?;
    Ok(gossip)
}

pub(super) fn filter(config: &SwarmConfig) -> PrefixFilter {
    PrefixFilter(config.topic_prefixes.clone())
}

/// How one topic counts in a peer's score.
///
/// Announcements are rare, so nothing is expected of a mesh peer in a given time (P3 off); what counts is staying,
/// being first, and above all not forwarding what is invalid.
pub(super) fn topic_score() -> TopicScoreParams {
    TopicScoreParams {
        topic_weight: 1.0,
        time_in_mesh_weight: 0.01,
        time_in_mesh_quantum: Duration::from_secs(1),
        time_in_mesh_cap: 600.0,
        first_message_deliveries_weight: 0.5,
        first_message_deliveries_decay: gossipsub::score_parameter_decay(Duration::from_secs(600)),
        first_message_deliveries_cap: 20.0,
        mesh_message_deliveries_weight: 0.0,
        mesh_failure_penalty_weight: 0.0,
        // The square of the count: one invalid message costs 10, seven graylist their sender for minutes.
        invalid_message_deliveries_weight: -10.0,
        invalid_message_deliveries_decay: gossipsub::score_parameter_decay(Duration::from_secs(600)),
        ..TopicScoreParams::default()
    }
}

fn gossip_config() -> Result<Config, String> {
    ConfigBuilder::default()
        .validation_mode(ValidationMode::Strict)
        .validate_messages()
        // What is read at once; a message is held to MAX_GOSSIP_BYTES when it is sent and when it has come.
        .max_transmit_size(limits::MAX_GOSSIP_FRAME_BYTES)
        .max_control_message_size(limits::MAX_GOSSIP_FRAME_BYTES)
        .max_control_messages_sent(limits::MAX_GOSSIP_IDS)
        .message_id_fn(message_id)
        // The mesh of the specification: 6 peers, between 4 and 12, at least 2 of them dialled by ourselves.
        .mesh_n(6)
        .mesh_n_low(4)
        .mesh_n_high(12)
        .mesh_outbound_min(2)
        .heartbeat_initial_delay(Duration::from_millis(100))
        .heartbeat_interval(Duration::from_secs(1))
        .history_length(8)
        .history_gossip(4)
        .duplicate_cache_time(Duration::from_secs(120))
        .max_ihave_messages_heartbeat(10)
        .connection_handler_queue_len(512)
        .flood_publish(true)
        .build()
        .map_err(|error| error.to_string())
}

/// The id under which a message is a duplicate.
///
/// On the IPNI network's topics it is BLAKE2b-256 of the content, as go-libipni has it: IHAVE and IWANT speak of
/// ids, so all nodes of a topic must agree. On groups' topics it is that of the topic and the content, so that equal
/// heartbeats of many members are one message, and those of two groups two. Elsewhere it is the author and its sequence
/// number, both signed, so a head announced again after a while is a new message, and nobody can take another's id.
fn message_id(message: &Message) -> MessageId {
    let topic = message.topic.as_str();
    let hash = if topic.starts_with("/indexer/ingest/") {
        HashCode::Blake2b256.digest(&message.data)
    } else if topic.starts_with(GROUPS) {
        HashCode::Blake2b256.digest(&[topic.as_bytes(), b"\0", &message.data].concat())
    } else {
        None
    };
    if let Some(hash) = hash {
        return MessageId::new(hash.digest());
    }
    let mut id = message.source.map(|author| author.to_bytes()).unwrap_or_default();
    id.extend_from_slice(&message.sequence_number.unwrap_or_default().to_be_bytes());
    MessageId::from(id)
}

fn score_params(profile: Profile) -> PeerScoreParams {
    PeerScoreParams {
        topics: HashMap::new(),
        topic_score_cap: 100.0,
        app_specific_weight: 1.0,
        // Many honest peers share one address on a LAN, behind one NAT, and in tests.
        ip_colocation_factor_weight: if profile == Profile::Public { -5.0 } else { 0.0 },
        ip_colocation_factor_threshold: 10.0,
        behaviour_penalty_weight: -10.0,
        behaviour_penalty_threshold: 6.0,
        behaviour_penalty_decay: gossipsub::score_parameter_decay(Duration::from_secs(600)),
        retain_score: Duration::from_secs(1800),
        ..PeerScoreParams::default()
    }
}

fn thresholds() -> PeerScoreThresholds {
    PeerScoreThresholds {
        gossip_threshold: -40.0,
        publish_threshold: -80.0,
        graylist_threshold: -400.0,
        accept_px_threshold: 100.0,
        opportunistic_graft_threshold: 1.0,
    }
}

#[cfg(test)]
mod tests {
    use libp2p::PeerId;

    use super::*;

    fn message(topic: &str, source: PeerId, seq: u64) -> Message {
        Message {
            source: Some(source),
            data: b"the same content".to_vec(),
            sequence_number: Some(seq),
            topic: TopicHash::from_raw(topic),
        }
    }

    #[test]
    fn on_ipni_topics_equal_content_is_one_message_whoever_sends_it() {
        let topic = "/indexer/ingest/mainnet";
        let first = message_id(&message(topic, PeerId::random(), 1));
        assert_eq!(first, message_id(&message(topic, PeerId::random(), 2)));
        assert_eq!(first.0.len(), 32);
    }

    #[test]
    fn on_a_groups_topic_equal_content_is_one_message_and_in_two_groups_two() {
        let (one, other) = (format!("{GROUPS}{}", "a".repeat(64)), format!("{GROUPS}{}", "b".repeat(64)));
        let first = message_id(&message(&one, PeerId::random(), 1));
        assert_eq!(first, message_id(&message(&one, PeerId::random(), 2)));
        assert_ne!(first, message_id(&message(&other, PeerId::random(), 1)));
    }

    #[test]
    fn on_own_topics_a_message_is_named_by_author_and_sequence() {
        let (topic, author) = ("/dagmesh/heads/test", PeerId::random());
        let first = message_id(&message(topic, author, 1));
        assert_eq!(first, message_id(&message(topic, author, 1)));
        assert_ne!(first, message_id(&message(topic, author, 2)));
        assert_ne!(first, message_id(&message(topic, PeerId::random(), 1)));
    }

    #[test]
    fn scoring_parameters_are_valid() {
        topic_score().validate().unwrap();
        thresholds().validate().unwrap();
        for profile in [Profile::Public, Profile::Lan, Profile::Private, Profile::Test] {
            score_params(profile).validate().unwrap();
        }
    }

    #[test]
    fn topics_outside_the_prefixes_or_too_long_are_not_taken_part_in() {
        let filter = filter(&SwarmConfig::for_profile(Profile::Test));
        assert!(filter.allows("/dagmesh/heads/test"));
        assert!(!filter.allows("/eth2/beacon_block"));
        let longest = format!("/dagmesh/{}", "x".repeat(limits::MAX_TOPIC_BYTES - "/dagmesh/".len()));
        assert!(filter.allows(&longest));
        assert!(!filter.allows(&format!("{longest}x")));
    }
}
