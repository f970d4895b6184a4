use proptest::prelude::*;

use super::*;

/// The form as text, for messages.
fn text(family: Family, text: &str) -> Option<String> {
    canonical_text(family, text).map(|form| String::from_utf8_lossy(&form).into_owned())
}

fn bound(family: Family, type_oid: u32, bytes: &[u8]) -> Option<String> {
    canonical(family, type_oid, Format::Binary, bytes).map(|form| String::from_utf8_lossy(&form).into_owned())
}

#[test]
fn what_is_one_value_to_the_server_has_one_form() {
    for (family, form, texts) in [
        (Family::Integer, "42", &["42", " 42 ", "+42", "042", "\t42\n"][..]),
        (Family::Integer, "-9223372036854775808", &["-9223372036854775808"]),
        (Family::Integer, "0", &["0", "-0", "000"]),
        (
            Family::Numeric,
            "425e-1",
            &["42.5", "042.50", "+42.5000", "4.25e1", "425E-1", ".425e2"],
        ),
        (Family::Numeric, "-42e1", &["-420", "-420.00", "-4.2e+2"]),
        (Family::Numeric, "0", &["0", "-0.00", "0e10", ".0"]),
        (Family::Numeric, "NaN", &["NaN", "nan"]),
        (Family::Numeric, "-Infinity", &["-Infinity", "-inf"]),
        (Family::Double, "1e-1", &["0.1", "1e-1", " .1 "]),
        (Family::Double, "inf", &["Infinity", "inf"]),
        (Family::Real, "5e-1", &["0.5", "5e-1"]),
        (Family::Char, "ab", &["ab", "ab   "]),
        (
            Family::Uuid,
            "a0eebc999c0b4ef8bb6d6bb9bd380a11",
            &[
                "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
                "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11",
                "{a0eebc99-9c0b4ef8-bb6d6bb9-bd380a11}",
                "a0eebc999c0b4ef8bb6d6bb9bd380a11",
                "a0ee-bc99-9c0b-4ef8-bb6d-6bb9-bd38-0a11",
            ],
        ),
        (Family::Boolean, "t", &["t", "TRUE", " yes", "on", "1", "tr"]),
        (Family::Boolean, "f", &["f", "False", "no", "of", "off", "0"]),
        (
            Family::Date,
            "0",
            &[
                "2000-01-01",
                "20000101",
                "2000-1-1",
                "2000-01-01 23:59",
                " 2000-01-01 AD",
            ],
        ),
        (Family::Date, "8825", &["2024-02-29"]),
        (Family::Date, "-730485", &["0001-01-01 BC", "0001-1-1 BC"]),
        (Family::Date, "infinity", &["infinity", "INFINITY"]),
        (Family::Time, "52205500000", &["14:30:05.5", "14:30:05.500000"]),
        (Family::Time, "86400000000", &["24:00:00", "24:00"]),
        (
            Family::Timestamp,
            "86400000000",
            &[
                "2000-01-02",
                "2000-01-02 00:00:00",
                "2000-01-02T00:00",
                "2000-01-02 00:00:00+05",
            ],
        ),
        (Family::Timestamp, "-1000000", &["1999-12-31 23:59:59"]),
        (
            Family::Timestamptz,
            "0",
            &[
                "2000-01-01 00:00:00+00",
                "2000-01-01T00:00:00Z",
                "2000-01-01 02:30:00+02:30",
                "2000-01-01 02:30:00+0230",
                "1999-12-31 16:00:00-08",
                "2000-01-01 00:00 UTC",
                "2000-01-01 00:34:08+00:34:08",
            ],
        ),
        (
            Family::Bytea,
            "a\\b",
            &[
                "a\\\\b",
                "\\x615c62",
                "\\x61 5c 62",
                "\\141\\134\\142",
                "\\x615C62",
            ],
        ),
        (Family::Inet, "10.0.0.1/32", &["10.0.0.1", "10.0.0.1/32"]),
        (Family::Inet, "10.0.0.0/8", &["10.0.0.0/8"]),
        (
            Family::Inet,
            "2001:db8::1/128",
            &["2001:db8::1", "2001:DB8:0:0::1", "2001:0db8::1/128"],
        ),
    ] {
        for written in texts {
            assert_eq!(
                text(family, written).as_deref(),
                Some(form),
                "{family:?} {written:?}"
            );
        }
    }
}

#[test]
fn what_is_not_sure_has_no_form() {
    for (family, texts) in [
        (
            Family::Integer,
            &[
                "",
                " ",
                "+",
                "4 2",
                "42.0",
                "0x2A",
                "1_000",
                "9223372036854775808",
                "--1",
                "+-1",
                "٤٢",
            ][..],
        ),
        (
            Family::Numeric,
            &[
                "",
                ".",
                "1e",
                "1e1234567",
                "0x2A",
                "1_0",
                "1.2.3",
                "-NaN",
                "1 0",
                "- 1",
            ],
        ),
        (Family::Double, &["", "1e400", "0x1p3", "abc", "1_0"]),
        // A `real` reads it, but unquoted it is a number that no `real` equals.
        (Family::Real, &["0.1", "1e39"]),
        (Family::Text, &["a\0b"]),
        (
            Family::Uuid,
            &[
                "",
                " a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
                "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1",
                "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
                "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11-",
                "a0eebc9-99c0b-4ef8-bb6d-6bb9bd380a11",
                "a0eebc99--9c0b-4ef8-bb6d-6bb9bd380a11",
            ],
        ),
        (Family::Boolean, &["", "o", "2", "truee"]),
        (
            Family::Date,
            &[
                "",
                "01/02/2003",
                "2003-13-01",
                "2003-02-29",
                "1900-02-29",
                "030201",
                "Jan 1 2003",
                "today",
                "0000-01-01",
                "2003-1",
                "2003-01-02x",
            ],
        ),
        (
            Family::Time,
            &[
                "",
                "14",
                "14:60",
                "24:00:01",
                "2:30 PM",
                "14:30:05.1234567",
                "14:30:60",
                "14:30+02",
            ],
        ),
        (
            Family::Timestamp,
            &[
                "now",
                "2000-01-01 2:30 PM",
                "2000-01-01 25:00",
                "01.01.2000 00:00",
            ],
        ),
        // In whose zone?
        (
            Family::Timestamptz,
            &[
                "2000-01-01 00:00:00",
                "2000-01-01",
                "2000-01-01 00:00 Europe/Berlin",
                "2000-01-01 00:00+16",
                "2000-01-01 00:00+02:",
            ],
        ),
        (Family::Bytea, &["\\x6", "\\x6 1", "\\xzz", "\\400", "\\", "\\14"]),
        (
            Family::Inet,
            &[
                "",
                "10.1",
                "10.0.0.1/33",
                "10.0.0.01",
                "::1/129",
                "10.0.0.1/",
                "fe80::1%eth0",
                "10.0.0.1/+8",
            ],
        ),
    ] {
        for written in texts {
            assert_eq!(text(family, written), None, "{family:?} {written:?}");
        }
    }
}

#[test]
fn a_bound_value_may_be_of_another_type_than_the_column() {
    // numeric 42.0: one digit, weight 0, positive, scale 1.
    let numeric = |scale: u8| [0, 1, 0, 0, 0, 0, 0, scale, 0, 42];
    for (family, type_oid, bytes, form) in [
        (Family::Integer, oid::INT2, &[0, 42][..], Some("42")),
        (Family::Integer, oid::INT4, &[0, 0, 0, 42], Some("42")),
        (Family::Integer, oid::INT8, &[0, 0, 0, 0, 0, 0, 0, 42], Some("42")),
        (Family::Integer, oid::NUMERIC, &numeric(1), Some("42")),
        (Family::Integer, oid::INT4, &[0, 0, 42], None),
        (Family::Integer, oid::TEXT, b"42", None),
        (Family::Integer, 0, &[0, 0, 0, 42], None),
        (Family::Numeric, oid::NUMERIC, &numeric(2), Some("42e0")),
        (Family::Numeric, oid::INT4, &[0, 0, 0, 42], Some("42e0")),
        (Family::Numeric, oid::FLOAT8, &42_f64.to_be_bytes(), None),
        (Family::Real, oid::FLOAT4, &0.1_f32.to_be_bytes(), Some("1e-1")),
        (Family::Real, oid::FLOAT8, &0.1_f64.to_be_bytes(), None),
        (Family::Real, oid::FLOAT8, &0.5_f64.to_be_bytes(), Some("5e-1")),
        (Family::Double, oid::FLOAT8, &0.1_f64.to_be_bytes(), Some("1e-1")),
        (
            Family::Double,
            oid::FLOAT4,
            &0.1_f32.to_be_bytes(),
            Some("1.0000000149011612e-1"),
        ),
        (Family::Text, oid::VARCHAR, b"a ", Some("a ")),
        (Family::Text, oid::BPCHAR, b"a ", Some("a")),
        (Family::Text, oid::TEXT, b"\xff", None),
        (Family::Char, oid::BPCHAR, b"a ", Some("a")),
        (Family::Char, oid::TEXT, b"a", Some("a")),
        (Family::Char, oid::TEXT, b"a ", None),
        (
            Family::Uuid,
            oid::UUID,
            &[0xab; 16],
            Some("abababababababababababababababab"),
        ),
        (Family::Boolean, oid::BOOL, &[1], Some("t")),
        (Family::Date, oid::DATE, &[0, 0, 0, 1], Some("1")),
        (
            Family::Date,
            oid::DATE,
            &[0x7f, 0xff, 0xff, 0xff],
            Some("infinity"),
        ),
        (
            Family::Date,
            oid::DATE,
            &(-730_485_i32).to_be_bytes(),
            Some("-730485"),
        ),
        (
            Family::Date,
            oid::TIMESTAMP,
            &86_400_000_000_i64.to_be_bytes(),
            Some("1"),
        ),
        (
            Family::Date,
            oid::TIMESTAMP,
            &86_400_000_001_i64.to_be_bytes(),
            None,
        ),
        (Family::Date, oid::TIMESTAMPTZ, &[0; 8], None),
        (
            Family::Time,
            oid::TIME,
            &1_500_000_i64.to_be_bytes(),
            Some("1500000"),
        ),
        (
            Family::Timestamp,
            oid::TIMESTAMP,
            &(-1_i64).to_be_bytes(),
            Some("-1"),
        ),
        (Family::Timestamp, oid::DATE, &[0, 0, 0, 1], Some("86400000000")),
        (Family::Timestamp, oid::TIMESTAMPTZ, &[0; 8], None),
        (
            Family::Timestamptz,
            oid::TIMESTAMPTZ,
            &1_i64.to_be_bytes(),
            Some("1"),
        ),
        (Family::Timestamptz, oid::TIMESTAMP, &[0; 8], None),
        (Family::Bytea, oid::BYTEA, b"a\\b", Some("a\\b")),
        (
            Family::Inet,
            oid::INET,
            &[2, 32, 0, 4, 10, 0, 0, 1],
            Some("10.0.0.1/32"),
        ),
        (
            Family::Inet,
            oid::CIDR,
            &[2, 8, 1, 4, 10, 0, 0, 0],
            Some("10.0.0.0/8"),
        ),
    ] {
        assert_eq!(
            bound(family, type_oid, bytes).as_deref(),
            form,
            "{family:?} {type_oid} {bytes:?}"
        );
    }
    let declared = |family, type_oid, text: &str| canonical(family, type_oid, Format::Text, text.as_bytes());
    assert_eq!(declared(Family::Integer, oid::INT4, " 042"), Some(b"42".to_vec()));
    assert_eq!(declared(Family::Integer, 0, "42"), Some(b"42".to_vec()));
    // As the client declared it, it is a moment, and which timestamp that is depends on the zone of the session.
    assert_eq!(
        declared(Family::Timestamp, oid::TIMESTAMPTZ, "2000-01-01 00:00:00+00"),
        None
    );
    assert_eq!(declared(Family::Real, oid::FLOAT4, "0.1"), Some(b"1e-1".to_vec()));
}

proptest! {
    #[test]
    fn whole_numbers_of_any_width_are_one(number: i16, zeros in 0_usize..4) {
        let expected = Some(number.to_string());
        let padded = format!("{}{}{}", if number < 0 { "-" } else { "" }, "0".repeat(zeros), number.unsigned_abs());
        prop_assert_eq!(text(Family::Integer, &padded), expected.clone());
        prop_assert_eq!(bound(Family::Integer, oid::INT2, &number.to_be_bytes()), expected.clone());
        prop_assert_eq!(bound(Family::Integer, oid::INT4, &i32::from(number).to_be_bytes()), expected.clone());
        prop_assert_eq!(bound(Family::Integer, oid::INT8, &i64::from(number).to_be_bytes()), expected);
    }

    #[test]
    fn a_moment_is_one_in_text_and_binary(micros in -60_000_000_000_000_000_i64..200_000_000_000_000_000) {
        let expected = Some(micros.to_string());
        prop_assert_eq!(bound(Family::Timestamptz, oid::TIMESTAMPTZ, &micros.to_be_bytes()), expected.clone());
        prop_assert_eq!(bound(Family::Timestamp, oid::TIMESTAMP, &micros.to_be_bytes()), expected);
    }

    #[test]
    fn bytes_are_themselves(bytes: Vec<u8>) {
        prop_assert_eq!(canonical(Family::Bytea, oid::BYTEA, Format::Binary, &bytes), Some(bytes.clone()));
        let escaped: String = bytes.iter().map(|byte| format!("\\{byte:03o}")).collect();
        prop_assert_eq!(canonical_text(Family::Bytea, &escaped), Some(bytes));
    }

    #[test]
    fn anything_at_all_is_taken(text: String, bytes: Vec<u8>, type_oid in 0_u32..3000) {
        for family in Family::ALL {
            let _ = canonical_text(family, &text);
            let _ = canonical(family, type_oid, Format::Binary, &bytes);
            let _ = canonical(family, type_oid, Format::Text, &bytes);
        }
    }
}
