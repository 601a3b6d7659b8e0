//! Asking publishers.

mod connect;
mod exchange;
mod known;
mod pool;
mod stream;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use cid::Cid;
use dagmesh_core::{
    is_global,
    limits::{MAX_BLOCK_BYTES, MAX_IPNI_HEAD_BYTES, MAX_IPNI_PLACES},
};
use dagmesh_dag::{Block, Codec, Digests};
use hyper::header::HeaderValue;
use libp2p::{Multiaddr, PeerId};
use libp2p_stream::Control;
use serde::Deserialize;
use tokio::time::Instant;
use url::Url;

use self::{
    connect::Connector,
    exchange::{Answer, Ask, Exchange, Route},
    known::{Known, Publishers},
};
use super::{
    ANNOUNCE_PATH, AnnounceBody, BASE_PATH, ConfigError, JSON, Kind, NetError, OCTETS, OLD_PROTOCOLS_PATH,
    PROTOCOLS_PATH, Pace, addr::Place, pace::Spread,
};
use crate::SignedHead;

/// How a [`Client`] asks.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// Refuse every address of a publisher that is not globally reachable: after names are resolved, and after each
    /// redirect.
    pub only_reachable: bool,
    /// What the client calls itself.
    pub user_agent: String,
    /// Certificates in PEM that are trusted beside those of the system (`SSL_CERT_FILE` names others for these).
    pub extra_roots: Vec<u8>,
    /// How long publishers are waited for.
    pub pace: Pace,
}

impl Default for ClientConfig {
    fn default() -> Self {
        let user_agent = concat!("dagmesh/", env!("CARGO_PKG_VERSION")).to_owned();
        Self { only_reachable: false, user_agent, extra_roots: Vec::new(), pace: Pace::default() }
    }
}

/// Asks publishers. Cheap to clone; its clones share connections and what is known of publishers, both bounded.
#[derive(Clone)]
pub struct Client {
    exchange: Arc<Exchange>,
    publishers: Arc<Publishers>,
    spread: Arc<Spread>,
}

impl Client {
    /// A client that speaks HTTP over TCP, and over libp2p where it is given `streams`. Nothing is opened yet.
    ///
    /// # Errors
    /// Where the user agent cannot stand in a header, or the extra roots are no PEM.
    pub fn new(config: ClientConfig, streams: Option<Control>) -> Result<Self, ConfigError> {
        let reachable: fn(IpAddr) -> bool = if config.only_reachable { is_global } else { |_| true };
        Self::reaching(reachable, config, streams)
    }

    /// A client that goes where `reachable` says: in tests the whole internet is on one machine.
    fn reaching(
        reachable: fn(IpAddr) -> bool,
        config: ClientConfig,
        streams: Option<Control>,
    ) -> Result<Self, ConfigError> {
        let user_agent = HeaderValue::from_str(&config.user_agent);
        let user_agent = user_agent.map_err(|_| ConfigError::UserAgent(config.user_agent.clone()))?;
        let connector = Connector::new(reachable, &config.extra_roots, config.pace.clone())?;
        let exchange = Exchange::new(connector, streams, user_agent, config.pace);
        Ok(Self { exchange: Arc::new(exchange), publishers: Arc::default(), spread: Arc::default() })
    }

    /// One publisher, reachable at these addresses: those of HTTP, tried in their order, and others of libp2p, which
    /// stand for a stream by whatever connection the Swarm has or finds. Where there are none at all it is asked by peer
    /// id. Addresses that cannot be used are passed over; where none is left, every request says so.
    pub fn remote(&self, publisher: PeerId, addrs: &[Multiaddr]) -> Remote {
        let mut places = Vec::new();
        let mut example = None;
        for addr in addrs {
            match Place::of(addr, &publisher) {
                Ok(Place::Streams) if !self.exchange.has_streams() => {
                    example.get_or_insert_with(|| format!(": {addr} needs a node of libp2p"));
                }
                Ok(place) if places.contains(&place) || places.len() >= MAX_IPNI_PLACES => {}
                Ok(place) => places.push(place),
                Err(reason) => {
                    example.get_or_insert_with(|| format!(": {addr}: {reason}"));
                }
            }
        }
        if addrs.is_empty() && self.exchange.has_streams() {
            places.push(Place::Streams);
        }
        let unusable = NetError::NoAddress {
            publisher: Box::new(publisher),
            given: addrs.len(),
            example: example.unwrap_or_default(),
        };
        let known = self.publishers.of(publisher);
        Remote { client: self.clone(), publisher, places: places.into(), unusable: Arc::new(unusable), known }
    }

    /// Tells an indexer of a new head: `PUT` to `url`, to `/announce` there where it has no path. What fails for the
    /// moment is tried again, a few times. `url` is the operator's, so it may well be of a private network; where it
    /// redirects to is held to [`ClientConfig::only_reachable`]. Cancel-safe.
    pub async fn announce(&self, url: &str, body: AnnounceBody) -> Result<(), NetError> {
        let bad = |reason: String| NetError::Url { url: url.to_owned(), reason };
        let mut target = Url::parse(url).map_err(|error| bad(error.to_string()))?;
        if !matches!(target.scheme(), "http" | "https") {
            return Err(bad(format!("{} is not spoken here", target.scheme())));
        }
        if !target.username().is_empty() || target.password().is_some() {
            return Err(bad("names and passwords are not sent".to_owned()));
        }
        if target.path() == "/" {
            target.set_path(ANNOUNCE_PATH);
        }
        let (media_type, body) = match body {
            AnnounceBody::Cbor(body) => (OCTETS, body),
            AnnounceBody::Json(body) => (JSON, body),
        };
        let ask = Ask::put(media_type, body);
        let mut retry = self.retry();
        loop {
            let error = match self.exchange.ask(Route::trusted(), target.clone(), &ask).await {
                Ok(answer) if matches!(answer.status, 200 | 204) => return Ok(()),
                Ok(answer) => answer.refusal(),
                Err(error) => error,
            };
            retry.after(vec![error]).await?;
        }
    }

    fn retry(&self) -> Retry<'_> {
        let pace = self.exchange.pace();
        Retry { waits: pace.retries.iter(), longest: pace.max_retry_after, spread: &self.spread }
    }
}

/// Makes a request again that failed for the moment, as often as it may.
struct Retry<'a> {
    waits: std::slice::Iter<'a, Duration>,
    longest: Duration,
    spread: &'a Spread,
}

impl Retry<'_> {
    /// Waits until the next attempt. Where there is none, gives of the errors that the last one met the one that says
    /// most, of several the first.
    async fn after(&mut self, errors: Vec<NetError>) -> Result<(), NetError> {
        let asked = errors.iter().filter_map(NetError::retry_after).max().unwrap_or_default();
        let temporary = asked <= self.longest && errors.iter().any(NetError::is_temporary);
        match self.waits.next().filter(|_| temporary) {
            Some(wait) => tokio::time::sleep(self.spread.lengthen(*wait).max(asked)).await,
            None => return errors.into_iter().rev().max_by_key(NetError::weight).map_or(Ok(()), Err),
        }
        Ok(())
    }
}

/// One publisher. Cheap to clone. Its methods are cancel-safe, and at most
/// [`dagmesh_core::limits::MAX_IPNI_PARALLEL`] requests to one publisher run at once, whichever `Remote` they come from;
/// the others wait.
#[derive(Clone)]
pub struct Remote {
    client: Client,
    publisher: PeerId,
    places: Arc<[Place]>,
    /// What is told where there is no place.
    unusable: Arc<NetError>,
    known: Arc<Known>,
}

impl Remote {
    /// The publisher's signed head. Its signature holds, and it is the publisher's own.
    pub async fn head(&self) -> Result<SignedHead, NetError> {
        let ask = Ask::get(None, MAX_IPNI_HEAD_BYTES);
        self.get("head", &ask, |Answer { at, body, .. }| {
            let head = SignedHead::decode(Codec::DagJson, &body);
            let head = head.map_err(|error| NetError::Head { at: at.clone(), error: Box::new(error) })?;
            match head.publisher() == self.publisher {
                true => Ok(head),
                false => Err(NetError::Signer {
                    at,
                    signer: Box::new(head.publisher()),
                    publisher: Box::new(self.publisher),
                }),
            }
        })
        .await
    }

    /// The block of `cid`, at most [`MAX_BLOCK_BYTES`], hashed before it is returned.
    pub async fn block(&self, cid: Cid, kind: Kind) -> Result<Block, NetError> {
        let ask = Ask::get(Some(kind), MAX_BLOCK_BYTES);
        let block = |Answer { at, body, .. }| {
            Block::verify_with(cid, body, Digests::OrCut).map_err(|error| NetError::Block { at, error })
        };
        self.get(&cid.to_string(), &ask, block).await
    }

    /// Asks at one place after the other, the one that worked last first.
    async fn get<T>(
        &self,
        resource: &str,
        ask: &Ask,
        check: impl Fn(Answer) -> Result<T, NetError>,
    ) -> Result<T, NetError> {
        if self.places.is_empty() {
            return Err(NetError::clone(&self.unusable));
        }
        let _slot = self.known.slot().await;
        let mut retry = self.client.retry();
        loop {
            let mut errors = Vec::new();
            for place in self.known.in_order(&self.places) {
                match self.at_place(&place, resource, ask, &check).await {
                    Ok(value) => {
                        self.known.worked(place);
                        return Ok(value);
                    }
                    Err(error) => errors.push(error),
                }
            }
            retry.after(errors).await?;
        }
    }

    /// Asks at one place, below the path that is known to work there. Where none is yet: over TCP the path is taken for
    /// granted; where nothing is found there it is asked for, and old publishers have none at all. Over libp2p it is
    /// asked for first.
    async fn at_place<T>(
        &self,
        place: &Place,
        resource: &str,
        ask: &Ask,
        check: &impl Fn(Answer) -> Result<T, NetError>,
    ) -> Result<T, NetError> {
        if let Some(base) = self.known.base(place) {
            return self.below(place, &base, resource, ask, check).await;
        }
        let named = match place {
            Place::Http(_) => None,
            Place::Streams => self.named_base(place).await?,
        };
        let base = match named {
            Some(named) => named,
            None => join(&self.url(place)?, BASE_PATH),
        };
        let first = self.below(place, &base, resource, ask, check).await;
        let nothing_there = matches!(first, Err(NetError::NotFound { .. } | NetError::Status { status: 403, .. }));
        match place {
            Place::Http(http) if nothing_there => {
                let named = self.named_base(place).await.unwrap_or_default().filter(|named| *named != base);
                for base in named.into_iter().chain([http.url.clone()]) {
                    if let Ok(value) = self.below(place, &base, resource, ask, check).await {
                        self.known.proven(place, base);
                        return Ok(value);
                    }
                }
            }
            _ if first.is_ok() => self.known.proven(place, base),
            _ => {}
        }
        first
    }

    async fn below<T>(
        &self,
        place: &Place,
        base: &Url,
        resource: &str,
        ask: &Ask,
        check: &impl Fn(Answer) -> Result<T, NetError>,
    ) -> Result<T, NetError> {
        let answer = self.client.exchange.ask(self.route(place), join(base, resource), ask).await?;
        match answer.status {
            200 => check(answer),
            204 => Err(NetError::NoHead { at: answer.at }),
            404 => Err(NetError::NotFound { at: answer.at }),
            _ => Err(answer.refusal()),
        }
    }

    /// Below what the publisher itself says that its chain is served at this place, asked once and remembered. `None`
    /// where it does not say so.
    async fn named_base(&self, place: &Place) -> Result<Option<Url>, NetError> {
        let began = Instant::now();
        // Held while it is asked for: those that want to know as well wait for the answer, or for the failure.
        let mut asked = self.known.named.lock().await;
        match asked.get(place) {
            Some(Ok(named)) => return Ok(named.clone()),
            Some(Err((at, error))) if *at >= began => return Err(error.clone()),
            _ => {}
        }
        let named = self.ask_base(place).await;
        if asked.len() > 2 * MAX_IPNI_PLACES {
            asked.clear();
        }
        asked.insert(place.clone(), named.clone().map_err(|error| (Instant::now(), error)));
        named
    }

    async fn ask_base(&self, place: &Place) -> Result<Option<Url>, NetError> {
        let mut root = self.url(place)?;
        root.set_path("");
        for path in [PROTOCOLS_PATH, OLD_PROTOCOLS_PATH] {
            let answer = self.client.exchange.ask(self.route(place), join(&root, path), &Ask::protocols()).await?;
            match answer.status {
                200 => return Ok(path_in(&answer.body).map(|path| join(&root, &path))),
                400..500 if answer.status != 429 => {}
                _ => return Err(answer.refusal()),
            }
        }
        Ok(None)
    }

    /// What all requests at `place` begin with. Of a stream's only the path counts.
    fn url(&self, place: &Place) -> Result<Url, NetError> {
        match place {
            Place::Http(http) => Ok(http.url.clone()),
            Place::Streams => {
                let text = format!("http://{}", self.publisher);
                Url::parse(&text).map_err(|error| NetError::Url { url: text, reason: error.to_string() })
            }
        }
    }

    fn route(&self, place: &Place) -> Route {
        match place {
            Place::Http(http) => Route::Tcp { dial: http.dial.clone(), family: http.family, trusted: false },
            Place::Streams => Route::Stream(self.publisher),
        }
    }
}

/// The path of our protocol in the document that says which is served where.
fn path_in(document: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Protocol {
        path: String,
    }
    let mut protocols: BTreeMap<String, serde_json::Value> = serde_json::from_slice(document).ok()?;
    let protocol: Protocol = serde_json::from_value(protocols.remove(BASE_PATH)?).ok()?;
    Some(protocol.path)
}

/// `base` with `path` below its own.
fn join(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}/{}", base.path().trim_end_matches('/'), path.trim_matches('/')));
    url
}
