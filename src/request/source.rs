//! Stand-in.
#[derive(Clone, Debug)]
pub struct Source;
impl Source {
    pub fn parse(text: &str) -> Result<Self, String> {
        let known = ["path:", "query:", "header:", "cookie:", "form:", "json:"];
        if known.iter().any(|kind| text.starts_with(kind)) { Ok(Source) } else { Err("unknown kind".into()) }
    }
}
