//! What would become of one request, and of one answer to it. Nothing is sent, claimed or kept.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Method, StatusCode, request::Parts};
use serde::Serialize;

use super::raw::{RawAnswer, RawRequest};
use crate::{
    answer::{
        judge::Seen,
        refusal::{Busy, Refusal},
    },
    claim::Keep,
    config::{Config, Enforce, Guard, Mode, OnNoKey, Renewal, Route, show_duration, show_size},
    gate::{
        find, forward, lead, renew,
        search::{self, Passed, Search, Step},
    },
    request::{
        self, Content, Explanation, IdentityRead, Reading, Secret, Unread, View,
        body::BodyAs,
        verify::{OnBadSignature, Verified, Verify},
    },
    route::{
        matcher::Hit,
        path::{self, Readings},
    },
    store::{InDoubtPolicy, Judged},
};

/// Everything that is told of a request.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub method: String,
    pub host: String,
    pub path: Paths,
    /// The routes before the one that takes it.
    pub passed: Vec<NotTaken>,
    pub route: Option<Taken>,
    pub signature: Option<SignatureTold>,
    pub reading: Option<Explanation>,
    pub verdict: Told,
    pub answer: Option<AnswerTold>,
    pub notes: Vec<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct Paths {
    pub primary: String,
    /// Other servers' readings of the same bytes.
    pub spellings: Vec<String>,
    /// What a shop may hold to be the same place.
    pub aliases: Vec<String>,
    pub doubt: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct NotTaken {
    pub route: String,
    pub because: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Taken {
    pub name: String,
    pub upstream: String,
    pub mode: Option<&'static str>,
    pub enforce: bool,
    /// What the path template captured.
    pub captured: Vec<(String, String)>,
}

/// What the sender's signature is worth.
#[derive(Debug, Serialize)]
pub(super) struct SignatureTold {
    pub scheme: &'static str,
    pub verified: bool,
    pub why: String,
}

/// What would be done with the request.
#[derive(Debug, Serialize)]
pub(super) struct Told {
    /// `lead`, `bypass` or `refuse`; `pass` where no guard is asked.
    pub verdict: &'static str,
    /// The name of a refusal, and its status.
    pub refusal: Option<&'static str>,
    pub status: Option<u16>,
    pub because: String,
}

#[derive(Debug, Serialize)]
pub(super) struct AnswerTold {
    pub status: u16,
    pub judged: &'static str,
    pub because: String,
    /// What is done with it.
    pub kept: String,
}

/// A request that is being looked at.
struct Asked<'a> {
    config: &'a Config,
    secret: &'a Secret,
    parts: &'a Parts,
    host: &'a str,
    readings: &'a Readings,
    body: &'a Bytes,
}

pub(super) fn report(config: &Config, raw: RawRequest, answer: Option<RawAnswer>) -> Report {
    let RawRequest { mut parts, body, mut notes } = raw;
    forward::name_host(&mut parts);
    let readings = path::read(parts.uri.path());
    let host = find::host(&parts);
    let fixed = Secret::new([0; 32]);
    let secret = config.store.secret.as_ref().unwrap_or(&fixed);
    let asked = Asked { config, secret, parts: &parts, host: &host, readings: &readings, body: &body };
    let mut report = Report {
        method: parts.method.to_string(),
        host: host.clone().into_owned(),
        path: paths(&readings),
        passed: Vec::new(),
        route: None,
        signature: None,
        reading: None,
        verdict: pass("no route is looked for"),
        answer: None,
        notes: Vec::new(),
    };
    match asked.search(&mut report.passed) {
        Err(refusal) => report.verdict = refuse(&refusal, Busy::ByAccept),
        Ok((number, hit)) => asked.taken(number, &hit, answer.as_ref(), &mut report),
    }
    if report.reading.is_some() && config.store.secret.is_none() {
        notes.push(
            "the configuration has no store.secret, so fingerprints and lanes are made with a fixed one here: equal \
             ones mean equal requests, but they are not those of a running oncegate"
                .to_owned(),
        );
    }
    if let Some(answer) = answer {
        notes.extend(answer.notes.iter().cloned());
        let route = report.route.as_ref().and_then(|route| config.route(&route.name));
        match route.and_then(|route| route.guard.as_ref()) {
            Some(guard) => {
                let shares = report.reading.as_ref().is_some_and(|reading| reading.fingerprint.is_some());
                report.answer = Some(judged(guard, shares, &answer));
            }
            None => notes.push("no guard takes this request, so no answer to it is judged".to_owned()),
        }
    }
    notes.append(&mut report.notes);
    report.notes = notes;
    report
}

impl Asked<'_> {
    /// The route, found as the gate finds it.
    fn search(&self, passed: &mut Vec<NotTaken>) -> Result<(usize, Hit), Refusal> {
        if self.parts.method == Method::CONNECT {
            let detail = "CONNECT is not served here".into();
            return Err(Refusal::RequestMalformed { status: StatusCode::METHOD_NOT_ALLOWED, detail });
        }
        let routes = &self.config.routes;
        let mut content = None;
        let mut search = Search::new(routes, self.parts, self.host, self.readings);
        loop {
            let note = |number: usize, why| {
                let because = self.because(&routes[number], why, content.as_ref());
                passed.push(NotTaken { route: routes[number].name.clone(), because });
            };
            match search.go_on(content.as_ref(), note) {
                Step::Takes(number, hit) => return Ok((number, hit)),
                Step::NoRoute => return Err(Refusal::NoRoute),
                Step::Unreadable { what, .. } => {
                    return Err(Refusal::BodyUnreadable { detail: what.into(), cause: None });
                }
                Step::NeedsBody(number) => match search::Bounds::widest(routes, number) {
                    None => search.pass_over(),
                    Some(bounds)
                        if self.body.len() > bounds.body_bytes_max
                            && !search::is_enforced(&routes[number]) =>
                    {
                        search.pass_over();
                    }
                    Some(bounds) => content = Some(self.content(BodyAs::Declared, &bounds)?),
                },
            }
        }
    }

    /// The body as a guard reads it.
    fn content(&self, body_as: BodyAs, bounds: &search::Bounds) -> Result<Content, Refusal> {
        if self.body.len() > bounds.body_bytes_max {
            return Err(Refusal::BodyTooLarge { body_bytes_max: bounds.body_bytes_max as u64 });
        }
        Ok(request::body::read_as(body_as, &self.parts.headers, self.body, bounds.decoded_bytes_max))
    }

    fn because(&self, route: &Route, why: Passed, content: Option<&Content>) -> String {
        let view = self.view(&[]);
        let part = route.matcher.turned_away_by(&view, self.readings, content);
        match (why, part) {
            (Passed::LaterUnguarded, _) => "another route without a guard stands before it".to_owned(),
            (Passed::Head | Passed::Body, Some("not")) => "`not` excludes the request".to_owned(),
            (Passed::Head | Passed::Body, Some(part)) => format!("`{part}` does not hold"),
            // Some reading of the path would match; it is one that only counts for guards.
            (Passed::Head, None) => {
                "it has no guard, and only another reading of the path matches".to_owned()
            }
            (Passed::Body, None) => "the body cannot be read".to_owned(),
        }
    }

    /// The signature, where the route asks for one.
    fn signature(&self, guard: &Guard, view: &View<'_>, report: &mut Report) -> Result<(), OnBadSignature> {
        let Some(verify) = &guard.verify else { return Ok(()) };
        let checked = verify.check(view, self.body, guard.decoded_max, None);
        let why = match &checked {
            Ok(verified) => good(verify, *verified),
            Err(bad) => bad.to_string(),
        };
        report.signature =
            Some(SignatureTold { scheme: verify.scheme.name(), verified: checked.is_ok(), why });
        checked.map(|_| ()).map_err(|_| verify.on_bad_signature)
    }

    fn view<'a>(&'a self, params: &'a [(String, String)]) -> View<'a> {
        search::view(self.parts, self.host, &self.readings.path, params)
    }

    /// The renew rules whose identity the request has, with the numbers that they have in the configuration, from 1.
    fn renewing(&self, route: &Route, view: &View<'_>, content: &Content) -> Vec<(usize, &Renewal)> {
        let upstream = &self.config.upstreams[route.upstream].name;
        let has_identity = |rule: &Renewal| {
            request::identity_key(upstream, &rule.identity, self.secret, view, content).is_some()
        };
        let numbered = self.config.renewals.iter().enumerate().map(|(index, rule)| (index + 1, rule));
        numbered.filter(|(_, rule)| rule.upstream == route.upstream && has_identity(rule)).collect()
    }

    /// A route takes it: what its guard would do.
    fn taken(&self, number: usize, hit: &Hit, answer: Option<&RawAnswer>, report: &mut Report) {
        let route = &self.config.routes[number];
        let guard = route.guard.as_ref();
        report.route = Some(Taken {
            name: route.name.clone(),
            upstream: self.config.upstreams[route.upstream].name.clone(),
            mode: guard.map(|guard| guard.mode.name()),
            enforce: guard.is_some_and(|guard| guard.enforce == Enforce::Yes),
            captured: hit.params.clone(),
        });
        let content = guard.map(|guard| self.content(guard.body_as, &search::Bounds::of(guard)));
        let view = self.view(&hit.params);
        // Traffic without a guard is not read.
        let read = content.as_ref().and_then(|content| content.as_ref().ok()).unwrap_or(&Content::Empty);
        let renewing = self.renewing(route, &view, read);
        for (number, _) in renewing.iter().filter(|(_, rule)| renew::is_shown_by_request(rule, &view)) {
            report
                .notes
                .push(format!("renew rule {number}: this request begins a new purchase of its identity"));
        }
        for (number, rule) in renewing {
            if answer.is_some_and(|answer| renew::is_shown_by_answer(rule, &answer.parts.headers)) {
                report
                    .notes
                    .push(format!("renew rule {number}: this answer begins a new purchase of its identity"));
            }
        }
        let Some((guard, content)) = guard.zip(content) else {
            report.verdict = pass("the route has no guard: everything is streamed through untouched");
            return;
        };
        let told = match content {
            Err(refusal) => refuse(&refusal, guard.busy),
            Ok(content) => {
                report.reading = Some(request::explain(&guard.rules, self.secret, &view, &content));
                let signed = self.signature(guard, &view, report);
                let read = request::read(&guard.rules, self.secret, &view, &content);
                guarded(guard, hit, signed, read)
            }
        };
        report.verdict = match guard.enforce {
            Enforce::Yes => told,
            Enforce::Observe => {
                let enforced = match (told.verdict, told.refusal) {
                    (_, Some(name)) => format!("refuse ({name})"),
                    (verdict, None) => verdict.to_owned(),
                };
                pass(&format!("the guard only observes; enforced it would be: {enforced}: {}", told.because))
            }
        };
    }
}

/// When a file with a request in it arrived is not known, so a time that was signed is told and not compared.
fn good(verify: &Verify, verified: Verified) -> String {
    let Some(at) = verified.at.and_then(|at| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(at)))
    else {
        return "the sender signed it".to_owned();
    };
    let at = humantime::format_rfc3339_seconds(at);
    match verify.tolerance {
        Some(tolerance) => {
            let tolerance = show_duration(tolerance);
            format!("the sender signed it at {at}; it is good if it arrives within {tolerance} of that")
        }
        None => format!("the sender signed it at {at}, which is not compared with the time of arrival"),
    }
}

fn paths(readings: &Readings) -> Paths {
    Paths {
        primary: readings.path.clone(),
        spellings: readings.spellings().to_vec(),
        aliases: readings.aliases().to_vec(),
        doubt: readings.doubt.map(|doubt| doubt.to_string()),
    }
}

/// The stages of the gate that say no or stand aside, in its order.
fn guarded(
    guard: &Guard,
    hit: &Hit,
    signed: Result<(), OnBadSignature>,
    read: Result<Reading, Unread>,
) -> Told {
    if let Some(doubt) = hit.doubt {
        return refuse(&Refusal::PathUnreadable { detail: doubt.to_string().into() }, guard.busy);
    }
    match signed {
        Ok(()) => {}
        Err(OnBadSignature::Refuse) => return refuse(&Refusal::BadSignature, guard.busy),
        Err(OnBadSignature::Pass) => {
            let because = "sent to the shop unguarded, because its signature is not good: it holds no lane, gets nobody's \
                answer and leaves none"
                .to_owned();
            return Told { verdict: "bypass", refusal: None, status: None, because };
        }
    }
    match (read, guard.on_no_key) {
        (Ok(reading), _) => {
            Told { verdict: "lead", refusal: None, status: None, because: lead(guard, &reading) }
        }
        (Err(Unread::NoKey { looked }), OnNoKey::Bypass) => Told {
            verdict: "bypass",
            refusal: None,
            status: None,
            because: format!("sent to the shop unguarded, because it names no order; looked at {looked}"),
        },
        (Err(Unread::NoKey { looked }), OnNoKey::Refuse) => {
            refuse(&Refusal::NoKey { detail: looked.into() }, guard.busy)
        }
        (Err(Unread::Unreadable { what }), _) => {
            refuse(&Refusal::BodyUnreadable { detail: what.into(), cause: None }, guard.busy)
        }
    }
}

fn lead(guard: &Guard, reading: &Reading) -> String {
    let shares = match (guard.mode, reading.identity, reading.scope) {
        (Mode::Serial, _, _) => "every request of the order is sent, one after the other".to_owned(),
        (_, IdentityRead::Absent, _) => {
            "it has none of the declared identities, so it is sent by itself and shares no answer".to_owned()
        }
        (Mode::Signal, _, _) => {
            "equal requests that come while it runs share one run after it; no answer is kept".to_owned()
        }
        (Mode::Once, _, scope) => {
            let again = match scope {
                Some(_) => "whatever comes again for the same order and identity",
                None if reading.by_event => "the same event again",
                None => "the same request again",
            };
            let kept = show_duration(guard.replay_for);
            format!("{again} gets its answer, while it runs and {kept} after it is done")
        }
    };
    let doubt = match guard.in_doubt {
        InDoubtPolicy::Hold(time) => format!("the next ones are refused for {}", show_duration(time)),
        InDoubtPolicy::Retry => "the next one is sent".to_owned(),
    };
    format!("sent to the shop once its lane is free; {shares}; if no answer is known, {doubt}")
}

fn pass(because: &str) -> Told {
    Told { verdict: "pass", refusal: None, status: None, because: because.to_owned() }
}

fn refuse(refusal: &Refusal, busy: Busy) -> Told {
    Told {
        verdict: "refuse",
        refusal: Some(refusal.name()),
        status: Some(busy.status(refusal).as_u16()),
        because: refusal.to_string(),
    }
}

/// How an answer would be judged, and what is done with it.
fn judged(guard: &Guard, shares: bool, answer: &RawAnswer) -> AnswerTold {
    let RawAnswer { parts, body, .. } = answer;
    let too_large = body.len() > guard.record_max;
    let seen = if too_large { Seen::Begun } else { Seen::Whole(body) };
    let explained = guard.done_when.explain_seen(parts.status, &parts.headers, seen, guard.record_max);
    let judged = explained.judged;
    let kept = match (judged, lead::keep(guard, judged, shares)) {
        (Judged::Failed, _) => {
            "given to those who wait for it and kept for nobody: the same request is sent again".to_owned()
        }
        (Judged::Done | Judged::Pending, Keep::Not) => {
            "given to those who wait for it, and not kept".to_owned()
        }
        (Judged::Pending, Keep::For { seen, .. }) => format!(
            "given to those who wait for it, and for {} to whoever sends the same: something is left to do for the \
             client, so no record is kept",
            show_duration(seen)
        ),
        (Judged::Done, Keep::For { unseen, seen }) => {
            let (seen, unseen) = (show_duration(seen), show_duration(unseen));
            let what = match too_large {
                true => format!(
                    "larger than {}: only its status is kept, and duplicates are refused with answer-too-large",
                    show_size(guard.record_max)
                ),
                false => "kept".to_owned(),
            };
            match seen == unseen {
                true => format!("{what} for {seen}"),
                false => format!("{what} for {seen} once a client has it, for {unseen} while none has"),
            }
        }
    };
    AnswerTold {
        status: parts.status.as_u16(),
        judged: match judged {
            Judged::Done => "done",
            Judged::Pending => "pending",
            Judged::Failed => "failed",
        },
        because: explained.why,
        kept,
    }
}
