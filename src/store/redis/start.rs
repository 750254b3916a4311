//! What is worth knowing of a Redis before money depends on it: its version, whether it throws keys away, whether a
//! restart forgets, and whether it has the replicas that are waited for. Each is a finding; who acts on it is not here.

use std::fmt;

use redis::{ErrorKind, Value};

use super::link::Link;
use crate::store::StoreError;

/// `PEXPIRE` and scripts as they are used here.
const VERSION_MIN: (u32, u32) = (6, 2);

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Finding {
    /// It is older than what the scripts need; it must not be used.
    TooOld { version: String },
    /// It throws keys away when it is full: claims and records may go, as if they had never been.
    Evicts { policy: String },
    /// A restart loses everything.
    NothingPersists,
    /// Fewer replicas are connected than `wait_replicas` waits for: every claim will fail.
    TooFewReplicas { wanted: u32, connected: u32 },
    /// The user may not ask this.
    Forbidden { question: &'static str },
}

impl Finding {
    /// Whether no promise can be kept on such a store.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::TooOld { .. })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooOld { version } => {
                let (major, minor) = VERSION_MIN;
                write!(f, "Redis {version} is too old: at least {major}.{minor} is needed")
            }
            Self::Evicts { policy } => write!(
                f,
                "maxmemory-policy is {policy}: a full Redis throws claims and records away, and orders run twice; set it to \
                 noeviction"
            ),
            Self::NothingPersists => f.write_str(
                "neither appendonly nor save is on: a restart forgets what is at the shop and what was answered; set \
                 appendonly to yes",
            ),
            Self::TooFewReplicas { wanted, connected } => write!(
                f,
                "wait_replicas is {wanted} and {connected} replicas are connected: claims fail until there are more"
            ),
            Self::Forbidden { question } => {
                write!(f, "the user may not ask for {question}: nobody has checked it")
            }
        }
    }
}

pub(super) async fn findings(link: &Link, wait_replicas: u32) -> Result<Vec<Finding>, StoreError> {
    let mut findings = Vec::new();
    match text(link, redis::cmd("INFO").arg("all")).await? {
        Some(info) => read_info(&info, wait_replicas, &mut findings),
        None => findings.push(Finding::Forbidden { question: "INFO" }),
    }
    let mut persists =
        field(&text(link, redis::cmd("INFO").arg("persistence")).await?.unwrap_or_default(), "aof_enabled")
            == Some("1");
    match text(link, redis::cmd("CONFIG").arg("GET").arg("save")).await? {
        Some(save) => {
            persists |= save.strip_prefix("save\n").is_some_and(|save| !save.trim().is_empty());
            if !persists {
                findings.push(Finding::NothingPersists);
            }
        }
        None if !persists => findings.push(Finding::Forbidden { question: "CONFIG GET save" }),
        None => {}
    }
    Ok(findings)
}

fn read_info(info: &str, wait_replicas: u32, findings: &mut Vec<Finding>) {
    let version = field(info, "redis_version").unwrap_or("of no known version");
    let mut numbers = version.split('.').map_while(|number| number.parse::<u32>().ok());
    if (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) < VERSION_MIN {
        findings.push(Finding::TooOld { version: version.to_owned() });
    }
    if let Some(policy) = field(info, "maxmemory_policy")
        && policy != "noeviction"
    {
        findings.push(Finding::Evicts { policy: policy.to_owned() });
    }
    let connected = field(info, "connected_slaves").and_then(|count| count.parse().ok()).unwrap_or(0);
    if connected < wait_replicas {
        findings.push(Finding::TooFewReplicas { wanted: wait_replicas, connected });
    }
}

fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// `None`: the user may not ask. Lists are told line by line.
async fn text(link: &Link, command: &redis::Cmd) -> Result<Option<String>, StoreError> {
    Ok(match link.ask(command).await? {
        Ok(value) => Some(lines(value)),
        Err(error) if error.kind() == ErrorKind::Io => return Err(StoreError::Down(error.to_string())),
        Err(_) => None,
    })
}

fn lines(value: Value) -> String {
    match value {
        Value::BulkString(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => text,
        Value::Array(parts) => parts.into_iter().map(lines).collect::<Vec<_>>().join("\n"),
        Value::Map(pairs) => pairs
            .into_iter()
            .map(|(key, value)| format!("{}\n{}", lines(key), lines(value)))
            .collect::<Vec<_>>()
            .join("\n"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(info: &str, wait_replicas: u32) -> Vec<Finding> {
        let mut findings = Vec::new();
        read_info(info, wait_replicas, &mut findings);
        findings
    }

    #[test]
    fn a_redis_as_it_should_be_is_nothing_to_speak_of() {
        let info =
            "# Server\r\nredis_version:7.0.15\r\nmaxmemory_policy:noeviction\r\nconnected_slaves:1\r\n";
        assert_eq!(found(info, 1), []);
    }

    #[test]
    fn what_would_break_a_promise_is_found() {
        let info = "redis_version:6.0.16\r\nmaxmemory_policy:volatile-lru\r\nconnected_slaves:0\r\n";
        let findings = found(info, 1);
        assert_eq!(
            findings,
            [
                Finding::TooOld { version: "6.0.16".to_owned() },
                Finding::Evicts { policy: "volatile-lru".to_owned() },
                Finding::TooFewReplicas { wanted: 1, connected: 0 },
            ]
        );
        assert!(findings[0].is_fatal() && !findings[1].is_fatal());
    }
}
