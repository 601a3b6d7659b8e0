//! Who may write in a group: everybody, or those on a list that its owner has signed.

use std::{collections::BTreeSet, fmt};

use dagmesh_core::{
    bounded::{BoundedBytes, BoundedVec},
    cbor, frame,
    limits::{MAX_GROUP_MEMBER_ID_BYTES, MAX_GROUP_MEMBER_LIST_BYTES, MAX_GROUP_MEMBERS},
};
use libp2p_identity::{Keypair, PeerId, PublicKey};

use crate::{
    head::{GroupId, HeadError, HeadOrder},
    tree::{self, Digest},
};

/// Domain of the signature of a list.
const LIST_DOMAIN: &[u8] = b"dagmesh-group-members-v1";
/// Version of its form.
const LIST_VERSION: u64 = 1;

/// Whose heads a group takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Membership {
    /// Everybody's.
    #[default]
    Open,
    /// Its owner's, and those of the members on the owner's newest [`MemberList`]. Before one is known, the owner's alone.
    ///
    /// Closed is the writing, not the reading: whoever joins the topic sees the heads.
    Closed {
        /// Who signs the lists.
        owner: PeerId,
    },
}

/// The members of a closed group, by its owner's word. Exists only with a checked signature; bound to its group.
///
/// On the wire: a DAG-CBOR list `[v, pubkey, version, time, [member, ...], sig]` of at most
/// [`MAX_GROUP_MEMBER_LIST_BYTES`]: `pubkey` in libp2p's protobuf encoding, members as the bytes of their ids, ascending.
#[derive(Clone, PartialEq, Eq)]
pub struct MemberList {
    group: GroupId,
    owner: PeerId,
    version: u64,
    time: u64,
    members: BTreeSet<PeerId>,
    signed: Digest,
    bytes: Vec<u8>,
}

type Ids = BoundedVec<BoundedBytes<MAX_GROUP_MEMBER_ID_BYTES>, MAX_GROUP_MEMBERS>;
type Wire = (u64, serde_bytes::ByteBuf, u64, u64, Ids, serde_bytes::ByteBuf);

impl MemberList {
    /// Signs version `version` (from 1) of the list of this group: at most [`MAX_GROUP_MEMBERS`] besides the owner, who is
    /// always a member. `time` in Unix milliseconds.
    pub fn sign(
        owner: &Keypair,
        group: &GroupId,
        version: u64,
        mut members: BTreeSet<PeerId>,
        time: u64,
    ) -> Result<Self, HeadError> {
        members.remove(&owner.public().to_peer_id());
        let ids: Result<Vec<_>, _> = members.iter().map(|member| BoundedBytes::new(member.to_bytes())).collect();
        let ids = ids.and_then(Ids::new).map_err(list_error)?;
        let pubkey = owner.public().encode_protobuf();
        let signed = signed_bytes(group, &pubkey, version, time, &ids);
        let sig = owner.sign(&signed).map_err(|error| HeadError::Signing(error.to_string()))?;
        let wire: Wire = (LIST_VERSION, pubkey.into(), version, time, ids, sig.into());
        let bytes = cbor::to_vec(&wire).map_err(list_error)?;
        Self::decode(group, &owner.public().to_peer_id(), &bytes)
    }

    /// Reads a list of this group and checks that its owner has signed it.
    pub fn decode(group: &GroupId, owner: &PeerId, bytes: &[u8]) -> Result<Self, HeadError> {
        UnverifiedList::parse(group, owner, bytes)?.verify()
    }

    /// Its bytes, as on the wire.
    pub fn encode(&self) -> &[u8] {
        &self.bytes
    }

    /// From 1; a higher one replaces it.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// When it was signed, by the owner's clock, in Unix milliseconds.
    pub fn time(&self) -> u64 {
        self.time
    }

    /// Who signed it.
    pub fn owner(&self) -> PeerId {
        self.owner
    }

    /// The members, the owner among them.
    pub fn members(&self) -> &BTreeSet<PeerId> {
        &self.members
    }

    pub(crate) fn is_for(&self, group: &GroupId, owner: &PeerId) -> bool {
        (&self.group, &self.owner) == (group, owner)
    }

    /// How this list stands to `known`, one of the same group.
    pub(crate) fn compare(&self, known: &Self) -> HeadOrder {
        match self.version.cmp(&known.version) {
            std::cmp::Ordering::Greater => HeadOrder::Newer,
            std::cmp::Ordering::Less => HeadOrder::Older,
            std::cmp::Ordering::Equal if self.signed == known.signed => HeadOrder::Same,
            std::cmp::Ordering::Equal => HeadOrder::Fork,
        }
    }

    /// Which of two lists of one version is kept: by the hash of what was signed, so that all who saw both keep the same.
    pub(crate) fn outranks(&self, known: &Self) -> bool {
        (self.version, self.signed) > (known.version, known.signed)
    }
}

impl fmt::Debug for MemberList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemberList({}/{}, {} members)", self.owner, self.version, self.members.len())
    }
}

/// A list whose signature is not checked yet.
pub(crate) struct UnverifiedList {
    list: MemberList,
    public: PublicKey,
    signed: Vec<u8>,
    sig: serde_bytes::ByteBuf,
}

impl UnverifiedList {
    pub(crate) fn parse(group: &GroupId, owner: &PeerId, bytes: &[u8]) -> Result<Self, HeadError> {
        let (len, max) = (bytes.len(), MAX_GROUP_MEMBER_LIST_BYTES);
        if len > max {
            return Err(HeadError::TooLarge { what: "a list of members", len, max });
        }
        let wire: Wire = cbor::from_slice(bytes).map_err(list_error)?;
        let (v, pubkey, version, time, ids, sig) = wire;
        if v != LIST_VERSION || version == 0 {
            return Err(list_error(format!("form {v}, version {version}")));
        }
        let public = PublicKey::try_decode_protobuf(&pubkey).map_err(list_error)?;
        if public.to_peer_id() != *owner || public.encode_protobuf() != *pubkey {
            return Err(HeadError::Owner { owner: *owner });
        }
        let mut members = BTreeSet::new();
        for id in ids.iter() {
            let member = PeerId::from_bytes(id).map_err(list_error)?;
            if member == *owner || members.last().is_some_and(|last| *last >= member) || member.to_bytes()[..] != **id {
                return Err(list_error("its members do not ascend, or have another spelling"));
            }
            members.insert(member);
        }
        members.insert(*owner);
        let signed = signed_bytes(group, &pubkey, version, time, &ids);
        let digest = tree::sha256(&signed);
        let list =
            MemberList { group: *group, owner: *owner, version, time, members, signed: digest, bytes: bytes.to_vec() };
        Ok(Self { list, public, signed, sig })
    }

    pub(crate) fn version(&self) -> u64 {
        self.list.version
    }

    pub(crate) fn verify(self) -> Result<MemberList, HeadError> {
        let valid = self.public.verify(&self.signed, &self.sig);
        if valid { Ok(self.list) } else { Err(HeadError::Owner { owner: self.list.owner }) }
    }
}

/// What is signed: the domain, the group, then each field and each member, each behind its length as an unsigned varint;
/// integers as eight bytes, big endian.
fn signed_bytes(group: &GroupId, pubkey: &[u8], version: u64, time: u64, ids: &Ids) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(256 + 48 * ids.len());
    let (v, version, time) = (LIST_VERSION.to_be_bytes(), version.to_be_bytes(), time.to_be_bytes());
    for part in [LIST_DOMAIN, group.as_bytes(), &v, pubkey, &version, &time] {
        frame::append(&mut bytes, &[part]);
    }
    ids.iter().for_each(|id| frame::append(&mut bytes, &[id]));
    bytes
}

fn list_error(error: impl fmt::Display) -> HeadError {
    HeadError::Members(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{NOW_MS, key};

    fn group() -> GroupId {
        GroupId::closed("test", &owner()).expect("a name")
    }

    fn owner() -> PeerId {
        key(0).public().to_peer_id()
    }

    fn ids(n: u16) -> BTreeSet<PeerId> {
        (1..=n).map(|n| key(n).public().to_peer_id()).collect()
    }

    #[test]
    fn a_list_comes_back_as_it_was_signed_and_no_byte_of_it_can_be_changed() {
        let list = MemberList::sign(&key(0), &group(), 7, ids(3), NOW_MS).expect("signs");
        assert_eq!(MemberList::decode(&group(), &owner(), list.encode()), Ok(list.clone()));
        assert_eq!((list.version(), list.time(), list.owner()), (7, NOW_MS, owner()));
        assert!(list.members().contains(&owner()) && ids(3).is_subset(list.members()) && list.members().len() == 4);
        for at in 0..list.encode().len() {
            for bit in [1, 0x80] {
                let mut bytes = list.encode().to_vec();
                bytes[at] ^= bit;
                assert!(MemberList::decode(&group(), &owner(), &bytes).is_err(), "byte {at} changed");
            }
        }
    }

    #[test]
    fn a_list_of_one_who_is_not_the_owner_or_of_another_group_is_refused() {
        let refused = Err(HeadError::Owner { owner: owner() });
        let stranger = MemberList::sign(&key(1), &group(), 7, ids(3), NOW_MS).expect("signs");
        assert_eq!(MemberList::decode(&group(), &owner(), stranger.encode()), refused);
        let other = GroupId::closed("another", &owner()).expect("a name");
        let theirs = MemberList::sign(&key(0), &other, 7, ids(3), NOW_MS).expect("signs");
        assert_eq!(MemberList::decode(&group(), &owner(), theirs.encode()), refused);
        assert!(!theirs.is_for(&group(), &owner()) && theirs.is_for(&other, &owner()));
        assert!(MemberList::sign(&key(0), &group(), 0, ids(3), NOW_MS).is_err(), "versions begin at 1");
    }

    #[test]
    fn the_id_of_a_closed_group_is_of_its_name_and_its_owner() {
        let another = key(1).public().to_peer_id();
        let all = [
            GroupId::closed("test", &owner()),
            GroupId::closed("tesu", &owner()),
            GroupId::closed("test", &another),
            GroupId::open("test"),
        ];
        assert_eq!(all.iter().flatten().collect::<BTreeSet<_>>().len(), all.len());
        assert!(GroupId::closed("", &owner()).is_err());
    }

    #[test]
    fn a_full_list_fits_its_cap_and_one_member_more_is_refused() {
        // The longest ids that there are.
        let id = |n: u16| {
            let mut bytes = vec![0, 42];
            bytes.resize(MAX_GROUP_MEMBER_ID_BYTES, 1);
            bytes[2..4].copy_from_slice(&n.to_be_bytes());
            PeerId::from_bytes(&bytes).expect("an id")
        };
        let all: BTreeSet<_> = (0..MAX_GROUP_MEMBERS as u16).map(id).collect();
        let full = MemberList::sign(&key(0), &group(), u64::MAX, all.clone(), u64::MAX).expect("signs");
        // With room for an owner's key and signature of RSA 4096.
        assert!(full.encode().len() + 1024 <= MAX_GROUP_MEMBER_LIST_BYTES, "{}", full.encode().len());
        let over = all.into_iter().chain([id(MAX_GROUP_MEMBERS as u16)]).collect();
        assert!(MemberList::sign(&key(0), &group(), 1, over, 1).is_err());
        let long = vec![0; MAX_GROUP_MEMBER_LIST_BYTES + 1];
        let refused = MemberList::decode(&group(), &owner(), &long);
        assert!(matches!(refused, Err(HeadError::TooLarge { .. })));
        let refused = MemberList::decode(&group(), &owner(), &long[1..]);
        assert!(matches!(refused, Err(HeadError::Members(_))));
    }

    #[test]
    fn members_stand_in_one_order() {
        let signed = |ids: Vec<PeerId>| {
            let ids: Vec<_> = ids.iter().map(|id| BoundedBytes::new(id.to_bytes()).expect("fits")).collect();
            let (ids, pubkey) = (Ids::new(ids).expect("fits"), key(0).public().encode_protobuf());
            let sig = key(0).sign(&signed_bytes(&group(), &pubkey, 1, 1, &ids)).expect("signs");
            let wire: Wire = (LIST_VERSION, pubkey.into(), 1, 1, ids, sig.into());
            MemberList::decode(&group(), &owner(), &cbor::to_vec(&wire).expect("encodes")).is_ok()
        };
        let up: Vec<_> = ids(3).into_iter().collect();
        assert!(signed(up.clone()));
        assert!(up.is_sorted_by_key(|id| id.to_bytes()), "by their bytes");
        assert!(!signed(up.iter().rev().copied().collect()) && !signed(vec![up[0], up[0]]));
        assert!(!signed(vec![owner()]), "who is one anyway");
    }
}
