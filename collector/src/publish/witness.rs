//! Asking a witness for its cosignature (<https://c2sp.org/tlog-witness>, `add-checkpoint`).
//!
//! Owns one witness's side of the conversation: what it saw last, and the proof that the log goes on from there.

use std::fmt::Write as _;

use anyhow::{Context, anyhow};
use base64::{Engine, prelude::BASE64_STANDARD};
use evidence::{Checkpoint, MAX_PATH, WitnessKey};
use hyper::{Method, StatusCode};

use super::{Outcome, Outgoing, Problem, http::Server};

/// A witness.
#[derive(Debug)]
pub(super) struct Witness {
    server: Server,
    key: WitnessKey,
    /// Entries under the checkpoint that it cosigned last, as far as is known.
    old: u64,
}

impl Witness {
    pub(super) fn new(url: &str, key: WitnessKey) -> anyhow::Result<Self> {
        Ok(Self {
            server: Server::at(url)?,
            key,
            old: 0,
        })
    }

    pub(super) fn key(&self) -> &WitnessKey {
        &self.key
    }

    /// Asks for a cosignature on a checkpoint; gives its line.
    pub(super) async fn ask(&mut self, out: &Outgoing) -> Outcome<Vec<u8>> {
        // The first question may only tell what it saw last (the specification wants clients to find out so).
        for _ in 0..2 {
            let body = self.request(out).await?;
            let answer = self
                .server
                .send(Method::POST, "/add-checkpoint", &[], body)
                .await?;
            match answer.status {
                StatusCode::OK => {
                    let line = self.own_line(out, &answer.body)?;
                    self.old = out.checkpoint.size;
                    return Ok(line);
                }
                StatusCode::CONFLICT => {
                    let seen = std::str::from_utf8(&answer.body).ok();
                    let seen: Option<u64> = seen.and_then(|text| text.strip_suffix('\n')?.parse().ok());
                    let seen = seen.context("it says that it saw another checkpoint, and not which")?;
                    if seen > out.checkpoint.size {
                        return Err(Problem::Contradiction(format!(
                            "the witness {} saw {seen} entries of this log, which has {}: it was rolled back",
                            self.key.name(),
                            out.checkpoint.size
                        )));
                    }
                    if seen == self.old {
                        return Err(self.another_history(seen));
                    }
                    self.old = seen;
                }
                StatusCode::UNPROCESSABLE_ENTITY => return Err(self.another_history(self.old)),
                status => {
                    let said = String::from_utf8_lossy(&answer.body);
                    let said: String = said.escape_debug().take(200).collect();
                    return Err(anyhow!("it answers {status}: {said}").into());
                }
            }
        }
        Err(anyhow!("it saw another checkpoint meanwhile").into())
    }

    fn another_history(&self, seen: u64) -> Problem {
        Problem::Contradiction(format!(
            "the witness {} saw another history of the first {seen} entries than this log's",
            self.key.name()
        ))
    }

    async fn request(&self, out: &Outgoing) -> anyhow::Result<Vec<u8>> {
        let (evidence, size, old) = (out.evidence.clone(), out.checkpoint.size, self.old);
        let path =
            tokio::task::spawn_blocking(move || crate::log::TreeFiles::new(&evidence, size).consistency(old));
        let path = path.await??;
        anyhow::ensure!(path.len() <= MAX_PATH, "the proof is too long for a witness");
        let mut text = format!("old {old}\n");
        for hash in path {
            writeln!(text, "{}", BASE64_STANDARD.encode(hash))?;
        }
        text.push('\n');
        Ok([text.as_bytes(), &out.note].concat())
    }

    /// The witness's own line among what it answered; others are ignored, as the specification says.
    fn own_line(&self, out: &Outgoing, body: &[u8]) -> anyhow::Result<Vec<u8>> {
        let alone = std::slice::from_ref(&self.key);
        let mut lines = body.split_inclusive(|byte| *byte == b'\n');
        let own = lines.find(|line| {
            let note = [out.note.as_slice(), line].concat();
            Checkpoint::open_cosigned(&note, &out.origin.verifier_key, alone)
                .is_ok_and(|(_, by)| by.len() == 1)
        });
        let own = own.map(<[u8]>::to_vec);
        own.with_context(|| format!("its answer holds no cosignature of {}", self.key.text()))
    }
}
