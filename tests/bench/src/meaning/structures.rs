//! Statements as query builders make them: no two of one structure.

use std::collections::HashSet;

/// So many statements of which none differs from another in names and values alone; `round` chooses which.
pub(super) fn structures(round: usize, count: usize) -> Vec<String> {
    let mut maker = Maker {
        seed: 0x9e37_79b9 + round as u64,
    };
    let mut seen = HashSet::new();
    let mut found = Vec::with_capacity(count);
    while found.len() < count {
        let text = maker.statement();
        if seen.insert(structure(&text)) {
            found.push(text);
        }
    }
    found
}

/// The text with names by the order in which they appear: what is written in capitals is no name.
fn structure(text: &str) -> String {
    let mut names: Vec<&str> = Vec::new();
    let words = text.split_inclusive(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words
        .map(|piece| {
            let word = piece.trim_end_matches(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            if !word
                .bytes()
                .next()
                .is_some_and(|first| first.is_ascii_lowercase())
            {
                return piece.to_owned();
            }
            let place = names.iter().position(|name| *name == word).unwrap_or_else(|| {
                names.push(word);
                names.len() - 1
            });
            piece.replacen(word, &format!("n{place}"), 1)
        })
        .collect()
}

struct Maker {
    seed: u64,
}

impl Maker {
    fn next(&mut self, below: usize) -> usize {
        self.seed = self
            .seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 33) as usize % below
    }

    fn one_of(&mut self, all: &[&'static str]) -> &'static str {
        let place = self.next(all.len());
        all.get(place).copied().unwrap_or_default()
    }

    /// Some columns of a table, in its order, each with a front.
    fn columns(&mut self, front: &str) -> Vec<String> {
        let most = 2 + self.next(6);
        let mut chosen: Vec<_> = COLUMNS.into_iter().filter(|_| self.next(10) < most).collect();
        if chosen.is_empty() {
            chosen.push("id");
        }
        chosen
            .into_iter()
            .map(|column| format!("{front}{column}"))
            .collect()
    }

    fn column(&mut self, front: &str) -> String {
        format!("{front}{}", self.one_of(&COLUMNS))
    }

    fn condition(&mut self, front: &str) -> String {
        let column = self.column(front);
        match self.next(9) {
            0 => format!("{column} IN (1, 2, 3)"),
            1 => format!("{column} BETWEEN $1 AND $2"),
            2 => format!("{column} LIKE 'a%'"),
            3 => format!("{column} IS NOT NULL"),
            4 => format!("({column} = 'x' OR {} > 5)", self.column(front)),
            5 => format!("lower({column}) = $3"),
            6 => format!("{column} >= now() - interval '1 day'"),
            _ => format!("{column} = 42"),
        }
    }

    fn conditions(&mut self, front: &str) -> String {
        let count = 1 + self.next(3);
        let all: Vec<_> = (0..count).map(|_| self.condition(front)).collect();
        all.join(" AND ")
    }

    /// Eight of ten are queries, most of one table.
    fn statement(&mut self) -> String {
        let table = self.one_of(&TABLES);
        match self.next(10) {
            0 => {
                let columns = self.columns("");
                let values: Vec<_> = columns
                    .iter()
                    .map(|_| self.one_of(&["1", "'x'", "$1", "now()"]))
                    .collect();
                format!(
                    "INSERT INTO {table} ({}) VALUES ({}) RETURNING id",
                    columns.join(", "),
                    values.join(", ")
                )
            }
            1 => {
                let set: Vec<_> = self
                    .columns("")
                    .iter()
                    .map(|column| format!("{column} = 'x'"))
                    .collect();
                format!(
                    "UPDATE {table} SET {} WHERE {}",
                    set.join(", "),
                    self.conditions("")
                )
            }
            2..=4 => {
                let other = self.one_of(&TABLES);
                format!(
                    "SELECT {} FROM {table} AS a JOIN {other} AS b ON b.id = {} WHERE {} ORDER BY {} LIMIT 20",
                    self.columns("a.").join(", "),
                    self.column("a."),
                    self.conditions("b."),
                    self.column("a.")
                )
            }
            _ => format!(
                "SELECT {} FROM {table} WHERE {}",
                self.columns("").join(", "),
                self.conditions("")
            ),
        }
    }
}

const TABLES: [&str; 6] = [
    "customers",
    "orders",
    "invoices",
    "sessions",
    "history",
    "app.events",
];
const COLUMNS: [&str; 12] = [
    "id",
    "email",
    "amount",
    "created_on",
    "customer",
    "note",
    "price",
    "quantity",
    "balance",
    "zip",
    "city",
    "owner_id",
];

#[cfg(test)]
mod tests {
    use super::{structure, structures};

    #[test]
    fn what_is_made_is_parsed_and_names_make_no_structure() {
        let mut interpreter = sql_meaning::Interpreter::default();
        for text in structures(0, 2_000) {
            assert!(interpreter.interpret(text.as_bytes()).parsed, "{text}");
        }
        assert_eq!(
            structure("SELECT id, zip FROM orders"),
            structure("SELECT zip, id FROM history")
        );
        assert_ne!(
            structure("SELECT id, id FROM orders"),
            structure("SELECT zip, id FROM history")
        );
    }
}
