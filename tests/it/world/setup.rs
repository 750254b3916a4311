//! Configurations of the world: one that most tests use, and the lines in which a test differs from it.

use std::{fs, path::PathBuf};

use oncegate::config::Config;

/// A configuration file in parts.
#[derive(Clone)]
pub(crate) struct Setup {
    store: String,
    upstream: String,
    limits: String,
    checkout: String,
    first: String,
    last: String,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            store: String::new(),
            upstream: "answer_timeout = \"300s\"".to_owned(),
            limits: String::new(),
            checkout: String::new(),
            first: String::new(),
            last: String::new(),
        }
    }
}

impl Setup {
    /// More lines of the guard of `POST /checkout`: mode `once`, order `form:order`, identity `cookie:session`.
    pub(crate) fn checkout(mut self, lines: &str) -> Self {
        self.checkout = lines.to_owned();
        self
    }

    /// Lines of the upstream in the place of `answer_timeout = "300s"`.
    pub(crate) fn upstream(mut self, lines: &str) -> Self {
        self.upstream = lines.to_owned();
        self
    }

    pub(crate) fn limits(mut self, lines: &str) -> Self {
        self.limits = lines.to_owned();
        self
    }

    pub(crate) fn store(mut self, lines: &str) -> Self {
        self.store = lines.to_owned();
        self
    }

    /// A route before all others: `POST` to a path, with the lines of its guard.
    pub(crate) fn route(mut self, name: &str, path: &str, guard: &str) -> Self {
        self.first.push_str(&format!(
            "[[route]]\nname = \"{name}\"\nupstream = \"shop\"\n\
             [route.match]\nmethods = [\"POST\"]\npath = \"{path}\"\n[route.guard]\n{guard}\n"
        ));
        self
    }

    /// The routes before all others so far take requests of another method.
    pub(crate) fn method(mut self, method: &str) -> Self {
        self.first = self.first.replace("\"POST\"", &format!("\"{method}\""));
        self
    }

    /// The same for forms that have a field `pay`.
    pub(crate) fn route_by_form(mut self, name: &str, path: &str, guard: &str) -> Self {
        self = self.route(name, path, guard);
        self.first = self.first.replace("[route.guard]", "form = { pay = \"*\" }\n[route.guard]");
        self
    }

    /// A `[[renew]]` section by the session cookie.
    pub(crate) fn renew(mut self, on: &str) -> Self {
        self.last
            .push_str(&format!("[[renew]]\nupstream = \"shop\"\nidentity = [\"cookie:session\"]\n{on}\n"));
        self
    }

    fn text(&self) -> String {
        let Self { store, upstream, limits, checkout, first, last } = self;
        format!(
            r#"
[[listener]]
address = "127.0.0.1:8080"

[store]
secret = "not a secret: sixteen bytes and more"
{store}

[limits]
{limits}

[[upstream]]
name = "shop"
servers = ["http://shop-1:80", "http://shop-2:80"]
{upstream}

{first}

[[route]]
name = "checkout"
upstream = "shop"
[route.match]
methods = ["POST"]
path = "/checkout"
[route.guard]
mode = "once"
order = ["form:order"]
identity = ["cookie:session"]
{checkout}

# A provider's callback: events with an id, no session.
[[route]]
name = "callback"
upstream = "shop"
[route.match]
methods = ["POST"]
path = "/callback"
[route.guard]
mode = "once"
order = ["json:/order"]
event = ["json:/id"]
identity = "none"

# A thin notification.
[[route]]
name = "notify"
upstream = "shop"
[route.match]
methods = ["POST"]
path = "/notify"
[route.guard]
mode = "signal"
order = ["form:order"]
identity = "none"

# The browser's way back.
[[route]]
name = "return"
upstream = "shop"
[route.match]
methods = ["GET", "POST"]
path = "/return"
[route.guard]
mode = "serial"
order = ["query:order"]

[[route]]
name = "pages"
upstream = "shop"

{last}
"#
        )
    }

    /// By the real parser, from a real file.
    pub(crate) fn parse(&self) -> Config {
        let folder = tempfile::tempdir().expect("a folder for a file");
        let path: PathBuf = folder.path().join("oncegate.toml");
        fs::write(&path, self.text()).expect("a file for a configuration");
        match Config::load_with(&path, &|_| None) {
            Ok(checked) => checked.config,
            Err(problems) => panic!("{}\n{}", problems.lines(), self.text()),
        }
    }
}
