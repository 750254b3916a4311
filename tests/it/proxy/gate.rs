//! The real gateway inside the test's own process, on a port of its own.

use std::{fmt::Write, net::SocketAddr};

use oncegate::{
    config::Config,
    server::{Drained, Server},
};

use super::{
    shop::Shop,
    wire::{Message, Wire},
};

pub(super) struct Gate {
    server: Option<Server>,
    pub(super) address: SocketAddr,
    pub(super) admin: SocketAddr,
}

/// A configuration with one guarded route for `POST /order`, one for `GET /back`, and everything else passed through.
pub(super) struct Typed {
    pub(super) address: String,
    pub(super) listener: String,
    pub(super) servers: Vec<SocketAddr>,
    pub(super) upstream: String,
    pub(super) guard: String,
    pub(super) admin: String,
    pub(super) limits: String,
    pub(super) runtime: String,
    pub(super) store: String,
    pub(super) log: String,
}

impl Typed {
    pub(super) fn before(shop: &Shop) -> Self {
        Self::before_all(&[shop])
    }

    pub(super) fn before_all(shops: &[&Shop]) -> Self {
        Self {
            address: "127.0.0.1:0".to_owned(),
            listener: String::new(),
            servers: shops.iter().map(|shop| shop.address).collect(),
            upstream: String::new(),
            guard: String::new(),
            admin: String::new(),
            limits: String::new(),
            runtime: "workers = 2".to_owned(),
            store: String::new(),
            log: "level = \"error\"\naccess = false".to_owned(),
        }
    }

    pub(super) fn text(&self) -> String {
        let Self { address, listener, servers, upstream, guard, admin, limits, runtime, store, log } = self;
        let mut shown = String::new();
        for server in servers {
            write!(shown, "\"http://{server}\", ").expect("a text takes everything");
        }
        format!(
            "[[listener]]\naddress = \"{address}\"\n{listener}\n\
             [[upstream]]\nname = \"shop\"\nservers = [{shown}]\n{upstream}\n\
             [[route]]\nname = \"order\"\nupstream = \"shop\"\n\
             match = {{ methods = [\"POST\"], path = \"/order\" }}\n\
             [route.guard]\nmode = \"once\"\norder = [\"query:id\"]\nidentity = \"none\"\n{guard}\n\
             [[route]]\nname = \"back\"\nupstream = \"shop\"\nmatch = {{ methods = [\"GET\"], path = \"/back\" }}\n\
             [route.guard]\nmode = \"serial\"\norder = [\"query:id\"]\n\
             [[route]]\nname = \"rest\"\nupstream = \"shop\"\n\
             [admin]\nlisten = \"127.0.0.1:0\"\n{admin}\n\
             [limits]\n{limits}\n[runtime]\n{runtime}\n[store]\n{store}\n[log]\n{log}\n"
        )
    }
}

impl Gate {
    pub(super) fn before(shop: &Shop) -> Self {
        Self::start(&Typed::before(shop))
    }

    pub(super) fn start(typed: &Typed) -> Self {
        Self::changed(typed, |_| {})
    }

    /// `change` sets what cannot be typed, such as patiences below a second.
    pub(super) fn changed(typed: &Typed, change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().expect("there is a place for files");
        let path = folder.path().join("oncegate.toml");
        std::fs::write(&path, typed.text()).expect("the place is ours");
        let mut config = match Config::load_with(&path, &|_| None) {
            Ok(checked) => checked.config,
            Err(problems) => panic!("{}", problems.lines()),
        };
        change(&mut config);
        let server = Server::start(config).expect("it starts");
        // A listener on a socket file has no address of this kind, and its test does not ask for one.
        let address = server.addresses[0].parse().unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0)));
        let admin =
            server.admin_address.as_ref().and_then(|text| text.parse().ok()).expect("it has an admin");
        Self { server: Some(server), address, admin }
    }

    pub(super) fn client(&self) -> Wire {
        Wire::connect(self.address)
    }

    pub(super) fn look(&self, target: &str) -> Message {
        look(self.admin, target)
    }

    /// The value of a metric without labels.
    pub(super) fn metric(&self, name: &str) -> i64 {
        metric(&self.look("/metrics").text(), name)
    }

    pub(super) fn drain(mut self, hurry: impl Fn() -> bool) -> Drained {
        self.server.take().expect("it is taken at the end only").drain(hurry)
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            let _ = server.drain(|| true);
        }
    }
}

/// Asks an operators' listener.
pub(super) fn look(admin: SocketAddr, target: &str) -> Message {
    Wire::connect(admin).ask(format!("GET {target} HTTP/1.1\r\nHost: {admin}\r\n\r\n"))
}

pub(super) fn metric(page: &str, name: &str) -> i64 {
    let line =
        page.lines().find_map(|line| line.strip_prefix(name).filter(|rest| rest.starts_with([' ', '{'])));
    let value = line.and_then(|line| line.rsplit(' ').next());
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name} in\n{page}"))
}

/// A request that a guard takes for an order.
pub(super) fn order(id: &str, body: &str) -> String {
    format!(
        "POST /order?id={id} HTTP/1.1\r\nHost: shop.example\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

pub(super) fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: shop.example\r\n\r\n")
}
