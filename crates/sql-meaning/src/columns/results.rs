//! What a query gives, and by what it is grouped and ordered.

use sqlparser::ast::{Expr, SelectItem, SelectItemQualifiedWildcardKind, Value};

use super::scope::{Column, Columns, Derived, Item, Meaning, Merged, Source};
use super::{Usage, Walk};
use crate::objects::{fold, parts};

impl Walk<'_> {
    /// What a SELECT or a RETURNING gives, with the innermost level as it is.
    pub(super) fn result(&mut self, items: &[SelectItem]) -> Derived {
        let mut derived = Derived::default();
        for item in items {
            match item {
                SelectItem::UnnamedExpr(expr) => {
                    let column = self.computed(expr);
                    derived.items.push(Item::Column(result_name(expr), column));
                }
                SelectItem::ExprWithAlias { expr, alias } => {
                    let column = self.computed(expr);
                    derived.items.push(Item::Column(Some(fold(alias)), column));
                }
                SelectItem::ExprWithAliases { expr, .. } => {
                    self.names(expr, Usage::Column);
                    derived.items.push(Item::Unknown);
                }
                SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _) => {
                    for source in self.star_of(name) {
                        self.star(&source.columns);
                        self.expand(&source, true, &mut derived);
                    }
                }
                SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::Expr(expr), _) => {
                    self.names(expr, Usage::Column);
                    derived.items.push(Item::Unknown);
                }
                SelectItem::Wildcard(_) => {
                    let level = self.levels.last();
                    let sources: Vec<Source> = level.map(|level| level.sources.clone()).unwrap_or_default();
                    let merged: Vec<Merged> = level.map(|level| level.merged.clone()).unwrap_or_default();
                    for one in merged {
                        for origin in &one.column.origins {
                            self.add(origin, Usage::Column);
                        }
                        derived.items.push(Item::Column(Some(one.name), one.column));
                    }
                    for source in &sources {
                        self.star(&source.columns);
                        self.expand(source, true, &mut derived);
                    }
                }
            }
        }
        derived
    }

    /// What `*` makes of a source.
    pub(super) fn expand(&mut self, source: &Source, passes: bool, derived: &mut Derived) {
        match &source.columns {
            Columns::Table(instance) => derived.items.push(Item::Star {
                instance: *instance,
                passes,
                through: Vec::new(),
            }),
            Columns::Renamed(instance) => {
                derived.items.push(Item::Column(
                    None,
                    Column {
                        doubt: vec![*instance],
                        ..Column::default()
                    },
                ));
            }
            Columns::Derived(other) if self.may_copy(other) => {
                derived.items.extend(other.items.iter().cloned());
            }
            Columns::Derived(_) | Columns::Unknown => derived.items.push(Item::Unknown),
        }
    }

    fn computed(&mut self, expr: &Expr) -> Column {
        let mentioned = self.names(expr, Usage::Column);
        match self.column(expr) {
            Some(Meaning::Known { column, level, .. }) => {
                let own = level + 1 == self.levels.len();
                Column {
                    passes: column.passes && own,
                    ..column
                }
            }
            Some(Meaning::Doubt(doubt)) => Column {
                doubt,
                ..Column::default()
            },
            _ => Column {
                origins: mentioned,
                ..Column::default()
            },
        }
    }

    /// An expression of ORDER BY or DISTINCT ON: a bare name is one of the result's first (manual, "SELECT", ORDER BY).
    pub(super) fn ordered(&mut self, expr: &Expr, derived: &Derived) {
        match expr {
            Expr::Identifier(ident) => match derived.named(&fold(ident)) {
                Some(column) => self.decides(&column),
                None => {
                    self.names(expr, Usage::Filter);
                }
            },
            _ => self.by_number(expr, derived),
        }
    }

    /// An expression of GROUP BY: a bare name is a column first.
    pub(super) fn grouped(&mut self, expr: &Expr, derived: &Derived) {
        let Expr::Identifier(ident) = expr else {
            return self.by_number(expr, derived);
        };
        let name = fold(ident);
        let Some(column) = derived.named(&name) else {
            self.names(expr, Usage::Filter);
            return;
        };
        let same = column.plain && column.origins.iter().any(|origin| origin.column == name);
        let meaning = self.meaning_of(ident);
        match meaning {
            Meaning::Crowded => self.crowded = true,
            Meaning::Nothing => self.decides(&column),
            Meaning::Known { .. } if same => {
                self.mention(meaning, Usage::Filter);
            }
            // The result has this name, too, and only the catalog says whether a table does.
            Meaning::Known { column: other, .. } => {
                let of_query = !other.origins.iter().any(|origin| origin.column == name);
                if of_query {
                    self.decides(&other);
                } else {
                    let places: Vec<usize> = other
                        .origins
                        .iter()
                        .chain(&column.origins)
                        .map(|origin| origin.instance)
                        .collect();
                    self.doubt(&places);
                }
            }
            Meaning::Doubt(_) if same => self.decides(&column),
            Meaning::Doubt(places) => self.doubt(&places),
        }
    }

    /// `ORDER BY 2`: the number is a literal, and so not there.
    fn by_number(&mut self, expr: &Expr, derived: &Derived) {
        let is_value =
            matches!(expr, Expr::Value(value) if !matches!(value.value, Value::Null | Value::Placeholder(_)));
        if !is_value {
            self.names(expr, Usage::Filter);
            return;
        }
        match derived.items.as_slice() {
            [Item::Column(_, column)] => self.decides(column),
            _ => self.doubt(&derived.instances()),
        }
    }

    fn decides(&mut self, column: &Column) {
        for origin in &column.origins {
            self.add(origin, Usage::Filter);
        }
        self.doubt(&column.doubt);
    }
}

/// The name that the server gives to a column of a result (`FigureColname`), where the expression says it.
fn result_name(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Identifier(ident) => Some(fold(ident)),
        Expr::CompoundIdentifier(idents) => idents.last().map(fold),
        Expr::Nested(inner) | Expr::Cast { expr: inner, .. } | Expr::Collate { expr: inner, .. } => {
            result_name(inner)
        }
        Expr::Function(function) => parts(&function.name).pop(),
        _ => None,
    }
}
