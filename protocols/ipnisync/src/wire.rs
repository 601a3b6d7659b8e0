//! How values stand in DAG-JSON and DAG-CBOR.
//!
//! Written by the codecs' own crates, canonical. CBOR is read by the strict decoder of the house. DAG-JSON is read here,
//! straight from JSON: `serde_ipld_dagjson` refuses padded base64, which the original takes, and takes lists for maps and
//! links with more beside them, which the original refuses.

use std::{fmt, marker::PhantomData};

use cid::Cid;
use dagmesh_core::{
    bounded::BoundedVec,
    cbor,
    limits::{MAX_CID_BYTES, MAX_IPNI_CHUNK_ENTRIES},
    take_cid,
};
use dagmesh_dag::{Block, Codec};
use data_encoding::{BASE64, BASE64_NOPAD};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{DeserializeOwned, Error as _, MapAccess, Visitor, value::MapAccessDeserializer},
};
use serde_bytes::{ByteBuf, Bytes};

use crate::IpniError;

/// Reads one value of at most `max` bytes; `what` names it in errors. For what should stand as a map, ask for a [`Map`].
pub(crate) fn decode<T: DeserializeOwned>(
    what: &'static str,
    codec: Codec,
    bytes: &[u8],
    max: usize,
) -> Result<T, IpniError> {
    check("bytes of a block or head", bytes.len(), max)?;
    let form = |reason: String| IpniError::Form { what, reason };
    match codec {
        Codec::DagJson => serde_json::from_slice(bytes).map_err(|error| form(error.to_string())),
        Codec::DagCbor => cbor::from_slice(bytes).map_err(|error| form(error.to_string())),
        other => Err(IpniError::Codec(other as u64)),
    }
}

/// Writes one value, canonical, in at most `max` bytes.
pub(crate) fn encode<T: Serialize>(
    what: &'static str,
    codec: Codec,
    value: &T,
    max: usize,
) -> Result<Vec<u8>, IpniError> {
    let failed = |reason: String| IpniError::Encode { what, reason };
    let bytes = match codec {
        Codec::DagJson => serde_ipld_dagjson::to_vec(value).map_err(|error| failed(error.to_string()))?,
        Codec::DagCbor => cbor::to_vec(value).map_err(|error| failed(error.to_string()))?,
        other => return Err(IpniError::Codec(other as u64)),
    };
    check("bytes of a block or head", bytes.len(), max)?;
    Ok(bytes)
}

/// The codec of a block of the network.
pub(crate) fn codec_of(block: &Block) -> Result<Codec, IpniError> {
    Codec::try_from(block.cid().codec()).map_err(|_| IpniError::Codec(block.cid().codec()))
}

pub(crate) fn check(what: &'static str, len: usize, max: usize) -> Result<(), IpniError> {
    if len > max { Err(IpniError::OverCap { what, len, max }) } else { Ok(()) }
}

/// A value that stands as a map and in no other form: derived code would take a list of its fields as well.
pub(crate) struct Map<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Map<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfMap<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for OfMap<T> {
            type Value = Map<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Map)
            }
        }

        deserializer.deserialize_map(OfMap(PhantomData))
    }
}

/// `{"/": ...}`: how DAG-JSON sets links and bytes apart.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Slash<T> {
    #[serde(rename = "/")]
    value: T,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Base64 {
    bytes: String,
}

/// A link.
pub(crate) struct Link(pub(crate) Cid);

impl<'de> Deserialize<'de> for Link {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            return Cid::deserialize(deserializer).map(Self);
        }
        let Map(Slash { value }) = Map::<Slash<String>>::deserialize(deserializer)?;
        parse_link(&value).map(Self).map_err(D::Error::custom)
    }
}

/// A CID as text. A path is none, though the `cid` crate takes it for one.
pub(crate) fn parse_link(text: &str) -> Result<Cid, String> {
    let cut = || text.chars().take(80).collect::<String>();
    // Even in base 2 a byte takes no more than eight characters.
    if text.len() > 8 * MAX_CID_BYTES + 1 || text.contains('/') {
        return Err(format!("{:?} is no CID", cut()));
    }
    let cid = Cid::try_from(text).map_err(|error| format!("{:?} is no CID: {error}", cut()))?;
    // What could not stand in DAG-CBOR does not stand here.
    take_cid(&mut &cid.to_bytes()[..]).map_err(|error| format!("{:?}: {error}", cut()))
}

/// Bytes.
pub(crate) struct Blob(pub(crate) Vec<u8>);

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            return ByteBuf::deserialize(deserializer).map(|bytes| Self(bytes.into_vec()));
        }
        let Map(Slash { value: Map(Base64 { bytes }) }) = Map::<Slash<Map<Base64>>>::deserialize(deserializer)?;
        let base = if bytes.ends_with('=') { BASE64 } else { BASE64_NOPAD };
        base.decode(bytes.as_bytes()).map(Self).map_err(|error| D::Error::custom(format_args!("no base64: {error}")))
    }
}

/// For `serde(with)`: a byte string.
pub(crate) mod bytes {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        Blob::deserialize(deserializer).map(|blob| blob.0)
    }
}

/// For `serde(with)`: a list of at most [`MAX_IPNI_CHUNK_ENTRIES`] byte strings.
pub(crate) mod blobs {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(list: &[Vec<u8>], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(list.iter().map(|bytes| Bytes::new(bytes)))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Vec<u8>>, D::Error> {
        let list = at_most::<D, Blob, MAX_IPNI_CHUNK_ENTRIES>(deserializer)?;
        Ok(list.into_iter().map(|blob| blob.0).collect())
    }
}

/// For `serde(with)`: a link.
pub(crate) mod link {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(cid: &Cid, serializer: S) -> Result<S::Ok, S::Error> {
        cid.serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Cid, D::Error> {
        Link::deserialize(deserializer).map(|link| link.0)
    }
}

/// For `serde(with)`: a link that is left out where there is none; null is not a way to say so.
pub(crate) mod optional_link {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(cid: &Option<Cid>, serializer: S) -> Result<S::Ok, S::Error> {
        cid.serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Cid>, D::Error> {
        link::deserialize(deserializer).map(Some)
    }
}

/// For `serde(deserialize_with)`: a list of at most `N`.
pub(crate) fn at_most<'de, D, T, const N: usize>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    BoundedVec::<T, N>::deserialize(deserializer).map(BoundedVec::into_inner)
}

/// For `serde(deserialize_with)`: a list of at most `N` maps.
pub(crate) fn maps<'de, D, T, const N: usize>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let list = at_most::<D, Map<T>, N>(deserializer)?;
    Ok(list.into_iter().map(|map| map.0).collect())
}

/// For `serde(deserialize_with)`: a map that is left out where there is none.
pub(crate) fn optional_map<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Map::deserialize(deserializer).map(|map| Some(map.0))
}

/// For `serde(deserialize_with)`: text that is left out where there is none.
pub(crate) fn optional_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    String::deserialize(deserializer).map(Some)
}
