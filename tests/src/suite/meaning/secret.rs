//! Secrets, and statements with secrets in every place where a value can stand.
//!
//! Owns the templates. Names of roles, objects and prepared statements are no secrets (events tell them), nor is what an
//! application asserts about itself; everything else that a person can put into a statement is.

/// Makes secrets that all begin alike, and finds them again.
#[derive(Debug)]
pub(super) struct Secrets {
    /// xorshift64: reproducible noise.
    state: u64,
    /// What every text begins with.
    text: String,
    /// What every number begins with.
    number: String,
}

impl Secrets {
    pub(super) fn new(seed: u64) -> Self {
        let mut secrets = Self {
            state: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            text: String::new(),
            number: String::new(),
        };
        secrets.text = format!("Zq{:08x}", secrets.next() & 0xffff_ffff);
        secrets.number = format!("7{:07}", secrets.next() % 10_000_000);
        secrets
    }

    /// Letters and digits.
    pub(super) fn text(&mut self) -> String {
        let more = self.next() & 0xffff_ffff;
        format!("{}{more:08x}", self.text)
    }

    /// Sixteen digits.
    pub(super) fn number(&mut self) -> i64 {
        let more = self.next() % 100_000_000;
        format!("{}{more:08}", self.number).parse().unwrap_or_default()
    }

    /// Whether one is in there, as it is, in hexadecimal, or as a binary number.
    pub(super) fn is_in(&self, bytes: &[u8]) -> bool {
        let has = |needle: &[u8]| {
            let mut rest = bytes;
            while let Some(at) = rest.iter().position(|byte| Some(byte) == needle.first()) {
                rest = rest.get(at..).unwrap_or_default();
                if rest.starts_with(needle) {
                    return true;
                }
                rest = rest.get(1..).unwrap_or_default();
            }
            false
        };
        let hex: String = self.text.bytes().map(|byte| format!("{byte:02x}")).collect();
        has(self.text.as_bytes()) || has(self.number.as_bytes()) || has(hex.as_bytes())
    }

    /// A script for psql with about so many statements, and how many; the first one makes the tables.
    pub(super) fn script(&mut self, count: u64, first: bool) -> (String, u64) {
        let mut script = String::new();
        if first {
            script.push_str(TABLES);
        }
        let mut made = 0;
        while made < count {
            for template in TEMPLATES {
                script.push_str(&self.fill(template));
                script.push('\n');
                made += 1;
            }
            script.push_str(&self.fill(COPIES));
            made += 1;
        }
        (script, made)
    }

    /// Replaces `{t}` by texts and `{n}` by numbers, each a new one.
    fn fill(&mut self, template: &str) -> String {
        let mut filled = String::new();
        let mut rest = template;
        while let Some((before, after)) = rest.split_once('{') {
            filled.push_str(before);
            rest = if let Some(behind) = after.strip_prefix("t}") {
                filled.push_str(&self.text());
                behind
            } else if let Some(behind) = after.strip_prefix("n}") {
                filled.push_str(&self.number().to_string());
                behind
            } else {
                // A brace of the statement's own.
                filled.push('{');
                after
            };
        }
        filled + rest
    }

    fn next(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state
    }
}

const TABLES: &str = "CREATE TABLE vault (id serial PRIMARY KEY, note text, code bigint, raw bytea);\n\
    CREATE TABLE once (code bigint PRIMARY KEY, note text CHECK (note <> 'never'));\n\
    CREATE FOREIGN DATA WRAPPER leak_fdw;\nCREATE SERVER leak_srv FOREIGN DATA WRAPPER leak_fdw;\n\
    CREATE ROLE leak_role;\n";

/// Each is one statement. What fails, fails on purpose: errors have values in them.
const TEMPLATES: [&str; 66] = [
    "SELECT id FROM vault WHERE note = '{t}' AND code = {n};",
    "SELECT '{t}', E'{t}\\n\\'{t}', $${t}$$, $tag${t} $$ {t}$tag$, U&'{t}\\0041', N'{t}';",
    "SELECT {n}, -{n}, +{n}.5, {n}e3, .{n}, 1.{n};",
    "SELECT B'01', X'1F', 'it''s {t}', '{t}' '' , '{t}'\n  '{t}';",
    "SELECT * FROM vault WHERE code IN ({n}, {n}, {n}) OR note LIKE '%{t}%' OR note ~ '^{t}$';",
    "SELECT * FROM vault WHERE note BETWEEN '{t}' AND '{t}' LIMIT 1 OFFSET {n};",
    "INSERT INTO vault (note, code, raw) VALUES ('{t}', {n}, '\\x{n}'), ('{t}', {n}, NULL);",
    "INSERT INTO vault (note) SELECT '{t}' || g FROM generate_series(1, 2) g RETURNING note;",
    "INSERT INTO once VALUES (1, '{t}');",
    "INSERT INTO once VALUES ({n}, '{t}') ON CONFLICT (code) DO UPDATE SET note = '{t}';",
    "INSERT INTO once VALUES ({n}, 'never');",
    "UPDATE vault SET note = '{t}', code = {n} WHERE note = '{t}';",
    "DELETE FROM vault WHERE note = '{t}' OR code = {n};",
    "MERGE INTO once o USING (SELECT {n} AS code) s ON o.code = s.code WHEN NOT MATCHED THEN INSERT VALUES (s.code, '{t}');",
    "WITH x AS (SELECT '{t}' AS a) SELECT * FROM x WHERE a <> '{t}';",
    "SELECT CASE WHEN note = '{t}' THEN {n} ELSE '{n}'::bigint END FROM vault LIMIT 1;",
    "SELECT '{t}'::int;",
    "SELECT '{t}'::date;",
    "SELECT '{{t}}'::json;",
    "SELECT '{\"key\": \"{t}\", \"n\": {n}}'::jsonb -> 'key';",
    "SELECT ARRAY['{t}', '{t}'], ROW('{t}', {n}), '{{t},{t}}'::text[];",
    "SELECT xmlparse(document '<a>{t}</b>');",
    "SELECT 1 / 0, '{t}';",
    "SELECT to_char({n}, '{t}');",
    "SELECT 'unfinished {t};\n';",
    "SELEC '{t}', {n};",
    "SELECT '{t}' FROM FROM {n};",
    "SELECT /* {t} */ 1 -- {t}\n;",
    "/* {t} /* {t} */ {n} */ SELECT 1;",
    "SET app.secret = '{t}';",
    "SET app.secret TO '{t}', '{t}', {n};",
    "SET LOCAL app.secret = {n};",
    "SET search_path = '{t}', public;",
    "RESET search_path;",
    "SET TIME ZONE '{t}';",
    "SELECT set_config('app.secret', '{t}', false);",
    "ALTER ROLE leak_role PASSWORD '{t}';",
    "ALTER ROLE leak_role ENCRYPTED PASSWORD E'{t}';",
    "ALTER ROLE leak_role PASSWORD {t};",
    "ALTER ROLE leak_role PASSWORD \"{t}\";",
    "ALTER ROLE leak_role SET app.secret = '{t}';",
    "ALTER SERVER leak_srv OPTIONS (ADD password '{t}', host '{t}');",
    "CREATE USER MAPPING FOR leak_role SERVER leak_srv OPTIONS (user '{t}', password '{t}');",
    "CREATE SUBSCRIPTION leak_sub CONNECTION 'host=127.0.0.1 port=1 password={t}' PUBLICATION p;",
    "SELECT 'postgres://user:{t}@host/db', 'host=h password={t} dbname=d';",
    "DO $body$ BEGIN PERFORM '{t}'; RAISE NOTICE '{t} %', {n}; END $body$;",
    "DO $body$ BEGIN RAISE EXCEPTION '{t}' USING DETAIL = '{t}', HINT = '{n}'; END $body$;",
    "DO $body$ BEGIN EXECUTE 'ALTER ROLE leak_role PASSWORD ''{t}'''; END $body$;",
    "CREATE OR REPLACE FUNCTION leak_f() RETURNS text LANGUAGE sql AS 'SELECT ''{t}''';",
    "CREATE OR REPLACE VIEW leak_v AS SELECT '{t}'::text AS a, {n}::bigint AS b;",
    "COMMENT ON TABLE vault IS '{t}';",
    "ALTER TABLE vault ALTER note SET DEFAULT '{t}';",
    "CREATE INDEX IF NOT EXISTS leak_i ON vault (code) WHERE note <> '{t}';",
    "NOTIFY leak_channel, '{t}';",
    "PREPARE leak_p AS SELECT id FROM vault WHERE note = '{t}' AND code = $1;",
    "EXECUTE leak_p ({n});",
    "EXECUTE leak_p ('{t}');",
    "DEALLOCATE leak_p;",
    "EXPLAIN SELECT * FROM vault WHERE note = '{t}' AND code > {n};",
    "EXPLAIN ANALYZE SELECT * FROM vault WHERE note = '{t}';",
    "PREPARE TRANSACTION '{t}';",
    "SET standard_conforming_strings = off\\; SELECT 'a\\'{t}', '{t}\\\\', \"note\" FROM vault LIMIT 1;",
    "SELECT 'b\\'{t}', 'c', '{t}' FROM vault LIMIT 1;",
    "SET standard_conforming_strings = on\\; SELECT 'd\\', '{t}', '\\', '{t}' FROM vault LIMIT 1;",
    "SELECT 1\\; SELECT '{t}'\\; SELECT {n};",
    "SELECT note, code FROM vault ORDER BY id DESC LIMIT 3;",
];

/// Rows of COPY both ways, right ones and a wrong one.
const COPIES: &str = "COPY vault (note, code) FROM STDIN;\n{t}\t{n}\n{t}\t{n}\n\\.\n\
    COPY vault (note, code) FROM STDIN;\n{t}\t{t}\n\\.\n\
    COPY (SELECT note, code FROM vault ORDER BY id DESC LIMIT 2) TO STDOUT;\n\
    COPY vault (note) FROM PROGRAM 'echo {t}';\n\
    COPY vault (note, code) FROM STDIN (FORMAT csv, NULL '{t}');\n\"{t}\",{n}\n\\.\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_found_again() {
        let mut secrets = Secrets::new(7);
        let (text, number) = (secrets.text(), secrets.number());
        assert!(secrets.is_in(format!("a {text} b").as_bytes()));
        assert!(secrets.is_in(format!("a{number}").as_bytes()));
        let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
        assert!(secrets.is_in(hex.as_bytes()));
        assert!(!secrets.is_in(b"Zq and 7, no secrets"));
        let (script, made) = secrets.script(10, true);
        assert!(
            made >= 10
                && script.contains(&secrets.text)
                && !script.contains("{t}")
                && !script.contains("{n}")
        );
    }
}
