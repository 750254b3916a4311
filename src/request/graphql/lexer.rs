//! The tokens of a GraphQL document (October 2021, section 2.1).
//!
//! Strings and comments are told apart from code here, and nowhere else, so that a query which only talks of an order
//! is none. Whatever the grammar does not have ends the reading: another parser may take it for something.

use std::borrow::Cow;

use super::GraphqlProblem;

/// How many tokens a document may have.
const TOKENS_MAX: usize = 1 << 16;

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Token<'a> {
    Name(&'a [u8]),
    /// One of `! $ & ( ) : = @ [ ] { | }`.
    Sign(u8),
    Spread,
    /// As it stands.
    Number(&'a [u8]),
    /// Unescaped.
    Text(Cow<'a, [u8]>),
    /// `"""…"""`, whose indentation is no part of its value: it is not read.
    Block,
}

pub(super) fn tokens(text: &[u8]) -> Result<Vec<Token<'_>>, GraphqlProblem> {
    let mut tokens = Vec::new();
    let mut rest = text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(text);
    let at = |rest: &[u8]| GraphqlProblem::Syntax(text.len() - rest.len());
    while let Some((&byte, behind)) = rest.split_first() {
        let (token, left) = match byte {
            b' ' | b'\t' | b'\n' | b'\r' | b',' => {
                rest = behind;
                continue;
            }
            b'#' => {
                rest = comment(behind).ok_or_else(|| at(rest))?;
                continue;
            }
            b'!' | b'$' | b'&' | b'(' | b')' | b':' | b'=' | b'@' | b'[' | b']' | b'{' | b'|' | b'}' => {
                (Token::Sign(byte), behind)
            }
            b'.' => (Token::Spread, rest.strip_prefix(b"...").ok_or_else(|| at(rest))?),
            b'"' => string(rest).ok_or_else(|| at(rest))?,
            b'-' | b'0'..=b'9' => number(rest).ok_or_else(|| at(rest))?,
            byte if begins_name(byte) => {
                let end = rest.iter().position(|&byte| !is_of_name(byte)).unwrap_or(rest.len());
                (Token::Name(&rest[..end]), &rest[end..])
            }
            _ => return Err(at(rest)),
        };
        if tokens.len() == TOKENS_MAX {
            return Err(GraphqlProblem::TooMany);
        }
        tokens.push(token);
        rest = left;
    }
    Ok(tokens)
}

pub(super) fn begins_name(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_'
}

pub(super) fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// To the end of the line. Parsers end a comment at other control characters too, and refuse those then.
fn comment(text: &[u8]) -> Option<&[u8]> {
    let end = text.iter().position(|&byte| byte < b' ' && byte != b'\t').unwrap_or(text.len());
    matches!(text.get(end), None | Some(b'\n' | b'\r')).then(|| &text[end..])
}

fn string(text: &[u8]) -> Option<(Token<'_>, &[u8])> {
    if let Some(block) = text.strip_prefix(b"\"\"\"") {
        let mut from = 0;
        loop {
            let end = from + memchr::memmem::find(&block[from..], b"\"\"\"")?;
            if end == 0 || block[end - 1] != b'\\' {
                return Some((Token::Block, &block[end + 3..]));
            }
            from = end + 3;
        }
    }
    let text = &text[1..];
    let end = text.iter().position(|&byte| matches!(byte, b'"' | b'\\' | b'\n' | b'\r'))?;
    match text[end] {
        b'"' => Some((Token::Text(Cow::Borrowed(&text[..end])), &text[end + 1..])),
        b'\\' => escaped(text, end),
        _ => None,
    }
}

/// A string in which the first escape stands at `at`.
fn escaped(text: &[u8], at: usize) -> Option<(Token<'_>, &[u8])> {
    let mut out = text[..at].to_vec();
    let mut rest = &text[at..];
    loop {
        let (&byte, behind) = rest.split_first()?;
        rest = match byte {
            b'"' => return Some((Token::Text(Cow::Owned(out)), behind)),
            b'\n' | b'\r' => return None,
            b'\\' => escape(behind, &mut out)?,
            other => {
                out.push(other);
                behind
            }
        };
    }
}

fn escape<'a>(text: &'a [u8], out: &mut Vec<u8>) -> Option<&'a [u8]> {
    let (&letter, rest) = text.split_first()?;
    let byte = match letter {
        b'"' | b'\\' | b'/' => letter,
        b'b' => 8,
        b'f' => 12,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        // Half a pair, and the braces that a newer edition has, are read in more than one way.
        b'u' => {
            let code = std::str::from_utf8(rest.get(..4)?).ok()?;
            let all_digits = code.bytes().all(|byte| byte.is_ascii_hexdigit());
            let char = char::from_u32(u32::from_str_radix(code, 16).ok().filter(|_| all_digits)?)?;
            out.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
            return Some(&rest[4..]);
        }
        _ => return None,
    };
    out.push(byte);
    Some(rest)
}

/// A number, behind which no name and no dot may stand.
fn number(text: &[u8]) -> Option<(Token<'_>, &[u8])> {
    let digits = |at: usize| text[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let start = usize::from(text[0] == b'-');
    let mut end = start + digits(start);
    if end == start || (text[start] == b'0' && end > start + 1) {
        return None;
    }
    if text.get(end) == Some(&b'.') {
        let fraction = digits(end + 1);
        if fraction == 0 {
            return None;
        }
        end += 1 + fraction;
    }
    if matches!(text.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(text.get(end + 1), Some(b'+' | b'-')));
        let exponent = digits(end + 1 + sign);
        if exponent == 0 {
            return None;
        }
        end += 1 + sign + exponent;
    }
    let is_followed = text.get(end).is_some_and(|&byte| byte == b'.' || begins_name(byte));
    (!is_followed).then(|| (Token::Number(&text[..end]), &text[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Vec<String>> {
        let tokens = tokens(text.as_bytes()).ok()?;
        let told = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let one = |token: &Token<'_>| match token {
            Token::Name(name) => told(name),
            Token::Sign(sign) => char::from(*sign).to_string(),
            Token::Spread => "...".into(),
            Token::Number(number) => format!("n{}", told(number)),
            Token::Text(text) => format!("s{}", told(text)),
            Token::Block => "block".into(),
        };
        Some(tokens.iter().map(one).collect())
    }

    #[test]
    fn strings_and_comments_are_no_code() {
        assert_eq!(read("a # mutation { placeOrder }\nb").unwrap(), ["a", "b"]);
        assert_eq!(read("\u{feff}a #x\r{").unwrap(), ["a", "{"]);
        assert_eq!(
            read(r#"a("mutation { placeOrder }")"#).unwrap(),
            ["a", "(", "smutation { placeOrder }", ")"]
        );
        assert_eq!(read("\"\"\"mutation \\\"\"\" \" placeOrder\"\"\" a").unwrap(), ["block", "a"]);
        assert_eq!(read("\"\" a").unwrap(), ["s", "a"]);
    }

    #[test]
    fn escapes_are_undone_and_odd_ones_are_not_guessed_at() {
        assert_eq!(read(r#""a\u0062\"\\\/\né""#).unwrap(), ["sab\"\\/\né"]);
        for odd in [
            r#""\x""#,
            r#""\u12""#,
            r#""\ud83d\ude00""#,
            r#""\u{61}""#,
            "\"a\nb\"",
            "\"a",
            "\"\"\"a\"\"",
            r#""\u+0a1""#,
        ] {
            assert_eq!(read(odd), None, "{odd}");
        }
    }

    #[test]
    fn numbers_are_kept_as_text_and_malformed_ones_end_the_reading() {
        assert_eq!(read("7 -7 0 1.50 1e5 1.0E-7").unwrap(), ["n7", "n-7", "n0", "n1.50", "n1e5", "n1.0E-7"]);
        for odd in ["007", "1.", "1.e5", "-", "1e", "7a", "7.5.5", ".5"] {
            assert_eq!(read(odd), None, "{odd}");
        }
    }

    #[test]
    fn what_the_grammar_does_not_have_ends_the_reading() {
        for odd in ["a;b", "a\u{b}b", "#a\u{b}b", "é", "a%b", "..", "'a'", "a\0"] {
            assert_eq!(read(odd), None, "{odd:?}");
        }
        assert_eq!(tokens("a ".repeat(TOKENS_MAX + 1).as_bytes()).unwrap_err(), GraphqlProblem::TooMany);
    }
}
