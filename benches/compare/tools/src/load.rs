//! The clients of every subject, on connections that stay open. Three ways of asking:
//!
//!   closed   each connection asks again as soon as it was answered: the subject works without a pause
//!   open     requests come at a fixed mean rate with random gaps; a request is timed from when it was due, so that
//!            waiting for a free connection counts and a slow subject cannot slow down the clock
//!   idle     each connection asks once and then stays open without a word
//!
//! The harness is told "ready" once everything is warm and nothing is under way, says when to begin (a line), gets one
//! line of JSON once nothing is under way again, and says when to end. At both of its snapshots the subject is at rest,
//! so that its CPU time divided by the requests is exact.

use std::{
    collections::{HashMap, VecDeque},
    io::{self, ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    num::NonZero,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use rustix::{
    event::{
        Timespec,
        epoll::{self, CreateFlags, Event, EventData, EventFlags},
    },
    thread::set_current_timer_slack,
};

use crate::{
    Outcome,
    message::{self, Framed},
};

/// Stands in a request where its key comes. A key has as many characters.
const MARK: &str = "@@@@KEY@@@@@";
/// How long anything may take before the run is given up.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Closed,
    Open,
    Idle,
}

/// Whether a request is the first of its order or the same as all the others.
#[derive(Clone, Copy, PartialEq)]
enum Keys {
    New,
    Same,
}

struct Plan {
    mode: Mode,
    address: SocketAddr,
    path: String,
    /// Without a body it asks with GET.
    body_bytes: usize,
    expect_bytes: usize,
    connections: usize,
    keys: Keys,
    /// Four characters that no other run uses, so that keys are new to the subject, too.
    prefix: String,
    rate: f64,
    warm: Duration,
    window: Duration,
}

struct Link {
    stream: TcpStream,
    inbound: Vec<u8>,
    /// Since when an answer is due.
    asked: Option<Instant>,
}

struct Load {
    plan: Plan,
    request: Vec<u8>,
    marks: Vec<usize>,
    epoll: OwnedFd,
    events: Vec<Event>,
    buffer: Vec<u8>,
    links: Vec<Link>,
    free: VecDeque<usize>,
    keys_used: u64,
    random: u64,
    /// In nanoseconds, one for each request of the window.
    latencies: Vec<u64>,
}

pub fn run(settings: &[&str]) -> Outcome<()> {
    // The kernel may wake a sleeper 50 µs late to save power; what is due at a moment shall be sent then.
    set_current_timer_slack(NonZero::new(1000))?;
    let mut load = Load::new(plan(settings)?)?;
    match load.plan.mode {
        Mode::Idle => load.ask_once_each()?,
        Mode::Closed | Mode::Open => load.ask_for(load.plan.warm)?,
    }
    load.latencies.clear();
    println!("ready");
    wait_for_a_line()?;
    let begin = Instant::now();
    match load.plan.mode {
        Mode::Idle => load.keep_still()?,
        Mode::Closed | Mode::Open => load.ask_for(load.plan.window)?,
    }
    println!("{}", report(&mut load.latencies, begin.elapsed()));
    wait_for_a_line()
}

fn plan(settings: &[&str]) -> Outcome<Plan> {
    let given: HashMap<&str, &str> = settings.iter().filter_map(|setting| setting.split_once('=')).collect();
    let of = |name: &str| given.get(name).copied().ok_or_else(|| format!("load: {name}=… is missing"));
    let seconds = |name: &str| -> Outcome<Duration> { Ok(Duration::from_secs_f64(of(name)?.parse()?)) };
    let plan = Plan {
        mode: match of("mode")? {
            "closed" => Mode::Closed,
            "open" => Mode::Open,
            "idle" => Mode::Idle,
            other => return Err(format!("load: there is no mode {other}").into()),
        },
        address: of("address")?.parse()?,
        path: of("path")?.to_owned(),
        body_bytes: of("body")?.parse()?,
        expect_bytes: of("expect")?.parse()?,
        connections: of("connections")?.parse()?,
        keys: if of("keys")? == "same" { Keys::Same } else { Keys::New },
        prefix: of("prefix")?.to_owned(),
        rate: of("rate")?.parse()?,
        warm: seconds("warm")?,
        window: seconds("seconds")?,
    };
    if plan.prefix.len() == 4 { Ok(plan) } else { Err("load: prefix= takes four characters".into()) }
}

/// The request of the plan, with marks where the key comes. The body is the order of a cart of many lines.
fn request(plan: &Plan) -> Vec<u8> {
    let common =
        format!("{} HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: compare\r\nAccept: */*\r\n", plan.path);
    if plan.body_bytes == 0 {
        return format!("GET {common}\r\n").into_bytes();
    }
    let mut body = format!("{{\"cart\":\"{MARK}\",\"items\":[");
    for line in 0.. {
        let item = format!("{{\"sku\":\"SKU-{line:06}\",\"quantity\":1,\"price\":19.90}},");
        if body.len() + item.len() + "{}],\"note\":\"\"}".len() > plan.body_bytes {
            break;
        }
        body.push_str(&item);
    }
    body.push_str("{}],\"note\":\"");
    let pad = plan.body_bytes.saturating_sub(body.len() + "\"}".len());
    body.push_str(&"n".repeat(pad));
    body.push_str("\"}");
    let length = body.len();
    format!("POST {common}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}")
        .into_bytes()
}

impl Load {
    fn new(plan: Plan) -> Outcome<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let mut links = Vec::with_capacity(plan.connections);
        for id in 0..plan.connections {
            let stream = TcpStream::connect_timeout(&plan.address, PATIENCE)?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            epoll::add(&epoll, &stream, EventData::new_u64(id as u64), EventFlags::IN)?;
            links.push(Link { stream, inbound: Vec::new(), asked: None });
        }
        let request = request(&plan);
        Ok(Self {
            marks: memchr::memmem::find_iter(&request, MARK).collect(),
            request,
            epoll,
            events: Vec::with_capacity(512),
            buffer: vec![0; 64 * 1024],
            free: (0..links.len()).collect(),
            links,
            keys_used: 0,
            random: 0x9E37_79B9_7F4A_7C15,
            latencies: Vec::new(),
            plan,
        })
    }

    /// Asks for that long, and returns once every request has been answered.
    fn ask_for(&mut self, time: Duration) -> Outcome<()> {
        let end = Instant::now() + time;
        match self.plan.mode {
            Mode::Open => self.ask_at_rate(end)?,
            Mode::Closed | Mode::Idle => {
                while Instant::now() < end {
                    while let Some(id) = self.free.pop_front() {
                        self.ask(id, Instant::now())?;
                    }
                    self.poll(end)?;
                }
            }
        }
        self.settle()
    }

    fn ask_at_rate(&mut self, end: Instant) -> Outcome<()> {
        let mut due = VecDeque::new();
        let mut next = Instant::now();
        loop {
            let now = Instant::now();
            while next <= now && next < end {
                due.push_back(next);
                next += self.gap();
            }
            while let (Some(since), Some(id)) = (due.front().copied(), self.free.front().copied()) {
                due.pop_front();
                self.free.pop_front();
                self.ask(id, since)?;
            }
            if next >= end && due.is_empty() {
                return Ok(());
            }
            if now > end + PATIENCE {
                return Err("the subject does not keep up with the rate".into());
            }
            self.poll(if next < end { next } else { now + PATIENCE })?;
        }
    }

    /// Of arrivals that know nothing of each other (a Poisson process): −ln(u)/rate, from a xorshift generator that
    /// begins at the same place in every run, so that every subject meets the same bursts.
    fn gap(&mut self) -> Duration {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let unit = ((self.random >> 11) as f64 + 1.0) / ((1_u64 << 53) as f64 + 1.0);
        Duration::from_secs_f64(-unit.ln() / self.plan.rate)
    }

    fn ask_once_each(&mut self) -> Outcome<()> {
        for id in 0..self.links.len() {
            self.ask(id, Instant::now())?;
            self.settle()?;
        }
        Ok(())
    }

    /// Nothing is asked and nothing may happen: a connection that the subject closes ends the run with an error.
    fn keep_still(&mut self) -> Outcome<()> {
        let end = Instant::now() + self.plan.window;
        while Instant::now() < end {
            self.poll(end)?;
        }
        Ok(())
    }

    fn ask(&mut self, id: usize, since: Instant) -> Outcome<()> {
        let number = match self.plan.keys {
            Keys::Same => 0,
            Keys::New => self.keys_used,
        };
        self.keys_used += 1;
        let key = format!("{}{number:08}", self.plan.prefix);
        for mark in &self.marks {
            self.request[*mark..*mark + MARK.len()].copy_from_slice(&key.as_bytes()[..MARK.len()]);
        }
        let link = &mut self.links[id];
        link.asked = Some(since);
        // Two kilobytes always fit into the socket of a connection that has nothing under way.
        link.stream.write_all(&self.request)?;
        Ok(())
    }

    fn settle(&mut self) -> Outcome<()> {
        let patience = Instant::now() + PATIENCE;
        while self.links.iter().any(|link| link.asked.is_some()) {
            if Instant::now() > patience {
                return Err("the subject owes an answer".into());
            }
            self.poll(patience)?;
        }
        Ok(())
    }

    /// Waits for answers, until then at most, and takes them.
    fn poll(&mut self, until: Instant) -> Outcome<()> {
        let wait = until.saturating_duration_since(Instant::now());
        let wait = Timespec { tv_sec: wait.as_secs().cast_signed(), tv_nsec: wait.subsec_nanos().into() };
        self.events.clear();
        epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut self.events), Some(&wait))?;
        for at in 0..self.events.len() {
            let id = usize::try_from(self.events[at].data.u64())?;
            self.take(id)?;
        }
        Ok(())
    }

    fn take(&mut self, id: usize) -> Outcome<()> {
        let link = &mut self.links[id];
        match link.stream.read(&mut self.buffer) {
            Ok(0) => return Err("the subject closed a connection".into()),
            Ok(bytes) => link.inbound.extend_from_slice(&self.buffer[..bytes]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        let Framed::Whole { head_bytes, bytes } = message::frame(&link.inbound)? else { return Ok(()) };
        let right =
            link.inbound.starts_with(b"HTTP/1.1 200 ") && bytes - head_bytes == self.plan.expect_bytes;
        if !right || bytes != link.inbound.len() {
            return Err(format!("not the shop's answer: {}", String::from_utf8_lossy(&link.inbound)).into());
        }
        let since = link.asked.take().ok_or("an answer that nobody asked for")?;
        link.inbound.clear();
        self.latencies.push(u64::try_from(since.elapsed().as_nanos())?);
        self.free.push_back(id);
        Ok(())
    }
}

/// One line of JSON; latencies in microseconds.
fn report(latencies: &mut [u64], elapsed: Duration) -> String {
    latencies.sort_unstable();
    let at = |share: f64| {
        let rank = (latencies.len() as f64 * share).ceil() as usize;
        latencies.get(rank.saturating_sub(1)).map_or(0.0, |nanoseconds| *nanoseconds as f64 / 1e3)
    };
    format!(
        "{{\"requests\":{},\"seconds\":{},\"p50\":{},\"p99\":{}}}",
        latencies.len(),
        elapsed.as_secs_f64(),
        at(0.5),
        at(0.99)
    )
}

fn wait_for_a_line() -> Outcome<()> {
    io::stdin().read_line(&mut String::new())?;
    Ok(())
}
