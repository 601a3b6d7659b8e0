//! How long a message takes over a link, and what can happen to it.

use std::time::Duration;

use dagmesh_core::limits::MAX_SIM_LATENCY_MS;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// A link from one node to another. Probabilities are from 0 to 1; what is outside counts as the nearer end.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Link {
    /// How long a message takes. Each draws its own, so that messages overtake one another unless it is fixed.
    pub latency: Latency,
    /// How likely a message is lost.
    pub loss: f64,
    /// How likely a message comes twice, the second time after a latency of its own. Requests and answers never do:
    /// they travel on streams.
    pub duplicate: f64,
    /// How likely a message is held back, so that later ones overtake it.
    pub reorder: f64,
    /// For how long at most a message is held back that is.
    pub hold: Duration,
}

impl Link {
    /// A link that only takes time.
    pub fn new(latency: Latency) -> Self {
        Self { latency, loss: 0.0, duplicate: 0.0, reorder: 0.0, hold: Duration::from_secs(1) }
    }

    /// The same with this loss.
    pub fn with_loss(self, loss: f64) -> Self {
        Self { loss, ..self }
    }

    /// How long one message takes.
    pub(crate) fn draw(&self, rng: &mut ChaCha8Rng) -> Duration {
        let latency = self.latency.draw(rng);
        match happens(rng, self.reorder) {
            true => latency + self.hold.min(longest()).mul_f64(rng.random()),
            false => latency,
        }
    }
}

impl Default for Link {
    /// The internet between continents and within: a median of 50 ms, one in a hundred above 160 ms.
    fn default() -> Self {
        Self::new(Latency::LogNormal { median: Duration::from_millis(50), sigma: 0.5 })
    }
}

/// A distribution of times; none is longer than
/// [`MAX_SIM_LATENCY_MS`](dagmesh_core::limits::MAX_SIM_LATENCY_MS).
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Latency {
    /// Always the same.
    Fixed(Duration),
    /// Evenly from the first to the second.
    Uniform(Duration, Duration),
    /// Log-normal: half are below the median; `sigma` is the deviation of the logarithm (0.5: one in 100 takes 3.2
    /// times the median; 1: 10 times).
    LogNormal {
        /// Half are below it.
        median: Duration,
        /// Deviation of the natural logarithm.
        sigma: f64,
    },
    /// At least `min`, and exponential from there: one in 100 takes 4.6 times `tail` more.
    Exponential {
        /// The shortest.
        min: Duration,
        /// Mean of what comes on top.
        tail: Duration,
    },
}

impl Latency {
    /// One time.
    pub(crate) fn draw(self, rng: &mut ChaCha8Rng) -> Duration {
        let drawn = match self {
            Self::Fixed(time) => time,
            Self::Uniform(min, max) => min.saturating_add(max.saturating_sub(min).mul_f64(rng.random())),
            Self::LogNormal { median, sigma } => scaled(median, (sigma * normal(rng)).exp()),
            Self::Exponential { min, tail } => min.saturating_add(scaled(tail, exponential(rng))),
        };
        drawn.min(longest())
    }
}

/// Whether something of this probability happens. Draws even where that is certain, so that two runs that differ in a
/// probability stay alike in the rest.
pub(crate) fn happens(rng: &mut ChaCha8Rng, probability: f64) -> bool {
    rng.random::<f64>() < probability
}

/// An exponential variable of mean 1.
pub(crate) fn exponential(rng: &mut ChaCha8Rng) -> f64 {
    -(1.0 - rng.random::<f64>()).ln()
}

/// A standard normal variable, by Box and Muller.
fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let radius = (2.0 * exponential(rng)).sqrt();
    radius * (std::f64::consts::TAU * rng.random::<f64>()).cos()
}

/// A time times a factor that may be anything.
pub(crate) fn scaled(time: Duration, factor: f64) -> Duration {
    Duration::try_from_secs_f64(time.as_secs_f64() * factor).unwrap_or_else(|_| longest())
}

fn longest() -> Duration {
    Duration::from_millis(MAX_SIM_LATENCY_MS)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn sorted(latency: Latency) -> Vec<f64> {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut times: Vec<f64> = (0..10_000).map(|_| latency.draw(&mut rng).as_secs_f64() * 1000.0).collect();
        times.sort_by(f64::total_cmp);
        times
    }

    #[test]
    fn latencies_have_the_quantiles_of_their_distribution() {
        let ms = Duration::from_millis;
        let near = |got: f64, want: f64| assert!((got / want - 1.0).abs() < 0.1, "{got} is not about {want}");
        let times = sorted(Latency::Fixed(ms(50)));
        assert_eq!((times[0], times[9999]), (50.0, 50.0));
        let times = sorted(Latency::Uniform(ms(20), ms(120)));
        assert!(times[0] >= 20.0 && times[9999] <= 120.0);
        near(times[5000], 70.0);
        let times = sorted(Latency::LogNormal { median: ms(50), sigma: 0.5 });
        near(times[5000], 50.0);
        near(times[9900], 50.0 * (0.5_f64 * 2.326).exp());
        let times = sorted(Latency::Exponential { min: ms(30), tail: ms(10) });
        assert!(times[0] >= 30.0);
        near(times[9900] - 30.0, 10.0 * 100_f64.ln());
    }

    #[test]
    fn no_tail_is_longer_than_the_limit() {
        for latency in [
            Latency::Fixed(Duration::MAX),
            Latency::Uniform(Duration::from_secs(100), Duration::from_secs(50)),
            Latency::LogNormal { median: Duration::from_secs(1), sigma: 100.0 },
            Latency::LogNormal { median: Duration::from_secs(1), sigma: f64::NAN },
            Latency::Exponential { min: Duration::MAX, tail: Duration::MAX },
        ] {
            assert!(sorted(latency)[9999] <= MAX_SIM_LATENCY_MS as f64, "{latency:?}");
        }
    }
}
