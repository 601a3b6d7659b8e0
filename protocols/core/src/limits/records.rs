//! Signed records and names in the DHT.

use super::*;

/// Largest value of a signed record: a pointer, an address book, a short text; anything larger belongs into a DAG that
/// the record names.
pub const MAX_RECORD_VALUE_BYTES: usize = 8 * 1024;
/// Longest name of a record, in bytes: that of a feed (128), with `head/` before it.
pub const MAX_RECORD_NAME_BYTES: usize = 136;
/// Most metadata of one record: with the figures below 5 KiB.
pub const MAX_RECORD_META: usize = 16;
/// Longest key of one piece of metadata, in bytes.
pub const MAX_RECORD_META_KEY_BYTES: usize = 64;
/// Longest value of one piece of metadata, in bytes.
pub const MAX_RECORD_META_VALUE_BYTES: usize = 256;
/// Largest encoded record: value, name and metadata at their caps, key and signature of RSA 8192 (2 KiB).
pub const MAX_RECORD_BYTES: usize = MAX_KAD_RECORD_BYTES;
/// Highest sequence of a record: what every reader's integers hold.
pub const MAX_RECORD_SEQUENCE: u64 = i64::MAX as u64;
/// Longest life of a record, in milliseconds (30 days): so long strangers keep it for an owner who is away, and so long
/// an old one must be remembered as such.
pub const MAX_RECORD_LIFETIME_MS: u64 = 30 * 24 * 60 * 60 * 1000;
/// How far in the future a record's timestamp may lie, in milliseconds: clocks differ.
pub const MAX_RECORD_AHEAD_MS: u64 = MAX_CLOCK_SKEW_MS;
/// Largest IPNS record (IPNS specification, "Record Size Limit").
pub const MAX_IPNS_RECORD_BYTES: usize = 10 * 1024;
/// Longest IPNS name as text: a multihash of 64 bytes in any base.
pub const MAX_IPNS_NAME_BYTES: usize = 160;
/// How long an IPNS record of another is held after it came last, in milliseconds (48 h): DHT peers do so.
pub const IPNS_HELD_MS: u64 = 48 * 60 * 60 * 1000;
/// How long an IPNS record that we sign is valid, unless its owner says otherwise, in seconds (48 h).
pub const IPNS_LIFETIME_SECS: u64 = 48 * 60 * 60;
/// How long one may be answered from a cache, unless its owner says otherwise, in seconds.
pub const IPNS_TTL_SECS: u64 = 5 * 60;
/// Records of others that one peer may have at one node: a quarter of [`MAX_KAD_RECORDS`].
pub const MAX_RECORDS_PER_SOURCE: usize = MAX_KAD_RECORDS / 4;
/// Own records: each is put again for ever, and a node has a handful.
pub const MAX_OWN_RECORDS: usize = 1024;
/// Keys whose newest record is gone and whose number is remembered, about 250 bytes each.
pub const MAX_RECORD_MARKS: usize = 65_536;
/// How often a record is put again to the nodes closest to it, in seconds, give or take a quarter (4 h, as Kubo).
pub const RECORD_REPUBLISH_SECS: u64 = 4 * 60 * 60;
/// How soon an own record is put again that fewer nodes hold than should, in seconds, give or take a quarter; doubles with
/// each time up to the figure above.
pub const RECORD_RETRY_SECS: u64 = 30;
/// Records put again at once.
pub const MAX_RECORD_REPUBLISHES: usize = 4;
/// How long a record that we sign is valid, unless its owner says otherwise, in seconds (7 days).
pub const RECORD_LIFETIME_SECS: u64 = 7 * 24 * 60 * 60;
/// Rows about records that wait for the disk before records of peers are refused: at the largest 16 MiB.
pub const MAX_RECORD_WRITES: usize = 1024;
/// Largest message about a record: the record, its key, a reason.
pub const MAX_RECORD_MESSAGE_BYTES: usize = MAX_RECORD_BYTES + MAX_KAD_KEY_BYTES + MAX_REASON_BYTES + 64;
/// Copies of a record that are put unless the caller says otherwise: the replication factor of Kademlia.
pub const DEFAULT_RECORD_REPLICAS: usize = 20;
/// Most copies of a record that may be asked for, and most peers that one call asks.
pub const MAX_RECORD_PEERS: usize = 64;
/// Answers with a valid record that a reader waits for, as Kubo does for IPNS.
pub const RECORD_QUORUM: usize = 16;
/// Requests of one put or get that run at once.
pub const MAX_RECORD_REQUESTS: usize = 10;
/// Requests about records that are answered at once; a further one is dropped, and asked again by honest peers. Each holds
/// two messages: 2 MiB.
pub const MAX_RECORD_SERVED: usize = 64;
/// Those of one peer: it puts some records again, and reads others.
pub const MAX_RECORD_SERVED_PER_PEER: usize = 8;
/// How long one put or get may take, in seconds: the search for the closest nodes and three peers in a row that do not
/// answer ([`CALL_TIMEOUT_SECS`]).
pub const RECORD_CALL_SECS: u64 = QUERY_TIMEOUT_SECS + 3 * CALL_TIMEOUT_SECS;
/// Peers that are banned at once; the ban that ends first makes room.
pub const MAX_BANS: usize = 4096;
/// First ban of a peer, in milliseconds (10 min); doubles with each further one up to the next figure.
pub const BAN_MIN_MS: u64 = 10 * 60 * 1000;
/// Longest ban, in milliseconds (24 h): a node that was repaired comes back by itself.
pub const BAN_MAX_MS: u64 = 24 * 60 * 60 * 1000;
/// After each such time without a new fault, in milliseconds (24 h), one ban of a peer is forgotten.
pub const BAN_DECAY_MS: u64 = 24 * 60 * 60 * 1000;
/// Longest an IPNS record that we sign is valid, in seconds (a year): so long a name whose key is lost goes on pointing.
pub const MAX_IPNS_LIFETIME_SECS: u64 = 365 * 24 * 60 * 60;
/// How soon whoever watches a name asks the DHT again, in seconds: not before this.
pub const NAME_WATCH_MIN_SECS: u64 = 60;
/// And not after this, in seconds (1 h), however long a record may be cached.
pub const NAME_WATCH_MAX_SECS: u64 = 60 * 60;
/// While nobody has it: so soon the first time, in seconds; each time twice as long, up to [`NAME_WATCH_MIN_SECS`].
pub const NAME_WATCH_RETRY_SECS: u64 = 1;
/// Longest name of a named key, in bytes: it names a file.
pub const MAX_KEY_NAME_BYTES: usize = 128;
/// Named keys of one node: each has a handful of records.
pub const MAX_NAMED_KEYS: usize = MAX_OWN_RECORDS;
/// Largest private key that is read: an Ed25519 key pair takes 68 bytes in libp2p's protobuf, one of RSA 4096 about
/// 2.4 KiB.
pub const MAX_KEY_FILE_BYTES: usize = 8 * 1024;
/// Topics of IPNS names that a node is subscribed to: with [`MAX_GROUPS`] and a handful of others, the [`MAX_TOPICS`] that
/// peers take from us.
pub const MAX_NAME_TOPICS: usize = 32;
/// Bytes of gossip on the topic of one name that wait to be judged: a dozen of the largest records. With all topics under
/// attack at once, 4 MiB.
pub const NAME_GOSSIP_BYTES: usize = 128 * 1024;
/// How often the newest record of each subscribed name is said again on its topic, in seconds (10 min, as
/// go-libp2p-pubsub-router).
pub const NAME_REBROADCAST_SECS: u64 = 10 * 60;
/// Peers on the topic of a name under which no others are sought: the low mark of a mesh.
pub const NAME_PEERS_LOW: usize = 4;
/// How often peers are sought for the topic of a name that has none, in seconds; of one that has too few, ten times that. A
/// search is a walk of the DHT.
pub const NAME_FIND_SECS: u64 = 60;
/// Requests for the newest record of a name that we have open at once.
pub const MAX_NAME_FETCHES: usize = 16;
/// Largest request of `/libp2p/fetch/0.0.1`: a key and what protobuf puts before it.
pub const MAX_FETCH_REQUEST_BYTES: usize = MAX_KAD_KEY_BYTES + 16;
/// Largest answer of `/libp2p/fetch/0.0.1`: a record and what protobuf puts before it.
pub const MAX_FETCH_ANSWER_BYTES: usize = MAX_RECORD_BYTES + 16;
