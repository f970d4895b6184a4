//! What a query is told with: its statement and what that means, its values, how it ended.

use proto::v1;
use sql_meaning::{ObjectRef, mask_value};
use tap_core::relations::FROM_SQL;
use tap_core::{
    Asserted, Column, ExchangeKind, Final, Format, Outcome, Param, Phase, Query, Shown, Statement, Subject,
    ValueText, text_of, text_of_start,
};

pub(super) fn protocol(query: &Query) -> v1::Protocol {
    match query.kind {
        _ if query.replication => v1::Protocol::Replication,
        ExchangeKind::Simple => v1::Protocol::Simple,
        ExchangeKind::FunctionCall => v1::Protocol::FunctionCall,
        _ => v1::Protocol::Extended,
    }
}

/// System columns have negative numbers, told as 0; the table and the name still tell them.
pub(super) fn attribute_number(column: &Column) -> u64 {
    u64::try_from(column.attnum).unwrap_or(0)
}

pub(super) fn query(query: &Query) -> v1::Query {
    let error = query.error.clone().unwrap_or_default();
    let columns = query.columns.iter().map(|column| v1::ResultColumn {
        name: String::from_utf8_lossy(&column.name).into_owned(),
        table_oid: column.table_oid,
        attnum: u32::try_from(attribute_number(column)).unwrap_or(0),
    });
    v1::Query {
        protocol: protocol(query).into(),
        statement: Some(v1::Statement {
            text: query.text.as_deref().unwrap_or_default().to_owned(),
            fingerprint: query
                .statement
                .as_ref()
                .map(|statement| hex::encode(statement.fingerprint))
                .unwrap_or_default(),
            name: String::from_utf8_lossy(&query.statement_name).into_owned(),
            portal: String::from_utf8_lossy(&query.portal).into_owned(),
            index: query.index,
            text_known: query.text.is_some(),
            truncated: query.truncated,
            original_bytes: query.original_bytes,
            sha256: query
                .digest
                .as_ref()
                .map(|digest| digest.to_vec())
                .unwrap_or_default(),
            source: query.source.as_deref().unwrap_or_default().to_owned(),
        }),
        meaning: Some(meaning(query)),
        result: Some(v1::Result {
            phase: phase(query.phase).into(),
            outcome: outcome(query).into(),
            rows: Some(query.rows),
            rows_affected: query.rows_affected,
            bytes_in: query.bytes_in,
            bytes_out: query.bytes_out,
            copy_bytes: query.copy_bytes,
            sqlstate: error.sqlstate,
            severity: error.severity,
            columns: columns.collect(),
        }),
        transaction: Some(v1::Transaction {
            status: query
                .transaction_status
                .map(|status| char::from(status).to_string())
                .unwrap_or_default(),
            seq: query.transaction,
            r#final: query.transaction_final.map_or(v1::Final::Unknown, how).into(),
        }),
        stream: Some(v1::StreamRange {
            request_from: query.request.start,
            request_to: query.request.end,
            response_to: query.response_to,
            continues: query.continues,
            client_from: query.client.as_ref().map(|range| range.start),
            client_to: query.client.as_ref().map(|range| range.end),
        }),
        param_count: u32::from(query.param_count),
        params: (0..)
            .zip(query.params.iter())
            .map(|(index, given)| param_told(query, index, given))
            .collect(),
        function_oid: query.function_oid,
        asserted: query.asserted.as_deref().map(asserted),
        effective_role: role_of(query).to_owned(),
        effective_role_possibly_stale: role_may_be_stale(query),
        subjects: query
            .touched
            .iter()
            .flat_map(|touched| touched.subjects.iter().map(subject))
            .collect(),
    }
}

pub(super) fn role_of(query: &Query) -> &str {
    query.effective_role.as_ref().map_or("", |role| &role.name)
}

pub(super) fn role_may_be_stale(query: &Query) -> bool {
    query
        .effective_role
        .as_ref()
        .is_some_and(|role| role.possibly_stale)
}

pub(super) fn asserted(asserted: &Asserted) -> v1::Asserted {
    let claims = asserted.claims.iter().map(|claim| v1::Claim {
        says: claim.says.to_string(),
        value: claim.value.to_string(),
        source: claim.source.to_string(),
        set_by: claim.set_by.map(|by| v1::SetBy {
            request_from: by.request_from,
            index: by.index,
        }),
        possibly_stale: claim.possibly_stale,
    });
    v1::Asserted {
        claims: claims.collect(),
        unknown: asserted.unknown.unwrap_or_default().to_owned(),
        foreign: asserted.foreign.iter().map(ToString::to_string).collect(),
    }
}

/// Values are there only where the pipeline was told to keep them.
pub(super) fn param(param: &Param) -> v1::Param {
    let length = param.bytes.unwrap_or(0);
    let known = param.bytes.is_some() && (!param.kept.is_empty() || length == 0);
    let cut = known && param.truncated();
    let text_of = if cut { text_of_start } else { text_of };
    let (value, raw) = match known.then(|| text_of(param.type_oid, param.format, &param.kept)) {
        Some(ValueText::Text(text)) => (Some(mask_value(&text).into_owned()), false),
        Some(ValueText::Raw(text)) => (Some(text), true),
        None => (None, false),
    };
    v1::Param {
        oid: param.type_oid,
        format: format(param.format).into(),
        null: param.bytes.is_none(),
        bytes: u64::from(length),
        value,
        truncated: cut,
        raw,
        token: Vec::new(),
        dropped: false,
    }
}

/// What is told of the parameter at this place, by the classification of the column that it stands against.
pub(super) fn param_told(query: &Query, index: u16, given: &Param) -> v1::Param {
    let told = query
        .touched
        .as_deref()
        .and_then(|touched| touched.params.iter().find(|told| told.index == index));
    let Some(told) = told else {
        return param(given);
    };
    let token = told.token.map(|token| token.0.to_vec()).unwrap_or_default();
    match &told.shown {
        Shown::Dropped => v1::Param {
            dropped: true,
            ..v1::Param::default()
        },
        Shown::Masked(value) => v1::Param {
            value: Some(value.clone()),
            truncated: true,
            token,
            ..param(given)
        },
        Shown::Hidden | Shown::Clear => v1::Param {
            token,
            ..param(given)
        },
    }
}

/// Whose records it touched, by one identifying column.
pub(super) fn subject(subject: &Subject) -> v1::Subject {
    let told = &subject.told;
    v1::Subject {
        object: subject.of.object.clone(),
        column: subject.of.column.clone(),
        family: subject.of.family.name().to_owned(),
        key: subject.key.to_string(),
        tokens: told.tokens.iter().map(|token| token.0.to_vec()).collect(),
        filter: told
            .filter
            .as_ref()
            .map(|filter| filter.as_bytes().to_vec())
            .unwrap_or_default(),
        filter_values: told.filter_values,
        complete: subject.complete,
        sources: subject.sources.names().map(str::to_owned).collect(),
    }
}

pub(super) fn format(format: Format) -> v1::Format {
    match format {
        Format::Text => v1::Format::Text,
        Format::Binary => v1::Format::Binary,
    }
}

pub(super) fn how(how: Final) -> v1::Final {
    match how {
        Final::Committed => v1::Final::Committed,
        Final::RolledBack => v1::Final::RolledBack,
        Final::Prepared => v1::Final::Prepared,
        Final::Unknown => v1::Final::Unknown,
    }
}

/// The class that a query is told with, and its statement if that is what says so: what the text says; where it says
/// nothing, or is not the whole text of this one statement, what the server's command tag says. Hiding a statement behind
/// a long text must not change its class.
pub(super) fn class_of<'a>(query: &'a Query, tag: &str) -> (sql_meaning::Class, Option<&'a Statement>) {
    let statement = query.statement.as_deref().filter(|_| query.text_is_whole());
    let known = match statement {
        Some(statement) if statement.class != sql_meaning::Class::Unknown => statement.class,
        _ => sql_meaning::class_of_tag(tag),
    };
    (known, statement)
}

/// The command that a tag names.
pub(super) fn command_of(tag: &str) -> &str {
    tag.trim_end_matches(|c: char| c.is_ascii_digit() || c == ' ')
}

/// What a statement touches, and what it runs by an SQL-level EXECUTE or FETCH; with where that is known from.
pub(super) fn objects<'a>(
    query: &'a Query,
    statement: &'a Statement,
) -> impl Iterator<Item = (&'a ObjectRef, &'static str)> {
    let known = query.objects.as_deref();
    let source = query.source_statement.iter().flat_map(|source| &source.objects);
    let written = statement.objects.iter().chain(source);
    let written = written
        .filter(move |_| known.is_none())
        .map(|object| (object, FROM_SQL));
    let known = known.unwrap_or_default().iter();
    known.map(|known| (&known.object, known.source)).chain(written)
}

pub(super) fn meaning(query: &Query) -> v1::Meaning {
    let tag = query.tag.as_deref().unwrap_or_default();
    let (known, statement) = class_of(query, tag);
    let Some(statement) = statement else {
        return v1::Meaning {
            class: class(known).into(),
            command: command_of(tag).to_owned(),
            tag: tag.to_owned(),
            ..v1::Meaning::default()
        };
    };
    v1::Meaning {
        class: class(known).into(),
        command: statement.command.clone(),
        tag: tag.to_owned(),
        parsed: statement.parsed,
        objects: objects(query, statement).map(object).collect(),
    }
}

pub(super) fn access(access: sql_meaning::Access) -> v1::Access {
    match access {
        sql_meaning::Access::Read => v1::Access::Read,
        sql_meaning::Access::Write => v1::Access::Write,
        sql_meaning::Access::Ddl => v1::Access::Ddl,
        sql_meaning::Access::Execute => v1::Access::Execute,
    }
}

fn object((object, source): (&ObjectRef, &'static str)) -> v1::Object {
    v1::Object {
        schema: object.schema.clone().unwrap_or_default(),
        name: object.name.clone(),
        kind: object.kind.to_owned(),
        access: access(object.access).into(),
        columns: object.columns.clone(),
        source: source.to_owned(),
        filtered: object.filtered.clone(),
        columns_exact: object.exact,
    }
}

pub(super) fn class(class: sql_meaning::Class) -> v1::Class {
    match class {
        sql_meaning::Class::Unknown => v1::Class::Unknown,
        sql_meaning::Class::Read => v1::Class::Read,
        sql_meaning::Class::Write => v1::Class::Write,
        sql_meaning::Class::Function => v1::Class::Function,
        sql_meaning::Class::Role => v1::Class::Role,
        sql_meaning::Class::Ddl => v1::Class::Ddl,
        sql_meaning::Class::Misc => v1::Class::Misc,
        sql_meaning::Class::MiscSet => v1::Class::MiscSet,
    }
}

pub(super) fn phase(phase: Phase) -> v1::Phase {
    match phase {
        Phase::Parse => v1::Phase::Parse,
        Phase::Bind => v1::Phase::Bind,
        Phase::Execute => v1::Phase::Execute,
        Phase::Complete => v1::Phase::Complete,
    }
}

pub(super) fn outcome(query: &Query) -> v1::Outcome {
    /// `query_canceled`, manual appendix "PostgreSQL Error Codes".
    const CANCELED: &str = "57014";
    match query.outcome {
        Outcome::Ok | Outcome::EmptyQuery => v1::Outcome::Ok,
        Outcome::Error
            if query
                .error
                .as_ref()
                .is_some_and(|error| error.sqlstate == CANCELED) =>
        {
            v1::Outcome::Canceled
        }
        Outcome::Error => v1::Outcome::Error,
        Outcome::Suspended => v1::Outcome::Suspended,
        Outcome::Unanswered => v1::Outcome::Unanswered,
        Outcome::Unknown => v1::Outcome::Unknown,
    }
}
