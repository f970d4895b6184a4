//! Which statements are one.

use super::*;

#[test]
fn fingerprints() {
    let equal = |a: &str, b: &str| interpret(a).fingerprint == interpret(b).fingerprint;
    for (a, b) in [
        (
            "SELECT a FROM t WHERE b = 5",
            "select A from T where b=-7 -- note",
        ),
        ("SELECT a FROM t WHERE b = 5", "SELECT a FROM t WHERE b = $1"),
        (
            "SELECT a FROM t WHERE b IN (1)",
            "SELECT a FROM t WHERE b IN ($1::int, 2, NULL)",
        ),
        (
            "INSERT INTO t VALUES (1, 'a')",
            "INSERT INTO t VALUES (1, NULL), ($1, $2::numeric(10,2)), (5, 'x')",
        ),
        (
            "INSERT INTO t VALUES (1, now())",
            "INSERT INTO t VALUES (1, now()), (2, now())",
        ),
        ("SELECT ARRAY[1]", "SELECT ARRAY[1,2,3];"),
        ("SET x = a", "SET x = b, c"),
        // Names that a framework makes anew each time.
        ("SAVEPOINT s1_x1", "savepoint \"s1 x2\""),
        ("RELEASE SAVEPOINT a", "RELEASE SAVEPOINT b"),
        ("ROLLBACK TO SAVEPOINT a", "ROLLBACK TO SAVEPOINT b;"),
        ("DEALLOCATE p1", "DEALLOCATE p2"),
        ("CLOSE c1", "CLOSE c2"),
        ("FETCH 10 FROM c1", "FETCH 20 FROM c2"),
        (
            "DECLARE c1 CURSOR FOR SELECT a FROM t",
            "DECLARE c2 CURSOR FOR SELECT a FROM t",
        ),
    ] {
        assert!(equal(a, b), "{a} | {b}");
    }
    for (a, b) in [
        ("SELECT a FROM t", "SELECT b FROM t"),
        ("SELECT \"A\" FROM t", "SELECT a FROM t"),
        ("INSERT INTO t VALUES (1, 2)", "INSERT INTO t VALUES (1)"),
        ("SELECT a - 1", "SELECT a + 1"),
        ("CLOSE c1", "CLOSE ALL"),
        ("DEALLOCATE p1", "DEALLOCATE ALL"),
        ("FETCH ALL FROM c1", "FETCH NEXT FROM c1"),
        ("ROLLBACK TO a", "ROLLBACK"),
        ("EXECUTE p1", "EXECUTE p2"),
        ("SET ROLE a", "SET ROLE b"),
        ("PREPARE p1 AS SELECT 1", "PREPARE p2 AS SELECT 1"),
    ] {
        assert!(!equal(a, b), "{a} | {b}");
    }
}
