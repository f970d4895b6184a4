//! Which functions come with the server: those change no setting of the session but for `set_config`, while nobody who
//! watches the wire can tell what any other one does.
//!
//! One list is that of `pg_proc.dat` of versions 13 to 18 (the names in `postgres.bki`), without what cannot be called
//! by name, and without the few that run a query or a view of the caller's choice (`query_to_xml`, `ts_stat`, …). The other
//! has the rest of `pg_proc` and the names of types, which are called like functions.
//! Separate because it is data.

use std::collections::HashSet;
use std::sync::LazyLock;

/// Whether a call of this name, as the server folds it, runs nothing but the server's own code.
pub(crate) fn is_built_in(schema: Option<&str>, name: &str) -> bool {
    static NAMES: LazyLock<HashSet<&str>> =
        LazyLock::new(|| include_str!("functions.txt").lines().chain(SYNTAX).collect());
    // Without a schema the server's own come first (manual, "The System Catalog Schema").
    schema.is_none_or(|schema| schema == "pg_catalog") && NAMES.contains(name)
}

/// Whether the name is one of the server's functions or types, whatever it may run, or the grammar's: no object of
/// anybody's. pgAudit does not name these either.
pub(crate) fn is_servers_own(schema: Option<&str>, name: &str) -> bool {
    static NAMES: LazyLock<HashSet<&str>> = LazyLock::new(|| {
        include_str!("uncounted_functions.txt")
            .lines()
            .chain(CALL_LIKE)
            .collect()
    });
    schema == Some("pg_catalog") || is_built_in(schema, name) || (schema.is_none() && NAMES.contains(name))
}

/// All names that [`is_servers_own`] knows.
pub(crate) fn servers_own() -> impl Iterator<Item = &'static str> {
    let lists = [
        include_str!("functions.txt"),
        include_str!("uncounted_functions.txt"),
    ];
    lists
        .into_iter()
        .flat_map(str::lines)
        .chain(SYNTAX)
        .chain(CALL_LIKE)
}

/// More of the grammar that looks like a call to the one or other reader (gram.y, `func_expr_common_subexpr`,
/// `xmltable`, `json_table`, `tablesample_clause`).
const CALL_LIKE: [&str; 40] = [
    "bernoulli",
    "character varying",
    "columns",
    "current_catalog",
    "current_date",
    "current_role",
    "current_schema",
    "current_user",
    "for",
    "interval",
    "merge",
    "national",
    "normalize",
    "overlay",
    "passing",
    "position",
    "precision",
    "repeatable",
    "returning",
    "session_user",
    "substring",
    "system",
    "system_user",
    "treat",
    "user",
    "varying",
    "window",
    "within",
    "xmlattributes",
    "xmlconcat",
    "xmlelement",
    "xmlexists",
    "xmlforest",
    "xmlnamespaces",
    "xmlparse",
    "xmlpi",
    "xmlroot",
    "xmlserialize",
    "xmltable",
    "zone",
];

/// What looks like a call and is grammar (gram.y, `func_expr_common_subexpr`), and types with a length.
const SYNTAX: [&str; 62] = [
    "all",
    "and",
    "any",
    "array",
    "as",
    "between",
    "by",
    "case",
    "cast",
    "character",
    "coalesce",
    "collation",
    "cube",
    "current_time",
    "current_timestamp",
    "dec",
    "decimal",
    "distinct",
    "else",
    "except",
    "exists",
    "extract",
    "filter",
    "from",
    "greatest",
    "group",
    "grouping",
    "having",
    "in",
    "intersect",
    "json",
    "json_array",
    "json_arrayagg",
    "json_exists",
    "json_object",
    "json_objectagg",
    "json_query",
    "json_scalar",
    "json_serialize",
    "json_table",
    "json_value",
    "lateral",
    "least",
    "limit",
    "localtime",
    "localtimestamp",
    "merge_action",
    "nchar",
    "not",
    "nullif",
    "offset",
    "or",
    "over",
    "rollup",
    "row",
    "select",
    "sets",
    "some",
    "then",
    "trim",
    "union",
    "values",
];

#[cfg(test)]
mod tests {
    use super::{is_built_in, is_servers_own};

    #[test]
    fn the_servers_own_are_known_and_others_are_not() {
        for name in [
            "now",
            "count",
            "lower",
            "coalesce",
            "json_build_object",
            "current_setting",
        ] {
            assert!(
                is_built_in(None, name) && is_built_in(Some("pg_catalog"), name),
                "{name}"
            );
            assert!(!is_built_in(Some("app"), name), "{name}");
        }
        for name in ["set_config", "login", "query_to_xml", "dblink"] {
            assert!(!is_built_in(None, name), "{name}");
        }
        for name in [
            "set_config",
            "query_to_xml",
            "float4send",
            "inet",
            "xmlelement",
            "now",
            "current_date",
        ] {
            assert!(is_servers_own(None, name), "{name}");
            assert!(!is_servers_own(Some("app"), name), "{name}");
        }
        assert!(!is_servers_own(None, "login"));
    }
}
