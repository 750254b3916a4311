//! What is counted, in the names of the interface.
//!
//! Every handle is made at the start from names of the configuration and from closed sets, so that recording is an
//! atomic add: no look-up, no lock, no allocation. No label ever comes from a request.

mod edge;

use std::{sync::OnceLock, time::Duration};

use prometheus_client::{
    encoding::text,
    metrics::{
        counter::Counter,
        family::{Family, MetricConstructor},
        gauge::Gauge,
        histogram::Histogram,
        info::Info,
    },
    registry::Registry,
};

pub use self::edge::EdgeMetrics;
use super::words::{
    ClaimOutcome, CodeClass, DoubtCause, DroppedEarly, Reason, Signature, StoreCause, StoreFinding, StoreOp,
    Verdict,
};

/// `Content-Type` of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The label of what came by no route.
const NO_ROUTE: &str = "-";

/// Seconds. From what a store call in this process takes up to how long a shop may be listened to.
const SECONDS: [f64; 16] =
    [0.000_1, 0.000_5, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

type Labels = Vec<(&'static str, String)>;
type Counters = Family<Labels, Counter>;
type Gauges = Family<Labels, Gauge>;
type Histograms = Family<Labels, Histogram, Seconds>;

/// The names that labels may have, in the order of the configuration.
#[derive(Clone, Copy, Debug, Default)]
pub struct Names<'a> {
    pub routes: &'a [String],
    /// Each with its servers.
    pub upstreams: &'a [(String, Vec<String>)],
    pub listeners: &'a [String],
    /// The files of certificates.
    pub certificates: &'a [String],
}

/// All metrics of a process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    routes: Vec<RouteMetrics>,
    unrouted: RouteMetrics,
    upstreams: Vec<UpstreamMetrics>,
    claim_seconds: Vec<Histogram>,
    store_errors: Vec<Vec<Counter>>,
    records_dropped_early: Vec<Counter>,
    /// Connections per listener, in the order of the names.
    pub connections: Vec<Gauge>,
    pub edge: EdgeMetrics,
    pub lane_wait_seconds: Histogram,
    pub follow_wait_seconds: Histogram,
    pub flights: Gauge,
    pub followers: Gauge,
    pub lanes_waiting: Gauge,
    pub leases_lost: Counter,
    pub late_answers: Counter,
    /// 1 or 0.
    pub store_up: Gauge,
    pub shared_store: SharedStoreMetrics,
    pub buffer_bytes: Gauge,
    pub records: Gauge,
    pub record_bytes: Gauge,
    pub log_lines_dropped: Counter,
}

/// What is counted of a store that replicas share.
#[derive(Debug)]
pub struct SharedStoreMetrics {
    pub forgot: Counter,
    /// Flights and records that it is still to be told of.
    pub kept: Gauge,
    findings: Vec<Gauge>,
}

/// What is counted by route.
#[derive(Debug)]
pub struct RouteMetrics {
    name: String,
    exchanges_family: Counters,
    /// By verdict and reason. The usual pairs exist from the start; an unusual one is made when it first occurs,
    /// and the sets bound how many that can be.
    exchanges: Vec<Vec<OnceLock<Counter>>>,
    refusals: Vec<Counter>,
    in_doubt: Vec<Counter>,
    signatures_family: Counters,
    /// Made when the first one is checked: few routes have any.
    signatures: Vec<OnceLock<Counter>>,
    follows: Counter,
    replays: Counter,
    pub upstream_sends: Counter,
    pub observed_duplicates: Counter,
}

/// What is counted by upstream.
#[derive(Debug)]
pub struct UpstreamMetrics {
    seconds: Vec<Histogram>,
    /// 1 or 0 per server, in the order of the names: whether it is sent to and the last connection could be made. 1
    /// before the first, so that a quiet start raises no alarm.
    pub server_up: Vec<Gauge>,
}

impl Metrics {
    #[must_use]
    pub fn new(names: &Names<'_>) -> Self {
        let mut registry = Registry::with_prefix("oncegate");
        let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The version that runs", build);

        let by_route = ByRoute::register(&mut registry);
        let routes = names.routes.iter().map(|name| by_route.metrics(name)).collect();
        let unrouted = by_route.metrics(NO_ROUTE);

        let upstreams = upstreams(&mut registry, names.upstreams);
        let claims = histograms(&mut registry, "claim_seconds", "How long the store took to answer a claim");
        let errors = counters(&mut registry, "store_errors", "Store calls without an answer");
        let dropped =
            counters(&mut registry, "records_dropped_early", "Kept answers given up for want of room");
        let connections = gauges(&mut registry, "connections", "Open connections of clients");
        Self {
            routes,
            unrouted,
            upstreams,
            claim_seconds: each(ClaimOutcome::ALL, |outcome| {
                claims.get_or_create_owned(&labels([("outcome", outcome.as_str())]))
            }),
            store_errors: each(StoreOp::ALL, |op| {
                each(StoreCause::ALL, |cause| {
                    errors.get_or_create_owned(&labels([("op", op.as_str()), ("cause", cause.as_str())]))
                })
            }),
            records_dropped_early: each(DroppedEarly::ALL, |what| {
                dropped.get_or_create_owned(&labels([("what", what.as_str())]))
            }),
            connections: each(names.listeners, |name| {
                connections.get_or_create_owned(&labels([("listener", name)]))
            }),
            edge: EdgeMetrics::register(&mut registry, names),
            lane_wait_seconds: histogram(
                &mut registry,
                "lane_wait_seconds",
                "Time that exchanges stood in a lane",
            ),
            follow_wait_seconds: histogram(
                &mut registry,
                "follow_wait_seconds",
                "Time that followers waited",
            ),
            flights: gauge(&mut registry, "flights", "Guarded requests at the shop"),
            followers: gauge(&mut registry, "followers", "Exchanges that wait for another one's answer"),
            lanes_waiting: gauge(&mut registry, "lanes_waiting", "Exchanges that stand in a lane"),
            leases_lost: counter(&mut registry, "leases_lost", "Leases that ran out under a running flight"),
            late_answers: counter(
                &mut registry,
                "late_answers",
                "Answers that came after their lease had ended",
            ),
            store_up: gauge(&mut registry, "store_up", "1: the store answers"),
            shared_store: SharedStoreMetrics::register(&mut registry),
            buffer_bytes: gauge(&mut registry, "buffer_bytes", "Bytes of bodies held in memory"),
            records: gauge(&mut registry, "records", "Kept answers"),
            record_bytes: gauge(&mut registry, "record_bytes", "Bytes that kept answers count for"),
            log_lines_dropped: counter(
                &mut registry,
                "log_lines_dropped",
                "Log lines that could not be written",
            ),
            registry,
        }
    }

    /// A route by its place in the configuration. One that is not there counts as no route.
    #[must_use]
    pub fn route(&self, index: usize) -> &RouteMetrics {
        self.routes.get(index).unwrap_or(&self.unrouted)
    }

    /// For what is refused before a route is known.
    #[must_use]
    pub fn unrouted(&self) -> &RouteMetrics {
        &self.unrouted
    }

    /// An upstream by its place in the configuration.
    #[must_use]
    pub fn upstream(&self, index: usize) -> Option<&UpstreamMetrics> {
        self.upstreams.get(index)
    }

    pub fn claim(&self, outcome: ClaimOutcome, took: Duration) {
        self.claim_seconds[outcome as usize].observe(took.as_secs_f64());
    }

    pub fn store_error(&self, op: StoreOp, cause: StoreCause) {
        self.store_errors[op as usize][cause as usize].inc();
    }

    pub fn dropped_early(&self, what: DroppedEarly, how_many: u64) {
        self.records_dropped_early[what as usize].inc_by(how_many);
    }

    /// The text that Prometheus reads, in the OpenMetrics form.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut out = String::with_capacity(16 << 10);
        // Writing to a String cannot fail; were it to, a scraper refuses text without its end mark.
        let _ = text::encode(&mut out, &self.registry);
        sorted(&out)
    }
}

impl SharedStoreMetrics {
    fn register(registry: &mut Registry) -> Self {
        let forgot =
            counter(registry, "store_forgot", "Times that the shared store had forgotten what it was told");
        let kept =
            gauge(registry, "store_kept", "Flights and records that the shared store is still to be told of");
        let findings = gauges(registry, "store_finding", "1: the shared store is not as it should be");
        let findings =
            each(StoreFinding::ALL, |what| findings.get_or_create_owned(&labels([("what", what.as_str())])));
        Self { forgot, kept, findings }
    }

    /// 1 or 0.
    pub fn finding(&self, what: StoreFinding, found: i64) {
        self.findings[what as usize].set(found);
    }
}

impl RouteMetrics {
    /// A guarded exchange has ended. Counts duplicates and refusals with it.
    pub fn exchange(&self, verdict: Verdict, reason: Reason) {
        let cell = &self.exchanges[verdict as usize][reason as usize];
        cell.get_or_init(|| exchanges(&self.exchanges_family, &self.name, verdict, reason)).inc();
        match verdict {
            Verdict::Follow => {
                self.follows.inc();
            }
            Verdict::Replay => {
                self.replays.inc();
            }
            Verdict::Refuse => self.refusal(reason),
            Verdict::Lead | Verdict::Bypass => {}
        }
    }

    /// A refusal outside a guarded exchange. What is no refusal is not counted.
    pub fn refusal(&self, reason: Reason) {
        if let Some(counter) = (reason as usize).checked_sub(Reason::NoKey as usize) {
            self.refusals[counter].inc();
        }
    }

    /// A sender's signature was checked.
    pub fn signature(&self, outcome: Signature) {
        let make = || {
            let labels = labels([("route", &self.name), ("outcome", outcome.as_str())]);
            self.signatures_family.get_or_create_owned(&labels)
        };
        self.signatures[outcome as usize].get_or_init(make).inc();
    }

    pub fn in_doubt(&self, cause: DoubtCause) {
        self.in_doubt[cause as usize].inc();
    }
}

impl UpstreamMetrics {
    /// The shop answered, or `CodeClass::None` where it did not.
    pub fn answered(&self, class: CodeClass, took: Duration) {
        self.seconds[class as usize].observe(took.as_secs_f64());
    }
}

/// The families that have a route among their labels.
struct ByRoute {
    exchanges: Counters,
    sends: Counters,
    duplicates: Counters,
    in_doubt: Counters,
    refusals: Counters,
    observed: Counters,
    signatures: Counters,
}

impl ByRoute {
    fn register(registry: &mut Registry) -> Self {
        Self {
            exchanges: counters(registry, "exchanges", "Guarded requests, by what was done with them"),
            sends: counters(registry, "upstream_sends", "Guarded requests that were sent to the shop"),
            duplicates: counters(registry, "duplicates", "Requests that were given another one's answer"),
            in_doubt: counters(registry, "in_doubt", "Requests that were sent and have no known answer"),
            refusals: counters(registry, "refusals", "Answers that oncegate made itself"),
            observed: counters(registry, "observed_duplicates", "What would have been coalesced or replayed"),
            signatures: counters(registry, "signatures", "Signatures of senders that were checked"),
        }
    }

    fn metrics(&self, route: &str) -> RouteMetrics {
        let of = |family: &Counters| family.get_or_create_owned(&labels([("route", route)]));
        let with = |family: &Counters, name, value: &str| {
            family.get_or_create_owned(&labels([("route", route), (name, value)]))
        };
        let refusals: Vec<_> = Reason::ALL.iter().copied().filter(|reason| reason.is_refusal()).collect();
        RouteMetrics {
            name: route.to_owned(),
            exchanges: each(Verdict::ALL, |verdict| {
                each(Reason::ALL, |reason| {
                    let cell = OnceLock::new();
                    if is_usual(*verdict, *reason) && route != NO_ROUTE {
                        let _ = cell.set(exchanges(&self.exchanges, route, *verdict, *reason));
                    }
                    cell
                })
            }),
            exchanges_family: self.exchanges.clone(),
            refusals: each(&refusals, |reason| with(&self.refusals, "name", reason.as_str())),
            in_doubt: each(DoubtCause::ALL, |cause| with(&self.in_doubt, "cause", cause.as_str())),
            signatures_family: self.signatures.clone(),
            signatures: each(Signature::ALL, |_| OnceLock::new()),
            follows: with(&self.duplicates, "kind", "follow"),
            replays: with(&self.duplicates, "kind", "replay"),
            upstream_sends: of(&self.sends),
            observed_duplicates: of(&self.observed),
        }
    }
}

fn upstreams(registry: &mut Registry, names: &[(String, Vec<String>)]) -> Vec<UpstreamMetrics> {
    let seconds = histograms(registry, "upstream_seconds", "From the first byte sent to the last byte read");
    let server_up = gauges(
        registry,
        "server_up",
        "1: the server is sent to, and the last connection to it could be made",
    );
    each(names, |(upstream, servers)| UpstreamMetrics {
        seconds: each(CodeClass::ALL, |class| {
            seconds.get_or_create_owned(&labels([("upstream", upstream), ("code_class", class.as_str())]))
        }),
        server_up: each(servers, |server| {
            let up = server_up.get_or_create_owned(&labels([("upstream", upstream), ("server", server)]));
            up.set(1);
            up
        }),
    })
}

/// The series of each family in the order of their labels, so that two pages can be compared. A histogram's own lines
/// stay in their order, which is that of its bounds.
fn sorted(page: &str) -> String {
    let mut out = String::with_capacity(page.len());
    let mut series: Vec<(String, &str)> = Vec::new();
    for line in page.split_inclusive('\n') {
        if line.starts_with('#') {
            put_sorted(&mut series, &mut out);
            out.push_str(line);
        } else {
            series.push((series_of(line), line));
        }
    }
    put_sorted(&mut series, &mut out);
    out
}

fn put_sorted(series: &mut Vec<(String, &str)>, out: &mut String) {
    series.sort_by(|(one, _), (other, _)| one.cmp(other));
    series.drain(..).for_each(|(_, line)| out.push_str(line));
}

/// The labels of a line, without the bound of a histogram's bucket.
fn series_of(line: &str) -> String {
    let Some((_, labels)) = line.split_once('{') else { return String::new() };
    let labels = labels.rsplit_once('}').map_or(labels, |(labels, _)| labels);
    let is_bound = |label: &&str| !label.starts_with("le=\"");
    labels.split(',').filter(is_bound).collect::<Vec<_>>().join(",")
}

/// The pairs that dashboards may count on being there, at 0.
const fn is_usual(verdict: Verdict, reason: Reason) -> bool {
    match verdict {
        Verdict::Lead => {
            matches!(reason, Reason::Done | Reason::Failed | Reason::InDoubt | Reason::ClientGone)
        }
        Verdict::Follow => matches!(reason, Reason::Done | Reason::Failed | Reason::ClientGone),
        Verdict::Replay => matches!(reason, Reason::Done),
        Verdict::Bypass => matches!(reason, Reason::NoOrderKey | Reason::NoIdentity | Reason::Observe),
        Verdict::Refuse => reason.is_refusal(),
    }
}

fn exchanges(family: &Counters, route: &str, verdict: Verdict, reason: Reason) -> Counter {
    let labels = labels([("route", route), ("verdict", verdict.as_str()), ("reason", reason.as_str())]);
    family.get_or_create_owned(&labels)
}

#[derive(Clone, Copy, Debug)]
struct Seconds;

impl MetricConstructor<Histogram> for Seconds {
    fn new_metric(&self) -> Histogram {
        Histogram::new(SECONDS)
    }
}

fn labels<const N: usize>(pairs: [(&'static str, &str); N]) -> Labels {
    pairs.into_iter().map(|(name, value)| (name, value.to_owned())).collect()
}

fn each<T, U>(all: &[T], make: impl FnMut(&T) -> U) -> Vec<U> {
    all.iter().map(make).collect()
}

fn counters(registry: &mut Registry, name: &str, help: &str) -> Counters {
    let family = Counters::default();
    registry.register(name, help, family.clone());
    family
}

fn gauges(registry: &mut Registry, name: &str, help: &str) -> Gauges {
    let family = Gauges::default();
    registry.register(name, help, family.clone());
    family
}

fn histograms(registry: &mut Registry, name: &str, help: &str) -> Histograms {
    let family = Histograms::new_with_constructor(Seconds);
    registry.register(name, help, family.clone());
    family
}

fn counter(registry: &mut Registry, name: &str, help: &str) -> Counter {
    let metric = Counter::default();
    registry.register(name, help, metric.clone());
    metric
}

fn gauge(registry: &mut Registry, name: &str, help: &str) -> Gauge {
    let metric = Gauge::default();
    registry.register(name, help, metric.clone());
    metric
}

fn histogram(registry: &mut Registry, name: &str, help: &str) -> Histogram {
    let metric = Histogram::new(SECONDS);
    registry.register(name, help, metric.clone());
    metric
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn metrics() -> Metrics {
        Metrics::new(&Names {
            routes: &["checkout".to_owned(), "a \"quoted\"\nroute".to_owned()],
            upstreams: &[("shop".to_owned(), vec!["10.0.0.10:8080".to_owned()])],
            listeners: &["0.0.0.0:8080".to_owned()],
            certificates: &["shop.pem".to_owned()],
        })
    }

    #[test]
    fn the_series_of_a_family_stand_in_the_order_of_their_labels() {
        let names: Vec<String> = (0..40).map(|number| format!("route-{number:02}")).collect();
        let upstreams: Vec<_> = names.iter().map(|name| (name.clone(), vec!["a:80".to_owned()])).collect();
        let metrics =
            Metrics::new(&Names { routes: &names, upstreams: &upstreams, listeners: &[], certificates: &[] });
        let page = metrics.encode();
        let of =
            |prefix: &str| -> Vec<&str> { page.lines().filter(|line| line.starts_with(prefix)).collect() };
        let sends = of("oncegate_upstream_sends_total{");
        assert!(sends.len() >= 40 && sends.is_sorted(), "{sends:?}");
        let bounds: Vec<f64> = of("oncegate_upstream_seconds_bucket{")
            .iter()
            .filter(|line| line.contains("\"route-07\"") && line.contains("\"2xx\""))
            .filter_map(|line| line.split("le=\"").nth(1)?.split('"').next()?.parse().ok())
            .collect();
        assert!(bounds.len() == SECONDS.len() + 1 && bounds.is_sorted(), "{bounds:?}");
        assert!(page.ends_with("# EOF\n"));
    }

    #[test]
    fn the_names_are_those_of_the_interface() {
        let text = metrics().encode();
        for line in [
            "oncegate_exchanges_total{route=\"checkout\",verdict=\"lead\",reason=\"done\"} 0",
            "oncegate_upstream_sends_total{route=\"checkout\"} 0",
            "oncegate_duplicates_total{route=\"checkout\",kind=\"follow\"} 0",
            "oncegate_lane_wait_seconds_count 0",
            "oncegate_follow_wait_seconds_count 0",
            "oncegate_claim_seconds_count{outcome=\"lead\"} 0",
            "oncegate_flights 0",
            "oncegate_followers 0",
            "oncegate_lanes_waiting 0",
            "oncegate_in_doubt_total{route=\"checkout\",cause=\"reset\"} 0",
            "oncegate_leases_lost_total 0",
            "oncegate_late_answers_total 0",
            "oncegate_store_errors_total{op=\"claim\",cause=\"deadline\"} 0",
            "oncegate_store_up 0",
            "oncegate_refusals_total{route=\"checkout\",name=\"outcome-unknown\"} 0",
            "oncegate_refusals_total{route=\"-\",name=\"no-route\"} 0",
            "oncegate_observed_duplicates_total{route=\"checkout\"} 0",
            "oncegate_upstream_seconds_count{upstream=\"shop\",code_class=\"2xx\"} 0",
            "oncegate_server_up{upstream=\"shop\",server=\"10.0.0.10:8080\"} 1",
            "oncegate_connections{listener=\"0.0.0.0:8080\"} 0",
            "oncegate_tls_handshakes_total{listener=\"0.0.0.0:8080\",result=\"done\"} 0",
            "oncegate_certificate_reloads_total{result=\"failed\"} 0",
            "oncegate_certificate_expires_seconds{certificate=\"shop.pem\"} 0",
            "oncegate_buffer_bytes 0",
            "oncegate_records 0",
            "oncegate_record_bytes 0",
            "oncegate_records_dropped_early_total{what=\"body\"} 0",
            "oncegate_log_lines_dropped_total 0",
            concat!("oncegate_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
        ] {
            assert!(text.lines().any(|one| one == line), "{line} is missing");
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn an_exchange_counts_its_duplicate_or_its_refusal_too() {
        let metrics = metrics();
        let route = metrics.route(0);
        route.exchange(Verdict::Follow, Reason::Done);
        route.exchange(Verdict::Refuse, Reason::Internal);
        route.refusal(Reason::Done);
        let text = metrics.encode();
        for line in [
            "oncegate_exchanges_total{route=\"checkout\",verdict=\"follow\",reason=\"done\"} 1",
            "oncegate_duplicates_total{route=\"checkout\",kind=\"follow\"} 1",
            "oncegate_refusals_total{route=\"checkout\",name=\"internal\"} 1",
            "oncegate_exchanges_total{route=\"checkout\",verdict=\"refuse\",reason=\"internal\"} 1",
        ] {
            assert!(text.lines().any(|one| one == line), "{line} is missing");
        }
    }

    #[test]
    fn every_pair_and_every_word_can_be_counted_and_no_label_leaves_the_closed_sets() {
        let metrics = metrics();
        for index in [0, 1, 7] {
            for verdict in Verdict::ALL {
                Reason::ALL.iter().for_each(|reason| metrics.route(index).exchange(*verdict, *reason));
            }
            DoubtCause::ALL.iter().for_each(|cause| metrics.route(index).in_doubt(*cause));
        }
        for op in StoreOp::ALL {
            StoreCause::ALL.iter().for_each(|cause| metrics.store_error(*op, *cause));
        }
        ClaimOutcome::ALL.iter().for_each(|outcome| metrics.claim(*outcome, Duration::from_millis(1)));
        DroppedEarly::ALL.iter().for_each(|what| metrics.dropped_early(*what, 2));
        let upstream = metrics.upstream(0).unwrap();
        CodeClass::ALL.iter().for_each(|class| upstream.answered(*class, Duration::from_millis(1)));
        assert!(metrics.upstream(1).is_none());
        let text = metrics.encode();
        let names: BTreeSet<_> = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.split_once('{')?.1.rsplit_once("} "))
            .flat_map(|(labels, _)| labels.split("\",").filter_map(|label| Some(label.split_once("=\"")?.0)))
            .collect();
        let allowed = [
            "route",
            "verdict",
            "reason",
            "kind",
            "outcome",
            "cause",
            "op",
            "name",
            "upstream",
            "code_class",
            "server",
            "listener",
            "what",
            "version",
            "certificate",
            "result",
            "le",
        ];
        assert_eq!(names, allowed.into());
        let series = text.lines().filter(|line| line.starts_with("oncegate_exchanges_total")).count();
        assert_eq!(series, 3 * Verdict::ALL.len() * Reason::ALL.len());
    }

    #[test]
    fn a_name_of_the_configuration_is_escaped() {
        let text = metrics().encode();
        assert!(text.contains("route=\"a \\\"quoted\\\"\\nroute\""));
    }
}
