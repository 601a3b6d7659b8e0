//! Groups: several writers, no leader. Every member learns every other member's newest head, and keeps what they publish.
//!
//! - [`member`]: one group: its machine, and what carries out what that wants.
//! - [`writer`]: keeps heads, sessions and the log; a publication is told once, over kills too.
//! - [`fetch`]: the entries that heads name, and the DAGs that those carry.
//! - [`find`]: other members.
//! - [`show`]: the log, the members, the state.
//!
//! Where another process publishes under our key and session at the very moment of a write of ours, what we wrote moves to a
//! later session, and our own log holds it twice, once a session. To write the row only after the head is said would cost each
//! publication a second write.

mod backlog;
mod fetch;
mod find;
mod member;
mod show;
#[cfg(test)]
mod tests;
mod tracker;
mod writer;

use std::{collections::BTreeMap, sync::Arc};

use cid::Cid;
use dagmesh_chronosync::{Body, GroupId, MemberList, net};
use dagmesh_core::limits;
use dagmesh_dag::{Blockstore, unixfs::Chunker};
use libp2p::PeerId;
use parking_lot::Mutex;
use serde_bytes::ByteBuf;
use tokio::sync::{Semaphore, broadcast::error::RecvError};

use self::member::{Member, Places};
use super::{Context, files, unix_ms};
use crate::{
    api::{GroupEventStream, ProgressSink},
    error::{ErrorKind, NodeError},
    store::{GroupPeer, GroupRecord, Store},
    swarm::MeshEvent,
    ticket::GroupTarget,
    types::{
        Content, GroupBody, GroupCreateRequest, GroupEntry, GroupInfo, GroupJoinRequest, GroupLogRequest, GroupMembers,
        GroupMembersRequest, GroupPublishRequest, GroupPublished, GroupState, GroupWatchRequest,
    },
};

/// The groups that this node takes part in. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Groups {
    context: Context,
    places: Places,
    members: Arc<Mutex<BTreeMap<GroupId, Arc<Member>>>>,
    /// One group at a time is joined or left.
    changing: Arc<tokio::sync::Mutex<()>>,
    /// Held while groups are told who is there: a list of peers and what came after it are never told in the wrong order.
    telling: Arc<tokio::sync::Mutex<()>>,
}

impl Groups {
    /// Takes up what the store says is taken part in, and answers what members ask.
    ///
    /// At most `content_bytes` are fetched unasked for one content.
    pub(crate) async fn start(context: &Context, content_bytes: u64) -> Result<Self, NodeError> {
        let this = Self {
            context: context.clone(),
            places: Places {
                calls: Arc::new(Semaphore::new(limits::MAX_GROUP_CALLS)),
                fetches: Arc::new(Semaphore::new(limits::MAX_GROUP_FETCHES)),
                content_bytes,
            },
            members: Arc::default(),
            changing: Arc::default(),
            telling: Arc::default(),
        };
        let incoming = context.swarm.streams().accept(net::PROTOCOL);
        let incoming = incoming.map_err(|error| NodeError::other(format!("a protocol is served twice: {error}")))?;
        let members = Arc::clone(&this.members);
        context.spawn(net::serve_on(incoming, move |peer, group, request| {
            let member = members.lock().get(&group).cloned();
            async move { member?.asked(peer, request).await }
        }));
        let listener = this.clone();
        let events = context.swarm.events();
        context.spawn(async move { listener.watch_mesh(events).await });
        for (id, record) in context.blocking(|store| Ok(store.groups()?)).await? {
            if record.left {
                context.blocking(move |store| Ok(store.remove_group(&id)?)).await?;
            } else {
                this.take_up(GroupId::from_bytes(id), record).await?;
            }
        }
        Ok(this)
    }

    /// Makes a group and takes part in it.
    pub(crate) async fn create(&self, request: GroupCreateRequest) -> Result<GroupInfo, NodeError> {
        let GroupCreateRequest { name, closed, members } = request;
        let own = self.context.key.public().to_peer_id();
        if !closed && !members.is_empty() {
            return Err(NodeError::usage("an open group has no list of members; closed: true makes one that has"));
        }
        let id = group_id(&name, closed.then_some(&own))?;
        let mut record = GroupRecord { name, ..GroupRecord::default() };
        if closed {
            // Of a group that was left before, a member who knows a newer list gives it back to us.
            let members = members.into_iter().collect();
            let list = MemberList::sign(&self.context.key, &id, 1, members, unix_ms());
            let list = list.map_err(|error| NodeError::usage(error.to_string()))?;
            record.owner = Some(ByteBuf::from(own.to_bytes()));
            record.members = Some(ByteBuf::from(list.encode()));
        }
        self.become_member(id, record).await?.info().await
    }

    /// Takes part in a group.
    pub(crate) async fn join(&self, request: GroupJoinRequest) -> Result<GroupInfo, NodeError> {
        let GroupJoinRequest { target, wait } = request;
        let mut record = GroupRecord { name: target.name().to_owned(), ..GroupRecord::default() };
        let mut owner = None;
        if let GroupTarget::Ticket(ticket) = &target {
            owner = ticket.owner();
            record.owner = owner.map(|owner| ByteBuf::from(owner.to_bytes()));
            record.peers = vec![GroupPeer::new(&ticket.peer(), ticket.addrs().to_vec())];
        }
        let member = self.become_member(group_id(target.name(), owner.as_ref())?, record).await?;
        if wait {
            let mut initialized = member.initialized.subscribe();
            tokio::select! {
                _ = initialized.wait_for(|is| *is) => {}
                () = member.context.stop.cancelled() => return Err(NodeError::stopping()),
            }
        }
        member.info().await
    }

    /// Takes part no longer. What was told of it is forgotten; its blocks go with the next collection of garbage.
    pub(crate) async fn leave(&self, name: &str) -> Result<GroupInfo, NodeError> {
        let _one_at_a_time = self.changing.lock().await;
        let member = self.member(name)?;
        let info = member.info().await?;
        let id = *member.group.as_bytes();
        self.members.lock().remove(&member.group);
        member.context.stop.cancel();
        self.context.swarm.unsubscribe(member.topic()).await?;
        if let Some(key) = find::key(&member.group) {
            self.context.swarm.stop_providing(key).await?;
        }
        let remove = move |store: &Store| {
            let _nobody_writes = member.writing.lock();
            Ok(store.remove_group(&id)?)
        };
        self.context.blocking(remove).await?;
        Ok(info)
    }

    /// The groups that are taken part in, by name.
    pub(crate) async fn list(&self) -> Result<Vec<GroupInfo>, NodeError> {
        let members: Vec<_> = self.members.lock().values().cloned().collect();
        let mut infos = Vec::with_capacity(members.len());
        for member in members {
            infos.push(member.info().await?);
        }
        infos.sort_unstable_by(|one, other| one.group.cmp(&other.group));
        Ok(infos)
    }

    /// Tells a group something. Durable when it answers.
    pub(crate) async fn publish(
        &self,
        request: GroupPublishRequest,
        progress: ProgressSink,
    ) -> Result<GroupPublished, NodeError> {
        let member = self.member(&request.name)?;
        if !member.may_write(&member.producer()) {
            let refusal = format!("{} is closed, and we are not on its owner's list", member.name);
            return Err(NodeError::new(ErrorKind::Unauthorised, refusal));
        }
        // Held until the entry refers to what was imported.
        let _protection = self.context.store.protect();
        let (body, content) = match request.body {
            GroupBody::Text(text) => (Body::Text(text), None),
            GroupBody::Content(content) => {
                let content = self.content(content, progress).await?;
                (Body::Content(content), Some(content))
            }
        };
        let head = member.publish(body).await?;
        Ok(GroupPublished {
            group: member.name.clone(),
            producer: head.producer(),
            session: head.session(),
            seq: head.sequence(),
            entry: head.content().copied().unwrap_or_default(),
            head: content,
            peers: member.peers().len(),
        })
    }

    /// A part of the log of a group.
    pub(crate) async fn log(&self, request: GroupLogRequest) -> Result<Vec<GroupEntry>, NodeError> {
        self.member(&request.name)?.log(request.from, request.limit).await
    }

    /// Who is in a group.
    pub(crate) async fn members(&self, request: GroupMembersRequest) -> Result<GroupMembers, NodeError> {
        let member = self.member(&request.name)?;
        if !(request.add.is_empty() && request.remove.is_empty()) {
            member.change_list(request.add, &request.remove).await?;
        }
        Ok(member.members())
    }

    /// The state of a group.
    pub(crate) fn state(&self, name: &str) -> Result<GroupState, NodeError> {
        Ok(self.member(name)?.state())
    }

    /// What happens in a group.
    pub(crate) async fn watch(&self, request: GroupWatchRequest) -> Result<GroupEventStream, NodeError> {
        self.member(&request.name)?.watch(request.from).await
    }

    fn member(&self, name: &str) -> Result<Arc<Member>, NodeError> {
        let found = self.members.lock().values().find(|member| member.name == name).cloned();
        found.ok_or_else(|| {
            NodeError::not_found(format!("{name} is no group that is taken part in; `dagmesh group ls` lists those"))
        })
    }

    /// The root of what is to be published; it is held.
    async fn content(&self, content: Content, progress: ProgressSink) -> Result<Cid, NodeError> {
        match content {
            Content::Cid(cid) => {
                dagmesh_dag::check_cid(&cid)?;
                if !self.context.blocking(move |store| Ok(store.has(&cid)?)).await? {
                    return Err(NodeError::not_found(format!("{cid} is not held; `dagmesh add` it first")));
                }
                Ok(cid)
            }
            Content::Path(path) => {
                Ok(files::import(&self.context, path, false, Chunker::default(), progress).await?.cid)
            }
        }
    }

    /// Becomes a member, or tells a member of more peers.
    async fn become_member(&self, id: GroupId, mut record: GroupRecord) -> Result<Arc<Member>, NodeError> {
        let _one_at_a_time = self.changing.lock().await;
        let known = self.members.lock().get(&id).cloned();
        if let Some(member) = known {
            member.remember(record.peers).await?;
            member.seek.notify_one();
            return Ok(member);
        }
        if self.member(&record.name).is_ok() {
            let name = record.name;
            return Err(NodeError::usage(format!("another group named {name} is taken part in; leave it first")));
        }
        record.joined_ms = unix_ms();
        let stored = record.clone();
        self.context
            .blocking(move |store| {
                let id = id.as_bytes();
                // Left before, and not forgotten yet.
                store.remove_group(id)?;
                Ok(store.set_group(id, &stored)?)
            })
            .await?;
        self.take_up(id, record).await
    }

    async fn take_up(&self, id: GroupId, record: GroupRecord) -> Result<Arc<Member>, NodeError> {
        let member = Member::start(&self.context, self.places.clone(), id, record).await?;
        self.members.lock().insert(id, Arc::clone(&member));
        self.look_around().await?;
        Ok(member)
    }

    /// Tells each group who of it is connected.
    async fn look_around(&self) -> Result<(), NodeError> {
        let _in_order = self.telling.lock().await;
        let connected = self.context.swarm.peers().await?;
        let members: Vec<_> = self.members.lock().values().cloned().collect();
        for member in members {
            let (topic, known) = (member.topic(), member.peers());
            let there: Vec<PeerId> =
                connected.iter().filter(|peer| peer.topics.contains(&topic)).map(|peer| peer.peer).collect();
            there.iter().filter(|peer| !known.contains(peer)).for_each(|peer| member.joined(*peer));
            known.iter().filter(|peer| !there.contains(peer)).for_each(|peer| member.left(*peer));
        }
        Ok(())
    }

    /// The groups that this peer takes part in.
    fn with(&self, peer: &PeerId) -> Vec<Arc<Member>> {
        let mut members: Vec<_> = self.members.lock().values().cloned().collect();
        members.retain(|member| member.peers().contains(peer));
        members
    }

    fn tell(&self, event: MeshEvent) {
        let of = |topic: &str| self.members.lock().values().find(|member| member.topic() == topic).cloned();
        match event {
            MeshEvent::TopicJoined { peer, topic } => of(&topic).into_iter().for_each(|member| member.joined(peer)),
            MeshEvent::TopicLeft { peer, topic } => of(&topic).into_iter().for_each(|member| member.left(peer)),
            MeshEvent::PeerDisconnected { peer, .. } => self.with(&peer).iter().for_each(|member| member.left(peer)),
            // Only now it is known where it can be dialled.
            MeshEvent::PeerIdentified { peer, .. } => {
                self.with(&peer).iter().for_each(|member| member.met.notify_one())
            }
            _ => {}
        }
    }

    /// Tells groups who comes and goes.
    async fn watch_mesh(&self, mut events: tokio::sync::broadcast::Receiver<MeshEvent>) {
        loop {
            match events.recv().await {
                Ok(event) => {
                    let _in_order = self.telling.lock().await;
                    self.tell(event);
                }
                Err(RecvError::Lagged(_)) => {
                    if let Err(error) = self.look_around().await {
                        tracing::debug!(%error, "who is in which group is not known");
                    }
                }
                Err(RecvError::Closed) => return,
            }
        }
    }
}

fn group_id(name: &str, owner: Option<&PeerId>) -> Result<GroupId, NodeError> {
    let id = owner.map_or_else(|| GroupId::open(name), |owner| GroupId::closed(name, owner));
    id.map_err(|error| NodeError::usage(error.to_string()))
}
