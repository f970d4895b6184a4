//! Whether every row of a table that a statement touches shows in its result.
//!
//! This is about rows that are looked at and do not come back: what makes one row of several, what asks for the table twice, and functions in the
//! select list that may give no row for one. Which column of a result is which is told by [`crate::Statement::outputs`].

use std::collections::HashSet;
use std::sync::LazyLock;

use crate::Statement;
use crate::fallback::calls;
use crate::lexer::lex;
use crate::objects::Found;
use crate::phrase::Phrase;

/// Whether all rows of this table that the statement touches are in its result, or were left out by a condition. One SELECT
/// at the most, which names the table once, and nothing that makes one row of several, or none of one.
#[must_use]
pub fn gives_every_row(statement: &Statement, table: &str) -> bool {
    let sql = &*statement.redacted;
    let tokens = lex(sql);
    let phrase = Phrase { sql, tokens: &tokens };
    let count = |word: &str| (0..phrase.len()).filter(|&at| phrase.is(at, word)).count();
    let names = (0..phrase.len()).filter(|&at| {
        let before = at.checked_sub(1);
        let follows = |before: usize| {
            phrase.any(before, &BEFORE_A_TABLE)
                || [",", ".", "("].iter().any(|sign| phrase.symbol(before, sign))
        };
        phrase.identifier(at).is_some_and(|name| name == table)
            && !phrase.symbol(at + 1, ".")
            && before.is_some_and(follows)
    });
    statement.parsed
        && count("SELECT") <= 1
        && names.count() == 1
        && LOSSY.iter().all(|word| count(word) == 0)
        && !phrase.is(0, "MERGE")
        && !may_swallow(phrase)
}

/// Whether a function in the select list, or behind ORDER BY, may give no row for one (manual, "Set Returning Functions").
fn may_swallow(phrase: Phrase<'_>) -> bool {
    static SETS: LazyLock<HashSet<&str>> =
        LazyLock::new(|| include_str!("set_returning_functions.txt").lines().collect());
    let behind = |word: &str| {
        let found = (0..phrase.len()).find(|&at| phrase.is(at, word));
        phrase.from(found.map_or(phrase.len(), |at| at + 1))
    };
    let list = behind("SELECT");
    let list = list.head(list.find(0, &["FROM"]).unwrap_or(list.len()));
    [list, behind("ORDER")].into_iter().any(|part| {
        let gives_a_set = |at: usize| {
            part.symbol(at + 1, "(")
                && part
                    .identifier(at)
                    .is_some_and(|name| SETS.contains(name.as_str()))
        };
        // What is not the server's own may give a set, too.
        let mut found = Found::default();
        calls(part, &mut found);
        found.calls_unknown || (0..part.len()).any(gives_a_set)
    })
}

/// What makes one row of several, or asks for more than one query gives.
const LOSSY: [&str; 9] = [
    "WITH",
    "UNION",
    "INTERSECT",
    "EXCEPT",
    "GROUP",
    "HAVING",
    "DISTINCT",
    "OVER",
    "LATERAL",
];

/// Words behind which a name is that of a table (manual, "SELECT", "INSERT", "UPDATE", "DELETE", "COPY").
const BEFORE_A_TABLE: [&str; 7] = ["FROM", "JOIN", "INTO", "UPDATE", "ONLY", "USING", "TABLE"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Interpreter;

    #[test]
    fn rows_that_are_touched_come_back() {
        for (text, expected) in [
            ("SELECT id FROM customers", true),
            (
                "SELECT c.id AS x FROM public.customers AS c WHERE id > 1 LIMIT 2",
                true,
            ),
            (
                "SELECT customers.id FROM ONLY \"customers\" ORDER BY customers.name",
                true,
            ),
            ("SELECT id FROM orders JOIN customers USING (id)", true),
            ("SELECT id FROM orders, customers", true),
            (
                "SELECT id, lower(name), CASE WHEN (a) THEN 1 END, x::numeric(3, 1) FROM customers WHERE f(id)",
                true,
            ),
            (
                "INSERT INTO customers (id, name) VALUES ($1, $2) RETURNING id",
                true,
            ),
            (
                "UPDATE customers c SET name = 'x' WHERE c.id = 1 RETURNING id",
                true,
            ),
            (
                "DELETE FROM customers WHERE name = 'x' RETURNING customers.id",
                true,
            ),
            ("DECLARE c CURSOR FOR SELECT id FROM customers", true),
            ("COPY (SELECT id FROM customers) TO STDOUT", true),
            ("SELECT DISTINCT id FROM customers", false),
            ("SELECT id, count(*) FROM customers GROUP BY id", false),
            ("SELECT id, sum(x) OVER () FROM customers", false),
            ("SELECT id FROM customers a JOIN customers b USING (id)", false),
            (
                "SELECT id FROM customers WHERE x IN (SELECT x FROM customers)",
                false,
            ),
            ("SELECT id FROM customers UNION SELECT id FROM customers", false),
            (
                "WITH c AS (DELETE FROM customers RETURNING id) SELECT id FROM c",
                false,
            ),
            (
                "MERGE INTO customers USING x ON true WHEN MATCHED THEN DELETE RETURNING id",
                false,
            ),
            ("SELECT id FROM orders", false),
            // Not parsed.
            ("TABLE customers", false),
            ("SELECT id, unnest(tags) FROM customers", false),
            ("SELECT id, (pg_catalog.json_each(j)).key FROM customers", false),
            ("SELECT id, split(tags) FROM customers", false),
            ("SELECT id FROM customers ORDER BY Generate_Series(1, n)", false),
        ] {
            let statement = Interpreter::new(1).interpret(text.as_bytes());
            assert_eq!(gives_every_row(&statement, "customers"), expected, "{text}");
        }
    }
}
