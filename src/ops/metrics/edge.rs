//! What is counted of clients' connections, before there is a request.

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};

use super::{Names, counters, each, gauges, labels};
use crate::ops::words::{Handshake, Reloaded};

#[derive(Debug)]
pub struct EdgeMetrics {
    /// By listener and result.
    handshakes: Vec<Vec<Counter>>,
    reloads: Vec<Counter>,
    certificates: Vec<(String, Gauge)>,
}

impl EdgeMetrics {
    pub(super) fn register(registry: &mut Registry, names: &Names<'_>) -> Self {
        let handshakes = counters(registry, "tls_handshakes", "TLS handshakes, by what they came to");
        let reloads =
            counters(registry, "certificate_reloads", "Changes of certificate files that were seen");
        let ends = gauges(registry, "certificate_expires_seconds", "When the certificate ends, in Unix time");
        Self {
            handshakes: each(names.listeners, |listener| {
                each(Handshake::ALL, |result| {
                    let labels = labels([("listener", listener), ("result", result.as_str())]);
                    handshakes.get_or_create_owned(&labels)
                })
            }),
            reloads: each(Reloaded::ALL, |result| {
                reloads.get_or_create_owned(&labels([("result", result.as_str())]))
            }),
            certificates: each(names.certificates, |path| {
                (path.clone(), ends.get_or_create_owned(&labels([("certificate", path)])))
            }),
        }
    }

    pub fn handshake(&self, listener: usize, result: Handshake) {
        self.handshakes[listener][result as usize].inc();
    }

    pub fn certificates_reloaded(&self, result: Reloaded) {
        self.reloads[result as usize].inc();
    }

    /// One that the configuration does not name is not shown.
    pub fn certificate_ends(&self, path: &str, not_after: i64) {
        if let Some((_, gauge)) = self.certificates.iter().find(|(known, _)| known == path) {
            gauge.set(not_after);
        }
    }
}
