//! The policy file: TOML, rules of which the first that fits counts, and objects that are sensitive.

use serde::Deserialize;
use sql_meaning::ObjectRef;
use subjects::{Classification, in_one_line};
use toml::Spanned;
use wildmatch::WildMatch;

use crate::rule::{self, Keep, Names, ObjectPattern, Rule};

/// Why a policy cannot be used; one line that says where.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum PolicyError {
    /// No TOML, a key that does not exist, or a value of the wrong form.
    #[error("{0}")]
    Malformed(String),
    /// A rule that cannot be meant.
    #[error("line {line}: {what}")]
    Rule {
        /// Where the rule stands.
        line: usize,
        /// What is wrong with it, and what to do.
        what: String,
    },
    /// More than is looked through for a statement.
    #[error("{found} {of}: {most} are the most")]
    TooMany {
        /// Rules, or patterns.
        of: &'static str,
        /// In the file.
        found: usize,
        /// The cap.
        most: usize,
    },
}

/// Bytes of a policy file at the most: some thousand rules.
pub const MAX_FILE_BYTES: u64 = 1 << 20;

/// Rules at the most: each may be looked at for each new statement.
pub const MAX_RULES: usize = 1_000;

/// Patterns at the most, of all rules and of what is sensitive: they are looked at one by one.
const MAX_PATTERNS: usize = 10_000;

/// What is recorded of which statements.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    pub(crate) rules: Vec<Rule>,
    sensitive: Vec<ObjectPattern>,
    /// Whose objects are, too.
    classified: Classification,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// What becomes of statements on classified objects.
    #[serde(default)]
    classified: Classified,
    #[serde(default)]
    sensitive: Vec<String>,
    #[serde(default)]
    rule: Vec<Spanned<Entry>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Classified {
    /// They are sensitive: each is an event.
    #[default]
    Full,
    /// Rules decide, as of any other; whose records they touched stands in the roll-up.
    Rollup,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    keep: Keep,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    principal: Option<Listed>,
    #[serde(default)]
    role: Option<Listed>,
    #[serde(default)]
    database: Option<Listed>,
    #[serde(default)]
    application: Option<Listed>,
    #[serde(default)]
    class: Option<Listed>,
    #[serde(default)]
    command: Option<Listed>,
    #[serde(default)]
    object: Option<Listed>,
}

/// A pattern, or several of which one has to match.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a text or a list of texts is expected")]
enum Listed {
    One(String),
    Several(Vec<String>),
}

impl Listed {
    fn texts(&self) -> &[String] {
        match self {
            Self::One(text) => std::slice::from_ref(text),
            Self::Several(texts) => texts,
        }
    }
}

impl Policy {
    /// Reads a file's text. `classification` says which objects are sensitive beside those that the file names, unless it says
    /// otherwise.
    ///
    /// # Errors
    ///
    /// What is wrong, and in which line. A file with a mistake is refused as a whole.
    pub fn parse(text: &str, classification: &Classification) -> Result<Self, PolicyError> {
        let file: File =
            toml::from_str(text).map_err(|error| PolicyError::Malformed(in_one_line(&error.to_string())))?;
        let lists = file.rule.iter().flat_map(|entry| lists(entry.as_ref()));
        let patterns = lists.map(|(_, list)| list.texts().len()).sum::<usize>();
        for (of, found, most) in [
            ("rules", file.rule.len(), MAX_RULES),
            ("patterns", patterns + file.sensitive.len(), MAX_PATTERNS),
        ] {
            if found > most {
                return Err(PolicyError::TooMany { of, found, most });
            }
        }
        let mut rules = Vec::with_capacity(file.rule.len());
        for (place, entry) in file.rule.iter().enumerate() {
            let at = text.get(..entry.span().start).unwrap_or_default();
            let line = 1 + at.matches('\n').count();
            let rule = rule(place, entry.as_ref());
            rules.push(rule.map_err(|what| PolicyError::Rule { line, what })?);
        }
        let sensitive = file.sensitive.iter();
        Ok(Self {
            rules,
            sensitive: sensitive.map(|text| ObjectPattern::new(text)).collect(),
            classified: match file.classified {
                Classified::Full => classification.clone(),
                Classified::Rollup => Classification::default(),
            },
        })
    }

    /// How many rules it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether it has none: everything is recorded in full.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The name of a rule, or its place among them, from 1.
    #[must_use]
    pub fn name(&self, rule: u16) -> &str {
        self.rules
            .get(usize::from(rule))
            .map_or("", |rule| rule.name.as_str())
    }

    /// Whether one of these may be an object that is said to be sensitive.
    pub(crate) fn is_sensitive(&self, objects: &[&ObjectRef]) -> bool {
        let is_classified = |object: &&ObjectRef| {
            self.classified
                .may_be_sensitive(object.schema.as_deref(), &object.name)
        };
        rule::any(&self.sensitive, objects) || objects.iter().any(is_classified)
    }
}

fn lists(entry: &Entry) -> impl Iterator<Item = (&'static str, &Listed)> {
    [
        ("principal", &entry.principal),
        ("role", &entry.role),
        ("database", &entry.database),
        ("application", &entry.application),
        ("class", &entry.class),
        ("command", &entry.command),
        ("object", &entry.object),
    ]
    .into_iter()
    .filter_map(|(key, list)| Some((key, list.as_ref()?)))
}

/// Classes that a rule may name, and whether anything of them can be recorded otherwise than in full.
const CLASSES: [(&str, bool); 7] = [
    ("READ", true),
    ("WRITE", true),
    ("MISC", true),
    ("MISC_SET", true),
    ("FUNCTION", false),
    ("ROLE", false),
    ("DDL", false),
];

fn rule(place: usize, entry: &Entry) -> Result<Rule, String> {
    for (key, list) in lists(entry) {
        if list.texts().is_empty() {
            return Err(format!("{key} is empty: no statement would ever fit"));
        }
    }
    let name = entry.name.clone().unwrap_or_else(|| (place + 1).to_string());
    if name.is_empty() || name.len() > MAX_NAME_BYTES || name.chars().any(char::is_control) {
        return Err(format!(
            "name: 1 to {MAX_NAME_BYTES} bytes without control characters are expected"
        ));
    }
    if entry.keep == Keep::Off && entry.application.is_some() {
        let why = "application is what clients call themselves: by it nothing can be left out";
        return Err(why.to_owned());
    }
    for principal in entry.principal.iter().flat_map(Listed::texts) {
        if !principal.starts_with("spiffe://") && !principal.starts_with('*') {
            return Err(format!(
                "principal {principal:?} is not of the form spiffe://…; `*` and `?` may stand for what varies"
            ));
        }
    }
    for class in entry.class.iter().flat_map(Listed::texts) {
        let pattern = WildMatch::new_case_insensitive(class);
        let mut meant = CLASSES
            .iter()
            .filter(|(name, _)| pattern.matches(name))
            .peekable();
        if meant.peek().is_none() {
            let known = CLASSES.map(|(name, _)| name).join(", ");
            return Err(format!("there is no class {class:?}; there are {known}"));
        }
        if entry.keep != Keep::Full && meant.all(|(_, reducible)| !reducible) {
            return Err(format!("statements of class {class} are always recorded in full"));
        }
    }
    let names = |list: &Option<Listed>, new: fn(&str) -> WildMatch| {
        let of = |list: &Listed| Names(list.texts().iter().map(|text| new(text)).collect());
        list.as_ref().map(of)
    };
    let exact = |list| names(list, WildMatch::new);
    let upper = |list| names(list, WildMatch::new_case_insensitive);
    let objects = |list: &Listed| list.texts().iter().map(|text| ObjectPattern::new(text)).collect();
    Ok(Rule {
        name,
        keep: entry.keep,
        principal: exact(&entry.principal),
        role: exact(&entry.role),
        database: exact(&entry.database),
        application: exact(&entry.application),
        class: upper(&entry.class),
        command: upper(&entry.command),
        object: entry.object.as_ref().map(objects),
    })
}

/// It stands in each roll-up.
const MAX_NAME_BYTES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        Policy::parse(text, &Classification::default())
            .expect_err("no policy")
            .to_string()
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_its_line() {
        for (text, told) in [
            ("[[rule]]\nkeep = \"rolup\"\n", "line 2"),
            (
                "[[rule]]\nkeep = \"off\"\nprincipals = \"x\"\n",
                "unknown field `principals`",
            ),
            ("[[rule]]\nrole = \"x\"\n", "missing field `keep`"),
            (
                "[[rule]]\nkeep = \"off\"\nrole = 3\n",
                "a text or a list of texts is expected",
            ),
            (
                "\n\n[[rule]]\nkeep = \"off\"\nclass = \"RAED\"\n",
                "line 3: there is no class \"RAED\"",
            ),
            (
                "[[rule]]\nkeep = \"rollup\"\nclass = [\"READ\", \"ddl\"]\n",
                "class ddl are always recorded in full",
            ),
            (
                "[[rule]]\nkeep = \"off\"\napplication = \"x\"\n",
                "what clients call themselves",
            ),
            (
                "[[rule]]\nkeep = \"off\"\nprincipal = \"shop\"\n",
                "not of the form spiffe://",
            ),
            ("[[rule]]\nkeep = \"off\"\nrole = []\n", "role is empty"),
            ("sensitiv = []\n", "unknown field `sensitiv`"),
            (
                "[[rule]]\nkeep = \"off\"\nname = \"a\\nb\"\n",
                "without control characters",
            ),
        ] {
            let found = refused(text);
            assert!(found.contains(told) && found.lines().count() == 1, "{found}");
        }
        let many = "[[rule]]\nkeep = \"full\"\n".repeat(MAX_RULES + 1);
        assert_eq!(refused(&many), "1001 rules: 1000 are the most");
    }

    #[test]
    fn a_rule_has_a_name() {
        let text = "[[rule]]\nkeep = \"full\"\n[[rule]]\nname = \"bench\"\nkeep = \"rollup\"\nrole = [\"a\", \"b*\"]\n";
        let policy = Policy::parse(text, &Classification::default()).expect("a policy");
        assert_eq!((policy.len(), policy.name(0), policy.name(1)), (2, "1", "bench"));
        assert!(
            Policy::parse("", &Classification::default())
                .expect("a policy")
                .is_empty()
        );
    }
}
