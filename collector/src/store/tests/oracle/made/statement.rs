//! Made-up statements: what they name, how they ended, and whose records they say that they touched.

use super::*;

const OBJECTS: [(&str, &str); 5] = [
    ("public", "customers"),
    ("", "customers"),
    ("public", "orders"),
    ("", "public"),
    ("sales", "customers"),
];

pub(super) fn query(random: &mut StdRng) -> v1::Query {
    let class = one_of(
        random,
        &[
            v1::Class::Read,
            v1::Class::Read,
            v1::Class::Write,
            v1::Class::Function,
            v1::Class::Ddl,
            v1::Class::Unknown,
        ],
    );
    let objects: Vec<v1::Object> = (0..random.gen_range(0..4)).map(|_| object(random)).collect();
    let outcome = one_of(
        random,
        &[
            v1::Outcome::Ok,
            v1::Outcome::Ok,
            v1::Outcome::Ok,
            v1::Outcome::Error,
            v1::Outcome::Canceled,
        ],
    );
    let meaning = v1::Meaning {
        class: class.into(),
        command: one_of(random, &["", "SELECT", "UPDATE", "DO"]).to_owned(),
        parsed: random.gen_ratio(5, 6),
        objects,
        ..Default::default()
    };
    let result = v1::Result {
        outcome: outcome.into(),
        phase: one_of(
            random,
            &[v1::Phase::Complete, v1::Phase::Execute, v1::Phase::Parse],
        )
        .into(),
        rows: random.gen_ratio(4, 5).then(|| random.gen_range(0..100)),
        rows_affected: random.gen_ratio(1, 3).then(|| random.gen_range(0..100)),
        ..Default::default()
    };
    v1::Query {
        protocol: one_of(
            random,
            &[
                v1::Protocol::Simple,
                v1::Protocol::Simple,
                v1::Protocol::Extended,
                v1::Protocol::FunctionCall,
            ],
        )
        .into(),
        statement: Some(v1::Statement {
            text: one_of(random, &["SELECT ?", "UPDATE customers SET x = ?"]).to_owned(),
            text_known: random.gen_ratio(9, 10),
            ..Default::default()
        }),
        meaning: random.gen_ratio(9, 10).then_some(meaning),
        result: random.gen_ratio(9, 10).then_some(result),
        transaction: random.gen_ratio(1, 5).then(|| v1::Transaction {
            r#final: v1::Final::RolledBack.into(),
            seq: 1,
            ..Default::default()
        }),
        subjects: (0..random.gen_range(0..3)).map(|_| subject(random)).collect(),
        ..Default::default()
    }
}

fn object(random: &mut StdRng) -> v1::Object {
    let (schema, name) = one_of(random, &OBJECTS);
    let columns = |random: &mut StdRng| -> Vec<String> {
        let count = random.gen_range(0..3);
        (0..count)
            .map(|_| one_of(random, &["id", "email", "a.b"]).to_owned())
            .collect()
    };
    v1::Object {
        schema: schema.to_owned(),
        name: name.to_owned(),
        access: one_of(
            random,
            &[
                v1::Access::Read,
                v1::Access::Read,
                v1::Access::Write,
                v1::Access::Ddl,
                v1::Access::Unknown,
            ],
        )
        .into(),
        columns: columns(random),
        filtered: columns(random),
        columns_exact: random.gen_bool(0.7),
        ..Default::default()
    }
}

/// What a statement told of one column: values, a filter of many, or that it does not know.
fn subject(random: &mut StdRng) -> v1::Subject {
    let key = one_of(random, &["old", "new", "new"]);
    let from = random.gen_range(0..10);
    let tokens: Vec<::subjects::Token> = match random.gen_range(0..4) {
        0 => Vec::new(),
        1 => (from..from + 800)
            .map(|value| subjects::token(key, value))
            .collect(),
        _ => (from..from + random.gen_range(1..3))
            .map(|value| subjects::token(key, value))
            .collect(),
    };
    let many = tokens.len() > 10;
    let (family, key) = if tokens.is_empty() {
        ("", "")
    } else {
        ("integer", key)
    };
    let mut listed: Vec<Vec<u8>> = tokens
        .iter()
        .filter(|_| !many)
        .map(|token| token.0.to_vec())
        .collect();
    listed.sort();
    v1::Subject {
        object: one_of(random, &["public.customers", "public.customers", "public.orders"]).to_owned(),
        column: one_of(random, &["id", "id", "email"]).to_owned(),
        family: family.to_owned(),
        key: key.to_owned(),
        filter_values: if many { tokens.len() as u64 } else { 0 },
        filter: if many {
            ::subjects::Filter::of(tokens.into_iter()).as_bytes().to_vec()
        } else {
            Vec::new()
        },
        tokens: listed,
        complete: random.gen_ratio(4, 5),
        sources: one_of(
            random,
            &[vec!["predicate"], vec!["predicate", "returned"], vec!["written"]],
        )
        .into_iter()
        .map(str::to_owned)
        .collect(),
    }
}
