//! What a driver program did, as the program itself knows it.
//!
//! Owns the markers in the statements' texts and the lines of the journal. Values come as the text that the server's
//! output function prints.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::io::Write as _;

use anyhow::{Context as _, Result};
use serde_json::json;

/// The journal of one program, for all of its sessions.
pub struct Journal {
    name: &'static str,
    file: RefCell<File>,
    numbers: RefCell<HashMap<(usize, String), usize>>,
}

/// What the client knows of one execution.
#[derive(Default)]
pub struct Claim {
    pub rows: Option<usize>,
    pub affected: Option<u64>,
    pub sqlstate: Option<String>,
    pub copied: Option<usize>,
    pub params: Option<Vec<Option<String>>>,
}

impl Journal {
    /// Opens the journal that the environment names.
    pub fn open(name: &'static str) -> Result<Self> {
        let path = std::env::var("PGW_JOURNAL").context("PGW_JOURNAL")?;
        let file = File::options().create(true).append(true).open(path)?;
        Ok(Self {
            name,
            file: RefCell::new(file),
            numbers: RefCell::default(),
        })
    }

    /// Gives each empty comment in a text its marker. Equal texts keep equal numbers, in every round.
    pub fn mark(&self, text: &str) -> String {
        let mut pieces = text.split("/**/");
        let mut marked = pieces.next().unwrap_or_default().to_owned();
        for (index, piece) in pieces.enumerate() {
            let mut numbers = self.numbers.borrow_mut();
            let next = numbers.len() + 1;
            let number = *numbers.entry((index, text.to_owned())).or_insert(next);
            marked += &format!("/* d={} j={number} */{piece}", self.name);
        }
        marked
    }

    /// One execution of the first marked statement of a text.
    pub fn line(&self, marked: &str, pid: i32, claim: Claim) -> Result<()> {
        let number = marked
            .split_once(" j=")
            .and_then(|(_, rest)| rest.split_once(" */"))
            .and_then(|(number, _)| number.parse::<u64>().ok())
            .with_context(|| format!("no marker: {marked}"))?;
        let mut line = json!({
            "d": self.name, "j": number, "pid": pid, "rows": claim.rows, "affected": claim.affected,
            "sqlstate": claim.sqlstate, "copy_bytes": claim.copied,
        });
        if let Some(params) = claim.params {
            line["params"] = json!(params);
        }
        writeln!(self.file.borrow_mut(), "{line}")?;
        Ok(())
    }
}

/// How often the program repeats its repertoire.
pub fn rounds() -> usize {
    std::env::var("PGW_ROUNDS")
        .ok()
        .and_then(|rounds| rounds.parse().ok())
        .unwrap_or(1)
}

/// Values that are claimed.
pub fn values(texts: &[&str]) -> Option<Vec<Option<String>>> {
    Some(texts.iter().map(|text| Some((*text).to_owned())).collect())
}
