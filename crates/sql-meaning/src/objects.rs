//! Tables and functions of queries, from `sqlparser`'s tree.
//!
//! Owns the walk and the limits under which a text of a peer's choosing is handed to the parser. Refuses
//! utility statements: the recogniser names their objects; and columns: `columns` fills them in.

use std::borrow::Cow;
use std::ops::ControlFlow;

use sqlparser::ast::{
    Expr, FromTable, Ident, ObjectName, ObjectNamePart, Query, Select, Statement, TableFactor, TableObject,
    Visit, Visitor,
};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::Tokenizer;

use crate::functions::{is_built_in, is_servers_own};
use crate::lexer::Kind;
use crate::phrase::Phrase;
use crate::{Access, ObjectRef};

/// Longest text that is parsed. Parse time and the tree's memory grow with it; longer statements are bulk
/// inserts, whose target the recogniser finds too.
pub const MAX_PARSED_BYTES: usize = 256 << 10;

/// Most tokens of a text that is parsed: the parser takes somewhat more than a microsecond for each, and the agent has other
/// things to do. What is longer is a bulk insert.
const MAX_PARSED_TOKENS: usize = 24_576;

/// Most words and operators in a text that is parsed. A chain such as `a OR b OR …` becomes a tree as deep
/// as the chain is long, and dropping it recurses: this bounds the stack.
pub const MAX_PARSED_JOINTS: usize = 4_096;

/// Deepest brackets that are parsed: the parser tries several readings of an opening bracket, each of
/// which tries the next. A person's statement stays in single figures.
const MAX_PARSED_BRACKETS: usize = 24;

/// Most objects kept of one statement.
pub const MAX_OBJECTS: usize = 256;

/// Most columns kept of one object: PostgreSQL's own limit for a target list (`MaxTupleAttributeNumber`).
pub(crate) const MAX_COLUMNS: usize = 1_664;

/// The objects of one statement as they are found.
#[derive(Default)]
pub(crate) struct Found {
    pub(crate) objects: Vec<ObjectRef>,
    /// A function is called that is not the server's own.
    pub(crate) calls_unknown: bool,
    /// Functions that are called and are not the server's own: schema, name. No more than [`MAX_OBJECTS`].
    pub(crate) functions: Vec<(Option<String>, String)>,
}

impl Found {
    /// A function of this name is called. (`set_config` is looked for in the text, where its arguments are read.)
    fn called(&mut self, name: &ObjectName) {
        let mut parts = parts(name);
        let called = parts.pop().unwrap_or_default();
        let schema = parts.pop();
        let own = schema.as_deref().is_none_or(|schema| schema == "pg_catalog");
        let seen = is_built_in(schema.as_deref(), &called) || (own && called == "set_config");
        self.calls_unknown |= !seen;
        if !seen {
            self.call(schema, called);
        }
    }

    /// Notes a call of a function that is not the server's own.
    pub(crate) fn call(&mut self, schema: Option<String>, name: String) {
        if self.functions.len() < MAX_OBJECTS && !is_servers_own(schema.as_deref(), &name) {
            self.functions.push((schema, name));
        }
    }

    /// Makes objects of the functions that were noted: for a statement that runs them.
    pub(crate) fn executes(&mut self) {
        for (schema, name) in std::mem::take(&mut self.functions) {
            let parts = schema.into_iter().chain([name]).collect();
            self.add(parts, "function", Access::Execute, Vec::new());
        }
    }

    /// Adds an object by its dotted name (the last two parts count), or the columns to one already there.
    pub(crate) fn add(
        &mut self,
        mut parts: Vec<String>,
        kind: &'static str,
        access: Access,
        columns: Vec<String>,
    ) {
        let Some(name) = parts.pop() else { return };
        let schema = parts.pop();
        let same =
            |o: &&mut ObjectRef| o.name == name && o.schema == schema && o.kind == kind && o.access == access;
        if let Some(object) = self.objects.iter_mut().find(same) {
            for column in columns {
                if object.columns.len() < MAX_COLUMNS && !object.columns.contains(&column) {
                    object.columns.push(column);
                }
            }
        } else if self.objects.len() < MAX_OBJECTS {
            self.objects.push(ObjectRef {
                schema,
                name,
                kind,
                access,
                columns,
                filtered: Vec::new(),
                star: false,
                exact: false,
                bound: Vec::new(),
            });
        }
    }
}

/// Parses the text and adds the tables and functions that its queries touch; answers the statements, none if the parser does not accept it. `numbered` is the text with its
/// literals' numbers in their place; without it the text is parsed as it is, and nothing of its columns is exact.
pub(crate) fn walk(phrase: Phrase<'_>, numbered: Option<&str>, found: &mut Found) -> Vec<Statement> {
    if !within_limits(phrase) {
        return Vec::new();
    }
    let text = numbered.map_or_else(|| readable(phrase), Cow::Borrowed);
    let Ok(statements) = parse(&text, phrase.len()) else {
        return Vec::new();
    };
    let mut walk = Walk {
        found,
        scopes: Vec::new(),
        targets: Vec::new(),
    };
    for statement in &statements {
        // Breaks never: the answer carries nothing.
        let _ = statement.visit(&mut walk);
    }
    statements
}

/// `Parser::parse_sql`, but with room for the tokens: white space stands before most of them.
fn parse(text: &str, tokens: usize) -> Result<Vec<Statement>, ParserError> {
    let dialect = PostgreSqlDialect {};
    let mut found = Vec::with_capacity(2 * tokens + 1);
    Tokenizer::new(&dialect, text).tokenize_with_location_into_buf(&mut found)?;
    Parser::new(&dialect)
        .with_tokens_with_locations(found)
        .parse_statements()
}

/// The text as the parser reads it right. Places of all tokens but the hidden ones stay.
fn readable(phrase: Phrase<'_>) -> Cow<'_, str> {
    let mut text = Cow::Borrowed(phrase.sql);
    for token in (0..phrase.len())
        .filter(|&at| misleads(phrase, at))
        .filter_map(|at| phrase.tokens.get(at))
    {
        text.to_mut().replace_range(token.start..token.end, "    ");
    }
    text
}

/// Whether the parser has to be kept from a word. To `sqlparser`, `FROM ONLY t` is a table `only` with the alias `t`: the
/// word, which the server reserves, is blanked where a table follows.
pub(crate) fn misleads(phrase: Phrase<'_>, at: usize) -> bool {
    let table = matches!(phrase.kind(at + 1), Some(Kind::Word | Kind::Quoted)) || phrase.symbol(at + 1, "(");
    phrase.is(at, "ONLY") && table && !phrase.any(at.wrapping_sub(1), &["ROW", "ROWS", "READ"])
}

/// Whether a text is short and flat enough to be parsed.
pub(crate) fn within_limits(phrase: Phrase<'_>) -> bool {
    if phrase.sql.len() > MAX_PARSED_BYTES || phrase.len() > MAX_PARSED_TOKENS {
        return false;
    }
    let joint = |at: usize| match phrase.kind(at) {
        Some(Kind::Word) => true,
        Some(Kind::Symbol) => !matches!(phrase.text(at), "," | "(" | ")"),
        _ => false,
    };
    let mut depth = 0_usize;
    let nested = (0..phrase.len()).any(|at| {
        match phrase.text(at) {
            "(" | "[" => depth += 1,
            ")" | "]" => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth > MAX_PARSED_BRACKETS
    });
    !nested && (0..phrase.len()).filter(|&at| joint(at)).count() <= MAX_PARSED_JOINTS
}

/// The common table expressions of one query. Each sees those before it, or all when recursive, so that in
/// `WITH users AS (SELECT … FROM users)` the inner name is the table.
struct Scope {
    tables: Vec<(String, *const Query)>,
    visible: usize,
    recursive: bool,
}

struct Walk<'a> {
    found: &'a mut Found,
    scopes: Vec<Scope>,
    /// Table factors that are written, not read. Compared, never followed.
    targets: Vec<*const TableFactor>,
}

impl Walk<'_> {
    fn is_common(&self, name: &ObjectName) -> bool {
        let parts = parts(name);
        let [name] = parts.as_slice() else { return false };
        self.scopes.iter().any(|scope| {
            let seen = if scope.recursive {
                scope.tables.len()
            } else {
                scope.visible
            };
            scope.tables.iter().take(seen).any(|(table, _)| table == name)
        })
    }

    /// Adds a plain table of a FROM list.
    fn source(&mut self, factor: &TableFactor) {
        if let TableFactor::Table { name, args: None, .. } = factor
            && !self.is_common(name)
        {
            self.found.add(parts(name), "table", Access::Read, Vec::new());
        }
    }

    /// The table that a statement writes.
    fn target(&mut self, factor: &TableFactor) {
        self.targets.push(factor);
        if let TableFactor::Table { name, .. } = factor {
            self.found.add(parts(name), "table", Access::Write, Vec::new());
        }
    }
}

impl Visitor for Walk<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        if let Some(scope) = self.scopes.last_mut()
            && let Some(own) = scope
                .tables
                .iter()
                .position(|(_, table)| std::ptr::eq(*table, query))
        {
            scope.visible = own;
        }
        let with = query.with.as_ref();
        let tables = with.map(|with| {
            with.cte_tables
                .iter()
                .map(|cte| (fold(&cte.alias.name), &raw const *cte.query))
                .collect()
        });
        self.scopes.push(Scope {
            tables: tables.unwrap_or_default(),
            visible: 0,
            recursive: with.is_some_and(|with| with.recursive),
        });
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        self.scopes.pop();
        if let Some(scope) = self.scopes.last_mut()
            && let Some(own) = scope
                .tables
                .iter()
                .position(|(_, table)| std::ptr::eq(*table, query))
        {
            scope.visible = own + 1;
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
        if let Some(into) = &select.into {
            self.found
                .add(parts(&into.name), "table", Access::Ddl, Vec::new());
        }
        // Before those of queries in the select list.
        for from in &select.from {
            self.source(&from.relation);
            from.joins.iter().for_each(|join| self.source(&join.relation));
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        let target = self.targets.iter().any(|target| std::ptr::eq(*target, factor));
        if !target {
            self.source(factor);
        }
        match factor {
            TableFactor::Table {
                name, args: Some(_), ..
            }
            | TableFactor::Function { name, .. } => {
                self.found.called(name);
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if let Expr::Function(function) = expr {
            self.found.called(&function.name);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_statement(&mut self, statement: &Statement) -> ControlFlow<()> {
        match statement {
            Statement::Insert(insert) => {
                if let TableObject::TableName(name) = &insert.table {
                    self.found.add(parts(name), "table", Access::Write, Vec::new());
                }
            }
            Statement::Update(update) => self.target(&update.table.relation),
            Statement::Delete(delete) => {
                let (FromTable::WithFromKeyword(from) | FromTable::WithoutKeyword(from)) = &delete.from;
                if let Some(table) = from.first() {
                    self.target(&table.relation);
                }
            }
            Statement::Merge(merge) => self.target(&merge.table),
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

pub(crate) fn fold(ident: &Ident) -> String {
    if ident.quote_style.is_some() {
        ident.value.clone()
    } else {
        ident.value.to_ascii_lowercase()
    }
}

pub(crate) fn parts(name: &ObjectName) -> Vec<String> {
    let ident = |part: &ObjectNamePart| match part {
        ObjectNamePart::Identifier(ident) => Some(fold(ident)),
        ObjectNamePart::Function(_) => None,
    };
    name.0.iter().filter_map(ident).collect()
}
