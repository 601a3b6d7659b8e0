//! Names of the gossip topics.

use dagmesh_dag::FeedName;
use libp2p_identity::PeerId;

/// The one topic on which all heads of a network are announced.
pub fn heads(network: &str) -> String {
    format!("/dagmesh/heads/{network}")
}

/// The topic of a single feed, for feeds with many followers.
pub fn feed(network: &str, publisher: &PeerId, feed: &FeedName) -> String {
    format!("/dagmesh/heads/{network}/{publisher}/{feed}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_name_the_network_and_the_feed() {
        let peer = "12D3KooWKnDdG3iXw9eTFijk3EWSunZcFi54Zka4wmtqtt6rPxc8".parse().expect("a peer id");
        assert_eq!(heads("lan"), "/dagmesh/heads/lan");
        assert_eq!(feed("lan", &peer, &FeedName::default()), format!("/dagmesh/heads/lan/{peer}/main"));
    }
}
