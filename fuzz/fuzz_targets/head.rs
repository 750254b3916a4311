//! A head is judged by its own bytes: what comes behind it changes nothing, and no part of it is whole.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oncegate::edge::strict::{
    StrictLimits,
    scan::{self, Verdict},
};

const LIMITS: StrictLimits = StrictLimits { head_bytes_max: 4096, target_bytes_max: 1024, fields_max: 32 };

fuzz_target!(|bytes: &[u8]| match scan::head(bytes, &LIMITS) {
    Verdict::Whole(head) => {
        assert!(head.len <= bytes.len().min(LIMITS.head_bytes_max));
        assert_eq!(scan::head(&bytes[..head.len], &LIMITS), Verdict::Whole(head));
        assert_eq!(scan::head(&bytes[..head.len - 1], &LIMITS), Verdict::Partial);
    }
    Verdict::Partial => assert!(bytes.len() < LIMITS.head_bytes_max),
    Verdict::Bad(violation) => assert!(!violation.what.is_empty()),
});
