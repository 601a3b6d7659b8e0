//! The one DAG-CBOR codec of the house: strict, bounded, total.
//!
//! [`scan`] walks the bytes once, without recursion and without building a tree, refuses everything that the
//! DAG-CBOR specification refuses, and names each link with its path. [`from_slice`] scans before it decodes, so no
//! decoder ever sees bytes that are nested too deep, claim more than they hold, or have two spellings.
//!
//! Source: <https://ipld.io/specs/codecs/dag-cbor/spec/> ("Strictness").

use cid::Cid;
use serde::{Serialize, de::DeserializeOwned};

use crate::{limits, take_cid};

/// Why bytes are no DAG-CBOR that we take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CborError {
    /// The item at this offset is not canonical DAG-CBOR.
    #[error("not canonical DAG-CBOR at byte {at}: {what}")]
    Malformed {
        /// Offset into the input, in bytes.
        at: usize,
        /// What was wrong there.
        what: &'static str,
    },
    /// Nested deeper than the cap.
    #[error("DAG-CBOR nested deeper than {max}")]
    TooDeep {
        /// The cap.
        max: usize,
    },
    /// More links than the cap.
    #[error("more than {max} links in one block")]
    TooManyLinks {
        /// The cap.
        max: usize,
    },
    /// A link whose CID is refused.
    #[error("a link at byte {at} holds no usable CID: {what}")]
    Link {
        /// Offset into the input, in bytes.
        at: usize,
        /// What was wrong with it.
        what: String,
    },
    /// Well-formed, but not the type that was expected.
    #[error("not the expected message: {0}")]
    Schema(String),
    /// The value cannot be written as DAG-CBOR.
    #[error("cannot be written as DAG-CBOR: {0}")]
    Encode(String),
}

/// One step of a path inside a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Segment<'a> {
    /// The key of a map.
    Key(&'a str),
    /// The position in a list.
    Index(u64),
}

/// Encodes a value as DAG-CBOR.
pub fn to_vec<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, CborError> {
    serde_ipld_dagcbor::to_vec(value).map_err(|error| CborError::Encode(error.to_string()))
}

/// Decodes one message: all of `bytes`, nested at most [`limits::MAX_MESSAGE_DEPTH`] deep.
pub fn from_slice<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CborError> {
    Scanner::new(bytes, limits::MAX_MESSAGE_DEPTH, limits::MAX_LINKS_PER_BLOCK).run(&mut |_, _| {})?;
    serde_ipld_dagcbor::from_slice(bytes).map_err(|error| CborError::Schema(error.to_string()))
}

/// Checks that `bytes` are one DAG-CBOR item and calls `on_link` for each link with its path, in the order of the
/// bytes.
///
/// Bounds: nesting [`limits::MAX_CBOR_DEPTH`], links [`limits::MAX_LINKS_PER_BLOCK`]; memory in proportion to the
/// nesting alone.
pub fn scan(bytes: &[u8], mut on_link: impl FnMut(&[Segment<'_>], Cid)) -> Result<(), CborError> {
    Scanner::new(bytes, limits::MAX_CBOR_DEPTH, limits::MAX_LINKS_PER_BLOCK).run(&mut on_link)
}

/// An open list or map.
enum Open<'a> {
    List { left: u64 },
    Map { left: u64, last_key: Option<&'a str> },
}

struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
    max_depth: usize,
    max_links: usize,
    links: usize,
    open: Vec<Open<'a>>,
    path: Vec<Segment<'a>>,
}

impl<'a> Scanner<'a> {
    fn new(bytes: &'a [u8], max_depth: usize, max_links: usize) -> Self {
        Self { bytes, at: 0, max_depth, max_links, links: 0, open: Vec::new(), path: Vec::new() }
    }

    fn run(mut self, on_link: &mut impl FnMut(&[Segment<'_>], Cid)) -> Result<(), CborError> {
        loop {
            self.item(on_link)?;
            // Close what is full, then step to the next place in what stays open.
            loop {
                match self.open.last_mut() {
                    None if self.at == self.bytes.len() => return Ok(()),
                    None => return Err(self.bad("bytes follow the item")),
                    Some(Open::List { left: 0 } | Open::Map { left: 0, .. }) => {
                        self.open.pop();
                        self.path.pop();
                    }
                    Some(Open::List { left }) => {
                        *left -= 1;
                        if let Some(Segment::Index(index)) = self.path.last_mut() {
                            *index = index.wrapping_add(1);
                        }
                        break;
                    }
                    Some(Open::Map { .. }) => {
                        self.key()?;
                        break;
                    }
                }
            }
        }
    }

    /// Takes one item. A list or map is opened; its content follows as items of their own.
    fn item(&mut self, on_link: &mut impl FnMut(&[Segment<'_>], Cid)) -> Result<(), CborError> {
        let start = self.at;
        let (major, value) = self.head()?;
        match major {
            0 | 1 => Ok(()),
            2 => self.take(value).map(drop),
            3 => self.text(value).map(drop),
            4 => {
                self.claim(value, 1)?;
                // The first step to the next place brings the index to 0.
                self.push(Open::List { left: value }, Segment::Index(u64::MAX))
            }
            5 => {
                self.claim(value, 2)?;
                self.push(Open::Map { left: value, last_key: None }, Segment::Key(""))
            }
            6 => {
                let cid = self.link(start, value)?;
                self.links += 1;
                if self.links > self.max_links {
                    return Err(CborError::TooManyLinks { max: self.max_links });
                }
                on_link(&self.path, cid);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The major type and the argument of the next item, in the shortest form only.
    fn head(&mut self) -> Result<(u8, u64), CborError> {
        let at = self.at;
        let bad = |what| CborError::Malformed { at, what };
        let first = *self.take(1)?.first().ok_or(bad("cut short"))?;
        let (major, info) = (first >> 5, first & 0x1f);
        if major == 7 {
            return match info {
                20..=22 => Ok((7, 0)),
                27 => {
                    let value = f64::from_bits(self.argument(8)?);
                    // The zero without a sign is the only one.
                    let negative_zero = value == 0.0 && value.is_sign_negative();
                    match value.is_finite() && !negative_zero {
                        true => Ok((7, 0)),
                        false => Err(bad("a float that is not finite, or a negative zero")),
                    }
                }
                _ => Err(bad("a simple value or a short float")),
            };
        }
        let value = match info {
            0..=23 => u64::from(info),
            24..=27 => {
                let size = 1usize << (info - 24);
                let value = self.argument(size)?;
                let smallest = match size {
                    1 => 24,
                    2 => 1 << 8,
                    4 => 1 << 16,
                    _ => 1 << 32,
                };
                if value < smallest {
                    return Err(bad("an integer or length not in its shortest form"));
                }
                value
            }
            31 => return Err(bad("an indefinite length")),
            _ => return Err(bad("a reserved item head")),
        };
        Ok((major, value))
    }

    fn argument(&mut self, size: usize) -> Result<u64, CborError> {
        Ok(self.take(size as u64)?.iter().fold(0, |value, byte| (value << 8) | u64::from(*byte)))
    }

    fn take(&mut self, len: u64) -> Result<&'a [u8], CborError> {
        let end = usize::try_from(len).ok().and_then(|len| self.at.checked_add(len));
        let slice = end.and_then(|end| self.bytes.get(self.at..end)).ok_or_else(|| self.bad("cut short"))?;
        self.at += slice.len();
        Ok(slice)
    }

    fn text(&mut self, len: u64) -> Result<&'a str, CborError> {
        let at = self.at;
        std::str::from_utf8(self.take(len)?).map_err(|_| CborError::Malformed { at, what: "text that is not UTF-8" })
    }

    /// Refuses a list or map that claims more items than bytes are left.
    fn claim(&self, items: u64, bytes_each: u64) -> Result<(), CborError> {
        let left = (self.bytes.len() - self.at) as u64;
        if items.saturating_mul(bytes_each) > left {
            return Err(self.bad("a list or map that claims more than the bytes hold"));
        }
        Ok(())
    }

    fn push(&mut self, open: Open<'a>, segment: Segment<'a>) -> Result<(), CborError> {
        if self.open.len() >= self.max_depth {
            return Err(CborError::TooDeep { max: self.max_depth });
        }
        self.open.push(open);
        self.path.push(segment);
        Ok(())
    }

    /// Takes the next key of the innermost map: text, shorter keys first, then bytewise, none twice.
    fn key(&mut self) -> Result<(), CborError> {
        let at = self.at;
        let bad = |what| CborError::Malformed { at, what };
        let (major, len) = self.head()?;
        if major != 3 {
            return Err(bad("a map key that is not text"));
        }
        let key = self.text(len)?;
        if let Some(Open::Map { left, last_key }) = self.open.last_mut() {
            *left -= 1;
            let ordered = last_key.is_none_or(|last| (last.len(), last.as_bytes()) < (key.len(), key.as_bytes()));
            if !ordered {
                return Err(bad("map keys out of order, or one twice"));
            }
            *last_key = Some(key);
        }
        if let Some(segment) = self.path.last_mut() {
            *segment = Segment::Key(key);
        }
        Ok(())
    }

    /// A link: tag 42 around a byte string that starts with the identity multibase prefix.
    fn link(&mut self, start: usize, tag: u64) -> Result<Cid, CborError> {
        let bad = |what| CborError::Malformed { at: start, what };
        if tag != 42 {
            return Err(bad("a tag other than 42"));
        }
        let (major, len) = self.head()?;
        if major != 2 {
            return Err(bad("a link that is no byte string"));
        }
        let what = |what: String| CborError::Link { at: start, what };
        match self.take(len)? {
            [0, cid @ ..] if cid.len() <= limits::MAX_CID_BYTES => {
                let mut rest = cid;
                let parsed = take_cid(&mut rest).map_err(|error| what(error.to_string()))?;
                if rest.is_empty() { Ok(parsed) } else { Err(what("bytes follow the CID".into())) }
            }
            [0, cid @ ..] => {
                Err(what(format!("{} bytes where at most {} may stand", cid.len(), limits::MAX_CID_BYTES)))
            }
            _ => Err(what("the multibase prefix 0x00 is missing".into())),
        }
    }

    fn bad(&self, what: &'static str) -> CborError {
        CborError::Malformed { at: self.at, what }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use ipld_core::ipld::Ipld;
    use proptest::prelude::*;

    use super::*;

    fn check(bytes: &[u8]) -> Result<(), CborError> {
        scan(bytes, |_, _| {})
    }

    fn cid() -> Cid {
        Cid::try_from("bafyreidykglsfhoixmivffc5uwhcgshx4j465xwqntbmu43nb2dzqwfvae").expect("a CID")
    }

    #[test]
    fn links_come_with_their_path_in_order() {
        let value = Ipld::Map(BTreeMap::from([
            ("a".to_owned(), Ipld::Link(cid())),
            ("list".to_owned(), Ipld::List(vec![Ipld::Null, Ipld::List(vec![]), Ipld::Link(cid())])),
            ("z".to_owned(), Ipld::Map(BTreeMap::from([("x".to_owned(), Ipld::Link(cid()))]))),
        ]));
        let mut paths = Vec::new();
        scan(&to_vec(&value).expect("encodes"), |path, link| {
            assert_eq!(link, cid());
            paths.push(format!("{path:?}"));
        })
        .expect("scans");
        assert_eq!(
            paths,
            ["[Key(\"a\")]", "[Key(\"z\"), Key(\"x\")]", "[Key(\"list\"), Index(2)]"],
            "shorter keys stand first in DAG-CBOR"
        );
    }

    #[test]
    fn what_the_specification_refuses_is_refused() {
        let cases: &[(&str, &[u8])] = &[
            ("an integer of two bytes that fits one", &[0x18, 0x17]),
            ("a length of two bytes that fits one", &[0x58, 0x01, 0xff]),
            ("an indefinite list", &[0x9f, 0xff]),
            ("a half float", &[0xf9, 0x3c, 0x00]),
            ("NaN", &[0xfb, 0x7f, 0xf8, 0, 0, 0, 0, 0, 0]),
            ("negative zero", &[0xfb, 0x80, 0, 0, 0, 0, 0, 0, 0]),
            ("undefined", &[0xf7]),
            ("a tag other than 42", &[0xc1, 0x00]),
            ("keys out of order", &[0xa2, 0x61, b'b', 0x00, 0x61, b'a', 0x00]),
            ("one key twice", &[0xa2, 0x61, b'a', 0x00, 0x61, b'a', 0x00]),
            ("a key that is a number", &[0xa1, 0x01, 0x00]),
            ("text that is not UTF-8", &[0x61, 0xff]),
            ("two items", &[0x00, 0x00]),
            ("nothing", &[]),
            ("a link with no prefix", &[0xd8, 0x2a, 0x41, 0x01]),
        ];
        for (name, bytes) in cases {
            assert!(check(bytes).is_err(), "{name} was taken");
        }
    }

    #[test]
    fn a_list_that_claims_2_to_the_30_entries_is_refused_at_once() {
        assert!(check(&[0x9a, 0x40, 0x00, 0x00, 0x00, 0x00]).is_err());
        assert!(from_slice::<Vec<u8>>(&[0x9a, 0x40, 0x00, 0x00, 0x00, 0x00]).is_err());
        assert!(check(&[0xba, 0x40, 0x00, 0x00, 0x00, 0x60, 0x00]).is_err());
    }

    #[test]
    fn nesting_is_taken_at_the_cap_and_refused_beyond_it() {
        let nested = |depth: usize| [vec![0x81; depth], vec![0x00]].concat();
        assert_eq!(check(&nested(limits::MAX_CBOR_DEPTH)), Ok(()));
        assert_eq!(check(&nested(limits::MAX_CBOR_DEPTH + 1)), Err(CborError::TooDeep { max: limits::MAX_CBOR_DEPTH }));
        assert!(check(&nested(2_000_000)).is_err(), "two million levels do not end the process");
    }

    #[test]
    fn links_are_taken_at_the_cap_and_refused_beyond_it() {
        let links = |n: usize| to_vec(&Ipld::List(vec![Ipld::Link(cid()); n])).expect("encodes");
        assert_eq!(check(&links(limits::MAX_LINKS_PER_BLOCK)), Ok(()));
        assert!(matches!(check(&links(limits::MAX_LINKS_PER_BLOCK + 1)), Err(CborError::TooManyLinks { .. })));
    }

    fn ipld() -> impl Strategy<Value = Ipld> {
        let leaf = prop_oneof![
            Just(Ipld::Null),
            any::<bool>().prop_map(Ipld::Bool),
            any::<i64>().prop_map(|i| Ipld::Integer(i.into())),
            any::<f64>().prop_filter("finite", |f| f.is_finite()).prop_map(Ipld::Float),
            ".*".prop_map(Ipld::String),
            any::<Vec<u8>>().prop_map(Ipld::Bytes),
            Just(Ipld::Link(cid())),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Ipld::List),
                prop::collection::btree_map(".*", inner, 0..6).prop_map(Ipld::Map),
            ]
        })
    }

    proptest! {
        #[test]
        fn whatever_the_encoder_writes_is_taken(value in ipld()) {
            let bytes = to_vec(&value).expect("encodes");
            prop_assert_eq!(check(&bytes), Ok(()));
            prop_assert_eq!(from_slice::<Ipld>(&bytes).expect("decodes"), value);
        }

        #[test]
        fn whatever_is_taken_is_written_back_to_the_same_bytes(bytes in any::<Vec<u8>>()) {
            if let Ok(value) = from_slice::<Ipld>(&bytes) {
                prop_assert_eq!(to_vec(&value).expect("encodes"), bytes);
            }
        }
    }
}
