//! How a session looks for a name that has no schema: `search_path`, its role, and what that may use.
//!
//! Source: the server's catalog/namespace.c (`recomputeNamespacePath`, `RelnameGetRelid`) and `SplitIdentifierString` in
//! utils/adt/varlena.c.

use std::sync::Arc;

use super::names::{Found, Names};

/// What is known of a session's `search_path` when a statement begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Path {
    /// It is not.
    #[default]
    Unknown,
    /// What sessions of its role and database begin with.
    Default,
    /// As the session set it, or the server reported it.
    Set(Arc<str>),
}

/// Where names are looked for, one place after the other.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Sight {
    places: Vec<Place>,
}

#[derive(Debug, PartialEq, Eq)]
enum Place {
    Schema {
        oid: u32,
        /// Whether the role may use it; `None`: nobody knows.
        usable: Option<bool>,
    },
    /// The schema that is called like the role, which is not known.
    OfRole,
}

/// Elements of a path that are followed: a list of the longest names in the bytes that are kept of a value has nine.
const MAX_ELEMENTS: usize = 512;

const CATALOG: &str = "pg_catalog";
const USER: &str = "$user";
/// Its own temporary tables: looked at by themselves, before.
const TEMPORARY: &str = "pg_temp";

impl Sight {
    /// Of a path as the server keeps it. `None`: it is no list of names.
    pub(crate) fn new(names: &Names, path: &str, role: Option<&str>) -> Option<Self> {
        let elements = elements(path)?;
        let mut places = Vec::with_capacity(elements.len() + 1);
        let mut named_catalog = false;
        let place = |schema: u32| Place::Schema {
            oid: schema,
            usable: names.may_use(schema, role),
        };
        for element in &elements {
            let schema = match element.as_str() {
                USER => match role {
                    Some(role) => names.schema(role),
                    None => {
                        places.push(Place::OfRole);
                        None
                    }
                },
                TEMPORARY => None,
                name => names.schema(name),
            };
            named_catalog |= element == CATALOG;
            places.extend(schema.map(place));
        }
        // First, unless the path says where.
        if !named_catalog && let Some(catalog) = names.schema(CATALOG) {
            places.insert(0, place(catalog));
        }
        Some(Self { places })
    }

    /// What a name stands for. `None`: nothing, or nobody knows.
    pub(crate) fn find<'a>(&self, names: &'a Names, name: &str) -> Option<&'a Found> {
        for place in &self.places {
            match place {
                Place::OfRole if names.is_in_a_roles_schema(name) => return None,
                Place::OfRole => {}
                Place::Schema { oid, usable } => match (names.in_schema(*oid, name), usable) {
                    (Some(found), Some(true)) => return Some(found),
                    (Some(_), None) => return None,
                    (Some(_), Some(false)) | (None, _) => {}
                },
            }
        }
        None
    }
}

/// A name as an element of a path.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Longest identifier that the server keeps (`NAMEDATALEN` - 1).
const NAME_BYTES: usize = 63;

/// The names of a list.
fn elements(path: &str) -> Option<Vec<String>> {
    let mut elements = Vec::new();
    let mut rest = path.trim_ascii();
    if rest.is_empty() {
        return Some(elements);
    }
    loop {
        let name;
        if let Some(inside) = rest.strip_prefix('"') {
            let mut end = 0;
            // Doubled inside.
            loop {
                end += inside.get(end..)?.find('"')?;
                if inside.get(end + 1..)?.starts_with('"') {
                    end += 2;
                } else {
                    break;
                }
            }
            name = inside.get(..end)?.replace("\"\"", "\"");
            rest = inside.get(end + 1..)?;
        } else {
            let end = rest
                .find(|c: char| c == ',' || c.is_ascii_whitespace())
                .unwrap_or(rest.len());
            // How other letters are folded hangs on the server's locale.
            name = rest
                .get(..end)
                .filter(|name| !name.is_empty() && name.is_ascii())?
                .to_ascii_lowercase();
            rest = rest.get(end..)?;
        }
        elements.push(name);
        let element = elements.last_mut()?;
        element.truncate(element.floor_char_boundary(NAME_BYTES));
        rest = rest.trim_ascii_start();
        if rest.is_empty() {
            return Some(elements);
        }
        rest = rest.strip_prefix(',')?.trim_ascii_start();
        if rest.is_empty() || elements.len() >= MAX_ELEMENTS {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{elements, quoted};

    #[test]
    fn a_path_is_split_as_the_server_splits_it() {
        for (path, expected) in [
            ("\"$user\", public", Some(vec!["$user", "public"])),
            ("", Some(vec![])),
            ("\"\"", Some(vec![""])),
            (" A ,\"B\"\"c, d\"  , e ", Some(vec!["a", "B\"c, d", "e"])),
            ("a,", None),
            (", a", None),
            ("a b", None),
            ("\"a", None),
            ("Ä", None),
        ] {
            let found = elements(path);
            let found = found
                .as_ref()
                .map(|found| found.iter().map(String::as_str).collect::<Vec<_>>());
            assert_eq!(found, expected, "{path}");
        }
        assert_eq!(elements(&quoted("a\"b, c")), Some(vec!["a\"b, c".to_owned()]));
    }
}
