//! The config: what may stand in it, its profiles, its defaults, and where it comes from.
//!
//! Precedence, strongest first: flag, environment (`DAGMESH_SWARM__LISTEN`), `--config`, the user's file, the profile,
//! the default. A key that does not exist is an error that names the nearest one that does.

use std::{fmt, net::SocketAddr, path::PathBuf, str::FromStr};

use dagmesh_core::limits;
use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

mod home;
mod load;

pub use home::Home;
pub(crate) use home::{create_private_dir, read_private, write_private};
pub use load::{Flags, Loaded, Origin, Sources};

use crate::swarm;
pub use crate::swarm::{Diversity, KadMode, PUBLIC_BOOTSTRAP, Profile};

/// All that can be set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The mesh.
    pub swarm: SwarmConfig,
    /// The local API.
    pub api: ApiConfig,
    /// The store on disk.
    pub store: StoreConfig,
    /// Syncs, as follower and as publisher.
    pub sync: SyncConfig,
    /// The IPNI network.
    pub ipni: IpniConfig,
    /// Groups.
    pub groups: GroupsConfig,
    /// Signed records and names.
    pub records: RecordsConfig,
    /// What is logged.
    pub log: LogConfig,
}

/// `[swarm]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SwarmConfig {
    /// The set of defaults that all else starts from.
    pub profile: Profile,
    /// Addresses to listen on. `<relay>/p2p-circuit` asks that relay for a place.
    #[serde(deserialize_with = "several")]
    #[schemars(with = "Vec<String>")]
    pub listen: Vec<Multiaddr>,
    /// Addresses to tell others beside those that are found, such as a forwarded port's.
    #[serde(deserialize_with = "several")]
    #[schemars(with = "Vec<String>")]
    pub external: Vec<Multiaddr>,
    /// Peers to join the mesh through; each ends with `/p2p/<peer>`.
    #[serde(deserialize_with = "several")]
    #[schemars(with = "Vec<String>")]
    pub bootstrap: Vec<Multiaddr>,
    /// Name of the network: nodes of one name hear each other's announcements.
    pub network: String,
    /// File with the pre-shared key of a private network (`/key/swarm/psk/1.0.0/`).
    pub psk: Option<PathBuf>,
    /// Most established connections.
    pub max_connections: u32,
    /// Most established connections with one peer.
    pub max_connections_per_peer: u32,
    /// Relays connections for others.
    pub relay_server: bool,
    /// Finds peers on the local network.
    pub mdns: bool,
    /// Asks the router for an open port.
    pub upnp: bool,
    /// Has own addresses tested by peers, and tests theirs.
    pub autonat: bool,
    /// Upgrades relayed connections to direct ones.
    pub hole_punching: bool,
    /// Whether Kademlia queries of others are answered.
    pub kad_mode: KadMode,
    /// Protocol of the DHT to join; by default `/ipfs/kad/1.0.0` on profile `public`, else `/dagmesh/<network>/kad/1.0.0`.
    pub kad_protocol: Option<String>,
    /// Of which peers only so many of one part of the internet are relied on in the DHT: of those at global addresses on
    /// profile `public` (`global`), else of none (`off`); or of all (`all`), those at private addresses by /24.
    pub dht_diversity: Diversity,
}

impl Default for SwarmConfig {
    fn default() -> Self {
        Self::of_profile(Profile::default())
    }
}

impl SwarmConfig {
    /// What the profile alone gives.
    fn of_profile(profile: Profile) -> Self {
        let swarm = swarm::SwarmConfig::for_profile(profile);
        Self {
            profile,
            listen: swarm.listen,
            external: swarm.external,
            bootstrap: swarm.bootstrap,
            network: swarm.network,
            psk: None,
            max_connections: swarm.max_connections,
            max_connections_per_peer: swarm.max_connections_per_peer,
            relay_server: swarm.relay_server,
            mdns: swarm.mdns,
            upnp: swarm.upnp,
            autonat: swarm.autonat,
            hole_punching: swarm.hole_punching,
            kad_mode: swarm.kad_mode,
            kad_protocol: swarm.kad_protocol,
            dht_diversity: swarm.dht_diversity,
        }
    }
}

/// `[api]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ApiConfig {
    /// `ADDRESS:PORT` or `unix:/path`.
    #[schemars(with = "String")]
    pub listen: ApiAddr,
    /// Allows `listen` to be no loopback address. Whoever has the token then rules this node from afar.
    pub allow_remote: bool,
    /// With `allow_remote`: names under which the API may be called, beside plain addresses.
    #[serde(deserialize_with = "several")]
    pub hosts: Vec<String>,
}

impl Default for ApiConfig {
    fn default() -> Self {
        let listen = ApiAddr::Tcp(SocketAddr::from(([127, 0, 0, 1], 5101)));
        Self { listen, allow_remote: false, hosts: Vec::new() }
    }
}

/// `[store]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StoreConfig {
    /// Where it is; `store` in the home directory where absent.
    pub path: Option<PathBuf>,
    /// Bytes of the disk that are left free: writes stop before.
    pub reserve_bytes: u64,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self { path: None, reserve_bytes: 64 * 1024 * 1024 }
    }
}

/// `[sync]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SyncConfig {
    /// Syncs that run at once.
    pub max_syncs: usize,
    /// Most blocks of a segment.
    pub segment_blocks: u64,
    /// Peers that may fetch from us; everyone where empty.
    #[serde(deserialize_with = "several")]
    #[schemars(with = "Vec<String>")]
    pub allow: Vec<PeerId>,
    /// Hands announcements that reached us directly on to the topic.
    pub republish: bool,
}

impl Default for SyncConfig {
    fn default() -> Self {
        Self {
            max_syncs: limits::MAX_SYNCS,
            segment_blocks: limits::MAX_SEGMENT_BLOCKS,
            allow: Vec::new(),
            republish: true,
        }
    }
}

/// `[groups]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GroupsConfig {
    /// Bytes after which no more is fetched unasked of one content that somebody publishes in a group; it can be fetched by
    /// hand.
    pub max_content_bytes: u64,
}

impl Default for GroupsConfig {
    fn default() -> Self {
        Self { max_content_bytes: limits::GROUP_CONTENT_BYTES }
    }
}

/// `[records]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RecordsConfig {
    /// Carries IPNS names over gossip too (IPNS over PubSub, which Kubo has as `Ipns.UsePubsub`): a change of a name reaches
    /// those who wait for it at once. Each name that is published, resolved or followed takes a topic and a provider record.
    pub pubsub: bool,
    /// How often a record that is held here, our own or that of another, is put again to the nodes closest to it, in seconds,
    /// give or take a quarter; each time costs a walk of the DHT a record.
    pub republish_secs: u64,
}

impl Default for RecordsConfig {
    /// On: gossip runs in any case, and a topic of a name carries a message of some hundred bytes when the name changes.
    fn default() -> Self {
        Self { pubsub: true, republish_secs: limits::RECORD_REPUBLISH_SECS }
    }
}

/// `[ipni]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct IpniConfig {
    /// The network that is meant where none is named: `mainnet`, or one of your own.
    pub network: String,
    /// `ADDRESS:PORT` at which our chain is served over HTTP and announcements are taken; over streams it always is.
    pub http: Option<SocketAddr>,
    /// File with the certificates for HTTPS at `http`, our own first, in PEM.
    pub tls_cert: Option<PathBuf>,
    /// File with the key that belongs to it, in PEM.
    pub tls_key: Option<PathBuf>,
    /// Addresses to tell others instead of `http`, such as `/dns/example.com/https`.
    #[serde(deserialize_with = "several")]
    #[schemars(with = "Vec<String>")]
    pub announce: Vec<Multiaddr>,
}

impl Default for IpniConfig {
    fn default() -> Self {
        Self { network: "mainnet".into(), http: None, tls_cert: None, tls_key: None, announce: Vec::new() }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// `error`, `warn`, `info`, `debug`, `trace`, or directives such as `info,libp2p_gossipsub=debug`.
    pub level: String,
    /// How lines look.
    pub format: LogFormat,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { level: "info".into(), format: LogFormat::Text }
    }
}

impl Config {
    /// The config that `profile` alone gives.
    pub fn of_profile(profile: Profile) -> Self {
        let mut config = Self { swarm: SwarmConfig::of_profile(profile), ..Self::default() };
        if profile == Profile::Test {
            config.api.listen = ApiAddr::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)));
            config.store.reserve_bytes = 0;
        }
        config
    }

    /// What is wrong with it beyond single values: key, what stands there, and the fix.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut refuse = |wrong: bool, problem: String| {
            if wrong {
                problems.push(problem);
            }
        };
        let swarm = &self.swarm;
        for addr in &swarm.bootstrap {
            refuse(
                !matches!(addr.iter().last(), Some(Protocol::P2p(_))),
                format!("swarm.bootstrap: {addr} does not say who is there; append /p2p/ and the peer id"),
            );
        }
        if let Some(psk) = &swarm.psk {
            refuse(!psk.is_file(), format!("swarm.psk: there is no file {}", psk.display()));
            for addr in &swarm.listen {
                refuse(
                    addr.iter().any(|part| matches!(part, Protocol::Udp(_) | Protocol::Ws(_) | Protocol::Wss(_))),
                    format!("swarm.listen: {addr} cannot be used with swarm.psk; only plain TCP can"),
                );
            }
        }
        refuse(
            !is_network(&swarm.network),
            format!(
                "swarm.network: {:?} is no name of a network; take 1 to 64 lowercase letters, digits, '-', '_' and '.'",
                swarm.network
            ),
        );
        for (key, value) in [
            ("swarm.max_connections", u64::from(swarm.max_connections)),
            ("swarm.max_connections_per_peer", u64::from(swarm.max_connections_per_peer)),
            ("sync.max_syncs", self.sync.max_syncs as u64),
            ("sync.segment_blocks", self.sync.segment_blocks),
        ] {
            refuse(value == 0, format!("{key}: 0 would stop the node from doing anything; take at least 1"));
        }
        refuse(
            self.records.republish_secs == 0,
            "records.republish_secs: 0 would put records again without a pause; take at least 1".to_owned(),
        );
        refuse(
            self.sync.segment_blocks > limits::MAX_SEGMENT_BLOCKS,
            format!(
                "sync.segment_blocks: {} where at most {} may stand",
                self.sync.segment_blocks,
                limits::MAX_SEGMENT_BLOCKS
            ),
        );
        if let ApiAddr::Tcp(addr) = self.api.listen {
            refuse(
                !addr.ip().is_loopback() && !self.api.allow_remote,
                format!(
                    "api.listen: {addr} can be reached from other machines; take 127.0.0.1:{}, or set api.allow_remote = true",
                    addr.port()
                ),
            );
        }
        let ipni = &self.ipni;
        refuse(
            !is_network(&ipni.network),
            format!(
                "ipni.network: {:?} is no name of a network; take 1 to 64 lowercase letters, digits, '-', '_' and '.'",
                ipni.network
            ),
        );
        refuse(
            ipni.tls_cert.is_some() != ipni.tls_key.is_some(),
            "ipni.tls_cert, ipni.tls_key: HTTPS needs both, plain HTTP neither".to_owned(),
        );
        refuse(
            ipni.tls_cert.is_some() && ipni.http.is_none(),
            "ipni.tls_cert: there is nothing to serve over HTTPS; set ipni.http to ADDRESS:PORT too".to_owned(),
        );
        if let Err(error) = tracing_subscriber::EnvFilter::try_new(&self.log.level) {
            refuse(true, format!("log.level: {:?} is no level: {error}", self.log.level));
        }
        problems
    }
}

/// Whether this can name a network of IPNI: it ends the name of a topic, and that of a followed chain.
pub(crate) fn is_network(name: &str) -> bool {
    let fits =
        |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || matches!(letter, '-' | '_' | '.');
    (1..=64).contains(&name.len()) && name.chars().all(fits)
}

/// Where the local API listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApiAddr {
    /// A TCP port.
    Tcp(SocketAddr),
    /// A socket in the file system.
    Unix(PathBuf),
}

impl fmt::Display for ApiAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => addr.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl FromStr for ApiAddr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = PathBuf::from(path);
            return if path.is_absolute() {
                Ok(Self::Unix(path))
            } else {
                Err(format!("{text:?} needs an absolute path, as in unix:/run/dagmesh.sock"))
            };
        }
        let numeric = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
        numeric
            .as_deref()
            .unwrap_or(text)
            .parse()
            .map(Self::Tcp)
            .map_err(|_| format!("{text:?} is neither ADDRESS:PORT (127.0.0.1:5101) nor unix:/path"))
    }
}

impl Serialize for ApiAddr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ApiAddr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// A list, or one text with its items between commas, as the environment gives it.
fn several<'de, D: Deserializer<'de>, T: FromStr<Err: fmt::Display>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMore {
        One(String),
        More(Vec<String>),
    }
    let items = match OneOrMore::deserialize(deserializer).map_err(|_| D::Error::custom("no list of texts"))? {
        OneOrMore::One(text) => {
            text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(String::from).collect()
        }
        OneOrMore::More(items) => items,
    };
    items.iter().map(|item| item.parse().map_err(|error| D::Error::custom(format!("{item:?}: {error}")))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_profile_stands_by_itself() {
        for (profile, listen) in [(Profile::Public, 4), (Profile::Lan, 4), (Profile::Private, 2), (Profile::Test, 3)] {
            let config = Config::of_profile(profile);
            assert_eq!(config.problems(), Vec::<String>::new(), "{profile}");
            assert_eq!(config.swarm.listen.len(), listen, "{profile}");
        }
        assert_eq!(Config::of_profile(Profile::Public).swarm.bootstrap.len(), PUBLIC_BOOTSTRAP.len());
    }

    #[test]
    fn what_does_not_go_together_is_named_by_its_key() {
        let mut config = Config::of_profile(Profile::Lan);
        config.swarm.psk = Some("/no/such.key".into());
        config.swarm.network = "No Name".into();
        config.swarm.bootstrap = vec!["/ip4/192.0.2.1/tcp/4101".parse().expect("an address")];
        config.sync.max_syncs = 0;
        config.log.level = "info=loud=".into();
        let problems = config.problems().join("\n");
        for part in [
            "swarm.psk: there is no file /no/such.key",
            "swarm.listen: /ip4/0.0.0.0/udp/4101/quic-v1",
            "swarm.network",
            "append /p2p/",
            "sync.max_syncs: 0",
            "log.level",
        ] {
            assert!(problems.contains(part), "{part} is not in {problems}");
        }
    }

    #[test]
    fn an_api_that_others_can_reach_must_be_wanted() {
        let mut config = Config::of_profile(Profile::Test);
        config.api.listen = "0.0.0.0:5101".parse().expect("an address");
        assert!(config.problems()[0].contains("api.allow_remote = true"));
        config.api.allow_remote = true;
        assert_eq!(config.problems(), Vec::<String>::new());
    }

    #[test]
    fn addresses_of_the_api_are_told_apart() {
        assert_eq!("localhost:7".parse(), Ok(ApiAddr::Tcp(SocketAddr::from(([127, 0, 0, 1], 7)))));
        assert_eq!("unix:/run/x".parse(), Ok(ApiAddr::Unix("/run/x".into())));
        assert!("unix:x".parse::<ApiAddr>().is_err());
        assert!("5101".parse::<ApiAddr>().is_err());
    }
}
