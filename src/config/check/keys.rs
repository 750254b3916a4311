//! Where a guard finds its keys: sources of values, and what the fingerprint leaves out.

use crate::{
    config::{
        file::{Kind, Value, one_line},
        problem::At,
        reader::{Located, Reader},
    },
    request::{Identity, canonical::Ignore, source::Source},
};

/// Sources of one key, and parts of one entry.
const SOURCES_MAX: usize = 32;

/// Parts of field names that are about money. A request that differs in one of them is never the same request.
const MONEY: [&str; 14] = [
    "amount", "total", "subtotal", "price", "currency", "qty", "quantity", "sum", "value", "cost", "cents",
    "discount", "coupon", "tax",
];

/// What holds all that is bought, where a field's name ends so: `cart-nonce` holds nothing.
const HOLDS: [&str; 5] = ["items", "cart", "basket", "lines", "products"];

/// What an identity was declared to be.
pub(super) struct Declared {
    pub identity: Identity,
    pub is_none: bool,
}

/// `order` or `event`: the first entry that is found wins; an entry that is a list is found when all its parts are.
pub(super) fn alternatives(
    reader: &Reader<'_>,
    key: &'static str,
    params: Option<&[String]>,
) -> Vec<Vec<Source>> {
    let Some(value) = reader.value(key) else { return Vec::new() };
    let entries = match &value.kind {
        Kind::Array(entries) => entries.as_slice(),
        _ => std::slice::from_ref(value),
    };
    if entries.len() > SOURCES_MAX {
        too_many(reader, key, &value.at);
        return Vec::new();
    }
    let mut alternatives = Vec::new();
    for entry in entries {
        let parts = match &entry.kind {
            Kind::Array(parts) => parts.as_slice(),
            _ => std::slice::from_ref(entry),
        };
        if parts.is_empty() || parts.len() > SOURCES_MAX {
            let what = format!("an entry of `{key}` has {} parts", parts.len());
            let mend = format!("write 1 to {SOURCES_MAX} sources, such as \"json:/order_id\"");
            reader.report().error(&entry.at, what, "", mend);
            continue;
        }
        alternatives.push(parts.iter().filter_map(|part| source_value(reader, key, part, params)).collect());
    }
    alternatives
}

/// `identity` of a guard; `None` where it is not declared.
pub(super) fn identity(reader: &Reader<'_>, params: Option<&[String]>) -> Option<Declared> {
    let texts = reader.texts("identity");
    let value = reader.value("identity")?;
    if texts.iter().any(|text| text.value == "none") {
        if texts.len() > 1 {
            let what = "`identity` has \"none\" and sources beside it";
            let mend = "write identity = \"none\" alone, or the sources alone";
            reader.report().error(&value.at, what, "it is not clear which is meant", mend);
        }
        return Some(Declared { identity: Identity::None, is_none: true });
    }
    if texts.is_empty() {
        let mend = "name a cookie or header, or write identity = \"none\" where the sender has none";
        reader.report().error(&value.at, "`identity` is empty", "", mend);
    }
    let sources = sources(reader, "identity", &texts, params);
    for text in texts.iter().filter(|text| text.value.split('|').skip(1).any(|step| step.starts_with("jwt:")))
    {
        let what = format!("`identity` has \"{}\", and no token's signature is looked at", text.value);
        let follows =
            "whoever writes that claim into a token of their own is given the answers of the one it names";
        let mend = "name the whole token, such as \"header:cart-token\"; a claim is for `order`, where it can only wait";
        reader.report().warning(&text.at, what, follows, mend);
    }
    Some(Declared { identity: Identity::AllPresent(sources), is_none: false })
}

/// `identity` of a renew rule, which has to be one.
pub(super) fn renew_identity(reader: &Reader<'_>, params: Option<&[String]>) -> Vec<Source> {
    let texts = reader.texts("identity");
    if texts.is_empty() || texts.iter().any(|text| text.value == "none") {
        let follows = "it is not known whose records end";
        let mend = "name what the guards name, for example identity = [\"cookie:PHPSESSID\"]";
        reader.report().error(&reader.at_value("identity"), "[[renew]] without an identity", follows, mend);
        return Vec::new();
    }
    sources(reader, "identity", &texts, params)
}

/// `ignore`: what the fingerprint leaves out of body and query.
pub(super) fn ignore(reader: &Reader<'_>) -> Vec<Ignore> {
    let texts = reader.texts("ignore");
    if texts.len() > 256 {
        too_many(reader, "ignore", &reader.at_value("ignore"));
        return Vec::new();
    }
    let mut rules = Vec::new();
    for text in texts {
        match Ignore::parse(&text.value) {
            Ok(rule) => {
                rules.push(rule);
                money_ignored(reader, &text);
            }
            Err(error) => {
                let what = format!("`ignore` has \"{}\": {}", text.value, one_line(&error.to_string()));
                let mend = "write for example \"form:_wpnonce\", \"json:/timestamp\" or \"query:_*\"";
                reader.report().error(&text.at, what, "", mend);
            }
        }
    }
    rules
}

fn money_ignored(reader: &Reader<'_>, rule: &Located<String>) {
    if let Some(money) = money(&rule.value) {
        let what = format!("`ignore` leaves out \"{}\", which covers `{money}`", rule.value);
        let follows = "two requests that differ in it would be taken for one, and one of them never sent";
        reader.report().warning(&rule.at, what, follows, "ignore only what changes from click to click");
    }
}

fn sources(
    reader: &Reader<'_>,
    key: &'static str,
    texts: &[Located<String>],
    params: Option<&[String]>,
) -> Vec<Source> {
    if texts.len() > SOURCES_MAX {
        too_many(reader, key, &reader.at_value(key));
        return Vec::new();
    }
    texts.iter().filter_map(|text| source(reader, key, text, params)).collect()
}

fn source_value(
    reader: &Reader<'_>,
    key: &'static str,
    value: &Value,
    params: Option<&[String]>,
) -> Option<Source> {
    let Kind::Text(text) = &value.kind else {
        let what = format!("`{key}` holds {}", value.kind.name());
        reader.report().error(&value.at, what, "", "write sources, such as \"json:/order_id\"");
        return None;
    };
    source(reader, key, &Located { value: text.clone(), at: value.at.clone() }, params)
}

fn source(
    reader: &Reader<'_>,
    key: &str,
    text: &Located<String>,
    params: Option<&[String]>,
) -> Option<Source> {
    let report = reader.report();
    let source = match Source::parse(&text.value) {
        Ok(source) => source,
        Err(error) => {
            let what = format!("`{key}` has \"{}\": {}", text.value, one_line(&error.to_string()));
            let mend = "write for example \"path:cart\", \"form:order_id\", \"json:/order/id\" or \"cookie:PHPSESSID\"";
            report.error(&text.at, what, "", mend);
            return None;
        }
    };
    let path_name = text.value.strip_prefix("path:").map(|rest| rest.split('|').next().unwrap_or(rest));
    if let (Some(name), Some(params)) = (path_name, params)
        && !params.iter().any(|param| param == name)
    {
        let what = format!("`{key}` has \"path:{name}\", and the route's path has no {{{name}}}");
        let mend = match crate::config::suggest::closest(name, params.iter().map(String::as_str)) {
            Some(meant) => format!("did you mean \"path:{meant}\"?"),
            None => format!("write {{{name}}} where it stands in `path`"),
        };
        report.error(&text.at, what, "it would never be found", mend);
    }
    Some(source)
}

/// The word about money that an ignore rule covers, if there is one; `*` where it covers everything.
fn money(rule: &str) -> Option<&'static str> {
    // What stands before the last step says where, and is not left out.
    money_in(rule.rsplit('|').next()?)
}

fn money_in(rule: &str) -> Option<&'static str> {
    let (kind, name) = rule.split_once(':')?;
    if kind == "header" || kind == "cookie" {
        return None;
    }
    // `totalPrice` is two words, too.
    let mut split = String::with_capacity(name.len() + 4);
    for char in name.chars() {
        if char.is_ascii_uppercase() && split.ends_with(|before: char| before.is_ascii_lowercase()) {
            split.push('_');
        }
        split.push(char.to_ascii_lowercase());
    }
    let name = split;
    if let Some(prefix) = name.strip_suffix('*')
        && kind != "json"
    {
        if prefix.is_empty() {
            return Some("every field");
        }
        if let Some(word) = MONEY.iter().find(|word| word.starts_with(prefix)) {
            return Some(word);
        }
    }
    if kind == "json" && (name.is_empty() || name == "/" || name == "/*") {
        return Some("every field");
    }
    let words: Vec<&str> = name.split(|c: char| !c.is_ascii_alphanumeric()).collect();
    let known =
        |words: &[&str], known: &[&'static str]| known.iter().find(|word| words.contains(word)).copied();
    known(&words, &MONEY).or_else(|| known(&words[words.len() - 1..], &HOLDS))
}

fn too_many(reader: &Reader<'_>, key: &str, at: &At) {
    reader.report().error(
        at,
        format!("`{key}` has too many entries"),
        "every request would try them all",
        "write fewer",
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_money_is_seen_in_every_spelling() {
        for rule in [
            "form:amount",
            "json:/order/total",
            "query:Price",
            "form:line[0][qty]",
            "form:a*",
            "json:/sub_total",
            "json:/totalPrice",
            "form:orderAmountCents",
            "json:/cart/items",
            "json:/form_encoded|form:a*",
        ] {
            assert!(money(rule).is_some(), "{rule}");
        }
        for rule in ["form:*", "json:", "json:/*", "query:*"] {
            assert_eq!(money(rule), Some("every field"), "{rule}");
        }
        for rule in [
            "form:_wpnonce",
            "form:woocommerce-cart-nonce",
            "json:/totally_fine",
            "json:/total|form:_wpnonce",
            "header:*",
            "cookie:price",
            "query:_*",
            "nonsense",
        ] {
            assert_eq!(money(rule), None, "{rule}");
        }
    }
}
