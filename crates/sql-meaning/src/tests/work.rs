//! What it costs: the cache, hostile shapes.

use std::time::{Duration, Instant};

use super::*;

#[test]
fn cache_shares_and_forgets() {
    let mut interpreter = Interpreter::new(4);
    let first = interpreter.interpret(b"SELECT a FROM t WHERE b = 1");
    assert!(Arc::ptr_eq(
        &first,
        &interpreter.interpret(b"SELECT a FROM t WHERE b = 1")
    ));
    assert!(Arc::ptr_eq(
        &first,
        &interpreter.interpret(b"SELECT a FROM t WHERE b = 2")
    ));
    for n in 0..100 {
        interpreter.interpret(format!("SELECT c{n} FROM t").as_bytes());
    }
    assert!(!Arc::ptr_eq(
        &first,
        &interpreter.interpret(b"SELECT a FROM t WHERE b = 1")
    ));
    // What doubtful literals hide is not confused: both are redacted to the same text.
    let hidden = interpreter.interpret(b"SELECT 'a\\' FROM secret");
    let plain = interpreter.interpret(b"SELECT 1");
    assert_eq!(hidden.redacted, plain.redacted);
    assert_eq!(objects(&plain), "");
}

/// Each of these made a naive reader slow or its stack overflow; a stack of 1 MiB stands for a small worker's.
#[test]
fn hostile_shapes_end_soon() {
    let n = 200_000;
    let shapes = [
        format!("SELECT {}", "(".repeat(n)),
        format!("SELECT {}1{}", "(".repeat(24), ")".repeat(24)),
        format!("SELECT * FROM {}t{}", "(".repeat(20), ")".repeat(20)),
        format!("SELECT * FROM {}t{}", "(".repeat(24), ")".repeat(24)),
        format!("SELECT {}", "(SELECT ".repeat(24)),
        format!("SELECT 1{}", "+1".repeat(4_000)),
        format!("SELECT 1{}", "+1".repeat(n)),
        format!("SELECT a{}", " IS NULL".repeat(2_000)),
        format!("SELECT a{}", "!".repeat(4_000)),
        format!("SELECT {}a", "NOT ".repeat(4_000)),
        format!("SELECT {}1", "- ".repeat(4_000)),
        format!("SELECT 1{}", " UNION SELECT 1".repeat(2_000)),
        format!("SELECT {}", "CASE WHEN ".repeat(2_000)),
        "SET a=b;".repeat(n / 2),
        "VALUES (a, ".repeat(n / 4),
        "IN (1, ".repeat(n / 4),
        "INSERT INTO a (".repeat(n / 8),
        ") AS (".repeat(n / 4),
        "WITH ) AS NOT ".repeat(n / 8),
        "'a\\'".repeat(n),
        "'a'\n--\n".repeat(n / 4),
        "$a$b".repeat(n),
        "/*".repeat(n),
        "password = ".repeat(n / 8),
        "://:@".repeat(n / 4),
    ];
    let run = move || {
        for shape in shapes {
            let start = Instant::now();
            fuzz_sql(shape.as_bytes());
            let took = start.elapsed();
            let head: String = shape.chars().take(30).collect();
            eprintln!("{head} {took:?}");
            assert!(took < Duration::from_secs(10), "{head}: {took:?}");
        }
    };
    std::thread::Builder::new()
        .stack_size(1 << 20)
        .spawn(run)
        .unwrap()
        .join()
        .unwrap();
}

#[test]
fn cached_statement_is_cheap() {
    let mut interpreter = Interpreter::default();
    let sql = b"SELECT id, email FROM users WHERE region = $1 AND state IN ('a', 'b')";
    interpreter.interpret(sql);
    let rounds = 20_000;
    let start = Instant::now();
    let kept = (0..rounds).filter(|_| interpreter.interpret(sql).parsed).count();
    assert_eq!(kept, rounds);
    // Far above what a hash of 70 bytes and a look-up take, far below a parse.
    assert!(
        start.elapsed() / 20_000 < Duration::from_micros(20),
        "{:?}",
        start.elapsed()
    );
}
