//! The operations of a GraphQL document, as far as their root fields go.
//!
//! What a root field selects in turn is passed over; fragments at the root are followed. Nothing is validated: what a
//! server would refuse is refused by it, and what it might carry out is seen here.

use std::borrow::Cow;

use super::{
    GraphqlProblem,
    lexer::{Token, tokens},
};

/// How deep values, and fragments without a name, may nest.
const DEPTH_MAX: usize = 32;

/// A document.
#[derive(Debug)]
pub(super) struct Document<'a> {
    pub(super) operations: Vec<Operation<'a>>,
    fragments: Vec<(&'a [u8], Selection<'a>)>,
}

#[derive(Debug)]
pub(super) struct Operation<'a> {
    pub(super) kind: Kind,
    pub(super) name: Option<&'a [u8]>,
    pub(super) variables: Vec<Variable<'a>>,
    selection: Selection<'a>,
}

/// A variable and its default.
pub(super) type Variable<'a> = (&'a [u8], Option<Value<'a>>);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Query,
    Mutation,
    Subscription,
}

/// What stands at one root: fields, and the names of fragments whose fields stand there too.
#[derive(Default, Debug)]
struct Selection<'a> {
    fields: Vec<Field<'a>>,
    spreads: Vec<&'a [u8]>,
}

/// A root field under its own name, whatever its alias is.
#[derive(Debug)]
pub(super) struct Field<'a> {
    pub(super) name: &'a [u8],
    pub(super) arguments: Object<'a>,
}

pub(super) type Object<'a> = Vec<(&'a [u8], Value<'a>)>;

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Value<'a> {
    Variable(&'a [u8]),
    Text(Cow<'a, [u8]>),
    Number(&'a [u8]),
    /// `true`, `false`, or one of an enum.
    Word(&'a [u8]),
    Null,
    Block,
    List(Vec<Value<'a>>),
    Object(Object<'a>),
}

impl<'a> Document<'a> {
    pub(super) fn parse(text: &'a [u8]) -> Result<Self, GraphqlProblem> {
        let tokens = tokens(text)?;
        let mut parser = Parser { tokens: &tokens, at: 0 };
        let mut document = Self { operations: Vec::new(), fragments: Vec::new() };
        while let Some(token) = parser.peek() {
            match token {
                Token::Sign(b'{') => {
                    let selection = parser.selection_set()?;
                    document.operations.push(Operation {
                        kind: Kind::Query,
                        name: None,
                        variables: Vec::new(),
                        selection,
                    });
                }
                Token::Name(b"fragment") => {
                    parser.at += 1;
                    let fragment = parser.fragment()?;
                    document.fragments.push(fragment);
                }
                Token::Name(name) => {
                    let kind = match *name {
                        b"query" => Kind::Query,
                        b"mutation" => Kind::Mutation,
                        b"subscription" => Kind::Subscription,
                        _ => return Err(GraphqlProblem::Grammar),
                    };
                    parser.at += 1;
                    document.operations.push(parser.operation(kind)?);
                }
                // A newer edition lets a description stand before a definition.
                Token::Text(_) | Token::Block => parser.at += 1,
                Token::Sign(_) | Token::Spread | Token::Number(_) => return Err(GraphqlProblem::Grammar),
            }
        }
        Ok(document)
    }

    /// The operations that may be the one that is carried out. The only one is, whatever its name: some servers do not
    /// look at the name that a request gives then.
    pub(super) fn selected(&self, name: Option<&[u8]>) -> Vec<&Operation<'a>> {
        let all: Vec<_> = self.operations.iter().collect();
        let named = name.filter(|name| !name.is_empty() && all.len() > 1);
        let chosen: Vec<_> =
            all.iter().filter(|operation| named.is_some() && operation.name == named).copied().collect();
        if chosen.is_empty() { all } else { chosen }
    }

    /// The root fields of an operation, those of its fragments included. `@skip` and `@include` are not looked at: what
    /// may be carried out counts.
    pub(super) fn fields<'d>(&'d self, operation: &'d Operation<'a>) -> Vec<&'d Field<'a>> {
        let mut fields: Vec<&Field<'a>> = operation.selection.fields.iter().collect();
        let mut open: Vec<&[u8]> = operation.selection.spreads.clone();
        let mut seen = vec![false; self.fragments.len()];
        while let Some(name) = open.pop() {
            for (index, (_, selection)) in
                self.fragments.iter().enumerate().filter(|(_, (fragment, _))| *fragment == name)
            {
                if !std::mem::replace(&mut seen[index], true) {
                    fields.extend(&selection.fields);
                    open.extend(&selection.spreads);
                }
            }
        }
        fields
    }
}

struct Parser<'t, 'a> {
    tokens: &'t [Token<'a>],
    at: usize,
}

impl<'t, 'a> Parser<'t, 'a> {
    fn peek(&self) -> Option<&'t Token<'a>> {
        self.tokens.get(self.at)
    }

    fn next(&mut self) -> Result<&'t Token<'a>, GraphqlProblem> {
        let token = self.peek().ok_or(GraphqlProblem::Grammar)?;
        self.at += 1;
        Ok(token)
    }

    fn takes(&mut self, wanted: &Token<'_>) -> bool {
        let is_there = self.peek() == Some(wanted);
        self.at += usize::from(is_there);
        is_there
    }

    fn sign(&mut self, sign: u8) -> Result<(), GraphqlProblem> {
        if self.takes(&Token::Sign(sign)) { Ok(()) } else { Err(GraphqlProblem::Grammar) }
    }

    fn name(&mut self) -> Result<&'a [u8], GraphqlProblem> {
        match self.next()? {
            Token::Name(name) => Ok(name),
            _ => Err(GraphqlProblem::Grammar),
        }
    }

    /// Behind its keyword.
    fn operation(&mut self, kind: Kind) -> Result<Operation<'a>, GraphqlProblem> {
        let name = match self.peek() {
            Some(Token::Name(_)) => Some(self.name()?),
            _ => None,
        };
        let variables = self.variables()?;
        self.directives()?;
        Ok(Operation { kind, name, variables, selection: self.selection_set()? })
    }

    /// Behind its keyword.
    fn fragment(&mut self) -> Result<(&'a [u8], Selection<'a>), GraphqlProblem> {
        let name = self.name()?;
        self.variables()?;
        if self.name()? != b"on" {
            return Err(GraphqlProblem::Grammar);
        }
        self.name()?;
        self.directives()?;
        Ok((name, self.selection_set()?))
    }

    fn variables(&mut self) -> Result<Vec<Variable<'a>>, GraphqlProblem> {
        let mut variables = Vec::new();
        if !self.takes(&Token::Sign(b'(')) {
            return Ok(variables);
        }
        while !self.takes(&Token::Sign(b')')) {
            self.sign(b'$')?;
            let name = self.name()?;
            self.sign(b':')?;
            self.kind_of_variable()?;
            let default = match self.takes(&Token::Sign(b'=')) {
                true => Some(self.value(0)?),
                false => None,
            };
            self.directives()?;
            variables.push((name, default));
        }
        Ok(variables)
    }

    fn kind_of_variable(&mut self) -> Result<(), GraphqlProblem> {
        let mut lists = 0;
        while self.takes(&Token::Sign(b'[')) {
            lists += 1;
        }
        self.name()?;
        self.takes(&Token::Sign(b'!'));
        for _ in 0..lists {
            self.sign(b']')?;
            self.takes(&Token::Sign(b'!'));
        }
        Ok(())
    }

    fn directives(&mut self) -> Result<(), GraphqlProblem> {
        while self.takes(&Token::Sign(b'@')) {
            self.name()?;
            self.arguments()?;
        }
        Ok(())
    }

    fn arguments(&mut self) -> Result<Object<'a>, GraphqlProblem> {
        match self.takes(&Token::Sign(b'(')) {
            true => self.members(b')', 0),
            false => Ok(Vec::new()),
        }
    }

    /// Names and values up to a sign.
    fn members(&mut self, end: u8, depth: usize) -> Result<Object<'a>, GraphqlProblem> {
        let mut members = Vec::new();
        while !self.takes(&Token::Sign(end)) {
            let name = self.name()?;
            self.sign(b':')?;
            members.push((name, self.value(depth)?));
        }
        Ok(members)
    }

    fn value(&mut self, depth: usize) -> Result<Value<'a>, GraphqlProblem> {
        if depth == DEPTH_MAX {
            return Err(GraphqlProblem::TooDeep);
        }
        Ok(match self.next()? {
            Token::Sign(b'$') => Value::Variable(self.name()?),
            Token::Text(text) => Value::Text(text.clone()),
            Token::Block => Value::Block,
            Token::Number(number) => Value::Number(number),
            Token::Name(b"null") => Value::Null,
            Token::Name(word) => Value::Word(word),
            Token::Sign(b'{') => Value::Object(self.members(b'}', depth + 1)?),
            Token::Sign(b'[') => {
                let mut items = Vec::new();
                while !self.takes(&Token::Sign(b']')) {
                    items.push(self.value(depth + 1)?);
                }
                Value::List(items)
            }
            Token::Sign(_) | Token::Spread => return Err(GraphqlProblem::Grammar),
        })
    }

    fn selection_set(&mut self) -> Result<Selection<'a>, GraphqlProblem> {
        let mut selection = Selection::default();
        self.select_into(&mut selection, 0)?;
        Ok(selection)
    }

    fn select_into(&mut self, selection: &mut Selection<'a>, depth: usize) -> Result<(), GraphqlProblem> {
        if depth == DEPTH_MAX {
            return Err(GraphqlProblem::TooDeep);
        }
        self.sign(b'{')?;
        while !self.takes(&Token::Sign(b'}')) {
            if !self.takes(&Token::Spread) {
                selection.fields.push(self.field()?);
                continue;
            }
            match self.peek() {
                Some(Token::Name(name)) if *name != b"on" => {
                    selection.spreads.push(self.name()?);
                    self.directives()?;
                }
                other => {
                    if matches!(other, Some(Token::Name(_))) {
                        self.at += 1;
                        self.name()?;
                    }
                    self.directives()?;
                    self.select_into(selection, depth + 1)?;
                }
            }
        }
        Ok(())
    }

    fn field(&mut self) -> Result<Field<'a>, GraphqlProblem> {
        let mut name = self.name()?;
        if self.takes(&Token::Sign(b':')) {
            name = self.name()?;
        }
        let arguments = self.arguments()?;
        self.directives()?;
        if self.peek() == Some(&Token::Sign(b'{')) {
            self.pass_over_braces()?;
        }
        Ok(Field { name, arguments })
    }

    fn pass_over_braces(&mut self) -> Result<(), GraphqlProblem> {
        let mut depth = 0_usize;
        loop {
            match self.next()? {
                Token::Sign(b'{') => depth += 1,
                Token::Sign(b'}') => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return Ok(());
            }
        }
    }
}
