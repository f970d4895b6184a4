//! The socket of a running collector, for what only its operator may do: erase, hold, retain.
//!
//! Owns `<data>/control`, mode 0600 in a folder that is the collector's alone. Refuses everybody but root and the collector's own
//! user, whatever the modes say; HTTP has no such question, because whoever reaches it may ask it. One line of JSON is asked, one is
//! answered.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, anyhow, bail, ensure};
use nix::unistd::{Uid, User};
use proto::v1;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream, unix::UCred},
    time::timeout,
};

use super::{Asker, Custodian};
use crate::{
    place::{self, SocketFile},
    store::{erase::Selected, question::Span, who::Asked},
};

/// What is asked.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Request {
    /// Erase what is meant.
    Erase {
        what: What,
        reason: String,
        dry_run: bool,
    },
    /// Hold what fits.
    Hold(NewHold),
    /// Take a hold back.
    Release { id: String, reason: String },
    /// Which holds are in force.
    Holds,
    /// Remove payloads that are old enough.
    Retain {
        before_ns: u64,
        reason: String,
        dry_run: bool,
    },
    /// By which rules and under which keys an object's values became tokens.
    Made { object: String },
}

/// Which events are meant.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum What {
    Events(Vec<String>),
    Record { asked: Asked, possible: bool },
    Principal(String),
    BeforeNs(i64),
}

/// A hold that is to be put on.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewHold {
    pub(super) object: String,
    pub(super) principal: String,
    pub(super) since_ns: u64,
    pub(super) until_ns: u64,
    pub(super) reason: String,
}

/// A hold in force, as it is told.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct HoldShown {
    pub(super) id: String,
    pub(super) by: String,
    #[serde(flatten)]
    pub(super) hold: NewHold,
}

/// The socket, open. Its file goes with it.
pub(crate) struct Control {
    listener: UnixListener,
    _file: SocketFile,
}

impl Control {
    /// Opens the socket in the data folder, which this collector has locked.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    pub(crate) fn open(data: &Path) -> anyhow::Result<Self> {
        let path = path(data);
        let (listener, file) = place::listen(&path)
            .with_context(|| format!("cannot open the control socket {}", path.display()))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        Ok(Self {
            listener,
            _file: file,
        })
    }

    /// Answers until it is dropped.
    pub(crate) async fn serve(self, custodian: Arc<Custodian>) {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let custodian = Arc::clone(&custodian);
                    tokio::spawn(async move {
                        // Whoever hangs up hears nothing more; what was begun goes on.
                        let _ = exchange(stream, custodian).await;
                    });
                }
                Err(problem) => {
                    tracing::warn!("the control socket: {problem}");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

async fn exchange(mut stream: UnixStream, custodian: Arc<Custodian>) -> anyhow::Result<()> {
    let peer = stream.peer_cred()?;
    let answer = match timeout(PATIENCE, line(&mut stream)).await {
        Ok(Ok(line)) => {
            // In a task of its own, so that whoever hangs up cuts nothing short.
            let answered = tokio::spawn(async move { answer(&custodian, &peer, &line).await });
            answered.await?
        }
        Ok(Err(error)) => Err(error),
        Err(_) => Err(anyhow!("nothing was asked within {} seconds", PATIENCE.as_secs())),
    };
    let answer = answer.unwrap_or_else(|error| json!({ "error": format!("{error:#}") }));
    let mut text = serde_json::to_vec(&answer)?;
    text.push(b'\n');
    stream.write_all(&text).await?;
    Ok(stream.shutdown().await?)
}

async fn answer(custodian: &Arc<Custodian>, peer: &UCred, line: &[u8]) -> anyhow::Result<Value> {
    let own = nix::unistd::geteuid().as_raw();
    ensure!(
        peer.uid() == 0 || peer.uid() == own,
        "user {} may not control this collector: only root and user {own} may",
        peer.uid()
    );
    let request: Request =
        serde_json::from_slice(line).context("not a request of this version of the collector")?;
    let asker = |reason: String| -> anyhow::Result<Asker> {
        ensure!(
            !reason.trim().is_empty(),
            "a reason is needed: it is kept in the record"
        );
        let reason = reason.chars().take(MAX_REASON_CHARS).collect();
        Ok(Asker {
            by: name(peer),
            reason,
        })
    };
    match request {
        Request::Erase {
            what,
            reason,
            dry_run,
        } => {
            let done = custodian
                .erase(what.selected()?, &asker(reason)?, dry_run)
                .await?;
            Ok(json!(done))
        }
        Request::Hold(new) => {
            let asker = asker(new.reason)?;
            let hold = v1::Hold {
                reason: asker.reason,
                by: asker.by,
                object: new.object,
                principal: new.principal,
                since_ns: new.since_ns,
                until_ns: new.until_ns,
                ..v1::Hold::default()
            };
            Ok(json!(custodian.hold(hold).await?))
        }
        Request::Release { id, reason } => {
            custodian.release(&id, &asker(reason)?).await?;
            Ok(json!(id))
        }
        Request::Holds => {
            let holds = custodian.holds().await;
            Ok(json!(holds.into_iter().map(HoldShown::from).collect::<Vec<_>>()))
        }
        Request::Retain {
            before_ns,
            reason,
            dry_run,
        } => Ok(json!(
            custodian.retain(before_ns, &asker(reason)?, dry_run).await?
        )),
        Request::Made { object } => Ok(json!(custodian.store().made_of(&object, Span::default()).await?)),
    }
}

/// Connects. Where a socket is refused, its collector was killed: the next one may be about to start, and is awaited for a while.
async fn connect(path: &Path) -> std::io::Result<UnixStream> {
    let deadline = tokio::time::Instant::now() + START;
    loop {
        match UnixStream::connect(path).await {
            Err(refused)
                if refused.kind() == std::io::ErrorKind::ConnectionRefused
                    && tokio::time::Instant::now() < deadline => {}
            connected => return connected,
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Asks the collector that runs over a data folder.
///
/// # Errors
///
/// When none does, or with what it refuses.
pub(super) async fn ask<T: DeserializeOwned>(data: &Path, request: &Request) -> anyhow::Result<T> {
    let stream = connect(&path(data)).await.with_context(|| {
        format!(
            "no collector that can be asked runs over {}: start it, or name its data folder with --data",
            data.display()
        )
    });
    let mut stream = stream?;
    let mut text = serde_json::to_vec(request)?;
    ensure!(
        text.len() < LINE_BYTES,
        "too many at once: name them in several commands"
    );
    text.push(b'\n');
    stream.write_all(&text).await?;
    let answer = line(&mut stream).await.context("the collector gave no answer")?;
    let answer: Value =
        serde_json::from_slice(&answer).context("the collector's answer is none of this version")?;
    if let Some(error) = answer.get("error").and_then(Value::as_str) {
        bail!("{error}");
    }
    serde_json::from_value(answer).context("the collector's answer is none of this version")
}

/// One line, capped in length.
async fn line(stream: &mut (impl AsyncRead + Unpin)) -> anyhow::Result<Vec<u8>> {
    let mut line = Vec::new();
    let mut reader = BufReader::new(stream.take(LINE_BYTES as u64));
    reader.read_until(b'\n', &mut line).await?;
    ensure!(
        line.ends_with(b"\n"),
        "a line of less than {LINE_BYTES} bytes was expected"
    );
    Ok(line)
}

fn path(data: &Path) -> PathBuf {
    data.join("control")
}

/// The peer's user, and who logged in to become that, where the kernel knows it.
fn name(peer: &UCred) -> String {
    let of = |uid: u32| {
        let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
        user.map_or_else(|| format!("uid {uid}"), |user| user.name)
    };
    let login = peer
        .pid()
        .and_then(|pid| std::fs::read_to_string(format!("/proc/{pid}/loginuid")).ok());
    let login = login.and_then(|login| login.trim().parse::<u32>().ok());
    // The highest number: it was never set.
    match login.filter(|login| *login != peer.uid() && *login != u32::MAX) {
        Some(login) => format!("{}, logged in as {}", of(peer.uid()), of(login)),
        None => of(peer.uid()),
    }
}

impl What {
    fn selected(self) -> anyhow::Result<Selected> {
        Ok(match self {
            Self::Events(ids) => {
                let id = |id: String| {
                    let parts = id.rsplit_once('-');
                    let parts = parts.and_then(|(agent, seq)| Some((agent.to_owned(), seq.parse().ok()?)));
                    parts.with_context(|| {
                        format!("{id:?} is no event's id: it is an agent's id, a dash, and a number")
                    })
                };
                Selected::Ids(ids.into_iter().map(id).collect::<anyhow::Result<_>>()?)
            }
            Self::Record { asked, possible } => Selected::Record { asked, possible },
            Self::Principal(principal) => Selected::Principal(principal),
            Self::BeforeNs(ns) => Selected::Before(ns),
        })
    }
}

impl From<v1::Hold> for HoldShown {
    fn from(hold: v1::Hold) -> Self {
        Self {
            id: hold.id,
            by: hold.by,
            hold: NewHold {
                object: hold.object,
                principal: hold.principal,
                since_ns: hold.since_ns,
                until_ns: hold.until_ns,
                reason: hold.reason,
            },
        }
    }
}

/// How long a question may be in coming.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a collector may take to start, and between two attempts to reach it.
const START: Duration = Duration::from_secs(10);
const AGAIN: Duration = Duration::from_millis(100);

/// After an accept that failed.
const PAUSE: Duration = Duration::from_secs(1);

/// Longest question, and longest answer: ids of some ten thousand events.
const LINE_BYTES: usize = 1 << 20;

/// Longest reason that is kept.
const MAX_REASON_CHARS: usize = 1000;
