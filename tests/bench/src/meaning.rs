//! How fast texts become meaning, on one core: known ones, never seen ones, and the worst that somebody could send.
//!
//! `repeated`: texts that were sent before. `values`: never seen texts that differ from one before in a string. `unseen`:
//! each with names that no text had. `structures`: as query builders make them, no two of one structure, so that each is
//! parsed. `worst`: texts of 1 MiB made to be slow to read, and of the length that is still parsed. All of it is processor
//! time.

use std::time::Duration;

use anyhow::ensure;
use nix::time::{ClockId, clock_gettime};
use serde_json::{Map, Value, json};
use sql_meaning::{Interpreter, MAX_PARSED_BYTES};

use crate::figures::{machine, median, rounded};

mod structures;

use structures::structures;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Print one JSON object as the last line
    #[arg(long)]
    json: bool,
    /// A smoke run: the figures mean little
    #[arg(long)]
    quick: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    eprintln!("{}", machine());
    let rounds = if args.quick { 3 } else { ROUNDS };
    let (mut repeated, mut values, mut unseen) = (Vec::new(), Vec::new(), Vec::new());
    let mut parsed = Vec::new();
    for round in 0..rounds {
        // In turns, so that whatever else the machine does hits all.
        repeated.push(rate(&known(), true));
        values.push(rate(&other_values(round, COUNT), false));
        unseen.push(rate(&other_names(round), false));
        parsed.push(rate(&structures(round, COUNT), false));
    }
    let mut shapes = Map::new();
    let mut worst: f64 = 0.0;
    for (name, text) in adversarial() {
        ensure!(text.len() <= LENGTH, "{name} is longer than 1 MiB");
        let times: Vec<f64> = (0..rounds.min(5)).map(|_| milliseconds(&text)).collect();
        let least = times.iter().copied().fold(f64::INFINITY, f64::min);
        worst = worst.max(least);
        shapes.insert(name.to_owned(), rounded(least, 2));
    }
    let all = json!({
        "repeated_per_second": rounded(median(&repeated), 0),
        "unseen_per_second": rounded(median(&unseen), 0),
        "unseen_structures_per_second": rounded(median(&parsed), 0),
        "worst_ms": rounded(worst, 2),
        "unseen_values_per_second": rounded(median(&values), 0),
        "shapes": shapes,
        "rounds": rounds,
        "quick": args.quick,
        "machine": machine(),
    });
    print(&all, args.json);
    Ok(())
}

fn print(all: &Value, as_json: bool) {
    if as_json {
        println!("{all}");
    } else {
        println!("{all:#}");
    }
}

/// Statements a second. Everything is read once before, if it is to be known.
fn rate(texts: &[String], known: bool) -> f64 {
    let mut interpreter = Interpreter::default();
    let warm = if known { texts } else { &[] };
    for text in warm {
        interpreter.interpret(text.as_bytes());
    }
    let (began, mut done) = (taken(), 0_u64);
    while (known && taken() - began < ROUND) || done == 0 {
        for text in texts {
            std::hint::black_box(interpreter.interpret(text.as_bytes()));
        }
        done += texts.len() as u64;
    }
    done as f64 / (taken() - began).as_secs_f64()
}

fn milliseconds(text: &str) -> f64 {
    let began = taken();
    std::hint::black_box(Interpreter::new(1).interpret(text.as_bytes()));
    (taken() - began).as_secs_f64() * 1e3
}

/// Processor time of this thread: what else the machine does is not counted.
fn taken() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

/// What applications send, `{}` for a value and `@` for a name.
const STATEMENTS: [&str; 8] = [
    "SELECT id, email, region FROM customers@ WHERE region = '{}'",
    "SELECT o.id, o.amount, c.email FROM orders@ o JOIN customers c ON c.id = o.customer WHERE o.note = '{}' AND o.amount > $1 \
     ORDER BY o.id DESC LIMIT 20",
    "UPDATE pgbench_accounts@ SET abalance = abalance + 17 WHERE aid = 1042 AND filler = '{}'",
    "INSERT INTO history@ (tid, bid, aid, delta, mtime, note) VALUES (7, 1, 1042, 17, CURRENT_TIMESTAMP, '{}')",
    "DELETE FROM sessions@ WHERE token = '{}' AND expires < now()",
    "SELECT count(*) FROM events@ WHERE kind IN ('{}', 'b', 'c') AND created_at BETWEEN $1 AND $2 GROUP BY kind",
    "SELECT abalance FROM pgbench_accounts@ WHERE aid = 1042",
    "WITH recent AS (SELECT * FROM orders@ WHERE created > now() - interval '1 day') SELECT customer, sum(amount) FROM recent \
     WHERE note <> '{}' GROUP BY 1 HAVING sum(amount) > 100",
];

fn known() -> Vec<String> {
    (0..32)
        .flat_map(|table| STATEMENTS.map(|text| text.replace('@', &format!("_{table}")).replace("{}", "x")))
        .collect()
}

/// Never seen texts that differ from each other in a string; `round` chooses which.
pub(crate) fn other_values(round: usize, count: usize) -> Vec<String> {
    (0..count)
        .flat_map(|number| {
            STATEMENTS.map(|text| {
                text.replace('@', "")
                    .replace("{}", &format!("value {round} of {number} x"))
            })
        })
        .collect()
}

fn other_names(round: usize) -> Vec<String> {
    (0..COUNT / 4)
        .flat_map(|number| {
            STATEMENTS.map(|text| {
                text.replace('@', &format!("_r{round}x{number}"))
                    .replace("{}", "x")
            })
        })
        .collect()
}

/// Texts of 1 MiB, each slow for one or the other way to read.
fn adversarial() -> Vec<(&'static str, String)> {
    let fill = |front: &str, piece: &str| {
        let times = (LENGTH - front.len()) / piece.len();
        format!("{front}{}", piece.repeat(times))
    };
    vec![
        ("literals", fill("INSERT INTO t VALUES ('x')", ", ('it''s')")),
        ("numbers", fill("SELECT a FROM t WHERE b IN (1", ", 2")),
        ("rows", fill("INSERT INTO t (a, b) VALUES (1, 'a')", ", (2, 'b')")),
        (
            "rows_of_calls",
            fill("INSERT INTO t (a, b) VALUES (f(1), 'a')", ", (f(2), 'b')"),
        ),
        ("brackets", fill("SELECT ", "(")),
        ("brackets_closed", fill("SELECT ", "()")),
        ("squares", fill("SELECT a", "[1]")),
        ("comments", fill("SELECT ", "/*")),
        ("comments_closed", fill("SELECT 1", "/**/")),
        ("line_comments", fill("SELECT 1", "--\n")),
        ("doubts", fill("SELECT ", "'a\\'")),
        ("quotes", fill("SELECT ", "'")),
        ("strings_in_parts", fill("SELECT 'a'", "\n'b'")),
        ("strings_and_comments", fill("SELECT 'a'", "\n--\n")),
        ("dollars", fill("SELECT ", "$a$b")),
        ("dollar_tags", fill("SELECT ", "$a$ $b$ ")),
        ("quoted_names", fill("SELECT a", ",\"\"\"\"")),
        ("unicode", fill("SELECT ", "U&'\\0061' ")),
        ("semicolons", fill("", ";")),
        ("sets", fill("", "SET a=b;")),
        ("settings", fill("ALTER ROLE r", " SET a = b")),
        ("passwords", fill("CREATE ROLE r", " PASSWORD 'x'")),
        ("froms", fill("SELECT 1", " FROM a")),
        ("tables", fill("SELECT * FROM a", ",a")),
        ("joins", fill("SELECT * FROM a", " JOIN b ON true")),
        ("withs", fill("WITH a AS (SELECT 1)", ",a AS (SELECT 1)")),
        ("with_columns", fill("WITH ", ") AS NOT ")),
        ("table_commands", fill("SELECT 1", " UNION TABLE a")),
        ("calls", fill("SELECT 1", ",f(1)")),
        ("call_chain", fill("SELECT ", "f(")),
        ("operators", fill("SELECT 1", "+1")),
        ("ors", fill("SELECT 1 WHERE a", " OR a")),
        ("unions", fill("SELECT 1", " UNION SELECT 1")),
        ("selects", fill("SELECT ", "(SELECT ")),
        ("cases", fill("SELECT ", "CASE WHEN ")),
        ("grants", fill("GRANT SELECT ON a", ",a")),
        ("drops", fill("DROP TABLE a", ",a")),
        ("definitions", fill("CREATE SCHEMA s", " CREATE TABLE t ()")),
        ("casts", fill("SELECT a", "::int")),
        ("signs", fill("SELECT 1", " - -1")),
        ("words", fill("SELECT ", "a ")),
        ("one_word", fill("SELECT ", "a")),
        ("one_number", fill("SELECT ", "1")),
        ("one_literal", fill("SELECT '", "x")),
        ("not_utf8", fill("SELECT '", "\u{fffd}\\")),
        ("bytes", fill("SELECT 1", "\u{0}")),
        ("drops_of_many", {
            let names: Vec<String> = (0..120_000).map(|n| format!("t{}", n % 255)).collect();
            format!("DROP TABLE {}", names.join(","))
        }),
        ("values_in_values", fill("", "VALUES (a, ")),
        ("lists_in_lists", fill("SELECT ", "IN (1, ")),
        ("inserts", fill("", "INSERT INTO a (")),
        // As long as what is parsed may be.
        (
            "parsed_rows",
            within("INSERT INTO t (a, b) VALUES (1, 'a')", ", (2, 'b')", usize::MAX),
        ),
        (
            "parsed_list",
            within("SELECT a FROM t WHERE b IN (1", ", 2", usize::MAX) + ")",
        ),
        (
            "parsed_ors",
            within("SELECT 1 FROM t WHERE a = 1", " OR a = 1", 1_000),
        ),
        ("parsed_unions", within("SELECT 1", " UNION SELECT 1", 1_300)),
        ("parsed_sums", within("SELECT 1", "+1", 4_000)),
        (
            "parsed_joins",
            within("SELECT * FROM a", " JOIN b USING (c)", 1_000),
        ),
        ("parsed_calls", within("SELECT 1", ", f(a, b)", 1_300)),
        ("parsed_cases", within("SELECT ", "CASE WHEN ", 2_000)),
        ("parsed_nots", within("SELECT ", "NOT ", 4_000)),
        (
            "parsed_brackets",
            format!("SELECT {}1{}", "(".repeat(24), ")".repeat(24)),
        ),
        (
            "parsed_tables",
            format!("SELECT * FROM {}t{}", "(".repeat(24), ")".repeat(24)),
        ),
        (
            "parsed_selects",
            format!("SELECT {}1{}", "(SELECT ".repeat(24), ")".repeat(24)),
        ),
        ("parsed_open", format!("SELECT {}", "(SELECT ".repeat(24))),
        (
            "parsed_columns",
            format!("SELECT {} FROM t", vec!["a.b"; 1_000].join(", ")),
        ),
        ("copy", fill("COPY (SELECT ", "(")),
        ("explains", fill("", "EXPLAIN ANALYZE ")),
        ("prepares", fill("", "PREPARE p AS ")),
    ]
}

/// Up to so many pieces, within what is parsed.
fn within(front: &str, piece: &str, most: usize) -> String {
    let times = ((MAX_PARSED_BYTES - front.len() - 1) / piece.len()).min(most);
    format!("{front}{}", piece.repeat(times))
}

/// As much as is read of a text.
const LENGTH: usize = 1 << 20;
const ROUNDS: usize = 9;
const ROUND: Duration = Duration::from_millis(300);
/// Texts of each statement.
const COUNT: usize = 4_000;
