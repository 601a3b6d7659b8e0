//! Handshakes through a pipe.

use futures::AsyncReadExt;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio::io::DuplexStream;
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

use super::*;

type Pipe = Compat<DuplexStream>;
type Secured = (PeerId, TlsStream<Pipe>);

fn pipe() -> (Pipe, Pipe) {
    let (a, b) = tokio::io::duplex(64 * 1024);
    (a.compat(), b.compat())
}

async fn shake<I, O>(inbound: I, outbound: O) -> (Secured, Secured)
where
    I: InboundConnectionUpgrade<Pipe, Output = Secured, Error: std::fmt::Debug> + UpgradeInfo<Info = &'static str>,
    O: OutboundConnectionUpgrade<Pipe, Output = Secured, Error: std::fmt::Debug> + UpgradeInfo<Info = &'static str>,
{
    let (a, b) = pipe();
    let name = inbound.protocol_info().into_iter().next().expect("a name");
    assert_eq!(outbound.protocol_info().into_iter().next(), Some(name));
    let (accepted, connected) = tokio::join!(inbound.upgrade_inbound(a, name), outbound.upgrade_outbound(b, name));
    (accepted.expect("accepted"), connected.expect("connected"))
}

#[tokio::test]
async fn two_of_us_take_the_first_suite_and_know_each_other() {
    let (server, client) = (Keypair::generate_ed25519(), Keypair::generate_ecdsa());
    let ours = |key| Config::new(key).expect("a config");
    let (accepted, connected) = shake(ours(&server), ours(&client)).await;
    assert_eq!(accepted.0, client.public().to_peer_id());
    assert_eq!(connected.0, server.public().to_peer_id());
    let suite = connected.1.get_ref().1.negotiated_cipher_suite().expect("a suite").suite();
    assert_eq!(suite, suites()[0].suite());
    assert_eq!(has_aes(), suite == TLS13_AES_128_GCM_SHA256.suite());
}

#[tokio::test]
async fn libp2p_tls_and_we_understand_each_other_both_ways() {
    let (server, client) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
    let peers = (client.public().to_peer_id(), server.public().to_peer_id());
    let (ours, theirs) = (Config::new(&server).expect("ours"), tls::Config::new(&client).expect("theirs"));
    let (accepted, connected) = shake(ours, theirs).await;
    assert_eq!((accepted.0, connected.0), peers);
    let (ours, theirs) = (Config::new(&client).expect("ours"), tls::Config::new(&server).expect("theirs"));
    let (accepted, connected) = shake(theirs, ours).await;
    assert_eq!((accepted.0, connected.0), peers);
}

/// The certificate of a key, with what signs for it.
fn certified(key: &Keypair) -> Arc<CertifiedKey> {
    let client = tls::make_client_config(key, None).expect("a config");
    client.client_auth_cert_resolver.resolve(&[], &Verifier::schemes()).expect("a certificate")
}

/// One who shows `shown` as its certificate, and signs with what signs for `own`.
fn impostor(shown: Vec<CertificateDer<'static>>, own: &CertifiedKey) -> Config {
    let resolver = Arc::new(SingleCertAndKey::from(CertifiedKey::new(shown, Arc::clone(&own.key))));
    let Config { server, client } = Config::new(&Keypair::generate_ed25519()).expect("a config");
    let (mut server, mut client) = ((*server).clone(), (*client).clone());
    (server.cert_resolver, client.client_auth_cert_resolver) = (Arc::clone(&resolver) as _, resolver);
    Config { server: Arc::new(server), client: Arc::new(client) }
}

/// Whether the one who accepts lets the one who connects in, and the other way round.
async fn let_in(inbound: Config, outbound: Config) -> (bool, bool) {
    let (a, b) = pipe();
    // A client of TLS 1.3 is done before its own certificate is judged: it learns of that when it reads.
    let connect = async {
        let mut stream = outbound.upgrade_outbound(b, "/tls/1.0.0").await?.1;
        stream.read_exact(&mut [0]).await?;
        Ok::<_, Error>(())
    };
    let accept = async {
        let mut stream = inbound.upgrade_inbound(a, "/tls/1.0.0").await?.1;
        futures::AsyncWriteExt::write_all(&mut stream, &[1]).await?;
        futures::AsyncWriteExt::flush(&mut stream).await?;
        Ok::<_, Error>(())
    };
    let (accepted, connected) = tokio::join!(accept, connect);
    (accepted.is_ok(), connected.is_ok())
}

#[tokio::test]
async fn whoever_shows_what_is_not_theirs_alone_is_let_in_by_neither_side() {
    let (honest, own, victim) = (Keypair::generate_ed25519(), Keypair::generate_ed25519(), Keypair::generate_ed25519());
    let (own, stolen) = (certified(&own), certified(&victim).cert.clone());
    let two = [own.cert.clone(), stolen.clone()].concat();
    let mut broken = own.cert[0].to_vec();
    let middle = broken.len() / 2;
    broken[middle] ^= 1;
    let honest = || Config::new(&honest).expect("a config");
    assert_eq!(let_in(honest(), impostor(own.cert.clone(), &own)).await, (true, true), "itself");
    assert_eq!(let_in(impostor(own.cert.clone(), &own), honest()).await, (true, true), "itself");
    for (what, shown) in [("stolen", stolen), ("two", two), ("broken", vec![CertificateDer::from(broken)])] {
        assert!(!let_in(honest(), impostor(shown.clone(), &own)).await.0, "{what}, by one who connects");
        assert!(!let_in(impostor(shown, &own), honest()).await.1, "{what}, by one who accepts");
    }
}

#[tokio::test]
async fn whoever_shows_no_certificate_is_not_let_in() {
    let (key, other) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
    let Config { server, client } = Config::new(&other).expect("a config");
    let mut bare = ClientConfig::builder_with_provider(Arc::clone(client.crypto_provider()))
        .with_protocol_versions(&[&TLS13])
        .expect("TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Verifier))
        .with_no_client_auth();
    bare.alpn_protocols.clone_from(&client.alpn_protocols);
    let bare = Config { server, client: Arc::new(bare) };
    assert!(!let_in(Config::new(&key).expect("a config"), bare).await.0);
}
