//! Collections that cannot be decoded past their bound.
//!
//! `N` is the largest number of items (of bytes, for [`BoundedBytes`] and [`BoundedString`]). Decoding stops with an
//! error at item N + 1, and never reserves memory on the word of a length prefix.

use std::{fmt, marker::PhantomData, ops::Deref};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error as _, SeqAccess, Visitor},
};

/// A collection of `len` items where at most `max` may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{len} {unit} where at most {max} may stand")]
pub struct OverBound {
    /// What was counted.
    pub unit: &'static str,
    /// How many there were.
    pub len: usize,
    /// How many are allowed.
    pub max: usize,
}

fn check(unit: &'static str, len: usize, max: usize) -> Result<(), OverBound> {
    if len > max { Err(OverBound { unit, len, max }) } else { Ok(()) }
}

macro_rules! bounded {
    ($name:ident, $inner:ty, $target:ty, $unit:literal, $doc:literal) => {
        #[doc = $doc]
        #[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name<const N: usize>($inner);

        impl<const N: usize> $name<N> {
            /// Takes `inner`, or says by how much it is too long.
            pub fn new(inner: impl Into<$inner>) -> Result<Self, OverBound> {
                let inner = inner.into();
                check($unit, inner.len(), N)?;
                Ok(Self(inner))
            }

            /// Gives the content back.
            pub fn into_inner(self) -> $inner {
                self.0
            }
        }

        impl<const N: usize> Deref for $name<N> {
            type Target = $target;
            fn deref(&self) -> &$target {
                &self.0
            }
        }
    };
}

bounded!(BoundedBytes, Vec<u8>, [u8], "bytes", "At most `N` bytes; a byte string on the wire.");
bounded!(BoundedString, String, str, "bytes of text", "Text of at most `N` bytes of UTF-8.");

impl<const N: usize> BoundedString<N> {
    /// As much of the front of `text` as fits, whole characters only: for what is meant for people.
    pub fn cut(text: &str) -> Self {
        let mut end = text.len().min(N);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        Self(text.get(..end).unwrap_or_default().to_owned())
    }
}

impl<const N: usize> Serialize for BoundedBytes<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de, const N: usize> Deserialize<'de> for BoundedBytes<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = <&serde_bytes::Bytes>::deserialize(deserializer)?;
        check("bytes", bytes.len(), N).map_err(D::Error::custom)?;
        Ok(Self(bytes.to_vec()))
    }
}

impl<const N: usize> Serialize for BoundedString<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de, const N: usize> Deserialize<'de> for BoundedString<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <&str>::deserialize(deserializer)?;
        check("bytes of text", text.len(), N).map_err(D::Error::custom)?;
        Ok(Self(text.to_owned()))
    }
}

/// A list of at most `N` items.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BoundedVec<T, const N: usize>(Vec<T>);

impl<T, const N: usize> BoundedVec<T, N> {
    /// Takes `items`, or says by how many there are too many.
    pub fn new(items: impl Into<Vec<T>>) -> Result<Self, OverBound> {
        let items = items.into();
        check("items", items.len(), N)?;
        Ok(Self(items))
    }

    /// Gives the items back.
    pub fn into_inner(self) -> Vec<T> {
        self.0
    }
}

impl<T, const N: usize> Default for BoundedVec<T, N> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T, const N: usize> Deref for BoundedVec<T, N> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T: Serialize, const N: usize> Serialize for BoundedVec<T, N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de, T: Deserialize<'de>, const N: usize> Deserialize<'de> for BoundedVec<T, N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items<T, const N: usize>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>, const N: usize> Visitor<'de> for Items<T, N> {
            type Value = Vec<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of at most {N} items")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                // Grows with what has really been decoded, never with what the prefix claims.
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    check("items", items.len() + 1, N).map_err(A::Error::custom)?;
                    items.push(item);
                }
                Ok(items)
            }
        }

        deserializer.deserialize_seq(Items::<T, N>(PhantomData)).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cbor;

    #[test]
    fn a_list_is_taken_at_n_and_refused_at_n_plus_one() {
        let fits = cbor::to_vec(&[1u8, 2, 3]).expect("encodes");
        let over = cbor::to_vec(&[1u8, 2, 3, 4]).expect("encodes");
        assert_eq!(cbor::from_slice::<BoundedVec<u8, 3>>(&fits).expect("fits").into_inner(), [1, 2, 3]);
        let error = cbor::from_slice::<BoundedVec<u8, 3>>(&over).expect_err("too long");
        assert!(error.to_string().contains("at most 3"), "{error}");
    }

    #[test]
    fn bytes_and_text_are_taken_at_n_and_refused_at_n_plus_one() {
        let bytes = |n: usize| cbor::to_vec(&serde_bytes::ByteBuf::from(vec![7; n])).expect("encodes");
        assert!(cbor::from_slice::<BoundedBytes<4>>(&bytes(4)).is_ok());
        assert!(cbor::from_slice::<BoundedBytes<4>>(&bytes(5)).is_err());
        assert!(cbor::from_slice::<BoundedString<4>>(&cbor::to_vec("four").expect("encodes")).is_ok());
        assert!(cbor::from_slice::<BoundedString<4>>(&cbor::to_vec("fives").expect("encodes")).is_err());
        assert!(BoundedString::<4>::new("fives").is_err());
        assert_eq!(&*BoundedString::<4>::cut("fives"), "five");
        assert_eq!(&*BoundedString::<3>::cut("éé"), "é", "whole characters only");
    }
}
