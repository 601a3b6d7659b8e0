//! Where a figure was measured. What the system does not tell stays empty.

use std::{fmt, fs, time::Duration};

use serde::Serialize;

/// Bytes in a MiB, to show memory in.
pub(crate) const MIB: f64 = 1_048_576.0;
/// CPU features on which our figures depend.
const FEATURES: [&str; 6] = ["sha_ni", "avx2", "avx512f", "aes", "vaes", "sha2"];

/// A machine, as far as it matters for a figure.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Machine {
    /// Model of the CPU.
    pub cpu: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// Those features of the CPU that matter here.
    pub features: Vec<String>,
    /// Memory in all.
    pub memory_bytes: u64,
    /// Operating system, its release, and architecture.
    pub os: String,
    /// Runnable tasks over the last minute, before the measurement: a busy machine measures low.
    pub load: Option<f64>,
    /// `release` or `debug`.
    pub build: String,
}

impl Machine {
    /// Looks at this one.
    pub fn look() -> Self {
        let cpuinfo = read("/proc/cpuinfo");
        let flags = field(&cpuinfo, "flags").or_else(|| field(&cpuinfo, "Features")).unwrap_or_default();
        let has = |feature: &&str| flags.split_whitespace().any(|flag| flag == *feature);
        Self {
            cpu: field(&cpuinfo, "model name").unwrap_or("unknown").to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            features: FEATURES.iter().filter(|feature| has(feature)).map(|&feature| feature.to_owned()).collect(),
            memory_bytes: kib(&read("/proc/meminfo"), "MemTotal").unwrap_or(0),
            os: format!(
                "{} {} {}",
                std::env::consts::OS,
                read("/proc/sys/kernel/osrelease").trim(),
                std::env::consts::ARCH
            ),
            load: read("/proc/loadavg").split_whitespace().next().and_then(|load| load.parse().ok()),
            build: if cfg!(debug_assertions) { "debug" } else { "release" }.to_owned(),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gib = self.memory_bytes as f64 / f64::from(1 << 30);
        write!(f, "{}, {} cores ({}), {gib:.0} GiB", self.cpu, self.cores, self.features.join(" "))?;
        write!(f, "; {}; {} build", self.os, self.build)?;
        self.load.map_or(Ok(()), |load| write!(f, "; load {load}"))
    }
}

/// Memory that this process has resident now; `None` where the system does not tell.
pub fn resident_bytes() -> Option<u64> {
    kib(&read("/proc/self/status"), "VmRSS")
}

/// The most memory that this process has had resident; `None` where the system does not tell.
pub fn peak_resident_bytes() -> Option<u64> {
    kib(&read("/proc/self/status"), "VmHWM")
}

/// Memory of another process, by its id: what it has resident, and what of that belongs to no file.
pub fn memory_of(process: impl fmt::Display) -> Option<(u64, u64)> {
    let rollup = read(&format!("/proc/{process}/smaps_rollup"));
    Some((kib(&rollup, "Rss")?, kib(&rollup, "Anonymous")?))
}

/// CPU time that this process has used, on all cores; `None` where the system does not tell.
pub fn cpu_time() -> Option<Duration> {
    cpu_time_of("self")
}

/// The same of another process, by its id.
pub fn cpu_time_of(process: impl fmt::Display) -> Option<Duration> {
    /// What Linux counts in, whatever its own clock (`USER_HZ`).
    const TICKS_PER_SEC: f64 = 100.0;
    let stat = read(&format!("/proc/{process}/stat"));
    // The name of the program may hold blanks; the fields after it are numbered from 3.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let (user, system): (f64, f64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(Duration::from_secs_f64((user + system) / TICKS_PER_SEC))
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The value behind `name:` in a file of such lines.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':').map(str::trim))
}

/// The same for a line in KiB, in bytes.
fn kib(text: &str, name: &str) -> Option<u64> {
    Some(field(text, name)?.strip_suffix(" kB")?.trim().parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let text = "model\t\t: 143\nmodel name\t: A CPU\nMemTotal:       2048 kB\n";
        assert_eq!(field(text, "model name"), Some("A CPU"));
        assert_eq!(field(text, "model"), Some("143"));
        assert_eq!(kib(text, "MemTotal"), Some(2 << 20));
        assert_eq!(kib(text, "MemFree"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_peak_remembers_memory_that_was_given_back() {
        drop(std::hint::black_box(vec![1u8; 32 << 20]));
        assert!(peak_resident_bytes().expect("told") >= 32 << 20);
        assert!(resident_bytes().expect("told") > 1 << 18);
    }
}
