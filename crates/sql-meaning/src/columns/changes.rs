//! Statements that change rows, and those that hold queries.

use std::collections::BTreeSet;

use sqlparser::ast::{
    Assignment, AssignmentTarget, ConflictTarget, CopySource, Delete, Expr, FromTable, Insert, Merge,
    MergeAction, MergeClause, MergeInsertKind, ObjectName, OnConflictAction, OnInsert, OutputClause, Query,
    SelectItem, SetExpr, Statement, TableFactor, TableObject, Update, UpdateTableFromKind, UtilityOption,
    Value,
};

use super::conditions::Reach;
use super::scope::{Columns, Derived, Level, Origin, Source};
use super::{Usage, Walk, table};
use crate::objects::{fold, parts};
use crate::values::{Given, given};
use crate::{Access, ValueRole};

impl Walk<'_> {
    /// Any statement; answers what it gives to the query that it is part of.
    pub(super) fn statement(&mut self, statement: &Statement) -> Derived {
        match statement {
            Statement::Query(query) => return self.query(query),
            Statement::Insert(insert) => return self.insert(insert),
            Statement::Update(update) => return self.update(update),
            Statement::Delete(delete) => return self.delete(delete),
            Statement::Merge(merge) => return self.merge(merge),
            Statement::Copy { source, to, .. } => return self.copy(source, *to),
            Statement::Explain {
                analyze,
                statement,
                options,
                ..
            } => {
                let options = options.iter().flatten();
                let runs = *analyze || options.into_iter().any(analyses);
                self.with_runs(runs, |walk| walk.statement(statement));
            }
            // What EXECUTE runs, with its own arguments for the parameters.
            Statement::Prepare { statement, .. } => return self.statement(statement),
            // What FETCH gives.
            Statement::Declare { stmts } => {
                if let [declared] = stmts.as_slice()
                    && let Some(query) = &declared.for_query
                {
                    return self.query(query);
                }
                self.names(statement, Usage::Column);
            }
            Statement::CreateView(view) if !view.materialized => {
                self.with_runs(false, |walk| walk.query(&view.query));
            }
            other => {
                self.names(other, Usage::Column);
            }
        }
        Derived::default()
    }

    fn with_runs<T>(&mut self, runs: bool, part: impl FnOnce(&mut Self) -> T) {
        let before = self.runs;
        self.runs &= runs;
        part(self);
        self.runs = before;
    }

    /// What is copied of a query.
    fn copy(&mut self, source: &CopySource, to: bool) -> Derived {
        let (name, columns) = match source {
            CopySource::Query(query) => return self.query(query),
            CopySource::Table { table_name, columns } => (table_name, columns),
        };
        let access = if to { Access::Read } else { Access::Write };
        let instance = self.instance(&parts(name), access);
        for column in columns {
            self.add(
                &Origin {
                    instance,
                    column: fold(column),
                },
                Usage::Column,
            );
        }
        if columns.is_empty() && to {
            self.star(&Columns::Table(instance));
        } else if columns.is_empty() {
            self.doubt(&[instance]);
        }
        Derived::default()
    }

    fn insert(&mut self, insert: &Insert) -> Derived {
        let TableObject::TableName(name) = &insert.table else {
            return Derived::default();
        };
        let instance = self.instance(&parts(name), Access::Write);
        let columns: Vec<String> = insert
            .columns
            .iter()
            .filter_map(|column| parts(column).into_iter().next())
            .collect();
        for column in &columns {
            self.add(
                &Origin {
                    instance,
                    column: column.clone(),
                },
                Usage::Column,
            );
        }
        // Which columns get values is not in the text.
        if columns.is_empty() {
            self.doubt(&[instance]);
        }
        let mut known = match &insert.source {
            Some(source) => self.inserted(source, instance, &columns),
            None => BTreeSet::new(),
        };
        let alias = insert.table_alias.as_ref().map(|alias| &alias.alias);
        self.levels.push(Level {
            sources: vec![
                table(name, alias, Columns::Table(instance)),
                Source {
                    name: Some("excluded".to_owned()),
                    schema: None,
                    columns: Columns::Table(instance),
                },
            ],
            ..Level::default()
        });
        if let Some(OnInsert::OnConflict(conflict)) = &insert.on {
            let mut target = Vec::new();
            if let Some(ConflictTarget::Columns(columns)) = &conflict.conflict_target {
                target = columns.iter().map(fold).collect();
            }
            for column in &target {
                self.add(
                    &Origin {
                        instance,
                        column: column.clone(),
                    },
                    Usage::Filter,
                );
            }
            if let OnConflictAction::DoUpdate(update) = &conflict.action {
                // The row that is updated has the same values only where the conflict is about them.
                known.retain(|column| target.contains(column));
                self.assignments(&update.assignments, instance, true);
                if let Some(selection) = &update.selection {
                    self.filter(selection, &Reach::Nothing);
                }
            }
        }
        // `excluded` is not seen by RETURNING.
        if let Some(level) = self.levels.last_mut() {
            level.sources.truncate(1);
        }
        for column in known {
            self.restrict(instance, &column, &[]);
        }
        let derived = self.result(insert.returning.as_deref().unwrap_or_default());
        self.levels.pop();
        derived
    }

    /// The rows that are inserted; answers the columns that get only values that are told.
    fn inserted(&mut self, source: &Query, instance: usize, columns: &[String]) -> BTreeSet<String> {
        let before = std::mem::take(&mut self.levels);
        self.query(source);
        self.levels = before;
        let mut known: BTreeSet<String> = columns.iter().cloned().collect();
        let mut rows: Vec<Vec<Option<&Expr>>> = Vec::new();
        if !rows_of(&source.body, &mut rows) {
            return BTreeSet::new();
        }
        for row in rows {
            for (at, column) in columns.iter().enumerate() {
                let value = row.get(at).copied().flatten().and_then(given);
                if !self.written(instance, column, value) {
                    known.remove(column);
                }
            }
        }
        known
    }

    /// A column gets a value; answers whether that is told.
    fn written(&mut self, instance: usize, column: &str, value: Option<Given>) -> bool {
        let origin = Origin {
            instance,
            column: column.to_owned(),
        };
        match value {
            Some(Given::Value(operand, cast)) => self
                .value(&origin, ValueRole::Written, (operand, cast), false)
                .is_some(),
            Some(Given::Null) => true,
            None => false,
        }
    }

    /// `SET …`: columns are written; `conflict` after ON CONFLICT, where `excluded` is the row that was to be inserted.
    fn assignments(&mut self, assignments: &[Assignment], instance: usize, conflict: bool) {
        for assignment in assignments {
            self.names(&assignment.value, Usage::Column);
            let targets: Vec<&ObjectName> = match &assignment.target {
                AssignmentTarget::ColumnName(name) => vec![name],
                AssignmentTarget::Tuple(names) => names.iter().collect(),
            };
            let values = match (&assignment.target, &assignment.value) {
                (AssignmentTarget::ColumnName(_), value) => vec![value],
                (AssignmentTarget::Tuple(_), Expr::Tuple(values)) => values.iter().collect(),
                (AssignmentTarget::Tuple(_), _) => Vec::new(),
            };
            for (at, target) in targets.iter().enumerate() {
                let parts = parts(target);
                // The first is the column, what follows is part of it.
                let Some(column) = parts.first() else { continue };
                self.add(
                    &Origin {
                        instance,
                        column: column.clone(),
                    },
                    Usage::Column,
                );
                let value = values.get(at).filter(|_| parts.len() == 1);
                let same = conflict && value.is_some_and(|value| is_excluded(value, column));
                let told = same || self.written(instance, column, value.and_then(|value| given(value)));
                if let Some(place) = self.instances.get_mut(instance).filter(|_| !told) {
                    place.unknown.insert(column.clone());
                }
            }
        }
    }

    fn target(&mut self, factor: &TableFactor) -> Option<usize> {
        let TableFactor::Table { name, alias, .. } = factor else {
            return None;
        };
        let instance = self.instance(&parts(name), Access::Write);
        let columns = match alias {
            Some(alias) if !alias.columns.is_empty() => Columns::Renamed(instance),
            _ => Columns::Table(instance),
        };
        self.put(table(name, alias.as_ref().map(|alias| &alias.name), columns));
        Some(instance)
    }

    fn update(&mut self, update: &Update) -> Derived {
        self.levels.push(Level {
            open: super::scope::CLOSED,
            ..Level::default()
        });
        let instance = self.target(&update.table.relation);
        let from = match &update.from {
            Some(UpdateTableFromKind::BeforeSet(from) | UpdateTableFromKind::AfterSet(from)) => {
                from.as_slice()
            }
            None => &[],
        };
        self.from(from);
        if let Some(instance) = instance {
            self.assignments(&update.assignments, instance, false);
        }
        if let Some(selection) = &update.selection {
            self.filter(selection, &Reach::All);
        }
        let derived = self.result(update.returning.as_deref().unwrap_or_default());
        self.levels.pop();
        derived
    }

    fn delete(&mut self, delete: &Delete) -> Derived {
        self.levels.push(Level {
            open: super::scope::CLOSED,
            ..Level::default()
        });
        let (FromTable::WithFromKeyword(from) | FromTable::WithoutKeyword(from)) = &delete.from;
        if let Some(table) = from.first() {
            self.target(&table.relation);
        }
        self.from(delete.using.as_deref().unwrap_or_default());
        if let Some(selection) = &delete.selection {
            self.filter(selection, &Reach::All);
        }
        let derived = self.result(delete.returning.as_deref().unwrap_or_default());
        self.levels.pop();
        derived
    }

    fn merge(&mut self, merge: &Merge) -> Derived {
        self.levels.push(Level {
            open: super::scope::CLOSED,
            ..Level::default()
        });
        let instance = self.target(&merge.table);
        self.factor(&merge.source);
        self.open(0);
        self.filter(&merge.on, &Reach::Nothing);
        for clause in &merge.clauses {
            self.clause(clause, instance);
        }
        let derived = match &merge.output {
            Some(
                OutputClause::Returning { select_items, .. } | OutputClause::Output { select_items, .. },
            ) => self.result(select_items),
            None => self.result(&[] as &[SelectItem]),
        };
        self.levels.pop();
        derived
    }

    fn clause(&mut self, clause: &MergeClause, instance: Option<usize>) {
        if let Some(predicate) = &clause.predicate {
            self.filter(predicate, &Reach::Nothing);
        }
        let Some(instance) = instance else { return };
        match &clause.action {
            MergeAction::Insert(insert) => {
                let columns: Vec<String> = insert
                    .columns
                    .iter()
                    .filter_map(|column| parts(column).into_iter().next())
                    .collect();
                for column in &columns {
                    self.add(
                        &Origin {
                            instance,
                            column: column.clone(),
                        },
                        Usage::Column,
                    );
                }
                if columns.is_empty() {
                    self.doubt(&[instance]);
                }
                if let MergeInsertKind::Values(values) = &insert.kind {
                    for row in &values.rows {
                        self.names(&row.content, Usage::Column);
                        for (column, value) in columns.iter().zip(&row.content) {
                            self.written(instance, column, given(value));
                        }
                    }
                }
            }
            MergeAction::Update(update) => self.assignments(&update.assignments, instance, false),
            MergeAction::Delete { .. } => {}
        }
    }
}

/// The values of VALUES, or of a SELECT that only computes: one row of them; those that are no expression are unknown.
/// Answers false for any other query.
fn rows_of<'e>(body: &'e SetExpr, rows: &mut Vec<Vec<Option<&'e Expr>>>) -> bool {
    match body {
        SetExpr::Values(values) => {
            rows.extend(
                values
                    .rows
                    .iter()
                    .map(|row| row.content.iter().map(Some).collect()),
            );
            true
        }
        SetExpr::Select(select) => {
            let mut row = Vec::new();
            for item in &select.projection {
                match item {
                    SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => {
                        row.push(Some(expr));
                    }
                    // How many columns it stands for is not known.
                    _ => break,
                }
            }
            rows.push(row);
            true
        }
        SetExpr::SetOperation { left, right, .. } => rows_of(left, rows) && rows_of(right, rows),
        SetExpr::Query(query) => rows_of(&query.body, rows),
        _ => false,
    }
}

/// `excluded.column`: the value that was to be inserted.
fn is_excluded(value: &Expr, column: &str) -> bool {
    matches!(value, Expr::CompoundIdentifier(idents) if matches!(idents.as_slice(),
        [table, own] if fold(table) == "excluded" && fold(own) == column))
}

/// `EXPLAIN (ANALYZE)`, unless it is switched off, or by a literal, which is not there.
fn analyses(option: &UtilityOption) -> bool {
    let on = |arg: &Expr| match arg {
        Expr::Value(value) => matches!(value.value, Value::Boolean(true)),
        Expr::Identifier(ident) => matches!(fold(ident).as_str(), "on" | "true"),
        _ => false,
    };
    fold(&option.name) == "analyze" && option.arg.as_ref().is_none_or(on)
}
