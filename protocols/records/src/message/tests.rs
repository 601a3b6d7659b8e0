use proptest::prelude::*;

use super::*;
use crate::testing::record;

fn requests() -> Vec<Request> {
    let record = record(1, "name", 1, "value");
    vec![Request::put(&record.key(), record.encode()).expect("fits"), Request::get(&record.key()).expect("fits")]
}

fn answers() -> Vec<Answer> {
    let record = RecordBytes::new(record(1, "name", 1, "value").encode()).expect("fits");
    let codes = (1..=8).map(|number| Code::try_from(number).expect("a code"));
    let errors = codes.map(|code| Answer::error(code, "why"));
    [
        Answer::Stored { news: true },
        Answer::Stored { news: false },
        Answer::Superseded { record: record.clone(), timestamp_ms: 7 },
        Answer::Record(record),
        Answer::Absent,
    ]
    .into_iter()
    .chain(errors)
    .collect()
}

#[test]
fn messages_come_back_as_they_were_sent() {
    for request in requests() {
        assert_eq!(Request::decode(&request.encode().expect("encodes")), Ok(request));
    }
    for answer in answers() {
        assert_eq!(Answer::decode(&answer.encode().expect("encodes")), Ok(answer));
    }
}

#[test]
fn the_largest_messages_fit_and_what_is_over_a_bound_is_too_big() {
    let (key, record) = (vec![1; MAX_KAD_KEY_BYTES], vec![2; MAX_RECORD_BYTES]);
    let put = Request::put(&key, &record).expect("fits");
    assert_eq!(Request::decode(&put.encode().expect("fits")), Ok(put));
    let error = Answer::error(Code::Internal, "ä".repeat(MAX_REASON_BYTES));
    assert!(matches!(&error, Answer::Error(refusal) if refusal.reason.len() == MAX_REASON_BYTES));
    assert_eq!(Answer::decode(&error.encode().expect("fits")), Ok(error));
    let over = [
        Request::put(&[&key[..], &[0]].concat(), &record),
        Request::put(&key, &[&record[..], &[0]].concat()),
        Request::get(&[&key[..], &[0]].concat()),
    ];
    for refused in over {
        assert_eq!(refused.map_err(|error| error.code()), Err(Code::TooBig));
    }
    let bytes = vec![0; MAX_RECORD_MESSAGE_BYTES + 1];
    assert_eq!(Request::decode(&bytes).map_err(|error| error.code()), Err(Code::TooBig));
    // Within the cap of the message, over that of the field.
    let long = cbor::to_vec(&RequestWireOf("g", vec![0; MAX_KAD_KEY_BYTES + 1])).expect("encodes");
    assert!(Request::decode(&long).is_err());
}

/// `{kind: bytes}`.
struct RequestWireOf(&'static str, Vec<u8>);

impl Serialize for RequestWireOf {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map([(self.0, serde_bytes::Bytes::new(&self.1))])
    }
}

#[test]
fn a_request_of_an_unknown_kind_is_told_from_a_broken_one() {
    let code = |bytes: &[u8]| Request::decode(bytes).map_err(|error| error.code());
    let unknown = cbor::to_vec(&RequestWireOf("x", vec![1])).expect("encodes");
    assert_eq!(code(&unknown), Err(Code::UnknownRequest));
    assert_eq!(code(&cbor::to_vec("x").expect("encodes")), Err(Code::UnknownRequest));
    assert_eq!(code(&cbor::to_vec("g").expect("encodes")), Err(Code::BadRequest), "without its key");
    assert_eq!(code(&cbor::to_vec(&7).expect("encodes")), Err(Code::BadRequest));
    assert_eq!(code(b""), Err(Code::BadRequest));
    let no_code = cbor::to_vec(&std::collections::BTreeMap::from([("e", (9u8, "why"))])).expect("encodes");
    assert_eq!(Answer::decode(&no_code), Err(MessageError::Code(9)));
}

proptest! {
    #[test]
    fn whatever_is_taken_is_written_back_to_the_same_bytes(
        message in 0usize..15,
        at in any::<prop::sample::Index>(),
        with in any::<u8>(),
    ) {
        let mut all: Vec<_> = requests().iter().map(|message| message.encode().expect("encodes")).collect();
        all.extend(answers().iter().map(|message| message.encode().expect("encodes")));
        let mut bytes = all[message].clone();
        let at = at.index(bytes.len());
        bytes[at] = with;
        if let Ok(request) = Request::decode(&bytes) {
            prop_assert_eq!(request.encode().expect("encodes"), bytes.clone());
        }
        if let Ok(answer) = Answer::decode(&bytes) {
            prop_assert_eq!(answer.encode().expect("encodes"), bytes);
        }
    }
}
