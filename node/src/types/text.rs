//! How values without a text form of their own in serde are written: CIDs as text, bytes as base64, durations in
//! milliseconds.

use std::{fmt::Display, path::PathBuf, str::FromStr, time::Duration};

use cid::Cid;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

fn parse<E: serde::de::Error>(text: &str) -> Result<Cid, E> {
    dagmesh_dag::hash::parse_cid(text).map_err(E::custom)
}

/// A CID.
pub mod one {
    use super::*;

    /// Writes it as text.
    pub fn serialize<S: Serializer>(cid: &(impl Display + ?Sized), serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(cid)
    }

    /// Reads it from text, against the allow-list of codecs and hashes.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Cid, D::Error> {
        parse(&String::deserialize(deserializer)?)
    }
}

/// A CID or none.
pub mod option {
    use super::*;

    /// Writes it as text or null.
    pub fn serialize<S: Serializer>(cid: &Option<Cid>, serializer: S) -> Result<S::Ok, S::Error> {
        match cid {
            Some(cid) => serializer.collect_str(cid),
            None => serializer.serialize_none(),
        }
    }

    /// Reads it from text or null.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Cid>, D::Error> {
        Option::<String>::deserialize(deserializer)?.as_deref().map(parse).transpose()
    }
}

/// Several CIDs.
pub mod list {
    use super::*;

    /// Writes a list of texts.
    pub fn serialize<S: Serializer>(cids: &[Cid], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(cids.iter().map(Cid::to_string))
    }

    /// Reads a list of texts.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Cid>, D::Error> {
        Vec::<String>::deserialize(deserializer)?.iter().map(|text| parse(text)).collect()
    }
}

/// Reads a path of the daemon's machine, which must be absolute: the daemon has a working directory of its own.
pub fn absolute<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    let path = PathBuf::deserialize(deserializer)?;
    if path.is_absolute() { Ok(path) } else { Err(D::Error::custom(format!("{} is no absolute path", path.display()))) }
}

/// Bytes.
pub mod base64 {
    use super::*;
    use data_encoding::BASE64;

    /// Writes them as padded base64.
    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(bytes))
    }

    /// Reads them from padded base64.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        BASE64.decode(String::deserialize(deserializer)?.as_bytes()).map_err(D::Error::custom)
    }
}

/// What has a text form, but none in serde.
pub mod shown {
    use super::*;

    /// Writes it as text.
    pub fn serialize<S: Serializer>(value: &impl Display, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    /// Reads it from text.
    pub fn deserialize<'de, T: FromStr<Err: Display>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// A duration.
pub mod millis {
    use super::*;

    /// Writes whole milliseconds.
    pub fn serialize<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        u64::try_from(time.as_millis()).unwrap_or(u64::MAX).serialize(serializer)
    }

    /// Reads milliseconds.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}

/// A record's key in the DHT.
pub mod dht_key {
    use super::*;
    use crate::types::RecordTarget;

    /// Writes it as [`RecordTarget::key_text`] says.
    pub fn serialize<S: Serializer>(key: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&RecordTarget::key_text(key))
    }

    /// Reads it from such text.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        RecordTarget::key_of_text(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}
