//! `[[listener]]`: where clients connect, how their connections are encrypted, and who is believed. Opens nothing: files
//! of certificates are named here and read by whoever serves.

use ipnet::IpNet;

use super::address::{collide, parse};
use crate::config::{Address, Certificate, ClientCertificates, Http2, Listener, Need, Tls, reader::Reader};

/// Certificates of one listener.
const CERTIFICATES_MAX: usize = 1000;
const HTTPS_PORT: u16 = 443;

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
        let tls = tls(&reader);
        let redirect_to_https = redirect(&reader);
        if tls.is_some() && redirect_to_https.is_some() {
            let what = "a listener with `tls` has `redirect_to_https`";
            let mend = "give it to the [[listener]] of plain HTTP";
            reader.report().error(&reader.at_key("redirect_to_https"), what, "https is what it speaks", mend);
        }
        reader.unavailable_unless(
            "proxy_protocol",
            "off",
            "let the proxy in front send X-Forwarded-For and name it in `trusted_proxies`",
        );
        let trusted_proxies = trusted(&reader);
        reader.finish();
        let Some(address) = address.and_then(|text| parse(&reader, "address", &text)) else { continue };
        tell_collision(&reader, &listeners, &address);
        listeners.push(Listener { address, trusted_proxies, tls, redirect_to_https });
    }
    listeners
}

fn tell_collision(reader: &Reader<'_>, listeners: &[Listener], address: &Address) {
    if listeners.iter().any(|other| collide(&other.address, address)) {
        let what = format!("two listeners have the address {address}");
        reader.report().error(&reader.at_value("address"), what, "the second cannot bind", "take one out");
    }
}

/// `true` is the port that https has by itself.
fn redirect(reader: &Reader<'_>) -> Option<u16> {
    use crate::config::file::Kind;
    match &reader.value("redirect_to_https")?.kind {
        Kind::Integer(_) => {
            let port = reader.count("redirect_to_https", usize::from(HTTPS_PORT), 1..=65_535);
            Some(u16::try_from(port).unwrap_or(HTTPS_PORT))
        }
        _ => reader.flag("redirect_to_https", false).then_some(HTTPS_PORT),
    }
}

fn tls(reader: &Reader<'_>) -> Option<Tls> {
    let clients = reader.table("client_certificates").and_then(|table| client_certificates(&table));
    let http2 = if reader.flag("http2", true) { Http2::Offered } else { Http2::Off };
    let Some(value) = reader.value("tls") else {
        for key in ["client_certificates", "http2"] {
            if reader.value(key).is_some() {
                let what = format!("`{key}` stands in a listener without `tls`");
                let mend = "write tls = [{ certificate = \"shop.pem\", key = \"shop.key\" }]";
                reader.report().error(&reader.at_key(key), what, "it would have no effect", mend);
            }
        }
        return None;
    };
    let tables = reader.tables("tls");
    if tables.is_empty() || tables.len() > CERTIFICATES_MAX {
        let what = format!("`tls` names {} certificates", tables.len());
        let mend = format!("name from 1 to {CERTIFICATES_MAX}");
        reader.report().error(&value.at, what, "", mend);
    }
    let certificates: Vec<_> = tables.iter().filter_map(certificate).collect();
    // One that is missing has its problem in the report.
    Some(Tls { certificates, clients, http2 })
}

fn certificate(reader: &Reader<'_>) -> Option<Certificate> {
    let mend = "write { certificate = \"shop.pem\", key = \"shop.key\" }";
    let chain = reader.required_text("certificate", "there is nothing to show to clients", mend);
    let key = reader.required_text("key", "nobody could prove that the certificate is theirs", mend);
    let ocsp = reader.text("ocsp").map(|text| reader.path(&text));
    reader.finish();
    Some(Certificate { chain: reader.path(&chain?), key: reader.path(&key?), ocsp })
}

fn client_certificates(reader: &Reader<'_>) -> Option<ClientCertificates> {
    let mend = "write { authority = \"clients.pem\", need = \"required\" }";
    let authority = reader.required_text("authority", "no client's certificate could be verified", mend);
    let needs = [("required", Need::Required), ("optional", Need::Optional)];
    let need = reader.choice("need", &needs).unwrap_or(Need::Required);
    reader.finish();
    Some(ClientCertificates { authority: reader.path(&authority?), need })
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
