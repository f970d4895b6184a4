//! What the executions of a statement have in common, said once.
//!
//! Owns which queries share a template, and the bounded table of those that are at hand. Refuses whatever differs from one
//! execution to the next.

use std::{collections::HashMap, rc::Rc, sync::Arc};

use bytes::Bytes;
use tap_core::{Column, EffectiveRole, ExchangeKind, Query, Statement, Tag, relations::Object};

use super::{Definition, Writer};
use crate::record::query::{self, class, class_of, protocol};

/// What a query begins as, and what that was made of.
pub(super) struct Template {
    pub(super) definition: Rc<Definition>,
    /// Of the query that it was made of; others say theirs where it differs.
    pub(super) tag: Option<Tag>,
    /// The same.
    pub(super) original_bytes: u64,
    /// The meaning follows from the tag.
    by_tag: bool,
    kind: ExchangeKind,
    replication: bool,
    text_is_shared: bool,
    truncated: bool,
    index: u32,
    param_count: u16,
    function_oid: Option<u32>,
    statement_name: Bytes,
    portal: Bytes,
    text: Option<Arc<str>>,
    statement: Option<Arc<Statement>>,
    source: Option<Arc<str>>,
    source_statement: Option<Arc<Statement>>,
    columns: Arc<[Column]>,
    objects: Option<Arc<[Object]>>,
    effective_role: Option<EffectiveRole>,
}

impl Template {
    fn new(query: &Query) -> Self {
        let tag = query.tag.as_deref().unwrap_or_default();
        let by_tag = class_of(query, tag)
            .1
            .is_none_or(|statement| statement.class == sql_meaning::Class::Unknown);
        let mut out = Writer::default();
        out.message(TEMPLATE, |out| write(out, query));
        Self {
            definition: Definition::of(out.bytes),
            tag: query.tag.clone(),
            original_bytes: query.original_bytes,
            by_tag,
            kind: query.kind,
            replication: query.replication,
            text_is_shared: query.text_is_shared,
            truncated: query.truncated,
            index: query.index,
            param_count: query.param_count,
            function_oid: query.function_oid,
            statement_name: query.statement_name.clone(),
            portal: query.portal.clone(),
            text: query.text.clone(),
            statement: query.statement.clone(),
            source: query.source.clone(),
            source_statement: query.source_statement.clone(),
            columns: Arc::clone(&query.columns),
            objects: query.objects.clone(),
            effective_role: query.effective_role.clone(),
        }
    }

    /// Whether everything that it says is true of this query, but for the tag and the length of the text.
    pub(super) fn is_of(&self, query: &Query) -> bool {
        self.is_of_all_but_columns(query) && same(Some(&self.columns), Some(&query.columns))
    }

    /// The same of a query whose columns are known to be the template's.
    pub(super) fn is_of_all_but_columns(&self, query: &Query) -> bool {
        self.index == query.index
            && self.param_count == query.param_count
            && self.truncated == query.truncated
            && self.text_is_shared == query.text_is_shared
            && self.replication == query.replication
            && self.kind == query.kind
            && self.function_oid == query.function_oid
            && same_name(&self.statement_name, &query.statement_name)
            && same_name(&self.portal, &query.portal)
            && same(self.statement.as_ref(), query.statement.as_ref())
            && same(self.text.as_ref(), query.text.as_ref())
            && same(self.source.as_ref(), query.source.as_ref())
            && same(self.source_statement.as_ref(), query.source_statement.as_ref())
            && same(self.objects.as_ref(), query.objects.as_ref())
            && self.effective_role == query.effective_role
            && (!self.by_tag || self.tag == query.tag)
    }
}

/// Mostly they are one and the same.
fn same<T: PartialEq + ?Sized>(one: Option<&Arc<T>>, other: Option<&Arc<T>>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other) || one == other,
        (None, None) => true,
        _ => false,
    }
}

/// Most are empty, and to compare nothing is not for nothing: an empty `Bytes` lies at no address, and glibc's `memcmp` loads from
/// there with a mask, which takes some processors hundreds of cycles.
fn same_name(one: &Bytes, other: &Bytes) -> bool {
    one.len() == other.len() && (one.is_empty() || one == other)
}

/// Templates at hand.
#[derive(Default)]
pub(super) struct Templates {
    /// By fingerprint.
    known: HashMap<[u8; 8], Vec<Rc<Template>>>,
    bytes: usize,
}

/// Bytes of all templates: thousands of statements. Beyond it all are forgotten, which costs making them once more.
const MAX_BYTES: usize = 4 << 20;

/// Templates of one fingerprint: names differ from session to session, lists differ in length. Beyond it the oldest half
/// is forgotten.
const MAX_ALIKE: usize = 64;

impl Templates {
    pub(super) fn of(&mut self, query: &Query) -> Rc<Template> {
        let fingerprint = query
            .statement
            .as_ref()
            .map_or([0; 8], |statement| statement.fingerprint);
        if let Some(alike) = self.known.get(&fingerprint)
            && let Some(found) = alike.iter().rev().find(|template| template.is_of(query))
        {
            return Rc::clone(found);
        }
        let template = Rc::new(Template::new(query));
        let size = size_of::<Template>() + template.definition.size();
        if size > MAX_BYTES / 16 {
            return template;
        }
        if self.bytes + size > MAX_BYTES {
            *self = Self::default();
        }
        let alike = self.known.entry(fingerprint).or_default();
        if alike.len() >= MAX_ALIKE {
            alike.drain(..MAX_ALIKE / 2);
        }
        // What was drained still counts: the table is emptied all the sooner.
        self.bytes += size;
        alike.push(Rc::clone(&template));
        template
    }
}

#[cfg(test)]
impl Templates {
    pub(super) fn len(&self) -> usize {
        self.known.values().map(Vec::len).sum()
    }
}

/// Number of the field in `Definition`.
const TEMPLATE: u32 = 2;

fn write(out: &mut Writer, query: &Query) {
    out.choice(1, protocol(query));
    out.message(2, |out| write_statement(out, query));
    out.message(3, |out| write_meaning(out, query));
    if !query.columns.is_empty() {
        out.message(4, |out| {
            for column in query.columns.iter() {
                out.message(10, |out| {
                    out.foreign(1, &column.name);
                    out.number(2, u64::from(column.table_oid));
                    out.number(3, query::attribute_number(column));
                });
            }
        });
    }
    out.number(7, u64::from(query.param_count));
    if let Some(oid) = query.function_oid {
        out.present(9, u64::from(oid));
    }
    out.text(11, query::role_of(query));
    out.flag(12, query::role_may_be_stale(query));
}

fn write_statement(out: &mut Writer, query: &Query) {
    out.text(1, query.text.as_deref().unwrap_or_default());
    if let Some(statement) = &query.statement {
        let mut hexadecimal = [0; 16];
        if hex::encode_to_slice(statement.fingerprint, &mut hexadecimal).is_ok() {
            out.blob(2, &hexadecimal);
        }
    }
    out.foreign(3, &query.statement_name);
    out.foreign(4, &query.portal);
    out.number(5, u64::from(query.index));
    out.flag(6, query.text.is_some());
    out.flag(7, query.truncated);
    out.number(8, query.original_bytes);
    out.text(10, query.source.as_deref().unwrap_or_default());
}

fn write_meaning(out: &mut Writer, query: &Query) {
    let tag = query.tag.as_deref().unwrap_or_default();
    let (known, statement) = class_of(query, tag);
    out.choice(1, class(known));
    let Some(statement) = statement else {
        out.text(2, query::command_of(tag));
        out.text(3, tag);
        return;
    };
    out.text(2, &statement.command);
    out.text(3, tag);
    out.flag(4, statement.parsed);
    for (object, source) in query::objects(query, statement) {
        out.message(5, |out| {
            out.text(1, object.schema.as_deref().unwrap_or_default());
            out.text(2, &object.name);
            out.text(3, object.kind);
            out.choice(4, query::access(object.access));
            for column in &object.columns {
                out.element(5, column.as_bytes());
            }
            out.text(6, source);
            for column in &object.filtered {
                out.element(7, column.as_bytes());
            }
            out.flag(8, object.exact);
        });
    }
}
