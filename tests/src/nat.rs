//! Machines behind routers that translate addresses, as at home: real ones, of the kernel's network namespaces.
//!
//! They need the rights of root, `ip` and `nft`. Where something is missing, the reason is printed and there is none.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use tempfile::TempDir;

use crate::disk::{path, run};

/// A network of machines: three that everybody can dial, and two behind routers of their own.
///
/// A router gives what leaves it its own address (and keeps the port where it can), and drops what comes in unless it
/// answers something: what most routers at home do. Nothing leads out of here. The addresses are of a block that is set
/// aside for a purpose of its own (RFC 7450): libraries take them for public, as they do not with those for examples.
#[derive(Debug)]
pub struct Nat {
    prefix: String,
    scripts: TempDir,
}

/// A machine of the network, by where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the open, at [`Nat::OPEN`].
    Open,
    /// In the open too, at [`Nat::SERVERS`]`[0]`.
    FirstServer,
    /// In the open too, at [`Nat::SERVERS`]`[1]`.
    SecondServer,
    /// Behind the first router, seen from outside at [`Nat::FIRST`].
    First,
    /// Behind the second router, seen from outside at [`Nat::SECOND`].
    Second,
}

/// What a router does.
const ROUTER: &str = r#"
table ip nat {
    chain post {
        type nat hook postrouting priority 100
        oifname "wan" masquerade
    }
}
table ip filter {
    chain input {
        type filter hook input priority 0
        iifname "wan" ct state != { established, related } drop
    }
    chain forward {
        type filter hook forward priority 0; policy drop
        iifname "lan" accept
        ct state { established, related } accept
    }
}
"#;

impl Nat {
    /// The address of the machine in the open.
    pub const OPEN: &str = "192.52.193.1";
    /// The outer address of the first router.
    pub const FIRST: &str = "192.52.193.2";
    /// The outer address of the second router.
    pub const SECOND: &str = "192.52.193.3";
    /// The addresses of the other machines in the open.
    pub const SERVERS: [&str; 2] = ["192.52.193.4", "192.52.193.5"];

    /// Builds the network; `None`, with the reason printed, where it cannot be.
    pub fn build() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let prefix = format!("dagmesh-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        // Dropped, it takes down what stands by then.
        let network = Self { prefix, scripts: tempfile::tempdir().expect("a folder") };
        network.raise().map_err(|why| println!("skipped: no network with routers can be built: {why}")).ok()?;
        Some(network)
    }

    fn raise(&self) -> Result<(), String> {
        run("nft", &["--version"])?;
        for space in SPACES {
            run("ip", &["netns", "add", &self.space(space)])?;
            self.ip(space, "link set lo up")?;
        }
        self.ip("wan", "link add bridge type bridge")?;
        self.ip("wan", "link set bridge up")?;
        let [server1, server2] = Self::SERVERS;
        let outside = [("open", Self::OPEN), ("server1", server1), ("server2", server2)];
        for (space, addr) in [("router1", Self::FIRST), ("router2", Self::SECOND)].into_iter().chain(outside) {
            let other = self.space("wan");
            self.ip(space, &format!("link add wan type veth peer name {space} netns {other}"))?;
            self.ip("wan", &format!("link set {space} master bridge up"))?;
            self.ip(space, &format!("addr add {addr}/24 dev wan"))?;
            self.ip(space, "link set wan up")?;
        }
        for (router, host, net) in [("router1", "host1", "10.1.0"), ("router2", "host2", "10.2.0")] {
            let other = self.space(host);
            self.ip(router, &format!("link add lan type veth peer name lan netns {other}"))?;
            for (space, number) in [(router, 1), (host, 2)] {
                self.ip(space, &format!("addr add {net}.{number}/24 dev lan"))?;
                self.ip(space, "link set lan up")?;
            }
            self.ip(host, &format!("route add default via {net}.1"))?;
            let rules = self.scripts.path().join("rules");
            fs::write(&rules, ROUTER).expect("written");
            let forward = "echo 1 > /proc/sys/net/ipv4/ip_forward && nft -f \"$0\"";
            run("ip", &["netns", "exec", &self.space(router), "sh", "-c", forward, path(&rules)])?;
        }
        Ok(())
    }

    /// A program that is `program` run on that machine, with whatever arguments.
    pub fn on(&self, place: Place, program: &Path) -> PathBuf {
        let script = self.scripts.path().join(format!("{place:?}"));
        let (space, program) = (self.space(place.space()), program.display());
        fs::write(&script, format!("#!/bin/sh\nexec ip netns exec {space} '{program}' \"$@\"\n")).expect("written");
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("made a program");
        script
    }

    /// Whether a machine can connect to this IPv4 address and port; what does not answer within a second, it cannot.
    pub fn connects(&self, from: Place, to: &str, port: u16) -> bool {
        let attempt = format!("exec timeout 1 bash -c '</dev/tcp/{to}/{port}'");
        run("ip", &["netns", "exec", &self.space(from.space()), "bash", "-c", &attempt]).is_ok()
    }

    fn ip(&self, space: &str, args: &str) -> Result<(), String> {
        let space = self.space(space);
        let done = run("ip", &[["-n", &space].as_slice(), &args.split(' ').collect::<Vec<_>>()].concat());
        done.map_err(|why| format!("`ip {args}`: {why}")).map(drop)
    }

    fn space(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }
}

impl Drop for Nat {
    fn drop(&mut self) {
        for space in SPACES {
            let _never_built = run("ip", &["netns", "del", &self.space(space)]);
        }
    }
}

const SPACES: [&str; 8] = ["wan", "open", "server1", "server2", "router1", "router2", "host1", "host2"];

impl Place {
    fn space(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::FirstServer => "server1",
            Self::SecondServer => "server2",
            Self::First => "host1",
            Self::Second => "host2",
        }
    }
}
