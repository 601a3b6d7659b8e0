//! The links of a block: in the order of its bytes, bounded, each with its place.

use cid::Cid;
use dagmesh_core::{
    cbor::{self, CborError, Segment},
    limits,
};
use ipld_core::ipld::Ipld;

use crate::{
    Block,
    hash::{CidError, Codec},
};

/// Where in its block a link stands.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// A path of map keys and list positions, joined by `/` (DAG-CBOR, DAG-JSON).
    Path(String),
    /// The name of a DAG-PB link.
    Name(String),
    /// The position of a DAG-PB link that has no name.
    Index(usize),
}

/// Why the links of a block could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the links of {cid} cannot be read: {reason}")]
pub struct LinksError {
    /// The block.
    pub cid: Box<Cid>,
    /// Why.
    pub reason: String,
}

/// All links of a block, in order. At most [`limits::MAX_LINKS_PER_BLOCK`]; one more is an error.
pub fn links(block: &Block) -> Result<Vec<Cid>, LinksError> {
    let mut found = Vec::new();
    each(block, |_, cid| found.push(cid)).map_err(|reason| error(block, reason))?;
    Ok(found)
}

/// All links of a block with their places, in order; bounded as [`links`].
pub fn places(block: &Block) -> Result<Vec<(Place, Cid)>, LinksError> {
    let mut found = Vec::new();
    each(block, |place, cid| found.push((place(), cid))).map_err(|reason| error(block, reason))?;
    Ok(found)
}

fn error(block: &Block, reason: String) -> LinksError {
    LinksError { cid: Box::new(*block.cid()), reason }
}

fn each(block: &Block, mut found: impl FnMut(&dyn Fn() -> Place, Cid)) -> Result<(), String> {
    match Codec::try_from(block.cid().codec()).map_err(|error: CidError| error.to_string())? {
        Codec::Raw => Ok(()),
        Codec::DagCbor => cbor::scan(block.data(), |path, cid| found(&|| Place::Path(join(path)), cid))
            .map_err(|error: CborError| error.to_string()),
        Codec::DagPb => {
            let node = ipld_dagpb::PbNode::from_bytes(block.data().clone()).map_err(|error| error.to_string())?;
            check_count(node.links.len())?;
            for (index, link) in node.links.into_iter().enumerate() {
                let place = || match link.name.as_deref() {
                    None | Some("") => Place::Index(index),
                    Some(name) => Place::Name(name.to_owned()),
                };
                found(&place, link.cid);
            }
            Ok(())
        }
        Codec::DagJson => {
            // serde_json refuses what is nested deeper than 128.
            let value: Ipld = serde_ipld_dagjson::from_slice(block.data()).map_err(|error| error.to_string())?;
            let mut count = 0;
            walk_json(&value, &mut Vec::new(), &mut |path, cid| {
                count += 1;
                check_count(count)?;
                found(&|| Place::Path(join(path)), cid);
                Ok(())
            })
        }
    }
}

fn walk_json<'a>(
    value: &'a Ipld,
    path: &mut Vec<Segment<'a>>,
    found: &mut impl FnMut(&[Segment<'_>], Cid) -> Result<(), String>,
) -> Result<(), String> {
    match value {
        Ipld::Link(cid) => found(path, *cid)?,
        Ipld::List(items) => {
            for (index, item) in items.iter().enumerate() {
                path.push(Segment::Index(index as u64));
                walk_json(item, path, found)?;
                path.pop();
            }
        }
        Ipld::Map(entries) => {
            for (key, item) in entries {
                path.push(Segment::Key(key));
                walk_json(item, path, found)?;
                path.pop();
            }
        }
        _ => {}
    }
    Ok(())
}

fn check_count(count: usize) -> Result<(), String> {
    let max = limits::MAX_LINKS_PER_BLOCK;
    if count > max { Err(format!("more than {max} links in one block")) } else { Ok(()) }
}

fn join(path: &[Segment<'_>]) -> String {
    let mut joined = String::new();
    for segment in path {
        if !joined.is_empty() {
            joined.push('/');
        }
        match segment {
            Segment::Key(key) => joined.push_str(key),
            Segment::Index(index) => joined.push_str(&index.to_string()),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HashCode;

    fn leaf(text: &str) -> Cid {
        *Block::new(Codec::Raw, HashCode::Sha2_256, text.as_bytes().to_vec()).expect("a block").cid()
    }

    #[test]
    fn links_of_every_codec_come_in_order_with_their_places() {
        let (a, b) = (leaf("a"), leaf("b"));
        let json = format!(r#"{{"a":{{"/":"{a}"}},"list":[1,{{"/":"{b}"}}]}}"#);
        let json = Block::new(Codec::DagJson, HashCode::Sha2_256, json.into_bytes()).expect("a block");
        let expected = [(Place::Path("a".into()), a), (Place::Path("list/1".into()), b)];
        assert_eq!(places(&json).expect("reads"), expected);

        let value: Ipld = serde_ipld_dagjson::from_slice(json.data()).expect("decodes");
        let cbor = cbor::to_vec(&value).expect("encodes");
        let cbor = Block::new(Codec::DagCbor, HashCode::Sha2_256, cbor).expect("a block");
        assert_eq!(places(&cbor).expect("reads"), expected);

        let link = |cid, name: Option<&str>| ipld_dagpb::PbLink { cid, name: name.map(str::to_owned), size: Some(1) };
        let node = ipld_dagpb::PbNode { links: vec![link(a, None), link(b, Some("name"))], data: None };
        let pb = Block::new(Codec::DagPb, HashCode::Sha2_256, node.into_bytes()).expect("a block");
        assert_eq!(places(&pb).expect("reads").len(), 2);
        assert!(links(&pb).expect("reads").contains(&b));

        let raw = Block::new(Codec::Raw, HashCode::Sha2_256, json.data().clone()).expect("a block");
        assert_eq!(links(&raw).expect("reads"), []);
    }

    #[test]
    fn bytes_that_are_not_of_their_codec_are_an_error_that_names_the_block() {
        for codec in [Codec::DagCbor, Codec::DagPb, Codec::DagJson] {
            let block = Block::new(codec, HashCode::Sha2_256, vec![0xff; 9]).expect("a block");
            let error = links(&block).expect_err("not of its codec");
            assert!(error.to_string().contains(&block.cid().to_string()), "{error}");
        }
    }
}
