//! Whether a column of a result that bears the name of a table's column surely is that column. RowDescription tells the name
//! that the statement gives it, the table by a number, and the column by another: where nobody says which name those have,
//! the text has to show that nothing was renamed.

/// What a redacted text has to be for that: one SELECT at the most, of one table, in which the column is nowhere an alias.
/// `every` tells that each row that the statement touches is a row of its result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Plain {
    /// The name means the column.
    pub(super) sure: bool,
    /// No row is grouped with others, or left out.
    pub(super) every: bool,
}

/// Reads a redacted text. It holds no literals and no comments; `?` stands for each literal.
pub(super) fn plain(redacted: &str, column: &str) -> Plain {
    let tokens = tokens(redacted);
    let word = |at: usize| tokens.get(at).and_then(Token::word);
    let count = |name: &str| tokens.iter().filter(|token| token.word() == Some(name)).count();
    let several = [
        "with",
        "union",
        "intersect",
        "except",
        "join",
        "lateral",
        "tablesample",
    ];
    let sure = count("select") <= 1
        && count("from") <= 1
        && several.iter().all(|name| count(name) == 0)
        && (0..tokens.len()).all(|at| match word(at) {
            Some("from") => is_one_table(&tokens, at + 1),
            _ => true,
        })
        && (0..tokens.len()).all(|at| {
            let is_column = tokens.get(at).is_some_and(|token| token.is_name(column));
            !is_column
                || at
                    .checked_sub(1)
                    .and_then(|before| tokens.get(before))
                    .is_none_or(is_before_a_column)
        });
    let lossy = ["group", "having", "distinct", "over"];
    let every = sure && lossy.iter().all(|name| count(name) == 0) && word(0) != Some("merge");
    Plain { sure, every }
}

/// `FROM [ONLY] name [*] [[AS] alias]`, and then nothing that could be a list of other names for the columns, or another
/// table.
fn is_one_table(tokens: &[Token<'_>], mut at: usize) -> bool {
    let word = |at: usize| tokens.get(at).and_then(Token::word);
    let symbol = |at: usize| tokens.get(at).and_then(Token::symbol);
    if word(at) == Some("only") {
        at += 1;
    }
    if !tokens.get(at).is_some_and(Token::is_any_name) {
        return false;
    }
    at += 1;
    while symbol(at) == Some('.') && tokens.get(at + 1).is_some_and(Token::is_any_name) {
        at += 2;
    }
    if symbol(at) == Some('*') {
        at += 1;
    }
    let is_end = |at: usize| match tokens.get(at) {
        None => true,
        Some(token) => {
            token.symbol() == Some(';') || token.word().is_some_and(|word| BEHIND_FROM.contains(&word))
        }
    };
    if is_end(at) {
        return true;
    }
    if word(at) == Some("as") {
        at += 1;
    }
    tokens.get(at).is_some_and(Token::is_any_name) && is_end(at + 1)
}

/// What can follow the tables of a query (manual, "SELECT", "DELETE", "UPDATE").
const BEHIND_FROM: [&str; 11] = [
    "where",
    "group",
    "having",
    "window",
    "order",
    "limit",
    "offset",
    "fetch",
    "for",
    "returning",
    "set",
];

/// Words behind which a name is that of a column, not one that is given to what stands before it.
const BEFORE_A_COLUMN: [&str; 24] = [
    "select",
    "all",
    "distinct",
    "returning",
    "where",
    "and",
    "or",
    "not",
    "on",
    "by",
    "having",
    "set",
    "in",
    "between",
    "like",
    "ilike",
    "is",
    "when",
    "then",
    "else",
    "case",
    "from",
    "into",
    "update",
];

fn is_before_a_column(token: &Token<'_>) -> bool {
    match token {
        // Behind a closing one it would be the name of what is inside.
        Token::Symbol(symbol) => !matches!(symbol, ')' | ']' | '?'),
        Token::Word(word) => BEFORE_A_COLUMN.contains(&word.as_str()),
        Token::Quoted(_) => false,
    }
}

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

    fn is_any_name(&self) -> bool {
        !matches!(self, Self::Symbol(_))
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
    fn a_name_is_the_column_where_nothing_is_renamed() {
        for (text, sure, every) in [
            ("SELECT id FROM customers", true, true),
            (
                "select c.id, name from public.customers as c where id > ?",
                true,
                true,
            ),
            ("SELECT * FROM ONLY customers * c ORDER BY id LIMIT ?", true, true),
            ("SELECT \"id\" FROM \"Customers\";", true, true),
            ("SELECT DISTINCT id FROM customers", true, false),
            ("SELECT id, count(*) FROM customers GROUP BY id", true, false),
            ("SELECT id, sum(x) OVER () FROM customers", true, false),
            (
                "INSERT INTO customers (id, name) VALUES ($1, $2) RETURNING id",
                true,
                true,
            ),
            (
                "UPDATE customers c SET name = ? WHERE c.id = ? RETURNING id",
                true,
                true,
            ),
            (
                "DELETE FROM customers WHERE name = ? RETURNING customers.id",
                true,
                true,
            ),
            ("SELECT name AS id FROM customers", false, false),
            ("SELECT name id FROM customers", false, false),
            ("SELECT name AS \"id\" FROM customers", false, false),
            ("SELECT (name) id FROM customers", false, false),
            ("SELECT \"name\" id FROM customers", false, false),
            ("SELECT id FROM customers AS c (name, id)", false, false),
            ("SELECT id FROM customers c(name, id)", false, false),
            (
                "SELECT id FROM (SELECT name AS id FROM customers) s",
                false,
                false,
            ),
            (
                "SELECT id FROM (SELECT * FROM customers) s (name, id)",
                false,
                false,
            ),
            (
                "WITH c (id) AS (SELECT name FROM customers) SELECT id FROM c",
                false,
                false,
            ),
            ("SELECT id FROM customers, orders", false, false),
            (
                "SELECT id FROM customers JOIN customers b USING (id)",
                false,
                false,
            ),
            (
                "SELECT id FROM customers UNION SELECT id FROM customers",
                false,
                false,
            ),
            ("FETCH ? FROM c", true, true),
            ("TABLE customers", true, true),
        ] {
            assert_eq!(plain(text, "id"), Plain { sure, every }, "{text}");
        }
    }
}
