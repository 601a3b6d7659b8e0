//! The little of protobuf that hand-written messages need.

/// Appends a number in groups of seven bits.
pub fn varint(into: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        into.push(number as u8 | 0x80);
        number >>= 7;
    }
    into.push(number as u8);
}

/// A field that holds bytes, text or a message.
pub fn bytes(field: u64, value: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(value.len() + 10);
    varint(&mut encoded, field << 3 | 2);
    varint(&mut encoded, value.len() as u64);
    encoded.extend_from_slice(value);
    encoded
}

/// A field that holds a number.
pub fn number(field: u64, value: u64) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(20);
    varint(&mut encoded, field << 3);
    varint(&mut encoded, value);
    encoded
}

/// The fields of a message that hold bytes, with their numbers; others are passed over.
///
/// # Panics
/// Where the message is malformed: it comes from an honest node.
pub(super) fn fields(mut message: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let mut fields = Vec::new();
    while !message.is_empty() {
        let tag = take_varint(&mut message);
        let value = take_varint(&mut message);
        match tag & 7 {
            0 => {}
            2 => {
                let (body, rest) = message.split_at(usize::try_from(value).expect("a length"));
                fields.push((tag >> 3, body.to_vec()));
                message = rest;
            }
            other => panic!("wire type {other} in an honest node's message"),
        }
    }
    fields
}

/// The values of one field.
pub(super) fn all(message: &[u8], wanted: u64) -> impl Iterator<Item = Vec<u8>> {
    fields(message).into_iter().filter(move |(field, _)| *field == wanted).map(|(_, value)| value)
}

/// The value of a field that holds a number, where it stands at the beginning of a message.
pub(super) fn number_of(mut message: &[u8], wanted: u64) -> Option<u64> {
    (!message.is_empty() && take_varint(&mut message) == wanted << 3).then(|| take_varint(&mut message))
}

fn take_varint(bytes: &mut &[u8]) -> u64 {
    let mut number = 0;
    for shift in (0..).step_by(7) {
        let (byte, rest) = bytes.split_first().expect("a whole number");
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    number
}
