//! One question to an operator's listener, over TCP or a socket file. It is never asked twice.

use std::{
    fs,
    io::{self, Read, Write},
    net::{TcpStream, ToSocketAddrs},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;

use super::super::Exit;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two reads of an answer; the other side gives up on its store before.
const READ_TIMEOUT: Duration = Duration::from_secs(15);
/// A thousand orders of many lanes each.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Get,
    Post,
}

/// Where to ask, and what to show there.
pub(super) struct Admin {
    place: Place,
    token: Option<String>,
}

enum Place {
    Tcp(String),
    Unix(PathBuf),
}

#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    #[error("`{0}` is no address of an [admin] listener: write http://HOST:PORT or unix:/PATH")]
    Address(String),
    #[error("say one key: either the order to look at, or the one to resolve or forget")]
    TwoKeys,
    #[error("cannot read the token from {path}: {source}")]
    Token { path: String, source: io::Error },
    #[error("the token in {0} is no line of printable characters")]
    TokenText(String),
    #[error("cannot ask {place}: {source}; is this the [admin] listener of a process that runs?")]
    Connection { place: String, source: io::Error },
    #[error("{place} gave no answer that an [admin] listener gives")]
    Answer { place: String },
}

impl AskError {
    pub(super) fn exit(&self) -> Exit {
        match self {
            Self::Address(_) | Self::TwoKeys | Self::Token { .. } | Self::TokenText(_) => Exit::Usage,
            Self::Connection { .. } | Self::Answer { .. } => Exit::Failed,
        }
    }
}

impl Admin {
    pub(super) fn parse(address: &str, token_file: Option<&Path>) -> Result<Self, AskError> {
        let place = place(address).ok_or_else(|| AskError::Address(address.to_owned()))?;
        let token = token_file.map(token).transpose()?;
        Ok(Self { place, token })
    }

    /// The status and what was said: an object, or the text of a listener that says no.
    pub(super) fn ask(&self, method: Method, target: &str) -> Result<(u16, Value), AskError> {
        let raw = self.exchange(method, target).map_err(|source| {
            let place = self.shown();
            AskError::Connection { place, source }
        })?;
        parse(&raw).ok_or_else(|| AskError::Answer { place: self.shown() })
    }

    fn shown(&self) -> String {
        match &self.place {
            Place::Tcp(authority) => format!("http://{authority}"),
            Place::Unix(path) => format!("unix:{}", path.display()),
        }
    }

    fn exchange(&self, method: Method, target: &str) -> io::Result<Vec<u8>> {
        match &self.place {
            Place::Tcp(authority) => {
                let mut last = io::Error::other("the name has no address");
                for address in authority.to_socket_addrs()? {
                    match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
                        Ok(stream) => {
                            stream.set_read_timeout(Some(READ_TIMEOUT))?;
                            stream.set_write_timeout(Some(READ_TIMEOUT))?;
                            return self.over(stream, authority, method, target);
                        }
                        Err(error) => last = error,
                    }
                }
                Err(last)
            }
            Place::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(READ_TIMEOUT))?;
                stream.set_write_timeout(Some(READ_TIMEOUT))?;
                self.over(stream, "localhost", method, target)
            }
        }
    }

    fn over(
        &self,
        mut stream: impl Read + Write,
        host: &str,
        method: Method,
        target: &str,
    ) -> io::Result<Vec<u8>> {
        let (method, more) = match method {
            Method::Get => ("GET", ""),
            Method::Post => ("POST", "Content-Type: application/json\r\nContent-Length: 0\r\n"),
        };
        let token = self.token.as_ref().map(|token| format!("Authorization: Bearer {token}\r\n"));
        let token = token.unwrap_or_default();
        let head =
            format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{token}{more}\r\n");
        stream.write_all(head.as_bytes())?;
        let mut raw = Vec::new();
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut raw)?;
        Ok(raw)
    }
}

fn place(address: &str) -> Option<Place> {
    if let Some(path) = address.strip_prefix("unix:") {
        return path.starts_with('/').then(|| Place::Unix(path.into()));
    }
    let authority = address.strip_prefix("http://")?.trim_end_matches('/');
    let authority: http::uri::Authority = authority.parse().ok()?;
    let is_whole = authority.port_u16().is_some() && !authority.as_str().contains('@');
    is_whole.then(|| Place::Tcp(authority.to_string()))
}

fn token(path: &Path) -> Result<String, AskError> {
    let shown = || path.display().to_string();
    let text = fs::read_to_string(path).map_err(|source| AskError::Token { path: shown(), source })?;
    let text = text.trim();
    match !text.is_empty() && text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        true => Ok(text.to_owned()),
        false => Err(AskError::TokenText(shown())),
    }
}

/// The listener's answers have a length and end with their connection; one that is shorter was cut off.
fn parse(raw: &[u8]) -> Option<(u16, Value)> {
    let end = raw.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
    let (head, body) = (std::str::from_utf8(&raw[..end]).ok()?, &raw[end + 4..]);
    let mut lines = head.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let length = lines.filter_map(|line| line.split_once(':')).find_map(|(name, value)| {
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())
    });
    if length.flatten()? != body.len() {
        return None;
    }
    let said = match serde_json::from_slice(body) {
        Ok(said) => said,
        Err(_) if status != 200 => Value::from(String::from_utf8_lossy(body).trim()),
        Err(_) => return None,
    };
    Some((status, said))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_one_of_two_kinds() {
        for fine in
            ["http://127.0.0.1:9191", "http://localhost:9191/", "http://[::1]:9191", "unix:/run/o.sock"]
        {
            assert!(place(fine).is_some(), "{fine}");
        }
        for bad in ["127.0.0.1:9191", "https://a:1", "http://a", "http://a:1/x", "http://u@a:1", "unix:a", ""]
        {
            assert!(place(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn an_answer_that_was_cut_off_is_none() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n{\"a\": 1}";
        assert!(parse(whole).is_some_and(|(status, said)| status == 200 && said["a"] == 1));
        for cut in 0..whole.len() {
            assert!(parse(&whole[..cut]).is_none(), "{cut}");
        }
    }
}
