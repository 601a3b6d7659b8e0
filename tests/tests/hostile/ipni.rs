//! Publishers of the IPNI network that are hostile, and announcements of chains that lie, against a real daemon: rows 1 to
//! 4, 8, 10, 11 and 18 to 21, over plain HTTP.

mod bodies;
mod chains;
mod news;

use dagmesh_tests::{
    Daemon, DaemonOptions,
    daemon::Memory,
    hostile::http::HttpPublisher,
    ipni::{self, AdChain},
};
use serde_json::Value;

const MIB: u64 = 1 << 20;

/// A daemon that serves HTTP and logs enough to understand a failure.
async fn daemon() -> Daemon {
    let mut options = DaemonOptions::default();
    options.args = ["--ipni-http", "127.0.0.1:0"].map(str::to_owned).to_vec();
    options.env = vec![("DAGMESH_LOG__LEVEL".to_owned(), "debug".to_owned())];
    Daemon::start_with(options).await
}

/// A publisher with a chain of so many advertisements that it serves.
async fn publisher(ads: usize) -> (HttpPublisher, AdChain) {
    let publisher = HttpPublisher::start().await;
    let mut chain = AdChain::new(publisher.key());
    chain.grow(ads);
    publisher.serve(&chain);
    (publisher, chain)
}

/// A daemon, a hostile publisher whose chain it follows, and an honest one.
struct Prey {
    daemon: Daemon,
    hostile: HttpPublisher,
    chain: AdChain,
    before: Option<Memory>,
}

impl Prey {
    /// A daemon that has followed an honest chain, so that what this takes is taken already; the hostile one has three
    /// advertisements, which nobody has asked for.
    async fn start() -> Self {
        let (daemon, (honest, chain)) = tokio::join!(daemon(), publisher(20));
        follow(&daemon, &honest, &["--wait"]).await;
        ipni::in_sync_at(&daemon, &honest.peer_id().to_string(), &chain.head().to_string()).await;
        let (hostile, chain) = publisher(3).await;
        let before = daemon.memory();
        Self { daemon, hostile, chain, before }
    }

    fn peer(&self) -> String {
        self.hostile.peer_id().to_string()
    }

    async fn follow(&self, args: &[&str]) {
        follow(&self.daemon, &self.hostile, args).await;
    }

    /// Waits until `follows` gives this reason for the hostile chain, among others.
    async fn says(&self, why: &str) -> Value {
        let says = |follow: &Value| follow["reason"].as_str().is_some_and(|reason| reason.contains(why));
        let follow = ipni::stands(&self.daemon, &self.peer(), &format!("a reason with {why:?}"), says).await;
        assert_eq!(follow["latest"], Value::Null, "nothing counts as synced: {follow}");
        follow
    }

    /// The hostile chain grows by one, is served as it is, and is followed to number `seq`, by a daemon that asks anew.
    async fn goes_on_at(&mut self, seq: u64) {
        self.chain.grow(1);
        self.hostile.serve(&self.chain);
        self.daemon.restart().await;
        let follow = ipni::in_sync_at(&self.daemon, &self.peer(), &self.chain.head().to_string()).await;
        assert_eq!(follow["latest_seq"], seq, "{follow}");
    }

    /// Nothing false is held, an honest publisher is followed as before, and so is this one once it is honest.
    async fn is_unharmed(&mut self, more: u64) {
        let (honest, chain) = publisher(3).await;
        follow(&self.daemon, &honest, &["--wait"]).await;
        ipni::in_sync_at(&self.daemon, &honest.peer_id().to_string(), &chain.head().to_string()).await;
        self.hostile.be_honest();
        // To follow again is to ask at once.
        self.daemon.run(&["unfollow", &self.peer()]).await;
        self.follow(&["--wait"]).await;
        ipni::in_sync_at(&self.daemon, &self.peer(), &self.chain.head().to_string()).await;
        self.assert_flat(more).await;
        let report = self.daemon.json(&["repo", "verify"]).await;
        assert_eq!((&report["damaged"], &report["missing"]), (&0.into(), &0.into()), "{report}");
    }

    /// The same process runs, answers, and has never taken much more than before.
    async fn assert_flat(&mut self, more: u64) {
        assert!(self.daemon.is_running(), "{}", self.daemon.stderr());
        assert_eq!(self.daemon.json(&["id"]).await["peer_id"], self.daemon.peer_id());
        if let (Some(before), Some(after)) = (self.before, self.daemon.memory()) {
            println!("{before:?}, then {after:?}");
            assert!(after.peak - before.peak < more, "{before:?}, then {after:?}");
        }
    }
}

async fn follow(daemon: &Daemon, publisher: &HttpPublisher, args: &[&str]) {
    daemon.json(&[&["ipni", "follow", &publisher.addr().to_string()], args].concat()).await;
}
