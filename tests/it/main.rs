//! The integration tests: one binary, so that they are linked once. Each module is about one promise.

#[cfg(test)]
mod shop;
