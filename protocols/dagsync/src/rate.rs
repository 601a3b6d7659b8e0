//! Deadlines on what a peer does: a call ends in time, a stream keeps a minimum rate.

use std::{
    future::Future,
    pin::pin,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use dagmesh_core::limits;
use futures::future::{self, Either};
use futures_timer::Delay;

/// The peer did not keep up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TooSlow {
    /// No answer in time.
    #[error("no answer within {secs} s")]
    Deadline {
        /// The deadline, in seconds.
        secs: u64,
    },
    /// Too few bytes.
    #[error("fewer than {min} bytes in {secs} s")]
    Rate {
        /// How many there had to be.
        min: u64,
        /// In how many seconds.
        secs: u64,
    },
}

/// Waits for `work`, at most `secs` seconds. As cancel-safe as `work` is.
pub async fn within<F: Future>(secs: u64, work: F) -> Result<F::Output, TooSlow> {
    match future::select(pin!(work), Delay::new(Duration::from_secs(secs))).await {
        Either::Left((output, _)) => Ok(output),
        Either::Right(_) => Err(TooSlow::Deadline { secs }),
    }
}

/// Runs `work` as long as `bytes` grows by [`limits::MIN_RATE_BYTES_PER_SEC`], looked at once in each window of
/// [`limits::MIN_RATE_WINDOW_SECS`]: one timer, however fast the stream is.
pub async fn with_minimum_rate<F: Future>(bytes: &AtomicU64, work: F) -> Result<F::Output, TooSlow> {
    let secs = limits::MIN_RATE_WINDOW_SECS;
    let min = limits::MIN_RATE_BYTES_PER_SEC * secs;
    let watch = async {
        let mut seen = bytes.load(Ordering::Relaxed);
        loop {
            Delay::new(Duration::from_secs(secs)).await;
            let now = bytes.load(Ordering::Relaxed);
            if now.saturating_sub(seen) < min {
                return TooSlow::Rate { min, secs };
            }
            seen = now;
        }
    };
    match future::select(pin!(work), pin!(watch)).await {
        Either::Left((output, _)) => Ok(output),
        Either::Right((slow, _)) => Err(slow),
    }
}
