//! Whatever is taken for JSON here is JSON to another parser too, and reads the same way each time.
#![no_main]

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use libfuzzer_sys::fuzz_target;
use oncegate::request::{
    body::{self, Content},
    canonical,
};

fuzz_target!(|bytes: &[u8]| {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let content = body::read(&headers, &Bytes::copy_from_slice(bytes), 1 << 20);
    if matches!(content, Content::Json(_)) {
        let other = serde_json::from_slice::<serde::de::IgnoredAny>(bytes);
        assert!(other.is_ok(), "{other:?}");
    }
    let _ = content.json("/order/0/id");
    let print = canonical::print(&content, &[]);
    assert_eq!(print, canonical::print(&content.clone(), &[]));
    if matches!(content, Content::Json(_)) {
        // The canonical text is JSON, and its own canonical text.
        let again = body::read(&headers, &Bytes::from(print.clone()), usize::MAX);
        assert_eq!(print, canonical::print(&again, &[]));
    }
});
