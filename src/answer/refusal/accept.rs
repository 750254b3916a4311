//! Who reads a refusal: a program or a person.
//!
//! It never negotiates more than these two forms, and a doubt is decided for the program.

use http::{HeaderMap, header::ACCEPT};

/// How many ranges of `Accept` are looked at; a browser sends seven.
const RANGES_MAX: usize = 32;

/// The form of a refusal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wants {
    /// `application/problem+json` (RFC 9457).
    Problem,
    /// A page for a browser.
    Html,
}

/// How much a kind is wanted, in thousandths, and where it stood first.
#[derive(Clone, Copy)]
struct Rank {
    quality: u16,
    place: usize,
}

impl Wants {
    /// A page where `Accept` names HTML itself and prefers it to JSON (RFC 9110, section 12.5.1); of two equals the
    /// one that is named first. `*/*` alone is a program.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        let (mut html, mut json): (Option<Rank>, Option<Rank>) = (None, None);
        let lines = headers.get_all(ACCEPT).iter();
        let ranges = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
        for (place, range) in ranges.take(RANGES_MAX).enumerate() {
            let mut parts = range.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
            let kind = parts.next().unwrap_or_default();
            let is = |name: &str| kind.eq_ignore_ascii_case(name.as_bytes());
            let slot = if is("text/html") || is("application/xhtml+xml") {
                &mut html
            } else if is("application/json") || is("application/problem+json") {
                &mut json
            } else {
                continue;
            };
            let quality = parts.find_map(quality).unwrap_or(1_000);
            if slot.is_none_or(|before| before.quality < quality) {
                *slot = Some(Rank { quality, place });
            }
        }
        match (html, json) {
            (Some(html), Some(json)) if html.quality > json.quality => Self::Html,
            (Some(html), Some(json))
                if html.quality == json.quality && html.quality > 0 && html.place < json.place =>
            {
                Self::Html
            }
            (Some(html), None) if html.quality > 0 => Self::Html,
            (Some(_) | None, Some(_) | None) => Self::Problem,
        }
    }
}

/// The weight of `q=`, in thousandths; one that is no weight counts as 0, so that nonsense is not preferred.
fn quality(parameter: &[u8]) -> Option<u16> {
    let (name, value) = parameter.split_at_checked(2)?;
    if !name.eq_ignore_ascii_case(b"q=") {
        return None;
    }
    let weight = std::str::from_utf8(value).ok().and_then(|text| text.trim().parse::<f32>().ok());
    let weight = weight.filter(|weight| (0.0..=1.0).contains(weight)).unwrap_or(0.0);
    // Between 0 and 1000 by the filter above, so the cast neither wraps nor loses a sign.
    Some((weight * 1_000.0) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wants(accept: &[&str]) -> Wants {
        let mut headers = HeaderMap::new();
        for line in accept {
            headers.append(ACCEPT, line.parse().unwrap());
        }
        Wants::of(&headers)
    }

    #[test]
    fn a_page_is_for_those_who_prefer_html() {
        for html in [
            "text/html",
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
            "application/json;q=0.5, TEXT/HTML;level=1;q=0.9",
            "text/html, application/json",
        ] {
            assert_eq!(wants(&[html]), Wants::Html, "{html}");
        }
        for problem in [
            "*/*",
            "text/*",
            "application/json, text/javascript, */*; q=0.01",
            "application/json, text/html",
            "text/html;q=0, application/json;q=0",
            "text/html;q=0",
            "text/html;q=nan",
            "text/html;q=7",
            "",
        ] {
            assert_eq!(wants(&[problem]), Wants::Problem, "{problem}");
        }
        assert_eq!(wants(&["application/json;q=0.1", "text/html"]), Wants::Html);
    }
}
