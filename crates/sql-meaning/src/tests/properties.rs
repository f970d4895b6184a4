//! What holds for all texts.

use proptest::prelude::*;

use super::*;

const SECRET: &str = "s3cretvalue";

/// The secret in every quoting form.
fn literal() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        format!("'{SECRET}'"),
        format!("'it''s {SECRET}'"),
        format!("E'\\'{SECRET}\\\\'"),
        format!("e'\\'; {SECRET} -- '"),
        format!("N'{SECRET}'"),
        format!("U&'{SECRET}\\0061'"),
        format!("X'{SECRET}'"),
        format!("$${SECRET}$$"),
        format!("$q$ ' $$ {SECRET} $ $q$"),
        format!("'a'\n  '{SECRET}'"),
        format!("'a' -- x\n'{SECRET}'"),
        format!("E'a'\n'\\'{SECRET}'"),
        format!("12{SECRET}"),
        format!("'\\{SECRET}'"),
        format!("'/* {SECRET}'"),
        format!("'-- {SECRET}'"),
        format!("'\"{SECRET}'"),
    ])
}

fn context() -> impl Strategy<Value = String> {
    prop::sample::select(
        [
            "SELECT ",
            " FROM t ",
            " WHERE a = ",
            ", ",
            "(",
            ")",
            " IN ",
            "/* note */",
            "-- note\n",
            " $1 ",
            "::text",
            " \"quo''ted\" ",
            " || ",
            " - ",
            "\n",
            "\t",
            " AND ",
            "; ",
            " naïve ",
            " x->>",
            "[",
            "]",
            " SET a = ",
            "*",
            " INTERVAL ",
            " /* /* ' */ */ ",
            " U&\"d\\0061\" ",
            " true ",
            " ab$c ",
            "'plain'",
            " 12.5e-3 ",
            "+",
        ]
        .map(String::from)
        .to_vec(),
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn no_literal_survives(
        parts in prop::collection::vec((prop::collection::vec(context(), 0..6), literal()), 1..5),
        tail in prop::collection::vec(context(), 0..4),
    ) {
        let mut sql = String::new();
        for (before, literal) in parts {
            sql.extend(before);
            // Directly after a letter, a prefix would be part of the word.
            sql.push(' ');
            sql.push_str(&literal);
        }
        sql.extend(tail);
        let redacted = redact(&sql);
        prop_assert!(!redacted.contains(SECRET), "{sql} -> {redacted}");
        prop_assert!(!interpret(&sql).redacted.contains(SECRET));
        let args = mask_command_line(&["psql".into(), "-c".into(), sql.clone()]);
        prop_assert!(!args.concat().contains(SECRET), "{args:?}");
        for range in split(&sql) {
            prop_assert!(!redact(&sql[range]).contains(SECRET), "{sql}");
        }
    }

    #[test]
    fn arbitrary_text_is_survived(text in any::<String>()) {
        fuzz_sql(text.as_bytes());
    }

    #[test]
    fn arbitrary_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        fuzz_sql(&bytes);
    }

    #[test]
    fn near_sql_is_survived(
        parts in prop::collection::vec(
            prop_oneof![context(), literal(), "['\"$\\\\eE\\-/*;?= a1\n]{1,6}",
                "(CREATE|ALTER|ROLE|USER|PASSWORD|SET|DROP|GRANT|ON|TO|AS|WITH|INSERT|INTO|VALUES|BEGIN|ATOMIC|END) "],
            0..14),
    ) {
        fuzz_sql(parts.concat().as_bytes());
    }

    #[test]
    fn fingerprint_sees_no_values(
        a in prop::sample::select(vec!["'x'", "5", "-1.5", "$1", "E'\\n'", "$$y$$"]),
        b in prop::sample::select(vec!["'it''s'", "99", "0xF", "$2", "N'z'"]),
        space in prop::sample::select(vec![" ", "\n\t", "/* c */", " -- c\n"]),
        upper in any::<bool>(),
        more in 0..5_usize,
    ) {
        let base = "select a , b from t where c = 1 and d in ( 2 )";
        let list = std::iter::repeat_n(b, more + 1).collect::<Vec<_>>().join(",");
        let mut other: Vec<String> = base.split(' ').map(String::from).collect();
        if upper {
            other.iter_mut().for_each(|word| word.make_ascii_uppercase());
        }
        let other = other.join(space).replace('1', a).replace('2', &list);
        prop_assert_eq!(interpret(base).fingerprint, interpret(&other).fingerprint, "{}", other);
    }

    #[test]
    fn text_without_secrets_is_kept(parts in prop::collection::vec(prop_oneof![context(), literal()], 0..12)) {
        let sql = parts.concat();
        prop_assert_eq!(mask_secrets(&sql), sql);
    }
}
