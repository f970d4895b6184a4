//! Which columns of its objects a statement reads, writes and filters by, and the values that it compares them with.
//!
//! Owns the walk over the tree and what follows from it. Refuses to guess: a name that several tables could have belongs to
//! none of them, and is told by `exact: false` of each; an operand that is more than a value gives none. The objects
//! themselves are not its business: it fills in those that are there.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::rc::Rc;

use sqlparser::ast::{Ident, ObjectName, Statement};

use crate::objects::{MAX_COLUMNS, parts};
use crate::{Access, ObjectRef, Operand, Output, ValueRole, ValueUse};

mod changes;
mod conditions;
mod names;
mod queries;
mod results;
mod scope;
mod sources;

pub(crate) use names::RESERVED;
use scope::{Column, Columns, Derived, Item, Level, Meaning, Origin, Source};

/// Most values kept of one statement: bulk inserts have more, and whose records they touch is then not told completely.
pub(crate) const MAX_VALUES: usize = 2_048;

/// Most places at which a statement may name tables: beyond, nothing is exact.
const MAX_INSTANCES: usize = 1_024;

/// Tables, queries and functions that an unqualified name is looked for in. A statement with more at one place either
/// qualifies its names, or nothing of its columns is exact.
const MAX_VISIBLE: usize = 32;

/// Columns of queries that may be copied to where those queries are used: a text of some hundred bytes can use each of its
/// common table expressions twice in the next.
const MAX_COPIED: usize = 50_000;

/// Columns of a result that are told: PostgreSQL's own limit for a target list, as for [`MAX_COLUMNS`].
const MAX_OUTPUTS: usize = MAX_COLUMNS;

/// Length from which a list of columns is looked up by hash.
const LONG_LIST: usize = 32;

/// Fills in columns of the objects; answers the values, and what the columns of the result are.
pub(crate) fn fill(statements: &[Statement], objects: &mut [ObjectRef]) -> (Vec<ValueUse>, Vec<Output>) {
    let mut walk = Walk {
        runs: true,
        touched: vec![None; objects.len()],
        objects,
        ..Walk::default()
    };
    let mut derived = Derived::default();
    for statement in statements {
        derived = walk.statement(statement);
    }
    let outputs = if walk.crowded {
        Vec::new()
    } else {
        walk.outputs(&derived)
    };
    (walk.finish(), outputs)
}

/// How a statement uses a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Usage {
    /// It reads or writes it.
    Column,
    /// It decides by it.
    Filter,
}

/// One place of the text that names an object.
#[derive(Debug, Default)]
struct Instance {
    /// `None` if the object is not among those found.
    object: Option<usize>,
    /// Columns that have one of the values told in all rows that this place gives or writes, and the common table
    /// expressions that must be used no more than once for that.
    restricted: HashMap<String, Vec<Vec<usize>>>,
    /// Columns that get values which are not known.
    unknown: HashSet<String>,
}

/// A value, and the place that names its object.
#[derive(Debug)]
struct Use {
    origin: Origin,
    role: ValueRole,
    operand: Operand,
    cast: Option<&'static str>,
    each: bool,
}

/// A common table expression.
struct Common {
    name: String,
    number: usize,
    derived: Rc<Derived>,
}

#[derive(Default)]
struct Walk<'f> {
    objects: &'f mut [ObjectRef],
    /// For each object: whether a place in the tree names it, and all is known of the columns there.
    touched: Vec<Option<bool>>,
    instances: Vec<Instance>,
    uses: Vec<Use>,
    /// Values were left out.
    cut: bool,
    commons: Vec<Common>,
    /// How often each common table expression is used.
    references: Vec<u32>,
    levels: Vec<Level>,
    /// The part that is walked is run, not only defined or planned.
    runs: bool,
    /// A window function was met.
    windowed: bool,
    /// A limit was met: nothing is exact.
    crowded: bool,
    /// Columns of queries copied so far.
    copied: usize,
    /// Places of columns in lists that are long.
    places: HashMap<(usize, Usage), HashMap<String, usize>>,
}

impl Walk<'_> {
    /// A place that names this object.
    fn instance(&mut self, name: &[String], access: Access) -> usize {
        let mut backwards = name.iter().rev();
        let (name, schema) = (backwards.next(), backwards.next());
        let object = self.objects.iter().position(|object| {
            object.access == access && Some(&object.name) == name && object.schema.as_ref() == schema
        });
        let object = object.filter(|_| self.instances.len() < MAX_INSTANCES);
        if let Some(at) = object
            && let (Some(touched), Some(object)) = (self.touched.get_mut(at), self.objects.get_mut(at))
            && touched.is_none()
        {
            *touched = Some(true);
            object.columns.clear();
        }
        if self.instances.len() >= MAX_INSTANCES {
            self.touched.fill(Some(false));
            return self.instances.len();
        }
        self.instances.push(Instance {
            object,
            ..Instance::default()
        });
        self.instances.len() - 1
    }

    fn object_of(&self, instance: usize) -> Option<usize> {
        self.instances.get(instance)?.object
    }

    /// Not all is known of the columns at these places.
    fn doubt(&mut self, instances: &[usize]) {
        for &instance in instances {
            if let Some(object) = self.object_of(instance)
                && let Some(touched) = self.touched.get_mut(object)
            {
                *touched = Some(false);
            }
        }
    }

    fn add(&mut self, origin: &Origin, usage: Usage) {
        let Some(at) = self.object_of(origin.instance) else {
            return;
        };
        if self.place(at, usage, &origin.column).is_some() {
            return;
        }
        let Some(list) = self.objects.get_mut(at).map(|object| list(object, usage)) else {
            return;
        };
        if list.len() >= MAX_COLUMNS {
            return self.doubt(&[origin.instance]);
        }
        list.push(origin.column.clone());
        let place = list.len() - 1;
        if let Some(places) = self.places.get_mut(&(at, usage)) {
            places.insert(origin.column.clone(), place);
        }
    }

    /// Where a column stands in a list.
    fn place(&mut self, object: usize, usage: Usage, column: &str) -> Option<usize> {
        let list = list(self.objects.get_mut(object)?, usage);
        if list.len() < LONG_LIST {
            return list.iter().position(|other| other == column);
        }
        let places = self.places.entry((object, usage)).or_insert_with(|| {
            list.iter()
                .enumerate()
                .map(|(place, column)| (column.clone(), place))
                .collect()
        });
        places.get(column).copied()
    }

    /// Whether so many columns may be copied; if not, nothing is exact any more.
    fn may_copy(&mut self, derived: &Derived) -> bool {
        self.copied += derived.weight();
        self.crowded |= self.copied > MAX_COPIED;
        !self.crowded
    }

    /// What the columns of the result are; empty if that is not known.
    fn outputs(&mut self, derived: &Derived) -> Vec<Output> {
        let mut outputs = Vec::new();
        for item in &derived.items {
            let output = match item {
                Item::Column(_, column) => self.output(column),
                Item::Star { instance, .. } => {
                    let object = self.object_of(*instance).and_then(|at| u16::try_from(at).ok());
                    object.map(|object| Output::Star { object })
                }
                Item::Unknown => None,
            };
            match output {
                Some(output) if outputs.len() < MAX_OUTPUTS => outputs.push(output),
                _ => return Vec::new(),
            }
        }
        outputs
    }

    fn output(&mut self, column: &Column) -> Option<Output> {
        // Several columns behind one: how many is not known.
        if !column.doubt.is_empty() && column.origins.is_empty() && !column.single {
            return None;
        }
        let [origin] = column.origins.as_slice() else {
            return Some(Output::Other);
        };
        let place = self
            .object_of(origin.instance)
            .filter(|_| column.plain && column.doubt.is_empty());
        let place = place.and_then(|object| {
            let column = self.place(object, Usage::Column, &origin.column)?;
            Some(Output::Column {
                object: u16::try_from(object).ok()?,
                column: u16::try_from(column).ok()?,
            })
        });
        Some(place.unwrap_or(Output::Other))
    }

    /// A column is used; answers where it comes from.
    fn mention(&mut self, meaning: Meaning, usage: Usage) -> Vec<Origin> {
        match meaning {
            Meaning::Known { column, .. } => {
                for origin in &column.origins {
                    self.add(origin, usage);
                }
                column.origins
            }
            Meaning::Doubt(instances) => {
                self.doubt(&instances);
                Vec::new()
            }
            Meaning::Crowded => {
                self.crowded = true;
                Vec::new()
            }
            Meaning::Nothing => Vec::new(),
        }
    }

    /// All columns of what is called so are read.
    fn star(&mut self, columns: &Columns) {
        if let Columns::Table(instance) | Columns::Renamed(instance) = columns
            && let Some(object) = self.object_of(*instance).and_then(|at| self.objects.get_mut(at))
        {
            object.star = true;
        }
        // The names that a result has are not those of the columns.
        if let Columns::Renamed(instance) = columns {
            self.doubt(&[*instance]);
        }
    }

    /// A value is compared with a column or written to it; answers its number.
    fn value(
        &mut self,
        origin: &Origin,
        role: ValueRole,
        given: (Operand, Option<&'static str>),
        each: bool,
    ) -> Option<usize> {
        if !self.runs || self.object_of(origin.instance).is_none() {
            return None;
        }
        if self.uses.len() >= MAX_VALUES {
            self.cut = true;
            return None;
        }
        let (operand, cast) = given;
        self.uses.push(Use {
            origin: origin.clone(),
            role,
            operand,
            cast,
            each,
        });
        Some(self.uses.len() - 1)
    }

    fn restrict(&mut self, instance: usize, column: &str, through: &[usize]) {
        if let Some(instance) = self.instances.get_mut(instance) {
            instance
                .restricted
                .entry(column.to_owned())
                .or_default()
                .push(through.to_vec());
        }
    }

    /// The last step: an object is restricted to values only if every place that names it is.
    fn finish(mut self) -> Vec<ValueUse> {
        for (at, object) in self.objects.iter_mut().enumerate() {
            object.exact = !self.crowded && self.touched.get(at).copied().flatten().unwrap_or(false);
            let places: Vec<&Instance> = self
                .instances
                .iter()
                .filter(|instance| instance.object == Some(at))
                .collect();
            let once = |through: &[usize]| {
                through
                    .iter()
                    .all(|&number| self.references.get(number) == Some(&1))
            };
            let restricts = |place: &Instance, column: &str| {
                let ways = place.restricted.get(column);
                ways.is_some_and(|ways| ways.iter().any(|through| once(through)))
            };
            let candidates = places
                .first()
                .into_iter()
                .flat_map(|place| place.restricted.keys());
            let mut columns: BTreeSet<String> = BTreeSet::new();
            for column in candidates.filter(|_| !self.cut && !self.crowded) {
                if places.iter().all(|place| restricts(place, column)) {
                    columns.insert(column.clone());
                }
            }
            for one in &mut self.uses {
                let ours = self
                    .instances
                    .get(one.origin.instance)
                    .is_some_and(|place| place.object == Some(at));
                if ours && one.role == ValueRole::Restricts && !columns.contains(&one.origin.column) {
                    one.role = ValueRole::Compared;
                }
            }
            columns.retain(|column| !places.iter().any(|place| place.unknown.contains(column)));
            object.bound = columns.into_iter().collect();
        }
        let mut values: Vec<ValueUse> = Vec::with_capacity(self.uses.len());
        for one in self.uses {
            if let Some(object) = self
                .instances
                .get(one.origin.instance)
                .and_then(|place| place.object)
            {
                values.push(ValueUse {
                    object,
                    column: one.origin.column,
                    role: one.role,
                    operand: one.operand,
                    cast: one.cast,
                    each: one.each,
                });
            }
        }
        values
    }
}

fn list(object: &mut ObjectRef, usage: Usage) -> &mut Vec<String> {
    match usage {
        Usage::Column => &mut object.columns,
        Usage::Filter => &mut object.filtered,
    }
}

/// The name that columns of a table are qualified by, and the schema that may stand before it.
fn called(name: &ObjectName, alias: Option<&Ident>) -> (Option<String>, Option<String>) {
    if let Some(alias) = alias {
        return (Some(crate::objects::fold(alias)), None);
    }
    let mut parts = parts(name);
    let own = parts.pop();
    (own, parts.pop())
}

/// A table as a source of columns.
fn table(name: &ObjectName, alias: Option<&Ident>, columns: Columns) -> Source {
    let (name, schema) = called(name, alias);
    Source {
        name,
        schema,
        columns,
    }
}
