//! What people put on top of the record, as it comes from its makers: psql and drivers over the views, the panels of
//! `deploy/grafana`, DuckDB and pandas over the store's files, Schemathesis over the API.
//!
//! Needs root, for eBPF, and the clients that `cargo xtask test` installs; is skipped without, and says so.

#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on fails by panicking"
)]

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use nix::{sys::signal::Signal, unistd::geteuid};
use pgwitness_tests::{
    certificates::Certificates,
    cluster::{APP_ROLE, Cluster, DATABASE, Witness, free_port, server_binaries},
    csvlog,
    process::Process,
    record::{query_folder, query_live},
    suite::settle,
    tap::{Settings, Tap, Tier, sibling},
};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn clients_ask_the_record_as_they_are() {
    let Some(clients) = clients() else { return };
    let mut cluster = Cluster::init(Witness::Full).unwrap();
    cluster.start().await.unwrap();
    cluster.prepare().await.unwrap();
    let mut tap = Tap::start(&cluster.data(), Settings::clear(Tier::Auto))
        .await
        .unwrap();
    work(&cluster);
    settle(&tap).await.unwrap();
    cluster.stop().await.unwrap();

    let logged = csvlog::read(&cluster.csvlog()).unwrap();
    let of_role = logged.iter().filter(|session| session.role == APP_ROLE);
    let logged: usize = of_role.map(|session| session.statements.len()).sum();
    assert!(logged > 50, "{logged}");
    let asked = Asked {
        psql: cluster.client_binary("psql"),
        port: tap.sql_port(),
    };
    asked.by_psql(&tap, logged);
    asked.by_panels(&tap);
    asked.by_drivers(&clients, logged);
    by_schemathesis(&clients, &tap);

    tap.stop().await.unwrap();
    by_file_readers(&clients, &tap);
    let (whole, said) = tap.verify().unwrap();
    assert!(whole, "{said}");
}

/// Where they were put.
fn clients() -> Option<PathBuf> {
    if !geteuid().is_root() {
        eprintln!("not run without root: a whole tap is attached");
        return None;
    }
    let folder = PathBuf::from(std::env::var_os("HOME")?).join(".cache/pgwitness/clients/bin");
    if !folder.join("python").exists() {
        eprintln!("not run without clients: `cargo xtask test` installs them");
        return None;
    }
    Some(folder)
}

/// Statements of each class, a failure, and somebody who is not let in.
fn work(cluster: &Cluster) {
    let mut script = String::new();
    for id in 1..=40 {
        writeln!(script, "SELECT email FROM customers WHERE id = {id};").unwrap();
    }
    script += "SELECT count(*) FROM customers;\nUPDATE customers SET region = region WHERE id = 1;\n\
               SELECT nothing FROM customers;\nCREATE TABLE scratch (a int);\nDROP TABLE scratch;\nSELECT pg_sleep(0.05);\n";
    for _ in 0..10 {
        script += "BEGIN;\nINSERT INTO orders (customer, amount) VALUES (1, 2);\nCOMMIT;\n";
    }
    let file = cluster.socket_folder().join("work.sql");
    fs::write(&file, script).unwrap();
    let run = |password: &str| {
        Command::new(cluster.client_binary("psql"))
            .args([
                "-X",
                "-q",
                "-h",
                "127.0.0.1",
                "-U",
                APP_ROLE,
                "-d",
                DATABASE,
                "-f",
            ])
            .arg(&file)
            .args(["-p", &cluster.port().to_string()])
            .env("PGPASSWORD", password)
            .output()
            .unwrap()
    };
    let output = run(cluster.password());
    assert!(output.status.success(), "{output:?}");
    assert!(!run("wrong").status.success());
}

/// Asks over PostgreSQL's protocol.
struct Asked {
    psql: PathBuf,
    port: u16,
}

impl Asked {
    fn psql(&self, sql: &str) -> String {
        let said = Command::new(&self.psql)
            .args([
                "-X",
                "-A",
                "-t",
                "-v",
                "ON_ERROR_STOP=1",
                "-h",
                "127.0.0.1",
                "-U",
                "anyone",
            ])
            .args(["-d", "pgwitness", "-p", &self.port.to_string(), "-c", sql])
            .output();
        said_well(sql, said.unwrap())
    }

    fn by_psql(&self, tap: &Tap, logged: usize) {
        let counted = self.psql(&format!(
            "SELECT sum(executions) FROM queries WHERE login_role = '{APP_ROLE}'"
        ));
        assert_eq!(counted.trim(), logged.to_string(), "as many as the server logged");
        let sql = "SELECT class, principal, sum(executions) AS n, max(sqlstate) AS failed FROM queries \
                   GROUP BY class, principal ORDER BY n DESC, class";
        let over_http = query_live(tap.http_port(), sql).unwrap();
        let text = |value: &Value| match value {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let rows = over_http.iter().map(|row| {
            let row = row.as_object().unwrap();
            row.values().map(text).collect::<Vec<_>>().join("|")
        });
        let rows: Vec<String> = rows.collect();
        assert!(rows.len() >= 3, "{rows:?}");
        assert_eq!(
            self.psql(sql).lines().collect::<Vec<_>>(),
            rows,
            "the same as over HTTP"
        );
        for (command, expected) in [
            ("\\d", "events"),
            ("\\dv", "principals"),
            ("\\dt", "inventory"),
            ("\\d events", "login_role"),
            ("\\l", "pgwitness"),
            ("\\dn", "public"),
            ("\\conninfo", "pgwitness"),
            ("SHOW TABLES", "sessions"),
            ("EXPLAIN SELECT count(*) FROM events", "plan"),
        ] {
            let said = self.psql(command);
            assert!(said.contains(expected), "{command}: {said}");
        }
    }

    /// Every panel as Grafana's PostgreSQL data source sends it.
    fn by_panels(&self, tap: &Tap) {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/grafana/pgwitness.json");
        let dashboard: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
        let span = query_live(
            tap.http_port(),
            "SELECT min(ts_start) - INTERVAL '1 minute' AS a, max(ts_start) + INTERVAL '1 minute' AS b FROM events",
        );
        let span = span.unwrap();
        let [from, to] = ["a", "b"].map(|end| span[0][end].as_str().unwrap());
        let mut empty = Vec::new();
        let panels = dashboard["panels"].as_array().unwrap();
        assert!(panels.len() >= 15, "{}", panels.len());
        for panel in panels {
            let sql = panel["targets"][0]["rawSql"].as_str().unwrap();
            let said = self.psql(&expanded(sql, from, to));
            if said.trim().is_empty() {
                empty.push(panel["title"].as_str().unwrap());
            }
        }
        // Everybody has a name here, and nothing was lost.
        assert_eq!(
            empty,
            ["Without a name", "Why nobody is named", "What was not seen"],
            "panels that show nothing"
        );
        // What its editor asks, to offer tables and columns.
        let tables = self.psql(
            "SELECT quote_ident(table_name) AS \"table\" FROM information_schema.tables WHERE \
             quote_ident(table_schema) NOT IN ('information_schema', 'pg_catalog') ORDER BY 1",
        );
        assert!(tables.lines().any(|table| table == "events"), "{tables}");
        let columns = self.psql(
            "SELECT quote_ident(column_name) AS \"column\", data_type AS \"type\" FROM information_schema.columns \
             WHERE quote_ident(table_name) = 'events'",
        );
        assert!(columns.lines().count() > 50, "{columns}");
    }

    fn by_drivers(&self, clients: &Path, logged: usize) {
        let said = run(clients, "views.py", &[&self.port.to_string()]);
        let said = said.as_object().unwrap();
        assert_eq!(said.len(), 4);
        for (driver, rows) in said {
            let rows = rows.as_array().unwrap();
            let statements: u64 = rows.iter().map(|row| row[1].as_u64().unwrap()).sum();
            assert_eq!(statements, logged as u64, "{driver}: {rows:?}");
            assert!(rows.iter().all(|row| row[2] == true), "{driver}: {rows:?}");
        }
    }
}

/// Grafana's macros: <https://grafana.com/docs/grafana/latest/datasources/postgres/>.
fn expanded(sql: &str, from: &str, to: &str) -> String {
    let sql = sql
        .replace(
            "$__timeGroupAlias(ts_start, $__interval)",
            "floor(extract(epoch from ts_start)/60)*60 AS \"time\"",
        )
        .replace(
            "$__timeFilter(ts_start)",
            &format!("ts_start BETWEEN '{from}' AND '{to}'"),
        )
        .replace("$__timeFrom()", &format!("'{from}'"))
        .replace("$__timeTo()", &format!("'{to}'"))
        .replace("${principal:raw}", "");
    assert!(!sql.contains('$'), "a macro that is not known: {sql}");
    sql
}

/// No answer is a server's error, and each has the form that the description says.
fn by_schemathesis(clients: &Path, tap: &Tap) {
    let description = format!("http://127.0.0.1:{}/api/v1/openapi.json", tap.http_port());
    let checks =
        "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance";
    // Examples of what each parameter may and may not be, and made-up ones; a live view never ends.
    let output = Command::new(clients.join("schemathesis"))
        .args([
            "run",
            &description,
            "--checks",
            checks,
            "--exclude-path",
            "/api/v1/live",
        ])
        .args([
            "--max-examples",
            "20",
            "--seed",
            "1",
            "--continue-on-failure",
            "--no-color",
        ])
        .args(["--generation-database", "none", "--request-timeout", "30"])
        .current_dir(tap.folder())
        .output();
    let said = said_well("schemathesis", output.unwrap());
    let tested = said.lines().find(|line| line.trim_start().starts_with("Tested:"));
    let tested = tested.and_then(|line| line.rsplit(' ').next()?.parse::<u32>().ok());
    assert!(tested.is_some_and(|tested| tested >= 15), "{said}");
}

/// The files count what the collector counts.
fn by_file_readers(clients: &Path, tap: &Tap) {
    let data = tap.collector_data();
    let said = run(clients, "files.py", &[&data.display().to_string()]);
    let sql = "SELECT kind, count(*) AS events, coalesce(sum(executions), 0) AS statements FROM events \
               GROUP BY kind ORDER BY kind";
    let rows = query_folder(tap.collector_binary(), &data, sql).unwrap();
    let expected = rows
        .iter()
        .map(|row| json!([row["kind"], row["events"], row["statements"], true]));
    let expected: Vec<Value> = expected.collect();
    assert!(expected.len() >= 5, "{expected:?}");
    for reader in ["duckdb", "pandas"] {
        assert_eq!(said[reader], json!(expected), "{reader}");
    }
}

fn run(clients: &Path, program: &str, arguments: &[&str]) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("clients")
        .join(program);
    let output = Command::new(clients.join("python"))
        .arg(path)
        .args(arguments)
        .output();
    let said = said_well(program, output.unwrap());
    serde_json::from_str(&said).unwrap()
}

fn said_well(what: &str, output: Output) -> String {
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        panic!("{what}: {said}\n{}", String::from_utf8_lossy(&output.stderr));
    }
    said
}

/// Over TLS the certificate is the one for readers, and the password is a user's token. Needs no root.
#[tokio::test]
async fn psql_shows_a_token_over_tls() {
    let folder = tempfile::tempdir().unwrap();
    let certificates = Certificates::make(folder.path(), None).unwrap();
    let (certificate, key) = certificates.server();
    let data = folder.path().join("data");
    let config = folder.path().join("collector.toml");
    let [grpc, http, sql] = [(); 3].map(|()| free_port().unwrap());
    let text = format!(
        "[grpc]\nlisten = \"127.0.0.1:{grpc}\"\n[http]\nlisten = \"127.0.0.1:{http}\"\ntls = {{ certificate = {:?}, key = {:?} }}\n\
         [sql]\nlisten = \"127.0.0.1:{sql}\"\n",
        certificate.display().to_string(),
        key.display().to_string()
    );
    fs::write(&config, text).unwrap();
    let collector = sibling("pgwitness-collector").unwrap();
    let added = Command::new(&collector)
        .args(["user", "add", "anna", "--role", "analyst", "--data"])
        .arg(&data)
        .output();
    let token = said_well("user add", added.unwrap()).trim().to_owned();
    let mut serve = Command::new(&collector);
    serve
        .args(["serve", "--config"])
        .arg(&config)
        .arg("--data")
        .arg(&data);
    let _collector = Process::start("collector", &mut serve, Signal::SIGTERM).unwrap();
    let psql = server_binaries().unwrap().join("psql");
    let ask = |sslmode: &str, user: &str, password: &str| {
        let root = certificates.authority();
        let conninfo = format!(
            "host=localhost hostaddr=127.0.0.1 port={sql} dbname=pgwitness user={user} sslmode={sslmode} sslrootcert={}",
            root.display()
        );
        let question = "SELECT kind, count(*) FROM events GROUP BY kind ORDER BY kind";
        Command::new(&psql)
            .args(["-X", "-A", "-t", "-d", &conninfo, "-c", question])
            .env("PGPASSWORD", password)
            .output()
            .unwrap()
    };
    for attempt in 0.. {
        let output = ask("verify-full", "anna", &token);
        if output.status.success() {
            break;
        }
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            complaint.contains("Connection refused") && attempt < 200,
            "{complaint}"
        );
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let said = said_well("asked again", ask("verify-full", "token", &token));
    assert!(
        said.contains("access|1"),
        "the first question is in the record: {said}"
    );
    for (sslmode, user, password, complaint) in [
        ("verify-full", "anna", "guess", "token"),
        ("verify-full", "bert", &*token, "not that of bert"),
        ("require", "anna", "", "no password supplied"),
    ] {
        let output = ask(sslmode, user, password);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && told.contains(complaint),
            "{user}: {told}"
        );
    }
    // What was not encrypted is taken from this host alone.
    assert!(ask("disable", "anna", &token).status.success());
}
