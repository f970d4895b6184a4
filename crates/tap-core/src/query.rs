//! From an exchange to query events: a simple query string is taken apart, each part gets its own answer and meaning.

use std::{borrow::Cow, ops::Range, sync::Arc};

use bytes::Bytes;
use pg_wire::{Exchange, ExchangeKind, Outcome, Param, Params, Phase, StatementResult};
use sql_meaning::{Backslash, Class, Statement};

use crate::{
    assertions::Words,
    catalog::{Resolution, Resolved},
    connection::naming::Naming,
    event::{Query, Times},
    meanings::Meanings,
    subjects::{Asked, Shown, Touched, Watch},
};

/// A statement that was answered.
pub(crate) struct Answered {
    pub(crate) times: Times,
    pub(crate) query: Box<Query>,
    /// What it says beside what is recorded.
    pub(crate) words: Option<Words>,
    /// What its objects are, by the server's catalog.
    pub(crate) resolution: Option<Resolution>,
}

/// What of a statement's text is recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Redaction {
    /// Literals are replaced, comments dropped.
    #[default]
    Literals,
    /// The text as it was sent; passwords are masked still.
    Clear,
}

/// What exchanges are read with.
pub(crate) struct Context<'a, 'n> {
    pub(crate) meanings: &'a mut Meanings,
    /// Looks objects up in the server's catalog.
    pub(crate) naming: Option<&'a mut Naming<'n>>,
    /// Of the session, if it is known.
    pub(crate) database: Option<&'a str>,
    /// Looks for values of classified columns.
    pub(crate) watch: Option<&'a mut Watch>,
    pub(crate) redaction: Redaction,
    /// The client asked for the replication protocol.
    pub(crate) replication: bool,
    /// Nothing in it needed conversion from the client's encoding.
    pub(crate) plain: bool,
    /// How its plain strings are read.
    pub(crate) backslash: Backslash,
}

/// SQLSTATE of a statement that the server could not parse.
const SYNTAX_ERROR: &str = "42601";

/// Takes an exchange apart. Its results are in the order of the statements in the string.
pub(crate) fn queries(exchange: &Exchange, context: &mut Context<'_, '_>, out: &mut Vec<Answered>) {
    let Context {
        meanings,
        watch,
        naming,
        redaction,
        plain,
        ..
    } = context;
    let (redaction, plain) = (*redaction, *plain);
    if context.replication && is_replication_command(exchange) {
        return out.push(whole(exchange, meanings, redaction));
    }
    let texts = texts(exchange);
    let single = exchange.results.len() == 1 && exchange.results_omitted == 0;
    out.extend(exchange.results.iter().enumerate().map(|(index, result)| {
        // Answers beyond the limit were left out before the error that ended the string.
        let omitted = if result.error.is_some() {
            usize::try_from(exchange.results_omitted).unwrap_or(usize::MAX)
        } else {
            0
        };
        let index = index.saturating_add(omitted);
        let text = match &texts {
            Texts::None => None,
            Texts::Whole(text) => Some(Cow::Borrowed(*text)),
            Texts::Parts(whole, parts) => parts.get(index).map(|part| Cow::Owned(whole.slice(part.clone()))),
        };
        let mut phase = result.phase;
        let failed_parse = result
            .error
            .as_ref()
            .is_some_and(|error| error.sqlstate == SYNTAX_ERROR);
        if exchange.kind == ExchangeKind::Simple && failed_parse && single {
            phase = Phase::Parse;
        }
        let statement = text.as_ref().map(|text| match exchange.kind {
            ExchangeKind::Simple => meanings.of(text),
            _ => meanings.of_prepared(text),
        });
        let times = Times {
            start: exchange.started,
            first_response: result.first_response,
            end: if result.ended == 0 {
                exchange.ended
            } else {
                result.ended
            },
        };
        let recorded = text
            .as_ref()
            .zip(statement.as_ref())
            .map(|(text, meaning)| record(text, meaning, redaction));
        let original_bytes = match &texts {
            Texts::Parts(..) => text.as_ref().map_or(0, |text| text.len() as u64),
            _ => exchange.sql_bytes,
        };
        let words = text
            .as_ref()
            .zip(statement.as_ref())
            .and_then(|(text, statement)| Words::of(text, statement.effect, &exchange.params, plain));
        let mut query = query(exchange, result, statement, redaction);
        query.index = u32::try_from(index).unwrap_or(u32::MAX);
        query.phase = phase;
        query.text = recorded;
        query.original_bytes = original_bytes;
        query.text_is_shared = matches!(texts, Texts::Whole(_)) && !single;
        if let Some(source) = &result.source {
            let meaning = meanings.of_prepared(&source.sql);
            query.source = Some(record(&source.sql, &meaning, redaction));
            query.source_statement = Some(meaning);
        }
        let resolution = naming.as_mut().and_then(|naming| {
            // Its text came with it, and is no older than its request.
            let parsed_now = exchange.sql_at >= exchange.request.start;
            naming.resolve(&query, exchange.started, parsed_now)
        });
        if let Some(watch) = watch {
            let given = Given {
                text: text.as_deref().map(AsRef::as_ref),
                params: &exchange.params,
                result,
                backslash: context.backslash,
                plain,
                resolution: resolution.as_deref().unwrap_or_default(),
                database: context.database,
            };
            query.touched = touched(watch, &query, &given);
            if let Some(touched) = &query.touched {
                query.params = recorded_params(&exchange.params, redaction, Some(touched));
            }
        }
        Answered {
            times,
            query,
            words,
            resolution,
        }
    }));
}

/// Commands of the replication protocol (manual, "Streaming Replication Protocol").
const REPLICATION_COMMANDS: [&[u8]; 10] = [
    b"IDENTIFY_SYSTEM",
    b"SHOW",
    b"TIMELINE_HISTORY",
    b"CREATE_REPLICATION_SLOT",
    b"ALTER_REPLICATION_SLOT",
    b"READ_REPLICATION_SLOT",
    b"DROP_REPLICATION_SLOT",
    b"START_REPLICATION",
    b"BASE_BACKUP",
    b"UPLOAD_MANIFEST",
];

fn is_replication_command(exchange: &Exchange) -> bool {
    let Some(sql) = exchange
        .sql
        .as_ref()
        .filter(|_| exchange.kind == ExchangeKind::Simple)
    else {
        return false;
    };
    let sql = sql.trim_ascii_start();
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let end = sql.iter().position(|byte| !is_word(byte)).unwrap_or(sql.len());
    let word = sql.get(..end).unwrap_or_default();
    REPLICATION_COMMANDS
        .iter()
        .any(|command| command.eq_ignore_ascii_case(word))
}

/// A command of the replication protocol, which is one whatever the number of its results: BASE_BACKUP has four.
fn whole(exchange: &Exchange, meanings: &mut Meanings, redaction: Redaction) -> Answered {
    let results = &exchange.results;
    // The error, if there is one, is the last.
    let mut result = results.last().cloned().unwrap_or_else(StatementResult::unseen);
    result.tag = results.iter().find_map(|result| result.tag.clone());
    result.rows = results.iter().map(|result| result.rows).sum();
    result.bytes_in = results.iter().map(|result| result.bytes_in).sum();
    result.bytes_out = results.iter().map(|result| result.bytes_out).sum();
    result.copy_bytes = results
        .iter()
        .filter_map(|result| result.copy_bytes)
        .reduce(|sum, bytes| sum + bytes);
    result.columns = results
        .iter()
        .map(|result| &result.columns)
        .find(|columns| !columns.is_empty())
        .map_or_else(|| result.columns.clone(), Clone::clone);
    let statement = exchange.sql.as_ref().map(|text| meanings.of(text));
    let mut query = query(exchange, &result, statement, redaction);
    query.replication = true;
    query.text = exchange
        .sql
        .as_ref()
        .zip(query.statement.as_ref())
        .map(|(text, meaning)| record(text, meaning, redaction));
    let times = Times {
        start: exchange.started,
        first_response: results.iter().find_map(|result| result.first_response),
        end: exchange.ended,
    };
    Answered {
        times,
        query,
        words: None,
        resolution: None,
    }
}

enum Texts<'a> {
    None,
    /// Every result belongs to the whole text.
    Whole(&'a Bytes),
    Parts(&'a Bytes, Vec<Range<usize>>),
}

fn texts(exchange: &Exchange) -> Texts<'_> {
    let Some(sql) = &exchange.sql else {
        return Texts::None;
    };
    let several = exchange.kind == ExchangeKind::Simple && !exchange.truncated && !pg_wire::is_single(sql);
    // Only where the text is UTF-8 are positions in it safe to cut at.
    let Some(text) = std::str::from_utf8(sql).ok().filter(|_| several) else {
        return Texts::Whole(sql);
    };
    let parts = sql_meaning::split(text);
    let failed_as_a_whole = exchange.results.first().and_then(|result| result.error.as_ref());
    let failed_as_a_whole = failed_as_a_whole.is_some_and(|error| error.sqlstate == SYNTAX_ERROR);
    // Fewer answers than statements: an error ended the string. More answers cannot be told apart.
    let answers = (exchange.results.len() as u64).saturating_add(exchange.results_omitted);
    if parts.len() < 2 || answers > parts.len() as u64 || failed_as_a_whole {
        return Texts::Whole(sql);
    }
    Texts::Parts(sql, parts)
}

fn record(text: &Bytes, meaning: &Arc<Statement>, redaction: Redaction) -> Arc<str> {
    match redaction {
        Redaction::Literals => Arc::clone(&meaning.redacted),
        Redaction::Clear => sql_meaning::mask_secrets(&String::from_utf8_lossy(text)).into(),
    }
}

/// What an exchange and one of its results tell by themselves; the text is still to come.
fn query(
    exchange: &Exchange,
    result: &StatementResult,
    statement: Option<Arc<Statement>>,
    redaction: Redaction,
) -> Box<Query> {
    let done = matches!(
        result.outcome,
        Outcome::Ok | Outcome::Suspended | Outcome::EmptyQuery
    );
    let tag = result.tag.as_deref().filter(|_| done);
    // COPY's tag does not say which way; the text does. Rows that the server writes to a file of its own go to no client.
    let class = statement.as_ref().map(|statement| statement.class);
    let copied = tag
        .filter(|tag| tag.starts_with("COPY "))
        .and_then(sql_meaning::rows_in_tag);
    let taken = copied.filter(|_| class == Some(Class::Write));
    let sent = copied.filter(|_| class == Some(Class::Read) && result.copy_bytes.is_some());
    let statement_is_cut = statement.as_ref().is_some_and(|statement| !statement.whole);
    let rows_affected = tag.and_then(sql_meaning::rows_affected).or(taken);
    Box::new(Query {
        number: 0,
        asserted: None,
        effective_role: None,
        kind: exchange.kind,
        text: None,
        statement,
        source: None,
        source_statement: None,
        objects: None,
        replication: false,
        function_oid: exchange.function_oid,
        original_bytes: exchange.sql_bytes,
        digest: exchange.digest.clone(),
        truncated: exchange.truncated || statement_is_cut,
        text_is_shared: false,
        statement_name: exchange.statement_name.clone(),
        portal: exchange.portal_name.clone(),
        index: 0,
        param_count: exchange.param_count,
        params: recorded_params(&exchange.params, redaction, None),
        touched: None,
        phase: result.phase,
        outcome: result.outcome,
        tag: result.tag.clone(),
        rows: sent.unwrap_or(result.rows),
        rows_affected,
        bytes_in: result.bytes_in,
        bytes_out: result.bytes_out,
        copy_bytes: result.copy_bytes,
        error: result.error.clone(),
        columns: Arc::clone(&result.columns),
        transaction_status: exchange.transaction_status,
        transaction: 0,
        transaction_final: None,
        continues: exchange.continues,
        request: exchange.request.clone(),
        response_to: exchange.response_to,
        client: None,
    })
}

/// What a statement touched of what is classified, by its own text or by that of what it runs.
fn touched(watch: &mut Watch, query: &Query, given: &Given<'_>) -> Option<Box<Touched>> {
    type What<'a> = (
        &'a Arc<Statement>,
        Option<&'a [u8]>,
        &'a [Param],
        Option<&'a [u8]>,
    );
    let (statement, text, params, executes): What<'_> = match (&query.source_statement, &given.result.source)
    {
        // What SQL gives to a prepared statement is in the text of the EXECUTE.
        (Some(statement), Some(source)) => (statement, Some(&source.sql), &[], given.text),
        _ => (query.statement.as_ref()?, given.text, given.params, None),
    };
    if query.text_is_shared || query.truncated {
        return None;
    }
    let own = match (&query.source_statement, &query.statement) {
        (Some(_), Some(own)) => own.objects.len(),
        _ => 0,
    };
    let command = query.statement.as_ref().map(|own| own.command.as_str());
    watch.touched(
        statement,
        &Asked {
            statement,
            text,
            params,
            is_kept_for_later: matches!(command, Some("PREPARE" | "DECLARE CURSOR")),
            executes,
            result: given.result,
            phase: query.phase,
            backslash: given.backslash,
            plain: given.plain,
            resolution: given.resolution.get(own..).unwrap_or_default(),
            database: given.database,
        },
    )
}

/// What was given with a statement, and what came back.
struct Given<'a> {
    text: Option<&'a [u8]>,
    params: &'a [Param],
    result: &'a StatementResult,
    backslash: Backslash,
    plain: bool,
    resolution: &'a [Option<Resolved>],
    database: Option<&'a str>,
}

/// Parameters, with the values that are to be recorded: of those that were kept only to follow what clients assert, or
/// whose records they name, none.
fn recorded_params(params: &Params, redaction: Redaction, touched: Option<&Touched>) -> Params {
    let told = touched.map_or(&[][..], |touched| &touched.params);
    let is_shown = |index: usize| match told.iter().find(|told| usize::from(told.index) == index) {
        Some(told) => told.shown == Shown::Clear,
        None => redaction == Redaction::Clear,
    };
    if params
        .iter()
        .enumerate()
        .all(|(index, param)| param.kept.is_empty() || is_shown(index))
    {
        return Arc::clone(params);
    }
    let shown = |(index, param): (usize, &Param)| {
        if is_shown(index) {
            return param.clone();
        }
        Param {
            kept: Bytes::new(),
            ..param.clone()
        }
    };
    params.iter().enumerate().map(shown).collect()
}
