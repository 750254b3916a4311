//! Cases 45 and 46: one page, written in all the ways that some server takes for it, and one method.

use super::stage::{ROUTES, Stage, request};

/// What some server behind us may read as `/checkout`: nginx, Apache, PHP's front controllers, Tomcat, IIS, and those
/// that decode twice.
const SPELLINGS: &[&str] = &[
    "/checkout",
    "//checkout",
    "///checkout",
    "/checkout/",
    "/checkout//",
    "/./checkout",
    "/checkout/.",
    "/checkout/./",
    "/x/../checkout",
    "/x/y/../../checkout",
    "/../checkout",
    "/../../checkout",
    "/checkout/x/..",
    "/%63heckout",
    "/%43heckout",
    "/checkou%74",
    "/%63%68%65%63%6b%6f%75%74",
    "/%2e/checkout",
    "/%2E/checkout",
    "/x/%2e%2e/checkout",
    "/x/.%2e/checkout",
    "/x/%2E./checkout",
    "/x/..%2fcheckout",
    "/%2fcheckout",
    "/%2Fcheckout",
    "/checkout%2f",
    "/checkout%2f.",
    "/.%2fcheckout",
    "/x%2f..%2fcheckout",
    "/%2e%2fcheckout",
    "/checkout;x",
    "/checkout;x=y",
    "/checkout;jsessionid=1",
    "/;x/checkout",
    "/x;y/../checkout",
    "/x/..;/checkout",
    "/x/..;y=z/checkout",
    "/checkout;/",
    "/checkout;a/../checkout",
    "/checkout%3bx",
    "/checkout%3Bx=y",
    "/\\checkout",
    "/x\\..\\checkout",
    "/checkout\\",
    "/.\\checkout",
    "/%5ccheckout",
    "/x%5c..%5ccheckout",
    "/checkout%5c",
    "/checkout%00",
    "/checkout%00.html",
    "/check%00out",
    "/%00/checkout",
    "/checkout%20",
    "/checkout%09",
    "/checkout%0a",
    "/checkout%0d",
    "/%2563heckout",
    "/%252e/checkout",
    "/x/%252e%252e/checkout",
    "/%252fcheckout",
    "/checkout%253bx",
    "/%c0%afcheckout",
    "/x/%c0%ae%c0%ae/checkout",
    "/checkout.json",
    "/checkout.php",
    "/checkout.html",
    "/index.php/checkout",
    "/index.php//checkout",
    "/INDEX.PHP/checkout",
    "/index.php/checkout/",
    "/x/../index.php/checkout",
    "/index.php/%63heckout",
    "/CHECKOUT",
    "/Checkout",
    "/cHeCkOuT/",
    "/checkout?",
    "/checkout?x=y",
    "/checkout?/../x",
    "/checkout/?x",
    "/checkout.",
    "/checkout..",
    "/checkout%2e",
    "/%u0063heckout",
    "/checkout%ff",
];

/// What is another page to every server.
const OTHERS: &[&str] = &[
    "/checkouts",
    "/checkout2",
    "/checkou",
    "/checkout/cart",
    "/x/checkout",
    "/check-out",
    "/checkout-done",
    "/",
    "/x",
    "/checkout/../x",
    "/page?next=/checkout",
    "/page/checkout/x",
    "/che/ckout",
    "/%2d/checkout",
];

fn order(method: &str, path: &str, session: usize, lines: &str) -> Vec<u8> {
    let head = format!("{method} {path} HTTP/1.1\nHost: shop.example\nCookie: session=s{session}\n{lines}");
    request(head.trim_end(), b"pay=now")
}

/// Each spelling is refused, or led by the guard; in neither order of the routes is there a way around it.
fn all_are_guarded(stage: &mut Stage, paths: impl Iterator<Item = String>) {
    let (mut led, mut free) = (0, Vec::new());
    for (number, path) in paths.enumerate() {
        let (answer, seen) = stage.ask_and_look(&order("POST", &path, number, ""));
        match (answer.status, &seen[..]) {
            (400, []) => {}
            (200, [one]) if one.is_guarded() && answer.verdict() == "lead" => {
                led += 1;
                // The shop gets the path as it came.
                assert_eq!(one.target, path);
            }
            _ => free.push((path.clone(), answer.status, seen.len())),
        }
        stage.check(&path);
    }
    assert_eq!(free, [], "these went around the guard");
    assert!(led > 0, "nothing was let through at all");
}

#[test]
fn no_spelling_of_a_guarded_path_goes_around_the_guard() {
    let mut stage = Stage::new();
    all_are_guarded(&mut stage, SPELLINGS.iter().map(|path| (*path).to_owned()));
}

#[test]
fn no_spelling_goes_around_by_an_unguarded_route_that_stands_first() {
    let first = r#"
[[route]]
name = "static"
upstream = "shop"
match = { path = "/static/{*rest}" }

[[route]]
name = "media"
upstream = "shop"
match = { path = { regex = "^/media" } }
"#;
    let mut stage = Stage::with(&format!("{first}{ROUTES}"));
    let ways = [
        "/..",
        "/%2e%2e",
        "/.%2e",
        "/x/../..",
        "/..;",
        "/..;x",
        "/%2e%2e;",
        "/./..",
        "//..",
        "/%252e%252e",
        "/..%2f",
        "\\..",
        "%2f..",
        "%5c..",
    ];
    let paths = ["/static", "/media"].into_iter().flat_map(|folder| {
        ways.iter().flat_map(move |way| {
            [
                "/checkout",
                "/%63heckout",
                "/checkout/",
                "//checkout",
                "\\checkout",
                "%2fcheckout",
                "/checkout;x",
            ]
            .map(|path| format!("{folder}{way}{path}"))
        })
    });
    let here = SPELLINGS.iter().map(|path| (*path).to_owned());
    all_are_guarded(&mut stage, here.chain(paths));
    // And the routes themselves are open to what is theirs.
    for path in ["/static/logo.png", "/media/x", "/static/a/../b"] {
        let (answer, seen) = stage.ask_and_look(&order("POST", path, 0, ""));
        assert_eq!((answer.status, seen.len()), (200, 1));
        assert!(!seen[0].is_guarded(), "{path}");
    }
}

#[test]
fn other_paths_are_left_alone() {
    let mut stage = Stage::new();
    for path in OTHERS {
        let (answer, seen) = stage.ask_and_look(&order("POST", path, 0, ""));
        assert_eq!((answer.status, seen.len()), (200, 1), "{path}");
        assert!(!seen[0].is_guarded(), "{path}");
        stage.check(path);
    }
}

#[test]
fn a_method_that_an_override_names_is_guarded_as_that_method() {
    let mut stage = Stage::new();
    let tunnelled = [
        ("POST", "/checkout", ""),
        ("post", "/checkout", ""),
        ("Post", "/checkout", ""),
        ("PUT", "/checkout", "X-HTTP-Method-Override: POST"),
        ("PATCH", "/checkout", "X-HTTP-Method-Override: post"),
        ("GET", "/checkout", "X-HTTP-Method: POST"),
        ("PUT", "/checkout", "X-Method-Override: POST"),
        ("GET", "/checkout?_method=POST", ""),
        ("PUT", "/checkout?_method=post", ""),
        // It stays guarded whatever else it says it is.
        ("POST", "/checkout", "X-HTTP-Method-Override: PUT"),
        ("POST", "/checkout?_method=DELETE", ""),
        ("POST", "/checkout", "X-HTTP-Method-Override: GET\nX-HTTP-Method-Override: PUT"),
    ];
    for (number, (method, path, lines)) in tunnelled.into_iter().enumerate() {
        let (answer, seen) = stage.ask_and_look(&order(method, path, number, lines));
        let guarded =
            seen.iter().all(super::strict::Request::is_guarded) && matches!(answer.status, 200 | 400);
        assert!(guarded, "{method} {path} {lines:?}: {}", answer.status);
        stage.check(method);
    }
    // Methods that the rule does not name are not guarded, and nothing is hidden in them.
    for method in ["PUT", "PATCH", "DELETE", "FOO"] {
        let (answer, seen) = stage.ask_and_look(&order(method, "/checkout", 0, ""));
        assert_eq!((answer.status, seen.len()), (200, 1), "{method}");
        assert!(!seen[0].is_guarded());
    }
}
