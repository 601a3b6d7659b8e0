//! Groups of daemons: what is asked about them, what each member was told, and whether they agree.

use std::collections::{BTreeMap, BTreeSet};

use dagmesh::types::{GroupEntry, GroupEvent, GroupInfo, GroupPublished, GroupState};
use libp2p::PeerId;
use serde_json::{Value, json};

use crate::{
    Daemon,
    api::{Watch, api_call, api_try},
    peer::SOON,
    wait_for, wait_for_some,
};

/// Entries that one call lists.
const PAGE: u64 = 10_000;

/// Makes an open group and takes part in it.
pub async fn create(daemon: &Daemon, name: &str) -> GroupInfo {
    read(api_call(daemon, "group/create", &json!({"name": name})).await)
}

/// Takes part in a group by name or ticket, without waiting.
pub async fn join(daemon: &Daemon, target: &str) -> GroupInfo {
    read(api_call(daemon, "group/join", &json!({"target": target})).await)
}

/// Takes part in a group, and waits until its state is that of the others.
pub async fn join_wait(daemon: &Daemon, target: &str) -> GroupInfo {
    read(api_call(daemon, "group/join", &json!({"target": target, "wait": true})).await)
}

/// What a daemon says of a group that it takes part in.
pub async fn info(daemon: &Daemon, name: &str) -> GroupInfo {
    let groups: Vec<GroupInfo> = read(api_call(daemon, "group/list", &json!({})).await);
    groups.into_iter().find(|info| info.group == name).unwrap_or_else(|| panic!("no part is taken in {name}"))
}

/// Publishes a text.
pub async fn say(daemon: &Daemon, name: &str, text: &str) -> GroupPublished {
    try_say(daemon, name, text).await.unwrap_or_else(|error| panic!("{text:?} was not published: {error}"))
}

/// Publishes a text, or says why not. After an error it may be published all the same.
pub async fn try_say(daemon: &Daemon, name: &str, text: &str) -> Result<GroupPublished, String> {
    let ask = json!({"name": name, "body": {"text": text}});
    api_try(daemon, "group/publish", &ask).await.map(read)
}

/// Publishes a file or folder.
pub async fn publish(daemon: &Daemon, name: &str, path: &std::path::Path) -> GroupPublished {
    read(api_call(daemon, "group/publish", &json!({"name": name, "body": {"content": {"path": path}}})).await)
}

/// A daemon's whole log of a group.
pub async fn log(daemon: &Daemon, name: &str) -> Vec<GroupEntry> {
    let mut entries: Vec<GroupEntry> = Vec::new();
    loop {
        let ask = json!({"name": name, "from": entries.len(), "limit": PAGE});
        let page: Vec<GroupEntry> = read(api_call(daemon, "group/log", &ask).await);
        let last = (page.len() as u64) < PAGE;
        entries.extend(page);
        if last {
            return entries;
        }
    }
}

/// A daemon's state of a group.
pub async fn state(daemon: &Daemon, name: &str) -> GroupState {
    read(api_call(daemon, "group/state", &json!({"name": name})).await)
}

/// Waits until a daemon is connected with at least so many members of a group.
pub async fn has_peers(daemon: &Daemon, name: &str, count: usize) {
    let what = format!("{count} members of {name} at {}", daemon.peer_id());
    wait_for(SOON, &what, async || state(daemon, name).await.peers >= count).await;
}

/// Waits until all members have the same state, of so many publications, and have told all of them; the root.
///
/// # Panics
/// When they do not, with what each says.
pub async fn agree(daemons: &[&Daemon], name: &str, publications: u64) -> String {
    let mut last = String::new();
    let agreeing = wait_for_some(SOON * 2, "members that agree", async || {
        let mut states = Vec::new();
        let mut now = String::new();
        for daemon in daemons {
            let (state, entries) = (state(daemon, name).await, info(daemon, name).await.entries);
            let GroupState { root, sum, missing, peers, ahead, .. } = &state;
            now += &format!(
                "{} at {sum}, {entries} told, {missing} missing, {peers} peers, {ahead:?} ahead\n",
                &root[..8]
            );
            states.push((state.root, state.sum, state.missing, entries));
        }
        if now != last {
            println!("{now}");
            last = now;
        }
        let (root, ..) = states.first()?;
        let whole = states.iter().all(|state| *state == (root.clone(), publications, 0, publications));
        whole.then(|| root.clone())
    });
    agreeing.await
}

/// What happens in a group, as one daemon tells it.
pub struct GroupWatch(Watch);

impl GroupWatch {
    /// Watches from this place of the log on; it hears from the moment this returns.
    pub async fn from(daemon: &Daemon, name: &str, index: u64) -> Self {
        Self(Watch::of(daemon, "group/watch", &json!({"name": name, "from": index})).await)
    }

    /// Watches what happens from now on.
    pub async fn live(daemon: &Daemon, name: &str) -> Self {
        Self(Watch::of(daemon, "group/watch", &json!({"name": name})).await)
    }

    /// The publications that it has told so far.
    pub fn entries(&self) -> Vec<GroupEntry> {
        let entry = |event| match read(event) {
            GroupEvent::Entry(entry) => *entry,
            other => panic!("an entry is {other:?}"),
        };
        self.0.all("entry").into_iter().map(entry).collect()
    }

    /// All events of this name so far.
    pub fn all(&self, event: &str) -> Vec<GroupEvent> {
        self.0.all(event).into_iter().map(read).collect()
    }

    /// Waits until it has told so many publications; those.
    pub async fn told(&self, count: usize) -> Vec<GroupEntry> {
        let what = format!("{count} publications that are told");
        wait_for(SOON, &what, async || self.0.all("entry").len() >= count).await;
        self.entries()
    }

    /// The same of a watch of this daemon's group.
    ///
    /// # Panics
    /// When it does not, with what the log, the state and a second watch say.
    pub async fn told_by(&self, daemon: &Daemon, name: &str, count: usize) -> Vec<GroupEntry> {
        if let Ok(told) = tokio::time::timeout(SOON / 2, self.told(count)).await {
            return told;
        }
        let numbers = |entries: Vec<GroupEntry>| {
            let number = |entry: &GroupEntry| (entry.index, entry.producer, entry.session, entry.seq, entry.recovery);
            entries.iter().map(number).collect::<Vec<_>>()
        };
        let second = Self::from(daemon, name, 0).await;
        let again = tokio::time::timeout(SOON / 6, second.told(count)).await.is_ok();
        panic!(
            "of {count} a watch has told {:?}, gaps {:?}, whole log {:?}, {:?}, {:?}, a second watch ({again}) {:?}",
            numbers(self.entries()),
            self.all("gap"),
            numbers(log(daemon, name).await),
            state(daemon, name).await,
            info(daemon, name).await,
            numbers(second.entries()),
        );
    }

    /// Waits for an event that `fits`.
    pub async fn wait(&self, what: &str, mut fits: impl FnMut(&GroupEvent) -> bool) -> GroupEvent {
        read(self.0.wait(what, |event| serde_json::from_value(event.clone()).is_ok_and(|event| fits(&event))).await)
    }

    /// Waits until a DAG is told to be whole.
    pub async fn fetched(&self, head: &cid::Cid) {
        let fits = |event: &GroupEvent| matches!(event, GroupEvent::Fetched { head: whole, .. } if whole == head);
        self.wait(&format!("{head} that is whole"), fits).await;
    }

    /// Waits for the end of a watch, whose group was left or whose daemon has stopped; all that it told.
    pub async fn end(self) -> Vec<Value> {
        self.0.end().await
    }
}

/// Asserts that a log is one: its places are counted from 0 without gaps, each publication stands there once, and those
/// of a session in their order, from 1 on, without gaps. What each producer has said, in order, by session.
#[track_caller]
pub fn assert_sound(entries: &[GroupEntry]) -> BTreeMap<(PeerId, u64), Vec<String>> {
    let mut said = BTreeMap::<_, Vec<String>>::new();
    for (place, entry) in entries.iter().enumerate() {
        assert_eq!(entry.index, place as u64, "places are counted");
        let texts = said.entry((entry.producer, entry.session)).or_default();
        let next = texts.len() as u64 + 1;
        assert_eq!(entry.seq, next, "{}/{}: number {next} is next", entry.producer, entry.session);
        let head = || entry.head.map(|head| head.to_string());
        texts.push(entry.text.clone().or_else(head).unwrap_or_default());
    }
    said
}

/// Asserts that a log has exactly what was said, each once, in its producer's order; and each producer one session.
#[track_caller]
pub fn assert_holds(entries: &[GroupEntry], said: &BTreeMap<PeerId, Vec<String>>) {
    let told = assert_sound(entries);
    let producers = told.keys().map(|(producer, _)| producer).collect::<BTreeSet<_>>();
    assert_eq!(producers.len(), told.len(), "sessions: {:?}", told.keys());
    for (producer, texts) in said {
        let mine = told.iter().find(|((of, _), _)| of == producer).map(|(_, texts)| texts);
        let differs = mine.and_then(|mine| mine.iter().zip(texts).position(|(told, said)| told != said));
        let (len, place) = (mine.map_or(0, Vec::len), differs);
        assert!(mine == Some(texts), "of {} by {producer} {len} were told, and number {place:?} differs", texts.len());
    }
    assert_eq!(producers.len(), said.len(), "nobody else has said anything");
}

/// Who a daemon is.
pub fn peer(daemon: &Daemon) -> PeerId {
    daemon.peer_id().parse().expect("a peer id")
}

#[track_caller]
fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value.clone()).unwrap_or_else(|error| panic!("{error}: {value}"))
}
