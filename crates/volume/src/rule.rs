//! One rule, and whether a statement is what it is about.
//!
//! Names are matched with wildcards, as in the inventory: `*` stands for any text, `?` for one character. What is not known fits
//! neither way: [`Fit::Maybe`].

use sql_meaning::{ObjectRef, Statement};
use tap_core::EffectiveRole;
use wildmatch::WildMatch;

/// What becomes of the statements that a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Keep {
    /// Each is an event of its own.
    Full,
    /// Equal ones of a window are one event.
    Rollup,
    /// They are counted.
    Off,
}

/// Whether something is what a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fit {
    No,
    /// What decides it is not known.
    Maybe,
    Yes,
}

impl From<bool> for Fit {
    fn from(fits: bool) -> Self {
        if fits { Self::Yes } else { Self::No }
    }
}

/// A rule; what it does not name may be anything.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    /// As events name it.
    pub(crate) name: String,
    pub(crate) keep: Keep,
    pub(crate) principal: Option<Names>,
    pub(crate) role: Option<Names>,
    pub(crate) database: Option<Names>,
    pub(crate) application: Option<Names>,
    pub(crate) class: Option<Names>,
    pub(crate) command: Option<Names>,
    pub(crate) object: Option<Vec<ObjectPattern>>,
}

/// Patterns, one of which has to match.
#[derive(Clone, Debug)]
pub(crate) struct Names(pub(crate) Vec<WildMatch>);

impl Names {
    fn fit(&self, name: Option<&str>) -> Fit {
        name.map_or(Fit::Maybe, |name| self.matches(name).into())
    }

    fn matches(&self, name: &str) -> bool {
        self.0.iter().any(|pattern| pattern.matches(name))
    }
}

/// Who sends statements, as far as rules go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sender<'a> {
    pub(crate) principal: &'a str,
    pub(crate) role: Option<&'a str>,
    pub(crate) effective_role: Option<&'a EffectiveRole>,
    pub(crate) database: Option<&'a str>,
    pub(crate) application: Option<&'a str>,
}

impl Rule {
    /// Whether it is about what this one sends.
    pub(crate) fn fits_sender(&self, sender: &Sender<'_>) -> Fit {
        let of = |names: &Option<Names>, name| names.as_ref().map_or(Fit::Yes, |names| names.fit(name));
        let fits = [
            of(&self.principal, Some(sender.principal)),
            self.role.as_ref().map_or(Fit::Yes, |names| role(names, sender)),
            of(&self.database, sender.database),
            of(&self.application, sender.application),
        ];
        fits.into_iter().min().unwrap_or(Fit::Yes)
    }

    /// Whether it is about statements that touch all this.
    pub(crate) fn fits_statement(&self, statement: &Statement, objects: &[&ObjectRef]) -> Fit {
        let of = |names: &Option<Names>, name| names.as_ref().map_or(Fit::Yes, |names| names.fit(Some(name)));
        let object = |patterns: &Vec<ObjectPattern>| match self.keep {
            // One of them suffices to be kept; to be kept no more, all of them have to be meant for sure.
            Keep::Full => any(patterns, objects),
            _ => all(patterns, objects),
        };
        let fits = [
            of(&self.class, statement.class.as_str()),
            of(&self.command, statement.command.as_str()),
            self.object
                .as_ref()
                .map_or(Fit::Yes, |patterns| object(patterns).into()),
        ];
        fits.into_iter().min().unwrap_or(Fit::Yes)
    }
}

/// The role that logged in, and the one whose rights are in effect where that is another: both have to be meant.
fn role(names: &Names, sender: &Sender<'_>) -> Fit {
    let login = names.fit(sender.role);
    match sender.effective_role {
        None => login,
        Some(role) if role.possibly_stale => Fit::Maybe,
        Some(role) => match (login, names.fit(Some(&role.name))) {
            (one, other) if one == other => one,
            _ => Fit::Maybe,
        },
    }
}

/// An object: `name`, in whichever schema, or `schema.name`.
#[derive(Clone, Debug)]
pub(crate) struct ObjectPattern {
    whole: WildMatch,
    schema: Option<WildMatch>,
    name: WildMatch,
}

impl ObjectPattern {
    pub(crate) fn new(text: &str) -> Self {
        let (schema, name) = match text.split_once('.') {
            Some((schema, name)) => (Some(WildMatch::new(schema)), name),
            None => (None, text),
        };
        Self {
            whole: WildMatch::new(text),
            schema,
            name: WildMatch::new(name),
        }
    }

    /// It is meant for sure. An object that the text names without its schema is meant by no pattern that has one.
    fn means(&self, object: &ObjectRef) -> bool {
        let in_schema = match (&self.schema, &object.schema) {
            (None, _) => true,
            (Some(pattern), Some(schema)) => pattern.matches(schema),
            (Some(_), None) => false,
        };
        in_schema && self.name.matches(&object.name)
    }

    /// It may be meant: where the text names no schema, it may be the pattern's.
    pub(crate) fn may_mean(&self, object: &ObjectRef) -> bool {
        let in_schema = match (&self.schema, &object.schema) {
            (Some(pattern), Some(schema)) => pattern.matches(schema),
            _ => true,
        };
        // A name may have a dot in it.
        in_schema && self.name.matches(&object.name) || self.whole.matches(&object.name)
    }
}

/// One of the objects may be meant by one of the patterns.
pub(crate) fn any(patterns: &[ObjectPattern], objects: &[&ObjectRef]) -> bool {
    objects
        .iter()
        .any(|object| patterns.iter().any(|pattern| pattern.may_mean(object)))
}

/// There are objects, and each is meant for sure by one of the patterns.
fn all(patterns: &[ObjectPattern], objects: &[&ObjectRef]) -> bool {
    !objects.is_empty()
        && objects
            .iter()
            .all(|object| patterns.iter().any(|pattern| pattern.means(object)))
}
