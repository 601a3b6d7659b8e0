use std::collections::BTreeMap;
use std::time::SystemTime;

use dagmesh_core::limits;
use libp2p::{Multiaddr, PeerId};

use super::address;
use super::config::Profile;

/// Which own addresses others can reach.
#[derive(Debug, Clone)]
pub struct ReachabilityReport {
    /// Whether at least one address is reachable.
    pub reachable: bool,
    /// The state in one sentence, with what to do.
    pub summary: String,
    /// Each address, ordered by address.
    pub addresses: Vec<AddressStatus>,
}

/// What is known about one own address.
#[derive(Debug, Clone)]
pub struct AddressStatus {
    /// The address, without `/p2p/`.
    pub addr: Multiaddr,
    /// Whether it can be reached.
    pub state: Reachability,
    /// The peer that tried last.
    pub tested_by: Option<PeerId>,
    /// When it did.
    pub tested: Option<SystemTime>,
    /// How the last try failed.
    pub error: Option<String>,
    /// What it means and what to do.
    pub advice: String,
}

/// Whether an own address can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Reachability {
    /// Proven by a peer that dialled it, mapped by the router, or configured.
    Reachable,
    /// A peer dialled it in vain.
    Unreachable,
    /// Not tested yet.
    Untested,
    /// Only within the own machine or network.
    Local,
}

/// What AutoNAT v2, UPnP and the listeners have told so far.
pub(super) struct Observed {
    profile: Profile,
    autonat: bool,
    candidates: BTreeMap<Multiaddr, Candidate>,
    order: u64,
    gateway: Option<&'static str>,
}

struct Candidate {
    state: Reachability,
    tested_by: Option<PeerId>,
    tested: Option<SystemTime>,
    error: Option<String>,
    order: u64,
}

impl Observed {
    pub(super) fn new(profile: Profile, autonat: bool) -> Self {
        Self { profile, autonat, candidates: BTreeMap::new(), order: 0, gateway: None }
    }

    pub(super) fn candidate(&mut self, addr: Multiaddr) {
        self.entry(addr);
    }

    pub(super) fn tested(&mut self, addr: Multiaddr, by: PeerId, at: SystemTime, error: Option<String>) {
        let entry = self.entry(addr);
        entry.state = if error.is_none() { Reachability::Reachable } else { Reachability::Unreachable };
        entry.tested_by = Some(by);
        entry.tested = Some(at);
        entry.error = error;
    }

    pub(super) fn expired(&mut self, addr: &Multiaddr) {
        self.candidates.remove(&address::without_peer(addr));
    }

    /// Why the router maps no port.
    pub(super) fn no_gateway(&mut self, reason: &'static str) {
        self.gateway = Some(reason);
    }

    /// The report over listen addresses, confirmed external ones and candidates.
    pub(super) fn report<'a>(
        &self,
        listen: impl Iterator<Item = &'a Multiaddr>,
        external: impl Iterator<Item = &'a Multiaddr>,
        connected: usize,
    ) -> ReachabilityReport {
        let mut states: BTreeMap<Multiaddr, (Reachability, Option<&Candidate>)> = BTreeMap::new();
        for addr in listen {
            let global = dagmesh_announce::is_globally_reachable(addr);
            let state = if global { Reachability::Untested } else { Reachability::Local };
            states.insert(address::without_peer(addr), (state, None));
        }
        for (addr, candidate) in &self.candidates {
            let local = self.profile == Profile::Public && !dagmesh_announce::is_globally_reachable(addr);
            let state = if local { Reachability::Local } else { candidate.state };
            states.insert(addr.clone(), (state, Some(candidate).filter(|_| !local)));
        }
        for addr in external {
            let addr = address::without_peer(addr);
            let candidate = self.candidates.get(&addr);
            states.insert(addr, (Reachability::Reachable, candidate));
        }
        let addresses: Vec<_> = states
            .into_iter()
            .map(|(addr, (state, candidate))| AddressStatus {
                advice: self.advice(&addr, state, connected),
                addr,
                state,
                tested_by: candidate.and_then(|it| it.tested_by),
                tested: candidate.and_then(|it| it.tested),
                error: candidate.and_then(|it| it.error.clone()).filter(|_| state != Reachability::Reachable),
            })
            .collect();
        let reachable = addresses.iter().any(|it| it.state == Reachability::Reachable);
        ReachabilityReport { reachable, summary: self.summary(&addresses, reachable, connected), addresses }
    }

    fn entry(&mut self, addr: Multiaddr) -> &mut Candidate {
        let addr = address::without_peer(&addr);
        if self.candidates.len() >= limits::MAX_ADDRESS_CANDIDATES && !self.candidates.contains_key(&addr) {
            let oldest = self.candidates.iter().min_by_key(|(_, it)| it.order).map(|(addr, _)| addr.clone());
            oldest.and_then(|addr| self.candidates.remove(&addr));
        }
        self.order += 1;
        let order = self.order;
        self.candidates.entry(addr).or_insert_with(|| Candidate {
            state: Reachability::Untested,
            tested_by: None,
            tested: None,
            error: None,
            order,
        })
    }

    fn advice(&self, addr: &Multiaddr, state: Reachability, connected: usize) -> String {
        match state {
            Reachability::Reachable if address::is_relayed(addr) => {
                "Reachable through a relay: slower, and limited in volume. Forward a port for direct connections."
                    .into()
            }
            Reachability::Reachable => "Reachable; nothing to do.".into(),
            Reachability::Unreachable => match address::socket_of(addr) {
                Some((_, address::Socket::Tcp(port))) => format!(
                    "A peer could not dial it. Open TCP port {port} in the firewall and forward it on the router to \
                     this machine, or listen through a relay."
                ),
                Some((_, address::Socket::Udp(port))) => format!(
                    "A peer could not dial it. Open UDP port {port} in the firewall and forward it on the router to \
                     this machine, or listen through a relay."
                ),
                None => "A peer could not dial it. Check the firewall and the router.".into(),
            },
            Reachability::Untested if !self.autonat => {
                "Not tested: AutoNAT is off. Switch it on, or configure the address as external.".into()
            }
            Reachability::Untested if connected == 0 => "Not tested: no peer is connected that could try.".into(),
            Reachability::Untested => "Not tested yet: a connected peer that offers AutoNAT v2 will try it.".into(),
            Reachability::Local if address::is_loopback(addr) => "For this machine alone.".into(),
            Reachability::Local => "For the local network alone.".into(),
        }
    }

    fn summary(&self, addresses: &[AddressStatus], reachable: bool, connected: usize) -> String {
        let has = |state| addresses.iter().any(|it| it.state == state);
        if reachable {
            return match self.profile {
                Profile::Public => "Peers can reach this node.".into(),
                _ => "Peers of this network are expected to reach this node.".into(),
            };
        }
        let gateway = self.gateway.map(|reason| format!(" {reason}")).unwrap_or_default();
        if addresses.is_empty() {
            "This node listens nowhere: it can dial others, nobody can dial it. Set a listen address.".into()
        } else if has(Reachability::Unreachable) {
            format!(
                "Peers cannot reach this node: it can fetch, but serves only those it dials.{gateway} See the addresses for the fix."
            )
        } else if connected == 0 {
            format!("Unknown: no peer is connected that could test it.{gateway}")
        } else {
            format!("Unknown: no address has been tested yet.{gateway}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    fn state_of(report: &ReachabilityReport, text: &str) -> AddressStatus {
        report.addresses.iter().find(|it| it.addr == addr(text)).unwrap().clone()
    }

    #[test]
    fn an_address_that_failed_is_unreachable_with_the_port_to_open() {
        let mut observed = Observed::new(Profile::Public, true);
        let (by, at) = (PeerId::random(), SystemTime::now());
        observed.candidate(addr("/ip4/8.8.8.8/tcp/4101"));
        observed.tested(addr("/ip4/8.8.8.8/tcp/4101"), by, at, Some("dial failed".into()));
        let report = observed.report([addr("/ip4/192.168.1.2/tcp/4101")].iter(), [].iter(), 3);
        assert!(!report.reachable);
        let status = state_of(&report, "/ip4/8.8.8.8/tcp/4101");
        let tested = (status.state, status.tested_by, status.tested);
        assert_eq!(tested, (Reachability::Unreachable, Some(by), Some(at)));
        assert!(status.advice.contains("TCP port 4101"), "{}", status.advice);
        assert_eq!(state_of(&report, "/ip4/192.168.1.2/tcp/4101").state, Reachability::Local);
    }

    #[test]
    fn a_confirmed_address_is_reachable_though_a_test_failed_before() {
        let mut observed = Observed::new(Profile::Public, true);
        let text = "/ip4/8.8.8.8/udp/4101/quic-v1";
        observed.tested(addr(text), PeerId::random(), SystemTime::now(), Some("no".into()));
        let report = observed.report([].iter(), [addr(text)].iter(), 1);
        assert!(report.reachable);
        assert_eq!(state_of(&report, text).error, None);
    }

    #[test]
    fn candidates_are_capped() {
        let mut observed = Observed::new(Profile::Public, true);
        for port in 1..=limits::MAX_ADDRESS_CANDIDATES + 1 {
            observed.candidate(addr(&format!("/ip4/8.8.8.8/tcp/{port}")));
        }
        assert_eq!(observed.candidates.len(), limits::MAX_ADDRESS_CANDIDATES);
        assert!(!observed.candidates.contains_key(&addr("/ip4/8.8.8.8/tcp/1")));
    }
}
