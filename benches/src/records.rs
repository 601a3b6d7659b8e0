//! `records`: how surely, over how many hops and how fast a record is read in a DHT of which a part has died.
//!
//! ```text
//! cargo run --release -p dagmesh-benches -- records [--nodes N] [--dead PERCENT] [--seed S]
//! ```
//! Every peer is a libp2p Swarm of its own in this process, with identify, libp2p-kad as the node sets it up, and the
//! exchange of records; connections are in memory, with Noise and yamux. A mesh grows from one peer; each newcomer knows
//! three others, and walks the DHT to its own place and to three random ones. Random peers put records at the 20 closest, by the node's own machine. Then the chosen
//! share dies at once, without a word, and random live peers each get one record that nobody has read before, one get after
//! the other, so that each exchange that is seen belongs to the get that runs. Of several shares the smallest comes first,
//! and of the same mesh so many more die then that the next is reached.
//!
//! *Hops*: whom the asking peer's routing table gives the walk to begin with is one hop away; whoever is first told of by a
//! peer that is n hops away, n + 1. Counted is the peer that was first to answer with the record. Who tells whom is noted
//! where a FIND_NODE is answered. While records are read nobody learns new peers by it: the routing tables only lose the
//! dead.
//!
//! What is easier than in the world: those who die refuse connections at once instead of being silent, and lines have no
//! delay and lose nothing. What is harder: nobody puts a record again, and what gets would correct stays as it is.

mod mesh;
mod peer;
mod trace;

use std::time::Duration;

use anyhow::{Context, Result};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use self::mesh::{Got, Mesh};
use crate::{Args, Bar, Row, runtime};

/// Peers, where nothing else is asked for; the last alone takes half an hour, and is left out of `all`.
const NODES: [usize; 3] = [10, 100, 1000];
/// Dead of a hundred, and of a hundred gets how many must bring the record.
const DEAD: [(u32, f64); 3] = [(0, 99.0), (10, 99.0), (30, 95.0)];
/// Records that are put, and gets, each of another record.
const GETS: u64 = 300;

/// What `records` alone can be told.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Options {
    /// `records`: so many peers alone.
    #[arg(long, value_parser = clap::value_parser!(u32).range(2..=5000))]
    pub nodes: Option<u32>,
    /// `records`: so many of a hundred peers die, and no other share.
    #[arg(long, value_parser = clap::value_parser!(u32).range(0..=90))]
    pub dead: Option<u32>,
    /// `records`: decides who puts, dies and reads.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// The rows of `records`.
pub fn run(args: &Args) -> Result<Vec<Row>> {
    let options = &args.records;
    let sizes = match options.nodes {
        Some(nodes) => vec![usize::try_from(nodes)?],
        None if args.name == "all" => NODES.iter().copied().filter(|nodes| *nodes <= 100).collect(),
        None => NODES.to_vec(),
    };
    let shares: Vec<_> = match options.dead {
        Some(dead) => {
            let least = DEAD.iter().find(|(share, _)| dead <= *share).map_or(0.0, |(_, least)| *least);
            vec![(dead, least)]
        }
        None => DEAD.to_vec(),
    };
    let mut cases = Vec::new();
    for nodes in sizes {
        let measured = runtime()?.block_on(measure(nodes, &shares, args.scaled(GETS), options.seed));
        cases.extend(measured.with_context(|| format!("{nodes} peers"))?);
    }
    eprintln!("{}", table(&cases));
    Ok(cases.iter().flat_map(Case::rows).collect())
}

/// One mesh, a share of which died.
#[derive(Debug)]
struct Case {
    nodes: usize,
    dead: u32,
    /// Of a hundred gets, how many must bring the record.
    least: f64,
    /// How long the mesh took to form, and the records to be put.
    setup: Duration,
    gets: Vec<Got>,
}

/// One mesh of so many peers, of which one share after the other dies; so many gets at each.
async fn measure(nodes: usize, shares: &[(u32, f64)], gets: u64, seed: u64) -> Result<Vec<Case>> {
    let begun = std::time::Instant::now();
    let gets = usize::try_from(gets)?.max(1);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut mesh = Mesh::grow(nodes, &mut rng).await?;
    eprintln!("{nodes} peers: formed after {:.0} s", begun.elapsed().as_secs_f64());
    let records = mesh.put_records(gets * shares.len(), &mut rng).await?;
    let setup = begun.elapsed();
    eprintln!("{nodes} peers: {} records put after {:.0} s", records.len(), setup.as_secs_f64());
    let mut cases = Vec::new();
    let mut killed = 0;
    for (&(dead, least), records) in shares.iter().zip(records.chunks(gets)) {
        let all = nodes * usize::try_from(dead)? / 100;
        mesh.kill(all - killed, &mut rng);
        killed = all;
        let gets = mesh.get_all(records, &mut rng).await?;
        cases.push(Case { nodes, dead, least, setup, gets });
        eprintln!("{nodes} peers, {dead} % dead: measured after {:.0} s", begun.elapsed().as_secs_f64());
    }
    Ok(cases)
}

impl Case {
    /// Of a hundred gets, how many brought the record.
    fn success(&self) -> f64 {
        100.0 * self.found().count() as f64 / self.gets.len().max(1) as f64
    }

    fn log2(&self) -> f64 {
        (self.nodes as f64).log2()
    }

    fn found(&self) -> impl Iterator<Item = &Got> {
        self.gets.iter().filter(|got| got.hops.is_some())
    }

    fn hops(&self, share: f64) -> usize {
        quantile(self.found().filter_map(|got| got.hops), share)
    }

    fn time(&self, share: f64) -> Duration {
        quantile(self.gets.iter().map(|got| got.elapsed), share)
    }

    /// Requests of a get, on average: FIND_NODE, and for the record.
    fn requests(&self) -> (f64, f64) {
        let mean =
            |of: &dyn Fn(&Got) -> usize| self.gets.iter().map(of).sum::<usize>() as f64 / self.gets.len().max(1) as f64;
        (mean(&|got| got.find_node), mean(&|got| got.asked))
    }

    fn rows(&self) -> [Row; 2] {
        let name = format!("records {}, {} % dead", self.nodes, self.dead);
        let workload = format!("{} gets", self.gets.len());
        let (find_node, asked) = self.requests();
        let (p50, p99) = (self.time(0.5).as_secs_f64() * 1e3, self.time(0.99).as_secs_f64() * 1e3);
        let found = Row::new(&name, &workload, self.success(), "% found").bar(Bar::FigureAtLeast(self.least));
        let hops = Row::new(format!("{name}: hops"), &workload, self.hops(1.0) as f64, "hops").ceiling(self.log2());
        [
            found.note(format!(
                "{find_node:.1} FIND_NODE and {asked:.1} requests for the record a get; {p50:.0} ms at p50, {p99:.0} ms at \
                 p99; forming the mesh and putting the records took {:.0} s",
                self.setup.as_secs_f64()
            )),
            hops.bar(Bar::RatioAtMost(1.0)).note(format!(
                "the most; {} at p50, {} at p99; the ceiling is log2 of the peers",
                self.hops(0.5),
                self.hops(0.99)
            )),
        ]
    }
}

/// The table of `docs/records.md`.
fn table(cases: &[Case]) -> String {
    let mut text = String::from(
        "| peers | dead | gets | found | hops p50 / p99 / most | log2 N | FIND_NODE a get | asked a get | ms p50 / p99 |\n\
         | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for case in cases {
        let (find_node, asked) = case.requests();
        text.push_str(&format!(
            "| {} | {} % | {} | {:.1} % | {} / {} / {} | {:.1} | {find_node:.1} | {asked:.1} | {:.0} / {:.0} |\n",
            case.nodes,
            case.dead,
            case.gets.len(),
            case.success(),
            case.hops(0.5),
            case.hops(0.99),
            case.hops(1.0),
            case.log2(),
            case.time(0.5).as_secs_f64() * 1e3,
            case.time(0.99).as_secs_f64() * 1e3,
        ));
    }
    text
}

/// The least that this share of all does not exceed; the default where there is none.
fn quantile<T: Ord + Default>(all: impl Iterator<Item = T>, share: f64) -> T {
    let mut all: Vec<T> = all.collect();
    all.sort_unstable();
    let at = ((all.len() as f64 * share).ceil() as usize).saturating_sub(1);
    all.into_iter().nth(at).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GETS: usize = 25;

    fn assert_holds(nodes: usize, dead: u32, least: f64, gets: Vec<Got>) {
        let case = Case { nodes, dead, least, setup: Duration::ZERO, gets };
        let shown = table(std::slice::from_ref(&case));
        println!("{shown}");
        assert!(case.gets.len() == GETS && case.success() >= least, "{shown}");
        assert!((1..=case.log2() as usize).contains(&case.hops(1.0)), "{shown}");
    }

    async fn dies(nodes: usize) {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let mut mesh = Mesh::grow(nodes, &mut rng).await.expect("a mesh");
        let records = mesh.put_records(2 * GETS, &mut rng).await.expect("puts");
        let (first, last) = records.split_at(GETS);
        assert_holds(nodes, 0, 99.0, mesh.get_all(first, &mut rng).await.expect("gets"));
        mesh.kill(nodes * 3 / 10, &mut rng);
        assert_holds(nodes, 30, 95.0, mesh.get_all(last, &mut rng).await.expect("gets"));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn of_10_peers_each_record_is_found_also_when_3_have_died() {
        dies(10).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn of_100_peers_each_record_is_found_within_log2_of_them_hops_also_when_30_have_died() {
        dies(100).await;
    }

    #[test]
    fn a_quantile_is_one_of_the_figures() {
        let of = |share| quantile([5, 1, 4, 2, 3].into_iter(), share);
        assert_eq!([of(0.0), of(0.5), of(0.99), of(1.0)], [1, 3, 5, 5]);
        assert_eq!(quantile(std::iter::empty::<u8>(), 0.5), 0);
    }
}
