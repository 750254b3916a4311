//! The configuration: what it means, in types that nothing later has to interpret again.
//!
//! Two steps: `file` says what was typed and where, `check` what it means; all problems are told in one run. Nothing
//! here opens a socket or sends anything. Paths, names and addresses have been checked for form, not for existence.

use std::{fmt, net::SocketAddr, path::Path, path::PathBuf, time::Duration};

use ipnet::IpNet;

use crate::{
    answer::{judge::DoneWhen, refusal::Busy},
    request::{Rules, Secret, body::BodyAs, source::Source, verify::Verify},
    route::matcher::Matcher,
    store::{InDoubtPolicy, OnStoreDown},
    upstream::fleet::{FleetSettings, ServerSettings},
};

mod check;
mod file;
mod problem;
mod reader;
mod senders;
mod suggest;
mod units;

pub use problem::{Problem, Problems, Severity, Style};
pub use units::{show_duration, show_size};

/// A whole configuration, sound in itself.
pub struct Config {
    /// At least one.
    pub listeners: Vec<Listener>,
    pub store: Store,
    /// At least one.
    pub upstreams: Vec<Upstream>,
    /// At least one; the first that matches holds.
    pub routes: Vec<Route>,
    pub renewals: Vec<Renewal>,
    pub admin: Option<Admin>,
    pub limits: Limits,
    pub log: Log,
    pub runtime: Runtime,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => write!(f, "{address}"),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[derive(Clone, Debug)]
pub struct Listener {
    pub address: Address,
    /// Whose `X-Forwarded-*` and `Forwarded` are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// `None`: connections are not encrypted.
    pub tls: Option<Tls>,
    /// The port that clients are sent to instead of being served.
    pub redirect_to_https: Option<u16>,
}

/// What a listener that encrypts shows and asks for. The files are read at the start, and again whenever they change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tls {
    /// At least one; the first is for clients that name no server, or one that none of them is for.
    pub certificates: Vec<Certificate>,
    pub clients: Option<ClientCertificates>,
    pub http2: Http2,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Certificate {
    /// PEM: the server's own, then those that lead to the root.
    pub chain: PathBuf,
    pub key: PathBuf,
    /// DER, as the authority answered; shown to clients where the file is there.
    pub ocsp: Option<PathBuf>,
}

/// Certificates that clients have.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientCertificates {
    /// PEM: who signs them.
    pub authority: PathBuf,
    pub need: Need,
}

/// Whether there is a connection without it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Need {
    Required,
    Optional,
}

/// Whether a listener offers HTTP/2.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Http2 {
    Offered,
    Off,
}

/// Where claims and records live.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StoreKind {
    /// In this process; a restart forgets.
    Memory,
    /// In this process and in a folder of this machine, which survives a restart.
    File { path: PathBuf },
    /// In a Redis that all replicas share.
    Redis(RedisStore),
}

#[derive(Clone, PartialEq, Eq)]
pub struct RedisStore {
    pub address: crate::store::redis::Address,
    pub namespace: String,
    /// How many replicas of Redis must have a claim before it counts.
    pub wait_replicas: u32,
}

/// The address may hold a password, and is never printed.
impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

#[derive(Clone)]
pub struct Store {
    pub kind: StoreKind,
    /// How long a right to send lasts without being renewed.
    pub lease: Duration,
    /// How long a call of the store may take.
    pub deadline: Duration,
    /// What routes do that do not say otherwise. Only a store that is shared can be down while this process goes on.
    pub on_store_down: OnStoreDown,
    /// What fingerprints are keyed with; `None`: one is made, and kept where the store is.
    pub secret: Option<Secret>,
    pub records_bytes_max: usize,
    /// Flights, lanes and orders in doubt that live at a time.
    pub states_max: usize,
}

#[derive(Clone, Debug)]
pub struct Upstream {
    pub name: String,
    /// At least one.
    pub servers: Vec<ServerSettings>,
    /// Which of them is next, and who waits for how long.
    pub fleet: FleetSettings,
    pub health: Option<Health>,
    /// How often the names of servers are looked up again.
    pub resolve_every: Duration,
    pub connect_timeout: Duration,
    /// How long the shop is listened to, from the last byte of the request to the first of the answer.
    pub answer_timeout: Duration,
    /// How long a connection waits in the pool; has to be shorter than the shop's own keep-alive.
    pub idle_timeout: Duration,
    pub idle_per_core_max: usize,
}

/// How it is found out whether a server is up, without a shopper's request.
#[derive(Clone, Debug)]
pub struct Health {
    /// What is asked for, by GET.
    pub path: String,
    /// The `Host` that is named; `None`: the server's own address.
    pub host: Option<String>,
    pub expect: Expect,
    pub interval: Duration,
    pub timeout: Duration,
    /// So many checks in a row that fail take a server out.
    pub fall: u32,
    /// And so many that do not bring it back.
    pub rise: u32,
}

/// What a healthy server answers.
#[derive(Clone, Debug)]
pub struct Expect {
    /// Empty: any 2xx or 3xx.
    pub statuses: Vec<u16>,
    /// What the body has to hold.
    pub body: Option<regex::bytes::Regex>,
}

pub struct Route {
    pub name: String,
    /// Index into [`Config::upstreams`].
    pub upstream: usize,
    pub matcher: Matcher,
    /// Whether there is any condition; a route without one takes everything and is the last.
    pub has_match: bool,
    pub guard: Option<Guard>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    Once,
    Signal,
    Serial,
}

impl Mode {
    /// As it is typed.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Mode::Once => "once",
            Mode::Signal => "signal",
            Mode::Serial => "serial",
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Enforce {
    Yes,
    /// Compute, log and count; leave the traffic alone.
    Observe,
}

/// What is done with a request that names no order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnNoKey {
    Bypass,
    Refuse,
}

pub struct Guard {
    pub mode: Mode,
    pub enforce: Enforce,
    /// The sender's signature, where the route says that there is one (`[route.verify]`).
    pub verify: Option<Verify>,
    pub rules: Rules,
    /// With the route's `pending_when`.
    pub done_when: DoneWhen,
    /// How long a record lives once its answer was delivered.
    pub replay_for: Duration,
    /// How long a record lives whose answer reached nobody.
    pub replay_unseen_for: Duration,
    /// How long an answer lives that leaves something to do for the client.
    pub pending_for: Duration,
    /// A client's patience, in a lane or behind a leader.
    pub wait_max: Duration,
    pub followers_max: usize,
    pub lane_depth_max: usize,
    pub on_no_key: OnNoKey,
    pub in_doubt: InDoubtPolicy,
    pub on_store_down: OnStoreDown,
    pub send_idempotency_key: SendKey,
    /// In whose words a request is refused.
    pub busy: Busy,
    /// What its requests' bodies are read as. Routes are told apart by what is declared all the same.
    pub body_as: BodyAs,
    /// Bytes of a request's body, as it comes.
    pub body_max: usize,
    /// For the whole body.
    pub body_timeout: Duration,
    /// Bytes of an answer that are kept.
    pub record_max: usize,
    /// Bytes of a request's body after its content coding is taken off.
    pub decoded_max: usize,
}

/// Whether the shop gets a stable `Idempotency-Key` made from the fingerprint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SendKey {
    No,
    Yes,
}

/// When the records of an identity end because a new purchase has begun.
pub struct Renewal {
    /// Index into [`Config::upstreams`].
    pub upstream: usize,
    pub identity: Vec<Source>,
    pub on: RenewOn,
}

pub enum RenewOn {
    Request(Box<Matcher>),
    /// A `Set-Cookie` line of an answer matches.
    Answer {
        set_cookie: regex::bytes::Regex,
    },
}

#[derive(Clone, Debug)]
pub struct Admin {
    pub listen: Address,
    /// There is one wherever more than this machine can connect.
    pub token: Option<Token>,
}

/// What an operator's client has to show. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// The bytes to compare with, in constant time.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

#[derive(Clone, Debug)]
pub struct Limits {
    pub connections_max: usize,
    pub header_bytes_max: usize,
    pub headers_max: usize,
    /// All bodies that are held at a time.
    pub buffers_max: usize,
    /// Exchanges that are at a shop or on their way there; a flight outlives its client.
    pub flights_max: usize,
    /// Requests of one connection, after which it ends.
    pub requests_per_connection_max: u64,
    /// Requests of one HTTP/2 connection at a time.
    pub streams_max: usize,
    /// TLS handshakes under way at a time; one more is closed.
    pub handshakes_max: usize,
    /// For a whole TLS handshake.
    pub handshake_timeout: Duration,
    /// For a request's head, from its first byte.
    pub header_timeout: Duration,
    /// Between two requests of a connection.
    pub idle_timeout: Duration,
    /// Between two reads of a body that is streamed.
    pub body_timeout: Duration,
    /// Between two writes of an answer.
    pub send_timeout: Duration,
    pub drain_deadline: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    Json,
    Text,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    Error,
    Warn,
    Info,
    Debug,
}

/// How an order is written in the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    Clear,
    Hash,
}

#[derive(Clone, Debug)]
pub struct Log {
    pub format: Format,
    pub level: Level,
    /// A line per guarded exchange.
    pub access: bool,
    pub order: Order,
}

/// How connections come to workers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Accept {
    /// One acceptor hands them out in turn.
    Dispatch,
    /// Every worker has a socket of its own and the kernel chooses.
    Reuseport,
}

#[derive(Clone, Debug)]
pub struct Runtime {
    pub workers: usize,
    pub accept: Accept,
}

/// A configuration that can be used, and what somebody should know about it.
pub struct Checked {
    pub config: Config,
    pub warnings: Problems,
}

impl fmt::Debug for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checked").field("warnings", &self.warnings).finish_non_exhaustive()
    }
}

impl Config {
    /// Reads a file, what it includes, and the secrets it names. Fails with all problems at once, the warnings too.
    pub fn load(path: &Path) -> Result<Checked, Problems> {
        Config::load_with(path, &|name| std::env::var(name).ok())
    }

    /// [`Config::load`] with an environment of the caller's choice for `${NAME}`.
    pub fn load_with(path: &Path, environment: &dyn Fn(&str) -> Option<String>) -> Result<Checked, Problems> {
        let (mut sources, report) = (problem::Sources::default(), problem::Report::default());
        let root = file::read(path, environment, &mut sources, &report);
        finish(root, sources, report)
    }

    /// For a first try without a file: one shop, one route that passes everything through, no guard. A guard needs to
    /// know which order a request is about, and that is different in every shop.
    pub fn for_upstream(url: &str, listen: Option<&str>) -> Result<Checked, Problems> {
        // A JSON string is a TOML basic string as long as it has no DEL in it, which is reported as bad TOML.
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let text = format!(
            "[[listener]]\naddress = {}\n[[upstream]]\nname = \"shop\"\nservers = [{}]\n\
             [[route]]\nname = \"everything\"\nupstream = \"shop\"\n",
            quoted(listen.unwrap_or("127.0.0.1:8080")),
            quoted(url),
        );
        Config::from_text("command line", text)
    }

    /// A configuration that stands in no file; `name` is what problems name as its place. No `include`, no `${NAME}`.
    pub fn from_text(name: &'static str, text: String) -> Result<Checked, Problems> {
        let (mut sources, report) = (problem::Sources::default(), problem::Report::default());
        let root = file::read_arguments(name, text, &mut sources, &report);
        finish(Some(root), sources, report)
    }

    /// The route of a name.
    #[must_use]
    pub fn route(&self, name: &str) -> Option<&Route> {
        self.routes.iter().find(|route| route.name == name)
    }
}

fn finish(
    root: Option<file::Table>,
    sources: problem::Sources,
    report: problem::Report,
) -> Result<Checked, Problems> {
    let config =
        root.and_then(|root| check::check(&root, reader::Context { report: &report, sources: &sources }));
    let problems = report.finish(sources);
    match config {
        Some(config) if !problems.has_errors() => Ok(Checked { config, warnings: problems }),
        _ => Err(problems),
    }
}
