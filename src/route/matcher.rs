//! Stand-in; the real one is written in parallel.
#[derive(Default, Clone, Debug)]
pub struct Spec {
    pub methods: Vec<String>,
    pub hosts: Vec<String>,
    pub path: Option<PathSpec>,
    pub query: Vec<(String, Pattern)>,
    pub headers: Vec<(String, Pattern)>,
    pub cookies: Vec<(String, Pattern)>,
    pub form: Vec<(String, Pattern)>,
    pub json: Vec<(String, Pattern)>,
    pub content_type: Vec<String>,
    pub not: Option<Box<Spec>>,
}
#[derive(Clone, Debug)]
pub enum PathSpec {
    Template(String),
    Regex(String),
}
#[derive(Clone, Debug)]
pub struct Pattern;
impl Pattern {
    pub fn parse(text: &str) -> Result<Self, String> {
        match text.strip_prefix('~').map(regex::Regex::new) {
            Some(Err(error)) => Err(error.to_string()),
            _ => Ok(Pattern),
        }
    }
    #[must_use]
    pub fn any(_: Vec<Pattern>) -> Self {
        Pattern
    }
}
#[derive(Debug)]
pub struct Matcher;
#[derive(Debug)]
pub struct Problem {
    pub field: String,
    pub message: String,
}
impl Matcher {
    pub fn new(spec: &Spec) -> Result<Self, Vec<Problem>> {
        if let Some(PathSpec::Regex(text)) = &spec.path
            && let Err(error) = regex::Regex::new(text)
        {
            return Err(vec![Problem { field: "path".into(), message: error.to_string() }]);
        }
        Ok(Matcher)
    }
}
