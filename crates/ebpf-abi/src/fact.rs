//! What the kernel side tells about processes and sockets. Every fact starts with its [`FactKind`].

use crate::Record;

/// Bytes kept of an executable's name as it was given to `execve`: Linux' own `PATH_MAX` would cost 4 KiB a
/// process, and the full path is looked up in `/proc` where the process lives long enough.
pub const PATH_MAX: usize = 256;

/// Bytes kept of a command line.
pub const ARGS_MAX: usize = 1024;

/// Bytes kept of a cgroup's path: those of pods and user sessions are about 200 long.
pub const CGROUP_PATH_MAX: usize = 512;

/// Length of `sockaddr_un.sun_path`.
pub const UNIX_PATH_MAX: usize = 108;

/// First word of every record in the fact ring.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FactKind {
    /// A [`TaskFact`]: a process was forked.
    Fork = 1,
    /// An [`ExecFact`]: a process runs another program from here on.
    Exec = 2,
    /// A [`TaskFact`]: a process ended.
    Exit = 3,
    /// An [`OwnerFact`]: a TCP connection was opened by a process of this host.
    Owner = 4,
    /// A [`SocketFact`]: a tapped process used a socket for the first time.
    Socket = 5,
    /// A [`CloseFact`]: a tapped process ends, and its connection with it.
    Close = 6,
    /// A [`CgroupFact`]: a cgroup was made.
    Cgroup = 7,
    /// An [`EnvironmentFact`]: with what environment a program was started.
    Environment = 8,
    /// An [`OwnerFact`], again: the first that was said over the connection is how a PostgreSQL client begins.
    Flow = 9,
}

impl FactKind {
    /// The kind of the fact in `bytes`, if they hold one that is known.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Option<Self> {
        let word = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?);
        [
            Self::Fork,
            Self::Exec,
            Self::Exit,
            Self::Owner,
            Self::Socket,
            Self::Close,
            Self::Cgroup,
            Self::Environment,
            Self::Flow,
        ]
        .into_iter()
        .find(|kind| *kind as u32 == word)
    }
}

/// A process at a moment.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct TaskFact {
    /// A [`FactKind`].
    pub kind: u32,
    /// Process id in the initial namespace.
    pub tgid: u32,
    /// When it happened.
    pub at: u64,
    /// When the process started: with `tgid`, names it for good.
    pub start: u64,
    /// Start of the parent.
    pub parent_start: u64,
    /// Process id of the parent.
    pub parent: u32,
    /// Real user id.
    pub uid: u32,
    /// Audit login uid; `u32::MAX` if none was set.
    pub login_uid: u32,
    /// Audit session; `u32::MAX` if none was set.
    pub audit_session: u32,
    /// Id of its cgroup in the unified hierarchy.
    pub cgroup_id: u64,
    /// Name of the task.
    pub comm: [u8; 16],
    /// Where it stands among others; zeros if it ends.
    pub place: TaskPlace,
}

// SAFETY: `repr(C)`, integers only; the size assertion below excludes padding.
unsafe impl Record for TaskFact {}

/// Session, terminal and namespaces of a process.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct TaskPlace {
    /// Process id of the leader of its session (setsid(2)).
    pub session: u32,
    /// Inode number of its pid namespace.
    pub pid_ns: u32,
    /// Process id, in the initial namespace, of the first process of its pid namespace.
    pub pid_ns_first: u32,
    /// Inode number of its network namespace.
    pub net_ns: u32,
    /// Inode number of its mount namespace.
    pub mnt_ns: u32,
    /// Zero.
    pub reserved: u32,
    /// Name of its controlling terminal, as in "pts/3"; empty if it has none.
    pub tty: [u8; 16],
}

/// The environment that a program was started with: this header, then the bytes, variables separated by NUL. Only told
/// when the agent asks for it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct EnvironmentFact {
    /// A [`FactKind`].
    pub kind: u32,
    /// The process.
    pub tgid: u32,
    /// Its start.
    pub start: u64,
    /// Bytes that follow.
    pub length: u32,
    /// Length of the whole environment.
    pub original: u32,
}

// SAFETY: `repr(C)`, integers only; the size assertion below excludes padding.
unsafe impl Record for EnvironmentFact {}

/// Bytes told of an environment: those of CI jobs are some ten KiB.
pub const ENVIRONMENT_MAX: usize = 32 * 1024;

/// A process that runs another program from here on.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ExecFact {
    /// The process.
    pub task: TaskFact,
    /// Inode number of the executable.
    pub inode: u64,
    /// Bytes used of `path`.
    pub path_length: u32,
    /// Bytes used of `args`; the arguments are separated by NUL.
    pub args_length: u32,
    /// Length of the whole command line.
    pub args_original: u32,
    /// Not 0: the process was marked as a pooler's, by its name.
    pub is_pooler: u32,
    /// The executable as it was given to `execve`.
    pub path: [u8; PATH_MAX],
    /// The command line.
    pub args: [u8; ARGS_MAX],
}

// SAFETY: `repr(C)`, integers only; the size assertion below excludes padding.
unsafe impl Record for ExecFact {}

/// Who opened a TCP connection, recorded in the connecting process and told when it was established.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct OwnerFact {
    /// A [`FactKind`].
    pub kind: u32,
    /// The connecting process.
    pub tgid: u32,
    /// When the connection was established.
    pub at: u64,
    /// Start of the connecting process.
    pub start: u64,
    /// Its cgroup at that moment.
    pub cgroup_id: u64,
    /// Its user id.
    pub uid: u32,
    /// Inode number of the network namespace.
    pub netns: u32,
    /// `AF_INET` or `AF_INET6`.
    pub family: u16,
    /// Port of the connecting end, host byte order.
    pub local_port: u16,
    /// Port of the accepting end, host byte order.
    pub remote_port: u16,
    /// Zero.
    pub reserved: u16,
    /// First sequence number of the connecting end's data: with the addresses, names one connection for good.
    pub sequence: u32,
    /// The same of the accepting end's. Both together name it beyond any translation of addresses.
    pub answer: u32,
    /// Its audit login uid when it connected; `u32::MAX` if it has none.
    pub login_uid: u32,
    /// Zero.
    pub unused: u32,
    /// Address of the connecting end; IPv4 in the first four bytes.
    pub local: [u8; 16],
    /// Address of the accepting end.
    pub remote: [u8; 16],
    /// Name of the task.
    pub comm: [u8; 16],
}

// SAFETY: `repr(C)`, integers only; the size assertion below excludes padding.
unsafe impl Record for OwnerFact {}

impl OwnerFact {
    /// Both first sequence numbers, the connecting end's in the upper half; `None` if they were not recorded.
    #[must_use]
    pub fn fingerprint(&self) -> Option<u64> {
        fingerprint(self.sequence, self.answer)
    }
}

/// The client's number comes first. An end whose number is 0 is taken for one that is not known: one connection in 2^31.
fn fingerprint(client: u32, server: u32) -> Option<u64> {
    (client != 0 && server != 0).then(|| u64::from(client) << 32 | u64::from(server))
}

/// Which end of its connection a socket is.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketRole {
    /// Not known: opened before the tap was attached.
    Unknown = 0,
    /// The tapped process is the server.
    Accepted = 1,
    /// The tapped process is itself a client here (`postgres_fdw`, `dblink`, a WAL receiver).
    Connected = 2,
}

/// Flag of [`SocketFact`]: the connection is older than the tap on it.
pub const SOCKET_MID_STREAM: u8 = 1;

/// Flag of [`SocketFact`]: the server's TLS functions were probed before the connection was first used.
pub const SOCKET_PROBED_TLS: u8 = 2;

/// Flag of [`SocketFact`]: the same of its GSSAPI functions.
pub const SOCKET_PROBED_GSS: u8 = 4;

/// Flag of [`SocketFact`]: over IP, and yet the kernel does not count its bytes where the tap reads such counts (MPTCP).
pub const SOCKET_UNCOUNTED: u8 = 8;

/// Flag of [`SocketFact`]: a process uses it that passes statements on; [`SocketFact::server`] is that process, and of a
/// connection that it opened itself `local` is its own end.
pub const SOCKET_POOLER: u8 = 16;

/// The process at the other end of a Unix socket, from the credentials that the kernel keeps on the socket.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct PeerProcess {
    /// Process id in the initial namespace; 0 if there is none.
    pub tgid: u32,
    /// User id at connect time.
    pub uid: u32,
    /// Start of the process; 0 if it was gone when looked at.
    pub start: u64,
    /// Its cgroup; 0 if it was gone.
    pub cgroup_id: u64,
    /// Name of the task.
    pub comm: [u8; 16],
    /// What it is now is not certainly what connected: [`PEER_CRED`], [`PEER_CGROUP`].
    pub changed: u32,
    /// Its audit login uid; `u32::MAX` if it has none.
    pub login_uid: u32,
}

/// Flag of [`PeerProcess`]: its credentials are not those that it connected with. Every exec installs new ones
/// (`commit_creds` in fs/exec.c), and so does a change of user.
pub const PEER_CRED: u32 = 1;

/// Flag of [`PeerProcess`]: it is not in the cgroup in which it made its socket.
pub const PEER_CGROUP: u32 = 2;

/// A socket that a tapped process used for the first time.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SocketFact {
    /// A [`FactKind`].
    pub kind: u32,
    /// The tapped process.
    pub tgid: u32,
    /// When it was first used.
    pub at: u64,
    /// The kernel's socket cookie.
    pub cookie: u64,
    /// Process id of the postmaster.
    pub server: u32,
    /// Inode number of the network namespace.
    pub netns: u32,
    /// `AF_INET`, `AF_INET6` or `AF_UNIX`.
    pub family: u16,
    /// Port of the tapped end, host byte order.
    pub local_port: u16,
    /// Port of the other end, host byte order.
    pub remote_port: u16,
    /// A [`SocketRole`].
    pub role: u8,
    /// Or'ed [`SOCKET_MID_STREAM`], [`SOCKET_PROBED_TLS`], [`SOCKET_PROBED_GSS`], [`SOCKET_UNCOUNTED`],
    /// [`SOCKET_POOLER`].
    pub flags: u8,
    /// Address of the tapped end; IPv4 in the first four bytes.
    pub local: [u8; 16],
    /// Address of the other end.
    pub remote: [u8; 16],
    /// Unix sockets only.
    pub peer: PeerProcess,
    /// First sequence number of the other end's data, as in [`OwnerFact::sequence`].
    pub sequence: u32,
    /// The same of this end's, as in [`OwnerFact::answer`].
    pub answer: u32,
    /// Unix sockets only: inode number of the connecting end's socket, which names the connection at both of its ends as
    /// long as it is open; 0 if it is not known.
    pub client_inode: u64,
    /// Bytes used of `path`.
    pub path_length: u32,
    /// Unix sockets only: the name that the server's end is bound to.
    pub path: [u8; UNIX_PATH_MAX],
}

// SAFETY: `repr(C)`, integers only; the size assertion below excludes padding.
unsafe impl Record for SocketFact {}

impl SocketFact {
    /// As [`OwnerFact::fingerprint`] of the other end; `None` for connections that are older than the tap, or have no such
    /// numbers.
    #[must_use]
    pub fn fingerprint(&self) -> Option<u64> {
        self.numbers().filter(|_| self.flags & SOCKET_MID_STREAM == 0)
    }

    /// The same of connections of any age: finds both ends of one that one kernel sees.
    #[must_use]
    pub fn numbers(&self) -> Option<u64> {
        let counted = self.family != AF_UNIX && self.flags & SOCKET_UNCOUNTED == 0;
        let numbers = if self.role == SocketRole::Connected as u8 {
            fingerprint(self.answer, self.sequence)
        } else {
            // This end is the server's: the other one's number is the client's.
            fingerprint(self.sequence, self.answer)
        };
        numbers.filter(|_| counted)
    }
}

/// `AF_UNIX` (unix(7)).
const AF_UNIX: u16 = 1;

/// A tapped process is about to end: how far the streams of the connection that it served came.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct CloseFact {
    /// A [`FactKind`].
    pub kind: u32,
    /// A [`crate::Channel`]: where its plaintext was read.
    pub channel: u8,
    /// What was lost behind the last record, as in [`crate::SegmentHeader::flags`].
    pub flags: u8,
    /// Zero.
    pub reserved: u16,
    /// When it was closed.
    pub at: u64,
    /// The kernel's socket cookie.
    pub cookie: u64,
    /// Bytes received in all over the socket.
    pub received: u64,
    /// Bytes sent in all.
    pub sent: u64,
    /// Plaintext bytes received, where that was read elsewhere than at the socket.
    pub plain_received: u64,
    /// Plaintext bytes sent.
    pub plain_sent: u64,
}

// SAFETY: `repr(C)`, integers only; the size assertion below excludes padding.
unsafe impl Record for CloseFact {}

/// A cgroup of the unified hierarchy was made. Told by the kernel, because a short-lived one is gone before its path
/// can be looked up.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct CgroupFact {
    /// A [`FactKind`].
    pub kind: u32,
    /// Bytes used of `path`.
    pub path_length: u32,
    /// Id of the cgroup.
    pub id: u64,
    /// Path from the root of the hierarchy.
    pub path: [u8; CGROUP_PATH_MAX],
}

// SAFETY: `repr(C)`, integers only; the size assertion below excludes padding.
unsafe impl Record for CgroupFact {}

const _: () = assert!(size_of::<CgroupFact>() == 16 + CGROUP_PATH_MAX);
const _: () = assert!(size_of::<TaskFact>() == 72 + 40);
const _: () = assert!(size_of::<EnvironmentFact>() == 24);
const _: () = assert!(size_of::<ExecFact>() == 112 + 24 + PATH_MAX + ARGS_MAX);
const _: () = assert!(size_of::<OwnerFact>() == 112);
const _: () = assert!(size_of::<PeerProcess>() == 48);
const _: () = assert!(size_of::<SocketFact>() == 72 + 48 + 8 + 8 + 4 + UNIX_PATH_MAX);
const _: () = assert!(size_of::<CloseFact>() == 56);
