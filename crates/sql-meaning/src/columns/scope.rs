//! What a name means at a place in a query: the tables, queries and functions that are visible there.
//!
//! Refuses to guess: without a catalog any table may have any column, so an unqualified name is a table's only if no other
//! could have it.

use std::rc::Rc;

/// A column of a table at one place of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) instance: usize,
    pub(super) column: String,
}

/// What a column of a query was made of.
#[derive(Clone, Debug, Default)]
pub(super) struct Column {
    pub(super) origins: Vec<Origin>,
    /// It is the origin's own value, not one computed from it.
    pub(super) plain: bool,
    /// A condition on it is one on all rows that its origin gives.
    pub(super) passes: bool,
    /// Common table expressions that it came through.
    pub(super) through: Vec<usize>,
    /// Places that it may come from; nobody knows.
    pub(super) doubt: Vec<usize>,
    /// It is one column, whatever it is; not told of those that are surely a table's.
    pub(super) single: bool,
}

/// One column of a query's result, or several.
#[derive(Clone, Debug)]
pub(super) enum Item {
    Column(Option<String>, Column),
    /// All columns of a table, but for those told already.
    Star {
        instance: usize,
        passes: bool,
        through: Vec<usize>,
    },
    /// Columns of a function, or of nobody knows what.
    Unknown,
}

/// What a query gives.
#[derive(Clone, Debug, Default)]
pub(super) struct Derived {
    pub(super) items: Vec<Item>,
}

/// Something in a FROM list.
#[derive(Clone, Debug)]
pub(super) struct Source {
    /// By which columns are qualified.
    pub(super) name: Option<String>,
    /// Schema that may stand before it.
    pub(super) schema: Option<String>,
    pub(super) columns: Columns,
}

#[derive(Clone, Debug)]
pub(super) enum Columns {
    Table(usize),
    /// A table whose columns got other names.
    Renamed(usize),
    Derived(Rc<Derived>),
    /// A function.
    Unknown,
}

/// A column that a join made one of two.
#[derive(Clone, Debug)]
pub(super) struct Merged {
    pub(super) name: String,
    pub(super) column: Column,
    /// First source of the join.
    pub(super) start: usize,
}

/// What is visible inside of one SELECT, or of a statement that changes rows.
#[derive(Debug, Default)]
pub(super) struct Level {
    pub(super) sources: Vec<Source>,
    pub(super) merged: Vec<Merged>,
    /// Sources before this one are not visible yet, or not here.
    pub(super) open: usize,
}

/// Nothing of a level is visible.
pub(super) const CLOSED: usize = usize::MAX;

/// What a name means.
#[derive(Clone, Debug)]
pub(super) enum Meaning {
    Known {
        column: Column,
        /// Which level, from the outermost.
        level: usize,
        /// Which source in it; `None` for a merged column.
        source: Option<usize>,
    },
    /// It is of one of these places, or of none.
    Doubt(Vec<usize>),
    /// Too much is visible to look for it.
    Crowded,
    /// It is no table's.
    Nothing,
}

/// How one source answers to a column's name.
enum Answer {
    Sure(Column),
    Maybe(Column),
    No,
}

impl Derived {
    /// Places of all tables in it.
    pub(super) fn instances(&self) -> Vec<usize> {
        let mut found = Vec::new();
        for item in &self.items {
            match item {
                Item::Column(_, column) => {
                    found.extend(column.origins.iter().map(|origin| origin.instance));
                    found.extend(&column.doubt);
                }
                Item::Star { instance, .. } => found.push(*instance),
                Item::Unknown => {}
            }
        }
        found
    }

    /// How much a copy of it costs.
    pub(super) fn weight(&self) -> usize {
        let of = |item: &Item| match item {
            Item::Column(_, column) => 1 + column.origins.len() + column.through.len() + column.doubt.len(),
            Item::Star { through, .. } => 1 + through.len(),
            Item::Unknown => 1,
        };
        self.items.iter().map(of).sum()
    }

    /// The columns with this name that are told one by one.
    pub(super) fn named(&self, name: &str) -> Option<Column> {
        let mut found = self.items.iter().filter_map(|item| match item {
            Item::Column(Some(own), column) if own == name => Some(column),
            _ => None,
        });
        let first = found.next()?.clone();
        // Two of one name: the server would refuse it, unless both are the same.
        let mut doubt = Vec::new();
        for other in found {
            if other.origins != first.origins {
                doubt.extend(
                    first
                        .origins
                        .iter()
                        .chain(&other.origins)
                        .map(|origin| origin.instance),
                );
            }
        }
        Some(if doubt.is_empty() {
            first
        } else {
            Column {
                doubt,
                ..Column::default()
            }
        })
    }

    fn answer(&self, name: &str) -> Answer {
        if let Some(column) = self.named(name) {
            return Answer::Sure(column);
        }
        let mut maybe: Option<Column> = None;
        for item in &self.items {
            let column = match item {
                Item::Column(Some(_), _) => continue,
                Item::Column(None, _) | Item::Unknown => Column::default(),
                Item::Star {
                    instance,
                    passes,
                    through,
                } => Column {
                    origins: vec![Origin {
                        instance: *instance,
                        column: name.to_owned(),
                    }],
                    plain: true,
                    passes: *passes,
                    through: through.clone(),
                    ..Column::default()
                },
            };
            maybe = Some(match maybe {
                None => column,
                Some(other) => either(&[other, column]),
            });
        }
        maybe.map_or(Answer::No, Answer::Maybe)
    }

    /// The same with other names for its first columns.
    pub(super) fn renamed(mut self, names: &[String]) -> Self {
        let mut items = self.items.iter_mut();
        for (at, name) in names.iter().enumerate() {
            if let Some(Item::Column(own, _)) = items.next() {
                *own = Some(name.clone());
                continue;
            }
            // How many columns a `*` stands for is not known, so neither whose the names are.
            let doubt = self.instances();
            self.items.truncate(at);
            let rest = names.get(at..).unwrap_or_default();
            self.items.extend(rest.iter().map(|name| {
                Item::Column(
                    Some(name.clone()),
                    Column {
                        doubt: doubt.clone(),
                        ..Column::default()
                    },
                )
            }));
            self.items.extend(doubt.iter().map(|&instance| {
                Item::Column(
                    None,
                    Column {
                        doubt: vec![instance],
                        ..Column::default()
                    },
                )
            }));
            return self;
        }
        self
    }

    /// What a set operation of two queries gives.
    pub(super) fn merged_with(self, other: Derived, passes: bool) -> Self {
        let plain = |items: &[Item]| items.iter().all(|item| matches!(item, Item::Column(..)));
        if self.items.len() == other.items.len() && plain(&self.items) && plain(&other.items) {
            let items = self
                .items
                .into_iter()
                .zip(other.items)
                .map(|(left, right)| match (left, right) {
                    (Item::Column(name, mut a), Item::Column(_, b)) => {
                        a.origins.extend(b.origins);
                        a.through.extend(b.through);
                        a.doubt.extend(b.doubt);
                        a.plain &= b.plain;
                        a.passes &= b.passes && passes;
                        Item::Column(name, a)
                    }
                    (left, _) => left,
                });
            return Self {
                items: items.collect(),
            };
        }
        let doubt: Vec<usize> = self.instances().into_iter().chain(other.instances()).collect();
        Self {
            items: vec![Item::Column(
                None,
                Column {
                    doubt,
                    ..Column::default()
                },
            )],
        }
    }
}

impl Source {
    fn answer(&self, name: &str) -> Answer {
        match &self.columns {
            Columns::Table(instance) => Answer::Maybe(Column {
                origins: vec![Origin {
                    instance: *instance,
                    column: name.to_owned(),
                }],
                plain: true,
                passes: true,
                ..Column::default()
            }),
            Columns::Renamed(instance) => Answer::Maybe(Column {
                doubt: vec![*instance],
                ..Column::default()
            }),
            Columns::Derived(derived) => derived.answer(name),
            Columns::Unknown => Answer::Maybe(Column::default()),
        }
    }

    pub(super) fn is_called(&self, schema: Option<&str>, name: &str) -> bool {
        self.name.as_deref() == Some(name)
            && schema.is_none_or(|schema| self.schema.as_deref() == Some(schema))
    }
}

/// One of these, nobody knows which. The same one twice is no doubt.
fn either(columns: &[Column]) -> Column {
    if let [first, rest @ ..] = columns
        && rest.iter().all(|other| {
            other.origins == first.origins && other.doubt == first.doubt && !first.origins.is_empty()
        })
    {
        return first.clone();
    }
    let mut doubt = Vec::new();
    for column in columns {
        doubt.extend(column.origins.iter().map(|origin| origin.instance));
        doubt.extend(&column.doubt);
    }
    Column {
        doubt,
        ..Column::default()
    }
}

impl Meaning {
    fn of(column: Column, level: usize, source: Option<usize>) -> Self {
        if !column.doubt.is_empty() {
            Meaning::Doubt(
                column
                    .origins
                    .iter()
                    .map(|origin| origin.instance)
                    .chain(column.doubt)
                    .collect(),
            )
        } else if column.origins.is_empty() {
            Meaning::Nothing
        } else {
            Meaning::Known {
                column,
                level,
                source,
            }
        }
    }
}

/// What an unqualified name means among the sources of one level from `start` on (`None`: no column of them has it).
pub(super) fn unqualified_in(
    level: &Level,
    range: std::ops::Range<usize>,
    name: &str,
) -> Option<Vec<(Column, Option<usize>, bool)>> {
    if let Some(merged) = level
        .merged
        .iter()
        .rev()
        .find(|merged| merged.name == name && range.contains(&merged.start))
    {
        return Some(vec![(merged.column.clone(), None, true)]);
    }
    let mut maybe = Vec::new();
    for (at, source) in level.sources.iter().enumerate().take(range.end).skip(range.start) {
        match source.answer(name) {
            Answer::Sure(column) => return Some(vec![(column, Some(at), true)]),
            // The column of a function that gives single values is called as it is.
            Answer::Maybe(column)
                if matches!(source.columns, Columns::Unknown) && source.is_called(None, name) =>
            {
                return Some(vec![(column, Some(at), true)]);
            }
            Answer::Maybe(column) => maybe.push((column, Some(at), false)),
            Answer::No => {}
        }
    }
    (!maybe.is_empty()).then_some(maybe)
}

/// What an unqualified name means inside of all these levels, the last being the innermost.
pub(super) fn unqualified(levels: &[Level], name: &str) -> Meaning {
    let visible = |level: &Level| level.sources.len().saturating_sub(level.open);
    if levels.iter().map(visible).sum::<usize>() > super::MAX_VISIBLE {
        return Meaning::Crowded;
    }
    let mut candidates: Vec<(Column, usize, Option<usize>)> = Vec::new();
    for (depth, level) in levels.iter().enumerate().rev() {
        let range = level.open.min(level.sources.len())..level.sources.len();
        for (column, source, sure) in unqualified_in(level, range, name).unwrap_or_default() {
            if sure && candidates.is_empty() {
                return Meaning::of(column, depth, source);
            }
            candidates.push((column, depth, source));
        }
    }
    match candidates.as_slice() {
        [] => Meaning::Nothing,
        [(column, depth, source)] => Meaning::of(column.clone(), *depth, *source),
        [(_, depth, source), ..] => {
            let columns: Vec<Column> = candidates.iter().map(|(column, ..)| column.clone()).collect();
            Meaning::of(either(&columns), *depth, *source)
        }
    }
}

/// What `name.column` or `schema.name.column` means.
pub(super) fn qualified(levels: &[Level], schema: Option<&str>, name: &str, column: &str) -> Meaning {
    for (depth, level) in levels.iter().enumerate().rev() {
        let matching: Vec<(usize, &Source)> = level
            .sources
            .iter()
            .enumerate()
            .skip(level.open)
            .filter(|(_, source)| source.is_called(schema, name))
            .collect();
        let answers: Vec<Column> = matching
            .iter()
            .filter_map(|(_, source)| match source.answer(column) {
                Answer::Sure(column) | Answer::Maybe(column) => Some(column),
                Answer::No => None,
            })
            .collect();
        match (matching.as_slice(), answers.as_slice()) {
            ([], _) => {}
            (_, []) => return Meaning::Nothing,
            ([(at, _)], [column]) => return Meaning::of(column.clone(), depth, Some(*at)),
            (_, columns) => return Meaning::of(either(columns), depth, None),
        }
    }
    // Nothing here is called so: rules and triggers have OLD and NEW.
    Meaning::Nothing
}
