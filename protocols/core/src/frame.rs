//! Messages behind a length prefix: an unsigned varint (multiformats), then that many bytes.
//!
//! The length is checked against the reader's cap before a byte of memory is taken for the body.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Longest prefix: nine bytes carry 63 bits (multiformats unsigned-varint).
const MAX_PREFIX_BYTES: usize = 9;
/// How much is asked of the stream at once: a few yamux frames of 16 KiB.
const READ_BYTES: usize = 64 * 1024;

/// Why a frame could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The prefix claims more than the reader takes.
    #[error("a frame of {len} bytes where at most {max} may stand")]
    TooLong {
        /// The length in the prefix.
        len: u64,
        /// The reader's cap.
        max: usize,
    },
    /// The prefix is no canonical unsigned varint.
    #[error("the length prefix of a frame is not a canonical varint")]
    Prefix,
    /// The stream ended inside a frame.
    #[error("the stream ended inside a frame")]
    CutShort,
    /// The stream failed.
    #[error("the stream failed: {0}")]
    Io(#[from] io::Error),
}

/// Reads frames from a stream. Cancel-safe: what has been read stays in the reader.
#[derive(Debug)]
pub struct FrameReader<R> {
    stream: R,
    /// What is read lands here first: zeroed once, where the tail of the buffer would be zeroed for each read.
    scratch: Box<[u8]>,
    buffer: BytesMut,
    max: usize,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// A reader that takes frames of at most `max` bytes.
    pub fn new(stream: R, max: usize) -> Self {
        // Never much more than a short frame takes.
        let scratch = vec![0; READ_BYTES.min(max.saturating_add(MAX_PREFIX_BYTES))].into_boxed_slice();
        Self { stream, scratch, buffer: BytesMut::new(), max }
    }

    /// The next frame; `None` where the stream ends between two frames.
    pub async fn next(&mut self) -> Result<Option<Bytes>, FrameError> {
        loop {
            if let Some(frame) = self.buffered()? {
                return Ok(Some(frame));
            }
            if self.fill().await? == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err(FrameError::CutShort) };
            }
        }
    }

    /// A frame that has already been read whole; `None` where more must be read first.
    pub fn buffered(&mut self) -> Result<Option<Bytes>, FrameError> {
        let Some((len, prefix)) = decode_prefix(&self.buffer)? else { return Ok(None) };
        if len > self.max as u64 {
            return Err(FrameError::TooLong { len, max: self.max });
        }
        let len = len as usize;
        if self.buffer.len() < prefix + len {
            return Ok(None);
        }
        self.buffer.advance(prefix);
        Ok(Some(self.buffer.split_to(len).freeze()))
    }

    /// The stream, and what was read beyond the last frame.
    pub fn into_inner(self) -> (R, BytesMut) {
        (self.stream, self.buffer)
    }

    async fn fill(&mut self) -> Result<usize, FrameError> {
        let read = self.stream.read(&mut self.scratch).await?;
        // Room for the rest of a frame that has begun: a long one is not moved again and again as it grows. The claim
        // has been checked against the cap.
        if let Ok(Some((len, prefix))) = decode_prefix(&self.buffer) {
            self.buffer.reserve((prefix + len as usize).saturating_sub(self.buffer.len()).max(read));
        }
        self.buffer.extend_from_slice(self.scratch.get(..read).unwrap_or_default());
        Ok(read)
    }
}

/// Writes one frame and does not flush. Not cancel-safe: a dropped call may leave half a frame on the stream.
pub async fn write<W: AsyncWrite + Unpin>(stream: &mut W, body: &[u8]) -> io::Result<()> {
    let mut prefix = unsigned_varint::encode::u64_buffer();
    stream.write_all(unsigned_varint::encode::u64(body.len() as u64, &mut prefix)).await?;
    stream.write_all(body).await
}

/// Appends one frame, given in parts, to a buffer.
pub fn append(buffer: &mut Vec<u8>, parts: &[&[u8]]) {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    let mut prefix = unsigned_varint::encode::u64_buffer();
    buffer.extend_from_slice(unsigned_varint::encode::u64(len as u64, &mut prefix));
    for part in parts {
        buffer.extend_from_slice(part);
    }
}

/// The length and the size of the prefix at the front of `bytes`; `None` where it is not whole yet.
fn decode_prefix(bytes: &[u8]) -> Result<Option<(u64, usize)>, FrameError> {
    match unsigned_varint::decode::u64(bytes) {
        // The decoder takes a tenth byte and lets the bits fall away that 64 do not hold.
        Ok((len, rest)) if bytes.len() - rest.len() <= MAX_PREFIX_BYTES => Ok(Some((len, bytes.len() - rest.len()))),
        Err(unsigned_varint::decode::Error::Insufficient) if bytes.len() < MAX_PREFIX_BYTES => Ok(None),
        _ => Err(FrameError::Prefix),
    }
}

#[cfg(test)]
mod tests {
    use futures::{executor::block_on, io::Cursor};

    use super::*;

    fn frames(bytes: Vec<u8>, max: usize) -> Result<Vec<Bytes>, FrameError> {
        block_on(async {
            let mut reader = FrameReader::new(Cursor::new(bytes), max);
            let mut frames = Vec::new();
            while let Some(frame) = reader.next().await? {
                frames.push(frame);
            }
            Ok(frames)
        })
    }

    #[test]
    fn frames_come_back_as_they_were_written() {
        let mut bytes = Vec::new();
        append(&mut bytes, &[b"one"]);
        append(&mut bytes, &[]);
        append(&mut bytes, &[b"th", b"ree"]);
        let read = frames(bytes, 5).expect("reads");
        assert_eq!(read, [&b"one"[..], b"", b"three"]);
    }

    #[test]
    fn a_frame_is_taken_at_the_cap_and_refused_one_byte_over_it() {
        let mut bytes = Vec::new();
        append(&mut bytes, &[&[0; 100]]);
        assert!(frames(bytes.clone(), 100).is_ok());
        assert!(matches!(frames(bytes, 99), Err(FrameError::TooLong { len: 100, max: 99 })));
    }

    #[test]
    fn a_claimed_length_takes_no_memory() {
        // 2^62 bytes claimed: refused from the prefix alone.
        let bytes = vec![0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x40];
        assert!(matches!(frames(bytes, 1024), Err(FrameError::TooLong { .. })));
    }

    #[test]
    fn a_frame_cut_short_and_a_prefix_without_end_are_errors() {
        assert!(matches!(frames(vec![5, 1, 2], 10), Err(FrameError::CutShort)));
        assert!(matches!(frames(vec![0xff; 12], 10), Err(FrameError::Prefix)));
        assert!(matches!(frames(vec![0x81, 0x00], 10), Err(FrameError::Prefix)));
        // Ten bytes of which the last one overflows, so that a length of 8 would be left.
        let overflow = [&[0x88][..], &[0x80; 8], &[4], &[0; 8]].concat();
        assert!(matches!(frames(overflow, 10), Err(FrameError::Prefix)));
    }
}
