use cid::Cid;

use crate::limits;

/// Bytes that begin with no CID, or with one in another form than its own.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no binary CID: {0}")]
pub struct NoCid(String);

/// Takes the binary CID at the front of `bytes`, at most [`limits::MAX_CID_BYTES`] long, and leaves what follows it.
///
/// A CID has one form: numbers that are longer than they need be, or than 63 bits, are refused. Its codec and hash are
/// not checked.
///
/// Source: <https://github.com/multiformats/cid>, <https://github.com/multiformats/unsigned-varint> ("at most 9 bytes").
pub fn take_cid(bytes: &mut &[u8]) -> Result<Cid, NoCid> {
    let mut rest = bytes.get(..limits::MAX_CID_BYTES).unwrap_or(bytes);
    let before = rest.len();
    let cid = Cid::read_bytes(&mut rest).map_err(|error| NoCid(error.to_string()))?;
    let taken = before - rest.len();
    // The decoder takes a tenth byte and lets the bits fall away that 64 do not hold.
    if cid.encoded_len() != taken || cid.codec().max(cid.hash().code()) > i64::MAX as u64 {
        return Err(NoCid("a number in it overflows, or is not in its shortest form".into()));
    }
    *bytes = bytes.get(taken..).unwrap_or_default();
    Ok(cid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binary_cid_is_taken_in_its_one_form_alone() {
        let digest = [0x12, 0x20].into_iter().chain([1; 32]).collect::<Vec<_>>();
        let short = [&[1, 0x55], &digest[..]].concat();
        let bytes = [&short[..], &[7, 7]].concat();
        let mut rest = &bytes[..];
        assert_eq!(take_cid(&mut rest).expect("a CID").to_bytes(), short);
        assert_eq!(rest, [7, 7]);
        assert_eq!(take_cid(&mut &digest[..]).expect("a CID of version 0").to_bytes(), digest);
        // 0x55 again, with a bit that is beyond the 64th; a codec of 64 bits, and one that keeps its length when the
        // bits beyond them fall away.
        let long = |last: u8| [&[1, 0xd5][..], &[0x80; 8], &[last], &digest].concat();
        let not_minimal = [&[1, 0xd5, 0x00][..], &digest].concat();
        for bytes in [&long(2)[..], &long(1), &long(3), &not_minimal, &short[..20], &[]] {
            assert!(take_cid(&mut &bytes[..]).is_err(), "{bytes:?}");
        }
    }
}
