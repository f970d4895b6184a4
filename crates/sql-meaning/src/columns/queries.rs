//! Queries: FROM lists, joins, conditions, results.

use std::rc::Rc;

use sqlparser::ast::{
    Distinct, Expr, GroupByExpr, Join, JoinConstraint, JoinOperator, LimitClause, ObjectName, OrderBy,
    OrderByKind, Query, Select, SelectItem, SelectItemQualifiedWildcardKind, SetExpr, SetOperator,
    TableAlias, TableFactor, TableWithJoins, Value, With,
};

use super::conditions::Reach;
use super::scope::{CLOSED, Column, Columns, Derived, Item, Level, Meaning, Merged, Source, unqualified_in};
use super::{Common, Usage, Walk, table};
use crate::Access;
use crate::objects::{fold, parts};

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
            let levels = std::mem::take(&mut self.levels);
            // What is outside of the whole query stays visible; the query's own FROM is not there yet.
            self.levels = levels;
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
                expand(&source, whole, &mut derived);
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
    fn relation(
        &mut self,
        name: &[String],
        alias: Option<&TableAlias>,
        written: Option<&ObjectName>,
    ) -> Source {
        let names = alias.map(column_names).unwrap_or_default();
        if let [own] = name
            && let Some(common) = self.commons.iter().rev().find(|common| common.name == *own)
        {
            let mut derived = Derived::clone(&common.derived);
            let number = common.number;
            if let Some(references) = self.references.get_mut(number) {
                *references += 1;
            }
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
                        expand(&source, true, &mut derived);
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
                        derived.items.push(Item::Column(Some(one.name), one.column));
                    }
                    for source in &sources {
                        self.star(&source.columns);
                        expand(source, true, &mut derived);
                    }
                }
            }
        }
        derived
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
    fn ordered(&mut self, expr: &Expr, derived: &Derived) {
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
    fn grouped(&mut self, expr: &Expr, derived: &Derived) {
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

/// What `*` makes of a source.
fn expand(source: &Source, passes: bool, derived: &mut Derived) {
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
        Columns::Derived(other) => derived.items.extend(other.items.iter().cloned()),
        Columns::Unknown => derived.items.push(Item::Unknown),
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

fn column_names(alias: &TableAlias) -> Vec<String> {
    alias.columns.iter().map(|column| fold(&column.name)).collect()
}

fn is_plain(query: &Query) -> bool {
    query.with.is_none() && query.order_by.is_none() && query.limit_clause.is_none() && query.fetch.is_none()
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
