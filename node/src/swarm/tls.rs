//! TLS as libp2p does it (<https://github.com/libp2p/specs/blob/master/tls/tls.md>), with AES first where the CPU
//! computes it.
//!
//! `libp2p-tls` 0.7 offers ChaCha20-Poly1305 first, which takes about four times as long there, and has no setting for
//! the order. Certificates, their check and the peer id in them are its own; the rest of a configuration is made here
//! anew. On the wire nothing else differs: both ends go on to take any of the three suites.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use futures::{AsyncRead, AsyncWrite, FutureExt, future::BoxFuture};
use futures_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use libp2p::{
    PeerId,
    core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo},
    identity::Keypair,
    tls::{
        self,
        certificate::{self, GenError},
    },
};
use rustls::{
    CertificateError, ClientConfig, CommonState, DigitallySignedStruct, DistinguishedName, ServerConfig,
    SignatureScheme, SupportedCipherSuite,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{
        CryptoProvider,
        aws_lc_rs::{
            self,
            cipher_suite::{TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256},
        },
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
    version::TLS13,
};

/// What secures a TCP or WebSocket connection.
#[derive(Clone)]
pub(super) struct Config {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

/// Why a connection could not be secured.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("no certificate could be made: {0}")]
    Make(#[from] GenError),
    #[error("TLS could not be configured: {0}")]
    Configure(#[from] rustls::Error),
    #[error("the TLS handshake failed: {0}")]
    Handshake(#[from] std::io::Error),
    #[error("the peer's certificate is none of libp2p: {0}")]
    Certificate(#[from] certificate::ParseError),
    #[error("the peer showed no certificate")]
    NoCertificate,
}

impl Config {
    /// Secures connections as the owner of `keypair`.
    pub(super) fn new(keypair: &Keypair) -> Result<Self, Error> {
        let theirs = (tls::make_server_config(keypair)?, tls::make_client_config(keypair, None)?);
        let provider = Arc::new(CryptoProvider { cipher_suites: suites(), ..aws_lc_rs::default_provider() });
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(Arc::new(Verifier))
            .with_cert_resolver(theirs.0.cert_resolver);
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Verifier))
            .with_client_cert_resolver(theirs.1.client_auth_cert_resolver);
        server.alpn_protocols = theirs.0.alpn_protocols;
        client.alpn_protocols = theirs.1.alpn_protocols;
        Ok(Self { server: Arc::new(server), client: Arc::new(client) })
    }
}

/// The suites of TLS 1.3, the one to be taken first.
fn suites() -> Vec<SupportedCipherSuite> {
    let mut suites = vec![TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256];
    if !has_aes() {
        suites.rotate_right(1);
    }
    suites
}

/// Whether the CPU has instructions for AES and for the multiplications of GCM.
#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
fn has_aes() -> bool {
    std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq")
}

#[cfg(target_arch = "aarch64")]
fn has_aes() -> bool {
    std::arch::is_aarch64_feature_detected!("aes") && std::arch::is_aarch64_feature_detected!("pmull")
}

#[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
fn has_aes() -> bool {
    false
}

impl UpgradeInfo for Config {
    type Info = &'static str;
    type InfoIter = std::iter::Once<Self::Info>;

    fn protocol_info(&self) -> Self::InfoIter {
        std::iter::once("/tls/1.0.0")
    }
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> InboundConnectionUpgrade<S> for Config {
    type Output = (PeerId, TlsStream<S>);
    type Error = Error;
    type Future = BoxFuture<'static, Result<Self::Output, Self::Error>>;

    fn upgrade_inbound(self, socket: S, _: Self::Info) -> Self::Future {
        async move {
            let stream = TlsAcceptor::from(self.server).accept(socket).await?;
            Ok((peer_id(stream.get_ref().1)?, stream.into()))
        }
        .boxed()
    }
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> OutboundConnectionUpgrade<S> for Config {
    type Output = (PeerId, TlsStream<S>);
    type Error = Error;
    type Future = BoxFuture<'static, Result<Self::Output, Self::Error>>;

    fn upgrade_outbound(self, socket: S, _: Self::Info) -> Self::Future {
        async move {
            // With an address in place of a name the handshake carries no name, as the specification wants it.
            let name = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::UNSPECIFIED).into());
            let stream = TlsConnector::from(self.client).connect(name, socket).await?;
            Ok((peer_id(stream.get_ref().1)?, stream.into()))
        }
        .boxed()
    }
}

/// Who is at the other end; that it is whom we dialled is checked by the swarm.
fn peer_id(state: &CommonState) -> Result<PeerId, Error> {
    let Some([end_entity]) = state.peer_certificates() else { return Err(Error::NoCertificate) };
    Ok(certificate::parse(end_entity)?.peer_id())
}

/// Takes one self-signed certificate with libp2p's extension, signed by the key that the peer id is made of.
#[derive(Debug)]
struct Verifier;

impl Verifier {
    fn verify(end_entity: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>]) -> Result<(), rustls::Error> {
        if !intermediates.is_empty() {
            return Err(rustls::Error::General("libp2p-tls asks for exactly one certificate".to_owned()));
        }
        certificate::parse(end_entity).map(|_| ()).map_err(|_| CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_signature(
        message: &[u8],
        end_entity: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let refused = || rustls::Error::from(CertificateError::BadSignature);
        let parsed = certificate::parse(end_entity).map_err(|_| refused())?;
        parsed.verify_signature(signed.scheme, message, signed.signature()).map_err(|_| refused())?;
        Ok(HandshakeSignatureValid::assertion())
    }

    /// Those that `libp2p-tls` verifies, the best first.
    fn schemes() -> Vec<SignatureScheme> {
        vec![
            SignatureScheme::ECDSA_NISTP384_SHA384,
            SignatureScheme::ECDSA_NISTP256_SHA256,
            SignatureScheme::ED25519,
            SignatureScheme::RSA_PSS_SHA512,
            SignatureScheme::RSA_PSS_SHA384,
            SignatureScheme::RSA_PSS_SHA256,
            SignatureScheme::RSA_PKCS1_SHA512,
            SignatureScheme::RSA_PKCS1_SHA384,
            SignatureScheme::RSA_PKCS1_SHA256,
        ]
    }

    /// TLS 1.2 is not offered.
    fn old() -> rustls::Error {
        rustls::Error::General("libp2p-tls is TLS 1.3".to_owned())
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Self::verify(end_entity, intermediates)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(Self::old())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        end_entity: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Self::verify_signature(message, end_entity, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        Self::schemes()
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Self::verify(end_entity, intermediates)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(Self::old())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        end_entity: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Self::verify_signature(message, end_entity, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        Self::schemes()
    }
}

#[cfg(test)]
mod tests;
