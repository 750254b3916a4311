//! Adyen signs every item of a notification by itself, over eight of its fields.
//!
//! What else an item says is not signed, so that is no proof of it. All items must be good: a batch is one request to
//! the shop, and holds the lanes of all of its orders.

use super::{BadSignature, Signed, Verified, Verify, text};
use crate::request::{
    LANES_MAX,
    body::{self, Content},
    json::Pointer,
    lookup::Lookup,
};

/// In the order in which they are signed, joined by colons; what is not there is empty.
const FIELDS: [&str; 8] = [
    "pspReference",
    "originalReference",
    "merchantAccountCode",
    "merchantReference",
    "amount/value",
    "amount/currency",
    "eventCode",
    "success",
];

pub(super) fn check(verify: &Verify, signed: &Signed<'_>) -> Result<Verified, BadSignature> {
    let content = body::read(signed.headers, signed.body, signed.decoded_max);
    match items(&content)? {
        0 => return Err(BadSignature::Missing),
        // More than a request may have lanes.
        many if many > LANES_MAX => return Err(BadSignature::Unreadable),
        items => (0..items).try_for_each(|index| item(verify, &content, index))?,
    }
    Ok(Verified { at: None })
}

fn items(content: &Content) -> Result<usize, BadSignature> {
    match content {
        Content::Json(document) => {
            let each = Pointer::parse("/notificationItems/*");
            Ok(each.map_or(0, |each| document.matches(&each).len()))
        }
        Content::Unreadable { .. } => Err(BadSignature::Unreadable),
        Content::Empty | Content::Form(_) | Content::Multipart(_) | Content::Xml(_) | Content::Raw(_) => {
            Ok(0)
        }
    }
}

fn item(verify: &Verify, content: &Content, index: usize) -> Result<(), BadSignature> {
    let field = |name: &str| {
        let pointer = format!("/notificationItems/{index}/NotificationRequestItem/{name}");
        match content.json(&pointer) {
            Lookup::Absent => Ok(Vec::new()),
            Lookup::Found(values) => {
                Ok(values.into_iter().next().map(|value| value.bytes).unwrap_or_default())
            }
            Lookup::Ambiguous(_) | Lookup::Unreadable(_) => Err(BadSignature::Unreadable),
        }
    };
    let signature = field("additionalData/hmacSignature")?;
    if signature.is_empty() {
        return Err(BadSignature::Missing);
    }
    let signature = text::base64(&signature).ok_or(BadSignature::Unreadable)?;
    let values = FIELDS.iter().map(|name| field(name)).collect::<Result<Vec<_>, _>>()?;
    verify.is_signed(&[&values.join(&b':')], &[signature])
}
