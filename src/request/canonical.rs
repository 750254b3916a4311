//! Stand-in.
#[derive(Clone, Debug)]
pub struct Ignore;
impl Ignore {
    pub fn parse(text: &str) -> Result<Self, String> {
        super::source::Source::parse(text).map(|_| Ignore)
    }
}
