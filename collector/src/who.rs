//! `pgwitness-collector who`: who touched a record, found by the tokens that its value became.
//!
//! Owns the way from a value to its tokens, which never leaves this process, and how the answer is told. The value goes to no
//! log, and no collector: that is asked with tokens. Refuses to say "nobody else" where something is not known.

pub(crate) mod told;

use std::{
    fmt,
    io::Read as _,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
    str::FromStr,
};

use anyhow::{Context as _, bail, ensure};
use jiff::Timestamp;
use subjects::{Family, Keys, canonical_text};

use crate::{
    query::{self, Format},
    since::When,
    source::{Place, Source},
    store::{
        question::Span,
        what::What,
        who::{Asked, Made, OfObject, Sought},
    },
};

/// Tells who touched a record (--key): which programs read, wrote or named it, how sure that is, and what cannot be excluded. Without a
/// key, who touched the object at all.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The object; with a key, as the agents' classification names it.
    #[arg(long, value_name = "SCHEMA.NAME")]
    pub object: String,
    /// The record's value in the identifying column; with -, it is read from standard input. A value that is given here stands in the
    /// shell's history and in the list of processes.
    #[arg(
        long,
        value_name = "VALUE",
        allow_hyphen_values = true,
        requires = "token_key"
    )]
    pub key: Option<Value>,
    /// The identifying column, where the object has several.
    #[arg(long, value_name = "NAME", requires = "key")]
    pub column: Option<String>,
    /// The agents' token keys. They are used here, and not sent to the collector.
    #[arg(long, value_name = "FILE", requires = "key")]
    pub token_key: Option<PathBuf>,
    /// When.
    #[command(flatten)]
    pub when: When,
    /// Whom to ask.
    #[command(flatten)]
    pub place: Place,
    /// Prints JSON: one object, or without a key one for each row.
    #[arg(long)]
    pub json: bool,
}

/// The record that a question is about.
#[derive(Clone, Debug, clap::Args)]
pub struct Record {
    /// The object, as the agents' classification names it.
    #[arg(long, value_name = "SCHEMA.NAME")]
    pub object: String,
    /// The record's value in the identifying column; with -, it is read from standard input. A value that is given here stands in the
    /// shell's history and in the list of processes.
    #[arg(long, value_name = "VALUE", allow_hyphen_values = true)]
    pub key: Value,
    /// The identifying column, where the object has several.
    #[arg(long, value_name = "NAME")]
    pub column: Option<String>,
    /// The agents' token keys. They are used here, and not sent to the collector.
    #[arg(long, value_name = "FILE")]
    pub token_key: PathBuf,
}

impl Record {
    /// The question in tokens; asks `source` how values became such.
    pub(crate) async fn asking(&self, source: &Source, span: Span) -> anyhow::Result<Asking> {
        let keys = read_keys(&self.token_key)?;
        let value = self.key.read()?;
        let of = OfObject {
            object: self.object.clone(),
            span,
        };
        let made = source.answer(&of).await?;
        Asking::new(of.object, self.column.clone(), &made, &keys, &value, span)
    }
}

/// A value that nobody is to see.
#[derive(Clone)]
pub struct Value(String);

impl FromStr for Value {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Value(…)")
    }
}

/// Asks and prints.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let span = args.when.span(Timestamp::now())?;
    let (Some(key), Some(token_key)) = (args.key, args.token_key) else {
        let question = What {
            object: Some(args.object),
            span,
            ..What::default()
        };
        let page = args.place.open().await?.answer(&question).await?;
        return query::show(&page, if args.json { Format::Json } else { Format::Table });
    };
    let record = Record {
        object: args.object,
        key,
        column: args.column,
        token_key,
    };
    let source = args.place.open().await?;
    let asking = record.asking(&source, span).await?;
    let answer = source.answer(&asking.asked).await?;
    told::show(&asking, &answer, args.json)
}

impl Value {
    pub(crate) fn read(&self) -> anyhow::Result<String> {
        if self.0 != "-" {
            return Ok(self.0.clone());
        }
        let mut text = String::new();
        let mut input = std::io::stdin().take(MAX_VALUE_BYTES);
        input
            .read_to_string(&mut text)
            .map_err(|_| anyhow::anyhow!("what came on standard input is no UTF-8"))?;
        let line = text.strip_suffix('\n').unwrap_or(&text);
        ensure!(
            !line.is_empty(),
            "nothing came on standard input: --key - reads the value there"
        );
        Ok(line.to_owned())
    }
}

/// The keys of a file that not everybody can read: with one, whoever has the record finds out values by trying.
pub(crate) fn read_keys(file: &Path) -> anyhow::Result<Keys> {
    let problem = || format!("cannot use the token keys in {}", file.display());
    let mode = std::fs::metadata(file).with_context(problem)?.mode();
    if mode & OTHERS != 0 {
        bail!("{}: everybody can read it; chmod o-rwx it", problem());
    }
    let text = std::fs::read_to_string(file).with_context(problem)?;
    Keys::parse(&text).with_context(problem)
}

/// A question, and what it cannot reach.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
pub struct Asking {
    /// In tokens.
    pub asked: Asked,
    /// Ids of keys that made tokens of the column and are not at hand.
    pub missing_keys: Vec<String>,
    /// Rules by which the column's values became tokens, and by which this one cannot surely be read.
    pub unread: Vec<String>,
}

impl Asking {
    pub(crate) fn new(
        object: String,
        column: Option<String>,
        made: &[Made],
        keys: &Keys,
        value: &str,
        span: Span,
    ) -> anyhow::Result<Self> {
        let column = column_of(&object, column, made)?;
        let mut asking = Self {
            asked: Asked {
                object,
                column,
                tokens: Vec::new(),
                span,
            },
            missing_keys: Vec::new(),
            unread: Vec::new(),
        };
        let of_column = made.iter().filter(|made| made.column == asking.asked.column);
        for (family, id) in of_column.filter_map(|made| made.family.as_ref().zip(made.key.as_ref())) {
            let read = Family::named(family).and_then(|rule| Some((rule, canonical_text(rule, value)?)));
            match (read, keys.iter().find(|key| key.id() == id)) {
                (Some((rule, form)), Some(key)) => asking.asked.tokens.push(Sought {
                    key: id.clone(),
                    family: family.clone(),
                    token: key.token(rule, &form).to_string(),
                }),
                (None, _) => asking.unread.push(family.clone()),
                (Some(_), None) => asking.missing_keys.push(id.clone()),
            }
        }
        for list in [&mut asking.missing_keys, &mut asking.unread] {
            list.sort();
            list.dedup();
        }
        Ok(asking)
    }
}

/// The identifying column that is meant.
fn column_of(object: &str, asked: Option<String>, made: &[Made]) -> anyhow::Result<String> {
    let mut known: Vec<&str> = made.iter().map(|made| made.column.as_str()).collect();
    known.sort_unstable();
    known.dedup();
    match (asked, known.as_slice()) {
        (Some(column), _) => Ok(column),
        (None, [one]) => Ok((*one).to_owned()),
        (None, []) => bail!(
            "no agent told whose records of {object} were touched in that time: is it in the agents' classification, under this name? \
             (with --column, the statements on it are listed all the same)"
        ),
        (None, several) => bail!(
            "{object} has several identifying columns: name one of {} with --column",
            several.join(", ")
        ),
    }
}

/// Longest value: longer ones are no identifiers.
const MAX_VALUE_BYTES: u64 = 64 * 1024;

/// What everybody else may do.
const OTHERS: u32 = 0o007;

/// What the help ends with.
const EXAMPLES: &str = "\
Examples:
  who --object public.customers --since 30d
  who --object public.customers --key - --token-key /etc/pgwitness/token.keys --purpose 'request 93'
  who --object public.customers --key 42 --token-key keys --column id --json";

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: &str = "old 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n\
                        new 101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f\n";

    fn made(column: &str, family: &str, key: &str) -> Made {
        Made {
            column: column.to_owned(),
            family: Some(family.to_owned()),
            key: Some(key.to_owned()),
            values: 1,
        }
    }

    fn asking(made: &[Made], value: &str) -> Asking {
        let keys = Keys::parse(KEYS).expect("keys");
        Asking::new("public.c".to_owned(), None, made, &keys, value, Span::default()).expect("a question")
    }

    #[test]
    fn a_value_is_looked_for_under_each_key_and_by_each_rule_that_was_used() {
        let seen = [
            made("id", "integer", "old"),
            made("id", "integer", "new"),
            made("id", "text", "new"),
        ];
        let asked = asking(&seen, " 042").asked;
        assert_eq!(asked.column, "id");
        let tokens: Vec<&str> = asked.tokens.iter().map(|sought| sought.token.as_str()).collect();
        assert_eq!(tokens.len(), 3);
        assert_eq!(tokens[0], asking(&seen[..1], "42").asked.tokens[0].token);
        assert_ne!(tokens[0], tokens[1]);
    }

    #[test]
    fn what_cannot_be_reached_is_known() {
        let seen = [made("id", "integer", "gone"), made("id", "uuid", "new")];
        let asking = asking(&seen, "42");
        assert_eq!(
            (asking.missing_keys.as_slice(), asking.unread.as_slice()),
            (&["gone".to_owned()][..], &["uuid".to_owned()][..])
        );
        assert!(asking.asked.tokens.is_empty());
    }

    #[test]
    fn the_column_is_named_where_it_is_not_clear() {
        let several = [made("id", "integer", "new"), made("email", "text", "new")];
        let error = column_of("public.c", None, &several).expect_err("two");
        assert!(error.to_string().contains("email, id"), "{error}");
        assert!(column_of("public.c", None, &[]).is_err());
        let named = column_of("public.c", Some("id".to_owned()), &[]);
        assert_eq!(named.expect("as asked"), "id");
    }

    #[test]
    fn a_key_file_for_everybody_is_refused_and_a_value_is_not_shown() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("keys");
        std::fs::write(&file, KEYS).expect("written");
        let allow =
            |mode| std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).expect("set");
        allow(0o644);
        let error = read_keys(&file).expect_err("for everybody");
        assert!(error.to_string().contains("everybody can read it"), "{error}");
        allow(0o640);
        assert_eq!(read_keys(&file).expect("keys").active().id(), "new");
        std::fs::write(&file, "k secret").expect("written");
        let error = format!("{:#}", read_keys(&file).expect_err("no keys"));
        assert!(error.contains("line 1") && !error.contains("secret"), "{error}");
        assert_eq!(format!("{:?}", Value("42".to_owned())), "Value(…)");
    }
}
