//! What the two processes of the agent say to each other: a small fixed set of questions, and their answers.
//!
//! A question names processes, users and addresses by number. There is none that names a file, so that whoever takes over
//! the process that parses cannot have one opened.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

use crate::{
    capture::plaintext::{Readable, Why},
    config::Config,
    facts::{
        old_sockets::{Held, NotHeld},
        servers,
    },
};

/// Bytes of a question at the most: a few numbers.
pub const QUESTION_BYTES: usize = 512;

/// Bytes of anything that the broker says: a command line or three paths, even if JSON escapes every character of them. It
/// has to fit a socket's buffer (`net.core.wmem_default`, 208 KiB).
pub const ANSWER_BYTES: usize = 128 << 10;

/// Bytes of a command line that are passed on: more than is taken of one that is seen to begin.
pub const COMMAND_LINE: usize = 4096;

/// The first thing that the broker says, with the descriptors of the three rings.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Start {
    /// What is in effect.
    pub config: Config,
    /// Name of the host.
    pub host: String,
    /// How the tap is attached, as in events.
    pub tier: String,
    /// The hooks that it uses.
    pub hooks: Vec<String>,
    /// Whether events are printed.
    pub print: bool,
    /// File for a recording of segments, and its limit in bytes.
    pub recording: Option<(PathBuf, u64)>,
    /// Process id of the broker.
    pub broker: u32,
    /// The capabilities that the broker keeps.
    pub broker_holds: Vec<String>,
    /// Process id of the process that looks at catalogs; a descriptor more comes with this, then.
    pub catalog: Option<u32>,
}

/// A question with a number of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// Ever larger.
    pub number: u64,
    /// What is asked.
    pub request: Request,
}

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Tap all servers that run and are not tapped yet. [`Answer::Server`] for each that is tapped then, or
    /// [`Answer::Problem`].
    Servers,
    /// Mark the processes of tapped servers that are not marked: there was no room for them. Nothing, or
    /// [`Answer::Problem`] if there still is none for all.
    MarkAll,
    /// A process runs a program that is named like a server's: tap it if it is one. [`Answer::Server`], or nothing.
    Server {
        /// The process.
        pid: u32,
    },
    /// Follow all poolers that run and are not followed yet. [`Answer::Pooler`] for each that runs, or [`Answer::Problem`].
    Poolers,
    /// A process runs a program that is named like a pooler's: follow it if it is one. [`Answer::Pooler`], or nothing.
    Pooler {
        /// The process.
        pid: u32,
    },
    /// A server has ended: what only it needed can go. The broker looks for itself.
    Ended {
        /// The process.
        pid: u32,
    },
    /// What the kernel side counted. [`Answer::Counters`].
    Counters,
    /// What a process runs. [`Answer::Executable`], or nothing.
    Executable {
        /// The process.
        pid: u32,
    },
    /// What the program of a process is. [`Answer::Program`], or nothing.
    Program {
        /// The process.
        pid: u32,
    },
    /// What a runtime keeps of a container. [`Answer::Container`], or nothing.
    Container {
        /// Its id, 64 hexadecimal digits.
        id: String,
    },
    /// All about a process. [`Answer::Process`], or nothing.
    Process {
        /// The process.
        pid: u32,
    },
    /// [`Answer::Process`] for each that runs.
    Processes,
    /// The title of a process. [`Answer::Title`], or nothing.
    Title {
        /// The process.
        pid: u32,
    },
    /// [`Answer::Title`] for each process whose parent this is.
    Titles {
        /// The parent.
        pid: u32,
    },
    /// Ports on which somebody listens where this process is. [`Answer::Ports`].
    Ports {
        /// The process.
        pid: u32,
    },
    /// Who holds the client's end of a TCP connection. [`Answer::Holder`].
    Holder {
        /// The process that serves it.
        backend: u32,
        /// The server's end.
        server: SocketAddr,
        /// The client's end.
        client: SocketAddr,
    },
    /// The name of a user. [`Answer::Name`].
    User {
        /// The user.
        uid: u32,
    },
    /// Whose login a process goes back to. [`Answer::Login`].
    Login {
        /// The process.
        pid: u32,
    },
    /// The addresses of this host. [`Answer::Addresses`].
    Addresses,
    /// The addresses of a collector's host, as far as they are known. [`Answer::Addresses`].
    Collector {
        /// Its place in the configuration, from 0.
        nth: usize,
    },
}

/// A part of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// Number of the question.
    pub number: u64,
    /// Whether no more parts follow.
    pub last: bool,
    /// The part.
    pub answer: Answer,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Nothing, or nothing more.
    Nothing,
    /// It could not be done, and why.
    Problem(String),
    /// A server that is tapped.
    Server(Server),
    /// A pooler that is followed.
    Pooler {
        /// Process id.
        pid: u32,
        /// Name of its executable.
        program: String,
        /// Whether its TLS connections are read, or why not.
        tls: Why,
    },
    /// Since the tap was attached.
    Counters {
        /// By the index of their `ebpf_abi::Counter`.
        values: Vec<u64>,
        /// Runs of the programs that take payload which the kernel skipped.
        skipped_payload: u64,
        /// Of all others, unless another program took what it was about.
        skipped_facts: u64,
    },
    /// What a process runs.
    Executable {
        /// Inode number of the file.
        inode: u64,
        /// Its path.
        path: String,
    },
    /// A program.
    Program {
        /// When the process began, in clock ticks since boot.
        start: u64,
        /// SHA-256 of the executable; nothing as long as it is not read.
        sha256: Option<[u8; 32]>,
        /// Whether it is a server of PostgreSQL.
        is_server: bool,
    },
    /// A container.
    Container(Container),
    /// A process.
    Process(Box<Running>),
    /// A title.
    Title {
        /// When the process began, in clock ticks since boot.
        start: u64,
        /// The title, whole.
        title: Vec<u8>,
    },
    /// Ports.
    Ports(Vec<u16>),
    /// Who holds a connection's end, or why nobody can be named.
    Holder(Result<Held, NotHeld>),
    /// A user's name, if there is one.
    Name(Option<String>),
    /// The audit login of a process, if it has one.
    Login(Option<u32>),
    /// Addresses.
    Addresses(Vec<IpAddr>),
}

/// A server that is tapped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// Process id of the postmaster.
    pub pid: u32,
    /// Its executable.
    pub exe: String,
    /// Its data directory, where it could be learnt.
    pub data_directory: Option<String>,
    /// Whether its TLS sessions are read, or why not.
    pub tls: Why,
    /// Whether its GSS sessions are read, or why not.
    pub gss: Why,
}

impl From<&servers::Server> for Server {
    fn from(server: &servers::Server) -> Self {
        Self {
            pid: server.pid,
            exe: server.exe.display().to_string(),
            data_directory: server
                .data_directory
                .as_ref()
                .map(|path| path.display().to_string()),
            tls: server.readable.tls.clone(),
            gss: server.readable.gss.clone(),
        }
    }
}

impl From<Server> for servers::Server {
    fn from(server: Server) -> Self {
        Self {
            pid: server.pid,
            exe: server.exe.into(),
            data_directory: server.data_directory.map(Into::into),
            readable: Readable {
                tls: server.tls,
                gss: server.gss,
            },
        }
    }
}

/// A process as `/proc` shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// Process id.
    pub pid: u32,
    /// Of its parent.
    pub parent: u32,
    /// When it began, in clock ticks since boot.
    pub start: u64,
    /// Its name.
    pub comm: String,
    /// Path of its executable.
    pub exe: Option<String>,
    /// Its command line, up to [`COMMAND_LINE`] bytes.
    pub command_line: Vec<String>,
    /// Its user, where that can be read.
    pub uid: Option<u32>,
    /// Its audit login.
    pub login_uid: Option<u32>,
    /// Its cgroup in the unified hierarchy, if it is in one.
    pub cgroup: Option<String>,
    /// Its audit session.
    pub audit_session: Option<u32>,
    /// Process id of the leader of its session.
    pub session: u32,
    /// Its controlling terminal.
    pub tty: Option<String>,
    /// Its pid, network and mount namespaces.
    pub namespaces: [u32; 3],
    /// Its process id in its own pid namespace.
    pub inner_pid: u32,
}

/// What a container runtime keeps of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// What it is called.
    pub name: Option<String>,
    /// The image that it was made from.
    pub image: Option<String>,
    /// "docker", "containerd", "cri-o", "podman".
    pub runtime: String,
    /// The pod that it is of.
    pub pod: Option<String>,
    /// That pod's namespace.
    pub namespace: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_things_fit() {
        let worst = "\u{1}".repeat(COMMAND_LINE);
        let reply = Reply {
            number: u64::MAX,
            last: true,
            answer: Answer::Process(Box::new(Running {
                exe: Some(worst.clone()),
                command_line: vec![worst.clone()],
                cgroup: Some(worst),
                ..Running::default()
            })),
        };
        let bytes = serde_json::to_vec(&reply).expect("JSON");
        assert!(bytes.len() < ANSWER_BYTES, "{}", bytes.len());
        let end = "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff%4294967295]:65535"
            .parse()
            .expect("an address");
        let question = Question {
            number: u64::MAX,
            request: Request::Holder {
                backend: u32::MAX,
                server: end,
                client: end,
            },
        };
        let bytes = serde_json::to_vec(&question).expect("JSON");
        assert!(bytes.len() < QUESTION_BYTES, "{}", bytes.len());
    }

    #[test]
    fn what_is_no_question_is_none() {
        for text in [
            "",
            "{}",
            r#"{"number":1,"request":{"open":{"path":"/etc/shadow"}}}"#,
            r#"{"number":1,"request":{"server":{"pid":1,"exe":"/tmp/x"}}}"#,
            r#"{"number":1,"request":{"server":{"pid":-1}}}"#,
        ] {
            assert!(serde_json::from_str::<Question>(text).is_err(), "{text}");
        }
    }
}
