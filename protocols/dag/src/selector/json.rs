//! DAG-JSON as selectors use it.
//!
//! The condition "is this link" is a map whose one key is `/`: `{"/": {"/": "bafy.."}}`. DAG-JSON proper keeps that
//! key to itself, and `serde_ipld_dagjson` refuses the map; go-ipld-prime writes and reads it, and so must we.

use data_encoding::BASE64_NOPAD;
use ipld_core::ipld::Ipld;
use serde_json::Value;

/// Reads DAG-JSON; `{"/": ..}` is a map where it is neither a link nor bytes. Nesting is bounded by the parser.
pub(super) fn read(text: &str) -> Result<Ipld, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    ipld(value)
}

fn ipld(value: Value) -> Result<Ipld, String> {
    Ok(match value {
        Value::Null => Ipld::Null,
        Value::Bool(bool) => Ipld::Bool(bool),
        Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(int), _, _) => Ipld::Integer(int.into()),
            (_, Some(int), _) => Ipld::Integer(int.into()),
            (_, _, Some(float)) => Ipld::Float(float),
            _ => return Err(format!("{number} is no number of the data model")),
        },
        Value::String(text) => Ipld::String(text),
        Value::Array(items) => Ipld::List(items.into_iter().map(ipld).collect::<Result<_, _>>()?),
        Value::Object(entries) => {
            if let (1, Some(reserved)) = (entries.len(), entries.get("/")) {
                if let Value::String(text) = reserved {
                    return text.parse().map(Ipld::Link).map_err(|error| format!("{text:?} is no CID: {error}"));
                }
                if let Some(Value::String(text)) = reserved.get("bytes") {
                    let text = text.trim_end_matches('=');
                    let bytes = BASE64_NOPAD.decode(text.as_bytes());
                    return bytes.map(Ipld::Bytes).map_err(|error| format!("{text:?} is no base64: {error}"));
                }
            }
            let entries = entries.into_iter().map(|(key, value)| Ok((key, ipld(value)?)));
            Ipld::Map(entries.collect::<Result<_, String>>()?)
        }
    })
}
