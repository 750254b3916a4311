//! Which route a request takes: the pure part, the same for the gate and for `oncegate explain`.
//!
//! It reads no body: it stops and asks for it, and whoever asked goes on with it.

use std::time::Duration;

use http::request::Parts;

use crate::{
    config::{Enforce, Guard, Route},
    request::{View, body::Content},
    route::{
        matcher::{BodyMatch, Head, Hit},
        path::Readings,
    },
};

/// Where a search has come to.
#[derive(Debug)]
pub enum Step {
    /// This route takes the request.
    Takes(usize, Hit),
    NoRoute,
    /// The conditions of this route need the body: go on with it.
    NeedsBody(usize),
    /// A guarded route asks for something in a body that cannot be read.
    Unreadable {
        route: usize,
        what: String,
    },
}

/// Why a route does not take a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Passed {
    /// A condition on the head does not hold.
    Head,
    /// A condition on the body does not hold, or is about a body that cannot be read.
    Body,
    /// The path has several readings, and a route without a guard before this one takes the plain one.
    LaterUnguarded,
}

/// A search for the first route that matches.
///
/// A path that backends may read in several ways takes an unguarded route only by its plain reading, and only if
/// none of the spellings leads to a guarded route: a guard cannot be walked around by spelling.
pub struct Search<'a> {
    routes: &'a [Route],
    parts: &'a Parts,
    host: &'a str,
    readings: &'a Readings,
    /// Where the path is not plain: its primary reading alone, and without aliases.
    narrower: Option<(Readings, Readings)>,
    next: usize,
    unguarded: Option<(usize, Hit)>,
}

impl<'a> Search<'a> {
    #[must_use]
    pub fn new(routes: &'a [Route], parts: &'a Parts, host: &'a str, readings: &'a Readings) -> Self {
        let narrower =
            (!readings.is_plain()).then(|| (Readings::only(&readings.path), readings.without_aliases()));
        Self { routes, parts, host, readings, narrower, next: 0, unguarded: None }
    }

    /// Goes on to the next thing that somebody else has to do. `content` is the body, once it has been read; `passed`
    /// is told of every route that does not take the request.
    pub fn go_on(&mut self, content: Option<&Content>, mut passed: impl FnMut(usize, Passed)) -> Step {
        while let Some(route) = self.routes.get(self.next) {
            let number = self.next;
            let readings = match (&self.narrower, &route.guard, &self.unguarded) {
                (None, _, _) | (Some(_), Some(_), None) => self.readings,
                (Some((only, _)), None, None) => only,
                // An operator who names an alias in a route without a guard means it; a spelling nobody means.
                (Some((_, spelled)), Some(_), Some(_)) => spelled,
                (Some(_), None, Some(_)) => {
                    passed(number, Passed::LaterUnguarded);
                    self.next += 1;
                    continue;
                }
            };
            let view = view(self.parts, self.host, &readings.path, &[]);
            let found = match (route.matcher.head(&view, readings), content) {
                (Head::No, _) => Err(Passed::Head),
                (Head::Yes(hit), _) => Ok(hit),
                (Head::AfterBody(_), None) => return Step::NeedsBody(number),
                (Head::AfterBody(hit), Some(content)) => match route.matcher.body(&view, readings, content) {
                    BodyMatch::Yes => Ok(hit),
                    BodyMatch::Unreadable(what) if is_enforced(route) => {
                        return Step::Unreadable { route: number, what };
                    }
                    BodyMatch::No | BodyMatch::Unreadable(_) => Err(Passed::Body),
                },
            };
            self.next += 1;
            match found {
                Err(why) => passed(number, why),
                Ok(hit) if route.guard.is_some() || self.narrower.is_none() => {
                    return Step::Takes(number, hit);
                }
                Ok(hit) => self.unguarded = Some((number, hit)),
            }
        }
        self.unguarded.take().map_or(Step::NoRoute, |(number, hit)| Step::Takes(number, hit))
    }

    /// The route that needs the body does not get it: without any guard there is no bound to read one by.
    pub fn pass_over(&mut self) {
        self.next += 1;
    }
}

/// By what bounds a body is read.
pub struct Bounds {
    pub body_bytes_max: usize,
    pub decoded_bytes_max: usize,
    pub timeout: Duration,
}

impl Bounds {
    #[must_use]
    pub fn of(guard: &Guard) -> Self {
        let timeout = match guard.enforce {
            Enforce::Yes => guard.body_timeout,
            Enforce::Observe => OBSERVED_BODY,
        };
        Self { body_bytes_max: guard.body_max, decoded_bytes_max: guard.decoded_max, timeout }
    }

    /// For a body that is read before it is known whose it is: a narrow route must not refuse what a wider one takes.
    /// How slowly it may come is up to the guards that are enforced, where the route that asks for it is one of them.
    #[must_use]
    pub fn widest(routes: &[Route], asking: usize) -> Option<Self> {
        let guards = || routes.iter().filter_map(|route| route.guard.as_ref());
        let widest = guards().map(Self::of).reduce(|one, other| Self {
            body_bytes_max: one.body_bytes_max.max(other.body_bytes_max),
            decoded_bytes_max: one.decoded_bytes_max.max(other.decoded_bytes_max),
            timeout: one.timeout.max(other.timeout),
        })?;
        let timeout = match is_enforced(&routes[asking]) {
            false => widest.timeout,
            true => {
                let enforced = guards().filter(|guard| guard.enforce == Enforce::Yes);
                enforced.map(|guard| guard.body_timeout).max().unwrap_or(widest.timeout)
            }
        };
        Some(Self { timeout, ..widest })
    }
}

/// A body that is only observed may come as slowly as any other; `limits.body_timeout` bounds its pauses.
const OBSERVED_BODY: Duration = Duration::from_secs(24 * 60 * 60);

/// What is only observed is refused nothing.
pub fn is_enforced(route: &Route) -> bool {
    route.guard.as_ref().is_some_and(|guard| guard.enforce == Enforce::Yes)
}

/// A request as rules and guards read it.
#[must_use]
pub fn view<'a>(parts: &'a Parts, host: &'a str, path: &'a str, params: &'a [(String, String)]) -> View<'a> {
    View {
        method: &parts.method,
        host,
        path,
        query: parts.uri.query().unwrap_or(""),
        headers: &parts.headers,
        params,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{config::Config, request, route::path};

    /// A route without a guard before the guarded one, and one that has to see the body.
    const ROUTES: &str = r#"
        listener = [{ address = "127.0.0.1:0" }]
        upstream = [{ name = "shop", servers = ["http://127.0.0.1:1"] }]
        [[route]]
        name = "static"
        upstream = "shop"
        match = { path = "/static/{rest}" }
        [[route]]
        name = "pay"
        upstream = "shop"
        match = { methods = ["POST"], path = "/index", form = { pay = "*" } }
        guard = { mode = "once", order = ["form:order"], identity = "none" }
        [[route]]
        name = "checkout"
        upstream = "shop"
        match = { methods = ["POST"], path = "/checkout" }
        guard = { mode = "once", order = ["form:order"], identity = "none" }
        [[route]]
        name = "rest"
        upstream = "shop"
    "#;

    #[test]
    fn what_is_only_observed_does_not_give_an_enforced_route_more_time() {
        let text = ROUTES.replace(
            r#"match = { methods = ["POST"], path = "/checkout" }
        guard = {"#,
            r#"match = { methods = ["POST"], path = "/checkout" }
        guard = { enforce = false,"#,
        );
        let routes = Config::from_text("test", text).unwrap().config.routes;
        let enforced = routes[1].guard.as_ref().unwrap();
        assert!(!is_enforced(&routes[2]));
        assert_eq!(Bounds::widest(&routes, 1).unwrap().timeout, enforced.body_timeout);
        assert_eq!(Bounds::widest(&routes, 2).unwrap().timeout, OBSERVED_BODY);
    }

    /// The name of the route that is taken, and the ones that were not.
    fn search(target: &str, form: &'static str) -> (String, Vec<(usize, Passed)>) {
        let config = Config::from_text("test", ROUTES.to_owned()).unwrap().config;
        let kind = "application/x-www-form-urlencoded";
        let request = http::Request::post(target).header("content-type", kind).body(()).unwrap();
        let (parts, ()) = request.into_parts();
        let readings = path::read(parts.uri.path());
        let mut search = Search::new(&config.routes, &parts, "shop.example", &readings);
        let mut passed = Vec::new();
        let content = request::body::read(&parts.headers, &Bytes::from_static(form.as_bytes()), 1 << 20);
        let mut step = search.go_on(None, |route, why| passed.push((route, why)));
        if let Step::NeedsBody(_) = step {
            step = search.go_on(Some(&content), |route, why| passed.push((route, why)));
        }
        let name = match step {
            Step::Takes(route, _) => config.routes[route].name.clone(),
            other @ (Step::NoRoute | Step::NeedsBody(_) | Step::Unreadable { .. }) => format!("{other:?}"),
        };
        (name, passed)
    }

    #[test]
    fn the_first_route_that_matches_takes_the_request_and_the_others_say_why_not() {
        assert_eq!(search("/static/x", ""), ("static".to_owned(), vec![]));
        let (name, passed) = search("/index", "pay=1&order=7");
        assert_eq!((name.as_str(), passed), ("pay", vec![(0, Passed::Head)]));
        let (name, passed) = search("/index", "order=7");
        assert_eq!(name, "rest");
        assert_eq!(passed, [(0, Passed::Head), (1, Passed::Body), (2, Passed::Head)]);
    }

    #[test]
    fn a_spelling_of_a_guarded_path_is_not_taken_by_an_unguarded_route_before_it() {
        assert_eq!(search("/static/..%2fcheckout", "order=7").0, "checkout");
        assert_eq!(search("/static/..;/checkout", "order=7").0, "checkout");
        assert_eq!(
            search("/static/..%252fcheckout", "order=7").0,
            "checkout",
            "to a server that decodes twice"
        );
        assert_eq!(search("/x/..%252fcheckout", "order=7").0, "checkout", "and no route matched before");
        assert_eq!(search("/static/a%252fb", "").0, "static");
        assert_eq!(search("/static/a%20b", "").0, "static");
    }

    #[test]
    fn a_body_that_cannot_be_read_is_no_way_around_a_guard() {
        let (name, _) = search("/index", "pay[a=1&pay=2");
        assert!(name == "pay" || name.starts_with("Unreadable"), "{name}");
    }
}
