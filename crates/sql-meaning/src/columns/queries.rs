//! Queries: common table expressions, set operations, SELECT.

use std::rc::Rc;

use sqlparser::ast::{
    Distinct, Expr, GroupByExpr, LimitClause, OrderBy, OrderByKind, Query, Select, SetExpr, SetOperator, With,
};

use super::conditions::Reach;
use super::scope::{CLOSED, Column, Derived, Item, Level};
use super::sources::column_names;
use super::{Common, Usage, Walk};
use crate::objects::fold;

impl Walk<'_> {
    /// A query, as far as those around it are concerned: what it gives.
    pub(super) fn query(&mut self, query: &Query) -> Derived {
        let known = self.commons.len();
        if let Some(with) = &query.with {
            self.with(with);
        }
        let whole = query.limit_clause.is_none() && query.fetch.is_none();
        let derived = self.body(&query.body, query.order_by.as_ref(), whole);
        if let Some(limit) = &query.limit_clause {
            match limit {
                LimitClause::LimitOffset { limit, offset, .. } => {
                    self.names(limit, Usage::Filter);
                    self.names(offset, Usage::Filter);
                }
                LimitClause::OffsetCommaLimit { offset, limit } => {
                    self.names(offset, Usage::Filter);
                    self.names(limit, Usage::Filter);
                }
            }
        }
        self.commons.truncate(known);
        derived
    }

    fn with(&mut self, with: &With) {
        let unknown = Rc::new(Derived {
            items: vec![Item::Unknown],
        });
        let first = self.commons.len();
        if with.recursive {
            // Each may use all of them; until one was read, nobody knows what it gives.
            for cte in &with.cte_tables {
                self.common(fold(&cte.alias.name), Rc::clone(&unknown));
            }
        }
        for (at, cte) in with.cte_tables.iter().enumerate() {
            let names = column_names(&cte.alias);
            let mut derived = match cte.query.body.as_ref() {
                SetExpr::SetOperation { left, right, .. } if with.recursive && is_plain(&cte.query) => {
                    let left = closed(self.body(left, None, true)).renamed(&names);
                    if let Some(own) = self.commons.get_mut(first + at) {
                        own.derived = Rc::new(left.clone());
                    }
                    let right = closed(self.body(right, None, true));
                    left.merged_with(right, false)
                }
                _ => self.query(&cte.query).renamed(&names),
            };
            if with.recursive {
                derived = closed(derived);
                if let Some(own) = self.commons.get_mut(first + at) {
                    own.derived = Rc::new(derived);
                }
            } else {
                self.common(fold(&cte.alias.name), Rc::new(derived));
            }
        }
    }

    fn common(&mut self, name: String, derived: Rc<Derived>) {
        self.commons.push(Common {
            name,
            number: self.references.len(),
            derived,
        });
        self.references.push(0);
    }

    /// `whole`: no limit cuts what it gives.
    fn body(&mut self, body: &SetExpr, order: Option<&OrderBy>, whole: bool) -> Derived {
        match body {
            SetExpr::Select(select) => self.select(select, order, whole),
            SetExpr::Query(query) => {
                // ORDER BY behind a query in brackets is its own.
                let known = self.commons.len();
                if order.is_none() || query.order_by.is_some() {
                    return self.query(query);
                }
                if let Some(with) = &query.with {
                    self.with(with);
                }
                let whole = whole && query.limit_clause.is_none() && query.fetch.is_none();
                let derived = self.body(&query.body, order, whole);
                self.commons.truncate(known);
                derived
            }
            SetExpr::SetOperation { left, op, right, .. } => {
                let left = self.body(left, None, true);
                let right = self.body(right, None, true);
                let passes = whole && *op == SetOperator::Union;
                let mut derived = left.merged_with(right, passes);
                if !passes {
                    derived = closed(derived);
                }
                for expr in order.into_iter().flat_map(order_exprs) {
                    self.ordered_result(expr, &derived);
                }
                derived
            }
            SetExpr::Values(values) => {
                let mut width = 0;
                for row in &values.rows {
                    width = width.max(row.content.len());
                    self.names(&row.content, Usage::Column);
                }
                let column = |at: usize| Item::Column(Some(format!("column{}", at + 1)), Column::default());
                Derived {
                    items: (0..width).map(column).collect(),
                }
            }
            SetExpr::Insert(statement)
            | SetExpr::Update(statement)
            | SetExpr::Delete(statement)
            | SetExpr::Merge(statement) => closed(self.statement(statement)),
            SetExpr::Table(named) => {
                let name: Vec<String> = named
                    .schema_name
                    .iter()
                    .chain(&named.table_name)
                    .cloned()
                    .collect();
                let source = self.relation(&name, None, None);
                self.star(&source.columns);
                let mut derived = Derived::default();
                self.expand(&source, whole, &mut derived);
                derived
            }
        }
    }

    /// A column of the result, by its name alone: nothing else can stand behind ORDER BY of a set operation.
    fn ordered_result(&mut self, expr: &Expr, derived: &Derived) {
        let named = match expr {
            Expr::Identifier(ident) => derived.named(&fold(ident)),
            _ => None,
        };
        match named {
            Some(column) if column.doubt.is_empty() => {
                for origin in &column.origins {
                    self.add(origin, Usage::Filter);
                }
            }
            _ => self.doubt(&derived.instances()),
        }
    }

    fn select(&mut self, select: &Select, order: Option<&OrderBy>, whole: bool) -> Derived {
        let windowed = std::mem::take(&mut self.windowed);
        self.levels.push(Level {
            open: CLOSED,
            ..Level::default()
        });
        self.from(&select.from);
        let mut derived = self.result(&select.projection);
        self.names(&select.named_window, Usage::Column);
        if let Some(Distinct::On(exprs)) = &select.distinct {
            for expr in exprs {
                self.ordered(expr, &derived);
            }
        }
        if let Some(selection) = &select.selection {
            self.filter(selection, &Reach::All);
        }
        let grouped = match &select.group_by {
            GroupByExpr::Expressions(exprs, modifiers) => {
                for expr in exprs {
                    self.grouped(expr, &derived);
                }
                self.names(modifiers, Usage::Filter);
                !exprs.is_empty()
            }
            GroupByExpr::All(_) => {
                self.doubt(&derived.instances());
                true
            }
        };
        if let Some(having) = &select.having {
            self.names(having, Usage::Filter);
            self.condition(having, &Reach::Nothing);
        }
        for expr in order.into_iter().flat_map(order_exprs) {
            self.ordered(expr, &derived);
        }
        self.levels.pop();
        let plain = whole
            && !grouped
            && !self.windowed
            && select.having.is_none()
            && !matches!(select.distinct, Some(Distinct::On(_)));
        if !plain {
            derived = closed(derived);
        }
        self.windowed = windowed;
        derived
    }
}

/// Conditions on its columns decide nothing about the rows that were read for it.
pub(super) fn closed(mut derived: Derived) -> Derived {
    for item in &mut derived.items {
        match item {
            Item::Column(_, column) => column.passes = false,
            Item::Star { passes, .. } => *passes = false,
            Item::Unknown => {}
        }
    }
    derived
}

fn order_exprs(order: &OrderBy) -> impl Iterator<Item = &Expr> {
    let exprs = match &order.kind {
        OrderByKind::Expressions(exprs) => exprs.as_slice(),
        OrderByKind::All(_) => &[],
    };
    exprs.iter().map(|order| &order.expr)
}

fn is_plain(query: &Query) -> bool {
    query.with.is_none() && query.order_by.is_none() && query.limit_clause.is_none() && query.fetch.is_none()
}
