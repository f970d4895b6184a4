//! Our reading of statements against that of the server's own grammar (`libpg_query`, PostgreSQL 17).
//!
//! Owns the comparison of fingerprints by pairs: for any two statements, ours are equal if and only if the grammar's are.
//! It reads a JSON array of texts, or SQL, from the files that its arguments name, and prints one JSON object. Separate from
//! everything else, so that no product has this dependency.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use sql_meaning::{Interpreter, split};

/// What both say of one text.
struct Read {
    text: String,
    theirs: u64,
    ours: [u8; 8],
}

fn main() -> Result<()> {
    let mut texts: BTreeSet<String> = BTreeSet::new();
    for path in std::env::args().skip(1) {
        texts.extend(read_file(&path).with_context(|| format!("cannot read {path}"))?);
    }
    ensure!(!texts.is_empty(), "which files?");
    let mut interpreter = Interpreter::new(1);
    let mut parse: BTreeMap<&str, u64> = BTreeMap::new();
    let (mut read, mut normalised, mut otherwise) = (Vec::new(), 0_u64, Vec::new());
    for text in &texts {
        let ours = interpreter.interpret(text.as_bytes());
        let theirs = pg_query::fingerprint(text);
        *parse
            .entry(match (ours.parsed, theirs.is_ok()) {
                (true, true) => "both",
                (false, true) => "grammar_only",
                (true, false) => "ours_only",
                (false, false) => "neither",
            })
            .or_default() += 1;
        let Ok(theirs) = theirs else { continue };
        if let Ok(normal) = pg_query::normalize(text) {
            // With a parameter in each literal's place it is the same statement.
            match interpreter.interpret(normal.as_bytes()).fingerprint == ours.fingerprint {
                true => normalised += 1,
                false => otherwise.push(text.clone()),
            }
        }
        read.push(Read { text: text.clone(), theirs: theirs.value, ours: ours.fingerprint });
    }
    let figures = pairs(&read);
    let mut all = figures;
    let total = read.len() as u64;
    if let Some(all) = all.as_object_mut() {
        all.insert("texts".to_owned(), json!(texts.len()));
        all.insert("read_by_grammar".to_owned(), json!(total));
        all.insert("parse".to_owned(), json!(parse));
        all.insert("normalised_equal".to_owned(), json!(share(normalised, normalised + otherwise.len() as u64)));
        otherwise.truncate(SHOWN);
        all.insert("normalised_otherwise".to_owned(), json!(otherwise));
    }
    println!("{all}");
    Ok(())
}

/// The statements of a file.
fn read_file(path: &str) -> Result<Vec<String>> {
    let bytes = std::fs::read(path)?;
    if !path.ends_with(".sql") {
        return Ok(serde_json::from_slice(&bytes)?);
    }
    let text = String::from_utf8_lossy(&bytes);
    Ok(split(&text).into_iter().map(|range| text[range].to_owned()).collect())
}

/// All pairs of texts.
fn pairs(read: &[Read]) -> serde_json::Value {
    let (mut theirs, mut ours, mut both) = (HashMap::new(), HashMap::new(), HashMap::new());
    for one in read {
        *theirs.entry(one.theirs).or_insert(0_u64) += 1;
        *ours.entry(one.ours).or_insert(0_u64) += 1;
        *both.entry((one.theirs, one.ours)).or_insert(0_u64) += 1;
    }
    let of = |count: u64| count * count.saturating_sub(1) / 2;
    let theirs_equal: u64 = theirs.values().map(|count| of(*count)).sum();
    let ours_equal: u64 = ours.values().map(|count| of(*count)).sum();
    let both_equal: u64 = both.values().map(|count| of(*count)).sum();
    let all = of(read.len() as u64);
    let either = theirs_equal + ours_equal - both_equal;
    json!({
        "pairs": all,
        "pairs_equal": share(all - (either - both_equal), all),
        "pairs_equal_in_one": either,
        "pairs_equal_in_both": share(both_equal, either),
        "only_ours_equal": examples(read, |one| one.ours.to_vec(), |one| one.theirs.to_be_bytes().to_vec()),
        "only_grammar_equal": examples(read, |one| one.theirs.to_be_bytes().to_vec(), |one| one.ours.to_vec()),
    })
}

fn share(part: u64, all: u64) -> f64 {
    if all == 0 { 1.0 } else { part as f64 / all as f64 }
}

/// One pair of each group of texts that are one to the first reading and several to the second, with the number of pairs.
fn examples(read: &[Read], one: impl Fn(&Read) -> Vec<u8>, other: impl Fn(&Read) -> Vec<u8>) -> Vec<serde_json::Value> {
    let mut groups: HashMap<Vec<u8>, BTreeMap<Vec<u8>, Vec<&str>>> = HashMap::new();
    for text in read {
        groups.entry(one(text)).or_default().entry(other(text)).or_default().push(&text.text);
    }
    let mut found = Vec::new();
    for group in groups.values().filter(|group| group.len() > 1) {
        let sizes: Vec<u64> = group.values().map(|texts| texts.len() as u64).collect();
        let (sum, squares) = (sizes.iter().sum::<u64>(), sizes.iter().map(|size| size * size).sum::<u64>());
        let shown: Vec<&str> = group.values().filter_map(|texts| texts.first().copied()).take(2).collect();
        found.push(((sum * sum - squares) / 2, shown));
    }
    found.sort_by_key(|(pairs, _)| std::cmp::Reverse(*pairs));
    found.into_iter().take(SHOWN).map(|(pairs, texts)| json!({ "pairs": pairs, "texts": texts })).collect()
}

/// Examples of a kind.
const SHOWN: usize = 60;
