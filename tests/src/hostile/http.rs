//! A publisher of the IPNI network over plain HTTP that answers as it is told: sockets and bytes, no library between.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use cid::Cid;
use dagmesh::dag::Blockstore;
use libp2p::{Multiaddr, PeerId, identity::Keypair};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use super::script::{Answer, Step};
use crate::{
    ipni::{AdChain, signed_head},
    peer::SOON,
    wait_for,
};

/// Where publishers serve their chain.
const BASE: &str = "/ipni/v1/ad/";
/// Longest request that an honest client makes.
const MAX_REQUEST: usize = 16 * 1024;

/// Makes an answer, all of its bytes, of what is asked for: `head` or a CID, or another whole path. `None`: the honest one.
type Script = Arc<dyn Fn(&str) -> Option<Answer> + Send + Sync>;

/// A publisher on loopback with a key of its own. It serves its chain as an honest one does, but for what it is told to
/// answer otherwise. Ends when dropped.
pub struct HttpPublisher {
    key: Keypair,
    addr: SocketAddr,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

struct Shared {
    key: Keypair,
    chain: Mutex<AdChain>,
    script: Mutex<Script>,
    asked: Mutex<Vec<String>>,
    sent: AtomicU64,
    open: AtomicU64,
}

impl HttpPublisher {
    /// A publisher with a new key and an empty chain.
    pub async fn start() -> Self {
        Self::with_key(Keypair::generate_ed25519()).await
    }

    /// A publisher with this key and an empty chain.
    pub async fn with_key(key: Keypair) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            key: key.clone(),
            chain: Mutex::new(AdChain::new(&key)),
            script: Mutex::new(Arc::new(|_| None)),
            asked: Mutex::default(),
            sent: AtomicU64::new(0),
            open: AtomicU64::new(0),
        });
        let mut tasks = JoinSet::new();
        let serving = Arc::clone(&shared);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                let shared = Arc::clone(&serving);
                connections.spawn(async move {
                    shared.open.fetch_add(1, Ordering::Relaxed);
                    let _gone = serve(tcp, &shared).await;
                    shared.open.fetch_sub(1, Ordering::Relaxed);
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Self { key, addr, shared, _tasks: tasks }
    }

    /// Its key.
    pub fn key(&self) -> &Keypair {
        &self.key
    }

    /// Who it is.
    pub fn peer_id(&self) -> PeerId {
        self.key.public().to_peer_id()
    }

    /// Where it is, with its peer id.
    pub fn addr(&self) -> Multiaddr {
        format!("/ip4/127.0.0.1/tcp/{}/http/p2p/{}", self.addr.port(), self.peer_id()).parse().expect("an address")
    }

    /// Where it is, as a URL without a path.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Serves this chain from now on: its blocks, and its newest advertisement as the head.
    pub fn serve(&self, chain: &AdChain) {
        *lock(&self.shared.chain) = chain.clone();
    }

    /// Answers each request from now on with what `script` makes of `head`, a CID, or another whole path; with `None` as
    /// an honest publisher does.
    pub fn answer(&self, script: impl Fn(&str) -> Option<Answer> + Send + Sync + 'static) {
        *lock(&self.shared.script) = Arc::new(script);
    }

    /// Answers honestly from now on.
    pub fn be_honest(&self) {
        self.answer(|_| None);
    }

    /// What was asked for so far: `head`, CIDs, and other whole paths.
    pub fn asked(&self) -> Vec<String> {
        lock(&self.shared.asked).clone()
    }

    /// How often this was asked for.
    pub fn count(&self, resource: &str) -> usize {
        lock(&self.shared.asked).iter().filter(|asked| *asked == resource).count()
    }

    /// How many bytes it has sent, as far as they were taken.
    pub fn sent_bytes(&self) -> u64 {
        self.shared.sent.load(Ordering::Relaxed)
    }

    /// Waits until everybody has hung up.
    pub async fn is_left_alone(&self) {
        let what = "a publisher that nobody is connected with";
        wait_for(SOON, what, async || self.shared.open.load(Ordering::Relaxed) == 0).await;
    }
}

/// The answer with this status line, these fields (each line with its end) and this body; as long as it says.
pub fn reply(status: &str, fields: &str, body: impl AsRef<[u8]>) -> Answer {
    let body = body.as_ref();
    let head = format!("HTTP/1.1 {status}\r\n{fields}content-length: {}\r\n\r\n", body.len());
    raw([Step::Bytes([head.as_bytes(), body].concat().into())])
}

/// The answer 200 with this body.
pub fn ok(body: impl AsRef<[u8]>) -> Answer {
    reply("200 OK", "", body)
}

/// An answer that is what these steps say, byte for byte, after which the connection is closed.
pub fn raw(steps: impl IntoIterator<Item = Step, IntoIter: Send + 'static>) -> Answer {
    Box::new(steps.into_iter())
}

/// The beginning of an answer 200 whose body is said to have so many bytes, or does not say.
pub fn begin(length: Option<u64>) -> Step {
    let length = length.map(|length| format!("content-length: {length}\r\n")).unwrap_or_default();
    Step::Bytes(format!("HTTP/1.1 200 OK\r\n{length}\r\n").into())
}

/// A redirect.
pub fn redirect(to: &str) -> Answer {
    reply("302 Found", &format!("location: {to}\r\n"), "")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Answers request after request, until the other side hangs up or an answer was none of an honest publisher.
async fn serve(mut tcp: TcpStream, shared: &Shared) -> std::io::Result<()> {
    tcp.set_nodelay(true)?;
    while let Some(path) = request(&mut tcp).await? {
        let resource = path.strip_prefix(BASE).unwrap_or(&path).to_owned();
        lock(&shared.asked).push(resource.clone());
        let script = Arc::clone(&lock(&shared.script));
        match script(&resource) {
            Some(answer) => return play(&mut tcp, answer, shared).await,
            None => send(&mut tcp, &shared.honest(&resource), shared).await?,
        }
    }
    Ok(())
}

/// Reads one request; its path, or `None` where there is no further one.
async fn request(tcp: &mut TcpStream) -> std::io::Result<Option<String>> {
    let mut head = Vec::new();
    // Nobody sends the next request before the answer.
    while !head.ends_with(b"\r\n\r\n") && head.len() < MAX_REQUEST {
        if tcp.read_buf(&mut head).await? == 0 {
            return Ok(None);
        }
    }
    Ok(String::from_utf8_lossy(&head).split(' ').nth(1).map(str::to_owned))
}

impl Shared {
    fn honest(&self, resource: &str) -> Bytes {
        let chain = lock(&self.chain).clone();
        let body = match resource {
            "head" => chain.ads().last().map(|head| signed_head(&self.key, *head)),
            cid => cid
                .parse()
                .ok()
                .and_then(|cid: Cid| chain.store().get(&cid).expect("a store in memory").map(|block| block.to_vec())),
        };
        let (status, body) = body.map_or(("404 Not Found", Vec::new()), |body| ("200 OK", body));
        let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n", body.len());
        [head.as_bytes(), &body].concat().into()
    }
}

async fn play(tcp: &mut TcpStream, answer: Answer, shared: &Shared) -> std::io::Result<()> {
    for step in answer {
        match step {
            Step::Frame(_) => unreachable!("frames are not of HTTP"),
            Step::Bytes(bytes) => send(tcp, &bytes, shared).await?,
            Step::Wait(wait) => tokio::time::sleep(wait).await,
            Step::Silence => while tcp.read(&mut [0; 64]).await? > 0 {},
        }
    }
    tcp.shutdown().await?;
    // What was sent arrives; whoever reads it hangs up.
    while tcp.read(&mut [0; 4096]).await? > 0 {}
    Ok(())
}

async fn send(tcp: &mut TcpStream, bytes: &[u8], shared: &Shared) -> std::io::Result<()> {
    for part in bytes.chunks(64 * 1024) {
        tcp.write_all(part).await?;
        shared.sent.fetch_add(part.len() as u64, Ordering::Relaxed);
    }
    Ok(())
}
