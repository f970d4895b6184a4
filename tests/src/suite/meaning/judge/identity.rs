//! The objects that a line of pgAudit names, by the identity that the server writes, and what is only a part of another one.

use crate::suite::meaning::audit::Audited;

use super::Named;

/// An object that pgAudit names.
#[derive(Clone, Debug)]
pub(super) struct Said {
    pub(super) schema: Option<String>,
    pub(super) name: String,
    pub(super) kind: String,
    pub(super) access: &'static str,
    /// It is named because another object belongs to it.
    pub(super) owner: bool,
}

impl Said {
    pub(super) fn is(&self, ours: &Named) -> bool {
        let schema = match (&ours.schema, &self.schema) {
            (Some(ours), Some(said)) => {
                ours == said || said.starts_with("pg_temp") && ours.starts_with("pg_temp")
            }
            _ => true,
        };
        ours.name == self.name && ours.access == self.access && schema
    }

    pub(super) fn full(&self) -> String {
        self.schema
            .iter()
            .map(|schema| format!("{schema}."))
            .collect::<String>()
            + &self.name
    }
}

/// Whether the line tells of a part of what the command is about: the index of a key, the sequence of a column, what a
/// CASCADE takes along.
pub(super) fn is_part(line: &Audited) -> bool {
    let Some((verb, about)) = line.command.split_once(' ') else {
        return false;
    };
    if !matches!(verb, "CREATE" | "ALTER" | "DROP") {
        return verb == "DROP" && about == "OWNED";
    }
    let is = |kinds: &[&str]| !kinds.contains(&line.kind.as_str());
    match about {
        "TABLE" | "FOREIGN TABLE" | "TABLE AS" => is(&[
            "TABLE",
            "FOREIGN TABLE",
            "TABLE COLUMN",
            "VIEW",
            "VIEW COLUMN",
            "SEQUENCE",
            "MATERIALIZED VIEW",
            "COMPOSITE TYPE",
        ]),
        "DOMAIN" | "TYPE" => is(&["TYPE", "COMPOSITE TYPE", "DOMAIN"]),
        "ROUTINE" => is(&["FUNCTION", "PROCEDURE", "AGGREGATE"]),
        "VIEW" => is(&["VIEW", "VIEW COLUMN"]),
        "FOREIGN DATA WRAPPER" => is(&["FOREIGN-DATA WRAPPER"]),
        "STATISTICS" => is(&["STATISTICS OBJECT"]),
        "PUBLICATION" => is(&["PUBLICATION", "PUBLICATION RELATION", "PUBLICATION NAMESPACE"]),
        "OWNED" => true,
        about => line.kind != about,
    }
}

/// The objects of an identity (`pg_identify_object`), without those that have no name.
pub(super) fn identity(line: &Audited, access: &'static str) -> Vec<Said> {
    let said = |text: &str, owner: bool| {
        let mut parts = dotted(text);
        let name = parts.pop();
        name.map(|name| Said {
            schema: parts.pop(),
            name,
            kind: line.kind.clone(),
            access,
            owner,
        })
    };
    let plain = line.name.as_str();
    match line.kind.as_str() {
        "CAST" | "TRANSFORM" | "DEFAULT VALUE" | "OPERATOR" | "LARGE OBJECT" => Vec::new(),
        "TRIGGER" | "POLICY" | "RULE" | "TABLE CONSTRAINT" | "DOMAIN CONSTRAINT" => {
            match plain.rsplit_once(" on ") {
                Some((main, owner)) => said(main, false).into_iter().chain(said(owner, true)).collect(),
                None => said(plain, false).into_iter().collect(),
            }
        }
        "TABLE COLUMN"
        | "VIEW COLUMN"
        | "COMPOSITE TYPE COLUMN"
        | "FOREIGN TABLE COLUMN"
        | "MATERIALIZED VIEW COLUMN" => {
            let mut parts = dotted(plain);
            parts.pop();
            let name = parts.pop();
            let schema = parts.pop();
            name.map(|name| Said {
                schema,
                name,
                kind: line.kind.clone(),
                access,
                owner: false,
            })
            .into_iter()
            .collect()
        }
        "USER MAPPING" => plain
            .rsplit_once(" on server ")
            .and_then(|(_, server)| said(server, false))
            .into_iter()
            .collect(),
        "PUBLICATION RELATION" | "PUBLICATION NAMESPACE" => match plain.rsplit_once(" in publication ") {
            Some((relation, publication)) => said(relation, true)
                .into_iter()
                .chain(said(publication, false))
                .collect(),
            None => Vec::new(),
        },
        "OPERATOR CLASS" | "OPERATOR FAMILY" => said(plain.split(" USING ").next().unwrap_or(plain), false)
            .into_iter()
            .collect(),
        _ => said(plain, false).into_iter().collect(),
    }
}

/// The parts of a dotted name up to a bracket, quotes taken off.
pub(super) fn dotted(text: &str) -> Vec<String> {
    let (mut parts, mut part, mut quoted) = (Vec::new(), String::new(), false);
    let mut rest = text.chars().peekable();
    while let Some(next) = rest.next() {
        match next {
            '"' if quoted && rest.peek() == Some(&'"') => {
                rest.next();
                part.push('"');
            }
            '"' => quoted = !quoted,
            '.' if !quoted => parts.push(std::mem::take(&mut part)),
            '(' if !quoted => break,
            other => part.push(other),
        }
    }
    parts.push(part);
    parts
}
