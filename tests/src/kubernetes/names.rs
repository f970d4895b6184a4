//! The cluster's name server: the addresses of its services, as the API says them when it is asked, and nothing else.
//!
//! Owns one socket and one thread. It speaks as much of DNS (RFC 1035) as the C library's resolver does: one question in one datagram.

use std::net::{Ipv4Addr, UdpSocket};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};

/// The thread that answers. It ends with the value.
#[derive(Debug)]
pub(super) struct Names {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// How the API is asked.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) kubectl: PathBuf,
    pub(super) configuration: PathBuf,
    /// What kubectl remembers goes there.
    pub(super) home: PathBuf,
}

impl Names {
    /// Starts it at port 53 of this address.
    ///
    /// # Errors
    /// When the port is taken, or not to be had (needs root).
    pub(super) fn start(address: Ipv4Addr, ask: Ask) -> Result<Self> {
        let socket = UdpSocket::bind((address, 53)).context("the name server's port")?;
        socket.set_read_timeout(Some(PAUSE))?;
        let ended = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&ended);
        let thread = thread::spawn(move || {
            let mut datagram = [0; 512];
            while !told.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut datagram) else {
                    continue;
                };
                let question = datagram.get(..length).and_then(Question::read);
                if let Some(question) = question {
                    // Whoever is not answered asks again.
                    drop(socket.send_to(&question.answer(ask.address(&question.name)), from));
                }
            }
        });
        Ok(Self {
            ended,
            thread: Some(thread),
        })
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

impl Ask {
    /// Of `SERVICE.NAMESPACE.svc.cluster.local`.
    fn address(&self, name: &str) -> Option<Ipv4Addr> {
        let (service, namespace) = name.strip_suffix(".svc.cluster.local")?.split_once('.')?;
        let output = Command::new(&self.kubectl)
            .env_clear()
            .env("HOME", &self.home)
            .env("KUBECONFIG", &self.configuration)
            .args(["get", "service", service, "--namespace", namespace])
            .args(["--output", "jsonpath={.spec.clusterIP}"])
            .stdin(Stdio::null())
            .output()
            .ok()?;
        String::from_utf8(output.stdout).ok()?.parse().ok()
    }
}

/// What somebody asks.
struct Question {
    id: [u8; 2],
    /// In lower case, without the dot at its end.
    name: String,
    /// As it came: name, type and class.
    section: Vec<u8>,
    wants_address: bool,
}

impl Question {
    /// `None` if it is not one question.
    fn read(datagram: &[u8]) -> Option<Self> {
        let (header, mut rest) = datagram.split_at_checked(12)?;
        let [first, second, flags, _, 0, 1, ..] = header else {
            return None;
        };
        // An answer is not answered.
        if flags & 0x80 != 0 {
            return None;
        }
        let body = rest;
        let mut labels = Vec::new();
        loop {
            let (length, behind) = rest.split_first()?;
            let (label, behind) = behind.split_at_checked(usize::from(*length))?;
            rest = behind;
            if label.is_empty() {
                break;
            }
            labels.push(std::str::from_utf8(label).ok()?.to_lowercase());
        }
        let (kind, behind) = rest.split_at_checked(4)?;
        Some(Self {
            id: [*first, *second],
            name: labels.join("."),
            section: body.get(..body.len() - behind.len())?.to_vec(),
            wants_address: kind == [0, 1, 0, 1],
        })
    }

    /// The answer: the address if it is asked for, nothing if there is one of another kind only, or that there is no such name.
    fn answer(&self, address: Option<Ipv4Addr>) -> Vec<u8> {
        let told = address.filter(|_| self.wants_address);
        let refused = if address.is_some() { 0 } else { NO_SUCH_NAME };
        let mut answer = self.id.to_vec();
        // An answer with authority, recursion as asked; one question, and the numbers of records.
        answer.extend([
            0x85,
            0x80 | refused,
            0,
            1,
            0,
            u8::from(told.is_some()),
            0,
            0,
            0,
            0,
        ]);
        answer.extend(&self.section);
        if let Some(address) = told {
            // The question's name, an address, of the internet, for a second, four bytes.
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
            answer.extend(address.octets());
        }
        answer
    }
}

const NO_SUCH_NAME: u8 = 3;
/// Between two looks whether it is over.
const PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_answered_as_it_was_asked() {
        let mut asked = vec![7, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        asked.extend(b"\x02Db\x04shop\x00\x00\x01\x00\x01");
        let question = Question::read(&asked).unwrap();
        assert_eq!(question.name, "db.shop");
        let answer = question.answer(Some(Ipv4Addr::new(10, 96, 0, 7)));
        assert_eq!(answer.get(..8).unwrap(), [7, 9, 0x85, 0x80, 0, 1, 0, 1]);
        assert!(answer.ends_with(&[0, 4, 10, 96, 0, 7]));
        assert_eq!(question.answer(None).get(3), Some(&0x83));
        for length in 0..asked.len() {
            assert!(Question::read(asked.get(..length).unwrap()).is_none());
        }
    }
}
