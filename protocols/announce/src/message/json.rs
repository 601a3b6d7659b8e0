//! The announcement as JSON, as it is sent over HTTP: `PUT /announce` with `application/json`. With
//! `application/octet-stream` it is the same bytes as on gossipsub.
//!
//! Source: go-libipni 0.7, `announce/message` and `announce/httpsender`, as Go's `encoding/json` writes it.

use std::collections::BTreeMap;

use cid::Cid;
use dagmesh_core::limits::MAX_IPNI_ANNOUNCEMENT_JSON_BYTES;
use data_encoding::BASE64;
use multiaddr::Multiaddr;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use super::{Announcement, check_addrs, read_addrs, read_orig_peer};
use crate::AnnounceError;

/// What is written: all four fields, whether there is something in them or not.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Wire {
    cid: BTreeMap<&'static str, String>,
    addrs: Option<Vec<String>>,
    extra_data: Option<String>,
    orig_peer: String,
}

impl Announcement {
    /// Its form as JSON, with a line feed at its end: at most [`MAX_IPNI_ANNOUNCEMENT_JSON_BYTES`]. Fails where
    /// [`Announcement::encode`] does.
    pub fn encode_json(&self) -> Result<Vec<u8>, AnnounceError> {
        // What cannot be said in one form is not said in the other.
        self.encode()?;
        let list = |addrs: &[Multiaddr]| addrs.iter().map(|addr| BASE64.encode(addr.as_ref())).collect();
        let wire = Wire {
            cid: [("/", self.cid.to_string())].into(),
            addrs: (!self.addrs.is_empty()).then(|| list(&self.addrs)),
            extra_data: (!self.extra.is_empty()).then(|| BASE64.encode(&self.extra)),
            orig_peer: self.orig_peer.map(|peer| peer.to_string()).unwrap_or_default(),
        };
        let mut bytes = serde_json::to_vec(&wire).map_err(json)?;
        bytes.push(b'\n');
        check_len(bytes.len())?;
        Ok(bytes)
    }

    /// Reads an announcement from JSON. Total and bounded as [`Announcement::decode`]; nothing is checked but the form.
    /// A field that is missing or null is read as empty, one that is unknown is passed over.
    pub fn decode_json(bytes: &[u8]) -> Result<Self, AnnounceError> {
        check_len(bytes.len())?;
        let mut fields: Map<String, Value> = serde_json::from_slice(bytes).map_err(json)?;
        let cid: BTreeMap<String, String> = take(&mut fields, "Cid")?.unwrap_or_default();
        // A path is no CID, though the `cid` crate takes it for one.
        let cid = cid.get("/").filter(|text| !text.contains('/')).and_then(|text| Cid::try_from(&text[..]).ok());
        let cid = cid.ok_or_else(|| json("it names no CID"))?;
        let addrs: Vec<String> = take(&mut fields, "Addrs")?.unwrap_or_default();
        check_addrs(addrs.iter().map(|_| 0))?;
        let addrs = addrs.into_iter().map(decode).collect::<Result<Vec<_>, _>>()?;
        check_addrs(addrs.iter().map(Vec::len))?;
        let read = Self {
            cid,
            addrs: read_addrs(addrs.into_iter())?,
            extra: take(&mut fields, "ExtraData")?.map(decode).transpose()?.unwrap_or_default(),
            orig_peer: read_orig_peer(take(&mut fields, "OrigPeer")?)?,
        };
        read.encode()?;
        Ok(read)
    }
}

fn take<T: DeserializeOwned>(fields: &mut Map<String, Value>, name: &str) -> Result<Option<T>, AnnounceError> {
    match fields.remove(name) {
        None => Ok(None),
        Some(value) => serde_json::from_value(value).map_err(|error| json(format_args!("{name}: {error}"))),
    }
}

fn decode(text: String) -> Result<Vec<u8>, AnnounceError> {
    BASE64.decode(text.as_bytes()).map_err(|error| json(format_args!("no base64: {error}")))
}

fn json(reason: impl ToString) -> AnnounceError {
    AnnounceError::Json(reason.to_string())
}

fn check_len(len: usize) -> Result<(), AnnounceError> {
    let max = MAX_IPNI_ANNOUNCEMENT_JSON_BYTES;
    if len > max { Err(AnnounceError::TooLong { len, max }) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
