//! The columns that an expression names, and the queries inside it.

use std::ops::ControlFlow;

use sqlparser::ast::{
    AccessExpr, Expr, FunctionArg, FunctionArgExpr, FunctionArgOperator, FunctionArguments, Ident,
    ObjectName, Query, Visit, Visitor,
};

use super::conditions::Reach;
use super::scope::{CLOSED, Meaning, Origin, qualified, unqualified};
use super::{Usage, Walk};
use crate::objects::{fold, parts};

impl Walk<'_> {
    /// Takes in all columns that a part of the tree names; answers those that are surely a table's.
    pub(super) fn names(&mut self, part: &impl Visit, usage: Usage) -> Vec<Origin> {
        let mut names = Names {
            walk: self,
            usage,
            depth: 0,
            skipped: Vec::new(),
            mentioned: Vec::new(),
        };
        // Breaks never: the answer carries nothing.
        let _ = part.visit(&mut names);
        names.mentioned
    }

    /// What an identifier means that stands for itself.
    pub(super) fn meaning_of(&mut self, ident: &Ident) -> Meaning {
        let name = fold(ident);
        if ident.quote_style == Some('\'')
            || (ident.quote_style.is_none() && RESERVED.contains(&name.as_str()))
        {
            return Meaning::Nothing;
        }
        let meaning = unqualified(&self.levels, &name);
        if matches!(meaning, Meaning::Crowded) {
            return meaning;
        }
        // A table's own name stands for its rows, unless it has a column of that name.
        let whole = self.levels.iter().rev().find_map(|level| {
            level
                .sources
                .iter()
                .skip(level.open)
                .find(|source| source.is_called(None, &name))
                .map(|source| source.columns.clone())
        });
        let Some(whole) = whole else { return meaning };
        match &meaning {
            Meaning::Known { source, .. } if !self.is_table(&meaning, *source) => meaning,
            Meaning::Nothing => {
                self.star(&whole);
                meaning
            }
            _ => {
                self.star(&whole);
                let instances = match &meaning {
                    Meaning::Known { column, .. } => {
                        column.origins.iter().map(|origin| origin.instance).collect()
                    }
                    Meaning::Doubt(instances) => instances.clone(),
                    Meaning::Crowded | Meaning::Nothing => Vec::new(),
                };
                Meaning::Doubt(instances)
            }
        }
    }

    /// Whether it is a column that a table may have, not one that a query surely has.
    fn is_table(&self, meaning: &Meaning, source: Option<usize>) -> bool {
        let (Meaning::Known { level, .. }, Some(source)) = (meaning, source) else {
            return false;
        };
        let source = self
            .levels
            .get(*level)
            .and_then(|level| level.sources.get(source));
        source.is_some_and(|source| {
            matches!(
                source.columns,
                super::Columns::Table(_) | super::Columns::Renamed(_)
            )
        })
    }

    /// What `table.column` means.
    pub(super) fn meaning_of_qualified(&mut self, idents: &[&Ident]) -> Meaning {
        let [before @ .., table, column] = idents else {
            return Meaning::Nothing;
        };
        let schema = before.last().map(|schema| fold(schema));
        qualified(&self.levels, schema.as_deref(), &fold(table), &fold(column))
    }

    /// All columns of what has this name.
    pub(super) fn star_of(&mut self, name: &ObjectName) -> Vec<super::Source> {
        let mut parts = parts(name);
        let Some(name) = parts.pop() else {
            return Vec::new();
        };
        let schema = parts.pop();
        for level in self.levels.iter().rev().filter(|level| level.open != CLOSED) {
            let sources = level.sources.iter().skip(level.open);
            let found: Vec<_> = sources
                .filter(|source| source.is_called(schema.as_deref(), &name))
                .cloned()
                .collect();
            if !found.is_empty() {
                return found;
            }
        }
        Vec::new()
    }
}

/// Reserved words that the parser takes for names, and that no column can have without quotes.
pub(crate) const RESERVED: [&str; 14] = [
    "default",
    "current_catalog",
    "current_date",
    "current_role",
    "current_schema",
    "current_time",
    "current_timestamp",
    "current_user",
    "localtime",
    "localtimestamp",
    "session_user",
    "user",
    "system_user",
    "null",
];

struct Names<'w, 'f> {
    walk: &'w mut Walk<'f>,
    usage: Usage,
    depth: usize,
    /// Parts of expressions that are no columns. Compared, never followed.
    skipped: Vec<*const Expr>,
    mentioned: Vec<Origin>,
}

impl Names<'_, '_> {
    fn mention(&mut self, meaning: Meaning) {
        let origins = self.walk.mention(meaning, self.usage);
        self.mentioned.extend(origins);
    }

    /// `table.column[1]`, `(row).field`: what follows a dot is no column by itself.
    fn fields(&mut self, root: &Expr, chain: &[AccessExpr]) {
        let dots = chain.iter().map_while(|access| match access {
            AccessExpr::Dot(Expr::Identifier(ident)) => Some(ident),
            _ => None,
        });
        if let Expr::Identifier(first) = root {
            let idents: Vec<&Ident> = std::iter::once(first).chain(dots).collect();
            if idents.len() > 1 {
                self.skipped.push(root);
                let meaning = self.walk.meaning_of_qualified(&idents);
                self.mention(meaning);
            }
        }
        for access in chain {
            if let AccessExpr::Dot(field @ (Expr::Identifier(_) | Expr::CompoundIdentifier(_))) = access {
                self.skipped.push(field);
            }
        }
    }

    fn arguments(&mut self, arguments: &FunctionArguments) {
        let FunctionArguments::List(list) = arguments else {
            return;
        };
        for argument in &list.args {
            let (FunctionArg::Named { arg, .. }
            | FunctionArg::ExprNamed { arg, .. }
            | FunctionArg::Unnamed(arg)) = argument;
            if let FunctionArgExpr::QualifiedWildcard(name) = arg {
                self.star(name);
            }
            if let FunctionArg::ExprNamed {
                name: name @ Expr::Identifier(_),
                operator: FunctionArgOperator::RightArrow | FunctionArgOperator::Assignment,
                ..
            } = argument
            {
                self.skipped.push(name);
            }
        }
    }

    fn star(&mut self, name: &ObjectName) {
        for source in self.walk.star_of(name) {
            self.walk.star(&source.columns);
        }
    }
}

impl Visitor for Names<'_, '_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        if self.depth == 0 {
            self.walk.query(query);
        }
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if self.depth > 0 || self.skipped.iter().any(|skipped| std::ptr::eq(*skipped, expr)) {
            return ControlFlow::Continue(());
        }
        match expr {
            Expr::Identifier(ident) => {
                let meaning = self.walk.meaning_of(ident);
                self.mention(meaning);
            }
            Expr::CompoundIdentifier(idents) => {
                let meaning = self.walk.meaning_of_qualified(&idents.iter().collect::<Vec<_>>());
                self.mention(meaning);
            }
            Expr::CompoundFieldAccess { root, access_chain } => self.fields(root, access_chain),
            Expr::QualifiedWildcard(name, _) => self.star(name),
            Expr::Function(function) => {
                self.arguments(&function.args);
                self.walk.windowed |= function.over.is_some();
                if let Some(filter) = &function.filter {
                    self.walk.condition(filter, &Reach::Nothing);
                }
            }
            Expr::Case {
                operand, conditions, ..
            } => {
                for when in conditions {
                    match operand {
                        Some(operand) => self.walk.equal(operand, &when.condition, &Reach::Nothing),
                        None => self.walk.condition(&when.condition, &Reach::Nothing),
                    };
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}
