//! GraphQL: which operation a request selects, what its root fields are, and what stands in their arguments.
//!
//! A shop reads a query from a JSON body, from a form, from the URL, or bare; one at a time or several in an array.
//! All of them are looked at, whatever the body was declared as: a shop that does not look at the declaration must not
//! be told of an order behind our back. What may be an order counts as one where routes are matched; where a key is
//! read, whatever is not certain is ambiguous. Names have no other spelling, so a text in which a name does not stand
//! is certainly not about it, readable or not.

use bytes::Bytes;
use memchr::memmem;

use self::document::{Document, Field, Kind, Object, Operation, Value};
use super::{
    View,
    body::Content,
    json::{self, Pointer},
    lookup::{Kind as ValueKind, Lookup, Value as Found, Values},
    query,
};

mod document;
mod lexer;

/// How many operations one request may carry in an array.
pub const BATCH_MAX: usize = 64;

/// Why a text is not GraphQL to us.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum GraphqlProblem {
    #[error("it is not GraphQL at byte {0}")]
    Syntax(usize),
    #[error("it does not follow the grammar of GraphQL")]
    Grammar,
    #[error("it nests too deep")]
    TooDeep,
    #[error("it has too many tokens")]
    TooMany,
}

/// Which value is meant: an argument of a root field, or a member of an argument that is an object; with slashes, the
/// whole way from the arguments on, in which `*` is each item of a list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pick {
    path: Vec<String>,
}

/// Whether a request carries out one of some mutations.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Carries {
    No,
    /// It is among what the request may come to.
    Perhaps,
    /// It is all that the request can come to.
    Certainly,
    Unreadable(String),
}

impl Pick {
    /// `None` where a part of it is no name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let path: Vec<String> = text.split('/').map(str::to_owned).collect();
        let is_sound = path[0] != "*" && path.iter().all(|part| part == "*" || is_name(part));
        is_sound.then_some(Self { path })
    }
}

/// Whether a text is a name of GraphQL.
#[must_use]
pub fn is_name(text: &str) -> bool {
    text.bytes().next().is_some_and(lexer::begins_name) && text.bytes().all(lexer::is_of_name)
}

/// Looks a value up in the operations of a request.
#[must_use]
pub fn lookup(view: &View<'_>, content: &Content, pick: &Pick) -> Lookup {
    let requests = match requests(view, content) {
        Ok(requests) if requests.certain => requests.all,
        Ok(_) => return Lookup::Ambiguous("a query stands in the URL and in the body".into()),
        Err(lookup) => return lookup,
    };
    let mut values = Values::new();
    for request in &requests {
        match request.lookup(pick) {
            Lookup::Absent => {}
            Lookup::Found(more) => more.into_iter().for_each(|value| push(&mut values, value)),
            other => return other,
        }
        if values.len() > super::lookup::VALUES_MAX {
            return Lookup::Unreadable("it has too many values".into());
        }
    }
    if values.is_empty() { Lookup::Absent } else { Lookup::Found(values) }
}

/// Whether a request carries out one of these mutations; `*` is any.
#[must_use]
pub fn carries(view: &View<'_>, content: &Content, names: &[String]) -> Carries {
    let requests = match requests(view, content) {
        Ok(requests) => requests,
        Err(Lookup::Ambiguous(why) | Lookup::Unreadable(why)) => return Carries::Unreadable(why),
        Err(Lookup::Absent | Lookup::Found(_)) => return Carries::No,
    };
    let (mut any, mut all) = (false, requests.certain && !requests.all.is_empty());
    for request in &requests.all {
        match request.carries(names) {
            Carries::No => all = false,
            Carries::Perhaps => (any, all) = (true, false),
            Carries::Certainly => any = true,
            unreadable @ Carries::Unreadable(_) => return unreadable,
        }
    }
    match (any, all) {
        (false, _) => Carries::No,
        (true, false) => Carries::Perhaps,
        (true, true) => Carries::Certainly,
    }
}

/// What a request carries.
struct Requests {
    all: Vec<Request>,
    /// Whether there is one reading of it.
    certain: bool,
}

/// One query and what belongs to it.
struct Request {
    /// `None`: the shop is told which of the queries it knows is meant, and nothing of its text.
    query: Option<Vec<u8>>,
    operation: Option<Vec<u8>>,
    /// The document in which the variables stand, and where.
    variables: Option<(json::Document, Pointer)>,
}

/// All that a shop could take for a query. An error is what a lookup would say.
fn requests(view: &View<'_>, content: &Content) -> Result<Requests, Lookup> {
    let in_url = of_form(|name| query::lookup(view.query.as_bytes(), name.as_bytes()))?;
    let in_body = match content {
        Content::Empty | Content::Xml(_) => Vec::new(),
        Content::Json(document) => of_json(document)?,
        Content::Form(_) => Vec::from_iter(of_form(|name| content.form(name))?),
        Content::Multipart(_) => match one_text(content.form("operations"))? {
            Some(operations) => of_json(&parsed(operations)?)?,
            None => Vec::from_iter(of_form(|name| content.form(name))?),
        },
        Content::Raw(raw) => of_raw(raw)?,
        Content::Unreadable { reason, .. } => return Err(Lookup::Unreadable(reason.to_string())),
    };
    let certain = in_url.is_none() || in_body.is_empty();
    Ok(Requests { all: in_url.into_iter().chain(in_body).collect(), certain })
}

fn of_form(field: impl Fn(&str) -> Lookup) -> Result<Option<Request>, Lookup> {
    let Some(query) = one_text(field("query"))? else { return Ok(None) };
    let variables = match one_text(field("variables"))? {
        Some(text) => Some((parsed(text)?, Pointer::whole())),
        None => None,
    };
    Ok(Some(Request { query: Some(query), operation: one_text(field("operationName"))?, variables }))
}

/// An object is a request, and each item of an array is one.
fn of_json(document: &json::Document) -> Result<Vec<Request>, Lookup> {
    let items = document.items();
    if items > BATCH_MAX {
        return Err(Lookup::Unreadable(format!("there are more than {BATCH_MAX} operations")));
    }
    let places = match items {
        0 => vec![Pointer::whole()],
        items => (0..items).map(|index| Pointer::member(&index.to_string())).collect(),
    };
    places.into_iter().filter_map(|place| of_object(document, &place).transpose()).collect()
}

fn of_object(document: &json::Document, place: &Pointer) -> Result<Option<Request>, Lookup> {
    let at = |name: &str| place.then(&Pointer::member(name));
    let query = one_text(document.lookup(&at("query")))?;
    let is_known_to_the_shop =
        || ["extensions", "documentId", "queryId"].iter().any(|name| !document.matches(&at(name)).is_empty());
    if query.is_none() && !is_known_to_the_shop() {
        return Ok(None);
    }
    let variables = match document.matches(&at("variables")).as_slice() {
        [] => None,
        // Some clients send them as a text.
        [one] => match document.string_at(*one) {
            Some(text) => Some((parsed(text.to_vec())?, Pointer::whole())),
            None => Some((document.clone(), at("variables"))),
        },
        _ => return Err(Lookup::Ambiguous("its variables stand twice".into())),
    };
    Ok(Some(Request { query, operation: one_text(document.lookup(&at("operationName")))?, variables }))
}

/// A body that was declared as something else, or as nothing: JSON to a shop that does not mind, or a bare query.
fn of_raw(raw: &Bytes) -> Result<Vec<Request>, Lookup> {
    let bare = raw.slice(if raw.starts_with(b"\xEF\xBB\xBF") { 3.. } else { 0.. });
    match json::Document::parse(bare) {
        Ok(document) => of_json(&document),
        Err(_) => Ok(vec![Request { query: Some(raw.to_vec()), operation: None, variables: None }]),
    }
}

fn one_text(found: Lookup) -> Result<Option<Vec<u8>>, Lookup> {
    match found {
        Lookup::Absent => Ok(None),
        Lookup::Found(values) => Ok(values.into_iter().next().map(|value| value.bytes)),
        other => Err(other),
    }
}

fn parsed(text: Vec<u8>) -> Result<json::Document, Lookup> {
    let unreadable = |problem| Lookup::Unreadable(format!("of its variables or operations {problem}"));
    json::Document::parse(text.into()).map_err(unreadable)
}

impl Request {
    fn carries(&self, names: &[String]) -> Carries {
        let Some(text) = &self.query else {
            return Carries::Unreadable("it names a query that is known to the shop alone".into());
        };
        let is_mentioned = |name: &String| {
            let word = if name == "*" { "mutation" } else { name };
            memmem::find(text, word.as_bytes()).is_some()
        };
        if !begins(text) || !names.iter().any(is_mentioned) {
            return Carries::No;
        }
        let document = match Document::parse(text) {
            Ok(document) => document,
            Err(problem) => return Carries::Unreadable(format!("of its query {problem}")),
        };
        let is_meant =
            |field: &&Field<'_>| names.iter().any(|name| name == "*" || name.as_bytes() == field.name);
        let selected = document.selected(self.operation.as_deref());
        let (mut any, mut all) = (false, selected.len() == 1);
        for operation in selected {
            let fields = match operation.kind {
                Kind::Mutation => document.fields(operation),
                Kind::Query | Kind::Subscription => Vec::new(),
            };
            any |= fields.iter().any(is_meant);
            all &= fields.iter().all(is_meant);
        }
        match (any, all) {
            (false, _) => Carries::No,
            (true, false) => Carries::Perhaps,
            (true, true) => Carries::Certainly,
        }
    }

    fn lookup(&self, pick: &Pick) -> Lookup {
        let Some(text) = &self.query else {
            return Lookup::Unreadable("it names a query that is known to the shop alone".into());
        };
        if !begins(text) {
            return Lookup::Absent;
        }
        let document = match Document::parse(text) {
            Ok(document) => document,
            Err(problem) => return Lookup::Unreadable(format!("of its query {problem}")),
        };
        let selected = document.selected(self.operation.as_deref());
        let operation = match selected.as_slice() {
            [] => return Lookup::Absent,
            [one] => *one,
            _ => return Lookup::Ambiguous("it is not said which of its operations is meant".into()),
        };
        let mut values = Values::new();
        for field in document.fields(operation) {
            match self.in_field(operation, field, pick) {
                Lookup::Absent => {}
                Lookup::Found(more) => more.into_iter().for_each(|value| push(&mut values, value)),
                other => return other,
            }
            if values.len() > super::lookup::VALUES_MAX {
                return Lookup::Unreadable("it has too many values".into());
            }
        }
        if values.is_empty() { Lookup::Absent } else { Lookup::Found(values) }
    }

    /// The value in the arguments of one root field.
    fn in_field(&self, operation: &Operation<'_>, field: &Field<'_>, pick: &Pick) -> Lookup {
        let scope = Scope { request: self, operation };
        let [name] = pick.path.as_slice() else {
            return scope.walk_object(&field.arguments, &pick.path);
        };
        // An argument of that name, or a member of an object that is one: Magento's `input: { cart_id: … }`.
        let mut found = Vec::from([scope.walk_object(&field.arguments, &pick.path)]);
        for (_, argument) in &field.arguments {
            if matches!(argument, Value::Object(_) | Value::Variable(_)) {
                found.push(scope.walk(argument, &pick.path));
            }
        }
        match one_of(found) {
            // Names of variables are the client's choice, so they come last.
            Lookup::Absent if uses(&field.arguments, name) => {
                scope.walk(&Value::Variable(name.as_bytes()), &[])
            }
            other => other,
        }
    }
}

/// Whether anything is selected in a text. A field called `query` may as well hold what somebody looks for in a shop.
fn begins(text: &[u8]) -> bool {
    memchr::memchr(b'{', text).is_some()
}

/// What variables mean in one operation.
struct Scope<'s> {
    request: &'s Request,
    operation: &'s Operation<'s>,
}

impl Scope<'_> {
    fn walk_object(&self, object: &Object<'_>, path: &[String]) -> Lookup {
        let Some((name, rest)) = path.split_first() else {
            return Lookup::Unreadable("it is an object, not a value".into());
        };
        let members = object.iter().filter(|(member, _)| *member == name.as_bytes());
        one_of(members.map(|(_, value)| self.walk(value, rest)).collect())
    }

    fn walk(&self, value: &Value<'_>, path: &[String]) -> Lookup {
        match (value, path) {
            (Value::Variable(name), _) => self.variable(name, path),
            (Value::Object(object), _) => self.walk_object(object, path),
            (Value::List(items), [each, rest @ ..]) if each == "*" => {
                let mut values = Values::new();
                for item in items {
                    match self.walk(item, rest) {
                        Lookup::Absent => {}
                        Lookup::Found(more) => more.into_iter().for_each(|value| push(&mut values, value)),
                        other => return other,
                    }
                    if values.len() > super::lookup::VALUES_MAX {
                        return Lookup::Unreadable("it has too many values".into());
                    }
                }
                if values.is_empty() { Lookup::Absent } else { Lookup::Found(values) }
            }
            (Value::List(_), []) => Lookup::Unreadable("it is a list, not a value".into()),
            (_, [_, ..]) | (Value::Null, []) => Lookup::Absent,
            (Value::Text(text), []) => Lookup::text(text.to_vec()),
            (Value::Number(number), []) => one(number, ValueKind::Number),
            (Value::Word(word @ (b"true" | b"false")), []) => one(word, ValueKind::Other),
            (Value::Word(word), []) => one(word, ValueKind::Text),
            (Value::Block, []) => Lookup::Unreadable("it is a block string".into()),
        }
    }

    /// What a request gives a variable, else its default. A default holds no variables.
    fn variable(&self, name: &[u8], path: &[String]) -> Lookup {
        let given = match (&self.request.variables, std::str::from_utf8(name)) {
            (Some((document, place)), Ok(name)) => {
                let inner = path.iter().map(|part| match part.as_str() {
                    "*" => Pointer::each(),
                    part => Pointer::member(part),
                });
                let pointer =
                    inner.fold(place.then(&Pointer::member(name)), |pointer, part| pointer.then(&part));
                document.lookup(&pointer)
            }
            _ => Lookup::Absent,
        };
        let defaults = self.operation.variables.iter().filter(|(variable, _)| *variable == name);
        match (given, defaults.filter_map(|(_, default)| default.as_ref()).next()) {
            (Lookup::Absent, Some(Value::Variable(_))) => Lookup::Absent,
            (Lookup::Absent, Some(default)) if !holds_variable(default) => self.walk(default, path),
            (given, _) => given,
        }
    }
}

fn holds_variable(value: &Value<'_>) -> bool {
    match value {
        Value::Variable(_) => true,
        Value::List(items) => items.iter().any(holds_variable),
        Value::Object(members) => members.iter().any(|(_, value)| holds_variable(value)),
        Value::Text(_) | Value::Number(_) | Value::Word(_) | Value::Null | Value::Block => false,
    }
}

/// Whether a variable stands somewhere in these arguments.
fn uses(arguments: &Object<'_>, name: &str) -> bool {
    fn used(value: &Value<'_>, name: &[u8]) -> bool {
        match value {
            Value::Variable(variable) => *variable == name,
            Value::List(items) => items.iter().any(|item| used(item, name)),
            Value::Object(members) => members.iter().any(|(_, value)| used(value, name)),
            Value::Text(_) | Value::Number(_) | Value::Word(_) | Value::Null | Value::Block => false,
        }
    }
    arguments.iter().any(|(_, value)| used(value, name.as_bytes()))
}

fn one(bytes: &[u8], kind: ValueKind) -> Lookup {
    Lookup::Found(Values::from_iter([Found { bytes: bytes.to_vec(), kind }]))
}

/// One value in several places has to be the same in all of them.
fn one_of(found: Vec<Lookup>) -> Lookup {
    let mut out = Lookup::Absent;
    for one in found {
        match (&out, one) {
            (_, Lookup::Absent) => {}
            (Lookup::Absent, one) => out = one,
            (same, one) if *same == one => {}
            (_, unsound @ (Lookup::Ambiguous(_) | Lookup::Unreadable(_))) => return unsound,
            (_, Lookup::Found(_)) => {
                return Lookup::Ambiguous("it stands in several places of the arguments".into());
            }
        }
    }
    out
}

fn push(values: &mut Values, value: Found) {
    if !values.contains(&value) {
        values.push(value);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::sample::Sample, *};

    const PLACE: &str =
        "mutation Place($cartId: String!) { placeOrder(input: {cart_id: $cartId}) { orderV2 { number } } }";

    fn body(query: &str, variables: serde_json::Value) -> Sample {
        Sample::json(serde_json::json!({ "query": query, "variables": variables }).to_string())
    }

    fn bare(query: &str) -> Sample {
        Sample::json(serde_json::json!({ "query": query }).to_string())
    }

    fn carried(sample: &Sample, names: &[&str]) -> Carries {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        carries(&sample.view(), &sample.content(), &names)
    }

    fn places_order(sample: &Sample) -> Carries {
        carried(sample, &["placeOrder", "setPaymentMethodAndPlaceOrder"])
    }

    fn cart(sample: &Sample) -> Lookup {
        sample.look("graphql:cart_id")
    }

    fn texts(lookup: Lookup) -> Vec<String> {
        match lookup {
            Lookup::Found(values) => {
                values.into_iter().map(|value| String::from_utf8(value.bytes).unwrap()).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    fn in_form(fields: &[(&str, &str)]) -> String {
        let escape = |text: &str| text.bytes().map(|byte| format!("%{byte:02x}")).collect::<String>();
        fields.iter().map(|(name, value)| format!("{name}={}", escape(value))).collect::<Vec<_>>().join("&")
    }

    #[test]
    fn the_cart_of_an_order_is_found_in_a_literal_or_a_variable() {
        let variable = body(PLACE, serde_json::json!({ "cartId": "Zk7" }));
        assert_eq!((places_order(&variable), cart(&variable)), (Carries::Certainly, Lookup::text("Zk7")));
        assert_eq!(
            cart(&bare(r#"mutation { placeOrder(input: {cart_id: "Zk\u0037"}) { order { id } } }"#)),
            Lookup::text("Zk7")
        );
        let whole = "mutation($input: PlaceOrderInput) { placeOrder(input: $input) { orderV2 { number } } }";
        assert_eq!(
            cart(&body(whole, serde_json::json!({ "input": { "cart_id": "Zk7" } }))),
            Lookup::text("Zk7")
        );
        let default =
            r#"mutation($id: String = "Zk7") { placeOrder(input: {cart_id: $id}) { errors { code } } }"#;
        assert_eq!(cart(&bare(default)), Lookup::text("Zk7"));
        assert_eq!(cart(&body(default, serde_json::json!({ "id": "A" }))), Lookup::text("A"));
        let text = Sample::json(
            serde_json::json!({ "query": PLACE, "variables": "{\"cartId\":\"Zk7\"}" }).to_string(),
        );
        assert_eq!(cart(&text), Lookup::text("Zk7"));
        let number = bare("mutation { placeOrder(cart_id: 007) }");
        assert!(matches!(cart(&number), Lookup::Unreadable(_)));
        assert_eq!(texts(cart(&bare("mutation { placeOrder(cart_id: 7) }"))), ["7"]);
        assert_eq!(cart(&bare("mutation { placeOrder(cart_id: null) }")), Lookup::Absent);
        assert!(matches!(
            cart(&bare("mutation { placeOrder(cart_id: \"\"\"Zk7\"\"\") }")),
            Lookup::Unreadable(_)
        ));
    }

    #[test]
    fn the_name_of_a_variable_is_known_too_where_it_is_used_by_a_root_field() {
        let sample = body(PLACE, serde_json::json!({ "cartId": "Zk7" }));
        assert_eq!(sample.look("graphql:cartId"), Lookup::text("Zk7"));
        let unused = body(
            "mutation($cartId: ID) { placeOrder { a(x: $cartId) } }",
            serde_json::json!({ "cartId": "A" }),
        );
        assert_eq!(unused.look("graphql:cartId"), Lookup::Absent);
        // The argument is the shop's word, the variable the client's.
        let lying = body(
            "mutation($cart_id: ID, $b: ID) { placeOrder(input: {cart_id: $b, note: $cart_id}) { a } }",
            serde_json::json!({ "cart_id": "A", "b": "B" }),
        );
        assert_eq!(cart(&lying), Lookup::text("B"));
    }

    #[test]
    fn a_query_that_only_talks_of_an_order_is_none() {
        for query in [
            r#"query { products(search: "mutation placeOrder") { total_count } }"#,
            "# mutation { placeOrder }\n{ products { total_count } }",
            "query { placeOrder: products { total_count } }",
            "query placeOrder { products { total_count } }",
            "mutation { addProductsToCart(cartId: \"placeOrder\") { cart { placeOrder } } }",
            "mutation placeOrder { placeOrder: setPaymentMethodOnCart(input: {}) { cart { id } } }",
            "mutation { a(x: {placeOrder: 1}) @placeOrder { b } }",
            "query { placeOrder } subscription placeOrder { placeOrder }",
            "fragment placeOrder on Mutation { placeOrder }",
        ] {
            assert_eq!(places_order(&bare(query)), Carries::No, "{query}");
        }
    }

    #[test]
    fn an_order_is_seen_behind_aliases_fragments_and_directives() {
        for query in [
            "mutation { a: placeOrder { b } }",
            "mutation { x : placeOrder @include(if: true) { b } }",
            "mutation { ...F } fragment F on Mutation { placeOrder { b } }",
            "mutation { ...F } fragment G on Mutation { placeOrder { b } } fragment F on Mutation { ...G ...F }",
            "mutation { ... on Mutation { placeOrder { b } } }",
            "mutation { ... @include(if: true) { ... { placeOrder { b } } } }",
            "mutation @x(a: [1 {b: 2}]) { placeOrder }",
            "mutation($a: [[ID!]!]! = [[1]] @x, $b: E = RED) { placeOrder }",
            "\"\"\"words\"\"\" mutation { placeOrder }",
            "mutation{placeOrder(input:{cart_id:\"}\"}){a{b}}}",
        ] {
            assert_eq!(places_order(&bare(query)), Carries::Certainly, "{query}");
        }
        assert_eq!(places_order(&bare("mutation { setBilling { a } placeOrder { b } }")), Carries::Perhaps);
        assert_eq!(carried(&bare("mutation { anything }"), &["*"]), Carries::Certainly);
        assert_eq!(carried(&bare("{ mutation }"), &["*"]), Carries::No);
    }

    #[test]
    fn the_operation_is_the_one_that_the_request_selects() {
        let two = "query Read { cart { id } } mutation Place { placeOrder(cart_id: \"A\") { a } }";
        let select = |name: serde_json::Value| {
            Sample::json(serde_json::json!({ "query": two, "operationName": name }).to_string())
        };
        assert_eq!(places_order(&select("Place".into())), Carries::Certainly);
        assert_eq!(cart(&select("Place".into())), Lookup::text("A"));
        assert_eq!(places_order(&select("Read".into())), Carries::No);
        assert_eq!(cart(&select("Read".into())), Lookup::Absent);
        // A server that is strict runs neither; one that is not may run either.
        for unclear in [serde_json::Value::Null, "".into(), "Other".into()] {
            assert_eq!(places_order(&select(unclear.clone())), Carries::Perhaps, "{unclear}");
            assert!(matches!(cart(&select(unclear.clone())), Lookup::Ambiguous(_)), "{unclear}");
        }
        // Magento runs the only one that there is, whatever the name says.
        let one = Sample::json(serde_json::json!({ "query": PLACE, "operationName": "Read" }).to_string());
        assert_eq!(places_order(&one), Carries::Certainly);
        let same = "mutation A { a } mutation A { placeOrder }";
        let same = Sample::json(serde_json::json!({ "query": same, "operationName": "A" }).to_string());
        assert_eq!(places_order(&same), Carries::Perhaps);
    }

    #[test]
    fn a_batch_is_about_all_its_orders() {
        let one = |cart: &str| serde_json::json!({ "query": PLACE, "variables": { "cartId": cart } });
        let read = serde_json::json!({ "query": "{ cart { id } }" });
        let batch = |items: Vec<serde_json::Value>| Sample::json(serde_json::Value::from(items).to_string());
        assert_eq!(texts(cart(&batch(vec![one("B"), read.clone(), one("A"), one("B")]))), ["B", "A"]);
        assert_eq!(places_order(&batch(vec![read.clone(), one("A")])), Carries::Perhaps);
        assert_eq!(places_order(&batch(vec![one("B"), one("A")])), Carries::Certainly);
        assert_eq!(places_order(&batch(vec![read.clone()])), Carries::No);
        assert_eq!(places_order(&batch(vec![])), Carries::No);
        assert!(matches!(places_order(&batch(vec![read; BATCH_MAX + 1])), Carries::Unreadable(_)));
        let two_fields = bare("mutation { a: placeOrder(cart_id: \"A\") b: placeOrder(cart_id: \"B\") }");
        assert_eq!(texts(cart(&two_fields)), ["A", "B"]);
    }

    #[test]
    fn a_value_in_two_places_of_one_field_is_ambiguous_and_a_whole_way_is_not() {
        let two = bare("mutation { placeOrder(id: \"A\", input: {id: \"B\"}) }");
        assert!(matches!(two.look("graphql:id"), Lookup::Ambiguous(_)));
        assert_eq!(two.look("graphql:input/id"), Lookup::text("B"));
        let items = body(
            "mutation($more: [Item]) { pay(orders: [{id: \"A\"}, {id: \"B\"}], more: $more) }",
            serde_json::json!({ "more": [{ "id": "C" }, { "id": "D" }] }),
        );
        assert_eq!(texts(items.look("graphql:orders/*/id")), ["A", "B"]);
        assert_eq!(texts(items.look("graphql:more/*/id")), ["C", "D"]);
        assert!(matches!(items.look("graphql:orders"), Lookup::Unreadable(_)));
        let doubled = bare("mutation { placeOrder(cart_id: \"A\", cart_id: \"B\") }");
        assert!(matches!(cart(&doubled), Lookup::Ambiguous(_)));
        let doubled =
            Sample::json(format!("{{\"query\":\"{PLACE}\",\"variables\":{{\"cartId\":1,\"cartId\":2}}}}"));
        assert!(matches!(cart(&doubled), Lookup::Ambiguous(_)));
    }

    #[test]
    fn it_is_read_from_wherever_a_shop_may_read_it() {
        let query = "mutation { placeOrder(cart_id: \"Zk7\") }";
        let json = serde_json::json!({ "query": query }).to_string();
        let multipart =
            format!("--B\r\nContent-Disposition: form-data; name=\"operations\"\r\n\r\n{json}\r\n--B--\r\n");
        for sample in [
            Sample::form(in_form(&[("query", query)])),
            Sample::json("").query(&in_form(&[("query", query)])),
            Sample::post("application/graphql", query),
            Sample::post("text/plain", json.clone()),
            Sample::post("text/plain", format!("\u{feff}{json}")),
            Sample::post("application/graphql+json", json.clone()),
            Sample::post("multipart/form-data; boundary=B", multipart),
        ] {
            assert_eq!(
                (places_order(&sample), cart(&sample)),
                (Carries::Certainly, Lookup::text("Zk7")),
                "{:?}",
                sample.headers
            );
        }
        let fields =
            in_form(&[("query", PLACE), ("variables", "{\"cartId\":\"Zk7\"}"), ("operationName", "Place")]);
        assert_eq!(cart(&Sample::form(fields.clone())), Lookup::text("Zk7"));
        assert_eq!(cart(&Sample::json("").query(&fields)), Lookup::text("Zk7"));
        let both = Sample::json(json).query(&in_form(&[("query", "{ cart { id } }")]));
        assert_eq!(places_order(&both), Carries::Perhaps);
        assert!(matches!(cart(&both), Lookup::Ambiguous(_)));
    }

    #[test]
    fn what_may_be_an_order_and_cannot_be_read_is_never_none() {
        for query in [
            "mutation { placeOrder(",
            "mutation { placeOrder ; }",
            "mutation { # \u{b} placeOrder }",
            "scalar placeOrder {",
            "{ a(b: \"placeOrder) }",
        ] {
            assert!(matches!(places_order(&bare(query)), Carries::Unreadable(_)), "{query}");
        }
        let deep = format!("mutation {{ {} placeOrder }}", "... {".repeat(1000));
        assert!(matches!(places_order(&bare(&deep)), Carries::Unreadable(_)));
        let deep = format!("mutation {{ placeOrder(a: {}1) }}", "[".repeat(100_000));
        assert!(matches!(places_order(&bare(&deep)), Carries::Unreadable(_)));
        for known in [
            r#"{"extensions":{"persistedQuery":{"sha256Hash":"ab"}},"variables":{"cartId":"A"}}"#,
            r#"{"documentId":"ab"}"#,
            r#"{"query":"{ a }","query":"mutation { placeOrder }"}"#,
            "{\"query\":",
        ] {
            assert!(matches!(places_order(&Sample::json(known)), Carries::Unreadable(_)), "{known}");
        }
        // What does not name it is none, whatever it is: names have no other spelling.
        for other in ["mutation { cancelOrder ; }", "}{", "\u{b}", "scalar X"] {
            assert_eq!(places_order(&bare(other)), Carries::No, "{other}");
        }
        for other in [
            Sample::post("text/plain", "hello"),
            Sample::json(r#"{"id":7}"#),
            Sample::json("7"),
            Sample::post("text/xml", "<a/>"),
        ] {
            assert_eq!(
                (places_order(&other), cart(&other)),
                (Carries::No, Lookup::Absent),
                "{:?}",
                other.body
            );
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic_and_reading_ends(
            query in r#"(mutation|query|fragment|on|F|placeOrder|input|[$:=@!]|\.\.\.|[{}()\[\]]|"a"|"""|"|#|\\|7|\n| ){0,40}"#,
            name in "(F|placeOrder)?",
        ) {
            let sample = Sample::json(serde_json::json!({ "query": query, "operationName": name }).to_string());
            let (carried, found) = (places_order(&sample), cart(&sample));
            // Whoever finds the cart of an order has found the order's text in one piece.
            if matches!(found, Lookup::Found(_)) {
                prop_assert!(!matches!(carried, Carries::Unreadable(_)));
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64), content_type in prop_oneof![Just("application/json"), Just("application/graphql"), Just("application/x-www-form-urlencoded")]) {
            let sample = Sample::post(content_type, bytes);
            let _ = (places_order(&sample), cart(&sample));
        }

        #[test]
        fn strings_comments_and_white_space_never_hide_an_order(
            between in proptest::collection::vec(prop_oneof![Just(" "), Just(","), Just("\n"), Just("# \" { ( placeOrder\n"), Just("\t"), Just("#\"\"\"\r")], 6),
            text in r#"([a-z{}()# ]|\\"|\\\\){0,8}"#,
        ) {
            let [a, b, c, d, e, f] = between.as_slice() else { unreachable!() };
            let query = format!("{a}mutation{b} {{{c}x{d}:{e}placeOrder(cart_id:{f}\"A\", t: \"{text}\") {{ id }} }}");
            let sample = bare(&query);
            prop_assert_eq!(places_order(&sample), Carries::Certainly, "{}", query);
            prop_assert_eq!(cart(&sample), Lookup::text("A"));
        }
    }
}
