//! What events say of statements and values.

use std::sync::Arc;

use proto::v1;
use tap_core::{ExchangeKind, Format, Outcome, Param, Phase, Query};

use super::query::{meaning, param};

pub(crate) fn answered(text: &str, tag: &str) -> Query {
    let mut interpreter = sql_meaning::Interpreter::new(1);
    Query {
        number: 1,
        asserted: None,
        effective_role: None,
        kind: ExchangeKind::Simple,
        text: Some(text.into()),
        statement: Some(interpreter.interpret(text.as_bytes())),
        source: None,
        source_statement: None,
        objects: None,
        replication: false,
        function_oid: None,
        original_bytes: text.len() as u64,
        digest: None,
        truncated: false,
        text_is_shared: false,
        statement_name: Default::default(),
        portal: Default::default(),
        index: 0,
        param_count: 0,
        params: Arc::default(),
        touched: None,
        phase: Phase::Complete,
        outcome: Outcome::Ok,
        tag: Some(tag.into()),
        rows: 0,
        rows_affected: None,
        bytes_in: 0,
        bytes_out: 0,
        copy_bytes: None,
        error: None,
        columns: Arc::default(),
        transaction_status: None,
        transaction: 1,
        transaction_final: None,
        continues: None,
        request: 0..0,
        response_to: 0,
        client: None,
    }
}

#[test]
fn a_value_is_told_as_the_server_prints_it_and_no_password_with_it() {
    let told = |type_oid, format, bytes: &'static [u8]| {
        let param = param(&Param {
            type_oid,
            format,
            bytes: u32::try_from(bytes.len()).ok(),
            kept: bytes.into(),
        });
        (param.value.unwrap_or_default(), param.raw)
    };
    assert_eq!(told(23, Format::Binary, &[0, 0, 0, 42]), ("42".to_owned(), false));
    assert_eq!(
        told(25, Format::Text, b"it's /* fine */"),
        ("it's /* fine */".to_owned(), false)
    );
    assert_eq!(told(0, Format::Binary, &[0, 42]), ("\\x002a".to_owned(), true));
    let (text, _) = told(25, Format::Text, b"host=db password=hunter2");
    assert!(text.starts_with("host=db") && !text.contains("hunter2"), "{text}");
}

#[test]
fn a_statement_hidden_behind_a_long_text_keeps_its_class() {
    let whole = meaning(&answered("select 1", "SELECT 1"));
    assert_eq!(
        (whole.class(), whole.command.as_str()),
        (v1::Class::Read, "SELECT")
    );
    for hide in [
        |query: &mut Query| query.truncated = true,
        |query: &mut Query| query.text_is_shared = true,
    ] {
        let mut hidden = answered("select 1; /* a megabyte */", "DELETE 1");
        hide(&mut hidden);
        let meaning = meaning(&hidden);
        assert_eq!(
            (meaning.class(), meaning.command.as_str()),
            (v1::Class::Write, "DELETE")
        );
        assert!(!meaning.parsed && meaning.objects.is_empty());
    }
}
