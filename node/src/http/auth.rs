//! Who may call the API: whoever can read the token file, from this machine, and no web page.
//!
//! The token alone would do against other users. `Host` and `Origin` are checked as well, so that a page in a browser
//! on this machine can neither guess its way in nor reach the API under a name of its own (DNS rebinding).

use std::{fmt, io, path::Path, sync::Arc};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use data_encoding::HEXLOWER;

use super::routes::error_response;
use crate::{
    config::{ApiAddr, ApiConfig, read_private, write_private},
    error::{ErrorKind, NodeError},
};

/// The secret of the API: 32 random bytes in hex.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    const BYTES: usize = 32;

    /// Reads the token at `path` (mode 0600), or makes one and writes it there.
    pub fn load_or_create(path: &Path) -> Result<Self, NodeError> {
        match Self::load(path) {
            Err(error) if error.kind == ErrorKind::NotFound => {}
            read => return read,
        }
        let token = Self(HEXLOWER.encode(&rand::random::<[u8; Self::BYTES]>()));
        match write_private(path, token.0.as_bytes(), false) {
            Ok(()) => Ok(token),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Self::load(path),
            Err(error) => Err(NodeError::file("create", path, &error)),
        }
    }

    /// Reads the token at `path`.
    pub fn load(path: &Path) -> Result<Self, NodeError> {
        let bytes = read_private(path, 1024)?;
        let text = String::from_utf8_lossy(&bytes).trim().to_owned();
        match HEXLOWER.decode(text.as_bytes()) {
            Ok(secret) if secret.len() == Self::BYTES => Ok(Self(text)),
            _ => Err(NodeError::other(format!(
                "{} holds no token of the API; remove it and start the daemon again to make a new one",
                path.display()
            ))),
        }
    }

    /// The token as it stands behind `Bearer`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Compares in a time that does not tell how much of `given` is right.
    fn matches(&self, given: &[u8]) -> bool {
        let secret = self.0.as_bytes();
        secret.len() == given.len() && secret.iter().zip(given).fold(0, |unlike, (a, b)| unlike | (a ^ b)) == 0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// What each request is checked against.
#[derive(Debug)]
pub(super) struct Guard {
    token: Token,
    hosts: Hosts,
}

#[derive(Debug)]
enum Hosts {
    /// Loopback names with this port.
    Loopback(u16),
    /// Plain addresses, and these names: no foreign name can be made to point here.
    Remote(Vec<String>),
    /// A socket in the file system has no name to be reached under.
    Any,
}

impl Guard {
    pub(super) fn new(addr: &ApiAddr, config: &ApiConfig, token: Token) -> Self {
        let hosts = match addr {
            ApiAddr::Unix(_) => Hosts::Any,
            ApiAddr::Tcp(addr) if addr.ip().is_loopback() => Hosts::Loopback(addr.port()),
            ApiAddr::Tcp(_) => Hosts::Remote(config.hosts.clone()),
        };
        Self { token, hosts }
    }

    /// Refuses a request, with the status and the reason.
    fn check(&self, path: &str, headers: &HeaderMap) -> Result<(), (StatusCode, String)> {
        let text = |name| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let host = text(header::HOST).unwrap_or_default();
        if !self.hosts.allow(&host) {
            return Err((StatusCode::FORBIDDEN, format!("the API is not reached under the name {host:?}")));
        }
        if let Some(origin) = text(header::ORIGIN)
            && origin != format!("http://{host}")
        {
            return Err((StatusCode::FORBIDDEN, format!("the API takes no requests of pages of {origin:?}")));
        }
        if path == "/health" {
            return Ok(());
        }
        let given = headers.get(header::AUTHORIZATION).map(|value| value.as_bytes()).unwrap_or_default();
        match given.strip_prefix(b"Bearer ") {
            Some(given) if self.token.matches(given) => Ok(()),
            Some(_) => Err((
                StatusCode::UNAUTHORIZED,
                "the token is not the one of this daemon: it stands in the file api.token of its home".into(),
            )),
            None => Err((
                StatusCode::UNAUTHORIZED,
                "a token is needed: send `Authorization: Bearer` and the content of the file api.token".into(),
            )),
        }
    }
}

impl Hosts {
    fn allow(&self, host: &str) -> bool {
        let (name, port) = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => (name, port.parse().ok()),
            _ => (host, None),
        };
        match self {
            Self::Any => true,
            Self::Loopback(own) => {
                port == Some(*own)
                    && (name.eq_ignore_ascii_case("localhost") || ip(name).is_some_and(|ip| ip.is_loopback()))
            }
            Self::Remote(names) => {
                ip(name).is_some()
                    || name.eq_ignore_ascii_case("localhost")
                    || names.iter().any(|known| known.eq_ignore_ascii_case(name))
            }
        }
    }
}

fn ip(name: &str) -> Option<std::net::IpAddr> {
    name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name).parse().ok()
}

/// The check, before any route.
pub(super) async fn guard(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    match guard.check(request.uri().path(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err((status, message)) => {
            (status, error_response(&NodeError::new(ErrorKind::Unauthorised, message))).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_names_with_the_right_port_are_hosts() {
        let hosts = Hosts::Loopback(5101);
        for good in ["127.0.0.1:5101", "localhost:5101", "LOCALHOST:5101", "[::1]:5101", "127.9.9.9:5101"] {
            assert!(hosts.allow(good), "{good}");
        }
        for bad in ["", "localhost", "127.0.0.1:80", "evil.example:5101", "localhost.evil.example:5101", "8.8.8.8:5101"]
        {
            assert!(!hosts.allow(bad), "{bad}");
        }
        let remote = Hosts::Remote(vec!["node1".into()]);
        assert!(remote.allow("10.0.0.7:5101") && remote.allow("node1:5101") && !remote.allow("evil.example:5101"));
    }

    #[test]
    fn a_token_is_made_once_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("api.token");
        let token = Token::load_or_create(&path).expect("a token");
        assert_eq!(token.as_str().len(), 64);
        assert_eq!(Token::load_or_create(&path).expect("a token"), token);
        assert_eq!(std::fs::metadata(&path).expect("metadata").permissions().mode() & 0o777, 0o600);
        assert!(token.matches(token.as_str().as_bytes()) && !token.matches(b"") && !token.matches(&[b'0'; 64]));
        assert!(!format!("{token:?}").contains(token.as_str()), "a token is never logged");
    }
}
