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

/// What AutoNAT, UPnP and the listeners have told so far.
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
    /// Whether a peer has tested this very address, which is what AutoNAT v2 does.
    proven: bool,
    /// Peers that say by AutoNAT v1 that they have reached it.
    witnesses: Vec<PeerId>,
}

impl Candidate {
    /// Whether enough peers say that they have reached it.
    fn is_vouched(&self) -> bool {
        self.witnesses.len() >= limits::AUTONAT_V1_WITNESSES
    }
}

impl Observed {
    pub(super) fn new(profile: Profile, autonat: bool) -> Self {
        Self { profile, autonat, candidates: BTreeMap::new(), order: 0, gateway: None }
    }

    pub(super) fn candidate(&mut self, addr: Multiaddr) {
        self.entry(addr);
    }

    /// Takes the answer of AutoNAT v2 about an address. Whether it refutes what witnesses had vouched for.
    pub(super) fn tested(&mut self, addr: Multiaddr, by: PeerId, at: SystemTime, error: Option<String>) -> bool {
        let entry = self.entry(addr);
        let refuted = error.is_some() && !entry.proven && entry.is_vouched();
        entry.proven = true;
        entry.witnesses.clear();
        entry.state = if error.is_none() { Reachability::Reachable } else { Reachability::Unreachable };
        entry.tested_by = Some(by);
        entry.tested = Some(at);
        entry.error = error;
        refuted
    }

    /// Takes the word of a peer, by AutoNAT v1, that it has reached one of our addresses: a candidate, or one that we
    /// listen on (`listening`). Whether the address now counts as reachable, and did not before.
    ///
    /// What AutoNAT v2 says of an address is better, and stands.
    pub(super) fn vouched(&mut self, addr: &Multiaddr, by: PeerId, at: SystemTime, listening: bool) -> bool {
        let addr = address::without_peer(addr);
        if !listening && !self.candidates.contains_key(&addr) {
            return false;
        }
        let entry = self.entry(addr);
        if entry.proven || entry.is_vouched() || entry.witnesses.contains(&by) {
            return false;
        }
        entry.witnesses.push(by);
        if !entry.is_vouched() {
            return false;
        }
        (entry.state, entry.error) = (Reachability::Reachable, None);
        (entry.tested_by, entry.tested) = (Some(by), Some(at));
        true
    }

    /// Takes the word of a peer, by AutoNAT v1, that it could reach none of our addresses.
    pub(super) fn doubted(&mut self, by: PeerId, at: SystemTime) {
        let unknown = |it: &&mut Candidate| !it.proven && it.state == Reachability::Untested && it.witnesses.is_empty();
        for entry in self.candidates.values_mut().filter(unknown) {
            entry.state = Reachability::Unreachable;
            (entry.tested_by, entry.tested) = (Some(by), Some(at));
            entry.error = Some("the peer could dial none of our addresses".to_owned());
        }
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
            proven: false,
            witnesses: Vec::new(),
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
            Reachability::Untested => "Not tested yet: a connected peer that offers AutoNAT will try it.".into(),
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
    fn the_word_of_witnesses_counts_once_enough_of_them_agree_and_until_a_test_refutes_it() {
        let mut observed = Observed::new(Profile::Public, true);
        let (ours, at) = (addr("/ip4/8.8.8.8/tcp/4101"), SystemTime::now());
        let [first, second, third] = [(); 3].map(|()| PeerId::random());
        assert!(!observed.vouched(&addr("/ip4/9.9.9.9/tcp/53"), first, at, false), "no address of ours");
        assert!(observed.candidates.is_empty());
        observed.candidate(ours.clone());
        let named = ours.clone().with(libp2p::multiaddr::Protocol::P2p(third));
        assert!(!observed.vouched(&named, first, at, false), "one is not enough");
        assert!(!observed.vouched(&named, first, at, false), "nor is the same one twice");
        assert!(observed.vouched(&named, second, at, false));
        assert!(!observed.vouched(&named, third, at, false), "it counts already");
        observed.doubted(third, at);
        let status = state_of(&observed.report([].iter(), [].iter(), 1), "/ip4/8.8.8.8/tcp/4101");
        assert_eq!((status.state, status.tested_by), (Reachability::Reachable, Some(second)));
        assert!(observed.tested(ours.clone(), third, at, Some("dial failed".into())), "it is refuted");
        for by in [first, second] {
            assert!(!observed.vouched(&named, by, at, true), "who has tested it knows better");
        }
        let status = state_of(&observed.report([].iter(), [].iter(), 1), "/ip4/8.8.8.8/tcp/4101");
        assert_eq!(status.state, Reachability::Unreachable);
    }

    #[test]
    fn a_peer_that_reaches_none_of_our_addresses_speaks_of_the_untested_ones() {
        let mut observed = Observed::new(Profile::Public, true);
        let (by, at) = (PeerId::random(), SystemTime::now());
        observed.tested(addr("/ip4/8.8.8.8/tcp/4101"), PeerId::random(), at, None);
        observed.candidate(addr("/ip4/8.8.8.8/udp/4101/quic-v1"));
        observed.doubted(by, at);
        let report = observed.report([].iter(), [].iter(), 1);
        assert_eq!(state_of(&report, "/ip4/8.8.8.8/tcp/4101").state, Reachability::Reachable);
        let status = state_of(&report, "/ip4/8.8.8.8/udp/4101/quic-v1");
        assert_eq!((status.state, status.tested_by), (Reachability::Unreachable, Some(by)));
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
