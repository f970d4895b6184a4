//! Which functions come with the server: those change no setting of the session but for `set_config`, while nobody who
//! watches the wire can tell what any other one does.
//!
//! The list is that of `pg_proc.dat` of versions 13 to 18 (the names in `postgres.bki`), without what cannot be called
//! by name, and without the few that run a query or a view of the caller's choice (`query_to_xml`, `ts_stat`, …).
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
    use super::is_built_in;

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
    }
}
