//! One value out of an XML body, by the way to its element: `/order/items/*/id`, `/notify/event/@orderCode`.
//!
//! No document type is read and no entity but the five of XML itself (section 4.6) and characters by number: what
//! names another one has no safe reading, because a shop may expand it. An element that stands twice is ambiguous;
//! `*` is each of them, whatever its name. Nothing is built but the value, and nothing recurses.

use quick_xml::{
    Reader, XmlVersion,
    events::{BytesRef, BytesStart, Event},
};

use super::lookup::{Kind, Lookup, VALUES_MAX, Value, Values};

/// How deep elements may nest.
const DEPTH_MAX: usize = 64;
/// How many elements a body may have.
const ELEMENTS_MAX: usize = 1 << 16;
/// How many attributes an element may have of which one is read.
const ATTRIBUTES_MAX: usize = 64;

/// The way to an element, from the outermost one on, or to one of its attributes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Path {
    elements: Vec<Segment>,
    attribute: Option<String>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Segment {
    /// With a colon the whole name, else the name without its prefix.
    Name(String),
    Each,
}

impl Path {
    /// `/a/b`, `/a/*/c`, `/a/b/@c`. `None` where the text is no such way.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix('/')?;
        let (rest, attribute) = match rest.rsplit_once("/@") {
            Some((rest, attribute)) => (rest, Some(attribute.to_owned())),
            None => (rest, None),
        };
        let elements: Vec<Segment> = rest
            .split('/')
            .map(|part| match part {
                "*" => Segment::Each,
                name => Segment::Name(name.to_owned()),
            })
            .collect();
        let is_sound =
            |name: &str| !name.is_empty() && !name.contains(['@', '*', '/', '<', '>', '&', ' ', '=']);
        let names = elements.iter().filter_map(|segment| match segment {
            Segment::Name(name) => Some(name),
            Segment::Each => None,
        });
        let all_sound = names.chain(&attribute).all(|name| is_sound(name));
        (all_sound && elements.len() <= DEPTH_MAX).then_some(Self { elements, attribute })
    }
}

impl Segment {
    fn takes(&self, element: &BytesStart<'_>) -> bool {
        match self {
            Self::Each => true,
            Self::Name(name) if name.contains(':') => element.name().as_ref() == name,
            Self::Name(name) => element.local_name().as_ref() == name,
        }
    }
}

/// Looks a value up in a body. An element without text counts as absent; one with elements in it is no value.
#[must_use]
pub fn lookup(body: &[u8], path: &Path) -> Lookup {
    let body = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body);
    let Ok(text) = std::str::from_utf8(body) else { return unreadable("it is not UTF-8") };
    let mut reader = Reader::from_str(text);
    let config = reader.config_mut();
    config.expand_empty_elements = true;
    config.check_comments = true;
    let mut walk = Walk::new(path);
    loop {
        let event = match reader.read_event() {
            Ok(event) => event,
            Err(_) => return unreadable("it is not well-formed XML"),
        };
        match walk.take(event) {
            Ok(Next::GoOn) => {}
            Ok(Next::End) => break,
            Err(lookup) => return lookup,
        }
    }
    if walk.values.is_empty() { Lookup::Absent } else { Lookup::Found(walk.values) }
}

enum Next {
    GoOn,
    End,
}

struct Walk<'p> {
    path: &'p Path,
    /// How many elements are open.
    depth: usize,
    /// How many of them, from the outermost on, are on the way.
    matched: usize,
    /// For each step of the way, whether it was taken below the element that is open before it.
    seen: Vec<bool>,
    elements: usize,
    /// The text of the element that the way leads to, while it is open.
    text: Option<String>,
    has_root: bool,
    values: Values,
}

impl<'p> Walk<'p> {
    fn new(path: &'p Path) -> Self {
        let seen = vec![false; path.elements.len()];
        Self {
            path,
            depth: 0,
            matched: 0,
            seen,
            elements: 0,
            text: None,
            has_root: false,
            values: Values::new(),
        }
    }

    fn take(&mut self, event: Event<'_>) -> Result<Next, Lookup> {
        match event {
            Event::Start(element) | Event::Empty(element) => self.start(&element)?,
            Event::End(_) => self.end()?,
            Event::Text(text) => self.add(&text.xml_content(XmlVersion::Implicit1_0))?,
            Event::CData(text) => self.add(&text.xml_content(XmlVersion::Implicit1_0))?,
            Event::GeneralRef(reference) => {
                let char = resolve(&reference).ok_or_else(|| unreadable("it names an entity"))?;
                self.add(char.encode_utf8(&mut [0; 4]))?;
            }
            Event::Decl(declared) => match declared.encoding() {
                None => {}
                Some(Ok(name))
                    if name.eq_ignore_ascii_case("utf-8") || name.eq_ignore_ascii_case("us-ascii") => {}
                Some(_) => return Err(unreadable("it is in an encoding that is not read")),
            },
            Event::DocType(_) => return Err(unreadable("it has a document type")),
            Event::Comment(_) | Event::PI(_) => {}
            Event::Eof if self.depth > 0 || !self.has_root => {
                return Err(unreadable("it is not well-formed XML"));
            }
            Event::Eof => return Ok(Next::End),
        }
        Ok(Next::GoOn)
    }

    fn start(&mut self, element: &BytesStart<'_>) -> Result<(), Lookup> {
        self.elements += 1;
        if self.depth == DEPTH_MAX || self.elements > ELEMENTS_MAX {
            return Err(unreadable("it has too many elements, or they nest too deep"));
        }
        if self.depth == 0 && std::mem::replace(&mut self.has_root, true) {
            return Err(unreadable("it is not well-formed XML"));
        }
        if self.text.is_some() && self.path.attribute.is_none() {
            return Err(unreadable("it has elements in it, and is not a value"));
        }
        let on_the_way = self.depth == self.matched;
        self.depth += 1;
        let step = self.path.elements.get(self.matched).filter(|step| on_the_way && step.takes(element));
        let Some(step) = step else { return Ok(()) };
        if std::mem::replace(&mut self.seen[self.matched], true) && *step != Segment::Each {
            return Err(Lookup::Ambiguous("an element on the way stands twice".into()));
        }
        self.matched += 1;
        if let Some(next) = self.seen.get_mut(self.matched) {
            *next = false;
            return Ok(());
        }
        match &self.path.attribute {
            None => self.text = Some(String::new()),
            Some(name) => self.attribute(element, name)?,
        }
        Ok(())
    }

    fn attribute(&mut self, element: &BytesStart<'_>, name: &str) -> Result<(), Lookup> {
        let mut found = None;
        for (index, attribute) in element.attributes().enumerate() {
            let Ok(attribute) = attribute else { return Err(unreadable("it is not well-formed XML")) };
            if index == ATTRIBUTES_MAX {
                return Err(unreadable("it has too many attributes"));
            }
            let key = attribute.key;
            let is_it =
                if name.contains(':') { key.as_ref() == name } else { key.local_name().as_ref() == name };
            if !is_it {
                continue;
            }
            if found.is_some() {
                return Err(Lookup::Ambiguous("it stands twice".into()));
            }
            let Ok(value) = attribute.normalized_value(XmlVersion::Implicit1_0) else {
                return Err(unreadable("it names an entity"));
            };
            found = Some(value.into_owned());
        }
        match found {
            Some(value) => self.found(value.trim()),
            None => Ok(()),
        }
    }

    fn end(&mut self) -> Result<(), Lookup> {
        if self.depth == self.matched {
            self.matched -= 1;
            if let Some(text) = self.text.take() {
                self.found(text.trim())?;
            }
        }
        // The reader has seen to it that there is one open.
        self.depth = self.depth.saturating_sub(1);
        Ok(())
    }

    fn add(&mut self, text: &str) -> Result<(), Lookup> {
        if let Some(value) = &mut self.text {
            value.push_str(text);
        }
        match self.depth == 0 && !text.trim().is_empty() {
            true => Err(unreadable("it is not well-formed XML")),
            false => Ok(()),
        }
    }

    fn found(&mut self, value: &str) -> Result<(), Lookup> {
        if value.is_empty() {
            return Ok(());
        }
        if self.values.len() == VALUES_MAX {
            return Err(unreadable(&format!("there are more than {VALUES_MAX} of it")));
        }
        self.values.push(Value { bytes: value.as_bytes().to_vec(), kind: Kind::Text });
        Ok(())
    }
}

fn resolve(reference: &BytesRef<'_>) -> Option<char> {
    if reference.is_char_ref() {
        return reference.resolve_char_ref().ok()?;
    }
    let name: &str = reference;
    Some(match name {
        "lt" => '<',
        "gt" => '>',
        "amp" => '&',
        "apos" => '\'',
        "quot" => '"',
        _ => return None,
    })
}

fn unreadable(why: &str) -> Lookup {
    Lookup::Unreadable(why.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn find(body: &str, path: &str) -> Lookup {
        lookup(body.as_bytes(), &Path::parse(path).unwrap())
    }

    fn texts(body: &str, path: &str) -> Vec<String> {
        match find(body, path) {
            Lookup::Found(values) => {
                values.into_iter().map(|value| String::from_utf8(value.bytes).unwrap()).collect()
            }
            Lookup::Absent => Vec::new(),
            other => panic!("{other:?}"),
        }
    }

    /// Worldpay's older notifications name the order in an attribute.
    const NOTIFY: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<!-- sent again until [OK] -->
<paymentService version="1.4"><notify><orderStatusEvent orderCode="WC-&#52;725"><payment><amount value="4200"/>
</payment></orderStatusEvent></notify></paymentService>"#;

    #[test]
    fn elements_and_attributes_are_found_by_the_way_to_them() {
        assert_eq!(texts(NOTIFY, "/paymentService/notify/orderStatusEvent/@orderCode"), ["WC-4725"]);
        assert_eq!(texts(NOTIFY, "/paymentService/notify/*/payment/amount/@value"), ["4200"]);
        assert_eq!(texts("<a><b> 7 <!-- x --></b></a>", "/a/b"), ["7"]);
        assert_eq!(texts("<a><b><![CDATA[<7>]]>&amp;&#x37;</b></a>", "/a/b"), ["<7>&7"]);
        assert_eq!(texts("<s:a xmlns:s='x'><s:b>7</s:b></s:a>", "/a/b"), ["7"]);
        assert_eq!(texts("<s:a xmlns:s='x'><s:b>7</s:b></s:a>", "/s:a/t:b"), [""; 0]);
        for absent in ["/a/c", "/b", "/a/b/c", "/a/b/@c"] {
            assert_eq!(find("<a><b>7</b></a>", absent), Lookup::Absent, "{absent}");
        }
        assert_eq!(find("<a><x><b>7</b></x></a>", "/a/b"), Lookup::Absent);
        assert_eq!(find("<a><b/></a>", "/a/b"), Lookup::Absent);
    }

    #[test]
    fn an_element_that_stands_twice_is_ambiguous_and_a_star_is_each_of_them() {
        let body = "<a><i><id>1</id></i><i><id>2</id></i></a>";
        assert!(matches!(find(body, "/a/i/id"), Lookup::Ambiguous(_)));
        assert_eq!(texts(body, "/a/*/id"), ["1", "2"]);
        assert!(matches!(find("<a><i>1</i><i>1</i></a>", "/a/i"), Lookup::Ambiguous(_)));
        assert!(matches!(find("<a><i><id>1</id><id>2</id></i></a>", "/a/*/id"), Lookup::Ambiguous(_)));
        assert!(matches!(find("<a b='1' x:b='2'/>", "/a/@b"), Lookup::Ambiguous(_)));
        let many = format!("<a>{}</a>", "<i>1</i>".repeat(VALUES_MAX + 1));
        assert!(matches!(find(&many, "/a/*"), Lookup::Unreadable(_)));
    }

    #[test]
    fn no_entity_is_ever_expanded() {
        for body in [
            "<!DOCTYPE a [<!ENTITY x 'y'>]><a><b>&x;</b></a>",
            "<!DOCTYPE a SYSTEM 'file:///etc/passwd'><a><b>7</b></a>",
            "<a><b>&x;</b></a>",
            "<a><c>&x;</c><b>7</b></a>",
            "<a><b>&#x110000;</b></a>",
        ] {
            assert!(matches!(find(body, "/a/b"), Lookup::Unreadable(_)), "{body}");
        }
        assert!(matches!(find("<a b='&x;'/>", "/a/@b"), Lookup::Unreadable(_)));
    }

    #[test]
    fn what_is_not_well_formed_or_not_a_value_is_unreadable() {
        for body in [
            "",
            "7",
            "<a><b>7</b>",
            "<a><b>7</a></b>",
            "<a><b>7</b></a><a/>",
            "<a><b>7</b></a>x",
            "<a><b>7<c/></b></a>",
            "<a><b>7 & 8</b></a>",
            "<?xml version='1.0' encoding='utf-16'?><a><b>7</b></a>",
        ] {
            assert!(matches!(find(body, "/a/b"), Lookup::Unreadable(_)), "{body}");
        }
        assert!(matches!(
            lookup(b"<a><b>\xff</b></a>", &Path::parse("/a/b").unwrap()),
            Lookup::Unreadable(_)
        ));
    }

    #[test]
    fn depth_and_number_of_elements_are_bounded() {
        let deep = format!("{}7{}", "<a>".repeat(DEPTH_MAX + 1), "</a>".repeat(DEPTH_MAX + 1));
        assert!(matches!(find(&deep, "/b"), Lookup::Unreadable(_)));
        assert!(matches!(find(&"<a>".repeat(1_000_000), "/b"), Lookup::Unreadable(_)));
        let wide = format!("<a>{}</a>", "<i/>".repeat(ELEMENTS_MAX));
        assert!(matches!(find(&wide, "/b"), Lookup::Unreadable(_)));
        let attributes: String = (0..100_000).map(|n| format!(" a{n}=''")).collect();
        assert!(matches!(find(&format!("<a{attributes}/>"), "/a/@b"), Lookup::Unreadable(_)));
    }

    #[test]
    fn a_way_is_made_of_names() {
        for wrong in ["", "a", "/", "//a", "/a/", "/a/@", "/@a", "/a/@b/c", "/a b", "/a*"] {
            assert!(Path::parse(wrong).is_none(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(body in proptest::collection::vec(any::<u8>(), 0..64), path in r"(/[ab*@:]{0,2}){0,4}") {
            if let Some(path) = Path::parse(&path) {
                let _ = lookup(&body, &path);
            }
        }

        #[test]
        fn nothing_that_looks_like_xml_makes_it_panic(body in r"(<[/!?]?[ab:]{1,2}( a='[&x;]{0,3}')?/?>|[7 ]|&[a#x7]{0,3};|<!--|-->|\]\]>|<!\[CDATA\[){0,16}") {
            for path in ["/a/b", "/a/*", "/a/@a"] {
                let _ = find(&body, path);
            }
        }

        #[test]
        fn a_value_comes_back_as_it_was_written(value in "[ -~é]{0,16}") {
            let escaped = value.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
            let found = texts(&format!("<a><b>{escaped}</b></a>"), "/a/b");
            prop_assert_eq!(found.concat(), value.trim());
        }
    }
}
