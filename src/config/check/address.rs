//! Sections that bind a socket: `[[listener]]` and `[admin]`. Checks the form of addresses; never opens one.

use std::{net::SocketAddr, path::PathBuf};

use ipnet::IpNet;

use crate::config::{
    Address, Admin, Listener, Token,
    reader::{Located, Reader, unavailable},
};

/// Bytes of a Unix socket's path, with its final zero (`sun_path` of unix(7)).
const UNIX_PATH_BYTES_MAX: usize = 108;
const TOKEN_BYTES_MIN: usize = 16;

/// The listeners, at least one where there is no error.
pub(super) fn listeners(root: &Reader<'_>) -> Vec<Listener> {
    let readers = root.tables("listener");
    if root.value("listener").is_none() {
        let mend = "write [[listener]] with address = \"0.0.0.0:8080\"";
        root.report().missing(&root.at, "there is no [[listener]]", "nobody could connect", mend);
    }
    let mut listeners: Vec<Listener> = Vec::new();
    for reader in readers {
        let example = "write address = \"0.0.0.0:8080\"";
        let address = reader.required_text("address", "there is nothing to bind", example);
        reader.unavailable("tls", "let HAProxy or nginx take TLS off in front of oncegate");
        reader.unavailable_unless("redirect_to_https", "", "redirect in the proxy that takes TLS off");
        reader.unavailable_unless(
            "proxy_protocol",
            "off",
            "let the proxy in front send X-Forwarded-For and name it in `trusted_proxies`",
        );
        let trusted_proxies = trusted(&reader);
        reader.finish();
        let Some(address) = address.and_then(|text| parse(&reader, "address", &text)) else { continue };
        if listeners.iter().any(|other| collide(&other.address, &address)) {
            let what = format!("two listeners have the address {address}");
            reader.report().error(
                &reader.at_value("address"),
                what,
                "the second cannot bind",
                "take one out",
            );
        }
        listeners.push(Listener { address, trusted_proxies });
    }
    listeners
}

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
fn collide(one: &Address, other: &Address) -> bool {
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

fn trusted(reader: &Reader<'_>) -> Vec<IpNet> {
    let mut nets = Vec::new();
    for text in reader.texts("trusted_proxies") {
        let net = text.value.parse::<IpNet>().ok();
        let net = net.or_else(|| text.value.parse::<std::net::IpAddr>().ok().map(IpNet::from));
        match net {
            Some(net) if net.prefix_len() == 0 => {
                let what = format!("`trusted_proxies` has {net}, which is everybody");
                let follows = "any client can say that it is another one";
                let mend = "name the networks of the proxies in front of oncegate";
                reader.report().warning(&text.at, what, follows, mend);
                nets.push(net);
            }
            Some(net) => nets.push(net.trunc()),
            None => {
                let what = format!("`{}` is no network", text.value);
                reader.report().error(&text.at, what, "", "write for example \"10.0.0.0/8\" or \"::1\"");
            }
        }
    }
    nets
}

fn parse(reader: &Reader<'_>, key: &str, text: &Located<String>) -> Option<Address> {
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
