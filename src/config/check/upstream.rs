//! `[[upstream]]`: the shop's servers and how long they are waited for.

use http::{Uri, uri::Scheme};

use super::{millis, secs};
use crate::config::{
    Server, Upstream,
    file::{Kind, Value},
    problem::{At, Report},
    reader::{Reader, unavailable},
};

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
    if let Some(balance) = reader.text("balance") {
        match balance.value.as_str() {
            "round_robin" => {}
            "least_connections" | "hash" => {
                let what = format!("balance = \"{}\"", balance.value);
                unavailable(reader.report(), &balance.at, &what, "write balance = \"round_robin\"");
            }
            other => {
                let what = format!("`balance` cannot be \"{other}\"");
                reader.report().error(&balance.at, what, "", "write balance = \"round_robin\"");
            }
        }
    }
    reader.unavailable("health", "a server that refuses connections is passed over without it; take it out");
    let upstream = Upstream {
        name,
        servers,
        connect_timeout: reader.duration("connect_timeout", secs(5), millis(100)..=secs(60)),
        answer_timeout: reader.duration("answer_timeout", secs(300), secs(1)..=secs(3600)),
        idle_timeout: reader.duration("idle_timeout", secs(4), millis(100)..=secs(600)),
        idle_per_core_max: reader.count("idle_per_core_max", 256, 0..=100_000),
    };
    reader.finish();
    upstream
}

fn servers(reader: &Reader<'_>) -> Vec<Server> {
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
    let mut servers: Vec<Server> = Vec::new();
    for item in items {
        let Some(server) = server(reader, item) else { continue };
        if servers.contains(&server) {
            let what = format!("the server {} stands twice", server.address);
            let follows = "it gets twice its share";
            reader.report().warning(&item.at, what, follows, "take one of them out");
        }
        servers.push(server);
    }
    servers
}

fn server(reader: &Reader<'_>, item: &Value) -> Option<Server> {
    match &item.kind {
        Kind::Text(url) => parse(reader.report(), &item.at, url),
        Kind::Table(table) => {
            let inner = Reader::new(reader.context, "`servers`", item.at.clone(), table);
            let url =
                inner.required_text("url", "there is nothing to send to", "write { url = \"http://…\" }");
            inner.unavailable("weight", "all servers get the same share; take it out");
            inner.unavailable(
                "connections_max",
                "connections to a server have no bound of their own; take it out",
            );
            inner.finish();
            url.and_then(|url| parse(reader.report(), &url.at, &url.value))
        }
        other => {
            let what = format!("`servers` holds {}", other.name());
            reader.report().error(&item.at, what, "", "write an address like \"http://10.0.0.10:8080\"");
            None
        }
    }
}

fn parse(report: &Report, at: &At, text: &str) -> Option<Server> {
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
    Some(Server { address: format!("{}:{port}", authority.host()) })
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
