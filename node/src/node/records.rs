//! The handle to records and IPNS names.

use dagmesh_core::limits;
use dagmesh_records::{IpnsName, RecordName};
use futures::Stream;
use libp2p::identity::{Keypair, PublicKey};

use super::Node;
use crate::{
    api::Result,
    error::NodeError,
    keys::Keyring,
    types::{
        KeyName, NamePublish, NamePublishRequest, NameResolved, RecordFound, RecordHeld, RecordListRequest, RecordPut,
        RecordPutDone, RecordPutRequest, RecordTarget, content_path,
    },
};

/// Signed records in the DHT, and IPNS names; made by [`Node::records`]. Cheap to clone.
///
/// A call is bounded by [`limits::RECORD_CALL_SECS`], and is cancel-safe: dropped, it is given up; a record that was signed
/// stays and is put again later.
#[derive(Debug, Clone)]
pub struct Records {
    node: Node,
}

impl Node {
    /// Signed records and IPNS names.
    pub fn records(&self) -> Records {
        Records { node: self.clone() }
    }
}

impl Records {
    /// Puts a record under a name of this node. It is signed with the next number, durable here first, then put to the
    /// nodes closest to its key; and again from time to time while it is valid, after a restart too.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) where a field is over its bound;
    /// [`ErrorKind::NoPeers`](crate::ErrorKind::NoPeers) where no other node holds it, while it is kept here all the same.
    pub async fn put(&self, record: RecordPut) -> Result<RecordPutDone> {
        self.node.inner.records.put(None, record).await
    }

    /// As [`put`](Self::put), under a name of another key.
    pub async fn put_as(&self, key: Keypair, record: RecordPut) -> Result<RecordPutDone> {
        self.node.inner.records.put(Some(key), record).await
    }

    /// The newest record of this owner under this name: of what this node holds, and what the closest nodes say. Those that
    /// had none or an older one are given it, after this has answered.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) where nobody has a valid one.
    pub async fn get(&self, owner: &PublicKey, name: impl Into<String>) -> Result<RecordFound> {
        let name = RecordName::new(name).map_err(|error| NodeError::usage(error.to_string()))?;
        let target = RecordTarget::Name { owner: owner.clone(), name };
        self.node.inner.records.get(&target, limits::RECORD_QUORUM).await
    }

    /// The records that this node holds, by key; with `own` those alone that it put itself.
    pub fn list(&self, own: bool) -> Vec<RecordHeld> {
        self.node.inner.records.list(own)
    }

    /// Points the IPNS name of this node's key, as [`put`](Self::put).
    pub async fn publish_name(&self, name: NamePublish) -> Result<RecordPutDone> {
        self.node.inner.records.publish(None, name).await
    }

    /// As [`publish_name`](Self::publish_name), with another key.
    pub async fn publish_name_as(&self, key: Keypair, name: NamePublish) -> Result<RecordPutDone> {
        self.node.inner.records.publish(Some(key), name).await
    }

    /// Where an IPNS name points; a name is read in every form that Kubo writes.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn resolve_name(&self, name: &str) -> Result<NameResolved> {
        self.node.inner.records.resolve(&ipns_name(name)?, limits::RECORD_QUORUM).await
    }

    /// Where an IPNS name points, as soon as it is known, and after that each record that is newer than the last: as soon as
    /// this node is given it, and at the latest when the DHT is asked again, which it is at times. It ends with the node.
    ///
    /// # Errors
    /// It is no name.
    pub fn watch_name(&self, name: &str) -> Result<impl Stream<Item = NameResolved> + Send + use<>> {
        Ok(self.node.inner.records.watch(ipns_name(name)?))
    }
}

fn ipns_name(name: &str) -> Result<IpnsName> {
    name.parse().map_err(|error| NodeError::usage(format!("{name}: {error}")))
}

/// What the local API asks for by the names of keys.
impl Node {
    pub(super) async fn put_record(&self, request: RecordPutRequest) -> Result<RecordPutDone> {
        let RecordPutRequest { key, record } = request;
        let key = self.named(key).await?;
        self.inner.records.put(key, record).await
    }

    pub(super) async fn list_records(&self, request: RecordListRequest) -> Result<Vec<RecordHeld>> {
        // Each is read, and its signature checked, to tell its name.
        let records = self.inner.records.clone();
        self.inner.context.blocking(move |_| Ok(records.list(request.own))).await
    }

    pub(super) async fn point_name(&self, request: NamePublishRequest) -> Result<RecordPutDone> {
        let NamePublishRequest { key, name } = request;
        let name = NamePublish { value: content_path(&name.value)?, ..name };
        let key = self.named(key).await?;
        self.inner.records.publish(key, name).await
    }

    /// Works on the named keys, on a thread that may block.
    pub(super) async fn with_keys<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Keyring) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let keys = self.inner.keys.clone();
        self.inner.context.blocking(move |_| work(&keys)).await
    }

    async fn named(&self, name: Option<KeyName>) -> Result<Option<Keypair>> {
        match name {
            Some(name) => self.with_keys(move |keys| keys.get(&name)).await.map(Some),
            None => Ok(None),
        }
    }
}
