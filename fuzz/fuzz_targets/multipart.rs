//! A multipart body of any bytes can be looked up and made canonical, and its parts lie within it.
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
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("multipart/form-data; boundary=b"));
    let content = body::read(&headers, &Bytes::copy_from_slice(bytes), 1 << 20);
    if let Content::Multipart(form) = &content {
        // Every part has a boundary line before it.
        assert!(form.parts().len() * 3 <= bytes.len());
    }
    let _ = content.form("order");
    let _ = canonical::print(&content, &[]);
});
