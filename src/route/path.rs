//! What a path means to a shop.
//!
//! Servers do not agree on how a path is read: some cut `;parameters`, some decode twice, some take a backslash for a
//! slash (RFC 3986 sections 2 and 6.2 leave them the room). A guard that knows one spelling is walked around by the
//! others, so [`read`] gives a primary reading and, beside it, every other reading that a shop could have. It never
//! changes the bytes that go to the shop, and it never refuses anything: what has no safe reading is reported as a
//! [`Doubt`], and the gate refuses it only where a guarded route matches.
//!
//! The strings are text although paths are bytes. A byte `b` that is not part of valid UTF-8 stands as the
//! private-use character U+F700 + `b`. The bytes of a character that is itself in that range (U+F780 to U+F7FF) are
//! written in the same way, so that different bytes never become equal text.

mod spelling;

use thiserror::Error;

/// All readings of one path. Each starts with `/`, has neither empty nor dot segments, and no `/` at its end unless it
/// is `/` alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readings {
    /// The primary reading: `;parameters` cut from every segment, percent-decoded once, dot segments and doubled
    /// slashes resolved, a trailing slash set aside.
    pub path: String,
    /// What other servers could read: first the spellings, then the aliases. At most 31 and four for each reading; empty
    /// for nearly every request.
    pub others: Vec<String>,
    /// Why no reading is safe, if so.
    pub doubt: Option<Doubt>,
    spellings: usize,
}

/// Why a path has no safe reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Doubt {
    #[error("the path has a NUL byte, at which some servers end it")]
    NulByte,
    #[error("the path has a backslash, which some servers read as a slash")]
    Backslash,
    #[error("the path has an encoded slash, which only some servers read as a slash")]
    EncodedSlash,
    #[error("the path has an overlong UTF-8 sequence, which some servers read as the short one")]
    Overlong,
    #[error("the path is not well encoded, and servers differ in how they mend it")]
    BadEncoding,
    #[error("the path has a control character, which some servers drop")]
    Control,
    #[error("the path names different things to different servers")]
    Divided,
    #[error("the path can be read in too many ways")]
    TooManyReadings,
}

/// Reads a path as it came, without its query. Never fails; costs one allocation for an ordinary path.
#[must_use]
pub fn read(raw_path: &str) -> Readings {
    match glance(raw_path.as_bytes()) {
        Look::Plain => plain(raw_path),
        Look::Dotted => {
            let mut readings = plain(raw_path);
            add_aliases(&mut readings);
            readings
        }
        Look::Odd => {
            let mut readings = spelling::read(raw_path.as_bytes());
            add_aliases(&mut readings);
            readings
        }
    }
}

impl Readings {
    /// One reading and no other.
    #[must_use]
    pub fn only(path: &str) -> Self {
        Self { path: path.to_owned(), others: Vec::new(), doubt: None, spellings: 0 }
    }

    /// Whether there is one way to read the path.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.others.is_empty() && self.doubt.is_none()
    }

    /// The same path without what a shop's router may hold to be the same place.
    #[must_use]
    pub fn without_aliases(&self) -> Self {
        Self { others: self.spellings().to_vec(), path: self.path.clone(), ..*self }
    }

    /// What a server with another parser would read from the same bytes.
    #[must_use]
    pub fn spellings(&self) -> &[String] {
        &self.others[..self.spellings.min(self.others.len())]
    }

    /// What a shop's router may hold to be the same place: without `index.php`, without `.json`, without what
    /// follows a script's name.
    #[must_use]
    pub fn aliases(&self) -> &[String] {
        &self.others[self.spellings.min(self.others.len())..]
    }
}

enum Look {
    /// There is one way to read it.
    Plain,
    /// There is a dot inside a segment, so a suffix or a script may have to be set aside.
    Dotted,
    Odd,
}

#[derive(Clone, Copy)]
enum Class {
    Plain,
    Slash,
    Dot,
    Odd,
}

/// One load per byte: this runs on every request. Plain is what RFC 3986 section 3.3 allows in a segment, without `%`
/// and `;`.
const CLASSES: [Class; 256] = {
    let mut table = [Class::Odd; 256];
    let plain = b"-_~!$&'()*+,=:@";
    let mut at = 0;
    while at < plain.len() {
        table[plain[at] as usize] = Class::Plain;
        at += 1;
    }
    let mut byte = 0;
    while byte < 128 {
        if (byte as u8).is_ascii_alphanumeric() {
            table[byte] = Class::Plain;
        }
        byte += 1;
    }
    table[b'/' as usize] = Class::Slash;
    table[b'.' as usize] = Class::Dot;
    table
};

fn glance(raw: &[u8]) -> Look {
    if raw.first() != Some(&b'/') {
        return Look::Odd;
    }
    let mut dotted = false;
    let mut before = 0;
    for &byte in raw {
        match CLASSES[usize::from(byte)] {
            Class::Plain => {}
            Class::Slash if before == b'/' || before == b'.' => return Look::Odd,
            Class::Slash => {}
            Class::Dot if before == b'/' => return Look::Odd,
            Class::Dot => dotted = true,
            Class::Odd => return Look::Odd,
        }
        before = byte;
    }
    match (before, dotted) {
        (b'.', _) => Look::Odd,
        (_, true) => Look::Dotted,
        (_, false) => Look::Plain,
    }
}

fn plain(raw: &str) -> Readings {
    let path = match raw.strip_suffix('/') {
        Some("") | None => raw,
        Some(shorter) => shorter,
    };
    Readings { path: path.to_owned(), others: Vec::new(), doubt: None, spellings: 0 }
}

/// The aliases of every reading so far. At most four for each, so the bound on spellings bounds these too.
fn add_aliases(readings: &mut Readings) {
    readings.spellings = readings.others.len();
    for at in 0..=readings.spellings {
        let source = if at == 0 { &readings.path } else { &readings.others[at - 1] };
        for alias in aliases(source) {
            if alias != readings.path && !readings.others.contains(&alias) {
                readings.others.push(alias);
            }
        }
    }
}

/// `/index.php/checkout` is `/checkout` where a front controller takes the rest as PATH_INFO; `/ipn.php/x` runs
/// `/ipn.php` (CGI, RFC 3875 section 4.1.5); `/checkout.json` is `/checkout` in another format.
fn aliases(path: &str) -> Vec<String> {
    let mut found = Vec::new();
    if !path.contains('.') {
        return found;
    }
    if let Some(end) = script_end(path) {
        found.push(path[..end].to_owned());
    }
    let front_controller = |segment: &&str| segment.eq_ignore_ascii_case("index.php");
    if path.split('/').any(|segment| front_controller(&segment)) {
        let kept: Vec<&str> =
            path.split('/').filter(|segment| !segment.is_empty() && !front_controller(segment)).collect();
        let short = format!("/{}", kept.join("/"));
        found.extend(without_suffix(&short));
        found.push(short);
    }
    found.extend(without_suffix(path));
    found
}

/// Where the first `.php` segment ends, if something follows it.
fn script_end(path: &str) -> Option<usize> {
    let mut end = 0;
    for segment in path.split('/').skip(1) {
        end += 1 + segment.len();
        if ends_with_ignore_case(segment, ".php") && end < path.len() {
            return Some(end);
        }
    }
    None
}

fn without_suffix(path: &str) -> Option<String> {
    const SUFFIXES: [&str; 5] = [".json", ".xml", ".html", ".htm", ".php"];
    let suffix = SUFFIXES.iter().find(|suffix| ends_with_ignore_case(path, suffix))?;
    let short = &path[..path.len() - suffix.len()];
    // A segment that is nothing but a suffix has no name to be left with, and dots alone are not one.
    (!short.trim_end_matches('.').ends_with('/')).then(|| short.to_owned())
}

fn ends_with_ignore_case(text: &str, suffix: &str) -> bool {
    let (text, suffix) = (text.as_bytes(), suffix.as_bytes());
    text.len() >= suffix.len() && text[text.len() - suffix.len()..].eq_ignore_ascii_case(suffix)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn primary(raw: &str) -> String {
        read(raw).path
    }

    /// A target that is read as exactly this path.
    fn encoded(path: &str) -> String {
        let mut target = String::new();
        for character in path.chars() {
            match character {
                '/' => target.push('/'),
                '\u{F780}'..='\u{F7FF}' => {
                    target.push_str(&format!("%{:02X}", u32::from(character) - 0xF700));
                }
                other => {
                    target.extend(other.encode_utf8(&mut [0; 4]).bytes().map(|byte| format!("%{byte:02X}")));
                }
            }
        }
        target
    }

    #[test]
    fn an_ordinary_path_is_its_own_only_reading() {
        for path in
            ["/", "/checkout", "/rest/V1/guest-carts/AbC_d/payment-information", "/a.b/c", "/logo.png"]
        {
            let expected = Readings { path: path.to_owned(), others: Vec::new(), doubt: None, spellings: 0 };
            assert_eq!(read(path), expected);
        }
    }

    #[test]
    fn the_primary_reading_is_what_the_promise_says() {
        for (raw, path) in [
            ("", "/"),
            ("*", "/*"),
            ("/checkout/", "/checkout"),
            ("//checkout", "/checkout"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/../../b", "/b"),
            ("/a//../b", "/b"),
            ("/%63heckout", "/checkout"),
            ("/a;x=1/b;y", "/a/b"),
            ("/a/..;/b", "/b"),
            ("/a/%2e%2E/b", "/b"),
            ("/a%2fb", "/a/b"),
            ("/a%252fb", "/a%2fb"),
            ("/a%3Bb", "/a;b"),
            ("/100%", "/100%"),
            ("/%zz", "/%zz"),
            ("/caf%C3%A9", "/café"),
            ("http://shop.example/a", "/a"),
            ("HTTPS://shop.example", "/"),
        ] {
            assert_eq!(primary(raw), path, "{raw}");
        }
    }

    #[test]
    fn other_servers_read_other_paths() {
        for (raw, other) in [
            ("/x/..;/checkout", "/x/..;/checkout"),
            ("/checkout/../x", "/checkout/x"),
            ("/a%2fb", "/a%2Fb"),
            ("/a%5Cb", "/a/b"),
            ("/%2563heckout", "/checkout"),
            ("/%252563heckout", "/checkout"),
            ("/x%252f..%252fcheckout", "/checkout"),
            ("/a%25252fb", "/a%2fb"),
            ("/x/..%20/checkout", "/checkout"),
            ("/check%C0%AFout", "/check/out"),
            ("/checkout%00.png", "/checkout"),
            ("/check%09out", "/checkout"),
            ("/checkout%20", "/checkout"),
            ("/checkout.", "/checkout"),
            ("/checkout%3Fa=b", "/checkout"),
            ("/checkout%3bx", "/checkout"),
            ("/%u0063heckout", "/checkout"),
            ("/%EF%BD%83heckout", "/checkout"),
            ("/chec%E2%84%AAout", "/checkout"),
            ("/index.php/checkout.json", "/checkout"),
            ("/index.php", "/"),
            ("/checkout.html", "/checkout"),
            ("/ipn.php/x/y", "/ipn.php"),
            ("//shop.example/checkout", "/checkout"),
        ] {
            let readings = read(raw);
            assert!(readings.others.iter().any(|path| path == other), "{raw}: {readings:?}");
            assert_ne!(readings.path, other);
        }
    }

    #[test]
    fn what_has_no_safe_reading_is_in_doubt() {
        for (raw, doubt) in [
            ("/a%00", Doubt::NulByte),
            ("/a\\b", Doubt::Backslash),
            ("/a%5cb", Doubt::Backslash),
            ("/a%2Fb", Doubt::EncodedSlash),
            ("/a%c0%ae", Doubt::Overlong),
            ("/a%e0%80%af", Doubt::Overlong),
            ("/a%f0%80%80%af", Doubt::Overlong),
            ("/a%ff", Doubt::BadEncoding),
            ("/a%zz", Doubt::BadEncoding),
            ("/a%4", Doubt::BadEncoding),
            ("/a%0d%0a", Doubt::Control),
            ("/a%7f", Doubt::Control),
        ] {
            assert_eq!(read(raw).doubt, Some(doubt), "{raw}");
        }
        for raw in ["/a%20b", "/caf%C3%A9", "/a;b", "//a", "/a/../b", "/a%25b", "/ä", "/a."] {
            assert_eq!(read(raw).doubt, None, "{raw}");
        }
    }

    #[test]
    fn too_many_ways_to_read_a_path_are_a_doubt_and_stay_bounded() {
        let readings = read(&"/..;a%2f%255c%3b%c0%af%3f%01%20.%u0041".repeat(40));
        assert_eq!(readings.doubt, Some(Doubt::TooManyReadings));
        assert!(readings.others.len() <= 4, "{}", readings.others.len());
        let long = format!("/{};x/..", "a".repeat(100_000));
        assert_eq!(read(&long).doubt, Some(Doubt::TooManyReadings));
    }

    #[test]
    fn different_bytes_never_become_equal_text() {
        // 0xFF, the private-use character that stands for it, and the escape itself in letters.
        let paths = ["/%FF", "/%EF%9F%BF", "/%25FF", "/%FE"].map(primary);
        for (at, one) in paths.iter().enumerate() {
            assert!(!paths[at + 1..].contains(one), "{paths:?}");
        }
    }

    fn hostile() -> impl Strategy<Value = String> {
        let parts = [
            "/",
            "//",
            ".",
            "..",
            "..;",
            ";",
            "%2e",
            "%2F",
            "%5c",
            "\\",
            "%00",
            "%09",
            "%20",
            " ",
            "%25",
            "%",
            "%3b",
            "%3f",
            "%c0%af",
            "%c0",
            "%ff",
            "%ef%9e%80",
            "%u002e",
            "a",
            "B",
            "é",
            "index.php",
            ".json",
            ".php",
            "%e2%84%aa",
        ];
        prop::collection::vec(prop::sample::select(parts.to_vec()), 0..14).prop_map(|parts| parts.concat())
    }

    fn assert_resolved(raw: &str) {
        let readings = read(raw);
        for path in std::iter::once(&readings.path).chain(&readings.others) {
            assert!(path.starts_with('/'), "{raw:?} {path:?}");
            assert!(path == "/" || !path.ends_with('/'), "{raw:?} {path:?}");
            assert!(!path.contains("//"), "{raw:?} {path:?}");
            assert!(!path.split('/').any(|segment| matches!(segment, "." | "..")), "{raw:?} {path:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_reading_has_dot_segments_or_empty_ones(raw in hostile()) {
            assert_resolved(&raw);
        }

        #[test]
        fn any_text_can_be_read(raw in any::<String>()) {
            assert_resolved(&raw);
        }

        #[test]
        fn reading_the_primary_reading_again_changes_nothing(raw in hostile()) {
            let path = primary(&raw);
            prop_assert_eq!(primary(&encoded(&path)), path);
        }
    }
}
