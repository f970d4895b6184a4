use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::{env, fs};

use super::*;
use crate::lexer::lex;
use crate::{Interpreter, split};

/// How the names of a text are exchanged.
#[derive(Clone, Copy, Debug)]
enum Exchange {
    /// Each for one that is not in the text.
    Fresh,
    /// Each for the next one of the text.
    Turned,
}

/// The text with other names, if it has a shape.
fn exchanged(sql: &str, exchange: Exchange) -> Option<String> {
    let tokens = lex(sql);
    let phrase = Phrase { sql, tokens: &tokens };
    let (_, names) = shape(phrase)?;
    let names: Vec<String> = (0..names.0.len())
        .map(|n| names.get(u8::try_from(n).unwrap()))
        .collect();
    let unquoted: BTreeSet<String> = (0..tokens.len())
        .filter(|&at| phrase.kind(at) == Some(Kind::Word))
        .map(|at| phrase.text(at).to_ascii_lowercase())
        .collect();
    let plain: Vec<&String> = names.iter().filter(|name| unquoted.contains(*name)).collect();
    let quoted: Vec<&String> = names.iter().filter(|name| !unquoted.contains(*name)).collect();
    let mut other: HashMap<&String, String> = HashMap::new();
    for (group, fresh) in [(plain, ["zeta", "al", "m"]), (quoted, ["Zeta", "aL", "q"])] {
        for (at, name) in group.iter().enumerate() {
            let new = match exchange {
                Exchange::Fresh => format!("{}_{}", fresh[at % 3], group.len() - at),
                Exchange::Turned => group[(at + 1) % group.len()].clone(),
            };
            other.insert(name, new);
        }
    }
    let mut out = String::new();
    let mut end = 0;
    for (at, token) in tokens.iter().enumerate() {
        out.push_str(&sql[end..token.start]);
        end = token.end;
        let folded = phrase.identifier(at).unwrap_or_default();
        match (token.kind, other.get(&folded)) {
            (Kind::Word, Some(name)) if at % 3 == 0 => out.push_str(&name.to_ascii_uppercase()),
            (Kind::Word, Some(name)) => out.push_str(name),
            (Kind::Quoted, Some(name)) => out.push_str(&format!("\"{name}\"")),
            _ => out.push_str(phrase.text(at)),
        }
    }
    out.push_str(&sql[end..]);
    Some(out)
}

/// Says what a statement means once more, of one with other names; answers whether that was possible.
fn holds(sql: &str) -> bool {
    let meaning = Interpreter::new(1).interpret(sql.as_bytes());
    let tokens = lex(sql);
    let Some((own, names)) = shape(Phrase { sql, tokens: &tokens }) else {
        return false;
    };
    let Some(template) = Template::new(&meaning, &names).filter(|_| meaning.parsed) else {
        assert!(!meaning.parsed, "a name that is none of the text's: {sql}");
        return false;
    };
    for exchange in [Exchange::Fresh, Exchange::Turned] {
        let other = exchanged(sql, exchange).unwrap();
        let tokens = lex(&other);
        let (same, names) = shape(Phrase {
            sql: &other,
            tokens: &tokens,
        })
        .unwrap();
        assert_eq!(own, same, "two shapes: {sql}\n{other}");
        let read = Interpreter::new(1).interpret(other.as_bytes());
        let told = template.with(&names, Arc::clone(&read.redacted), read.fingerprint);
        assert_eq!(*read, told, "{exchange:?} {sql}\n{other}");
    }
    true
}

/// The statements of the corpus, and of all files in the folder that `PGWITNESS_SQL` names (the server's own regression
/// tests have some 40,000).
#[test]
fn what_statements_mean_does_not_hang_on_names() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/corpus/meaning");
    let more = env::var_os("PGWITNESS_SQL").map(std::path::PathBuf::from);
    let mut experienced = Interpreter::new(64);
    let (mut all, mut told) = (0, 0);
    for folder in [Some(corpus), more].into_iter().flatten() {
        for file in fs::read_dir(folder).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "sql") {
                continue;
            }
            let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
            for range in split(&text) {
                all += 1;
                let sql = &text[range];
                told += usize::from(holds(sql));
                let fresh = Interpreter::new(1).interpret(sql.as_bytes());
                assert_eq!(experienced.interpret(sql.as_bytes()), fresh, "{sql}");
            }
        }
    }
    println!("{told} of {all} statements have a shape");
    assert!(told > 60, "{told} of {all}");
}

/// Statements made at random from few names, so that most of them are at several places.
#[test]
fn what_made_statements_mean_does_not_hang_on_names() {
    let mut seed = 11_u64;
    let mut told = 0;
    for _ in 0..6_000 {
        let mut maker = Maker { seed, depth: 0 };
        let sql = maker.statement();
        seed = maker.seed;
        told += usize::from(holds(&sql));
    }
    assert!(told > 4_000, "{told}");
}

/// Words that our readers compare names with are no names.
#[test]
fn every_word_that_somebody_looks_for_is_fixed() {
    let files = [
        include_str!("../objects.rs"),
        include_str!("../columns.rs"),
        include_str!("../columns/changes.rs"),
        include_str!("../columns/conditions.rs"),
        include_str!("../columns/names.rs"),
        include_str!("../columns/queries.rs"),
        include_str!("../columns/results.rs"),
        include_str!("../columns/scope.rs"),
        include_str!("../columns/sources.rs"),
        include_str!("../values.rs"),
        include_str!("../fallback.rs"),
        include_str!("../interpreter.rs"),
    ];
    // Kinds of objects, options of EXPLAIN and COPY: of no command that has a shape.
    let apart = ["unnest", "on", "true", "analyze"];
    let mut seen = 0;
    for piece in files.iter().flat_map(|file| file.split('"')) {
        let word = !piece.is_empty() && piece.bytes().all(|b| b.is_ascii_alphabetic() || b == b'_');
        let capitals = piece.bytes().all(|b| !b.is_ascii_lowercase());
        if word && (capitals || !piece.contains(|c: char| c.is_ascii_uppercase())) && !apart.contains(&piece)
        {
            assert!(is_fixed(piece), "{piece}");
            seen += 1;
        }
    }
    assert!(seen > 80, "{seen}");
}

#[test]
fn texts_with_names_that_are_not_plain_have_no_shape() {
    let has = |sql: &str| {
        let tokens = lex(sql);
        shape(Phrase { sql, tokens: &tokens }).is_some()
    };
    assert!(has("SELECT a FROM t WHERE b = 'x'"));
    let many: String = (0..65).map(|n| format!(", c{n}")).collect();
    for sql in [
        "SELECT ü FROM t",
        "SELECT a$b FROM t",
        "SELECT _utf8 FROM t",
        "SELECT \"a\"\"b\" FROM t",
        "SELECT \"a.b\" FROM t",
        "SELECT U&\"a\" FROM t",
        "SELECT a FROM t WHERE b = 'open",
        "SELECT 1 UNION TABLE Foo",
        "CREATE TABLE a (b int)",
        "EXPLAIN SELECT a FROM t",
        &format!("SELECT 1 {many}"),
    ] {
        assert!(!has(sql), "{sql}");
    }
}

/// Names that are no keyword, one that is, and one that is a function's.
const NAMES: [&str; 10] = [
    "ka", "kb", "Kc", "\"ka\"", "\"Kd\"", "ke", "name", "count", "ks", "kz9",
];

struct Maker {
    seed: u64,
    depth: usize,
}

impl Maker {
    fn next(&mut self, below: usize) -> usize {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.seed >> 33) as usize % below
    }

    fn name(&mut self) -> String {
        NAMES[self.next(NAMES.len())].to_owned()
    }

    fn list(&mut self, most: usize, part: fn(&mut Self) -> String) -> String {
        let count = 1 + self.next(most);
        (0..count).map(|_| part(self)).collect::<Vec<_>>().join(", ")
    }

    fn column(&mut self) -> String {
        match self.next(4) {
            0 => format!("{}.{}", self.name(), self.name()),
            _ => self.name(),
        }
    }

    fn value(&mut self) -> String {
        ["1", "'x'", "$1", "NULL", "-2", "'2001-01-01'::date", "$2::kt"][self.next(7)].to_owned()
    }

    fn expr(&mut self) -> String {
        match self.next(9) {
            0 => self.value(),
            1 => format!("{}({})", self.name(), self.column()),
            2 => format!("lower({})", self.column()),
            3 if self.depth < 2 => format!("({})", self.query()),
            4 => format!("{} + {}", self.column(), self.value()),
            5 => format!(
                "CASE WHEN {} THEN {} ELSE {} END",
                self.condition(),
                self.column(),
                self.value()
            ),
            6 => format!("{}.{}.{}", self.name(), self.name(), self.name()),
            _ => self.column(),
        }
    }

    fn condition(&mut self) -> String {
        match self.next(8) {
            0 => format!("{} IN ({})", self.column(), self.list(3, Self::value)),
            1 => format!("{} = ANY ($1)", self.column()),
            2 if self.depth < 2 => format!("EXISTS ({})", self.query()),
            3 if self.depth < 2 => format!("{} IN ({})", self.column(), self.query()),
            4 => format!(
                "({} = {} OR {} IS NULL)",
                self.column(),
                self.value(),
                self.column()
            ),
            5 => format!(
                "{} = {} AND {} > {}",
                self.column(),
                self.value(),
                self.column(),
                self.expr()
            ),
            _ => format!("{} = {}", self.column(), self.value()),
        }
    }

    fn table(&mut self) -> String {
        let named = match self.next(6) {
            0 => format!("{}.{}", self.name(), self.name()),
            1 if self.depth < 2 => return format!("({}) {}", self.query(), self.name()),
            2 => return format!("{}({}) {}", self.name(), self.value(), self.name()),
            _ => self.name(),
        };
        match self.next(3) {
            0 => format!("{named} AS {}", self.name()),
            1 => format!("{named} {} ({}, {})", self.name(), self.name(), self.name()),
            _ => named,
        }
    }

    fn from(&mut self) -> String {
        let mut from = self.table();
        for _ in 0..self.next(3) {
            let right = self.table();
            from += &match self.next(4) {
                0 => format!(", {right}"),
                1 => format!(" JOIN {right} USING ({})", self.name()),
                2 => format!(" LEFT JOIN {right} ON {}", self.condition()),
                _ => format!(" JOIN {right} ON {} = {}", self.column(), self.column()),
            };
        }
        from
    }

    fn item(&mut self) -> String {
        match self.next(6) {
            0 => "*".to_owned(),
            1 => format!("{}.*", self.name()),
            2 => format!("{} AS {}", self.expr(), self.name()),
            _ => self.expr(),
        }
    }

    fn query(&mut self) -> String {
        self.depth += 1;
        let mut query = format!("SELECT {} FROM {}", self.list(4, Self::item), self.from());
        if self.next(3) > 0 {
            query += &format!(" WHERE {}", self.condition());
        }
        match self.next(6) {
            0 => query += &format!(" GROUP BY {}", self.list(2, Self::column)),
            1 => query += &format!(" ORDER BY {} DESC LIMIT 3", self.column()),
            2 if self.depth < 3 => query += &format!(" UNION ALL {}", self.query()),
            _ => {}
        }
        self.depth -= 1;
        query
    }

    fn returning(&mut self) -> String {
        match self.next(2) {
            0 => format!(" RETURNING {}", self.list(3, Self::item)),
            _ => String::new(),
        }
    }

    fn statement(&mut self) -> String {
        match self.next(8) {
            0 => {
                let conflict = match self.next(3) {
                    0 => format!(
                        " ON CONFLICT ({}) DO UPDATE SET {} = excluded.{}",
                        self.name(),
                        self.name(),
                        self.name()
                    ),
                    _ => String::new(),
                };
                let (a, b) = (self.name(), self.name());
                format!(
                    "INSERT INTO {} ({a}, {b}) VALUES ({}, {}), ({}, {}){conflict}{}",
                    self.name(),
                    self.value(),
                    self.expr(),
                    self.value(),
                    self.value(),
                    self.returning()
                )
            }
            1 => format!(
                "UPDATE {} SET {} = {}, {} = {} FROM {} WHERE {}{}",
                self.name(),
                self.name(),
                self.value(),
                self.name(),
                self.expr(),
                self.from(),
                self.condition(),
                self.returning()
            ),
            2 => format!(
                "DELETE FROM {} USING {} WHERE {}{}",
                self.name(),
                self.from(),
                self.condition(),
                self.returning()
            ),
            3 => format!(
                "WITH {} AS ({}), {} ({}) AS ({}) {}",
                self.name(),
                self.query(),
                self.name(),
                self.name(),
                self.query(),
                self.query()
            ),
            4 => format!(
                "MERGE INTO {} {} USING {} ON {} WHEN MATCHED THEN UPDATE SET {} = {} WHEN NOT MATCHED THEN INSERT ({}) VALUES ({})",
                self.name(),
                self.name(),
                self.table(),
                self.condition(),
                self.name(),
                self.expr(),
                self.name(),
                self.value()
            ),
            5 => format!("SELECT {} INTO {} FROM {}", self.item(), self.name(), self.from()),
            _ => self.query(),
        }
    }
}
