//! Which certificate a client is shown: the one for the name that it asks for (SNI, RFC 6066 section 3).

use std::{collections::HashMap, sync::Arc};

use rustls::{
    SignatureScheme,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::files::Shown;

/// Several certificates may be for one name: which of them holds depends on the signatures that the client knows, so
/// that an RSA one can stand beside an ECDSA one.
type Keys = Vec<Arc<CertifiedKey>>;

#[derive(Debug)]
pub(super) struct Names {
    exact: HashMap<String, Keys>,
    /// By what stands behind `*.`.
    wildcard: HashMap<String, Keys>,
    /// In the order of the configuration: the first is for clients that name no server, or an unknown one.
    all: Keys,
}

impl Names {
    pub(super) fn new(certificates: Vec<Shown>) -> Self {
        let mut names = Self { exact: HashMap::new(), wildcard: HashMap::new(), all: Vec::new() };
        for Shown { key, names: named } in certificates {
            for name in named {
                let keys = match name.strip_prefix("*.") {
                    Some(rest) => names.wildcard.entry(rest.to_owned()),
                    None => names.exact.entry(name),
                };
                keys.or_default().push(Arc::clone(&key));
            }
            names.all.push(key);
        }
        names
    }

    /// An exact name before a wildcard, which stands for one label and no more (RFC 9525 section 6.3).
    fn keys(&self, name: Option<&str>) -> &Keys {
        let Some(name) = name.map(str::to_ascii_lowercase) else { return &self.all };
        let below = || name.split_once('.').and_then(|(_, rest)| self.wildcard.get(rest));
        self.exact.get(&name).or_else(below).unwrap_or(&self.all)
    }
}

impl ResolvesServerCert for Names {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        choose(self.keys(hello.server_name()), hello.signature_schemes())
    }
}

/// The first that the client can verify; where there is none, the first: rustls says then what is wrong.
fn choose(keys: &Keys, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
    let fitting = keys.iter().find(|key| key.key.choose_scheme(schemes).is_some());
    fitting.or(keys.first()).cloned()
}
