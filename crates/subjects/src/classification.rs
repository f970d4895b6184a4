//! The classification file: which columns are sensitive, what becomes of their values, and which of them say whose records
//! they are in.
//!
//! ```toml
//! [[column]]
//! object = "public.customers"
//! column = "id"
//! type = "bigint"
//! subject = true
//! kind = "customer"
//! mode = "token"
//!
//! [[column]]
//! database = "staff"
//! object = "hr.*"
//! column = "*"
//! mode = "drop"
//! ```

use serde::Deserialize;
use toml::Spanned;
use wildmatch::WildMatch;

use crate::family::{Family, type_of_name};

/// Why a classification cannot be used.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ClassificationError {
    /// No TOML, a key that does not exist, or a value of the wrong form; with the line.
    #[error("{0}")]
    Malformed(String),
    /// Something that cannot be followed.
    #[error("line {line}: {what}")]
    Entry {
        /// Counted from 1.
        line: usize,
        /// What is wrong, and what to do.
        what: String,
    },
}

/// What becomes of a column's values in parameters. Texts of statements hold none in any mode but `events.redaction = "clear"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// They are not recorded.
    #[default]
    Redact,
    /// A token stands for each.
    Token,
    /// A token, and the beginning of the value: `j***@***`.
    Mask,
    /// A token, and the value itself.
    Clear,
    /// Not even that there was one: parameters are left out, and so are tokens.
    Drop,
}

/// Which columns are sensitive, and how.
#[derive(Clone, Debug, Default)]
pub struct Classification {
    /// In the order of the file: the first that fits decides.
    rules: Vec<Rule>,
}

/// One entry: some columns, and what becomes of their values.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Only in this database.
    database: Option<String>,
    schema: WildMatch,
    name: WildMatch,
    column: WildMatch,
    /// What becomes of values.
    pub mode: Mode,
    /// What they are of, in the operator's words: `customer`.
    pub kind: Option<String>,
    /// The column's type, where it is told: tokens can be made of its values.
    pub family: Option<Family>,
    /// Which records a value names, if it names any.
    pub subject: Option<SubjectColumn>,
}

/// A column whose values say whose record a row is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubjectColumn {
    /// The only database that it is of; `None`: of any.
    pub database: Option<String>,
    /// The object's schema.
    pub schema: String,
    /// The object's name.
    pub name: String,
    /// The object as events name it: `public.customers`.
    pub object: String,
    /// The column.
    pub column: String,
    /// By which rule its values are brought into one form.
    pub family: Family,
    /// Oid of its type.
    pub type_oid: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    column: Vec<Spanned<Entry>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    #[serde(default)]
    database: Option<Spanned<String>>,
    object: Spanned<String>,
    column: Spanned<String>,
    #[serde(default, rename = "type")]
    of_type: Option<Spanned<String>>,
    #[serde(default)]
    subject: bool,
    #[serde(default)]
    kind: Option<String>,
    #[serde(default)]
    mode: Mode,
}

/// The schema of objects that are named without one.
pub(crate) const PUBLIC: &str = "public";

impl Classification {
    /// Reads a file's text.
    ///
    /// # Errors
    ///
    /// What is wrong, in which line, and what to do. A file with a mistake is refused as a whole: what a half-read one
    /// leaves out would look like access that never was.
    pub fn parse(text: &str) -> Result<Self, ClassificationError> {
        let file: File = toml::from_str(text)
            .map_err(|error| ClassificationError::Malformed(in_one_line(&error.to_string())))?;
        let mut rules: Vec<Rule> = Vec::with_capacity(file.column.len());
        for entry in file.column {
            let at = entry.span().start;
            let rule = entry.into_inner().into_rule(text)?;
            if rule.subject.is_some() && rules.iter().any(|other| other.subject == rule.subject) {
                return Err(refused(
                    text,
                    at,
                    "this column stands there twice; keep one entry".to_owned(),
                ));
            }
            rules.push(rule);
        }
        Ok(Self { rules })
    }

    /// Whether it names nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// All entries, in the order of the file.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// What is said of a column: by the first entry that fits. An object without a schema is taken for one of `public`.
    #[must_use]
    pub fn of(&self, schema: Option<&str>, name: &str, column: &str) -> Option<&Rule> {
        self.of_column(None, schema.unwrap_or(PUBLIC), name, column)
    }

    /// What is said of a column of a database. Where it is not known of which, entries for one database count too: what is
    /// hidden in one is not to be seen because nobody knows.
    #[must_use]
    pub fn of_column(&self, database: Option<&str>, schema: &str, name: &str, column: &str) -> Option<&Rule> {
        let is_there = |rule: &Rule| match (&rule.database, database) {
            (Some(only), Some(database)) => only == database,
            _ => true,
        };
        self.rules
            .iter()
            .find(|rule| is_there(rule) && rule.is_about(schema, name) && rule.column.matches(column))
    }

    /// Whether any column of the object is named, or of one that an unqualified name may stand for.
    #[must_use]
    pub fn may_be_sensitive(&self, schema: Option<&str>, name: &str) -> bool {
        match schema {
            Some(_) => self.is_sensitive(schema, name),
            None => self.rules.iter().any(|rule| rule.name.matches(name)),
        }
    }

    /// The identifying columns of an object.
    pub fn subjects<'a>(
        &'a self,
        schema: Option<&str>,
        name: &str,
    ) -> impl Iterator<Item = &'a SubjectColumn> + use<'a> {
        let (schema, name) = (schema.unwrap_or(PUBLIC).to_owned(), name.to_owned());
        self.all_subjects()
            .filter(move |subject| subject.schema == schema && subject.name == name)
    }

    /// All identifying columns.
    pub fn all_subjects(&self) -> impl Iterator<Item = &SubjectColumn> {
        self.rules.iter().filter_map(|rule| rule.subject.as_ref())
    }

    /// Whether any column of the object is named.
    #[must_use]
    pub fn is_sensitive(&self, schema: Option<&str>, name: &str) -> bool {
        let schema = schema.unwrap_or(PUBLIC);
        self.rules.iter().any(|rule| rule.is_about(schema, name))
    }
}

impl Rule {
    fn is_about(&self, schema: &str, name: &str) -> bool {
        self.schema.matches(schema) && self.name.matches(name)
    }
}

impl Entry {
    fn into_rule(self, text: &str) -> Result<Rule, ClassificationError> {
        let refuse = |at: usize, what: String| Err(refused(text, at, what));
        if let Some(database) = self
            .database
            .as_ref()
            .filter(|database| database.get_ref().is_empty())
        {
            let what = "the database has no name; without this key an entry is for all of them".to_owned();
            return refuse(database.span().start, what);
        }
        let database = self.database.map(Spanned::into_inner);
        let object = self.object.get_ref();
        let Some((schema, name)) = object
            .split_once('.')
            .filter(|(schema, name)| is_name(schema) && is_name(name))
        else {
            let what =
                format!("object {object:?} must be `schema.name`; `*` and `?` may stand for what varies");
            return refuse(self.object.span().start, what);
        };
        let column = self.column.get_ref();
        if !is_name(column) {
            return refuse(
                self.column.span().start,
                "the column has no name; `*` stands for all".to_owned(),
            );
        }
        let type_oid = match &self.of_type {
            None => None,
            Some(named) => match type_of_name(named.get_ref()) {
                Some(oid) => Some(oid),
                None => {
                    let what = format!(
                        "values of type {:?} have no form of which tokens could be made; types are those of PostgreSQL itself: {}",
                        named.get_ref(),
                        Family::ALL.map(Family::name).join(", ")
                    );
                    return refuse(named.span().start, what);
                }
            },
        };
        let is_pattern = [schema, name, column]
            .iter()
            .any(|part| part.contains(['*', '?']));
        let subject = match (self.subject, type_oid.zip(type_oid.and_then(Family::of_type))) {
            (false, _) => None,
            (true, _) if is_pattern => {
                let what = "`subject = true` is for one column of one object: name both in full".to_owned();
                return refuse(self.object.span().start, what);
            }
            (true, _) if self.mode == Mode::Drop => {
                let what = "`subject = true` and `mode = \"drop\"` contradict each other: tokens are what is dropped".to_owned();
                return refuse(self.object.span().start, what);
            }
            // How many of their digits come back in text depends on `extra_float_digits`, which no server reports.
            (true, Some((_, Family::Real | Family::Double))) => {
                let what = "`subject = true` is not for `real` and `double precision`: their text may be rounded, and would name another record".to_owned();
                return refuse(self.object.span().start, what);
            }
            (true, None) => {
                let what = "`subject = true` needs the column's `type`: tokens are made by it".to_owned();
                return refuse(self.object.span().start, what);
            }
            (true, Some((type_oid, family))) => Some(SubjectColumn {
                database: database.clone(),
                schema: schema.to_owned(),
                name: name.to_owned(),
                object: object.clone(),
                column: column.clone(),
                family,
                type_oid,
            }),
        };
        Ok(Rule {
            database,
            schema: WildMatch::new(schema),
            name: WildMatch::new(name),
            column: WildMatch::new(column),
            mode: self.mode,
            kind: self.kind,
            family: type_oid.and_then(Family::of_type),
            subject,
        })
    }
}

fn refused(text: &str, at: usize, what: String) -> ClassificationError {
    let line = 1 + text.get(..at).unwrap_or_default().matches('\n').count();
    ClassificationError::Entry { line, what }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(['.', '\0'])
}

/// A mistake in a TOML file in one line: the parser draws its place over several; the first says where it is, the last what.
#[must_use]
pub fn in_one_line(drawn: &str) -> String {
    let lines: Vec<&str> = drawn
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    match lines.as_slice() {
        [first, .., last] => format!("{first}: {last}"),
        _ => drawn.trim().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
[[column]]
object = "public.customers"
column = "id"
type = "bigint"
subject = true
kind = "customer"
mode = "token"

[[column]]
object = "public.customers"
column = "email"
type = "varchar(200)"
mode = "mask"

[[column]]
object = "hr.*"
column = "*"
mode = "drop"

[[column]]
object = "*.customers"
column = "*"
"#;

    #[test]
    fn the_first_entry_that_fits_decides() {
        let read = Classification::parse(FILE).expect("a classification");
        let mode = |schema, name, column| read.of(schema, name, column).map(|rule| rule.mode);
        assert_eq!(mode(None, "customers", "id"), Some(Mode::Token));
        assert_eq!(mode(Some("public"), "customers", "email"), Some(Mode::Mask));
        assert_eq!(mode(Some("old"), "customers", "email"), Some(Mode::Redact));
        assert_eq!(mode(Some("hr"), "anything", "at_all"), Some(Mode::Drop));
        assert_eq!(mode(None, "orders", "id"), None);
        assert!(read.is_sensitive(None, "customers") && !read.is_sensitive(None, "orders"));
        let subjects: Vec<_> = read.subjects(None, "customers").collect();
        assert_eq!(subjects.len(), 1);
        let subject = subjects[0];
        assert_eq!(
            (
                subject.object.as_str(),
                subject.column.as_str(),
                subject.family,
                subject.type_oid
            ),
            ("public.customers", "id", Family::Integer, 20)
        );
        assert_eq!(read.subjects(Some("old"), "customers").count(), 0);
        assert_eq!(read.rules()[0].kind.as_deref(), Some("customer"));
        assert!(Classification::parse("").expect("nothing").is_empty());
    }

    #[test]
    fn faults_are_told_with_their_line_and_what_to_do() {
        for (text, line, words) in [
            (
                "[[column]]\nobject = \"customers\"\ncolumn = \"id\"",
                "line 2",
                "schema.name",
            ),
            (
                "[[column]]\nobject = \"a.b.c\"\ncolumn = \"id\"",
                "line 2",
                "schema.name",
            ),
            ("[[column]]\nobject = \"a.b\"\ncolumn = \"\"", "line 3", "no name"),
            (
                "[[column]]\nobject = \"a.b\"\ncolumn = \"c\"\nsubject = true",
                "line 2",
                "`type`",
            ),
            (
                "[[column]]\nobject = \"a.*\"\ncolumn = \"c\"\ntype = \"int\"\nsubject = true",
                "line 2",
                "in full",
            ),
            (
                "\n[[column]]\nobject = \"a.b\"\ncolumn = \"c\"\ntype = \"citext\"",
                "line 5",
                "PostgreSQL itself",
            ),
            (
                "[[column]]\nobject = \"a.b\"\ncolumn = \"c\"\ntype = \"int\"\nsubject = true\nmode = \"drop\"",
                "line 2",
                "contradict",
            ),
            (
                "[[column]]\nobject = \"a.b\"\ncolumn = \"c\"\nmode = \"hide\"",
                "line 4",
                "redact",
            ),
            (
                "[[column]]\nobject = \"a.b\"\ncolum = \"c\"",
                "line 3",
                "unknown field",
            ),
            ("[[column]]\nobject = \"a.b\"", "line 1", "column"),
            ("[[table]]\nobject = \"a.b\"", "line 1", "table"),
            ("object", "line 1", ""),
        ] {
            let error = Classification::parse(text).expect_err(text).to_string();
            assert!(error.contains(line) && error.contains(words), "{text}: {error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
        let float = "[[column]]\nobject = \"a.b\"\ncolumn = \"c\"\ntype = \"float8\"\nsubject = true\n";
        let error = Classification::parse(float).expect_err("a float").to_string();
        assert!(error.contains("line 2") && error.contains("rounded"), "{error}");
        let entry = "[[column]]\nobject = \"a.b\"\ncolumn = \"c\"\ntype = \"int\"\nsubject = true\n";
        let error = Classification::parse(&[entry, entry].concat())
            .expect_err("twice")
            .to_string();
        assert!(error.contains("line 6") && error.contains("twice"), "{error}");
    }
}
