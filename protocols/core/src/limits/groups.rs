//! Groups: their heads, messages, queues, and what one of them may make us keep.

use super::*;

/// Largest inline payload of a group's head: a line of chat; anything longer belongs into a DAG.
pub const MAX_GROUP_INLINE_BYTES: usize = 512;
/// Longest text of one publication of a group: a long letter; anything longer belongs into a DAG of its own.
pub const MAX_GROUP_TEXT_BYTES: usize = 16 * 1024;
/// Largest entry of a group: the text, a link, the time, and the names of the fields.
pub const MAX_GROUP_ENTRY_BYTES: usize = MAX_GROUP_TEXT_BYTES + MAX_CID_BYTES + 64;
/// Largest signed head of a group: the payload, the longest CID, an RSA key of 2,048 bits with its signature, 260 bytes
/// of numbers and lengths.
pub const MAX_GROUP_HEAD_BYTES: usize = 1536;
/// Longest name of a group, in bytes: that of a feed.
pub const MAX_GROUP_NAME_BYTES: usize = 128;
/// Most members of a closed group, besides its owner: their list travels in one gossip message.
pub const MAX_GROUP_MEMBERS: usize = 1024;
/// Longest id of a member: a key of 42 bytes in place (libp2p's cap), or its hash.
pub const MAX_GROUP_MEMBER_ID_BYTES: usize = 44;
/// Longest list of the members of a group: their ids at the longest, two bytes of length each, 2 KiB for the owner's key
/// and signature (RSA 4096 has 550 and 512 bytes).
pub const MAX_GROUP_MEMBER_LIST_BYTES: usize = (MAX_GROUP_MEMBER_ID_BYTES + 2) * MAX_GROUP_MEMBERS + 2048;
/// Highest sequence number: one a millisecond for 8,900 years, and the sum over all leaves stays below 2^63.
pub const MAX_GROUP_SEQUENCE: u64 = (1 << 48) - 1;
/// Most leaves (sessions of producers) of a group: about 4 MiB of heads, 24 MiB with the largest payloads.
pub const MAX_GROUP_LEAVES: usize = 16_384;
/// Sessions of one producer that count, the newest first: each restart without its disk begins one.
pub const MAX_GROUP_SESSIONS: usize = 64;
/// How far in the future a session may lie, in milliseconds (24 h): a session is the clock at its start, and one from
/// the far future would outlive all that follow.
pub const MAX_GROUP_SESSION_AHEAD_MS: u64 = 24 * 60 * 60 * 1000;
/// Past roots that a group remembers with what changed after each: at one change a second, four minutes.
pub const MAX_GROUP_LOG_ROOTS: usize = 256;
/// Changes that the log of a group remembers in all: 40 bytes each, and a log that names each leaf once says no less
/// than the whole state.
pub const MAX_GROUP_LOG_CHANGES: usize = MAX_GROUP_LEAVES;
/// A group's update carries the whole vector while it is no larger than this: one packet.
pub const GROUP_VECTOR_BYTES: usize = 1024;
/// Largest gossip message of a group: [`MAX_GOSSIP_BYTES`] without the envelope.
pub const MAX_GROUP_GOSSIP_BYTES: usize = MAX_GOSSIP_BYTES - 4096;
/// Heads in one gossip message of a group, by their bytes in all: leaves room for the rest of the message.
pub const MAX_GROUP_GOSSIP_HEAD_BYTES: usize = 48 * 1024;
/// Heads in one page of a recovery, by their bytes in all: a group of 1,000 leaves takes one page.
pub const MAX_GROUP_PAGE_BYTES: usize = 256 * 1024;
/// Heads in one message: a page of the smallest ones. Each costs a signature check of about 50 µs.
pub const MAX_GROUP_PAGE_HEADS: usize = 2048;
/// Largest unicast message of a group: a page, three bytes of length with each head of it, and a list of members.
pub const MAX_GROUP_MESSAGE_BYTES: usize =
    MAX_GROUP_PAGE_BYTES + 3 * MAX_GROUP_PAGE_HEADS + MAX_GROUP_MEMBER_LIST_BYTES + 1024;
/// Unknown digests of a group that wait for their timer: a flood of invented ones must not take memory. When full, a
/// random one makes room, so that a flood cannot keep the honest ones out.
pub const MAX_GROUP_PENDING_DIGESTS: usize = 64;
/// Of those, claimed by one author: an honest one moves on from its old digests.
pub const MAX_GROUP_PENDING_PER_AUTHOR: usize = 4;
/// Peers of a group that are remembered with what they said last; the one not heard for longest makes room.
pub const MAX_GROUP_PEERS: usize = 1024;
/// Recoveries of a group that run at once, each from another peer: a few who do not answer must not keep us from the others
/// until their requests are given up.
pub const MAX_GROUP_RECOVERIES: usize = 8;
/// Pages of one recovery: a full group takes 16 of the usual heads, 96 of the largest.
pub const MAX_GROUP_RECOVERY_PAGES: u32 = 128;
/// Requests that a peer of a group may make at once: a full recovery of the usual heads, twice.
pub const GROUP_REQUEST_BURST: u32 = 32;
/// Requests that a peer of a group may make per second beyond the burst.
pub const GROUP_REQUESTS_PER_SECOND: u32 = 4;
/// Gossip of a group, and the heads that come with a request, are counted in units of so many bytes, a message one more: no
/// head is smaller, so a neighbour has no more signatures checked than it has units.
pub const GROUP_GOSSIP_UNIT_BYTES: usize = 112;
/// Units that a neighbour may send in a burst, before any of it is decoded: 1,600 updates of 1 KiB. Five members that
/// publish 200 times each, all heard through one neighbour, are within it.
pub const GROUP_GOSSIP_BURST: u32 = 16_384;
/// Units a second and neighbour beyond the burst: 200 updates of 1 KiB, or 2,000 heartbeats. Signature checks of about 50 µs
/// take a tenth of a core so.
pub const GROUP_GOSSIP_PER_SECOND: u32 = 2048;
/// Heads whose signature was checked that are remembered by their hash, 64 bytes each: a message is passed on only where all
/// of it is checked, and each of several updates at once carries the heads of the others.
pub const MAX_GROUP_CHECKED_HEADS: usize = 1024;
/// Answers to a call to the whole group that wait for their random delay.
pub const MAX_GROUP_PENDING_ANSWERS: usize = 16;
/// Producers of one node in one group.
pub const MAX_GROUP_PRODUCERS: usize = 16;
/// Publications of one producer that wait for the disk; the next one is refused.
pub const MAX_GROUP_PUBLISH_QUEUE: usize = 1024;
/// Groups that a node is a member of: each has a topic of its own, of the [`MAX_TOPICS`] that peers take from us.
pub const MAX_GROUPS: usize = 64;
/// Bytes of gossip of one group that wait to be judged: 2048 small messages, or 32 of the largest. Half of that one neighbour
/// may take: a burst of five members with 200 publications each. With [`MAX_GROUPS`] under attack at once, 128 MiB.
pub const GROUP_GOSSIP_BYTES: usize = 2 * 1024 * 1024;
/// How long a gossip message may wait for its verdict, in milliseconds: gossipsub forgets it after eight heartbeats of a
/// second, and counts from the first of them.
pub const GROUP_VERDICT_MS: u64 = 6_000;
/// Requests of groups that are answered at once; a further one is dropped. Each holds a request and an answer, 32 MiB
/// of the largest.
pub const MAX_GROUP_REQUESTS: usize = 64;
/// Those of one peer: a greeting in each of a few groups, beside a recovery.
pub const MAX_GROUP_REQUESTS_PER_PEER: usize = 8;
/// Requests of ours that run at once, over all groups; the next one waits.
pub const MAX_GROUP_CALLS: usize = 32;
/// Messages and verdicts of a group that wait for the swarm's worker; when full, one is dropped, as the topic may drop
/// any, and a message without a verdict goes no further.
pub const GROUP_VOICE_QUEUE: usize = 2048;
/// Heads and events of a group that wait for the disk before no more messages are taken in from the network.
pub const GROUP_WRITE_QUEUE: usize = 4096;
/// Entries that one jump over numbers of a session may bring, the newest; what lies further back is told to be left out.
/// At 4 KiB an entry 256 MiB; a member that was away while another published one a second for 18 hours misses nothing.
pub const MAX_GROUP_HISTORY: u64 = 65_536;
/// Chains and contents of groups that are fetched at once, over all groups: half of what one peer serves us, so that
/// feeds go on beside them.
pub const MAX_GROUP_FETCHES: usize = 4;
/// Rows of a group's log that are read at once, for whoever lists or watches.
pub const GROUP_LOG_ROWS: usize = 256;
/// Rows that the log of a group holds, the newest; older ones give way, and what they alone referred to is garbage then. Four
/// times [`MAX_GROUP_HISTORY`]: 64 MiB of rows, with a chat's lines 128 MiB of entries, with the longest texts 4 GiB.
pub const MAX_GROUP_LOG: u64 = 262_144;
/// Gaps of a group that are remembered, the newest: an honest producer leaves none, and a hostile one as many as it likes.
pub const MAX_GROUP_GAPS: u64 = 4096;
/// Bytes after which no more is fetched unasked of one content of a group, unless `[groups] max_content_bytes` says otherwise (1 GiB): in an
/// open group anybody names contents, and a DAG has no end that can be seen from its root.
pub const GROUP_CONTENT_BYTES: u64 = 1024 * 1024 * 1024;
/// What each block of a content counts beside its bytes: its key and its place in the index, so that a DAG of empty blocks has
/// an end too.
pub const GROUP_CONTENT_BLOCK_BYTES: u64 = 128;
/// Neighbours of a group below which others are looked for and dialled: the mesh of gossipsub wants six.
pub const GROUP_PEERS_LOW: usize = 6;
/// Members that are kept with a membership and their addresses, to be dialled when too few are there; the oldest makes
/// room.
pub const MAX_GROUP_KNOWN_PEERS: usize = 8;
/// How often others are looked for while a group has few neighbours, in seconds; while it has none, a tenth of that.
pub const GROUP_FIND_SECS: u64 = 60;
