//! What is said of an exchange: its line in the log, its count in the metrics, the marks on its answer.
//!
//! Every guarded exchange ends in exactly one of the methods that consume a [`Report`]; one that is dropped on the
//! way (its client went away) is reported by its drop.

use std::{
    rc::Rc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderValue, Response, header, request::Parts};
use http_body::Body;
use tokio::time::Instant;

use super::{
    body::{Reply, Watch},
    client::Client,
    core::Core,
    forward::{self, X_REQUEST_ID},
    pass::Passed,
};
use crate::{
    answer::{
        refusal::{Busy, Refusal, Wants},
        replay::How,
    },
    claim::{End, Role, Spent},
    ops::{
        log::Line,
        words::{Fault, Phase, Reason, Verdict},
    },
    request::Reading,
    store::{Fence, Key, Record},
};

/// One guarded exchange, until it is over.
pub struct Report {
    core: Rc<Core>,
    route: usize,
    id: HeaderValue,
    client: Option<std::net::IpAddr>,
    wants: Wants,
    started: Instant,
    read: Duration,
    order: String,
    fingerprint: Option<Key>,
    fence: Option<Fence>,
    server: Option<usize>,
    spent: Spent,
    phase: Phase,
    /// What an exchange is counted as whose client goes away.
    verdict: Verdict,
    told: bool,
}

impl Report {
    pub fn begin(
        core: &Rc<Core>,
        client: &Client,
        route: usize,
        (id, wants): (&HeaderValue, Wants),
        parts: &Parts,
    ) -> Self {
        let trusted = &core.gate.config.listeners[client.listener].trusted_proxies;
        Self {
            core: Rc::clone(core),
            route,
            id: id.clone(),
            client: forward::client_address(&client.peer, trusted, &parts.headers),
            wants,
            started: Instant::now(),
            read: Duration::ZERO,
            order: String::new(),
            fingerprint: None,
            fence: None,
            server: None,
            spent: Spent::default(),
            phase: Phase::Read,
            verdict: Verdict::Refuse,
            told: false,
        }
    }

    /// The request has been read whole.
    pub fn read(&mut self) {
        self.read = self.started.elapsed();
    }

    /// It takes the order's name, which nobody else asks for.
    pub fn reading(&mut self, reading: &mut Reading) {
        self.order = std::mem::take(&mut reading.order);
        self.fingerprint = reading.fingerprint;
        self.phase = Phase::Follow;
    }

    /// It has a seat on a flight: one whose client goes away is no duplicate because of that.
    pub fn boarded(&mut self, role: Role) {
        self.verdict = match role {
            Role::Leader => Verdict::Lead,
            Role::Follower => Verdict::Follow,
        };
    }

    /// It is passed on as if there were no guard.
    pub fn passing(&mut self) {
        self.verdict = Verdict::Bypass;
        self.phase = Phase::Send;
    }

    pub fn server(&mut self, server: Option<usize>) {
        self.server = server;
    }

    pub fn end(&mut self, end: &End) {
        self.fence = end.fence;
        self.spent = end.spent;
    }

    /// The answer is too large to be kept, and its flight goes on while it is given.
    pub fn streamed(mut self, fence: Fence) -> Self {
        self.fence = Some(fence);
        self
    }

    /// The leader's client gets the shop's answer.
    pub fn lead(mut self, response: Response<Reply>, reason: Reason) -> Response<Reply> {
        self.tell(Verdict::Lead, reason, None, Phase::Reply, &response);
        response
    }

    /// Another request's answer was given, or could not be.
    pub fn given(
        mut self,
        given: Result<Response<Reply>, Refusal>,
        record: &Record,
        how: How,
        reason: Reason,
    ) -> Response<Reply> {
        self.fence = Some(record.fence);
        match given {
            Ok(response) => {
                let verdict = crate::answer::replay::verdict(how);
                if verdict == Verdict::Follow {
                    let waited = self.started.elapsed().as_secs_f64();
                    self.core.gate.metrics.follow_wait_seconds.observe(waited);
                }
                self.tell(verdict, reason, None, Phase::Reply, &response);
                response
            }
            Err(refusal) => self.refuse(&refusal, Phase::Reply),
        }
    }

    /// The request was passed on: the guard stood aside, or only observes. Its line is written when the answer has
    /// passed, since nobody knows before how long it is.
    pub fn bypass(mut self, passed: Passed, reason: Reason) -> Response<Reply> {
        let Passed { mut response, server, sent_at } = passed;
        self.server = server;
        self.count(Verdict::Bypass, reason);
        let status = response.status().as_u16();
        let passing = Passing { report: self, reason, status, sent_at, bytes: 0, told: false };
        response.body_mut().watch(Box::new(passing));
        response
    }

    pub fn refuse(mut self, refusal: &Refusal, phase: Phase) -> Response<Reply> {
        let guard = self.core.gate.config.routes[self.route].guard.as_ref();
        let busy = guard.map_or(Busy::ByAccept, |guard| guard.busy);
        let response = refused(refusal, busy, self.wants, &self.id);
        self.tell(Verdict::Refuse, refusal.reason(), Some(refusal.fault()), phase, &response);
        response
    }

    fn tell(
        &mut self,
        verdict: Verdict,
        reason: Reason,
        fault: Option<Fault>,
        phase: Phase,
        response: &Response<Reply>,
    ) {
        // A relayed body knows nothing of its length, but the shop may have said it.
        let said = || response.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok();
        let bytes = response.body().size_hint().exact().or_else(said).unwrap_or(0);
        self.write(verdict, reason, fault, phase, response.status().as_u16(), bytes);
    }

    fn write(
        &mut self,
        verdict: Verdict,
        reason: Reason,
        fault: Option<Fault>,
        phase: Phase,
        status: u16,
        bytes: u64,
    ) {
        self.count(verdict, reason);
        self.line((verdict, reason), fault, phase, status, bytes);
    }

    fn count(&mut self, verdict: Verdict, reason: Reason) {
        self.told = true;
        self.core.gate.metrics.route(self.route).exchange(verdict, reason);
    }

    fn line(
        &self,
        (verdict, reason): (Verdict, Reason),
        fault: Option<Fault>,
        phase: Phase,
        status: u16,
        bytes: u64,
    ) {
        let gate = &self.core.gate;
        if !gate.config.log.access {
            return;
        }
        let route = &gate.config.routes[self.route];
        let upstream = &self.core.upstreams[route.upstream];
        gate.log.exchange(&Line {
            time: SystemTime::now(),
            request_id: self.id.to_str().unwrap_or(""),
            route: &route.name,
            verdict,
            reason,
            fault,
            phase,
            order: &self.order,
            fingerprint: &self.fingerprint.map(|key| key.short()).unwrap_or_default(),
            fence: self.fence.map(|fence| fence.0),
            replica: &gate.replica,
            status,
            upstream: upstream.name(),
            server: self.server.map_or("", |server| upstream.server(server)),
            bytes,
            read: self.read,
            queue: self.spent.queued,
            claim: self.spent.claiming,
            upstream_time: self.spent.upstream,
            total: self.started.elapsed(),
            client: self.client,
        });
    }
}

impl Drop for Report {
    /// The client went away before its answer came. Its flight goes on.
    fn drop(&mut self) {
        if !self.told {
            let (phase, verdict) = (self.phase, self.verdict);
            self.write(verdict, Reason::ClientGone, Some(Fault::Client), phase, 0, 0);
        }
    }
}

/// An answer that is passed on: its line in the log, once it has passed or broken off.
struct Passing {
    report: Report,
    reason: Reason,
    status: u16,
    sent_at: Instant,
    bytes: u64,
    told: bool,
}

impl Watch for Passing {
    fn data(&mut self, bytes: &Bytes) {
        self.bytes += bytes.len() as u64;
    }

    fn end(&mut self) {
        self.told = true;
        self.report.spent.upstream = self.sent_at.elapsed();
        let what = (Verdict::Bypass, self.reason);
        self.report.line(what, None, Phase::Reply, self.status, self.bytes);
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        if !self.told {
            self.end();
        }
    }
}

/// A refusal outside a guarded exchange.
pub fn plain_refusal(refusal: &Refusal, wants: Wants, id: &HeaderValue) -> Response<Reply> {
    refused(refusal, Busy::ByAccept, wants, id)
}

fn refused(refusal: &Refusal, busy: Busy, wants: Wants, id: &HeaderValue) -> Response<Reply> {
    let rendered = refusal.render(busy, wants, id.to_str().unwrap_or(""));
    let mut response = rendered.map(|body: Bytes| Reply::whole(body));
    response.headers_mut().insert(X_REQUEST_ID, id.clone());
    response
}
