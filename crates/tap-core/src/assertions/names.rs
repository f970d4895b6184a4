//! Which settings of a session, and which keys in comments, say something about who is behind it. Only these are ever
//! kept: anything else a client says may be a secret.

use std::sync::Arc;

/// The key under which an event names the person.
pub const END_USER: &str = "end_user";

/// One thing that clients say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Name of the setting (`app.end_user`, `application_name`), or key in the comment.
    pub name: String,
    /// The value is a JSON object, and this member of it counts. For settings only.
    pub member: Option<String>,
    /// Under which key it stands in events: [`END_USER`], `tenant`, `traceparent`, …
    pub says: String,
}

/// What clients may say about themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// Settings, the most trusted first: where several say the same, the first one that is set counts.
    pub settings: Vec<Named>,
    /// Keys in sqlcommenter's comments. What a statement's own comment says comes before any setting.
    pub comments: Vec<Named>,
}

impl Named {
    /// A key in comments, which stands under the same name in events.
    #[must_use]
    pub fn comment(key: &str) -> Self {
        Self {
            name: key.to_owned(),
            member: None,
            says: key.to_owned(),
        }
    }
}

impl Default for Names {
    /// What applications, PostgREST and Hasura use, and the keys of sqlcommenter's specification.
    fn default() -> Self {
        let named = |(name, member, says): &(&str, &str, &str)| Named {
            name: (*name).to_owned(),
            member: (!member.is_empty()).then(|| (*member).to_owned()),
            says: (*says).to_owned(),
        };
        Self {
            settings: SETTINGS.iter().map(named).collect(),
            comments: COMMENTS.iter().map(|key| Named::comment(key)).collect(),
        }
    }
}

const SETTINGS: [(&str, &str, &str); 11] = [
    ("app.end_user", "", END_USER),
    ("app.user_id", "", END_USER),
    ("app.current_user_id", "", END_USER),
    ("app.current_user", "", END_USER),
    // PostgREST, since version 9 and before (its manual, "Transaction-scoped settings").
    ("request.jwt.claims", "sub", END_USER),
    ("request.jwt.claim.sub", "", END_USER),
    // Hasura's session variables.
    ("hasura.user", "x-hasura-user-id", END_USER),
    ("app.tenant", "", "tenant"),
    ("app.tenant_id", "", "tenant"),
    ("app.current_tenant", "", "tenant"),
    ("app.traceparent", "", TRACEPARENT),
];

/// W3C's trace context.
const TRACEPARENT: &str = "traceparent";

const COMMENTS: [&str; 11] = [
    TRACEPARENT,
    "application",
    "service",
    "route",
    "controller",
    "action",
    "framework",
    "db_driver",
    "job",
    "tenant",
    END_USER,
];

/// The names in the form in which they are looked up.
pub(crate) struct Tracked {
    settings: Vec<Setting>,
    comments: Vec<(String, Arc<str>)>,
    /// Place of the setting by which unqualified names are looked for, where that is followed.
    path: Option<usize>,
}

/// A setting that is followed.
pub(crate) struct Setting {
    pub(super) name: Arc<str>,
    pub(super) entries: Vec<Entry>,
}

/// One thing that it says.
pub(super) struct Entry {
    pub(super) says: Arc<str>,
    member: Option<String>,
}

/// Places of the settings that make the effective role: always followed, and never a claim.
pub(super) const SESSION_AUTHORIZATION: usize = 0;
pub(super) const ROLE: usize = 1;
const ROLES: [&str; 2] = ["session_authorization", "role"];

/// Where the server looks for names that have no schema.
const SEARCH_PATH: &str = "search_path";

/// Bytes of a value that is kept: names, mail addresses (254 at most) and distinguished names are shorter.
pub(super) const MAX_VALUE_BYTES: usize = 512;

impl Tracked {
    /// With `path`, it is followed where names are looked for, too.
    pub(crate) fn new(names: &Names, path: bool) -> Self {
        let path = path.then_some(SEARCH_PATH);
        let mut settings: Vec<Setting> = ROLES
            .iter()
            .chain(&path)
            .map(|name| Setting {
                name: Arc::from(*name),
                entries: Vec::new(),
            })
            .collect();
        for named in &names.settings {
            let name = named.name.to_ascii_lowercase();
            if ROLES.contains(&name.as_str()) || path == Some(name.as_str()) {
                continue;
            }
            let entry = Entry {
                says: Arc::from(named.says.as_str()),
                member: named.member.clone(),
            };
            match settings.iter_mut().find(|setting| *setting.name == name) {
                Some(setting) => setting.entries.push(entry),
                None => settings.push(Setting {
                    name: Arc::from(name),
                    entries: vec![entry],
                }),
            }
        }
        let comments = names.comments.iter();
        Self {
            path: path.map(|_| ROLES.len()),
            settings,
            comments: comments
                .map(|named| (named.name.clone(), Arc::from(named.says.as_str())))
                .collect(),
        }
    }

    /// Place of a setting by its name, which the server compares without regard to case.
    pub(super) fn place(&self, name: &str) -> Option<usize> {
        self.settings
            .iter()
            .position(|setting| setting.name.eq_ignore_ascii_case(name))
    }

    /// Place of `search_path`.
    pub(super) fn path(&self) -> Option<usize> {
        self.path
    }

    pub(super) fn settings(&self) -> &[Setting] {
        &self.settings
    }

    /// What a key in a comment says, if it may be kept.
    pub(super) fn comment(&self, key: &str) -> Option<&Arc<str>> {
        let found = self.comments.iter().find(|(name, _)| name == key);
        found.map(|(_, says)| says)
    }
}

impl Setting {
    /// What a value says, one for each entry; of a role, the name.
    pub(super) fn said(&self, value: &str) -> Vec<Option<Arc<str>>> {
        let kept = |text: &str| (!text.is_empty()).then(|| Arc::from(text));
        if self.entries.is_empty() {
            return vec![kept(value)];
        }
        let object = self.entries.iter().any(|entry| entry.member.is_some());
        let object: Option<serde_json::Value> = object.then(|| serde_json::from_str(value).ok()).flatten();
        let said = |entry: &Entry| match &entry.member {
            None => kept(value),
            Some(member) => match object.as_ref()?.get(member)? {
                serde_json::Value::String(text) => kept(text),
                number @ serde_json::Value::Number(_) => kept(&number.to_string()),
                _ => None,
            },
        };
        self.entries.iter().map(said).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_named_is_kept() {
        let tracked = Tracked::new(&Names::default(), false);
        let said = |name: &str, value: &str| {
            let setting = &tracked.settings[tracked.place(name).expect("a default")];
            setting
                .said(value)
                .into_iter()
                .flatten()
                .map(|text| text.to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(said("App.End_User", "bob"), ["bob"]);
        assert_eq!(
            said("request.jwt.claims", r#"{"sub":"u-1","secret":"x"}"#),
            ["u-1"]
        );
        assert_eq!(said("request.jwt.claims", r#"{"sub":17}"#), ["17"]);
        for nothing in ["", "{}", r#"{"sub":{}}"#, "no json", r#"{"sub":""}"#] {
            assert_eq!(said("request.jwt.claims", nothing), [""; 0]);
        }
        assert_eq!(tracked.place("search_path"), None);
        assert_eq!(
            Tracked::new(&Names::default(), true).place("search_path"),
            Some(2)
        );
        assert!(tracked.comment("traceparent").is_some() && tracked.comment("password").is_none());
    }
}
