//! The socket of a running agent.
//!
//! Refuses everybody but root and the agent's own user, whatever the modes of files say. Anything that comes is capped in
//! length and time, so that nobody who may ask can hold the agent up.

use std::{
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::mpsc::Sender,
    time::Duration,
};

use anyhow::{Context as _, bail};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
    sync::oneshot,
    time::timeout,
};
use tracing::{error, warn};

use super::{Answer, LINE_BYTES, Order, REASON_CHARS, Request, Who};
use crate::broker::Broker;

/// How long one exchange may take, and how long the main loop may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The socket, open. Its file goes with it.
#[derive(Debug)]
pub struct Control {
    listener: std::os::unix::net::UnixListener,
    path: PathBuf,
}

impl Control {
    /// Opens the socket, with mode 0600 in a folder that is made if it is not there. A file that an earlier agent left is
    /// taken over.
    ///
    /// # Errors
    ///
    /// If another agent listens there, or the place cannot be written.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let advice = || {
            format!(
                "cannot open the control socket {}: give another place in control.socket",
                path.display()
            )
        };
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).with_context(advice)?;
        }
        if let Ok(metadata) = std::fs::symlink_metadata(path) {
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                bail!(
                    "another agent listens at {}: stop it, or give another place in control.socket",
                    path.display()
                );
            }
            // Of what is not a socket nothing is known: binding will say what is wrong with it.
            if metadata.file_type().is_socket() {
                std::fs::remove_file(path).with_context(advice)?;
            }
        }
        // The agent's mask makes it 0600 from the first moment; this is for whoever calls with another mask.
        let listener = std::os::unix::net::UnixListener::bind(path).with_context(advice)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).with_context(advice)?;
        Ok(Self {
            listener,
            path: path.to_owned(),
        })
    }

    /// Answers until it is dropped. What is asked is handed to the main loop; who asks, the broker knows.
    pub async fn serve(self, orders: Sender<Order>, broker: Broker) {
        let listener = self
            .listener
            .set_nonblocking(true)
            .and_then(|()| tokio::net::UnixListener::from_std(self.listener.try_clone()?));
        let listener = match listener {
            Ok(listener) => listener,
            Err(problem) => return error!("the control socket cannot be served: {problem}"),
        };
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let (orders, broker) = (orders.clone(), broker.clone());
                    tokio::spawn(async move {
                        // Whoever hangs up or is too slow hears nothing more.
                        let _ = timeout(2 * PATIENCE, exchange(stream, orders, broker)).await;
                    });
                }
                Err(problem) => {
                    warn!("the control socket: {problem}");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // Left behind it is taken over by the next run.
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn exchange(mut stream: UnixStream, orders: Sender<Order>, broker: Broker) -> std::io::Result<()> {
    let peer = stream.peer_cred()?;
    let own = nix::unistd::geteuid().as_raw();
    let answer = if peer.uid() == 0 || peer.uid() == own {
        let (reader, _) = stream.split();
        let mut line = Vec::new();
        BufReader::new(reader.take(LINE_BYTES as u64))
            .read_until(b'\n', &mut line)
            .await?;
        match request(&line) {
            Ok(request) => {
                let (pid, uid) = (peer.pid(), peer.uid());
                let login = tokio::task::spawn_blocking(move || login(pid, uid, &broker));
                let who = Who {
                    uid,
                    login: login.await.unwrap_or_else(|_| uid.to_string()),
                };
                ordered(request, who, &orders).await
            }
            Err(problem) => Answer::Error(problem),
        }
    } else {
        Answer::Error(format!(
            "user {} may not control this agent: only root and user {own} may",
            peer.uid()
        ))
    };
    let mut line = serde_json::to_vec(&answer)?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    stream.shutdown().await
}

fn request(line: &[u8]) -> Result<Request, String> {
    if line.len() >= LINE_BYTES {
        return Err(format!("a request is one line of less than {LINE_BYTES} bytes"));
    }
    let mut request: Request = serde_json::from_slice(line)
        .map_err(|problem| format!("not a request of this version of the agent: {problem}"))?;
    if let Request::Pause { reason } | Request::Resume { reason } = &mut request {
        *reason = reason.chars().take(REASON_CHARS).collect();
    }
    Ok(request)
}

async fn ordered(request: Request, who: Who, orders: &Sender<Order>) -> Answer {
    let (answer, answered) = oneshot::channel();
    let order = Order { request, who, answer };
    if orders.send(order).is_err() {
        return Answer::Error("the agent is stopping".to_owned());
    }
    match timeout(PATIENCE, answered).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => Answer::Error("the agent is stopping".to_owned()),
        Err(_) => Answer::Error(format!(
            "the agent's main loop has not answered for {} s",
            PATIENCE.as_secs()
        )),
    }
}

/// Who logged in, also behind sudo and su; where no login is known, whose process it is.
fn login(pid: Option<i32>, uid: u32, broker: &Broker) -> String {
    let audit = pid
        .and_then(|pid| u32::try_from(pid).ok())
        .and_then(|pid| broker.login(pid));
    let uid = audit.unwrap_or(uid);
    match broker.user(uid) {
        Ok(Some(name)) => name,
        _ => uid.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        os::unix::net,
    };

    use super::*;

    fn ask(path: &Path, line: &str) -> Answer {
        let mut stream = net::UnixStream::connect(path).expect("it listens");
        stream.write_all(line.as_bytes()).expect("written");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answered");
        serde_json::from_str(&answer).expect("an answer")
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn requests_are_handed_on_and_nonsense_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("run/control.sock");
        let control = Control::open(&path).expect("opened");
        assert_eq!(
            std::fs::metadata(&path).expect("there").permissions().mode() & 0o777,
            0o600
        );
        assert!(
            Control::open(&path).is_err_and(|error| error.to_string().contains("another agent listens")),
            "in use"
        );
        let (orders, received) = std::sync::mpsc::channel::<Order>();
        tokio::spawn(control.serve(orders, crate::broker::in_a_thread()));
        let main_loop = std::thread::spawn(move || {
            let order = received.recv().expect("an order");
            let _ = order.answer.send(Answer::Paused(super::super::Paused {
                uid: order.who.uid,
                ..Default::default()
            }));
            (order.request, order.who)
        });
        let long = "x".repeat(600);
        let line = format!("{{\"command\":\"pause\",\"reason\":\"{long}\"}}\n");
        let asked = path.clone();
        let answer = tokio::task::spawn_blocking(move || ask(&asked, &line))
            .await
            .expect("asked");
        let (request, who) = main_loop.join().expect("ended");
        let own = nix::unistd::geteuid().as_raw();
        assert!(matches!(answer, Answer::Paused(paused) if paused.uid == own));
        assert!(matches!(request, Request::Pause { reason } if reason.len() == REASON_CHARS));
        assert!(who.uid == own && !who.login.is_empty());

        assert!(super::request(&[b'x'; LINE_BYTES]).is_err_and(|error| error.contains("less than 4096")));
        for (line, expected) in [
            ("nonsense\n", "not a request"),
            ("{\"command\":\"stop\"}\n", "unknown variant"),
            ("{\"command\":\"pause\",\"why\":1}\n", "unknown field"),
            // The main loop is gone.
            ("{\"command\":\"status\"}\n", "stopping"),
        ] {
            let (asked, line) = (path.clone(), line.to_owned());
            let answer = tokio::task::spawn_blocking(move || ask(&asked, &line))
                .await
                .expect("asked");
            assert!(
                matches!(&answer, Answer::Error(error) if error.contains(expected)),
                "{answer:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_socket_left_behind_is_taken_over_and_another_file_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("control.sock");
        drop(net::UnixListener::bind(&path).expect("bound"));
        assert!(path.exists());
        let control = Control::open(&path).expect("taken over");
        drop(control);
        assert!(!path.exists());
        std::fs::write(&path, b"precious").expect("written");
        assert!(Control::open(&path).is_err());
        assert_eq!(std::fs::read(&path).expect("still there"), b"precious");
    }
}
