//! Every cap of the house, in one place, each with its reason.
//!
//! A cap is checked before memory is taken, and has a test at N and at N + 1 where it is enforced. Sizes are in
//! bytes, times in the unit that the name states.

mod groups;
mod records;
mod sim;

pub use self::{groups::*, records::*, sim::*};

// ---- Blocks and links ------------------------------------------------------------------------------------------

/// Largest block. Bitswap peers (boxo) refuse more than 2 MiB, so a larger one could not travel further.
pub const MAX_BLOCK_BYTES: usize = 2 * 1024 * 1024;
/// Longest binary CID: the cap of boxo, room for every 64-byte digest.
pub const MAX_CID_BYTES: usize = 168;
/// Longest identity digest: what a CID of the `cid` crate holds (boxo takes up to 128; larger content belongs into a
/// block of its own).
pub const MAX_IDENTITY_BYTES: usize = 64;
/// Shortest digest of a real hash: below 20 bytes a collision is within reach.
pub const MIN_DIGEST_BYTES: usize = 20;
/// Most links in one block: 2 MiB hold about 50,000 links of 41 bytes; beyond that it is no honest node.
pub const MAX_LINKS_PER_BLOCK: usize = 65_536;

// ---- DAG-CBOR --------------------------------------------------------------------------------------------------

/// Deepest nesting inside one block: no known schema passes 20; a parser's stack must not be at a stranger's mercy.
pub const MAX_CBOR_DEPTH: usize = 128;
/// Deepest nesting inside a message: messages are flat.
pub const MAX_MESSAGE_DEPTH: usize = 64;

// ---- Selectors and traversal -----------------------------------------------------------------------------------

/// Longest encoded selector, all its forms together (see the cost): the largest one in use (IPNI's chain with entries)
/// takes 260 bytes so, a path of 30 fields 10 KiB.
pub const MAX_SELECTOR_BYTES: usize = 16 * 1024;
/// Deepest nesting of selector nodes: graphsync's limit is 100; those in use stay under 10.
pub const MAX_SELECTOR_DEPTH: usize = 32;
/// Most selector nodes in one selector.
pub const MAX_SELECTOR_NODES: usize = 512;
/// Most clauses in all the forms that one selector can take on its way down a DAG: bounds the work at each node. IPNI's
/// chain with entries has 10; a path of 30 fields 496.
pub const MAX_SELECTOR_COST: usize = 512;
/// Most clauses of a selector that are tried against the entries of one block: 2 MiB of entries with a selector of two
/// clauses, about a second of work with the worst of selectors.
pub const MAX_SELECT_WORK: usize = 4 * 1024 * 1024;
/// Most recursions inside one another: a chain of chains of trees needs three.
pub const MAX_SELECTOR_RECURSIONS: usize = 4;
/// Most links that wait to be walked. A frontier grows by the fanout at each level, so this allows 65,536 links at
/// each of 16 levels.
pub const MAX_FRONTIER_LINKS: usize = 1_048_576;
/// Most blocks that one traversal remembers as visited: 16 bytes each, so about 128 MiB at the worst.
pub const MAX_VISITED: usize = 4_194_304;

// ---- UnixFS ----------------------------------------------------------------------------------------------------

/// Default size of a file's chunks.
pub const DEFAULT_CHUNK_BYTES: usize = 256 * 1024;
/// Largest chunk: leaves room for the UnixFS envelope within [`MAX_BLOCK_BYTES`].
pub const MAX_CHUNK_BYTES: usize = 1024 * 1024;
/// Links per inner node of a file: the figure of every other implementation, so that CIDs agree.
pub const MAX_FILE_LINKS: usize = 174;
/// A directory whose links take more than this becomes a HAMT (Kubo's threshold).
pub const MAX_FLAT_DIRECTORY_BYTES: usize = 256 * 1024;
/// Longest name of a directory entry: the limit of every common filesystem.
pub const MAX_NAME_BYTES: usize = 255;
/// Deepest folder nesting on import and export.
pub const MAX_FOLDER_DEPTH: usize = 256;
/// Deepest nesting of one file's inner nodes: 174 links a node reach 2^64 bytes at 7; the trickle layout goes deeper.
pub const MAX_FILE_DEPTH: usize = 32;
/// Parts without bytes that one file may list: honest writers make none, and a reader must not walk 2^n of them.
pub const MAX_EMPTY_PARTS: usize = 1024;
/// Buckets of a HAMT shard that we write: the figure of every other implementation, so that CIDs agree.
pub const HAMT_FANOUT: usize = 256;
/// Most buckets of a HAMT shard that we read (UnixFS specification; CVE-2023-23625).
pub const MAX_HAMT_FANOUT: u64 = 1024;
/// Most entries of one directory that are listed or exported: about 600 MiB of memory.
pub const MAX_DIRECTORY_ENTRIES: usize = 4_194_304;
/// Most files, folders and symlinks that one export writes unless the caller allows more: a DAG of 20 KiB can name
/// 2^256 of them.
pub const MAX_EXPORT_ENTRIES: u64 = 16_777_216;

// ---- CAR -------------------------------------------------------------------------------------------------------

/// Longest CAR header: room for the roots below.
pub const MAX_CAR_HEADER_BYTES: usize = 64 * 1024;
/// Most roots in a CAR.
pub const MAX_CAR_ROOTS: usize = 1024;

// ---- Feeds and heads -------------------------------------------------------------------------------------------

/// Longest name of a feed, in bytes.
pub const MAX_FEED_NAME_BYTES: usize = 128;
/// Longest encoded signed head: one link, one name, one key (RSA 4096 has 550 bytes) and one signature (512).
pub const MAX_SIGNED_HEAD_BYTES: usize = 2 * 1024;
/// Longest encoded entry of a feed: small, so that a chain of them is cheap to walk.
pub const MAX_ENTRY_BYTES: usize = 64 * 1024;
/// Longest encoded `meta` of an entry.
pub const MAX_ENTRY_META_BYTES: usize = 32 * 1024;
/// How far in the future a head's time may lie, in milliseconds: clocks differ.
pub const MAX_CLOCK_SKEW_MS: u64 = 10 * 60 * 1000;

// ---- Announcements ---------------------------------------------------------------------------------------------

/// Longest announcement: under gossipsub's 64 KiB, with room for its envelope.
pub const MAX_ANNOUNCEMENT_BYTES: usize = 16 * 1024;
/// Most addresses in one announcement. The original allows 8,192; no node has more than a handful.
pub const MAX_ANNOUNCEMENT_ADDRS: usize = 32;
/// Longest binary multiaddr: a relayed WebTransport address with two certificate hashes has about 300.
pub const MAX_ADDR_BYTES: usize = 512;
/// Announcements that one peer may send in a burst before the rate below holds.
pub const ANNOUNCEMENT_BURST: u32 = 32;
/// Announcements a second and peer that are taken, after the burst.
pub const ANNOUNCEMENTS_PER_SECOND: u32 = 4;
/// How many times that rate and burst a neighbour on the topic has: it passes on the announcements of many publishers.
pub const ANNOUNCEMENT_RELAY_FACTOR: u32 = 16;
/// Publishers and relays whose rate is remembered at once; the one quiet for longest makes room.
pub const MAX_RATED_PEERS: usize = 4096;
/// Announcements remembered to drop duplicates.
pub const MAX_SEEN_ANNOUNCEMENTS: usize = 8192;
/// Within this time the same head is a duplicate, in milliseconds; after it, the head may travel once more, for those
/// who came late. Not shorter than gossipsub's own duplicate cache (60 s).
pub const DUPLICATE_WINDOW_MS: u64 = 60 * 1000;
/// Feeds whose newest announced head is remembered, 2 KiB each at the most; the one quiet for longest makes room.
pub const MAX_ANNOUNCED_FEEDS: usize = 8192;
/// Feeds of our own that are announced: each is repeated for ever, and a node publishes a handful.
pub const MAX_OWN_FEEDS: usize = 1024;
/// Longest frame of an answer to a direct announcement: the reason and its envelope.
pub const MAX_ANSWER_BYTES: usize = MAX_REASON_BYTES + 16;
/// Direct announcements that are answered at once; a further one is dropped.
pub const MAX_DIRECT_ANNOUNCEMENTS: usize = 64;
/// Direct announcements that are answered at once for one peer.
pub const MAX_DIRECT_ANNOUNCEMENTS_PER_PEER: usize = 4;

// ---- IPNI ------------------------------------------------------------------------------------------------------

/// Longest context id of an advertisement: go-libipni refuses a longer one.
pub const MAX_IPNI_CONTEXT_ID_BYTES: usize = 64;
/// Longest metadata of a provider: go-libipni refuses longer ones of an advertisement itself.
pub const MAX_IPNI_METADATA_BYTES: usize = 1024;
/// Largest advertisement: those in use have under 2 KiB, one with 20 extended providers about 20 KiB.
pub const MAX_IPNI_AD_BYTES: usize = 256 * 1024;
/// Most extended providers of one advertisement: those in use have a handful.
pub const MAX_IPNI_PROVIDERS: usize = 64;
/// Most addresses of one provider in an advertisement.
pub const MAX_IPNI_ADDRS: usize = 64;
/// Longest address in an advertisement, in bytes of text: twice [`MAX_ADDR_BYTES`], since certificate hashes and the
/// like are longer as text.
pub const MAX_IPNI_ADDR_BYTES: usize = 2 * MAX_ADDR_BYTES;
/// Longest peer id as text: a digest of 64 bytes in any base.
pub const MAX_IPNI_PEER_ID_BYTES: usize = 128;
/// Longest signature with its envelope: a key and a signature of RSA 8192 have 2 KiB together; in its old form the
/// envelope also holds all that is signed.
pub const MAX_IPNI_SIGNATURE_BYTES: usize = 32 * 1024;
/// Longest signed head of a chain, as DAG-JSON: key and signature of RSA 8192 in base64, a CID and a topic.
pub const MAX_IPNI_HEAD_BYTES: usize = 8 * 1024;
/// Multihashes in an entry chunk that we write: the figure of every other publisher, about 1 MiB of DAG-JSON.
pub const DEFAULT_IPNI_CHUNK_ENTRIES: usize = 16_384;
/// Most multihashes in one entry chunk: [`MAX_BLOCK_BYTES`] hold 58,000 of SHA2-256.
pub const MAX_IPNI_CHUNK_ENTRIES: usize = 65_536;
/// Most elements of one HAMT node: those in use have 256 at the most; also the most keys in one bucket.
pub const MAX_IPNI_HAMT_FANOUT: usize = 1024;
/// Entries of advertisements fetched at once while their chain comes, so that the chain keeps a connection of its own.
pub const MAX_IPNI_AHEAD_REQUESTS: usize = 16;
/// Blocks of entries fetched, or to be fetched, before the sync asks for them; what a kill loses of them comes again.
pub const MAX_IPNI_AHEAD_BLOCKS: usize = 2_048;
/// Bytes of entries that wait in memory until the sync asks for them. Beyond it, they are fetched when they are asked for.
pub const MAX_IPNI_AHEAD_BYTES: u64 = 16 << 20;
/// Multihashes in one list or CAR that becomes an advertisement: 80 bytes each in memory, and the same again while doubles
/// are taken out; over 62 chunks.
pub const MAX_IPNI_MULTIHASHES: usize = 1_000_000;
/// Advertisements that one call lists at the most.
pub const MAX_IPNI_LISTED_ADS: usize = 10_000;
/// Multihashes that one call lists at the most: 8 MB of text.
pub const MAX_IPNI_LISTED_ENTRIES: usize = 100_000;
/// Announcements of the network that are looked into at once: each asks a publisher for its head.
pub const MAX_IPNI_LOOKS: usize = 16;
/// Longest announcement as JSON: [`MAX_ANNOUNCEMENT_BYTES`] in base64, with quotes and names.
pub const MAX_IPNI_ANNOUNCEMENT_JSON_BYTES: usize = 24 * 1024;

// ---- IPNI over HTTP --------------------------------------------------------------------------------------------

/// Requests that a client makes of one publisher at once: at a round trip of 50 ms, 320 blocks a second.
pub const MAX_IPNI_PARALLEL: usize = 16;
/// Publishers of which a client remembers what worked; the one unused for longest makes room.
pub const MAX_IPNI_PUBLISHERS: usize = 4096;
/// Addresses of one publisher that are tried, those of libp2p counting as one.
pub const MAX_IPNI_PLACES: usize = 8;
/// Connections that a client keeps open without a use for them, in all; a further one is closed after its request.
pub const MAX_IPNI_IDLE_CONNECTIONS: usize = 128;
/// How long a client keeps such a connection, in seconds: shorter than servers do, so that it is rarely the server who
/// closes it under a request.
pub const IPNI_CLIENT_IDLE_SECS: u64 = 20;
/// How long finding an address, connecting and agreeing on TLS may take, each of them, in seconds.
pub const IPNI_CONNECT_TIMEOUT_SECS: u64 = 10;
/// IP addresses of one name that are tried.
pub const MAX_IPNI_NAME_ADDRS: usize = 8;
/// An IP address that has not answered for so long, in milliseconds, is not waited for alone (RFC 8305, section 5).
pub const IPNI_NEXT_ADDR_MS: u64 = 250;
/// Redirects followed for one request: one to HTTPS, one to another name, one to spare.
pub const MAX_IPNI_REDIRECTS: usize = 3;
/// Waits before a request that failed for the moment is made again, in milliseconds, each lengthened by up to the whole
/// of it so that clients do not come together: a proxy that restarts is back by then.
pub const IPNI_RETRY_MS: [u64; 3] = [100, 500, 2000];
/// Longest wait that a server may ask for (`Retry-After`), in seconds; where it asks for more, the request fails.
pub const MAX_RETRY_AFTER_SECS: u64 = 30;
/// Longest head of a request or an answer of HTTP: proxies and content networks add much to it.
pub const MAX_HTTP_HEAD_BYTES: usize = 32 * 1024;
/// Most fields in such a head.
pub const MAX_HTTP_HEADERS: usize = 100;
/// What is sent or read at once of a body, in bytes: what an answer that nobody reads holds in memory.
pub const HTTP_PIECE_BYTES: usize = 64 * 1024;
/// Longest document that says where a libp2p peer serves which protocol: the cap of go-libp2p.
pub const MAX_HTTP_PROTOCOLS_BYTES: usize = 8 * 1024;
/// What is kept of the text of a refusal.
pub const MAX_HTTP_REASON_BYTES: usize = 512;
/// HTTP connections served at once.
pub const MAX_HTTP_CONNECTIONS: usize = 512;
/// HTTP connections of one IPv4 address or IPv6 network that are served at once: a proxy in front of us is one.
pub const MAX_HTTP_CONNECTIONS_PER_SOURCE: usize = 32;
/// Requests over libp2p streams that are served at once.
pub const MAX_HTTP_STREAMS: usize = 256;
/// Those of one peer; a further stream is reset. Twice what a client of ours opens, and some for the rest it does.
pub const MAX_HTTP_STREAMS_PER_PEER: usize = 40;
/// Requests that read the store or send its blocks at once; a further one waits. With the largest of blocks they hold
/// 256 MiB, and neither a source nor a peer can have even a third of them.
pub const MAX_HTTP_REQUESTS: usize = 128;
/// How long it waits, in seconds, before it is told to come again.
pub const HTTP_QUEUE_SECS: u64 = 5;
/// When it should come again, in seconds.
pub const HTTP_RETRY_AFTER_SECS: u64 = 2;
/// How long a client may take to send the head of its next request, in seconds: also how long its connection may be idle.
pub const HTTP_IDLE_SECS: u64 = 30;
/// How long open answers may go on after the server is told to stop, in seconds.
pub const HTTP_LINGER_SECS: u64 = 5;

// ---- dagsync ---------------------------------------------------------------------------------------------------

/// Longest sync request: as many roots with their held roots, selectors and stop links as may stand.
pub const MAX_REQUEST_BYTES: usize = 1024 * 1024;
/// Most roots of one request: the contents of so many entries come in one round trip. A longer frontier is walked in
/// several requests, its front first.
pub const MAX_REQUEST_ROOTS: usize = 8192;
/// Entries of a feed whose contents one request may ask for by naming the chain: so many small blocks the server reads
/// before it can answer, some tens of milliseconds.
pub const MAX_REQUEST_ENTRIES: usize = 16_384;
/// Most different selectors of one request.
pub const MAX_REQUEST_SELECTORS: usize = 64;
/// Most stop links of one request.
pub const MAX_STOP_LINKS: usize = 1024;
/// Longest frame of a response: a block, its CID, its kind and its length.
pub const MAX_RESPONSE_FRAME_BYTES: usize = MAX_BLOCK_BYTES + MAX_CID_BYTES + 16;
/// Links of the frontier that the end of a segment names.
pub const MAX_END_FRONTIER: usize = 64;
/// Longest reason in a refusal, in bytes.
pub const MAX_REASON_BYTES: usize = 512;
/// Most blocks that one request may move; a client that wants more asks again from its frontier. Both ends remember
/// what a request has visited, 16 bytes a block and the table's slack: so it is 9 MiB at the most, however long a sync
/// is, at the price of a round trip every few seconds and of what comes again that stands further apart than this.
pub const MAX_SEGMENT_BLOCKS: u64 = 262_144;
/// Most bytes that one request may move.
pub const MAX_SEGMENT_BYTES: u64 = 4 * 1024 * 1024 * 1024;
/// Blocks already held that a peer may send again within one request, beyond a quarter of those it was asked for.
pub const MAX_REPEATED_BLOCKS: u64 = 65_536;
/// Entries of a chain that are refused and told with the reason, in one sync; the others are only passed over.
pub const MAX_REFUSED_ENTRIES: usize = 64;
/// Blocks asked for at once of a peer that serves single blocks. At 50 ms a round trip and 16 KiB a block, 10 MB/s; at
/// most this many, twice over, wait in memory for their turn.
pub const MAX_PIECEWISE_REQUESTS: usize = 32;
/// Requests served at once, in all.
pub const MAX_SERVES: usize = 256;
/// Requests served at once for one peer; the next one is refused as busy.
pub const MAX_SERVES_PER_PEER: usize = 8;
/// A peer that makes less progress than this in [`MIN_RATE_WINDOW_SECS`] gives up its slot.
pub const MIN_RATE_BYTES_PER_SEC: u64 = 1024;
/// The window over which the minimum rate counts, in seconds.
pub const MIN_RATE_WINDOW_SECS: u64 = 20;
/// How long a peer may take until the first byte of its answer, in seconds.
pub const FIRST_BYTE_TIMEOUT_SECS: u64 = 20;
/// How long one small request and its answer may take, in seconds.
pub const CALL_TIMEOUT_SECS: u64 = 10;
/// Blocks stored in one batch at the most.
pub const STORE_BATCH_BLOCKS: usize = 8192;
/// Bytes stored in one batch, about. A large batch costs eight syncs of the disk: with 4 MiB they take up to a quarter
/// more CPU. What a sync holds of blocks not yet stored is at most two of them: what a kill can cost on a fast line.
pub const STORE_BATCH_BYTES: usize = 8 * 1024 * 1024;
/// A sync is made durable, and its frontier saved, at least every so many bytes: what a kill can cost.
pub const CHECKPOINT_BYTES: usize = 32 * 1024 * 1024;
/// The same in blocks: a chain of small entries is saved too.
pub const CHECKPOINT_BLOCKS: usize = 16_384;

// ---- The follower ----------------------------------------------------------------------------------------------

/// Most feeds that a node follows.
pub const MAX_FOLLOWS: usize = 4096;
/// Syncs that run at once (storetheindex: 32; two cores are busy with 8).
pub const MAX_SYNCS: usize = 8;
/// Most providers of one sync.
pub const MAX_PROVIDERS: usize = 16;
/// How long one provider works alone, in milliseconds, before others join in: most syncs are over by then.
pub const PARALLEL_AFTER_MS: u64 = 300;
/// A provider that brings no block for so long, in milliseconds, is relieved by one that has nothing to do: longer than
/// a healthy line or disk hesitates, shorter than the time-out of a lone provider.
pub const STALL_MS: u64 = 5000;
/// Look-ups of the follower that run at once: questions for a head, searches for a peer or for providers.
pub const MAX_LOOKUPS: usize = 32;
/// How long the follower waits for a look-up's answer, in seconds, before it counts as failed: longer than any that
/// the executor itself sets.
pub const LOOKUP_TIMEOUT_SECS: u64 = 90;
/// How often a followed publisher is asked for its head, in seconds, give or take a quarter: announcements get lost.
pub const HEAD_CHECK_SECS: u64 = 5 * 60;
/// A sync that has run for so long, in seconds, goes to the end of the queue if others wait: no chain is too long to
/// let them in. What it has fetched is kept.
pub const SYNC_SLICE_SECS: u64 = 30;
/// A newer head, or a sign of life of its publisher, shortens the wait for the next try to this, in milliseconds.
pub const NEWS_RETRY_MS: u64 = 5 * 1000;
/// A provider that sent what it should not is left out for so long, in seconds, while there are others.
pub const BAD_PROVIDER_SECS: u64 = 10 * 60;
/// First wait before a failed sync is tried again, in milliseconds; doubles up to the next figure.
pub const RETRY_MIN_MS: u64 = 500;
/// Longest wait before a failed sync is tried again, in milliseconds.
pub const RETRY_MAX_MS: u64 = 5 * 60 * 1000;

// ---- The node --------------------------------------------------------------------------------------------------

/// Commands that wait for the swarm worker; a caller waits when it is full.
pub const COMMAND_QUEUE: usize = 256;
/// Events a slow watcher may lag behind; then it is told how many it missed.
pub const EVENT_QUEUE: usize = 4096;
/// Established connections, in all.
pub const MAX_CONNECTIONS: u32 = 512;
/// Established connections with one peer: one a transport, and one more while a better one replaces it.
pub const MAX_CONNECTIONS_PER_PEER: u32 = 4;
/// Inbound connections that are being set up.
pub const MAX_PENDING_INBOUND: u32 = 128;
/// Those of one IPv4 address or IPv6 network: silent ones from one machine leave room for others.
pub const MAX_PENDING_PER_SOURCE: u32 = 96;
/// Outbound connections that are being set up.
pub const MAX_PENDING_OUTBOUND: u32 = 128;
/// Peers whose addresses are kept on disk across restarts.
pub const MAX_PERSISTED_PEERS: usize = 1024;
/// Longest body of a request to the local API.
pub const MAX_API_BODY_BYTES: usize = 4 * 1024 * 1024;
/// Connections with the local API at once; the next one waits until one closes.
pub const MAX_API_CONNECTIONS: usize = 256;
/// How long a client of the local API may take to send the head of its request, in seconds.
pub const API_HEADER_TIMEOUT_SECS: u64 = 10;
/// Longest ticket, in characters: 32 addresses of the usual length fit, and so does a line of a chat.
pub const MAX_TICKET_CHARS: usize = 8 * 1024;
/// How long a stopping node waits for its parts, in seconds, before it leaves them.
pub const SHUTDOWN_SECS: u64 = 10;

// ---- The swarm -------------------------------------------------------------------------------------------------

/// Inbound connections, of [`MAX_CONNECTIONS`]: strangers that dial us cannot take the places of those we dial.
pub const MAX_INBOUND_CONNECTIONS: u32 = 384;
/// Share of the machine's memory over which no new connection is taken.
pub const MAX_MEMORY_SHARE: f64 = 0.9;
/// Topics that one peer may subscribe to, and that a node itself may. go-libp2p-pubsub nodes use a handful.
pub const MAX_TOPICS: usize = 100;
/// Subscriptions in one message of a peer; beyond it the message's subscriptions are dropped unread.
pub const MAX_SUBSCRIPTIONS_PER_MESSAGE: usize = 1024;
/// Longest name of a topic, in bytes.
pub const MAX_TOPIC_BYTES: usize = 256;
/// Largest gossip message, its envelope included: what every gossipsub implementation reads unless told otherwise.
pub const MAX_GOSSIP_BYTES: usize = 64 * 1024;
/// Largest content of one that we send: the envelope has author, number and topic, and with RSA a key and a signature of
/// 3 KiB.
pub const MAX_GOSSIP_CONTENT_BYTES: usize = MAX_GOSSIP_BYTES - 4096;
/// Largest frame of gossip that is read, and what is control in it: go-libp2p-pubsub names up to 5,000 ids of 46 bytes at
/// once. Over it the stream is closed; libp2p's muxer does not tell the sender, whose gossip is lost from then on.
pub const MAX_GOSSIP_FRAME_BYTES: usize = 256 * 1024;
/// Ids of messages that are named to a peer at once. With 52 bytes each and the topic they stay below 16 KiB, the control
/// that rust-libp2p reads unless told otherwise.
pub const MAX_GOSSIP_IDS: usize = 256;
const _: () = assert!(MAX_GOSSIP_IDS * 52 + MAX_TOPIC_BYTES < 16 * 1024);
/// What a message that waits to be judged counts for at least, in bytes: its place in the queue, and its envelope.
pub const HELD_MESSAGE_BYTES: usize = 1024;
/// Accepted gossip messages that wait for the node; when full, a message is ignored and counted.
pub const GOSSIP_QUEUE: usize = 1024;
/// Keys that a node provides itself.
pub const MAX_PROVIDED_KEYS: usize = 65_536;
/// Keys of others whose provider records a node holds.
pub const MAX_KAD_PROVIDER_KEYS: usize = 65_536;
/// Keys that one peer may have provider records for at one node: a flood of one peer leaves room for the rest.
pub const MAX_KAD_KEYS_PER_PROVIDER: usize = 4096;
/// Providers held for one key: the replication factor of Kademlia.
pub const MAX_PROVIDERS_PER_KEY: usize = 20;
/// Records held for others and of our own.
pub const MAX_KAD_RECORDS: usize = 4096;
/// Largest value of a record: an IPNS record has at most 10 KiB; the rest is room for other kinds.
pub const MAX_KAD_RECORD_BYTES: usize = 16 * 1024;
/// Longest key of a record or of a provider record: a multihash of 64 bytes behind a prefix.
pub const MAX_KAD_KEY_BYTES: usize = 128;
/// Peers of one part of the internet in one bucket of the routing table, as in go-libp2p-kad-dht.
pub const MAX_DHT_GROUP_PER_BUCKET: usize = 2;
/// Peers of one part of the internet in the whole routing table, as in go-libp2p-kad-dht.
pub const MAX_DHT_GROUP_IN_TABLE: usize = 3;
/// Peers of one part of the internet that one query takes from what it is told: with the figure above about half of the 20
/// that it ends with, and more than honest peers of one /16 are among some hundred that it hears of.
pub const MAX_DHT_GROUP_PER_QUERY: usize = 8;
/// Largest message of Kademlia: a record, and 20 peers with their addresses; libp2p-kad's own 16 KiB do not hold both.
pub const MAX_KAD_MESSAGE_BYTES: usize = 64 * 1024;
/// Addresses kept of one peer.
pub const MAX_ADDRS_PER_PEER: usize = 10;
/// Peers whose addresses are kept in memory; the one unused for longest makes room.
pub const MAX_KNOWN_PEERS: usize = 4096;
/// Own address candidates whose reachability is remembered; the oldest makes room.
pub const MAX_ADDRESS_CANDIDATES: usize = 64;
/// Own addresses that a server of AutoNAT v1 is asked to dial, and addresses that one dials for a client: more than the
/// transports of an honest node have, and a request of them fits the 4 KiB that go-libp2p reads.
pub const AUTONAT_V1_ADDRS: usize = 16;
/// Requests of AutoNAT v1 that are served in a minute, as go-libp2p does it.
pub const AUTONAT_V1_DIALS_PER_MINUTE: usize = 30;
/// Those of one peer.
pub const AUTONAT_V1_DIALS_PER_PEER: usize = 3;
/// Peers that must say by AutoNAT v1 that an address of ours can be reached before that counts: a server's word is no
/// proof, so a single liar is not enough.
pub const AUTONAT_V1_WITNESSES: usize = 2;
/// Protocols kept of one peer: honest ones have under 50.
pub const MAX_PROTOCOLS_PER_PEER: usize = 128;
/// Longest text that a peer says about itself and that is kept, in bytes.
pub const MAX_AGENT_BYTES: usize = 128;
/// Kademlia queries of callers that run at once; the next one is refused as busy.
pub const MAX_QUERIES: usize = 256;
/// First wait before a node without any connection dials again, in milliseconds; doubles up to the next figure.
pub const REDIAL_MIN_MS: u64 = 500;
/// Longest wait before a node without any connection dials again, in milliseconds.
pub const REDIAL_MAX_MS: u64 = 60_000;
/// Peers dialled at once where there is no connection left.
pub const REDIAL_PEERS: usize = 8;
/// How long one dial may take, with the search for addresses, in seconds.
pub const DIAL_TIMEOUT_SECS: u64 = 30;
/// How long a connection that somebody asked for waits for the peer's identify, in seconds: three round trips over the
/// slowest of links.
pub const IDENTIFY_WAIT_SECS: u64 = 5;
/// How long one Kademlia query may take, in seconds.
pub const QUERY_TIMEOUT_SECS: u64 = 60;
/// How long an unused connection stays open, in seconds.
pub const IDLE_CONNECTION_SECS: u64 = 60;
/// How long a listener may take to report its first address, in seconds.
pub const LISTEN_TIMEOUT_SECS: u64 = 5;
