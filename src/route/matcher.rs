//! Which requests a rule is about.
//!
//! A guarded rule has to take in every request that some shop could take for what the rule names. So a rule *leans*
//! to yes: a parameter that stands twice matches with either value, a path matches under any reading, a method is also
//! what an override says. Inside `not` it is the other way round: a condition excludes only what it certainly is
//! about. Nothing here reads a body, refuses a request, or changes one.

mod compile;
mod rule;

use std::cell::OnceCell;

use self::rule::{Fields, Leaning, Rule, Sight, Truth};
use super::path::{Doubt, Readings};
pub use super::pattern::{Pattern, PatternError};
use crate::request::{View, body::Content};

/// What a rule says, as it was typed. All conditions must hold; an empty one always does.
#[derive(Default, Clone, Debug)]
pub struct Spec {
    /// In any case. `GET` takes in `HEAD`, which a shop answers by running the same code.
    pub methods: Vec<String>,
    /// `shop.example`, or `*.shop.example` for one or more labels before it.
    pub hosts: Vec<String>,
    pub path: Option<PathSpec>,
    pub query: Vec<(String, Pattern)>,
    pub headers: Vec<(String, Pattern)>,
    /// A `*` at the end of a name takes every name that begins so.
    pub cookies: Vec<(String, Pattern)>,
    pub form: Vec<(String, Pattern)>,
    pub json: Vec<(String, Pattern)>,
    /// Whatever a source can read, by the source's text: `xml:/order/@id`, `form:custom|json:/order_id`.
    pub sources: Vec<(String, Pattern)>,
    /// Root fields of the mutation that the request selects; `*` is any.
    pub graphql_mutation: Vec<String>,
    /// `application/json`, or `multipart/*`.
    pub content_type: Vec<String>,
    pub not: Option<Box<Spec>>,
}

#[derive(Clone, Debug)]
pub enum PathSpec {
    /// `/rest/{store?}/V1/guest-carts/{cart}`; see the README.
    Template(String),
    /// Found anywhere in the path unless it is anchored; ASCII case does not count.
    Regex(String),
}

/// What is wrong with a rule, and where: `path`, `query.wc-ajax`, `not.headers.x-y`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub field: String,
    pub message: String,
}

/// What can be said before the body is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Head {
    No,
    Yes(Hit),
    /// All that can be judged holds; [`Matcher::body`] says the rest.
    AfterBody(Hit),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    /// What the path captured, by name.
    pub params: Vec<(String, String)>,
    /// The path has no safe reading: a guarded route refuses the request.
    pub doubt: Option<Doubt>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BodyMatch {
    No,
    Yes,
    /// A condition is about a body that could not be read, and why.
    Unreadable(String),
}

/// A rule, ready to be asked.
#[derive(Clone, Debug)]
pub struct Matcher {
    rule: Rule,
}

impl Matcher {
    /// # Errors
    /// All problems of the rule at once.
    pub fn new(spec: &Spec) -> Result<Self, Vec<Problem>> {
        Rule::compile(spec).map(|rule| Self { rule })
    }

    /// Judges all that stands in the head. `view.path` is the primary reading in `readings`.
    #[must_use]
    pub fn head(&self, view: &View<'_>, readings: &Readings) -> Head {
        let sight = Sight { view, readings, pairs: OnceCell::new(), body: None };
        match self.rule.judge(&sight, Leaning::Yes) {
            Truth::No => Head::No,
            Truth::Yes => Head::Yes(self.hit(readings)),
            Truth::Open | Truth::Unreadable(_) => Head::AfterBody(self.hit(readings)),
        }
    }

    /// Judges the whole rule again, now with the body.
    #[must_use]
    pub fn body(&self, view: &View<'_>, readings: &Readings, content: &Content) -> BodyMatch {
        self.with_fields(view, readings, content)
    }

    /// The kind of condition that turns a request away, for an explanation; `None` where nothing does.
    #[must_use]
    pub fn turned_away_by(
        &self,
        view: &View<'_>,
        readings: &Readings,
        content: Option<&Content>,
    ) -> Option<&'static str> {
        let body = content.map(|content| content as &dyn Fields);
        self.rule.turned_away_by(&Sight { view, readings, pairs: OnceCell::new(), body })
    }

    fn with_fields(&self, view: &View<'_>, readings: &Readings, body: &dyn Fields) -> BodyMatch {
        let sight = Sight { view, readings, pairs: OnceCell::new(), body: Some(body) };
        match self.rule.judge(&sight, Leaning::Yes) {
            Truth::Yes => BodyMatch::Yes,
            // With a body at hand nothing stays open.
            Truth::No | Truth::Open => BodyMatch::No,
            Truth::Unreadable(why) => BodyMatch::Unreadable(why),
        }
    }

    /// The captures come from the first reading that matches. An alias goes before them, since `/orders/7.json` is
    /// order 7 to a shop that knows the suffix, and one lane too few is the safe mistake. If spellings match
    /// with different captures, nobody can say which order is meant.
    fn hit(&self, readings: &Readings) -> Hit {
        let Some(template) = &self.rule.path else {
            return Hit { params: Vec::new(), doubt: readings.doubt };
        };
        let mut spelled = std::iter::once(&readings.path)
            .chain(readings.spellings())
            .filter_map(|path| template.captures(path));
        let alias = readings.aliases().iter().find_map(|path| template.captures(path));
        let first = spelled.next();
        let divided =
            first.as_ref().is_some_and(|first| spelled.any(|params| !same_captures(first, &params)));
        let doubt = readings.doubt.or(divided.then_some(Doubt::Divided));
        Hit { params: alias.or(first).unwrap_or_default(), doubt }
    }
}

/// `;parameters` are set aside by the promise, so a reading that keeps them says nothing new.
fn same_captures(one: &[(String, String)], other: &[(String, String)]) -> bool {
    let bare = |value: &str| value.split(';').next().unwrap_or_default().to_owned();
    one.len() == other.len()
        && one.iter().zip(other).all(|(one, other)| one.0 == other.0 && bare(&one.1) == bare(&other.1))
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue, Method};
    use smallvec::smallvec;

    use super::*;
    use crate::{
        request::{
            graphql::Carries,
            source::{Kind, Lookup, Source, Value},
        },
        route::path,
    };

    fn spec(methods: &[&str], template: &str) -> Spec {
        Spec {
            methods: methods.iter().map(|method| (*method).to_owned()).collect(),
            path: (!template.is_empty()).then(|| PathSpec::Template(template.to_owned())),
            ..Spec::default()
        }
    }

    fn when(name: &str, pattern: &str) -> Vec<(String, Pattern)> {
        vec![(name.to_owned(), Pattern::parse(pattern).unwrap())]
    }

    fn texts(values: &[&str]) -> Vec<String> {
        values.iter().map(|value| (*value).to_owned()).collect()
    }

    /// `POST /path?query` and header lines.
    fn ask<T>(request: &str, headers: &[(&str, &str)], judge: impl Fn(&View<'_>, &Readings) -> T) -> T {
        let (method, target) = request.split_once(' ').unwrap();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        let host = map.get("host").map_or("shop.example", |value| value.to_str().unwrap()).to_owned();
        let readings = path::read(path);
        let view =
            View { method: &method, host: &host, path: &readings.path, query, headers: &map, params: &[] };
        judge(&view, &readings)
    }

    fn head(spec: &Spec, request: &str, headers: &[(&str, &str)]) -> Head {
        let matcher = Matcher::new(spec).unwrap();
        ask(request, headers, |view, readings| matcher.head(view, readings))
    }

    fn yes(spec: &Spec, request: &str, headers: &[(&str, &str)]) -> bool {
        matches!(head(spec, request, headers), Head::Yes(_))
    }

    fn no(spec: &Spec, request: &str, headers: &[(&str, &str)]) -> bool {
        head(spec, request, headers) == Head::No
    }

    fn after_body(spec: &Spec, request: &str, headers: &[(&str, &str)]) -> bool {
        matches!(head(spec, request, headers), Head::AfterBody(_))
    }

    /// A body whose every form field is `form` and whose every member is `json`.
    struct Body {
        form: Lookup,
        json: Lookup,
    }

    impl Fields for Body {
        fn form(&self, _: &str) -> Lookup {
            self.form.clone()
        }

        fn json(&self, _: &str) -> Lookup {
            self.json.clone()
        }

        fn source(&self, _: &Source, _: &View<'_>) -> Lookup {
            self.json.clone()
        }

        fn mutation(&self, _: &[String], _: &View<'_>) -> Carries {
            Carries::No
        }
    }

    fn found(value: &str) -> Lookup {
        Lookup::Found(smallvec![Value { bytes: value.as_bytes().to_vec(), kind: Kind::Text }])
    }

    fn form(lookup: Lookup) -> Body {
        Body { form: lookup, json: Lookup::Absent }
    }

    fn with_body(spec: &Spec, request: &str, headers: &[(&str, &str)], body: &Body) -> BodyMatch {
        let matcher = Matcher::new(spec).unwrap();
        ask(request, headers, |view, readings| matcher.with_fields(view, readings, body))
    }

    const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded; charset=utf-8");

    fn with_content(spec: &Spec, request: &str, headers: &[(&str, &str)], body: &str) -> BodyMatch {
        let matcher = Matcher::new(spec).unwrap();
        let body = bytes::Bytes::copy_from_slice(body.as_bytes());
        ask(request, headers, |view, readings| {
            let content = crate::request::body::read(view.headers, &body, 1 << 20);
            matcher.body(view, readings, &content)
        })
    }

    const JSON: (&str, &str) = ("content-type", "application/json");

    #[test]
    fn a_mutation_is_asked_for_by_its_root_field_and_certainly_excluded_only_where_it_is_all() {
        let place = Spec { graphql_mutation: texts(&["placeOrder"]), ..spec(&["POST"], "/graphql") };
        let matched = |body: &str| with_content(&place, "POST /graphql", &[JSON], body);
        assert!(after_body(&place, "POST /graphql", &[JSON]));
        assert_eq!(matched(r#"{"query":"mutation { placeOrder { a } b }"}"#), BodyMatch::Yes);
        assert_eq!(matched(r#"{"query":"{ products(search: \"placeOrder\") { a } }"}"#), BodyMatch::No);
        assert!(matches!(matched(r#"{"query":"mutation { placeOrder"}"#), BodyMatch::Unreadable(_)));
        let reads = Spec {
            not: Some(Box::new(Spec { graphql_mutation: texts(&["*"]), ..Spec::default() })),
            ..spec(&["POST"], "/graphql")
        };
        let read = |body: &str| with_content(&reads, "POST /graphql", &[JSON], body);
        assert_eq!(read(r#"{"query":"{ cart { id } }"}"#), BodyMatch::Yes);
        assert_eq!(read(r#"{"query":"mutation { a }"}"#), BodyMatch::No);
        assert_eq!(
            read(r#"[{"query":"mutation { a }"},{"query":"{ b }"}]"#),
            BodyMatch::Yes,
            "not certainly one"
        );
    }

    #[test]
    fn a_source_is_asked_wherever_it_leads() {
        let sources =
            |text: &str, pattern: &str| Spec { sources: when(text, pattern), ..spec(&["POST"], "") };
        let custom = sources("form:custom|json:/order_id", "~^[0-9]+$");
        let matched = |body: &str| with_content(&custom, "POST /", &[FORM], body);
        assert_eq!(matched("custom=%7B%22order_id%22%3A7%7D"), BodyMatch::Yes);
        assert_eq!(matched("custom=%7B%22order_id%22%3A%22x%22%7D"), BodyMatch::No);
        assert_eq!(matched("custom=text"), BodyMatch::No);
        assert!(matches!(matched("custom=%7B"), BodyMatch::Unreadable(_)));
        let xml = sources("xml:/order/@id", "*");
        let body = |body: &str| with_content(&xml, "POST /", &[("content-type", "text/xml")], body);
        assert_eq!((body("<order id='7'/>"), body("<order/>")), (BodyMatch::Yes, BodyMatch::No));
        let cart = sources("header:cart-token|jwt:user_id", "*");
        assert!(yes(&cart, "POST /", &[("cart-token", "a.eyJ1c2VyX2lkIjo3fQ.b")]), "it needs no body");
        assert!(no(&cart, "POST /", &[]));
        let wrong = Matcher::new(&sources("path:cart", "*")).unwrap_err();
        assert_eq!(wrong[0].field, "sources.path:cart");
        let wrong = Spec { graphql_mutation: texts(&["place order", "*"]), ..Spec::default() };
        assert_eq!(Matcher::new(&wrong).unwrap_err().len(), 1);
    }

    /// Ways to write `/checkout` that at least one kind of server takes for it.
    const SPELLINGS: [&str; 77] = [
        "/checkout",
        "/checkout/",
        "/checkout//",
        "//checkout",
        "///checkout",
        "/./checkout",
        "/checkout/.",
        "/checkout/./",
        "/.//checkout",
        "/x/../checkout",
        "/x/y/../../checkout",
        "/../checkout",
        "/checkout/x/..",
        "/%2e/checkout",
        "/x/%2e%2e/checkout",
        "/x/.%2e/checkout",
        "/x/%2E./checkout",
        "/%2fcheckout",
        "/%2Fcheckout",
        "/checkout%2f",
        "%2fcheckout",
        "/x%2f..%2fcheckout",
        "/x/..%2fcheckout",
        "/%2e%2fcheckout",
        "/Checkout",
        "/CHECKOUT",
        "/chEckOut/",
        "/%63heckout",
        "/%43heckout",
        "/checkou%74",
        "/%63%68%65%63%6b%6f%75%74",
        "/checkout;",
        "/checkout;x",
        "/checkout;x=y",
        "/checkout;jsessionid=1/",
        "/;x/checkout",
        "/x/..;/checkout",
        "/x/..;a=b/checkout",
        "/x;/../checkout",
        "/checkout%3b",
        "/checkout%3Bx=y",
        "/x/..%3b/checkout",
        "/checkout%00",
        "/checkout%00.png",
        "/checkout/%00",
        "/%00checkout",
        "\\checkout",
        "/\\checkout",
        "/x\\..\\checkout",
        "/%5ccheckout",
        "/checkout%5C",
        "/x%5c..%5ccheckout",
        "/%2563heckout",
        "/x/%252e%252e/checkout",
        "/x%252f..%252fcheckout",
        "/%252fcheckout",
        "/%25252fcheckout",
        "/checkout.json",
        "/checkout.html/",
        "/index.php/checkout",
        "/INDEX.PHP/checkout/",
        "/index.php//checkout.xml",
        "http://shop.example/checkout",
        "//shop.example/checkout",
        "/checkout.",
        "/checkout...",
        "/checkout ",
        "/checkout%20",
        "/checkout%20.",
        "/checkout%09",
        "/checkout%0a",
        "/checkout%0d%0a",
        "/check%0dout",
        "/%c0%afcheckout",
        "/x/%c0%ae%c0%ae/checkout",
        "/x/%e0%80%ae%e0%80%ae/checkout",
        "/check%ffout",
    ];

    #[test]
    fn no_spelling_of_a_guarded_path_walks_around_the_guard() {
        let checkout = spec(&["POST"], "/checkout");
        for path in SPELLINGS {
            assert!(yes(&checkout, &format!("POST {path}"), &[]), "{path} is not guarded");
        }
    }

    #[test]
    fn spellings_may_be_combined() {
        let checkout = spec(&["POST"], "/checkout");
        for path in [
            "/index.php/x/..;/CHECKOUT.json",
            "//x/%2e%2e;y\\checkout%20",
            "/%2563heckout%00;x/",
            "/x%5c..%5c%63heckout.%20/",
            &"/..;a%2f%255c%3b%c0%af%3f%01%20.".repeat(30),
        ] {
            assert!(yes(&checkout, &format!("POST {path}"), &[]), "{path} is not guarded");
        }
    }

    #[test]
    fn what_only_looks_like_it_is_not_guarded() {
        let checkout = spec(&["POST"], "/checkout");
        for path in [
            "/",
            "/checkouts",
            "/checkou",
            "/check/out",
            "/a/checkout",
            "/checkout/a",
            "/checkout-2",
            "/xcheckout",
            "/checkout%2fa",
            "/check%2fout",
            "/check%20out",
            "/checkout;x/a",
            "/checkout/../a",
            "/checkout.jsonx",
            "/index.phpx/checkout",
            "/%63heckouts",
            "/checkout.png",
        ] {
            assert!(no(&checkout, &format!("POST {path}"), &[]), "{path} is guarded");
        }
    }

    #[test]
    fn a_match_without_a_safe_reading_says_so() {
        let checkout = spec(&[], "/checkout");
        for (path, doubt) in [
            ("/checkout%00", Some(Doubt::NulByte)),
            ("/%2fcheckout", Some(Doubt::EncodedSlash)),
            ("/x\\..\\checkout", Some(Doubt::Backslash)),
            ("/%2563heckout", None),
            ("/x/..;/checkout", None),
        ] {
            let hit = Hit { params: Vec::new(), doubt };
            assert_eq!(head(&checkout, &format!("POST {path}"), &[]), Head::Yes(hit), "{path}");
        }
    }

    fn params(template: &str, path: &str) -> (Option<String>, Option<Doubt>) {
        match head(&spec(&[], template), &format!("POST {path}"), &[]) {
            Head::Yes(hit) => (hit.params.first().map(|(_, value)| value.clone()), hit.doubt),
            other => panic!("{path}: {other:?}"),
        }
    }

    #[test]
    fn captures_are_decoded_and_keep_their_case() {
        assert_eq!(params("/orders/{id}/pay", "/Orders/Ab%43/pay"), (Some("AbC".to_owned()), None));
    }

    #[test]
    fn one_order_under_two_aliases_has_one_capture() {
        assert_eq!(params("/orders/{id}", "/orders/7.json"), (Some("7".to_owned()), None));
        assert_eq!(params("/orders/{id}/pay", "/orders/7;jsessionid=9/pay"), (Some("7".to_owned()), None));
    }

    #[test]
    fn a_path_that_names_two_orders_is_in_doubt() {
        assert_eq!(params("/orders/{id}/pay", "/orders/%2537/pay").1, Some(Doubt::Divided));
        assert_eq!(params("/orders/{id}/pay", "/orders/7%20/pay").1, Some(Doubt::Divided));
    }

    #[test]
    fn the_method_matches_in_any_case_and_get_takes_in_head() {
        let post = spec(&["POST"], "/checkout");
        assert!(yes(&post, "post /checkout", &[]));
        assert!(no(&post, "GET /checkout", &[]));
        assert!(yes(&spec(&["get"], "/checkout"), "HEAD /checkout", &[]));
        assert!(no(&post, "HEAD /checkout", &[]));
    }

    #[test]
    fn a_method_override_does_not_walk_around_the_guard() {
        let post = spec(&["POST"], "/checkout");
        for name in ["x-http-method-override", "X-HTTP-Method", "x-method-override"] {
            assert!(yes(&post, "PUT /checkout", &[(name, "pOsT")]), "{name}");
            assert!(yes(&post, "PUT /checkout", &[(name, "PATCH, post")]), "{name}");
            assert!(yes(&post, "POST /checkout", &[(name, "GET")]), "{name}");
            assert!(no(&post, "PUT /checkout", &[(name, "PATCH")]), "{name}");
        }
        for query in
            ["_method=POST", "_METHOD=post", "%5fmethod=post", "a=b&.method=post", "_method=GET&_method=POST"]
        {
            assert!(yes(&post, &format!("GET /checkout?{query}"), &[]), "{query}");
        }
        assert!(no(&post, "GET /checkout?_method=", &[]));
        assert!(no(&post, "GET /cart?_method=post", &[]));
    }

    #[test]
    fn a_form_that_says_put_is_known_after_its_body() {
        let put = spec(&["PUT"], "/orders/{id}");
        let ask = |lookup| with_body(&put, "POST /orders/7", &[FORM], &form(lookup));
        assert!(after_body(&put, "POST /orders/7", &[FORM]));
        assert!(after_body(&put, "POST /orders/7", &[("content-type", "Multipart/Form-Data; boundary=x")]));
        assert_eq!(ask(found("put")), BodyMatch::Yes);
        assert_eq!(ask(found("delete")), BodyMatch::No);
        assert_eq!(ask(Lookup::Absent), BodyMatch::No);
        assert_eq!(ask(Lookup::Ambiguous("twice".into())), BodyMatch::Yes);
        assert_eq!(ask(Lookup::Unreadable("broken".into())), BodyMatch::Unreadable("broken".into()));
        assert!(no(&put, "POST /orders/7", &[("content-type", "application/json")]));
        assert!(no(&put, "POST /cart", &[FORM]));
        assert!(no(&spec(&["GET"], "/orders/{id}"), "POST /orders/7", &[FORM]));
    }

    #[test]
    fn hosts_are_exact_or_everything_below_a_name() {
        let hosts = Spec { hosts: texts(&["Shop.example", "*.pay.example"]), ..Spec::default() };
        for (host, expected) in [
            ("shop.example", true),
            ("shop.example.", true),
            ("www.shop.example", false),
            ("a.pay.example", true),
            ("a.b.pay.example", true),
            ("pay.example", false),
            ("xpay.example", false),
        ] {
            assert_eq!(yes(&hosts, "GET /", &[("host", host)]), expected, "{host}");
        }
    }

    #[test]
    fn query_names_and_values_are_read_as_php_reads_them() {
        let ajax = Spec { query: when("wc-ajax", "checkout"), ..spec(&["POST"], "") };
        for query in
            ["wc-ajax=checkout", "a=b&wc-ajax=check%6Fut", "wc%2Dajax=checkout", "wc-ajax=+Checkout%20"]
        {
            assert!(yes(&ajax, &format!("POST /?{query}"), &[]), "{query}");
        }
        for query in
            ["", "wc-ajax", "wc-ajax=", "wc-ajax=checkouts", "wc-ajaxx=checkout", "wc-ajax[]=checkout"]
        {
            assert!(no(&ajax, &format!("POST /?{query}"), &[]), "{query}");
        }
        let dotted = Spec { query: when("a.b", "*"), ..Spec::default() };
        assert!(yes(&dotted, "GET /?a_b=", &[]) && yes(&dotted, "GET /?+a+b=1", &[]));
    }

    #[test]
    fn a_doubled_parameter_matches_with_either_value() {
        let ajax = Spec { query: when("action", "pay"), ..Spec::default() };
        assert!(yes(&ajax, "POST /?action=pay&action=show", &[]));
        assert!(yes(&ajax, "POST /?action=show&action=pay", &[]));
    }

    #[test]
    fn inside_not_a_doubled_parameter_excludes_nothing() {
        let not = Spec { query: when("action", "show"), ..Spec::default() };
        let pay = Spec { not: Some(Box::new(not)), ..spec(&["POST"], "/order") };
        assert!(no(&pay, "POST /order?action=show", &[]));
        assert!(no(&pay, "POST /order?action=show&action=show", &[]));
        for query in ["action=show&action=pay", "action=pay", "", "action=Show"] {
            assert!(yes(&pay, &format!("POST /order?{query}"), &[]), "{query}");
        }
    }

    #[test]
    fn inside_not_a_path_excludes_only_under_every_spelling() {
        let not = spec(&[], "/rest/status");
        let rest = Spec { not: Some(Box::new(not)), ..spec(&[], "/rest/{*rest}") };
        assert!(no(&rest, "POST /rest/status", &[]));
        assert!(no(&rest, "POST /rest//./status/", &[]));
        for path in ["/rest/%2573tatus", "/rest/pay/../status", "/rest/status%00", "/rest/status;/../pay"] {
            assert!(yes(&rest, &format!("POST {path}"), &[]), "{path}");
        }
    }

    #[test]
    fn inside_not_a_method_excludes_only_if_nothing_overrides_it() {
        let rule = Spec { not: Some(Box::new(spec(&["GET"], ""))), ..spec(&[], "/order") };
        assert!(no(&rule, "GET /order", &[]));
        assert!(yes(&rule, "GET /order", &[("x-http-method-override", "POST")]));
        assert!(yes(&rule, "HEAD /order", &[]));
    }

    #[test]
    fn not_in_not_leans_to_yes_again() {
        let inner = Spec { query: when("a", "1"), ..Spec::default() };
        let outer = Spec { not: Some(Box::new(inner)), ..Spec::default() };
        let rule = Spec { not: Some(Box::new(outer)), ..Spec::default() };
        assert!(yes(&rule, "GET /?a=1&a=2", &[]));
        assert!(no(&rule, "GET /?a=2", &[]));
    }

    #[test]
    fn headers_and_cookies_match_with_any_of_their_lines() {
        let rule = Spec { headers: when("X-Kind", "pay"), ..Spec::default() };
        assert!(yes(&rule, "GET /", &[("x-kind", "show"), ("x-kind", "pay")]));
        assert!(no(&rule, "GET /", &[("x-kind", "show")]));
        let rule = Spec { cookies: when("wp_session_*", "~^t_"), ..Spec::default() };
        assert!(yes(&rule, "GET /", &[("cookie", "a=b; wp_session_ab=t%5F12"), ("cookie", "c=d")]));
        assert!(yes(&rule, "GET /", &[("cookie", "a=b"), ("cookie", "wp.session.ab=t_12")]));
        assert!(no(&rule, "GET /", &[("cookie", "a=wp_session_; wp_session_x=7")]));
        let rule = Spec { cookies: when("sid", "*"), ..Spec::default() };
        assert!(yes(&rule, "GET /", &[("cookie", "sid")]));
        assert!(no(&rule, "GET /", &[("cookie", "sid2=1")]));
    }

    #[test]
    fn the_content_type_is_compared_without_parameters() {
        let rule = Spec { content_type: texts(&["application/json", "multipart/*"]), ..Spec::default() };
        for (found, expected) in [
            ("Application/JSON; charset=utf-8", true),
            ("application/json,x", true),
            ("multipart/form-data; boundary=x", true),
            ("text/plain", false),
            ("application/jsonx", false),
        ] {
            assert_eq!(yes(&rule, "POST /", &[("content-type", found)]), expected, "{found}");
        }
        assert!(no(&rule, "POST /", &[]));
    }

    #[test]
    fn conditions_on_a_body_are_judged_after_it() {
        let pay = Spec { form: when("woocommerce_pay", "*"), ..spec(&["POST"], "/order-pay/{id}") };
        let params = vec![("id".to_owned(), "7".to_owned())];
        assert_eq!(head(&pay, "POST /order-pay/7", &[FORM]), Head::AfterBody(Hit { params, doubt: None }));
        assert!(no(&pay, "POST /cart", &[FORM]));
        let ask = |lookup| with_body(&pay, "POST /order-pay/7", &[FORM], &form(lookup));
        assert_eq!(ask(found("1")), BodyMatch::Yes);
        assert_eq!(ask(Lookup::Absent), BodyMatch::No);
        assert_eq!(ask(Lookup::Ambiguous("twice".into())), BodyMatch::Yes);
        assert_eq!(ask(Lookup::Unreadable("broken".into())), BodyMatch::Unreadable("broken".into()));
        assert_eq!(with_body(&pay, "POST /cart", &[FORM], &form(found("1"))), BodyMatch::No);
    }

    #[test]
    fn what_is_settled_is_not_undone_by_what_cannot_be_read() {
        let both = Spec { form: when("a", "1"), json: when("/b", "1"), ..Spec::default() };
        let body = Body { form: Lookup::Unreadable("broken".into()), json: Lookup::Absent };
        assert_eq!(with_body(&both, "POST /", &[], &body), BodyMatch::No);
    }

    #[test]
    fn inside_not_a_body_excludes_only_what_it_certainly_is() {
        let not = Spec { json: when("/op", "show"), ..Spec::default() };
        let rule = Spec { not: Some(Box::new(not)), ..spec(&["POST"], "/api") };
        assert!(after_body(&rule, "POST /api", &[]));
        let ask = |json| with_body(&rule, "POST /api", &[], &Body { form: Lookup::Absent, json });
        assert_eq!(ask(found("show")), BodyMatch::No);
        assert_eq!(ask(found("pay")), BodyMatch::Yes);
        assert_eq!(ask(Lookup::Absent), BodyMatch::Yes);
        assert_eq!(ask(Lookup::Ambiguous("twice".into())), BodyMatch::Yes);
        assert_eq!(ask(Lookup::Unreadable("broken".into())), BodyMatch::Unreadable("broken".into()));
    }

    #[test]
    fn an_empty_rule_takes_everything() {
        assert!(yes(&Spec::default(), "GET /any?a=b", &[]));
    }

    #[test]
    fn all_problems_of_a_rule_come_at_once() {
        let not = Spec { hosts: texts(&["*.", "a b", "shop.example:80"]), ..Spec::default() };
        let rule = Spec {
            methods: texts(&["PO ST"]),
            path: Some(PathSpec::Regex("(".to_owned())),
            headers: when("x y", "*"),
            json: when("op", "*"),
            query: when("", "*"),
            content_type: texts(&["json"]),
            not: Some(Box::new(not)),
            ..Spec::default()
        };
        let problems = Matcher::new(&rule).unwrap_err();
        let mut fields: Vec<_> = problems.iter().map(|problem| problem.field.as_str()).collect();
        fields.sort_unstable();
        let expected = [
            "content_type",
            "headers.x y",
            "json.op",
            "methods",
            "not.hosts",
            "not.hosts",
            "not.hosts",
            "path",
            "query",
        ];
        assert_eq!(fields, expected);
    }

    #[test]
    fn not_cannot_stand_in_itself_without_end() {
        let deep =
            (0..6).fold(Spec::default(), |inner, _| Spec { not: Some(Box::new(inner)), ..Spec::default() });
        assert_eq!(Matcher::new(&deep).unwrap_err()[0].field, "not.not.not.not.not");
    }
}
