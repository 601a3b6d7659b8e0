//! Where a client may go. The rest is tested from outside, in `tests/net`.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use cid::Cid;
use dagmesh_dag::{Block, HashCode};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;

const DATA: &[u8] = b"a block";

fn cid() -> Cid {
    *Block::new(Codec::Raw, HashCode::Sha2_256, DATA).expect("a block").cid()
}

/// Gives `answer` to every request at an address of this machine, and counts the connections.
async fn site(ip: &str, answer: String) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((ip, 0)).await.expect("binds");
    let port = listener.local_addr().expect("is bound").port();
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            let mut request = [0; 4096];
            let _ = tcp.read(&mut request).await;
            let _ = tcp.write_all(answer.as_bytes()).await;
        }
    });
    (port, connections)
}

fn found() -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\na block", DATA.len())
}

async fn ask(client: &Client, addr: String) -> Result<Block, NetError> {
    let addr = addr.parse().expect("an address");
    client.remote(PeerId::random(), &[addr]).block(cid(), Kind::Advertisement).await
}

#[tokio::test]
async fn a_redirect_to_an_address_that_is_not_reachable_is_refused_before_anything_is_dialled() {
    // 127.0.0.1 stands for the internet, everything else for what is private.
    let client = Client::reaching(|ip| ip == IpAddr::from([127, 0, 0, 1]), ClientConfig::default(), None);
    let client = client.expect("a client");
    let (private, private_connections) = site("127.0.0.2", found()).await;
    let (public, _) = site("127.0.0.1", found()).await;
    let redirect = |to: String| format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n");
    for (to, followed) in [
        (format!("http://127.0.0.1:{public}/x"), true),
        (format!("http://127.0.0.2:{private}/x"), false),
        (format!("//127.0.0.2:{private}/x"), false),
        (format!("http://[::1]:{private}/x"), false),
        (format!("http://0x7f000002:{private}/x"), false),
    ] {
        let (port, _) = site("127.0.0.1", redirect(to.clone())).await;
        let asked = ask(&client, format!("/ip4/127.0.0.1/tcp/{port}/http")).await;
        match followed {
            true => assert_eq!(asked.expect("followed").data().as_ref(), DATA),
            false => assert!(matches!(asked, Err(NetError::NotReachable { .. })), "{to}: {asked:?}"),
        }
    }
    assert_eq!(private_connections.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn only_reachable_refuses_what_names_and_addresses_lead_to() {
    let config = ClientConfig { only_reachable: true, ..ClientConfig::default() };
    let client = Client::new(config, None).expect("a client");
    let (port, connections) = site("127.0.0.1", found()).await;
    for host in ["ip4/127.0.0.1", "ip6/::ffff:127.0.0.1", "dns4/localhost", "dns/127.0.0.1"] {
        for end in ["http", "tls/http", "tls/sni/example.com/http"] {
            let asked = ask(&client, format!("/{host}/tcp/{port}/{end}")).await;
            assert!(matches!(asked, Err(NetError::NotReachable { .. })), "/{host}/{end}: {asked:?}");
        }
    }
    // The operator's own word counts for more.
    let url = format!("http://127.0.0.1:{port}");
    client.announce(&url, AnnounceBody::Cbor(Default::default())).await.expect("told");
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}
