//! Who may write here, and how the list of them gets round.

use std::time::Instant;

use libp2p_identity::PeerId;

use super::{Acceptance, Effect, Event, Group};
use crate::{
    head::{HeadError, HeadOrder},
    members::{MemberList, Membership, UnverifiedList},
    message::{Gossip, MemberBytes},
};

impl Group {
    /// The owner's newest list of members; `None` in an open group, and before one is known.
    pub fn member_list(&self) -> Option<&MemberList> {
        self.members.as_ref()
    }

    pub(super) fn is_member(&self, peer: &PeerId) -> bool {
        match (&self.config.membership, &self.members) {
            (Membership::Open, _) => true,
            (Membership::Closed { .. }, Some(list)) => list.members().contains(peer),
            (Membership::Closed { owner }, None) => owner == peer,
        }
    }

    /// A list from our own store, or a new one of the owner here.
    pub(super) fn own_members(&mut self, now: Instant, list: MemberList) {
        let news = matches!(self.take_members(now, list), HeadOrder::Newer | HeadOrder::Fork);
        if let Some(list) = self.list_bytes().filter(|_| news && self.peers.joined().next().is_some()) {
            self.tell(&Gossip::Members(list));
        }
    }

    /// Takes a list over an older one, and over another of its version where it outranks that. Who is a member no more
    /// leaves the state, at every member alike.
    fn take_members(&mut self, now: Instant, list: MemberList) -> HeadOrder {
        let Membership::Closed { owner } = self.config.membership else { return HeadOrder::Older };
        if !list.is_for(&self.config.group, &owner) {
            return HeadOrder::Older;
        }
        let (order, kept) = match &self.members {
            Some(known) => (list.compare(known), list.outranks(known)),
            None => (HeadOrder::Newer, true),
        };
        let version = list.version();
        if order == HeadOrder::Fork && self.members_forked != version {
            self.members_forked = version;
            self.event(Event::MembersEquivocation { version });
        }
        if kept {
            let before = self.state.summary().root;
            let gone = self.state.restrict(&list);
            if !gone.is_empty() {
                self.log.push(before, gone);
            }
            self.effects.push_back(Effect::StoreMembers(list.clone()));
            self.members = Some(list);
            self.event(Event::MembersChanged { version });
            self.heartbeat.differ(now, &mut self.rng);
        }
        order
    }

    /// A list that has come from a peer. Its signature is looked at only where it could be news.
    pub(super) fn hear_members(&mut self, now: Instant, bytes: &[u8]) -> Result<HeadOrder, HeadError> {
        let Membership::Closed { owner } = self.config.membership else { return Ok(HeadOrder::Older) };
        if self.members.as_ref().is_some_and(|known| known.encode() == bytes) {
            return Ok(HeadOrder::Same);
        }
        let list = UnverifiedList::parse(&self.config.group, &owner, bytes)?;
        if self.members.as_ref().is_some_and(|known| list.version() < known.version()) {
            return Ok(HeadOrder::Older);
        }
        Ok(self.take_members(now, list.verify()?))
    }

    pub(super) fn gossiped_members(&mut self, now: Instant, bytes: &[u8]) -> Result<Acceptance, HeadError> {
        Ok(match self.hear_members(now, bytes)? {
            HeadOrder::Newer | HeadOrder::Same | HeadOrder::Fork => Acceptance::Accept,
            HeadOrder::Older => Acceptance::Ignore,
        })
    }

    /// Our list, as it travels.
    pub(super) fn list_bytes(&self) -> Option<MemberBytes> {
        self.members.as_ref().and_then(|list| MemberBytes::new(list.encode()).ok())
    }
}
