//! IPNS beside Kubo and npm's `ipns`: names published here and resolved there, and the other way round.

mod dht;
mod npm;
mod pubsub;

use dagmesh_tests::{Daemon, api::api_call};
use serde_json::{Value, json};

use crate::kubo::Kubo;

/// Two values of a name.
const ONE: &str = "/ipfs/bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy";
const TWO: &str = "/ipfs/bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku";

/// Points the name of one of our daemon's keys.
async fn publish(ours: &Daemon, key: &str, value: &str) -> Value {
    api_call(ours, "name/publish", &json!({"key": key, "name": {"value": value}})).await
}

/// Where a name points, as our daemon finds it; the record's number.
async fn resolve(ours: &Daemon, name: &str) -> (String, u64) {
    let found = api_call(ours, "name/resolve", &json!({"name": name})).await;
    let text = found["value"].as_str().unwrap_or_else(|| panic!("no value in {found}"));
    (text.to_owned(), found["seq"].as_u64().expect("a number"))
}

/// Points the name of one of Kubo's keys; the name.
async fn kubo_publishes(kubo: &Kubo, key: &str, value: &str) -> String {
    let name = kubo.ipfs(&["name", "publish", "--quieter", "--resolve=false", "--key", key, value]).await;
    name.trim().to_owned()
}

/// Where a name points, as Kubo finds it now.
async fn kubo_resolves(kubo: &Kubo, name: &str) -> String {
    kubo.ipfs(&["name", "resolve", "--nocache", name]).await.trim().to_owned()
}
