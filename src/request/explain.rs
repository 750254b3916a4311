//! What `oncegate explain` shows of a request: every place that was looked at, and what came of it.
//!
//! Values from cookies and headers are shown as keyed hashes only; the canonical body is shown in full, because the
//! operator who asks has the request at hand.

use serde::Serialize;

use super::{
    Identity, IdentityRead, Rules, Unread, View,
    body::Content,
    canonical,
    fingerprint::Secret,
    lookup::Lookup,
    reading, shown,
    source::{AllOf, Source},
};

/// A reading with its reasons.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    pub tried: Vec<Tried>,
    /// The first 8 hex digits of each lane.
    pub lanes: Vec<String>,
    pub order: Option<String>,
    pub identity: Option<&'static str>,
    pub by_event: bool,
    /// The first 8 hex digits.
    pub fingerprint: Option<String>,
    pub scope: Option<String>,
    pub body: Option<String>,
    /// What the body was read as.
    pub declared: &'static str,
    pub canonical_body: String,
    pub canonical_query: String,
    pub ignored: Vec<String>,
    pub notes: Vec<String>,
    /// Why there is no reading, where there is none.
    pub problem: Option<String>,
}

/// One source and what it found.
#[derive(Clone, Debug, Serialize)]
pub struct Tried {
    pub role: Role,
    pub source: String,
    /// Whether the order or the event was read from it: the first that is found is.
    pub counts: bool,
    #[serde(flatten)]
    pub outcome: Outcome,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Order,
    Event,
    Identity,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    Found(Vec<String>),
    /// Why nothing is there.
    Absent(&'static str),
    Ambiguous(String),
    Unreadable(String),
}

/// Reads a request and says how. Sources are tried to the last, also those after the one that was found.
#[must_use]
pub fn explain(rules: &Rules, secret: &Secret, view: &View<'_>, content: &Content) -> Explanation {
    let look = |role, source: &Source| Tried {
        role,
        source: source.to_string(),
        counts: false,
        outcome: outcome(source, secret, view, content),
    };
    let in_role = |role, sources: &[AllOf]| -> Vec<Tried> {
        let mut counted = false;
        let mut tried = Vec::new();
        for all in sources {
            let mut these: Vec<Tried> = all.iter().map(|source| look(role, source)).collect();
            let counts = !counted && these.iter().all(|tried| matches!(tried.outcome, Outcome::Found(_)));
            these.iter_mut().for_each(|tried| tried.counts = counts);
            counted |= counts;
            tried.append(&mut these);
        }
        tried
    };
    let mut tried = in_role(Role::Order, &rules.order);
    tried.extend(in_role(Role::Event, &rules.event));
    if let Identity::AllPresent(sources) = &rules.identity {
        tried.extend(sources.iter().map(|source| look(Role::Identity, source)));
    }

    let reading = reading::read(rules, secret, view, content);
    let problem = reading.as_ref().err().map(Unread::to_string);
    let reading = reading.ok();
    Explanation {
        tried,
        lanes: reading.iter().flat_map(|reading| &reading.lanes).map(|lane| lane.short()).collect(),
        order: reading.as_ref().map(|reading| reading.order.clone()),
        identity: reading.as_ref().map(|reading| match reading.identity {
            IdentityRead::Undeclared => "undeclared",
            IdentityRead::Present => "present",
            IdentityRead::Absent => "absent",
        }),
        by_event: reading.as_ref().is_some_and(|reading| reading.by_event),
        fingerprint: reading.as_ref().and_then(|reading| reading.fingerprint).map(|key| key.short()),
        scope: reading.as_ref().and_then(|reading| reading.scope).map(|key| key.short()),
        body: reading.as_ref().and_then(|reading| reading.body).map(|key| key.short()),
        declared: content.declared(),
        canonical_body: canonical::print(content, &rules.ignore),
        canonical_query: canonical::print_query(view.query, &rules.ignore),
        ignored: rules.ignore.iter().map(|rule| rule.text().to_owned()).collect(),
        notes: notes(rules, content, reading.map(|reading| reading.identity)),
        problem,
    }
}

fn outcome(source: &Source, secret: &Secret, view: &View<'_>, content: &Content) -> Outcome {
    match source.read(view, content) {
        Lookup::Absent if source.reads_body().is_some_and(|reads| !content.fits(reads)) => {
            Outcome::Absent("the body is declared as something else")
        }
        Lookup::Absent => Outcome::Absent("not there, or empty"),
        Lookup::Found(values) => {
            Outcome::Found(values.iter().map(|value| shown::explained(secret, source, value)).collect())
        }
        Lookup::Ambiguous(why) => Outcome::Ambiguous(why),
        Lookup::Unreadable(why) => Outcome::Unreadable(why),
    }
}

fn notes(rules: &Rules, content: &Content, identity: Option<IdentityRead>) -> Vec<String> {
    let mut notes = Vec::new();
    match content {
        Content::Unreadable { reason, .. } => {
            notes.push(format!("the body is fingerprinted byte for byte: {reason}"));
        }
        Content::Raw(_) => {
            notes.push(
                "the body is fingerprinted byte for byte: it is declared as neither a form nor JSON nor XML"
                    .into(),
            );
        }
        Content::Xml(_) => notes.push("XML is fingerprinted byte for byte".into()),
        Content::Empty | Content::Json(_) | Content::Form(_) | Content::Multipart(_) => {}
    }
    for rule in &rules.ignore {
        notes.extend(rule.note().map(|note| format!("ignore = \"{}\": {note}", rule.text())));
    }
    if identity == Some(IdentityRead::Absent) {
        notes.push(
            "an identity is declared and this request has none: it keeps its lane and shares with nobody"
                .into(),
        );
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::{
        super::sample::{Sample, all, identity, ignore, rules, secret},
        *,
    };

    fn explained(sample: &Sample, rules: &Rules) -> serde_json::Value {
        serde_json::to_value(explain(rules, &secret(), &sample.view(), &sample.content())).unwrap()
    }

    #[test]
    fn every_source_is_told_and_no_secret_is() {
        let rules = Rules {
            event: all(&["header:idempotency-key"]),
            identity: identity(&["cookie:session"]),
            ignore: ignore(&["form:nonce", "header:*"]),
            ..rules(&["json:/id", "form:id"])
        };
        let sample = Sample::form("nonce=1&id=7&a=2").header("cookie", "session=topsecret");
        let told = explained(&sample, &rules);
        assert_eq!(told["tried"][0]["absent"], "the body is declared as something else");
        assert_eq!(told["tried"][1]["found"][0], "7");
        assert_eq!(told["tried"][2]["role"], "event");
        assert_eq!(told["tried"][3]["found"][0].as_str().unwrap().len(), 9);
        assert_eq!(told["canonical_body"], "a=2\nid=7");
        assert_eq!((told["order"].as_str(), told["identity"].as_str()), (Some("7"), Some("present")));
        let reading = sample.read(&rules).unwrap();
        assert_eq!(told["fingerprint"], reading.fingerprint.unwrap().short());
        assert_eq!(told["lanes"][0], reading.lanes[0].short());
        assert!(told["notes"][0].as_str().unwrap().contains("changes nothing"));
        assert!(!told.to_string().contains("topsecret"));
    }

    #[test]
    fn of_several_sources_it_is_told_which_one_counts() {
        let sample = Sample::form("id=7&number=8").header("x-id", "9");
        let told =
            explained(&sample, &rules(&["json:/id", "form:id + form:none", "form:number", "header:x-id"]));
        let counts: Vec<_> = (0..5).map(|number| told["tried"][number]["counts"] == true).collect();
        assert_eq!((counts, &told["order"]), (vec![false, false, false, true, false], &"8".into()));
    }

    #[test]
    fn what_cannot_be_read_is_told_with_its_reason() {
        let told = explained(&Sample::json("{\"id\":1"), &rules(&["json:/id"]));
        assert!(told["problem"].as_str().unwrap().contains("not JSON at byte 7"), "{told}");
        assert!(told["notes"][0].as_str().unwrap().contains("byte for byte"));
        let told = explained(&Sample::json(r#"{"id":1,"id":2}"#), &rules(&["json:/id"]));
        assert!(told["tried"][0]["ambiguous"].is_string());
        assert_eq!(told["fingerprint"], serde_json::Value::Null);
    }
}
