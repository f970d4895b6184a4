//! Whether every row of a table that a statement touches shows in its result. Which column of a result is which is told by
//! `relations`; this is about rows that are looked at and do not come back.

/// Reads a redacted text, which holds no literals and no comments. One SELECT at the most, which names the table once, and
/// nothing that makes one row of several: then a row of the table is in the result, or its condition left it out.
pub(super) fn every(redacted: &str, table: &str) -> bool {
    let tokens = tokens(redacted);
    let word = |at: usize| tokens.get(at).and_then(Token::word);
    let count = |name: &str| tokens.iter().filter(|token| token.word() == Some(name)).count();
    let lossy = [
        "with",
        "union",
        "intersect",
        "except",
        "group",
        "having",
        "distinct",
        "over",
        "lateral",
    ];
    let names = (0..tokens.len()).filter(|&at| {
        let before = at.checked_sub(1).and_then(|before| tokens.get(before));
        tokens.get(at).is_some_and(|token| token.is_name(table))
            && tokens.get(at + 1).and_then(Token::symbol) != Some('.')
            && before.is_some_and(|before| match before {
                Token::Symbol(symbol) => matches!(symbol, ',' | '.' | '('),
                Token::Word(word) => BEFORE_A_TABLE.contains(&word.as_str()),
                Token::Quoted(_) => false,
            })
    });
    count("select") <= 1
        && names.count() == 1
        && lossy.iter().all(|name| count(name) == 0)
        && word(0) != Some("merge")
}

/// Words behind which a name is that of a table (manual, "SELECT", "INSERT", "UPDATE", "DELETE").
const BEFORE_A_TABLE: [&str; 7] = ["from", "join", "into", "update", "only", "using", "table"];

enum Token<'a> {
    /// In lower case, as the server folds it.
    Word(String),
    /// As written between its quotes.
    Quoted(&'a str),
    Symbol(char),
}

impl Token<'_> {
    fn word(&self) -> Option<&str> {
        match self {
            Self::Word(word) => Some(word),
            _ => None,
        }
    }

    fn symbol(&self) -> Option<char> {
        match self {
            Self::Symbol(symbol) => Some(*symbol),
            _ => None,
        }
    }

    fn is_name(&self, name: &str) -> bool {
        match self {
            Self::Word(word) => word == name,
            Self::Quoted(quoted) => *quoted == name,
            Self::Symbol(_) => false,
        }
    }
}

fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let is_letter =
            |letter: char| letter.is_alphanumeric() || matches!(letter, '_' | '$') || !letter.is_ascii();
        if first == '"' {
            let inside = rest.get(1..).unwrap_or_default();
            // Doubled quotes make two names of one, of which neither is the column's: then nothing is sure.
            let end = inside.find('"').unwrap_or(inside.len());
            tokens.push(Token::Quoted(inside.get(..end).unwrap_or_default()));
            rest = inside.get(end + 1..).unwrap_or_default();
        } else if is_letter(first) {
            let end = rest.find(|letter| !is_letter(letter)).unwrap_or(rest.len());
            let (word, behind) = rest.split_at_checked(end).unwrap_or((rest, ""));
            tokens.push(Token::Word(word.to_ascii_lowercase()));
            rest = behind;
        } else {
            if !first.is_whitespace() {
                tokens.push(Token::Symbol(first));
            }
            rest = rest.get(first.len_utf8()..).unwrap_or_default();
        }
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_are_touched_come_back() {
        for (text, expected) in [
            ("SELECT id FROM customers", true),
            (
                "SELECT c.id AS x FROM public.customers AS c WHERE id > ? LIMIT ?",
                true,
            ),
            (
                "SELECT customers.id FROM ONLY \"customers\" ORDER BY customers.name",
                true,
            ),
            ("SELECT id FROM orders JOIN customers USING (id)", true),
            ("SELECT id FROM orders, customers", true),
            (
                "INSERT INTO customers (id, name) VALUES ($1, $2) RETURNING id",
                true,
            ),
            (
                "UPDATE customers c SET name = ? WHERE c.id = ? RETURNING id",
                true,
            ),
            (
                "DELETE FROM customers WHERE name = ? RETURNING customers.id",
                true,
            ),
            ("DECLARE c CURSOR FOR SELECT id FROM customers", true),
            ("TABLE customers", true),
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
        ] {
            assert_eq!(every(text, "customers"), expected, "{text}");
        }
    }
}
