//! A path has readings, whatever it is, and every reading is one that a rule can be matched against.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oncegate::route::path;

fuzz_target!(|text: &str| {
    let readings = path::read(text);
    for path in std::iter::once(&readings.path).chain(&readings.others) {
        assert!(path.starts_with('/'), "{path:?}");
        assert!(!path.contains("//"), "{path:?}");
        assert!(path == "/" || !path.ends_with('/'), "{path:?}");
        assert!(!path.split('/').any(|segment| segment == "." || segment == ".."), "{path:?}");
    }
    // Five (itself and four aliases) for each of at most 32 spellings.
    assert!(readings.others.len() < 32 * 5);
});
