//! Equalities between columns and values, and whether they hold for all rows that a place gives.

use std::collections::BTreeMap;
use std::ops::Range;

use sqlparser::ast::{BinaryOperator, Expr, Query, SetExpr, UnaryOperator};

use super::scope::{Column, Meaning};
use super::{Usage, Walk};
use crate::values::{Given, elements, given, given_array};
use crate::{Operand, ValueRole};

/// For the rows of which sources of the innermost level a condition decides.
#[derive(Clone, Debug)]
pub(super) enum Reach {
    /// All.
    All,
    /// These: an outer join keeps the others' rows.
    Sources(Range<usize>),
    /// None: it only computes something.
    Nothing,
}

/// Where a condition holds, the columns of these places have one of these values.
pub(super) type Restrictions = BTreeMap<(usize, String), Restriction>;

#[derive(Debug, Default)]
pub(super) struct Restriction {
    /// Numbers of the values.
    values: Vec<usize>,
    /// Common table expressions that the column came through.
    through: Vec<usize>,
}

impl Walk<'_> {
    /// Takes in a condition that rows must meet.
    pub(super) fn filter(&mut self, expr: &Expr, reach: &Reach) {
        self.names(expr, Usage::Filter);
        for ((instance, column), restriction) in self.condition(expr, reach) {
            for value in restriction.values {
                if let Some(value) = self.uses.get_mut(value) {
                    value.role = ValueRole::Restricts;
                }
            }
            self.restrict(instance, &column, &restriction.through);
        }
    }

    /// The values that a condition compares columns with, and what it restricts.
    pub(super) fn condition(&mut self, expr: &Expr, reach: &Reach) -> Restrictions {
        match expr {
            Expr::Nested(inner) => self.condition(inner, reach),
            Expr::IsTrue(inner) => self.condition(inner, reach),
            Expr::BinaryOp {
                op: op @ (BinaryOperator::And | BinaryOperator::Or),
                ..
            } => {
                let operands = chain(expr, op);
                let mut all: Option<Restrictions> = None;
                for operand in operands {
                    let one = self.condition(operand, reach);
                    all = Some(match all {
                        None => one,
                        Some(all) if *op == BinaryOperator::And => both(all, one),
                        Some(all) => one_of(all, one),
                    });
                }
                all.unwrap_or_default()
            }
            Expr::UnaryOp {
                op: UnaryOperator::Not,
                expr,
            } => {
                let mut inner = expr;
                while let Expr::UnaryOp {
                    op: UnaryOperator::Not,
                    expr,
                } = inner.as_ref()
                {
                    inner = expr;
                }
                self.condition(inner, &Reach::Nothing);
                Restrictions::new()
            }
            Expr::BinaryOp {
                left,
                op: BinaryOperator::Eq,
                right,
            }
            | Expr::IsNotDistinctFrom(left, right) => self.equal(left, right, reach),
            Expr::InList { expr, list, negated } => {
                let found = self.one_of_list(expr, list, None, reach);
                if *negated { Restrictions::new() } else { found }
            }
            Expr::InSubquery {
                expr,
                subquery,
                negated: false,
            } => match list(subquery) {
                Some(list) => self.one_of_list(expr, &list, None, reach),
                None => Restrictions::new(),
            },
            Expr::AnyOp {
                left,
                compare_op: BinaryOperator::Eq,
                right,
                ..
            } => match elements(right) {
                Some((list, cast)) => self.one_of_list(left, list, cast, reach),
                None => match given_array(right) {
                    Some(given) => self.compare(left, &[given], true, true, reach),
                    None => Restrictions::new(),
                },
            },
            _ => Restrictions::new(),
        }
    }

    /// `a = b`, rows too.
    pub(super) fn equal(&mut self, left: &Expr, right: &Expr, reach: &Reach) -> Restrictions {
        if let (Some(left), Some(right)) = (row(left), row(right)) {
            let mut all = Restrictions::new();
            if left.len() == right.len() {
                for (left, right) in left.iter().zip(right) {
                    all = both(all, self.equal(left, right, reach));
                }
            }
            return all;
        }
        let (column, value) = match (given(left), given(right)) {
            (None, Some(value)) => (left, value),
            (Some(value), None) => (right, value),
            _ => return Restrictions::new(),
        };
        match value {
            Given::Value(operand, cast) => self.compare(column, &[(operand, cast)], false, true, reach),
            Given::Null => Restrictions::new(),
        }
    }

    /// `a IN (…)`, rows too.
    fn one_of_list<E: std::borrow::Borrow<Expr>>(
        &mut self,
        column: &Expr,
        list: &[E],
        cast: Option<&'static str>,
        reach: &Reach,
    ) -> Restrictions {
        let Some(columns) = row(column) else {
            let values = list.iter().map(|value| given(value.borrow()));
            return self.compare_list(column, values.collect(), cast, reach);
        };
        let mut all = Restrictions::new();
        for (at, column) in columns.iter().enumerate() {
            let values = list
                .iter()
                .map(|value| row(value.borrow()).and_then(|row| row.get(at)).and_then(given));
            all = both(all, self.compare_list(column, values.collect(), cast, reach));
        }
        all
    }

    fn compare_list(
        &mut self,
        column: &Expr,
        list: Vec<Option<Given>>,
        cast: Option<&'static str>,
        reach: &Reach,
    ) -> Restrictions {
        let complete = list.iter().all(Option::is_some);
        let values: Vec<_> = list
            .into_iter()
            .flatten()
            .filter_map(|value| match value {
                Given::Value(operand, own) => Some((operand, own.or(cast))),
                Given::Null => None,
            })
            .collect();
        self.compare(column, &values, false, complete, reach)
    }

    /// A column is compared with values; `complete` if they are all that it may equal.
    fn compare(
        &mut self,
        column: &Expr,
        values: &[(Operand, Option<&'static str>)],
        each: bool,
        complete: bool,
        reach: &Reach,
    ) -> Restrictions {
        let mut found = Restrictions::new();
        let Some(Meaning::Known {
            column,
            level,
            source,
        }) = self.column(column).filter(|_| self.runs)
        else {
            return found;
        };
        if !column.plain {
            return found;
        }
        let reached = level + 1 == self.levels.len()
            && match reach {
                Reach::All => true,
                Reach::Sources(range) => source.is_some_and(|source| range.contains(&source)),
                Reach::Nothing => false,
            };
        let Column {
            origins,
            passes,
            through,
            ..
        } = column;
        for origin in origins {
            let numbers: Vec<usize> = values
                .iter()
                .filter_map(|&value| self.value(&origin, ValueRole::Compared, value, each))
                .collect();
            if reached && passes && complete && !numbers.is_empty() && numbers.len() == values.len() {
                let key = (origin.instance, origin.column);
                let restriction: &mut Restriction = found.entry(key).or_default();
                restriction.values.extend(numbers);
                restriction.through.extend(&through);
            }
        }
        found
    }

    /// The column that an expression is.
    pub(super) fn column(&mut self, expr: &Expr) -> Option<Meaning> {
        match expr {
            Expr::Nested(inner) => self.column(inner),
            Expr::Identifier(ident) => Some(self.meaning_of(ident)),
            Expr::CompoundIdentifier(idents) => {
                Some(self.meaning_of_qualified(&idents.iter().collect::<Vec<_>>()))
            }
            _ => None,
        }
    }
}

/// The operands of `a AND b AND …`, in order: the tree of a chain is as deep as the chain is long.
fn chain<'e>(mut expr: &'e Expr, wanted: &BinaryOperator) -> Vec<&'e Expr> {
    let mut operands = Vec::new();
    while let Expr::BinaryOp { left, op, right } = expr
        && op == wanted
    {
        operands.push(right.as_ref());
        expr = left;
    }
    operands.push(expr);
    operands.reverse();
    operands
}

/// Both hold. What one says is enough; that values of both are told does no harm.
fn both(mut all: Restrictions, other: Restrictions) -> Restrictions {
    for (key, restriction) in other {
        let known = all.entry(key).or_default();
        known.values.extend(restriction.values);
        known.through.extend(restriction.through);
    }
    all
}

/// At least one holds: only what both restrict is.
fn one_of(mut all: Restrictions, mut other: Restrictions) -> Restrictions {
    all.retain(|key, restriction| {
        other.remove(key).is_some_and(|own| {
            restriction.values.extend(own.values);
            restriction.through.extend(own.through);
            true
        })
    });
    all
}

/// The fields of `(a, b)` or `ROW (a, b)`.
fn row(expr: &Expr) -> Option<&[Expr]> {
    match expr {
        Expr::Tuple(fields) => Some(fields),
        Expr::Nested(inner) => row(inner),
        _ => None,
    }
}

/// The values of `(VALUES (1), (2))`.
fn list(query: &Query) -> Option<Vec<&Expr>> {
    let SetExpr::Values(values) = query.body.as_ref() else {
        return None;
    };
    if query.with.is_some() || query.limit_clause.is_some() || query.fetch.is_some() {
        return None;
    }
    values
        .rows
        .iter()
        .map(|row| match row.content.as_slice() {
            [value] => Some(value),
            _ => None,
        })
        .collect()
}
