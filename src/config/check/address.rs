//! Addresses to bind, and `[admin]`, which has one. Checks their form; never opens one.

use std::{net::SocketAddr, path::PathBuf};

use crate::config::{
    Address, Admin, Listener, Token,
    reader::{Located, Reader, unavailable},
};

/// Bytes of a Unix socket's path, with its final zero (`sun_path` of unix(7)).
const UNIX_PATH_BYTES_MAX: usize = 108;
const TOKEN_BYTES_MIN: usize = 16;

/// The operator's side.
pub(super) fn admin(root: &Reader<'_>, listeners: &[Listener]) -> Option<Admin> {
    let reader = root.table("admin")?;
    let example = "write listen = \"127.0.0.1:9191\"";
    let text = reader.required_text("listen", "there is nothing to bind", example);
    let token = token(&reader);
    reader.finish();
    let listen = parse(&reader, "listen", &text?)?;
    if listeners.iter().any(|listener| collide(&listener.address, &listen)) {
        let what = format!("[admin] and a [[listener]] both have the address {listen}");
        let follows = "one of them cannot bind";
        reader.report().error(&reader.at_value("listen"), what, follows, "give [admin] a port of its own");
    }
    let reachable = matches!(&listen, Address::Tcp(address) if !address.ip().is_loopback());
    if reachable && reader.value("token").is_none() {
        reader.report().error(
            &reader.at_value("listen"),
            "[admin] can be reached from other machines and has no `token`",
            "whoever reaches it can read how many orders come in and how many fail",
            "write token = { file = \"…\" }, or listen on 127.0.0.1 or unix:",
        );
    }
    Some(Admin { listen, token })
}

/// Whether only one of them can be bound. Port 0 is another port each time.
pub(super) fn collide(one: &Address, other: &Address) -> bool {
    let is_chosen_for_us = matches!(one, Address::Tcp(address) if address.port() == 0);
    one == other && !is_chosen_for_us
}

fn token(reader: &Reader<'_>) -> Option<Token> {
    let text = reader.secret("token")?;
    let sendable = text.value.bytes().all(|byte| byte.is_ascii_graphic());
    if !sendable {
        let follows = "no client could send it in an Authorization header";
        let mend = "use letters, digits and signs without spaces";
        reader.report().error(&text.at, "`token` has characters that a header cannot carry", follows, mend);
    }
    if text.value.len() < TOKEN_BYTES_MIN {
        let what = format!("`token` has {} bytes", text.value.len());
        let mend = format!("take at least {TOKEN_BYTES_MIN}, for example from `openssl rand -hex 32`");
        reader.report().error(&text.at, what, "it could be guessed", mend);
    }
    Some(Token(text.value))
}

pub(super) fn parse(reader: &Reader<'_>, key: &str, text: &Located<String>) -> Option<Address> {
    let report = reader.report();
    if text.value.starts_with("systemd:") {
        let mend = "bind an address here, such as \"0.0.0.0:8080\"";
        unavailable(report, &text.at, "a socket handed over by systemd", mend);
        return None;
    }
    if let Some(path) = text.value.strip_prefix("unix:") {
        if !path.starts_with('/') || path.len() >= UNIX_PATH_BYTES_MAX || path.contains('\0') {
            let what = format!("`{path}` cannot be the path of a socket");
            let mend = format!("write an absolute path of less than {UNIX_PATH_BYTES_MAX} bytes");
            report.error(&text.at, what, "", mend);
            return None;
        }
        return Some(Address::Unix(PathBuf::from(path)));
    }
    match text.value.parse::<SocketAddr>() {
        Ok(address) => Some(Address::Tcp(address)),
        Err(_) => {
            let what = format!("`{key} = \"{}\"` is no address to bind", text.value);
            let mend = match text.value.rsplit_once(':') {
                Some(("" | "*", port)) => format!("did you mean \"0.0.0.0:{port}\"?"),
                Some(("localhost", port)) => format!("did you mean \"127.0.0.1:{port}\"?"),
                _ => "write an IP address and a port, \"0.0.0.0:8080\" or \"[::]:8080\", or \"unix:/path\""
                    .into(),
            };
            report.error(&text.at, what, "", mend);
            None
        }
    }
}
