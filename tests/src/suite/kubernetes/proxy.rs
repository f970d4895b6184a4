//! What stands between the collector and the API server: it cuts watches, calls them too old, holds words back, and refuses for a while.
//!
//! Owns a loopback port, a thread for each connection, and `kubectl proxy` behind them, which does the TLS; the token is the
//! collector's own. Only what a real server or network does is done: no word is lost, words on one object stay in order, and
//! a bookmark overtakes nothing. Notes for each object when which word on it was held back. One request a connection, so that
//! nothing has to be known of HTTP but its heads, and of watches that they are lines.

use std::collections::{HashMap, VecDeque};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use rand::Rng as _;
use serde::Serialize;
use serde_json::Value;

use super::words::{Word, Words};
use crate::cluster::free_port;
use crate::kubernetes::Kubernetes;
use crate::process::Process;

/// A proxy that runs.
#[derive(Debug)]
pub(super) struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    /// What speaks to the API server.
    _kubectl: Process,
}

/// What was done.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Done {
    /// Watches that were begun.
    pub(super) watches: u64,
    /// Lists that were asked for.
    pub(super) lists: u64,
    /// Watches that were broken off in the middle of a word.
    pub(super) watches_cut: u64,
    /// Watches that were told that their version is too old, by the proxy.
    pub(super) gone: u64,
    /// The same, by the API server itself.
    pub(super) gone_by_server: u64,
    /// Connections that were turned away, or that the API server did not answer.
    pub(super) refused: u64,
    /// Words that were held back for more than a tenth of a second.
    pub(super) held_back: u64,
    /// Words that were overtaken by a later one.
    pub(super) reordered: u64,
}

/// When words on an object came, and when they were passed on: nanoseconds since the Unix epoch.
pub(super) type Held = HashMap<String, Vec<(i64, i64)>>;

#[derive(Debug, Default)]
struct Shared {
    /// Where `kubectl proxy` listens.
    upstream: u16,
    over: AtomicBool,
    refuses: AtomicBool,
    /// Milliseconds that a word is held back at most.
    longest: AtomicU64,
    /// How often watches were to be cut, and called too old.
    cuts: AtomicU64,
    gones: AtomicU64,
    /// Watches of pods that are open.
    heard: AtomicI64,
    done: Mutex<Done>,
    told: Mutex<Held>,
}

impl Proxy {
    /// Starts it.
    ///
    /// # Errors
    /// When `kubectl proxy` does not come up.
    pub(super) async fn start(cluster: &Kubernetes) -> Result<Self> {
        let upstream = free_port()?;
        let mut command = cluster.kubectl();
        command
            .args(["proxy", "--address=127.0.0.1", &format!("--port={upstream}")])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut kubectl = Process::start("kubectl proxy", &mut command, Signal::SIGKILL)?;
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", upstream)).is_err() {
            if kubectl.ended()?.is_some() || Instant::now() > deadline {
                bail!("kubectl proxy does not listen");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let listener = TcpListener::bind("127.0.0.1:0").context("a port for the proxy")?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared {
            upstream,
            ..Shared::default()
        });
        let of_listener = Arc::clone(&shared);
        std::thread::spawn(move || accept(&listener, &of_listener));
        Ok(Self {
            port,
            shared,
            _kubectl: kubectl,
        })
    }

    /// Where the collector asks.
    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Breaks every watch off, in the middle of a word.
    pub(super) fn cut(&self) {
        self.shared.cuts.fetch_add(1, Ordering::SeqCst);
    }

    /// Tells every watch that its version is too old.
    pub(super) fn say_gone(&self) {
        self.shared.gones.fetch_add(1, Ordering::SeqCst);
    }

    /// Cuts everything, and answers nobody, until it is told otherwise.
    pub(super) fn refuse(&self, refuses: bool) {
        self.shared.refuses.store(refuses, Ordering::SeqCst);
    }

    /// Holds each word back for up to so long from now on.
    pub(super) fn hold(&self, longest: Duration) {
        let millis = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX);
        self.shared.longest.store(millis, Ordering::SeqCst);
    }

    /// Whether the collector hears of pods at the moment.
    pub(super) fn is_heard(&self) -> bool {
        self.shared.heard.load(Ordering::SeqCst) > 0
    }

    pub(super) fn done(&self) -> Done {
        lock(&self.shared.done).clone()
    }

    /// Every object that the collector was told of, and which words on it came late.
    pub(super) fn told(&self) -> Held {
        lock(&self.shared.told).clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
    }
}

/// Nanoseconds since the Unix epoch.
pub(super) fn now_ns() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_nanos()).unwrap_or(i64::MAX)
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    while !shared.over.load(Ordering::SeqCst) {
        match listener.accept() {
            Ok((client, _)) => {
                let shared = Arc::clone(shared);
                std::thread::spawn(move || {
                    // Whoever breaks off has its reasons; what was not answered is asked again.
                    drop(serve(client, &shared));
                });
            }
            Err(_) => std::thread::sleep(TICK),
        }
    }
}

fn serve(mut client: TcpStream, shared: &Shared) -> io::Result<()> {
    client.set_nodelay(true)?;
    client.set_read_timeout(Some(PATIENCE))?;
    let (asked, _) = head(&mut client)?;
    if shared.refuses.load(Ordering::SeqCst) {
        lock(&shared.done).refused += 1;
        return Ok(());
    }
    let target = asked.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut server = TcpStream::connect(("127.0.0.1", shared.upstream))?;
    server.set_read_timeout(Some(PATIENCE))?;
    server.write_all(of_one_request(&asked).as_bytes())?;
    let (answer, mut body) = head(&mut server)?;
    let status = answer.split_once(' ').map_or("", |(_, rest)| rest);
    let status = status.lines().next().unwrap_or_default();
    let is_good = status.starts_with("200");
    if is_good && has(&target, "watch=true") {
        lock(&shared.done).watches += 1;
        let of_pods = i64::from(target.starts_with("/api/v1/pods"));
        shared.heard.fetch_add(of_pods, Ordering::SeqCst);
        let ended = watch(&mut client, &mut server, body, shared);
        shared.heard.fetch_sub(of_pods, Ordering::SeqCst);
        return ended;
    }
    // HTTP/1.0: the answer ends with the connection.
    server.read_to_end(&mut body)?;
    if !is_good {
        lock(&shared.done).refused += 1;
    } else if !target.contains("continue=") {
        lock(&shared.done).lists += 1;
    }
    write!(
        client,
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    )?;
    client.write_all(&body)?;
    shared.note_list(&body);
    Ok(())
}

/// A watch, until it ends or is ended.
fn watch(
    client: &mut TcpStream,
    server: &mut TcpStream,
    mut buffer: Vec<u8>,
    shared: &Shared,
) -> io::Result<()> {
    let [cuts, gones] = [&shared.cuts, &shared.gones].map(|count| count.load(Ordering::SeqCst));
    client.write_all(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n",
    )?;
    server.set_read_timeout(Some(TICK))?;
    let mut words = Words::default();
    let mut passed = Passed::default();
    let mut read = vec![0_u8; 64 << 10];
    loop {
        while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = buffer.drain(..=end).collect();
            match on(&line) {
                Some(uid) => {
                    let now = Instant::now();
                    words.push(&uid, line, now, now + shared.delay());
                }
                None => {
                    passed.pass(client, words.all(), shared)?;
                    lock(&shared.done).gone_by_server += u64::from(is_gone(&line));
                    chunk(client, &line)?;
                }
            }
        }
        passed.pass(client, words.due(Instant::now()), shared)?;
        if shared.over.load(Ordering::SeqCst) {
            return Ok(());
        }
        if shared.refuses.load(Ordering::SeqCst) || shared.cuts.load(Ordering::SeqCst) != cuts {
            passed.pass(client, words.all(), shared)?;
            lock(&shared.done).watches_cut += 1;
            return chunk(client, TORN);
        }
        if shared.gones.load(Ordering::SeqCst) != gones {
            passed.pass(client, words.all(), shared)?;
            lock(&shared.done).gone += 1;
            chunk(client, GONE)?;
            return client.write_all(END);
        }
        match server.read(&mut read) {
            Ok(0) => {
                passed.pass(client, words.all(), shared)?;
                return client.write_all(END);
            }
            Ok(length) => buffer.extend_from_slice(read.get(..length).unwrap_or_default()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => {
                passed.pass(client, words.all(), shared)?;
                return Err(error);
            }
        }
    }
}

/// Which words a watch has passed on.
#[derive(Debug, Default)]
struct Passed {
    newest: Option<u64>,
}

impl Passed {
    fn pass(&mut self, client: &mut TcpStream, words: Vec<Word>, shared: &Shared) -> io::Result<()> {
        for word in words {
            chunk(client, &word.line)?;
            let held = word.came.elapsed();
            let mut done = lock(&shared.done);
            done.reordered += u64::from(self.newest.is_some_and(|newest| word.number < newest));
            done.held_back += u64::from(held > NOTED);
            drop(done);
            self.newest = self.newest.max(Some(word.number));
            shared.note(word.uid, held);
        }
        Ok(())
    }
}

impl Shared {
    /// How long the next word is held back.
    fn delay(&self) -> Duration {
        match self.longest.load(Ordering::SeqCst) {
            0 => Duration::ZERO,
            longest => Duration::from_millis(rand::thread_rng().gen_range(0..longest)),
        }
    }

    /// The collector was told of an object by now.
    fn note(&self, uid: String, held: Duration) {
        let now = now_ns();
        let mut told = lock(&self.told);
        let of_it = told.entry(uid).or_default();
        if held > NOTED {
            let held = i64::try_from(held.as_nanos()).unwrap_or(i64::MAX);
            of_it.push((now.saturating_sub(held), now));
        }
    }

    fn note_list(&self, body: &[u8]) {
        let list: Value = serde_json::from_slice(body).unwrap_or_default();
        let items = list.get("items").and_then(Value::as_array);
        for item in items.into_iter().flatten() {
            if let Some(uid) = item.pointer("/metadata/uid").and_then(Value::as_str) {
                self.note(uid.to_owned(), Duration::ZERO);
            }
        }
    }
}

/// The uid of the object that a word is on; of bookmarks and errors there is none.
fn on(line: &[u8]) -> Option<String> {
    let word: Value = serde_json::from_slice(line).ok()?;
    let kind = word.get("type").and_then(Value::as_str)?;
    let uid = word.pointer("/object/metadata/uid").and_then(Value::as_str)?;
    matches!(kind, "ADDED" | "MODIFIED" | "DELETED").then(|| uid.to_owned())
}

fn is_gone(line: &[u8]) -> bool {
    let word: Value = serde_json::from_slice(line).unwrap_or_default();
    word.pointer("/object/code").and_then(Value::as_u64) == Some(410)
}

/// As HTTP/1.0 has it, so that the answer comes in one piece or as lines; what packs it is not asked for.
fn of_one_request(asked: &str) -> String {
    let mut lines: VecDeque<&str> = asked.lines().filter(|line| !line.is_empty()).collect();
    let first = lines
        .pop_front()
        .unwrap_or_default()
        .replace("HTTP/1.1", "HTTP/1.0");
    let mut text = format!("{first}\r\n");
    for line in lines {
        let name = line.split(':').next().unwrap_or_default().to_ascii_lowercase();
        if !["connection", "accept-encoding"].contains(&name.as_str()) {
            text += &format!("{line}\r\n");
        }
    }
    text + "\r\n"
}

fn has(target: &str, parameter: &str) -> bool {
    target.split(['?', '&']).any(|one| one == parameter)
}

/// Up to the empty line, and what came behind it.
fn head(stream: &mut TcpStream) -> io::Result<(String, Vec<u8>)> {
    let mut bytes: Vec<u8> = Vec::new();
    let mut read = [0_u8; 4096];
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            return Ok((String::from_utf8_lossy(&bytes).into_owned(), rest));
        }
        let length = stream.read(&mut read)?;
        if length == 0 || bytes.len() > LONGEST_HEAD {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        bytes.extend_from_slice(read.get(..length).unwrap_or_default());
    }
}

/// RFC 9112, 7.1
fn chunk(client: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    let mut whole = format!("{:x}\r\n", bytes.len()).into_bytes();
    whole.extend_from_slice(bytes);
    whole.extend_from_slice(b"\r\n");
    client.write_all(&whole)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const END: &[u8] = b"0\r\n\r\n";
const TORN: &[u8] = br#"{"type":"MODIFIED","object":{"kind":"#;
/// As the API server says it (<https://kubernetes.io/docs/reference/using-api/api-concepts/#410-gone-responses>).
const GONE: &[u8] = b"{\"type\":\"ERROR\",\"object\":{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"metadata\":{},\"status\":\"Failure\",\
    \"message\":\"too old resource version\",\"reason\":\"Expired\",\"code\":410}}\n";
/// How often is looked whether a word is due, or a watch is to be cut.
const TICK: Duration = Duration::from_millis(20);
/// What is shorter is no delay.
const NOTED: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(30);
const LONGEST_HEAD: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_asked_as_one() {
        let asked = "GET /api/v1/pods?watch=true HTTP/1.1\r\nhost: 127.0.0.1:1\r\nAccept-Encoding: gzip\r\nauthorization: Bearer x\r\n\r\n";
        assert_eq!(
            of_one_request(asked),
            "GET /api/v1/pods?watch=true HTTP/1.0\r\nhost: 127.0.0.1:1\r\nauthorization: Bearer x\r\n\r\n"
        );
        assert!(has("/api/v1/pods?a=b&watch=true", "watch=true"));
        assert!(!has("/api/v1/pods?allowWatchBookmarks=true", "watch=true"));
    }

    #[test]
    fn words_are_on_objects() {
        assert_eq!(
            on(br#"{"type":"ADDED","object":{"metadata":{"uid":"u"}}}"#).as_deref(),
            Some("u")
        );
        assert_eq!(
            on(br#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"1"}}}"#),
            None
        );
        assert_eq!(on(TORN), None);
        assert!(on(GONE).is_none() && is_gone(GONE));
    }
}
