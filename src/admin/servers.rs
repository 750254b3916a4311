//! The shop's servers, for an operator: what each is doing, and taking one out of service before it is worked on.

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::orders::question::cannot_be_forged;
use crate::{
    gate::Gate,
    ops::log::Level,
    upstream::{
        Fleet,
        fleet::{Role, Service},
    },
};

/// Why there is no answer, or nothing was done.
#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error(
        "there are GET /upstreams, POST /upstreams/NAME/servers/ADDRESS/drain and POST /upstreams/NAME/servers/ADDRESS/restore"
    )]
    Path,
    #[error("`{0}` is not for this: GET looks, POST changes")]
    Method(Method),
    #[error(
        "a change needs `Content-Type: application/json` or a header `Oncegate-Operator`, which a web page cannot send"
    )]
    Forgeable,
    #[error("there is no such upstream, or it has no such server; GET /upstreams lists them")]
    Unknown,
}

impl Problem {
    fn status(&self) -> StatusCode {
        match self {
            Self::Path | Self::Unknown => StatusCode::NOT_FOUND,
            Self::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::Forgeable => StatusCode::FORBIDDEN,
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Path => "no-such-path",
            Self::Unknown => "unknown-server",
            Self::Method(_) => "wrong-method",
            Self::Forgeable => "header-needed",
        }
    }
}

/// Whether a path is answered here.
pub(super) fn are_asked_for(path: &str) -> bool {
    path == "/upstreams" || path.starts_with("/upstreams/")
}

/// Answers who may ask; the caller has seen to that.
pub(super) fn answer<B>(gate: &Gate, request: &Request<B>) -> Response<Bytes> {
    let (status, told) = match find_out(gate, request) {
        Ok(told) => (StatusCode::OK, told),
        Err(problem) => {
            (problem.status(), json!({ "error": problem.name(), "message": problem.to_string() }))
        }
    };
    let mut response = Response::new(Bytes::from(format!("{told:#}\n")));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn find_out<B>(gate: &Gate, request: &Request<B>) -> Result<Value, Problem> {
    let path = request.uri().path();
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    match (parts.as_slice(), request.method()) {
        (["upstreams"], &Method::GET | &Method::HEAD) => Ok(list(gate)),
        (["upstreams", name, "servers", address, word @ ("drain" | "restore")], &Method::POST) => {
            if !cannot_be_forged(request.headers()) {
                return Err(Problem::Forgeable);
            }
            let service = if *word == "drain" { Service::Drained } else { Service::In };
            change(gate, name, address, service)
        }
        (["upstreams"] | ["upstreams", _, "servers", _, "drain" | "restore"], other) => {
            Err(Problem::Method(other.clone()))
        }
        _ => Err(Problem::Path),
    }
}

fn list(gate: &Gate) -> Value {
    let upstreams = gate.config.upstreams.iter().zip(&gate.fleets);
    let shown =
        upstreams.map(|(upstream, fleet)| json!({ "name": upstream.name, "servers": servers(fleet) }));
    json!({ "upstreams": shown.collect::<Vec<_>>() })
}

fn servers(fleet: &Fleet) -> Vec<Value> {
    (0..fleet.len())
        .filter_map(|server| {
            let shown = fleet.shown(server)?;
            Some(json!({
                "server": shown.settings.address,
                "condition": shown.condition.as_str(),
                "weight": shown.settings.weight,
                "backup": shown.settings.role == Role::Backup,
                "connections_max": shown.settings.connections_max,
                "at_work": shown.at_work,
                "waiting": shown.waiting,
                "check": fleet.checked(server),
            }))
        })
        .collect()
}

fn change(gate: &Gate, name: &str, address: &str, service: Service) -> Result<Value, Problem> {
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let (name, address) = (decoded(name), decoded(address));
    let upstream = gate.config.upstreams.iter().position(|one| one.name == name).ok_or(Problem::Unknown)?;
    let fleet = &gate.fleets[upstream];
    let server = (0..fleet.len()).find(|&one| fleet.address(one) == address).ok_or(Problem::Unknown)?;
    fleet.set_service(server, service);
    let word = match service {
        Service::Drained => "drained",
        Service::In => "restored",
    };
    let fields = [("upstream", name.as_str()), ("server", &address), ("by", "operator")];
    gate.log.event(Level::Info, word, &fields);
    Ok(list(gate))
}
