//! Tables of cases, most of them hostile, and properties over generated statements.

mod classes;
mod fingerprints;
mod objects;
mod properties;
mod texts;
mod work;

use super::*;

fn interpret(sql: &str) -> Arc<Statement> {
    Interpreter::new(1).interpret(sql.as_bytes())
}

/// Objects as `access kind schema.name(columns)`.
fn objects(statement: &Statement) -> String {
    let one = |o: &ObjectRef| {
        let schema = o.schema.as_ref().map(|s| format!("{s}.")).unwrap_or_default();
        let columns = if o.columns.is_empty() {
            String::new()
        } else {
            format!("({})", o.columns.join(","))
        };
        format!("{} {} {schema}{}{columns}", o.access.as_str(), o.kind, o.name)
    };
    statement.objects.iter().map(one).collect::<Vec<_>>().join("; ")
}

/// The statements of `tests/corpus/meaning`, as psql would send them.
fn corpus() -> Vec<String> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/corpus/meaning");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "sql"));
    files.sort();
    let mut found = Vec::new();
    for file in files {
        let (mut text, mut copying) = (String::new(), false);
        for line in std::fs::read_to_string(file).unwrap().lines() {
            if copying {
                copying = line != "\\.";
                continue;
            }
            text.push_str(line);
            if line.ends_with(';') {
                copying = line.contains("FROM STDIN");
                let whole = std::mem::take(&mut text).replace("\\;", ";");
                found.extend(split(&whole).into_iter().map(|range| whole[range].to_owned()));
            } else {
                text.push('\n');
            }
        }
    }
    found
}
