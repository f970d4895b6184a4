use super::*;

type Row = Vec<Option<Vec<u8>>>;

/// The rows of wanted columns, their number, whether all are there: however the data is cut.
fn read(wanted: &Copied, data: &[u8]) -> (Vec<Row>, u64, bool) {
    let whole = cut(wanted, data, data.len());
    for at in 0..data.len() {
        assert_eq!(
            cut(wanted, data, at),
            whole,
            "cut at {at} of {}",
            data.escape_ascii()
        );
    }
    whole
}

fn cut(wanted: &Copied, data: &[u8], at: usize) -> (Vec<Row>, u64, bool) {
    let mut reader = Reader::new(wanted, 20, 4_000);
    reader.feed(&data[..at]);
    reader.feed(&data[at..]);
    let (rows, _) = reader.finish();
    let columns: Vec<Row> = (0..wanted.columns.len())
        .map(|place| {
            rows.values(place)
                .map(|value| value.map(<[u8]>::to_vec))
                .collect()
        })
        .collect();
    let length = columns.first().map_or(0, Vec::len);
    let found = (0..length)
        .map(|row| columns.iter().map(|column| column[row].clone()).collect())
        .collect();
    (found, rows.rows(), rows.is_complete())
}

fn text(columns: &[u16]) -> Copied {
    Copied {
        columns: columns.to_vec(),
        form: CopyForm::Text {
            delimiter: b'\t',
            null: b"\\N".to_vec(),
        },
        header: false,
    }
}

fn csv(columns: &[u16], escape: u8) -> Copied {
    Copied {
        columns: columns.to_vec(),
        form: CopyForm::Csv {
            delimiter: b',',
            quote: b'"',
            escape,
            null: Vec::new(),
        },
        header: false,
    }
}

fn row(values: &[Option<&str>]) -> Row {
    values
        .iter()
        .map(|value| value.map(|value| value.as_bytes().to_vec()))
        .collect()
}

#[test]
fn lines_of_text() {
    let (rows, count, complete) = read(
        &text(&[0, 2]),
        b"1\ta\tx\n2\t\\N\t\\N\n\\x33\tb\tt\\tb\\101\\\\\n\\.\n9\t9\t9\n",
    );
    assert_eq!(
        rows,
        [
            row(&[Some("1"), Some("x")]),
            row(&[Some("2"), None]),
            row(&[Some("3"), Some("t\tbA\\")])
        ]
    );
    assert_eq!((count, complete), (3, true));
    // Lines that end otherwise, and one that does not end.
    for data in [&b"1\ta\n2\tb"[..], b"1\ta\r\n2\tb\r\n", b"1\ta\r2\tb\r"] {
        let (rows, count, complete) = read(&text(&[1]), data);
        assert_eq!(
            rows,
            [row(&[Some("a")]), row(&[Some("b")])],
            "{}",
            data.escape_ascii()
        );
        assert_eq!((count, complete), (2, true));
    }
    // Nothing is NULL but what is written so, and an empty line is an empty value.
    let (rows, ..) = read(&text(&[0]), b"\n\\N\nN\n\\\\N\n\\NN\n");
    assert_eq!(
        rows,
        [
            row(&[Some("")]),
            row(&[None]),
            row(&[Some("N")]),
            row(&[Some("\\N")]),
            row(&[Some("NN")])
        ]
    );
    assert_eq!(read(&text(&[0]), b""), (Vec::new(), 0, true));
}

#[test]
fn lines_of_csv() {
    let (rows, count, complete) = read(
        &csv(&[0, 1], b'"'),
        b"1,\"a,\"\"b\"\"\nc\"\n2,\n3,\"\"\n4,x\"y,z\"\r\n",
    );
    assert_eq!(
        rows,
        [
            row(&[Some("1"), Some("a,\"b\"\nc")]),
            row(&[Some("2"), None]),
            row(&[Some("3"), Some("")]),
            row(&[Some("4"), Some("xy,z")])
        ]
    );
    assert_eq!((count, complete), (4, true));
    let (rows, _, complete) = read(&csv(&[0], b'\\'), b"\"a\\\"b\\\\c\\d\"\n");
    assert_eq!((rows, complete), (vec![row(&[Some("a\"b\\c\\d")])], true));
    let wanted = Copied {
        header: true,
        ..csv(&[1], b'"')
    };
    let (rows, count, complete) = read(&wanted, b"id,\"na\nme\"\n1,x\n");
    assert_eq!((rows, count, complete), (vec![row(&[Some("x")])], 1, true));
}

#[test]
fn what_is_not_surely_read_the_same_is_incomplete() {
    for (wanted, data) in [
        // The end, by some versions; data, by others.
        (csv(&[0], b'"'), &b"1\n\\.\n2\n"[..]),
        (text(&[0]), b"1\n2\\.\n3\n"),
        (text(&[0]), b"1\n\\.x\n"),
        // Cut.
        (csv(&[0], b'"'), b"1\n\"2\n"),
        (text(&[0]), b"1\n2\\"),
        // A row without the column, and a value that is too long.
        (text(&[1]), b"1\ta\n2\n"),
        (text(&[0]), b"1\n012345678901234567890\n"),
    ] {
        let (rows, _, complete) = read(&wanted, data);
        assert!(!complete, "{}", data.escape_ascii());
        assert_eq!(rows.len(), 1, "{}", data.escape_ascii());
    }
    let many: Vec<u8> = (0..1_000).flat_map(|n| format!("{n}\n").into_bytes()).collect();
    let (rows, _, complete) = cut(&text(&[0]), &many, 100);
    assert!(!complete && rows.len() > 50 && rows.len() < 500, "{}", rows.len());
    let mut reader = Reader::new(&text(&[0]), 20, 4_000);
    reader.feed(b"1\n2");
    reader.lose();
    reader.feed(b"3\n4\n");
    let (rows, _) = reader.finish();
    assert!(!rows.is_complete());
    assert_eq!(rows.values(0).count(), 1);
}

fn binary(extension: &[u8], rows: &[&[Option<&[u8]>]]) -> Vec<u8> {
    let mut data = b"PGCOPY\n\xff\r\n\0\0\0\0\0".to_vec();
    data.extend((extension.len() as u32).to_be_bytes());
    data.extend(extension);
    for row in rows {
        data.extend((row.len() as u16).to_be_bytes());
        for value in *row {
            data.extend(value.map_or(-1, |value| value.len() as i32).to_be_bytes());
            data.extend(value.unwrap_or_default());
        }
    }
    data
}

#[test]
fn fields_behind_their_lengths() {
    let wanted = Copied {
        form: CopyForm::Binary,
        ..text(&[1])
    };
    let rows: [&[Option<&[u8]>]; 3] = [
        &[Some(b"no"), Some(b"\0\0\0\x07"), Some(b"")],
        &[None, None, None],
        &[Some(b""), Some(b""), None],
    ];
    let expected = [row(&[Some("\0\0\0\u{7}")]), row(&[None]), row(&[Some("")])];
    for extension in [&b""[..], b"abc"] {
        let mut data = binary(extension, &rows);
        let (found, count, complete) = read(&wanted, &data);
        assert_eq!((found.as_slice(), count, complete), (&expected[..], 3, true));
        data.extend([0xff, 0xff]);
        let (found, count, complete) = read(&wanted, &data);
        assert_eq!((found.as_slice(), count, complete), (&expected[..], 3, true));
        data.truncate(data.len() - 4);
        assert!(!read(&wanted, &data).2);
    }
    assert!(!read(&wanted, b"PGCOPX\n\xff\r\n\0\0\0\0\0\0\0\0\0").2);
}
