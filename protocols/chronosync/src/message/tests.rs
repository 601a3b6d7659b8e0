use dagmesh_core::limits::{MAX_GROUP_GOSSIP_HEAD_BYTES, MAX_GROUP_PAGE_BYTES};
use proptest::prelude::*;

use super::*;
use crate::testing::head;

fn summary(leaves: u64) -> Summary {
    Summary { members: 0, root: [3; 32], leaves, sum: leaves * MAX_GROUP_SEQUENCE }
}

fn list(heads: usize, each: usize) -> Vec<HeadBytes> {
    vec![HeadBytes::new(vec![7; each]).expect("fits"); heads]
}

fn page(heads: Vec<HeadBytes>, state: Summary) -> Page {
    let next = Some(LeafKey { name: [9; 32], session: u64::MAX });
    Page { state, difference: true, heads: HeadList::new(heads).expect("fits"), next, members: None }
}

fn list_of_members(len: usize) -> MemberBytes {
    MemberBytes::new(vec![7; len]).expect("fits")
}

fn from() -> Cursor {
    Cursor { base: [1; 32], after: Some(LeafKey { name: [9; 32], session: u64::MAX }) }
}

#[test]
fn messages_come_back_as_they_were_sent() {
    let heads = HeadList::new([HeadBytes::new(head(1, 2, 3, "x").encode()).expect("fits")]).expect("fits");
    let update = Update { previous: [0; 32], state: summary(2), changed: heads.clone(), vector: heads.clone() };
    let page = page(heads.to_vec(), summary(5));
    let gossip = [
        Gossip::Update(update),
        Gossip::Digest { state: summary(0), bucket: 7 },
        Gossip::Recover { from: Cursor { after: None, ..from() }, members: 3, bucket: 7 },
        Gossip::Page { to: from(), page: page.clone() },
        Gossip::Members(list_of_members(9)),
    ];
    for message in gossip {
        assert_eq!(Gossip::decode(&message.encode().expect("encodes")), Ok(message));
    }
    let page = Page { members: Some(list_of_members(9)), ..page };
    let recover = Request::Recover { from: from(), state: summary(1), heads, members: page.members.clone() };
    for message in [Request::Hello(Summary { members: 7, ..summary(1) }), recover] {
        assert_eq!(Request::decode(&message.encode().expect("encodes")), Ok(message));
    }
    for message in [Answer::Digest(summary(1)), Answer::Page(page.clone()), Answer::Busy] {
        assert_eq!(Answer::decode(&message.encode().expect("encodes")), Ok(message));
    }
    // On the topic there is no room for both.
    let both = Gossip::Page { to: from(), page }.encode().expect("encodes");
    assert!(matches!(Gossip::decode(&both), Err(MessageError::Bound(_))));
}

#[test]
fn a_heartbeat_is_small_whatever_the_group() {
    let digest = Gossip::Digest { state: summary(MAX_GROUP_LEAVES as u64), bucket: u64::MAX };
    assert!(digest.encode().expect("encodes").len() < 72);
}

#[test]
fn a_full_page_fits_its_message_and_one_byte_more_than_the_cap_is_refused() {
    let small = list(MAX_GROUP_PAGE_HEADS, MAX_GROUP_PAGE_BYTES / MAX_GROUP_PAGE_HEADS);
    let mut large = list(MAX_GROUP_PAGE_BYTES / MAX_GROUP_HEAD_BYTES, MAX_GROUP_HEAD_BYTES);
    large.extend(list(1, MAX_GROUP_PAGE_BYTES % MAX_GROUP_HEAD_BYTES));
    for heads in [small, large] {
        let members = Some(list_of_members(MAX_GROUP_MEMBER_LIST_BYTES));
        let page = Page { members: members.clone(), ..page(heads, summary(MAX_GROUP_LEAVES as u64)) };
        let request = Request::Recover { from: from(), state: page.state, heads: page.heads.clone(), members };
        assert_eq!(request.encode().and_then(|bytes| Request::decode(&bytes)), Ok(request));
        let answer = Answer::Page(page);
        assert_eq!(answer.encode().and_then(|bytes| Answer::decode(&bytes)), Ok(answer));
    }
    let heads = list(MAX_GROUP_GOSSIP_HEAD_BYTES / 24, 24);
    let page = page(heads, summary(MAX_GROUP_LEAVES as u64));
    assert!(Gossip::Page { to: from(), page }.encode().is_ok());

    assert!(Gossip::Members(list_of_members(MAX_GROUP_MEMBER_LIST_BYTES)).encode().is_ok());
    let sized = |len| {
        let mut bytes = vec![0; len];
        bytes[0] = 0xff;
        bytes
    };
    let (unicast, gossip) = (MAX_GROUP_MESSAGE_BYTES, MAX_GROUP_GOSSIP_BYTES);
    let large = |error| matches!(error, MessageError::TooLarge { .. });
    assert!(
        Request::decode(&sized(unicast + 1)).is_err_and(large) && !Request::decode(&sized(unicast)).is_err_and(large)
    );
    assert!(
        Answer::decode(&sized(unicast + 1)).is_err_and(large) && !Answer::decode(&sized(unicast)).is_err_and(large)
    );
    assert!(Gossip::decode(&sized(gossip + 1)).is_err_and(large) && !Gossip::decode(&sized(gossip)).is_err_and(large));
}

#[test]
fn heads_are_counted_and_measured_as_they_are_read() {
    let wire = |heads: usize, each: usize| {
        let heads = vec![serde_bytes::ByteBuf::from(vec![7; each]); heads];
        let page = ((ByteArray::new([1; 32]), 1u64, 1u64, 0u64), false, heads, None::<()>, None::<()>);
        let page = std::collections::BTreeMap::from([("p", page)]);
        cbor::to_vec(&page).expect("encodes")
    };
    assert!(Answer::decode(&wire(MAX_GROUP_PAGE_HEADS, 1)).is_ok());
    assert!(matches!(Answer::decode(&wire(MAX_GROUP_PAGE_HEADS + 1, 1)), Err(MessageError::Cbor(_))));
    assert!(Answer::decode(&wire(1, MAX_GROUP_HEAD_BYTES)).is_ok());
    assert!(matches!(Answer::decode(&wire(1, MAX_GROUP_HEAD_BYTES + 1)), Err(MessageError::Cbor(_))));
    let half = HeadList::new(list(MAX_GROUP_PAGE_HEADS / 2, 1)).expect("fits");
    let more = HeadList::new(list(MAX_GROUP_PAGE_HEADS / 2 + 1, 1)).expect("fits");
    let update = |vector| Update { previous: [0; 32], state: summary(2), changed: half.clone(), vector };
    let read = |update| Gossip::decode(&Gossip::Update(update).encode().expect("encodes"));
    assert!(read(update(half.clone())).is_ok());
    assert!(matches!(read(update(more)), Err(MessageError::Bound(_))));
}

#[test]
fn a_digest_that_no_state_has_is_refused() {
    let read = |leaves, sum| {
        let state = Summary { members: 0, root: [1; 32], leaves, sum };
        Answer::decode(&Answer::Digest(state).encode().expect("encodes")).is_ok()
    };
    let max = MAX_GROUP_LEAVES as u64;
    assert!(read(0, 0) && read(max, max * MAX_GROUP_SEQUENCE) && read(2, 2));
    assert!(!read(0, 1) && !read(max + 1, max + 1) && !read(2, 2 * MAX_GROUP_SEQUENCE + 1) && !read(2, 1));
    assert!(!read(u64::MAX, u64::MAX));
}

proptest! {
    #[test]
    fn any_bytes_are_a_message_of_one_spelling_or_an_error(
        bytes in prop::collection::vec(any::<u8>(), 0..256), at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let whole = Gossip::Page { to: from(), page: page(list(2, 5), summary(9)) }.encode().expect("encodes");
        let mut changed = whole.clone();
        *at.get_mut(&mut changed) = byte;
        for bytes in [&bytes, &changed, &whole[..at.index(whole.len())].to_vec()] {
            if let Ok(message) = Gossip::decode(bytes) {
                prop_assert_eq!(&message.encode().expect("encodes"), bytes);
            }
            if let Ok(message) = Request::decode(bytes) {
                prop_assert_eq!(&message.encode().expect("encodes"), bytes);
            }
            if let Ok(message) = Answer::decode(bytes) {
                prop_assert_eq!(&message.encode().expect("encodes"), bytes);
            }
            prop_assert!(crate::GroupHead::decode(&crate::testing::group(), bytes).is_err());
        }
    }
}
