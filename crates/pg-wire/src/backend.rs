//! Messages of the server: which fields of each are kept, and how those are read. What a message answers
//! is decided in the pipeline.

use bytes::Bytes;

use crate::capture::{Field, Plan};
use crate::cursor::Cursor;
use crate::exchange::{Column, Columns, Format, ServerError, Tag};

/// Message types (manual section "Message Formats").
pub(crate) mod kind {
    pub(crate) const PARSE_COMPLETE: u8 = b'1';
    pub(crate) const BIND_COMPLETE: u8 = b'2';
    pub(crate) const CLOSE_COMPLETE: u8 = b'3';
    pub(crate) const NOTIFICATION: u8 = b'A';
    pub(crate) const COMMAND_COMPLETE: u8 = b'C';
    pub(crate) const DATA_ROW: u8 = b'D';
    pub(crate) const ERROR: u8 = b'E';
    pub(crate) const COPY_IN: u8 = b'G';
    pub(crate) const COPY_OUT: u8 = b'H';
    pub(crate) const EMPTY_QUERY: u8 = b'I';
    pub(crate) const BACKEND_KEY: u8 = b'K';
    pub(crate) const NOTICE: u8 = b'N';
    pub(crate) const AUTHENTICATION: u8 = b'R';
    pub(crate) const PARAMETER_STATUS: u8 = b'S';
    pub(crate) const ROW_DESCRIPTION: u8 = b'T';
    pub(crate) const FUNCTION_RESULT: u8 = b'V';
    pub(crate) const COPY_BOTH: u8 = b'W';
    pub(crate) const READY: u8 = b'Z';
    pub(crate) const COPY_DONE: u8 = b'c';
    pub(crate) const COPY_DATA: u8 = b'd';
    pub(crate) const NO_DATA: u8 = b'n';
    pub(crate) const PORTAL_SUSPENDED: u8 = b's';
    pub(crate) const PARAMETER_DESCRIPTION: u8 = b't';
    pub(crate) const NEGOTIATE_VERSION: u8 = b'v';
}

/// Head of an error that is kept for a moment: severity and SQLSTATE are its first fields, the text follows.
const ERROR_BYTES: usize = 256;
/// Longest severity or SQLSTATE kept; the server's are shorter, in any language.
const ERROR_FIELD_BYTES: usize = 64;
/// Longest command tag: the server's own buffer is 64 (`COMPLETION_TAG_BUFSIZE`).
const TAG_BYTES: usize = 128;
/// Name and value of a reported setting: `search_path` is the longest, and rarely over a few hundred.
const PARAMETER_BYTES: usize = 4_096;
/// The server's widest result: 1,664 columns (`MaxTupleAttributeNumber`), each a name of 63 bytes, its NUL
/// and 18 bytes.
pub(crate) const ROW_DESCRIPTION_BYTES: usize = 2 + 1_664 * (63 + 1 + 18);
/// First authentication mechanism offered.
const MECHANISM_BYTES: usize = 64;

/// Fields to keep; `None` for a type that servers do not send.
pub(crate) fn plan(message: u8) -> Option<Plan> {
    Some(match message {
        kind::ERROR => &[Field::Rest(ERROR_BYTES)],
        kind::COMMAND_COMPLETE => &[Field::Rest(TAG_BYTES)],
        // The process id alone: the cancel secret behind it is never copied.
        kind::BACKEND_KEY => &[Field::Fixed(4)],
        kind::PARAMETER_STATUS => &[Field::Rest(PARAMETER_BYTES)],
        kind::AUTHENTICATION => &[Field::Fixed(4), Field::Rest(MECHANISM_BYTES)],
        kind::ROW_DESCRIPTION => &[Field::Rest(ROW_DESCRIPTION_BYTES)],
        kind::READY => &[Field::Fixed(1)],
        kind::PARAMETER_DESCRIPTION => &[Field::Oids],
        kind::PARSE_COMPLETE
        | kind::BIND_COMPLETE
        | kind::CLOSE_COMPLETE
        | kind::NOTIFICATION
        | kind::DATA_ROW
        | kind::COPY_IN
        | kind::COPY_OUT
        | kind::EMPTY_QUERY
        | kind::NOTICE
        | kind::FUNCTION_RESULT
        | kind::COPY_BOTH
        | kind::COPY_DONE
        | kind::COPY_DATA
        | kind::NO_DATA
        | kind::PORTAL_SUSPENDED
        | kind::NEGOTIATE_VERSION => &[],
        _ => return None,
    })
}

/// As [`plan`], where values of rows and of copied data may be wanted.
pub(crate) fn plan_with_rows(message: u8) -> Option<Plan> {
    match message {
        kind::DATA_ROW => Some(&[Field::Row]),
        kind::COPY_DATA => Some(&[Field::Copied]),
        _ => plan(message),
    }
}

/// Severity and SQLSTATE of an ErrorResponse. The field `V`, which is not translated, goes before `S`.
pub(crate) fn error(body: &[u8]) -> ServerError {
    let (mut error, mut translated) = (ServerError::default(), String::new());
    let mut cursor = Cursor::new(body);
    while let Some(field) = cursor.u8().filter(|&field| field != 0) {
        // A field that was cut is the message text or comes behind it.
        let Some(value) = cursor.text() else { break };
        match field {
            b'V' => error.severity = shown(value),
            b'S' => translated = shown(value),
            b'C' => error.sqlstate = shown(value),
            _ => {}
        }
    }
    if error.severity.is_empty() {
        error.severity = translated;
    }
    error
}

/// Columns of a RowDescription; of one that was cut, those that are complete.
pub(crate) fn columns(body: &[u8]) -> Columns {
    let mut cursor = Cursor::new(body);
    let count = cursor.u16().unwrap_or(0);
    let mut columns = Vec::new();
    for _ in 0..count {
        let Some(column) = column(&mut cursor) else { break };
        columns.push(column);
    }
    columns.into()
}

/// Whether a RowDescription says what these columns say. Costs no memory, and most of them do.
pub(crate) fn describes(body: &[u8], columns: &[Column]) -> bool {
    let mut cursor = Cursor::new(body);
    cursor.u16().map(usize::from) == Some(columns.len())
        && columns.iter().all(|column| {
            cursor.text() == Some(&column.name)
                && cursor.u32() == Some(column.table_oid)
                && cursor.i16() == Some(column.attnum)
                && cursor.u32() == Some(column.type_oid)
                && cursor.skip(6).is_some()
                && cursor.i16().map(format) == Some(column.format)
        })
}

/// The tag of a CommandComplete.
pub(crate) fn tag(body: &[u8]) -> Tag {
    let end = body.iter().position(|&byte| byte == 0).unwrap_or(body.len());
    let tag = body.get(..end).unwrap_or_default();
    match std::str::from_utf8(tag) {
        Ok(tag) => tag.into(),
        Err(_) => Tag::from_utf8_lossy(tag),
    }
}

/// Name and value of a ParameterStatus; of a value that was cut, its head.
pub(crate) fn parameter(body: &[u8]) -> Option<(Bytes, Bytes)> {
    let mut parts = body.split(|&byte| byte == 0);
    let (name, value) = (parts.next()?, parts.next()?);
    Some((Bytes::copy_from_slice(name), Bytes::copy_from_slice(value)))
}

fn column(cursor: &mut Cursor<'_>) -> Option<Column> {
    let name = Bytes::copy_from_slice(cursor.text()?);
    let (table_oid, attnum, type_oid) = (cursor.u32()?, cursor.i16()?, cursor.u32()?);
    // The type's size and modifier: not needed.
    cursor.skip(6)?;
    Some(Column {
        name,
        table_oid,
        attnum,
        type_oid,
        format: format(cursor.i16()?),
    })
}

fn format(code: i16) -> Format {
    if code == 0 { Format::Text } else { Format::Binary }
}

fn shown(value: &[u8]) -> String {
    String::from_utf8_lossy(
        value
            .get(..value.len().min(ERROR_FIELD_BYTES))
            .unwrap_or_default(),
    )
    .into_owned()
}

#[cfg(test)]
mod tests {
    use super::{columns, error, parameter, tag};

    #[test]
    fn an_error_gives_severity_and_state_and_no_text() {
        let body = b"SFEHLER\0VERROR\0C23505\0Mduplicate key value (secret)\0\0";
        let parsed = error(body);
        assert_eq!(
            (parsed.severity.as_str(), parsed.sqlstate.as_str()),
            ("ERROR", "23505")
        );
        assert!(!format!("{parsed:?}").contains("secret"));
        assert_eq!(error(b"SFATAL\0C57P01\0\0").severity, "FATAL");
        for cut in 0..body.len() {
            assert!(!format!("{:?}", error(&body[..cut])).contains("secret"));
        }
    }

    #[test]
    fn cut_columns_give_the_complete_ones() {
        let mut body = vec![0, 2];
        for (name, table, number) in [("id", 16_402_u32, 1_i16), ("ctid", 16_402, -1)] {
            body.extend_from_slice(name.as_bytes());
            body.push(0);
            body.extend_from_slice(&table.to_be_bytes());
            body.extend_from_slice(&number.to_be_bytes());
            body.extend_from_slice(&[0; 12]);
        }
        let whole = columns(&body);
        assert_eq!(
            (whole[1].name.as_ref(), whole[1].table_oid, whole[1].attnum),
            (&b"ctid"[..], 16_402, -1)
        );
        for cut in 0..body.len() {
            let some = columns(&body[..cut]);
            assert_eq!(*some, whole[..some.len()]);
            assert!(some.len() < 2);
        }
    }

    #[test]
    fn tags_and_settings_without_a_nul_are_taken_as_they_are() {
        assert_eq!(tag(b"SELECT 1\0"), "SELECT 1");
        assert_eq!(tag(b"SELECT"), "SELECT");
        assert_eq!(
            parameter(b"TimeZone\0UTC\0"),
            Some(("TimeZone".into(), "UTC".into()))
        );
        assert_eq!(parameter(b"TimeZone\0U"), Some(("TimeZone".into(), "U".into())));
        assert_eq!(parameter(b"TimeZone"), None);
    }
}
