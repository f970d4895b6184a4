//! What stands behind FROM: tables, joins, queries, functions.

use std::rc::Rc;

use sqlparser::ast::{
    Join, JoinConstraint, JoinOperator, ObjectName, TableAlias, TableFactor, TableWithJoins,
};

use super::conditions::Reach;
use super::scope::{CLOSED, Column, Columns, Derived, Item, Merged, Source, unqualified_in};
use super::{Usage, Walk, table};
use crate::Access;
use crate::objects::{fold, parts};

impl Walk<'_> {
    /// The FROM list of the innermost level; after it, all of it is visible.
    pub(super) fn from(&mut self, from: &[TableWithJoins]) {
        for tree in from {
            self.tree(tree);
        }
        self.open(0);
    }

    pub(super) fn open(&mut self, from: usize) {
        if let Some(level) = self.levels.last_mut() {
            level.open = from;
        }
    }

    pub(super) fn put(&mut self, source: Source) {
        if let Some(level) = self.levels.last_mut() {
            level.sources.push(source);
        }
    }

    fn width(&self) -> usize {
        self.levels.last().map_or(0, |level| level.sources.len())
    }

    fn tree(&mut self, tree: &TableWithJoins) {
        let start = self.width();
        self.factor(&tree.relation);
        for join in &tree.joins {
            let right = self.width();
            self.factor(&join.relation);
            self.joined(join, start, right);
        }
    }

    fn joined(&mut self, join: &Join, start: usize, right: usize) {
        let end = self.width();
        let (constraint, reach) = match &join.join_operator {
            JoinOperator::Join(constraint)
            | JoinOperator::Inner(constraint)
            | JoinOperator::CrossJoin(constraint) => (constraint, Reach::All),
            JoinOperator::Left(constraint) | JoinOperator::LeftOuter(constraint) => {
                (constraint, Reach::Sources(right..end))
            }
            JoinOperator::Right(constraint) | JoinOperator::RightOuter(constraint) => {
                (constraint, Reach::Sources(start..right))
            }
            JoinOperator::FullOuter(constraint) => (constraint, Reach::Nothing),
            // PostgreSQL has no others.
            _ => return self.doubt_sources(start, end),
        };
        match constraint {
            JoinConstraint::On(expr) => {
                self.open(start);
                self.filter(expr, &reach);
                self.open(CLOSED);
            }
            JoinConstraint::Using(columns) => {
                for name in columns {
                    self.using(name, start, right, end);
                }
            }
            // By which columns is not in the text.
            JoinConstraint::Natural => self.doubt_sources(start, end),
            JoinConstraint::None => {}
        }
    }

    fn using(&mut self, name: &ObjectName, start: usize, right: usize, end: usize) {
        let Some(name) = parts(name).pop() else { return };
        if end - start > super::MAX_VISIBLE {
            self.crowded = true;
            return;
        }
        let mut merged = Column {
            plain: true,
            passes: true,
            ..Column::default()
        };
        for range in [start..right, right..end] {
            let found = self
                .levels
                .last()
                .and_then(|level| unqualified_in(level, range, &name))
                .unwrap_or_default();
            if let [(column, ..)] = found.as_slice() {
                merged.origins.extend(column.origins.iter().cloned());
                merged.doubt.extend(&column.doubt);
                merged.through.extend(&column.through);
                merged.plain &= column.plain;
                merged.passes &= column.passes;
            } else {
                let columns = found.iter().flat_map(|(column, ..)| {
                    column
                        .origins
                        .iter()
                        .map(|origin| origin.instance)
                        .chain(column.doubt.iter().copied())
                });
                merged.doubt.extend(columns);
            }
        }
        for origin in &merged.origins {
            self.add(origin, Usage::Filter);
        }
        self.doubt(&merged.doubt);
        if let Some(level) = self.levels.last_mut() {
            level
                .merged
                .retain(|other| other.name != name || other.start < start);
            level.merged.push(Merged {
                name,
                column: merged,
                start,
            });
        }
    }

    fn doubt_sources(&mut self, start: usize, end: usize) {
        let sources = self
            .levels
            .last()
            .map(|level| level.sources.iter().take(end).skip(start));
        let mut instances = Vec::new();
        for source in sources.into_iter().flatten() {
            match &source.columns {
                Columns::Table(instance) | Columns::Renamed(instance) => instances.push(*instance),
                Columns::Derived(derived) => instances.extend(derived.instances()),
                Columns::Unknown => {}
            }
        }
        self.doubt(&instances);
    }

    pub(super) fn factor(&mut self, factor: &TableFactor) {
        match factor {
            TableFactor::Table {
                name,
                alias,
                args: None,
                ..
            } => {
                let source = self.relation(&parts(name), alias.as_ref(), Some(name));
                self.put(source);
            }
            TableFactor::Derived {
                lateral,
                subquery,
                alias,
                ..
            } => {
                if *lateral {
                    self.open(0);
                }
                let mut derived = self.query(subquery);
                self.open(CLOSED);
                if let Some(alias) = alias {
                    derived = derived.renamed(&column_names(alias));
                }
                let name = alias.as_ref().map(|alias| fold(&alias.name));
                self.put(Source {
                    name,
                    schema: None,
                    columns: Columns::Derived(Rc::new(derived)),
                });
            }
            TableFactor::NestedJoin {
                table_with_joins,
                alias,
            } => {
                let start = self.width();
                self.tree(table_with_joins);
                if let Some(alias) = alias {
                    let level = self
                        .levels
                        .last_mut()
                        .map(|level| level.sources.iter_mut().skip(start));
                    for source in level.into_iter().flatten() {
                        (source.name, source.schema) = (Some(fold(&alias.name)), None);
                        // Other names for the columns of several tables.
                        if !alias.columns.is_empty() {
                            source.columns = Columns::Unknown;
                        }
                    }
                    if !alias.columns.is_empty() {
                        self.touched.fill(Some(false));
                    }
                }
            }
            TableFactor::Table {
                args: Some(args),
                name,
                alias,
                ..
            } => {
                self.open(0);
                self.names(args, Usage::Column);
                self.open(CLOSED);
                let own = parts(name).pop();
                self.function(own, alias.as_ref());
            }
            TableFactor::Function {
                name, args, alias, ..
            } => {
                self.open(0);
                self.names(args, Usage::Column);
                self.open(CLOSED);
                let own = parts(name).pop();
                self.function(own, alias.as_ref());
            }
            TableFactor::UNNEST {
                alias, array_exprs, ..
            } => {
                self.open(0);
                self.names(array_exprs, Usage::Column);
                self.open(CLOSED);
                self.function(Some("unnest".to_owned()), alias.as_ref());
            }
            TableFactor::TableFunction { expr, alias } => {
                self.open(0);
                self.names(expr, Usage::Column);
                self.open(CLOSED);
                self.function(None, alias.as_ref());
            }
            TableFactor::JsonTable { json_expr, alias, .. } => {
                self.open(0);
                self.names(json_expr, Usage::Column);
                self.open(CLOSED);
                self.function(None, alias.as_ref());
            }
            TableFactor::XmlTable {
                row_expression,
                passing,
                alias,
                ..
            } => {
                self.open(0);
                self.names(row_expression, Usage::Column);
                self.names(passing, Usage::Column);
                self.open(CLOSED);
                self.function(None, alias.as_ref());
            }
            // PostgreSQL has no others.
            _ => self.put(Source {
                name: None,
                schema: None,
                columns: Columns::Unknown,
            }),
        }
    }

    fn function(&mut self, name: Option<String>, alias: Option<&TableAlias>) {
        let name = alias.map(|alias| fold(&alias.name)).or(name);
        self.put(Source {
            name,
            schema: None,
            columns: Columns::Unknown,
        });
    }

    /// A table, or the common table expression that hides it.
    pub(super) fn relation(
        &mut self,
        name: &[String],
        alias: Option<&TableAlias>,
        written: Option<&ObjectName>,
    ) -> Source {
        let names = alias.map(column_names).unwrap_or_default();
        if let [own] = name
            && let Some(common) = self.commons.iter().rev().find(|common| common.name == *own)
        {
            let (number, shared) = (common.number, Rc::clone(&common.derived));
            if let Some(references) = self.references.get_mut(number) {
                *references += 1;
            }
            let mut derived = if self.may_copy(&shared) {
                Derived::clone(&shared)
            } else {
                Derived {
                    items: vec![Item::Unknown],
                }
            };
            for item in &mut derived.items {
                match item {
                    Item::Column(_, column) => column.through.push(number),
                    Item::Star { through, .. } => through.push(number),
                    Item::Unknown => {}
                }
            }
            let called = alias.map_or_else(|| own.clone(), |alias| fold(&alias.name));
            return Source {
                name: Some(called),
                schema: None,
                columns: Columns::Derived(Rc::new(derived.renamed(&names))),
            };
        }
        let instance = self.instance(name, Access::Read);
        let columns = if names.is_empty() {
            Columns::Table(instance)
        } else {
            Columns::Renamed(instance)
        };
        match written {
            Some(written) => table(written, alias.map(|alias| &alias.name), columns),
            None => Source {
                name: name.last().cloned(),
                schema: None,
                columns,
            },
        }
    }
}

pub(super) fn column_names(alias: &TableAlias) -> Vec<String> {
    alias.columns.iter().map(|column| fold(&column.name)).collect()
}
