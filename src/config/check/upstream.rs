//! `[[upstream]]`: the shop's servers and how long they are waited for.

use http::{Uri, uri::Scheme};

use super::{millis, secs};
use crate::{
    config::{
        Expect, Health, Upstream,
        file::{Kind, Value},
        problem::{At, Report},
        reader::{Reader, unavailable},
    },
    upstream::fleet::{Balance, FleetSettings, Role, ServerSettings},
};

/// Bytes that a pattern for a health check's answer may take when compiled.
const REGEX_BYTES_MAX: usize = 64 << 10;
const WEIGHT_MAX: usize = 1000;

/// All upstreams, also those with problems, so that routes can be checked against every name.
pub(super) fn upstreams(root: &Reader<'_>) -> Vec<Upstream> {
    let readers = root.tables("upstream");
    if root.value("upstream").is_none() {
        let mend = "write [[upstream]] with name = \"shop\" and servers = [\"http://…\"]";
        root.report().missing(&root.at, "there is no [[upstream]]", "there is no shop to send to", mend);
    }
    let mut upstreams: Vec<Upstream> = Vec::new();
    for reader in readers {
        let upstream = upstream(&reader);
        if !upstream.name.is_empty() && upstreams.iter().any(|other| other.name == upstream.name) {
            let what = format!("two upstreams are called `{}`", upstream.name);
            let follows = "a route could not say which one it means";
            reader.report().error(&reader.at_value("name"), what, follows, "rename one of them");
        }
        upstreams.push(upstream);
    }
    upstreams
}

fn upstream(reader: &Reader<'_>) -> Upstream {
    let name = super::route::name(reader, "no route could name it");
    let servers = servers(reader);
    let upstream = Upstream {
        name,
        fleet: FleetSettings {
            balance: reader.choice("balance", &BALANCES).unwrap_or_default(),
            queue_max: reader.count("queue_max", 1024, 0..=100_000),
            queue_timeout: reader.duration("queue_timeout", secs(5), millis(10)..=secs(60)),
            slow_start: reader.duration("slow_start", secs(0), secs(0)..=secs(3600)),
        },
        health: reader.table("health").map(|inner| health(&inner)),
        resolve_every: reader.duration("resolve_every", secs(30), secs(1)..=secs(3600)),
        servers,
        connect_timeout: reader.duration("connect_timeout", secs(5), millis(100)..=secs(60)),
        answer_timeout: reader.duration("answer_timeout", secs(300), secs(1)..=secs(3600)),
        idle_timeout: reader.duration("idle_timeout", secs(4), millis(100)..=secs(600)),
        idle_per_core_max: reader.count("idle_per_core_max", 256, 0..=100_000),
    };
    reader.finish();
    upstream
}

const BALANCES: [(&str, Balance); 3] = [
    ("round_robin", Balance::RoundRobin),
    ("least_connections", Balance::LeastConnections),
    ("hash", Balance::Hash),
];

fn health(reader: &Reader<'_>) -> Health {
    let path = reader.text("path");
    if let Some(path) = &path
        && (!path.value.starts_with('/') || path.value.parse::<Uri>().is_err())
    {
        let what = format!("`path` of `health` is \"{}\"", path.value);
        reader.report().error(&path.at, what, "every check would fail", "write a path like \"/healthcheck\"");
    }
    let host = reader.text("host");
    if let Some(host) = &host
        && host.value.parse::<http::uri::Authority>().is_err()
    {
        let what = format!("`host` of `health` is \"{}\"", host.value);
        reader.report().error(&host.at, what, "every check would fail", "write a name like \"shop.example\"");
    }
    let health = Health {
        path: path.map_or_else(|| "/".to_owned(), |path| path.value),
        host: host.map(|host| host.value),
        expect: expect(reader),
        interval: reader.duration("interval", secs(2), millis(100)..=secs(3600)),
        timeout: reader.duration("timeout", secs(1), millis(10)..=secs(60)),
        fall: reader.count("fall", 3, 1..=100) as u32,
        rise: reader.count("rise", 2, 1..=100) as u32,
    };
    reader.finish();
    health
}

/// `[200]`, or `{ status = [200], body = "regex" }`.
fn expect(reader: &Reader<'_>) -> Expect {
    match reader.value("expect").map(|value| &value.kind) {
        None => Expect { statuses: Vec::new(), body: None },
        Some(Kind::Table(_)) => {
            let Some(inner) = reader.table("expect") else {
                return Expect { statuses: Vec::new(), body: None };
            };
            let expect = Expect { statuses: statuses(&inner, "status"), body: body(&inner) };
            inner.finish();
            expect
        }
        Some(Kind::Text(_)) => Expect { statuses: Vec::new(), body: body_at(reader, "expect") },
        Some(_) => Expect { statuses: statuses(reader, "expect"), body: None },
    }
}

fn statuses(reader: &Reader<'_>, key: &'static str) -> Vec<u16> {
    let Some(value) = reader.value(key) else { return Vec::new() };
    let items = match &value.kind {
        Kind::Array(items) => items.as_slice(),
        _ => std::slice::from_ref(value),
    };
    let mut statuses = Vec::new();
    for item in items {
        match item.kind {
            Kind::Integer(status @ 200..=599) => statuses.push(status as u16),
            _ => {
                let mend = "write statuses from 200 to 599, like [200], or { body = \"regex\" }";
                reader.report().error(&item.at, format!("`{key}` holds what is no status"), "", mend);
            }
        }
    }
    statuses
}

fn body(reader: &Reader<'_>) -> Option<regex::bytes::Regex> {
    body_at(reader, "body")
}

fn body_at(reader: &Reader<'_>, key: &'static str) -> Option<regex::bytes::Regex> {
    let text = reader.text(key)?;
    match regex::bytes::RegexBuilder::new(&text.value).size_limit(REGEX_BYTES_MAX).build() {
        Ok(regex) => Some(regex),
        Err(error) => {
            let error = error.to_string();
            let why = error.lines().next_back().unwrap_or_default().trim_start_matches("error: ");
            let what = format!("`{key}` is no regular expression: {why}");
            reader.report().error(&text.at, what, "", "mend it, or leave it out");
            None
        }
    }
}

fn servers(reader: &Reader<'_>) -> Vec<ServerSettings> {
    let example = "write servers = [\"http://10.0.0.10:8080\"]";
    let no_servers = |at: &At| {
        reader.report().error(
            at,
            format!("{} without `servers`", reader.name),
            "there is nothing to send to",
            example,
        );
    };
    let Some(value) = reader.value("servers") else {
        no_servers(&reader.at);
        return Vec::new();
    };
    let items = match &value.kind {
        Kind::Array(items) => items.as_slice(),
        _ => std::slice::from_ref(value),
    };
    if items.is_empty() {
        no_servers(&value.at);
    }
    let mut servers: Vec<ServerSettings> = Vec::new();
    for item in items {
        let Some(server) = server(reader, item) else { continue };
        if servers.iter().any(|other| other.address == server.address) {
            let what = format!("the server {} stands twice", server.address);
            let follows = "it gets twice its share";
            reader.report().warning(&item.at, what, follows, "take one of them out");
        }
        servers.push(server);
    }
    if !servers.is_empty() && servers.iter().all(|server| server.role == Role::Backup) {
        let follows = "there is nobody for them to stand in for";
        reader.report().error(
            &value.at,
            "all servers are backups",
            follows,
            "take `backup` from one of them",
        );
    }
    servers
}

fn server(reader: &Reader<'_>, item: &Value) -> Option<ServerSettings> {
    match &item.kind {
        Kind::Text(url) => parse(reader.report(), &item.at, url),
        Kind::Table(table) => {
            let inner = Reader::new(reader.context, "`servers`", item.at.clone(), table);
            let url =
                inner.required_text("url", "there is nothing to send to", "write { url = \"http://…\" }");
            let weight = inner.count("weight", 1, 1..=WEIGHT_MAX) as u32;
            let connections_max =
                inner.value("connections_max").map(|_| inner.count("connections_max", 1, 1..=100_000));
            let role = if inner.flag("backup", false) { Role::Backup } else { Role::Primary };
            inner.finish();
            let url = url?;
            let bare = parse(reader.report(), &url.at, &url.value)?;
            Some(ServerSettings { weight, connections_max, role, ..bare })
        }
        other => {
            let what = format!("`servers` holds {}", other.name());
            reader.report().error(&item.at, what, "", "write an address like \"http://10.0.0.10:8080\"");
            None
        }
    }
}

fn parse(report: &Report, at: &At, text: &str) -> Option<ServerSettings> {
    let example = "write it as \"http://host:port\"";
    let Ok(uri) = text.parse::<Uri>() else {
        report.error(at, format!("`{text}` is not the address of a server"), "", example);
        return None;
    };
    if uri.scheme() == Some(&Scheme::HTTPS) {
        let mend = "speak http:// to the shop, through a tunnel where the network between is not yours";
        unavailable(report, at, "a server behind https://", mend);
        return None;
    }
    let (Some(authority), true) = (uri.authority(), uri.scheme() == Some(&Scheme::HTTP)) else {
        report.error(at, format!("`{text}` is not the address of a server"), "", example);
        return None;
    };
    let bare = authority.as_str();
    if bare.contains('@') || uri.path() != "/" || uri.query().is_some() {
        let what = format!("`{text}` has more than a host and a port");
        let follows = "requests go to the shop with the path they came with";
        report.error(at, what, follows, example);
        return None;
    }
    let port = match authority.port() {
        Some(port) => port.as_str().parse::<u16>().ok(),
        // A colon without a port, and a port that is no number, are no port for the `http` crate either.
        None if bare.ends_with(authority.host()) => Some(80),
        None => None,
    };
    let Some(port) = port.filter(|port| *port != 0) else {
        report.error(at, format!("`{text}` has no usable port"), "", example);
        return None;
    };
    if authority.host().is_empty() {
        report.error(at, format!("`{text}` has no host"), "", example);
        return None;
    }
    Some(ServerSettings {
        address: format!("{}:{port}", authority.host()),
        weight: 1,
        connections_max: None,
        role: Role::Primary,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address_of(text: &str) -> Option<String> {
        let report = Report::default();
        let server = parse(&report, &At { file: 0, start: 0, end: 0 }, text);
        let problems = report.finish(crate::config::problem::Sources::default());
        assert_eq!(server.is_none(), problems.has_errors(), "{text}: a refusal says why, and only a refusal");
        server.map(|server| server.address)
    }

    #[test]
    fn a_server_is_a_host_and_a_port() {
        assert_eq!(address_of("http://10.0.0.10:8080").as_deref(), Some("10.0.0.10:8080"));
        assert_eq!(address_of("http://shop").as_deref(), Some("shop:80"));
        assert_eq!(address_of("http://shop/").as_deref(), Some("shop:80"));
        assert_eq!(address_of("http://[::1]:81").as_deref(), Some("[::1]:81"));
    }

    #[test]
    fn what_is_more_or_less_than_that_is_refused() {
        for text in [
            "shop:8080",
            "https://shop",
            "http://",
            "http://shop/app",
            "http://shop?x",
            "http://me@shop",
            "http://shop:",
            "http://shop:0",
            "http://shop:99999",
            "ftp://shop",
            "/shop",
            "",
        ] {
            assert_eq!(address_of(text), None, "{text}");
        }
    }
}
