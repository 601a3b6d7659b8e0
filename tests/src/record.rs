//! Records and names of daemons: what is put, who has it, where a name points.

use std::time::Duration;

use dagmesh::types::{KeyInfo, NameResolved, RecordFound, RecordHeld, RecordPutDone};
use serde_json::{Value, json};

use crate::{
    Daemon,
    api::{Watch, api_call, api_try_within},
    peer::SOON,
    wait_for_some,
};

/// How long one put or get may take: its own bound, and some.
const CALL: Duration = Duration::from_secs(120);

/// Connects each daemon with each, and waits until each is found by all others: what the last of them puts is held by all.
///
/// # Panics
/// When that does not come to be; so does all else here that must succeed and does not.
pub async fn meet(daemons: &[Daemon]) {
    for (at, daemon) in daemons.iter().enumerate() {
        for other in daemons.iter().skip(at + 1) {
            api_call(daemon, "connect", &json!({"addr": other.addr("tcp")})).await;
        }
    }
    for daemon in daemons {
        put_at(daemon, "probe", b"", daemons.len() - 1).await;
    }
}

/// Puts a record of this daemon's own key, or says why not. Where nobody takes it, it is kept at the daemon all the same.
pub async fn try_put(daemon: &Daemon, name: &str, value: &[u8]) -> Result<RecordPutDone, String> {
    let ask = json!({"record": {"name": name, "value": data_encoding::BASE64.encode(value)}});
    api_try_within(daemon, "record/put", &ask, CALL).await.map(read)
}

/// Puts a record.
pub async fn put(daemon: &Daemon, name: &str, value: &[u8]) -> RecordPutDone {
    try_put(daemon, name, value).await.unwrap_or_else(|error| panic!("{name:?} was not put: {error}"))
}

/// Puts until so many hold it, each time under the next number: a DHT takes a moment to know all of its nodes.
pub async fn put_at(daemon: &Daemon, name: &str, value: &[u8], holders: usize) -> RecordPutDone {
    let what = format!("{holders} nodes that hold {name:?} of {}", daemon.peer_id());
    wait_for_some(SOON * 2, &what, async || {
        try_put(daemon, name, value).await.ok().filter(|done| done.replicas >= holders)
    })
    .await
}

/// The newest record, or why there is none. `target` is a key or `PUBLICKEY/NAME`.
pub async fn try_get(daemon: &Daemon, target: &str) -> Result<RecordFound, String> {
    api_try_within(daemon, "record/get", &json!({"target": target}), CALL).await.map(read)
}

/// The newest record.
pub async fn get(daemon: &Daemon, target: &str) -> RecordFound {
    try_get(daemon, target).await.unwrap_or_else(|error| panic!("{target} was not found: {error}"))
}

/// The records that a daemon holds; those alone that it put itself with `own`.
pub async fn held(daemon: &Daemon, own: bool) -> Vec<RecordHeld> {
    read(api_call(daemon, "record/list", &json!({"own": own})).await)
}

/// Points the name of a named key (`self`: the daemon's own).
pub async fn publish_name(daemon: &Daemon, key: &str, value: &str) -> RecordPutDone {
    let ask = json!({"key": key, "name": {"value": value}});
    let published = api_try_within(daemon, "name/publish", &ask, CALL).await;
    read(published.unwrap_or_else(|error| panic!("{key} was not pointed at {value}: {error}")))
}

/// Where a name points.
pub async fn resolve(daemon: &Daemon, name: &str) -> NameResolved {
    let resolved = api_try_within(daemon, "name/resolve", &json!({"name": name}), CALL).await;
    read(resolved.unwrap_or_else(|error| panic!("{name} was not resolved: {error}")))
}

/// Makes a named key; its IPNS name.
pub async fn key(daemon: &Daemon, name: &str) -> String {
    let made: KeyInfo = read(api_call(daemon, "key/gen", &json!({"name": name})).await);
    made.ipns
}

/// Where a name points from now on, as one daemon tells it.
pub struct NameWatch(Watch);

impl NameWatch {
    /// Watches a name; what is accepted after this returned is heard.
    pub async fn of(daemon: &Daemon, name: &str) -> Self {
        Self(Watch::of(daemon, "name/watch", &json!({"name": name})).await)
    }

    /// Waits until it points there.
    pub async fn points_at(&self, value: &str) -> NameResolved {
        read(
            self.0
                .wait(&format!("a name that points at {value}"), |line| line.get("value").is_some_and(|to| to == value))
                .await,
        )
    }

    /// All that was told, of a daemon that has ended.
    pub async fn end(self) -> Vec<NameResolved> {
        self.0.end().await.into_iter().map(read).collect()
    }
}

fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value.clone()).unwrap_or_else(|error| panic!("{error}: {value}"))
}
