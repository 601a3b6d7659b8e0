//! How long a peer is waited for.

use std::{
    future::Future,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use dagmesh_core::limits;
use hyper::header::{DATE, HeaderMap, RETRY_AFTER};

/// How long a peer is waited for. The default is what [`dagmesh_core::limits`] says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pace {
    /// For a name to be resolved, for a connection, for TLS: each of them.
    pub connect: Duration,
    /// For the head of an answer; at the server for the body of an announcement.
    pub answer: Duration,
    /// In each such window a body has to grow by [`Self::min_bytes`].
    pub window: Duration,
    /// So many bytes.
    pub min_bytes: u64,
    /// How long a connection is kept that nothing is asked over.
    pub idle: Duration,
    /// Waits before a request that failed for the moment is made again; each is lengthened by up to the whole of it.
    pub retries: Vec<Duration>,
    /// The longest wait that a server may ask for.
    pub max_retry_after: Duration,
    /// How long a request waits at the server before it is told to come again.
    pub queue: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        let secs = Duration::from_secs;
        Self {
            connect: secs(limits::IPNI_CONNECT_TIMEOUT_SECS),
            answer: secs(limits::FIRST_BYTE_TIMEOUT_SECS),
            window: secs(limits::MIN_RATE_WINDOW_SECS),
            min_bytes: limits::MIN_RATE_BYTES_PER_SEC * limits::MIN_RATE_WINDOW_SECS,
            idle: secs(limits::IPNI_CLIENT_IDLE_SECS),
            retries: limits::IPNI_RETRY_MS.map(Duration::from_millis).to_vec(),
            max_retry_after: secs(limits::MAX_RETRY_AFTER_SECS),
            queue: secs(limits::HTTP_QUEUE_SECS),
        }
    }
}

impl Pace {
    /// Runs `work` as long as `bytes` grows as it has to, looked at once in each window. `None` where it does not.
    pub(crate) async fn watch<F: Future>(&self, bytes: &AtomicU64, work: F) -> Option<F::Output> {
        let watch = async {
            let mut seen = bytes.load(Ordering::Relaxed);
            loop {
                tokio::time::sleep(self.window).await;
                let now = bytes.load(Ordering::Relaxed);
                if now.saturating_sub(seen) < self.min_bytes {
                    return;
                }
                seen = now;
            }
        };
        tokio::select! {
            output = work => Some(output),
            () = watch => None,
        }
    }
}

/// Lengthens waits, each differently, so that those that failed together do not come back together.
#[derive(Debug, Default)]
pub(crate) struct Spread(AtomicU64);

impl Spread {
    pub(crate) fn lengthen(&self, wait: Duration) -> Duration {
        // 7 and 16 share no divisor, so sixteen in a row get sixteen different waits.
        let step = self.0.fetch_add(1, Ordering::Relaxed).wrapping_mul(7) % 16;
        wait + wait.saturating_mul(step as u32) / 16
    }
}

/// What `Retry-After` asks for (RFC 9110, section 10.2.3). A date counts from the answer's own: clocks differ.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let value = text(RETRY_AFTER)?;
    if let Ok(secs) = value.parse() {
        return Some(Duration::from_secs(secs));
    }
    let until = httpdate::parse_http_date(value).ok()?;
    let sent = httpdate::parse_http_date(text(DATE)?).ok()?;
    Some(until.duration_since(sent).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(fields: &[(&'static str, &'static str)]) -> Option<Duration> {
        let headers = fields
            .iter()
            .map(|(name, value)| (name.parse().expect("a name"), hyper::header::HeaderValue::from_static(value)));
        retry_after(&headers.collect())
    }

    #[test]
    fn retry_after_is_read_as_seconds_or_as_a_date_by_the_servers_own_clock() {
        assert_eq!(asked(&[("retry-after", "7")]), Some(Duration::from_secs(7)));
        let until = ("retry-after", "Wed, 21 Oct 2015 07:28:05 GMT");
        assert_eq!(asked(&[until, ("date", "Wed, 21 Oct 2015 07:28:00 GMT")]), Some(Duration::from_secs(5)));
        assert_eq!(asked(&[until, ("date", "Wed, 21 Oct 2015 07:30:00 GMT")]), Some(Duration::ZERO));
        for fields in [&[until][..], &[("retry-after", "soon")], &[("retry-after", "-1")], &[]] {
            assert_eq!(asked(fields), None);
        }
        assert!(asked(&[("retry-after", "99999999999999999999999")]).is_none());
    }

    #[test]
    fn waits_that_begin_together_end_apart_and_never_early() {
        let (spread, wait) = (Spread::default(), Duration::from_millis(160));
        let mut waits: Vec<_> = (0..16).map(|_| spread.lengthen(wait)).collect();
        waits.sort();
        waits.dedup();
        assert_eq!(waits.len(), 16);
        assert!(waits[0] >= wait && waits[15] < wait * 2);
    }
}
