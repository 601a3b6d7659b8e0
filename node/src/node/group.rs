//! The handle to one group.

use cid::Cid;

use super::Node;
use crate::{
    api::{Api, GroupEventStream, ProgressSink, Result},
    ticket::GroupTarget,
    types::{
        Content, GroupBody, GroupCreateRequest, GroupEntry, GroupInfo, GroupJoinRequest, GroupLogRequest, GroupMembers,
        GroupMembersRequest, GroupPublishRequest, GroupPublished, GroupRequest, GroupState, GroupWatchRequest,
    },
};

/// A group by its name, taken part in or not; made by [`Node::group`]. Cheap to clone. Each method is that of
/// [`Api`] for this group, with its errors: [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) where the node does not
/// take part in it.
#[derive(Debug, Clone)]
pub struct Group {
    node: Node,
    name: String,
}

impl Node {
    /// The group of this name.
    pub fn group(&self, name: impl Into<String>) -> Group {
        Group { node: self.clone(), name: name.into() }
    }

    /// Takes part in the group that a name or a ticket leads to; with `wait`, answers when its state is that of the others.
    pub async fn join_group(&self, target: GroupTarget, wait: bool) -> Result<Group> {
        let info = self.group_join(GroupJoinRequest { target, wait }).await?;
        Ok(self.group(info.group))
    }
}

impl Group {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Makes the group and takes part in it: open to all, or, with `closed`, to us and `members`.
    pub async fn create(&self, closed: bool, members: Vec<libp2p::PeerId>) -> Result<GroupInfo> {
        self.node.group_create(GroupCreateRequest { name: self.name.clone(), closed, members }).await
    }

    /// Takes part in the open group of this name.
    pub async fn open(&self) -> Result<GroupInfo> {
        self.create(false, Vec::new()).await
    }

    /// Takes part no longer, and forgets its log.
    pub async fn leave(&self) -> Result<GroupInfo> {
        self.node.group_leave(self.request()).await
    }

    /// Publishes a DAG that is held. Durable, and told to whoever is there, when it answers.
    pub async fn publish(&self, content: Cid) -> Result<GroupPublished> {
        self.say(GroupBody::Content(Content::Cid(content))).await
    }

    /// Publishes text of at most 16 KiB. Durable, and told to whoever is there, when it answers.
    pub async fn send(&self, text: impl Into<String>) -> Result<GroupPublished> {
        self.say(GroupBody::Text(text.into())).await
    }

    /// What happens in it: first what stands in the log from this index on, then what comes; without one what comes alone.
    /// Each publication is told once, in order for each session of its producer.
    pub async fn events(&self, from: Option<u64>) -> Result<GroupEventStream> {
        self.node.group_watch(GroupWatchRequest { name: self.name.clone(), from }).await
    }

    /// Its log from an index on, or the newest of it; at most 10,000 entries.
    pub async fn log(&self, from: Option<u64>, limit: usize) -> Result<Vec<GroupEntry>> {
        self.node.group_log(GroupLogRequest { name: self.name.clone(), from, limit }).await
    }

    /// Who is in it.
    pub async fn members(&self) -> Result<GroupMembers> {
        let (add, remove) = (Vec::new(), Vec::new());
        self.node.group_members(GroupMembersRequest { name: self.name.clone(), add, remove }).await
    }

    /// Its state: root digest, leaves, who is ahead.
    pub async fn state(&self) -> Result<GroupState> {
        self.node.group_state(self.request()).await
    }

    async fn say(&self, body: GroupBody) -> Result<GroupPublished> {
        let request = GroupPublishRequest { name: self.name.clone(), body };
        self.node.group_publish(request, ProgressSink::none()).await
    }

    fn request(&self) -> GroupRequest {
        GroupRequest { name: self.name.clone() }
    }
}
