//! A form of any bytes can be looked up and made canonical.
#![no_main]

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use libfuzzer_sys::fuzz_target;
use oncegate::request::{body, canonical, query};

fuzz_target!(|bytes: &[u8]| {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
    let content = body::read(&headers, &Bytes::copy_from_slice(bytes), 1 << 20);
    let _ = content.form("order[id]");
    let _ = canonical::print(&content, &[]);
    // What PHP makes of a name is a name that it leaves as it is.
    let once = query::php_name(bytes).into_owned();
    assert_eq!(query::php_name(&once), once.as_slice());
});
