//! One value, one token: whichever way a value comes to a real server or back from it.
//!
//! For each common type a table with one row. Its value is looked for by several spellings, as a parameter in text and in
//! binary, through a statement that was prepared in SQL, and by COPY in each of its formats; and it comes back in
//! text, in binary and by COPY: all of them have to be told by one token, the server agreeing that each
//! names that row. What the server does not take for equal is asked, too, and has to have another.
//!
//! Needs root, for eBPF; is skipped without it, and says so.

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on fails by panicking"
)]

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    time::Duration,
};

use nix::unistd::geteuid;
use pgwitness_tests::{
    cluster::{Cluster, DATABASE, Witness, server_binaries},
    record::query_folder,
    suite::settle,
    tap::{Redaction, Settings, Tap},
};
use serde_json::Value;

/// A type, the function that sends it in binary, the value, other spellings of it, what is another value, and whether the binary
/// form of the value is that of no other type of the family: copied data does not say of which type it is.
struct Kind {
    name: &'static str,
    send: &'static str,
    value: &'static str,
    spellings: &'static [&'static str],
    other: &'static str,
    is_plain: bool,
}

impl Kind {
    /// The spellings that are no more than a literal: what any other expression comes to is in no text.
    fn literals(&self) -> impl Iterator<Item = &&'static str> {
        let is_cast = |spelling: &&&str| spelling.contains("::") || spelling.starts_with("DATE");
        self.spellings.iter().filter(move |spelling| !is_cast(spelling))
    }
}

const KINDS: &[Kind] = &[
    Kind {
        name: "smallint",
        send: "int2send",
        value: "42",
        spellings: &["'42'", "' 042 '", "42", "+42", "'42'::smallint", "42.0::numeric"],
        other: "43",
        is_plain: true,
    },
    Kind {
        name: "integer",
        send: "int4send",
        value: "-42",
        spellings: &["'-42'", "-42", "-042", "'-42'::bigint"],
        other: "42",
        is_plain: false,
    },
    Kind {
        name: "bigint",
        send: "int8send",
        value: "9007199254740993",
        spellings: &["'9007199254740993'", "9007199254740993", "+9007199254740993"],
        other: "9007199254740992",
        is_plain: true,
    },
    Kind {
        name: "numeric",
        send: "numeric_send",
        value: "1234567.50",
        spellings: &["1234567.5", "'1234567.500'", "12345675e-1", "'+1.2345675e6'"],
        other: "-1234567.50",
        is_plain: true,
    },
    Kind {
        name: "text",
        send: "textsend",
        value: "it's jürgen",
        spellings: &["'it''s jürgen'", "$q$it's jürgen$q$", "E'it\\'s j\\u00fcrgen'"],
        other: "it's jürgen ",
        is_plain: true,
    },
    Kind {
        name: "varchar(40)",
        send: "varcharsend",
        value: "jane@example.com",
        spellings: &[
            "'jane@example.com'",
            "'jane@example.com'::text",
            "E'jane\\x40example.com'",
        ],
        other: "Jane@example.com",
        is_plain: true,
    },
    Kind {
        name: "char(12)",
        send: "bpcharsend",
        value: "A-17",
        spellings: &["'A-17'", "'A-17    '"],
        other: " A-17",
        is_plain: false,
    },
    Kind {
        name: "uuid",
        send: "uuid_send",
        value: "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        spellings: &[
            "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'",
            "'{a0eebc99-9c0b4ef8-bb6d6bb9-bd380a11}'",
            "'a0eebc999c0b4ef8bb6d6bb9bd380a11'::uuid",
        ],
        other: "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a12",
        is_plain: true,
    },
    Kind {
        name: "boolean",
        send: "boolsend",
        value: "true",
        spellings: &["'t'", "'yes'", "'ON'", "'1'"],
        other: "false",
        is_plain: false,
    },
    Kind {
        name: "date",
        send: "date_send",
        value: "2024-02-29",
        spellings: &[
            "'2024-02-29'",
            "'20240229'",
            "'2024-2-29'",
            "DATE '2024-02-29'",
            "'2024-02-29'::timestamp",
        ],
        other: "2024-03-01",
        is_plain: false,
    },
    Kind {
        name: "time",
        send: "time_send",
        value: "14:30:05.5",
        spellings: &["'14:30:05.5'", "'14:30:05.500000'"],
        other: "14:30:05",
        is_plain: false,
    },
    Kind {
        name: "timestamp",
        send: "timestamp_send",
        value: "1999-12-31 23:59:59.25",
        spellings: &[
            "'1999-12-31 23:59:59.25'",
            "'1999-12-31T23:59:59.250'",
            "'19991231 23:59:59.25'",
        ],
        other: "1999-12-31 23:59:59",
        is_plain: false,
    },
    Kind {
        name: "timestamptz",
        send: "timestamptz_send",
        value: "2024-07-01 12:00:00+00",
        spellings: &[
            "'2024-07-01T12:00:00Z'",
            "'2024-07-01 14:00:00+02'",
            "'2024-07-01 17:30:00+05:30'",
            "'2024-07-01 05:00-0700'",
        ],
        other: "2024-07-01 12:00:01+00",
        is_plain: false,
    },
    Kind {
        name: "bytea",
        send: "byteasend",
        value: "\\x00ff5c27",
        spellings: &[
            "'\\x00FF5C27'",
            "'\\x00 ff 5c 27'",
            "'\\000\\377\\\\'''",
            "E'\\\\x00ff5c27'",
        ],
        other: "\\x00ff5c",
        is_plain: false,
    },
    Kind {
        name: "inet",
        send: "inet_send",
        value: "2001:db8::1",
        spellings: &["'2001:DB8:0::1'", "'2001:db8::1/128'"],
        other: "2001:db8::1/64",
        is_plain: true,
    },
];

#[tokio::test(flavor = "multi_thread")]
async fn one_value_has_one_token() {
    if !geteuid().is_root() {
        return eprintln!("not run without root: a whole tap is attached");
    }
    let mut cluster = Cluster::init_with(server_binaries().unwrap(), Witness::Silent).unwrap();
    cluster.start().await.unwrap();
    cluster.prepare().await.unwrap();
    let admin = cluster.superuser(DATABASE).await.unwrap();
    let mut asked = Vec::new();
    for (number, kind) in KINDS.iter().enumerate() {
        let (
            table,
            Kind {
                name, send, value, ..
            },
        ) = (format!("t{number}"), kind);
        let quoted = value.replace('\'', "''");
        admin
            .batch_execute(&format!(
                "CREATE TABLE {table} (v {name}, n int); INSERT INTO {table} VALUES ('{quoted}', 1)"
            ))
            .await
            .unwrap();
        let sql = format!("SELECT {send}(v), pg_typeof(v)::oid FROM {table}");
        let row = admin.query_one(&sql, &[]).await.unwrap();
        asked.push((table, row.get::<_, Vec<u8>>(0), row.get::<_, u32>(1)));
    }
    let folder = tempfile::TempDir::with_prefix("subjects-").unwrap();
    let (columns, key) = (folder.path().join("columns.toml"), folder.path().join("key"));
    let entry = |(number, kind): (usize, &Kind)| {
        format!(
            "[[column]]\nobject = \"public.t{number}\"\ncolumn = \"v\"\ntype = \"{}\"\nsubject = true\nmode = \"token\"\n",
            kind.name
        )
    };
    fs::write(&columns, KINDS.iter().enumerate().map(entry).collect::<String>()).unwrap();
    let random: String = (0..32).map(|byte| format!("{:02x}", byte * 7 + 1)).collect();
    fs::write(&key, format!("test {random}\n")).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let mut settings = Settings::from(Redaction::Default);
    settings.keys = vec![
        ("SUBJECTS__CLASSIFICATION", columns.display().to_string()),
        ("SUBJECTS__TOKEN_KEY", key.display().to_string()),
    ];
    let mut tap = Tap::start(&cluster.data(), settings).await.unwrap();

    let mut client = Client::open(&cluster);
    client.query("SET TimeZone = 'Asia/Kolkata'");
    for (kind, (table, binary, oid)) in KINDS.iter().zip(&asked) {
        for spelling in kind.spellings {
            client.query(&format!("SELECT n FROM {table} WHERE v = {spelling} -- spelling"));
        }
        let select = format!("SELECT n FROM {table} WHERE v = $1");
        client.bound(&select, 0, (false, kind.value.as_bytes()), false);
        client.bound(&select, *oid, (false, kind.value.as_bytes()), false);
        client.bound(&select, *oid, (true, binary), false);
        client.query(&format!(
            "PREPARE of_{table} AS SELECT n FROM {table} WHERE v = $1"
        ));
        for literal in kind.literals() {
            client.query(&format!("EXECUTE of_{table}({literal}) -- spelling"));
        }
        client.query(&format!("COPY {table} (v) TO STDOUT"));
        client.query(&format!("COPY (SELECT n, v FROM {table}) TO STDOUT (FORMAT csv)"));
        client.query(&format!("COPY {table} (n, v) TO STDOUT (FORMAT binary)"));
        client.query(&format!("SELECT v FROM {table} WHERE n = 1"));
        client.bound(
            &format!("SELECT v, n FROM {table} WHERE n = $1"),
            23,
            (true, &[0, 0, 0, 1]),
            true,
        );
        let quoted = kind.value.replace('\'', "''");
        client.query(&format!("INSERT INTO {table} (n, v) VALUES (2, '{quoted}')"));
        client.bound(
            &format!("INSERT INTO {table} (v, n) VALUES ($1, 3)"),
            *oid,
            (true, binary),
            false,
        );
        let line = format!("{}\t5\n", kind.value.replace('\\', "\\\\"));
        client.copy(&format!("COPY {table} (v, n) FROM STDIN"), line.as_bytes());
        client.copy(
            &format!("COPY {table} (n, v) FROM STDIN (FORMAT binary)"),
            &binary_row(&[&6_u32.to_be_bytes(), binary]),
        );
        client.query(&format!("DELETE FROM {table} WHERE n > 1 RETURNING v"));
        let other = kind.other.replace('\'', "''");
        client.query(&format!("UPDATE {table} SET n = 4 WHERE v = '{other}'"));
    }
    drop(client);
    drop(admin);
    settle(&tap).await.unwrap();
    cluster.stop().await.unwrap();
    tap.stop().await.unwrap();

    let sql = "SELECT event FROM queries WHERE application_name = 'subjects' ORDER BY seq";
    let events: Vec<Value> = query_folder(tap.collector_binary(), &tap.collector_data(), sql)
        .unwrap()
        .iter()
        .map(|row| serde_json::from_str(row["event"].as_str().unwrap()).unwrap())
        .collect();
    let mut seen = std::collections::HashSet::new();
    for (number, kind) in KINDS.iter().enumerate() {
        let object = format!("public.t{number}");
        let of_table: Vec<(&Value, &Value)> = events
            .iter()
            .filter_map(|event| {
                let subject = event["subjects"]
                    .as_array()?
                    .iter()
                    .find(|subject| subject["object"] == object)?;
                Some((event, subject))
            })
            .collect();
        assert_eq!(
            of_table.len(),
            kind.spellings.len() + kind.literals().count() + 14,
            "{}: {of_table:?}",
            kind.name
        );
        let (last, named) = of_table.split_last().unwrap();
        let token = named[0].1["tokens"][0].as_str().unwrap();
        assert!(
            token.len() == 32 && seen.insert(token.to_owned()),
            "{}: {token}",
            kind.name
        );
        for (event, subject) in named {
            let what = format!("{}: {event}", kind.name);
            let text = event["statement"]["text"].as_str().unwrap();
            let is_copied = text.starts_with("COPY") && text.contains("binary");
            if is_copied && !kind.is_plain {
                assert_eq!(
                    (subject.get("tokens"), &subject["complete"]),
                    (None, &false.into()),
                    "{what}"
                );
                continue;
            }
            assert_eq!(subject["tokens"], serde_json::json!([token]), "{what}");
            assert_eq!(subject["complete"], true, "{what}");
            assert_eq!(subject["key"], "test", "{what}");
            // The server agrees: each names the one row, or makes one.
            let rows = event["result"]["rows_affected"]
                .as_u64()
                .or(event["result"]["rows"].as_u64());
            let deletes = event["meaning"]["command"] == "DELETE";
            assert_eq!(rows, Some(if deletes { 4 } else { 1 }), "{what}");
        }
        let (event, subject) = last;
        assert_ne!(
            subject["tokens"],
            serde_json::json!([token]),
            "{}: {event}",
            kind.name
        );
        assert_eq!(
            subject["tokens"].as_array().map(Vec::len),
            Some(1),
            "{}: {event}",
            kind.name
        );
        assert_eq!(event["result"]["rows_affected"], 0, "{}: {event}", kind.name);
        // Parameters are told by the same token, and their values nowhere.
        let params: Vec<&Value> = named
            .iter()
            .filter_map(|(event, _)| event["params"].get(0))
            .collect();
        let with_token = params.iter().filter(|param| param["token"] == token).count();
        assert_eq!(with_token, 4, "{}: {params:?}", kind.name);
        assert!(
            params.iter().all(|param| param.get("value").is_none()),
            "{}: {params:?}",
            kind.name
        );
    }
}

/// A row in binary COPY format, with what stands before and behind all rows.
fn binary_row(values: &[&[u8]]) -> Vec<u8> {
    let mut rows = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec();
    rows.extend((values.len() as u16).to_be_bytes());
    for value in values {
        rows.extend((value.len() as u32).to_be_bytes());
        rows.extend(*value);
    }
    rows.extend(u16::MAX.to_be_bytes());
    rows
}

/// A client that says in which format a value is sent and comes back.
struct Client {
    stream: UnixStream,
}

impl Client {
    fn open(cluster: &Cluster) -> Self {
        let path = cluster
            .socket_folder()
            .join(format!(".s.PGSQL.{}", cluster.port()));
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut client = Self { stream };
        let text = format!("user\0postgres\0database\0{DATABASE}\0application_name\0subjects\0\0");
        let mut startup = (text.len() as u32 + 8).to_be_bytes().to_vec();
        startup.extend([0, 3, 0, 0]);
        startup.extend(text.as_bytes());
        client.stream.write_all(&startup).unwrap();
        client.until_ready("startup");
        client
    }

    fn query(&mut self, sql: &str) {
        self.stream
            .write_all(&message(b'Q', &[sql.as_bytes(), b"\0"]))
            .unwrap();
        self.until_ready(sql);
    }

    /// One parameter; the types are asked for, as drivers do.
    fn bound(&mut self, sql: &str, oid: u32, (binary, value): (bool, &[u8]), binary_result: bool) {
        let length = (value.len() as u32).to_be_bytes();
        let all = [
            message(b'P', &[b"\0", sql.as_bytes(), b"\0\0\x01", &oid.to_be_bytes()]),
            message(b'D', &[b"S\0"]),
            message(
                b'B',
                &[
                    b"\0\0\0\x01",
                    &[0, u8::from(binary)],
                    b"\0\x01",
                    &length,
                    value,
                    b"\0\x01",
                    &[0, u8::from(binary_result)],
                ],
            ),
            message(b'E', &[b"\0\0\0\0\0"]),
            message(b'S', &[]),
        ];
        self.stream.write_all(&all.concat()).unwrap();
        self.until_ready(sql);
    }

    /// Rows from here, for a statement that takes them.
    fn copy(&mut self, sql: &str, rows: &[u8]) {
        self.stream
            .write_all(&message(b'Q', &[sql.as_bytes(), b"\0"]))
            .unwrap();
        self.until(b'G', sql);
        let all = [message(b'd', &[rows]), message(b'c', &[])];
        self.stream.write_all(&all.concat()).unwrap();
        self.until_ready(sql);
    }

    fn until_ready(&mut self, what: &str) {
        self.until(b'Z', what);
    }

    fn until(&mut self, awaited: u8, what: &str) {
        loop {
            let mut head = [0; 5];
            self.stream.read_exact(&mut head).unwrap();
            let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize - 4;
            let mut body = vec![0; length];
            self.stream.read_exact(&mut body).unwrap();
            match head[0] {
                b'E' => panic!("{what}: {}", String::from_utf8_lossy(&body)),
                kind if kind == awaited => return,
                _ => {}
            }
        }
    }
}

fn message(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    [&[kind][..], &(body.len() as u32 + 4).to_be_bytes(), &body].concat()
}
