//! The multihashes that an advertisement is made of, from a list or a CAR.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Seek},
    path::Path,
};

use cid::{Cid, multihash::Multihash};
use dagmesh_core::limits::MAX_IPNI_MULTIHASHES;
use dagmesh_dag::{HashCode, car::CarReader};

use crate::error::NodeError;

/// Longest line of a list: a CID or multihash of 64 bytes in any base, with room for blanks and a remark.
const MAX_LINE_BYTES: u64 = 1024;

/// Reads the multihashes of a file, each once, in the order in which they stand there: those of the blocks of a CAR, or
/// a list with one a line, each a CID (version 0: a multihash in base58) or a multihash in hexadecimal; empty lines and what
/// follows `#` are passed over.
///
/// Identity hashes are left out: what they stand for needs nobody to provide it. At most [`MAX_IPNI_MULTIHASHES`].
pub(super) fn read(path: &Path) -> Result<Vec<Multihash<64>>, NodeError> {
    let unreadable = |error: std::io::Error| NodeError::file("read", path, &error);
    let mut file = File::open(path).map_err(unreadable)?;
    let mut start = Vec::new();
    (&mut file).take(16).read_to_end(&mut start).map_err(unreadable)?;
    file.rewind().map_err(unreadable)?;
    let is_list = start.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace());
    let mut found = Found { path, hashes: Vec::new() };
    match is_list {
        true => read_list(BufReader::new(file), &mut found)?,
        false => read_car(BufReader::new(file), &mut found)?,
    }
    let mut seen = std::collections::HashSet::new();
    found.hashes.retain(|hash| seen.insert(*hash));
    Ok(found.hashes)
}

struct Found<'a> {
    path: &'a Path,
    hashes: Vec<Multihash<64>>,
}

impl Found<'_> {
    fn push(&mut self, hash: Multihash<64>) -> Result<(), NodeError> {
        if hash.code() == HashCode::Identity as u64 {
            return Ok(());
        }
        if self.hashes.len() >= MAX_IPNI_MULTIHASHES {
            let path = self.path.display();
            return Err(NodeError::usage(format!(
                "{path} has more than the {MAX_IPNI_MULTIHASHES} multihashes that one advertisement may stand for; divide it"
            )));
        }
        self.hashes.push(hash);
        Ok(())
    }
}

fn read_list(mut list: impl BufRead, found: &mut Found<'_>) -> Result<(), NodeError> {
    let mut line = String::new();
    for number in 1.. {
        line.clear();
        let path = found.path;
        let wrong = |what: String| NodeError::usage(format!("{}, line {number}: {what}", path.display()));
        let read = (&mut list).take(MAX_LINE_BYTES).read_line(&mut line);
        if read.map_err(|error| wrong(error.to_string()))? == 0 {
            return Ok(());
        }
        if line.len() as u64 == MAX_LINE_BYTES {
            return Err(wrong(format!("it is longer than {MAX_LINE_BYTES} bytes")));
        }
        let text = line.split('#').next().unwrap_or_default().trim();
        if !text.is_empty() {
            let shown: String = text.chars().take(80).collect();
            found.push(parse(text).ok_or_else(|| wrong(format!("{shown:?} is neither a CID nor a multihash")))?)?;
        }
    }
    Ok(())
}

fn read_car(car: impl Read, found: &mut Found<'_>) -> Result<(), NodeError> {
    let path = found.path;
    let wrong = |error: dagmesh_dag::car::CarError| {
        NodeError::usage(format!("{} is neither a list of multihashes nor a CAR: {error}", path.display()))
    };
    for block in CarReader::new(car).map_err(wrong)? {
        found.push(*block.map_err(wrong)?.cid().hash())?;
    }
    Ok(())
}

fn parse(text: &str) -> Option<Multihash<64>> {
    let hash = Cid::try_from(text).ok().map(|cid| *cid.hash());
    hash.or_else(|| Multihash::from_bytes(&data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok()?).ok())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use dagmesh_dag::{Block, Codec, car::CarWriter};

    use super::*;

    fn hash(n: u8) -> Multihash<64> {
        HashCode::Sha2_256.digest(&[n]).expect("hashes")
    }

    fn read_text(text: impl AsRef<[u8]>) -> Result<Vec<Multihash<64>>, NodeError> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("list");
        fs::write(&path, text).expect("writes");
        read(&path)
    }

    #[test]
    fn a_list_may_hold_cids_and_multihashes_and_each_counts_once() {
        let cid = Cid::new_v1(0x71, hash(1));
        let old = Cid::new_v0(hash(2)).expect("a CID");
        let hex = data_encoding::HEXLOWER.encode(&hash(3).to_bytes());
        let inline = Cid::new_v1(0x55, Multihash::wrap(0, b"inline").expect("fits"));
        let text = format!("# a list\n{cid}\n\n  {old}  # old\n{hex}\n{}\n{inline}\n{cid}", hex.to_uppercase());
        assert_eq!(read_text(text).expect("a list"), [1, 2, 3].map(hash));
        assert!(read_text("").expect("an empty list").is_empty());
    }

    #[test]
    fn what_is_no_multihash_is_named_by_its_line() {
        let error = read_text("# fine\nbafynonsense\n").expect_err("no CID").to_string();
        assert!(error.contains("line 2") && error.contains("bafynonsense"), "{error}");
        let error = read_text("a".repeat(5000)).expect_err("a long line").to_string();
        assert!(error.contains("line 1") && error.contains("longer"), "{error}");
        let error = read_text([0u8, 1, 2, 3]).expect_err("garbage").to_string();
        assert!(error.contains("neither a list of multihashes nor a CAR"), "{error}");
        let error = read(Path::new("/no/such/file")).expect_err("no file").to_string();
        assert!(error.contains("/no/such/file"), "{error}");
    }

    #[test]
    fn multihashes_are_taken_at_the_cap_and_refused_one_over_it() {
        let mut found = Found { path: Path::new("list"), hashes: vec![hash(1); MAX_IPNI_MULTIHASHES - 1] };
        found.push(hash(2)).expect("fits");
        let error = found.push(hash(3)).expect_err("one too many").to_string();
        assert!(error.contains("1000000") && error.contains("divide it"), "{error}");
        assert_eq!(found.hashes.len(), MAX_IPNI_MULTIHASHES);
    }

    #[test]
    fn the_blocks_of_a_car_are_listed() {
        let blocks: Vec<Block> =
            (1..4).map(|n| Block::new(Codec::Raw, HashCode::Sha2_256, vec![n]).expect("a block")).collect();
        let mut car = Vec::new();
        let mut writer = CarWriter::new(&mut car, &[*blocks[0].cid()]).expect("a header");
        blocks.iter().for_each(|block| writer.write(block).expect("writes"));
        writer.finish().expect("ends");
        assert_eq!(read_text(&car).expect("a CAR"), [1, 2, 3].map(hash));
        let error = read_text(&car[..car.len() - 1]).expect_err("a cut CAR").to_string();
        assert!(error.contains("CAR"), "{error}");
    }
}
