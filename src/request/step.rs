//! Steps: how a source goes on into a value that it has found.
//!
//! A value may be a text of its own: JSON in a field of a form, a form in a string of JSON, the claims of a token. What
//! does not look like such a text has no members and so no value; what does and cannot be read is not guessed at.

use bytes::Bytes;

use super::{
    json::{Document, Pointer},
    lookup::{Lookup, Value},
    query,
    source::{SourceProblem, parse_pointer},
};

/// One step into a value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// The value is the text of a JSON document.
    Json(Pointer),
    /// The value is an urlencoded form.
    Form(String),
    /// The value is a JSON Web Token (RFC 7519), with or without `Bearer` before it. Its signature is not looked at: the
    /// claim is what the sender says of himself.
    Jwt(Pointer),
    /// The value is cut at `||` if it holds one, else at `|`: WooCommerce's session cookie has had both forms.
    Segment(usize),
}

impl Step {
    pub(super) fn parse(text: &str) -> Result<Self, SourceProblem> {
        match text.split_once(':') {
            Some(("json", pointer)) => Ok(Self::Json(parse_pointer(pointer)?)),
            Some((kind @ ("form" | "jwt"), "")) => Err(SourceProblem::NoName(kind.to_owned())),
            Some(("form", name)) => Ok(Self::Form(name.to_owned())),
            Some(("jwt", pointer)) if pointer.starts_with('/') => Ok(Self::Jwt(parse_pointer(pointer)?)),
            Some(("jwt", claim)) => Ok(Self::Jwt(Pointer::member(claim))),
            Some(("segment", number)) => match number.parse() {
                Ok(index @ 0..100) => Ok(Self::Segment(index)),
                _ => Err(SourceProblem::Segment(number.to_owned())),
            },
            _ => Err(SourceProblem::UnknownStep(text.to_owned())),
        }
    }

    pub(super) fn go(&self, value: &Value) -> Lookup {
        match self {
            Self::Json(pointer) => match value.bytes.trim_ascii_start().first() {
                Some(b'{' | b'[') => match Document::parse(Bytes::copy_from_slice(&value.bytes)) {
                    Ok(document) => document.lookup(pointer),
                    Err(problem) => Lookup::Unreadable(format!("it is declared as JSON: {problem}")),
                },
                _ => Lookup::Absent,
            },
            Self::Form(name) => query::lookup(&value.bytes, name.as_bytes()),
            Self::Jwt(pointer) => claim(&value.bytes, pointer),
            Self::Segment(index) => Lookup::text(segments(&value.bytes).nth(*index).unwrap_or_default()),
        }
    }
}

/// A claim of a token that is signed (RFC 7515 section 7.1): three parts with dots between them. One that is encrypted
/// has five, and tells nobody anything.
fn claim(value: &[u8], pointer: &Pointer) -> Lookup {
    let value = value.trim_ascii();
    let token = match value.split_at_checked(b"bearer ".len()) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"bearer ") => token.trim_ascii_start(),
        _ => value,
    };
    let parts: Vec<&[u8]> = token.split(|&byte| byte == b'.').take(4).collect();
    let [_, payload, _] = parts.as_slice() else { return Lookup::Absent };
    let Some(claims) = base64(payload) else {
        return Lookup::Unreadable("it looks like a token, and its claims are not in base64".into());
    };
    match Document::parse(claims.into()) {
        Ok(document) => document.lookup(pointer),
        Err(problem) => Lookup::Unreadable(format!("it looks like a token, and of its claims {problem}")),
    }
}

/// Base64 with either alphabet (RFC 4648 sections 4 and 5), with or without `=` at the end: readers of tokens differ in
/// what they put up with, and whatever one of them reads is to be read here.
fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let end = text.iter().rposition(|&byte| byte != b'=').map_or(0, |last| last + 1);
    if text.len() - end > 2 || end % 4 == 1 {
        return None;
    }
    let mut out = Vec::with_capacity(end / 4 * 3 + 2);
    for group in text[..end].chunks(4) {
        let mut bits = 0_u32;
        for &byte in group {
            bits = bits << 6 | digit(byte)?;
        }
        bits <<= 6 * (4 - group.len());
        out.extend_from_slice(&bits.to_be_bytes()[1..group.len()]);
    }
    Some(out)
}

fn digit(byte: u8) -> Option<u32> {
    Some(u32::from(match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' | b'-' => 62,
        b'/' | b'_' => 63,
        _ => return None,
    }))
}

fn segments(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let separator: &[u8] = if memchr::memmem::find(text, b"||").is_some() { b"||" } else { b"|" };
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        match memchr::memmem::find(text, separator) {
            Some(at) => {
                rest = Some(&text[at + separator.len()..]);
                Some(&text[..at])
            }
            None => {
                rest = None;
                Some(text)
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::sample::Sample, *};

    /// A `Cart-Token` of WooCommerce's Store API, from the samples.
    const TOKEN: &str = "eyJhbGciOiJIUzI1NiJ9.eyJ1c2VyX2lkIjoidF9oZWFkbGVzcyIsImV4cCI6MTg5MzQ1NjAwMH0.c2ln";

    fn cart(token: &str, source: &str) -> Lookup {
        Sample::json("{}").header("cart-token", token).look(source)
    }

    #[test]
    fn a_claim_of_a_token_is_read_whoever_signed_it() {
        let user = "header:cart-token|jwt:user_id";
        assert_eq!(cart(TOKEN, user), Lookup::text("t_headless"));
        assert_eq!(cart(&format!("Bearer {TOKEN}"), user), Lookup::text("t_headless"));
        assert_eq!(
            cart(&TOKEN.replace("c2ln", "Zm9yZ2Vk"), "header:cart-token|jwt:/user_id"),
            Lookup::text("t_headless")
        );
        let Lookup::Found(expiry) = cart(TOKEN, "header:cart-token|jwt:exp") else { panic!() };
        assert_eq!(
            (&expiry[0].bytes[..], expiry[0].kind),
            (b"1893456000".as_slice(), super::super::lookup::Kind::Number)
        );
        assert_eq!(cart(TOKEN, "header:cart-token|jwt:nobody"), Lookup::Absent);
    }

    #[test]
    fn what_is_no_token_has_no_claims_and_a_broken_one_is_not_guessed_at() {
        let user = "header:cart-token|jwt:user_id";
        for none in ["opaque", "Basic YTpi", "a.b", "a.b.c.d", "a.b.c.d.e"] {
            assert_eq!(cart(none, user), Lookup::Absent, "{none}");
        }
        // "{", a user_id that stands twice, and an object in its place.
        for broken in
            ["a.ew.c", "a.!!.c", "a.eyJ.c=.d.e".split(".d").next().unwrap(), "a.eyJ1c2VyX2lkIjp7fX0.c"]
        {
            assert!(matches!(cart(broken, user), Lookup::Unreadable(_)), "{broken}");
        }
        let doubled = "a.eyJ1c2VyX2lkIjoxLCJ1c2VyX2lkIjoyfQ.c";
        assert!(matches!(cart(doubled, user), Lookup::Ambiguous(_)));
    }

    #[test]
    fn a_form_in_a_string_of_json_is_read() {
        let sample = |form: &str| Sample::json(serde_json::json!({ "form_encoded": form }).to_string());
        let at = "json:/form_encoded|form:billing_email";
        assert_eq!(
            sample("a=1&billing_email=ines%40example.test").look(at),
            Lookup::text("ines@example.test")
        );
        assert_eq!(sample("a=1").look(at), Lookup::Absent);
        assert!(matches!(sample("billing.email=a&billing_email=b").look(at), Lookup::Ambiguous(_)));
        let deep = sample("meta=%7B%22id%22%3A7%7D").look("json:/form_encoded|form:meta|json:/id");
        assert!(matches!(deep, Lookup::Found(values) if values[0].bytes == b"7"));
    }

    #[test]
    fn a_text_may_be_longer_than_a_value_that_is_read_from_it() {
        let long =
            serde_json::json!({ "Message": format!("{{\"id\":7,\"x\":\"{}\"}}", "x".repeat(100_000)) });
        let sample = Sample::json(long.to_string());
        assert!(matches!(sample.look("json:/Message|json:/id"), Lookup::Found(_)));
        assert!(matches!(sample.look("json:/Message"), Lookup::Unreadable(_)));
        assert!(matches!(sample.look("json:/Message|json:/x"), Lookup::Unreadable(_)));
    }

    fn encode(bytes: &[u8], alphabet: &[u8; 64]) -> String {
        let mut out = String::new();
        for group in bytes.chunks(3) {
            let bits =
                group.iter().chain([&0; 2]).take(3).fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
            for place in 0..=group.len() {
                out.push(char::from(alphabet[(bits >> (18 - 6 * place)) as usize & 63]));
            }
        }
        out
    }

    proptest! {
        #[test]
        fn base64_is_undone_in_both_alphabets(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let url = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
            let text = encode(&bytes, url);
            prop_assert_eq!(base64(text.as_bytes()), Some(bytes.clone()));
            let padded = format!("{}{}", text.replace('-', "+").replace('_', "/"), "=".repeat((4 - text.len() % 4) % 4));
            prop_assert_eq!(base64(padded.as_bytes()), Some(bytes));
        }

        #[test]
        fn no_token_makes_it_panic(token in r"(Bearer )?[A-Za-z0-9+/_=.!-]{0,24}") {
            let _ = cart(&token, "header:cart-token|jwt:user_id");
        }
    }
}
