//! The direct announcement over one stream: one frame in, one frame out. No timers, no network: the caller brings both.

use std::io;

use bytes::Bytes;
use dagmesh_core::{
    frame::{self, FrameError, FrameReader},
    limits::{MAX_ANNOUNCEMENT_BYTES, MAX_ANSWER_BYTES},
};
use futures::{AsyncRead, AsyncWrite, AsyncWriteExt};

use crate::{AnnounceError, Announcement, Answer};

/// Why an exchange broke off.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExchangeError {
    /// What was to be sent, or what came, is no message of this protocol.
    #[error(transparent)]
    Message(#[from] AnnounceError),
    /// A frame could not be read.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The other side closed the stream without its frame.
    #[error("the stream was closed before the {0} came")]
    Closed(&'static str),
    /// The stream failed.
    #[error("the stream failed: {0}")]
    Io(#[from] io::Error),
}

/// Sends an announcement and reads the answer. Not cancel-safe: drop the stream with it.
pub async fn call<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    announcement: &Announcement,
) -> Result<Answer, ExchangeError> {
    frame::write(&mut stream, &announcement.encode()?).await?;
    stream.flush().await?;
    let mut reader = FrameReader::new(stream, MAX_ANSWER_BYTES);
    let answer = reader.next().await?.ok_or(ExchangeError::Closed("answer"))?;
    // It is answered; how the stream ends no longer matters.
    let _ = reader.into_inner().0.close().await;
    Ok(Answer::decode(&answer)?)
}

/// Reads an announcement of at most [`MAX_ANNOUNCEMENT_BYTES`], not decoded yet, and gives the stream back for
/// [`reply`]. Not cancel-safe: drop the stream with it.
pub async fn receive<S: AsyncRead + AsyncWrite + Unpin>(stream: S) -> Result<(Bytes, S), ExchangeError> {
    let mut reader = FrameReader::new(stream, MAX_ANNOUNCEMENT_BYTES);
    let bytes = reader.next().await?.ok_or(ExchangeError::Closed("announcement"))?;
    Ok((bytes, reader.into_inner().0))
}

/// Sends the answer and ends the stream. Not cancel-safe: drop the stream with it.
pub async fn reply<S: AsyncWrite + Unpin>(mut stream: S, answer: &Answer) -> Result<(), ExchangeError> {
    frame::write(&mut stream, &answer.encode()?).await?;
    stream.close().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use futures::{executor::block_on, io::Cursor};

    use super::*;

    fn framed(body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        frame::append(&mut bytes, &[body]);
        bytes
    }

    #[test]
    fn an_announcement_is_taken_at_the_cap_and_refused_from_its_prefix_beyond_it() {
        let at = |len: usize| block_on(receive(Cursor::new(framed(&vec![7; len])))).map(|(bytes, _)| bytes.len());
        assert_eq!(at(MAX_ANNOUNCEMENT_BYTES).expect("fits"), MAX_ANNOUNCEMENT_BYTES);
        let error = at(MAX_ANNOUNCEMENT_BYTES + 1).expect_err("too long");
        assert!(matches!(error, ExchangeError::Frame(FrameError::TooLong { .. })), "{error}");
    }

    #[test]
    fn a_stream_that_ends_without_a_frame_is_an_error() {
        let error = block_on(receive(Cursor::new(Vec::new()))).map(|(bytes, _)| bytes).expect_err("nothing came");
        assert!(matches!(error, ExchangeError::Closed("announcement")), "{error}");
    }
}
