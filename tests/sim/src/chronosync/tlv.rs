//! Type, length and value as the packets of named data have them: enough for sizes to be right.
//!
//! Source: NDN Packet Format Specification 0.3, "TLV encoding". Types are below 253 here.

/// TLV type of a name.
pub(super) const NAME: u8 = 7;
/// TLV type of a generic component of a name.
pub(super) const COMPONENT: u8 = 8;

/// Appends one element.
pub(super) fn put(bytes: &mut Vec<u8>, kind: u8, value: &[u8]) {
    bytes.push(kind);
    match value.len() {
        len @ 0..253 => bytes.push(len as u8),
        len @ 253..=0xffff => {
            bytes.push(253);
            bytes.extend((len as u16).to_be_bytes());
        }
        len => {
            bytes.push(254);
            bytes.extend((len as u32).to_be_bytes());
        }
    }
    bytes.extend(value);
}

/// The elements one after another; ends where they do not fit.
pub(super) fn read(mut bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (kind, rest) = bytes.split_first()?;
        let (first, rest) = rest.split_first()?;
        let (len, rest) = match first {
            254 => rest.split_first_chunk().map(|(len, rest)| (u32::from_be_bytes(*len) as usize, rest))?,
            253 => rest.split_first_chunk().map(|(len, rest)| (usize::from(u16::from_be_bytes(*len)), rest))?,
            len => (usize::from(*len), rest),
        };
        let (value, rest) = rest.split_at_checked(len)?;
        bytes = rest;
        Some((*kind, value))
    })
}

/// The shortest of 1, 2, 4 and 8 bytes that holds a number.
pub(super) fn natural(number: u64) -> Vec<u8> {
    match number {
        0..=0xff => vec![number as u8],
        0x100..=0xffff => (number as u16).to_be_bytes().to_vec(),
        0x1_0000..=0xffff_ffff => (number as u32).to_be_bytes().to_vec(),
        _ => number.to_be_bytes().to_vec(),
    }
}

/// Such a number.
pub(super) fn read_natural(bytes: &[u8]) -> Option<u64> {
    matches!(bytes.len(), 1 | 2 | 4 | 8).then(|| bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

/// A member's name, of one component of 16 bytes: 20 bytes in all.
pub(super) fn name(producer: u32) -> Vec<u8> {
    let mut id = [0; 16];
    id.iter_mut().zip(producer.to_be_bytes()).for_each(|(to, from)| *to = from);
    let (mut component, mut bytes) = (Vec::new(), Vec::new());
    put(&mut component, COMPONENT, &id);
    put(&mut bytes, NAME, &component);
    bytes
}

/// Whose name that is, from the inside of the name.
pub(super) fn read_name(name: &[u8]) -> Option<u32> {
    let (_, id) = read(name).next()?;
    id.first_chunk().map(|id| u32::from_be_bytes(*id))
}
