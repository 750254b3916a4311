//! Stand-in.
#[derive(Default, Clone, Debug)]
pub struct DoneSpec {
    pub status: Vec<String>,
    pub body: Option<String>,
    pub json: Vec<(String, String)>,
    pub header: Vec<(String, String)>,
}
#[derive(Default, Debug)]
pub struct DoneWhen;
#[derive(Debug)]
pub struct Problem {
    pub field: String,
    pub message: String,
}
impl DoneWhen {
    pub fn new(specs: &[DoneSpec]) -> Result<Self, Vec<Problem>> {
        for spec in specs {
            if let Some(Err(error)) = spec.body.as_deref().map(regex::bytes::Regex::new) {
                return Err(vec![Problem { field: "body".into(), message: error.to_string() }]);
            }
        }
        Ok(DoneWhen)
    }
}
