//! Who holds the client's end of a TCP connection that was open before the agent came: nobody recorded its `connect`, but
//! the kernel's tables still tell which socket is the other end, and which processes have it open.
//!
//! That is less than a recorded `connect`: it says who holds the socket now, not who opened it, and a socket that was
//! inherited by a fork has several holders. Then nobody is named. Addresses of containers overlap, so that a connection
//! is only looked for in another network namespace if it is in none nearer, and only believed if it is in one.

use std::{
    collections::{HashMap, HashSet},
    fs,
    net::SocketAddr,
    time::{Duration, Instant},
};

use procfs::{net::TcpState, process::Process};
use serde::{Deserialize, Serialize};

/// How old what was read may be. Reading everything takes milliseconds on a small host and more on a large one, so that
/// it also must not take more than a tenth of the time.
const FRESH: Duration = Duration::from_millis(200);
const FRESH_PER_COST: u32 = 10;

/// Network namespaces that are looked into: some containers for each of the processors of the largest hosts.
const NAMESPACES: usize = 4096;

/// The client's end of a connection, and the one process that holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The process.
    pub pid: u32,
    /// Inode number of its network namespace.
    pub netns: u32,
    /// Inode number of the socket.
    pub socket: u64,
}

/// Why nobody can be named.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NotHeld {
    /// The client's end is not on this host, or where it cannot be looked for.
    Elsewhere,
    /// The connection was over before it was looked at.
    Over,
    /// It is, but who uses it cannot be told.
    Unclear(String),
}

/// A connection as the server's end names it.
#[derive(Clone, Copy, Debug)]
pub struct Connection {
    /// The process that serves it.
    pub backend: u32,
    /// The server's end.
    pub server: SocketAddr,
    /// The client's end.
    pub client: SocketAddr,
}

/// The kernel's tables, as last read.
#[derive(Default)]
pub struct OldSockets {
    tables: HashMap<u16, Tables>,
}

struct Tables {
    read: Instant,
    cost: Duration,
    /// Namespace and socket of an end, by its own and the other end's address.
    ends: HashMap<(SocketAddr, SocketAddr), Vec<(u32, u64)>>,
    /// Processes by the sockets that they hold.
    holders: HashMap<u64, Vec<u32>>,
}

impl OldSockets {
    /// The process at the client's end of a connection.
    ///
    /// # Errors
    ///
    /// Says why there is none that can be named.
    pub fn holder(&mut self, connection: &Connection) -> Result<Held, NotHeld> {
        let tables = self.tables(connection.server.port());
        let (client, server) = (connection.client, connection.server);
        // The tables may tell of a later connection with the same addresses, but not with the same socket.
        let own = sockets_of(connection.backend);
        let near = tables
            .ends
            .get(&(server, client))
            .into_iter()
            .flatten()
            .find(|(_, socket)| own.contains(socket));
        let Some((near, _)) = near else {
            return Err(NotHeld::Over);
        };
        let ends = tables.ends.get(&(client, server)).map_or(&[][..], Vec::as_slice);
        let in_same = ends.iter().find(|(netns, _)| netns == near);
        let (netns, socket) = match (in_same, ends) {
            (Some(end), _) => *end,
            (None, []) => return Err(NotHeld::Elsewhere),
            (None, [end]) => *end,
            (None, several) => {
                let reason = format!(
                    "{} network namespaces have a connection with its addresses",
                    several.len()
                );
                return Err(NotHeld::Unclear(reason));
            }
        };
        let known = tables.holders.get(&socket).map_or(&[][..], Vec::as_slice);
        // Whoever is not seen to hold it once more has let go of it.
        let mut holders: Vec<u32> = known
            .iter()
            .copied()
            .filter(|pid| sockets_of(*pid).contains(&socket))
            .collect();
        holders.sort_unstable();
        match holders.as_slice() {
            [pid] => Ok(Held {
                pid: *pid,
                netns,
                socket,
            }),
            [] => Err(NotHeld::Unclear(
                "no process was seen to hold the client's end".to_owned(),
            )),
            [first, second, ..] => Err(NotHeld::Unclear(format!(
                "{} processes hold the client's end ({first}, {second}, …), as after a fork: which of them speaks \
                 cannot be told",
                holders.len()
            ))),
        }
    }

    fn tables(&mut self, port: u16) -> &Tables {
        self.tables.retain(|_, tables| {
            tables.read.elapsed() < FRESH.max(tables.cost.saturating_mul(FRESH_PER_COST))
        });
        self.tables.entry(port).or_insert_with(|| Tables::read(port))
    }
}

impl Tables {
    /// Reads everything that is about one port.
    fn read(port: u16) -> Self {
        let began = Instant::now();
        let mut tables = Self {
            read: began,
            cost: Duration::ZERO,
            ends: HashMap::new(),
            holders: HashMap::new(),
        };
        let mut namespaces = HashSet::new();
        let mut pids = Vec::new();
        for process in procfs::process::all_processes().into_iter().flatten().flatten() {
            let Ok(pid) = u32::try_from(process.pid) else {
                continue;
            };
            pids.push(pid);
            if let Some(netns) = namespace_of(pid)
                && namespaces.len() < NAMESPACES
                && namespaces.insert(netns)
            {
                tables.read_ends(&process, netns, port);
            }
        }
        let wanted: HashSet<u64> = tables
            .ends
            .values()
            .flatten()
            .map(|(_, socket)| *socket)
            .collect();
        for pid in pids {
            for socket in sockets_of(pid) {
                if wanted.contains(&socket) {
                    tables.holders.entry(socket).or_default().push(pid);
                }
            }
        }
        tables.cost = began.elapsed();
        tables
    }

    /// Reads the connections of a network namespace, as a process in it sees them.
    fn read_ends(&mut self, process: &Process, netns: u32, port: u16) {
        let four = process.tcp().into_iter().flatten();
        let six = process.tcp6().into_iter().flatten();
        for entry in four.chain(six) {
            let (local, remote) = (canonical(entry.local_address), canonical(entry.remote_address));
            // An end without an inode is no process' any more.
            if entry.state == TcpState::Listen
                || entry.inode == 0
                || (local.port() != port && remote.port() != port)
            {
                continue;
            }
            self.ends
                .entry((local, remote))
                .or_default()
                .push((netns, entry.inode));
        }
    }
}

/// IPv4 inside IPv6 as IPv4: the two ends of one connection can be of either kind.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn namespace_of(pid: u32) -> Option<u32> {
    in_brackets(
        &fs::read_link(format!("/proc/{pid}/ns/net"))
            .ok()?
            .to_string_lossy(),
        "net:",
    )
}

/// The sockets that a process has open; none if it is gone.
pub fn sockets_of(pid: u32) -> HashSet<u64> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return HashSet::new();
    };
    let targets = entries
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok());
    targets
        .filter_map(|target| in_brackets(&target.to_string_lossy(), "socket:"))
        .collect()
}

/// `17` of `socket:[17]` (proc(5)).
fn in_brackets<T: std::str::FromStr>(link: &str, kind: &str) -> Option<T> {
    let number = link.strip_prefix(kind)?.strip_prefix('[')?.strip_suffix(']')?;
    number.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn both_ends_in_one_process_have_one_holder() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else {
                continue;
            };
            let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
            let (server, _) = listener.accept().expect("accepted");
            let connection = Connection {
                backend: std::process::id(),
                server: server.local_addr().expect("bound"),
                client: client.local_addr().expect("bound"),
            };
            let mut sockets = OldSockets::default();
            let held = sockets.holder(&connection).expect("a holder");
            assert_eq!(held.pid, std::process::id());
            assert_eq!(Some(held.netns), namespace_of(held.pid));
            drop(client);
            std::thread::sleep(FRESH);
            assert!(sockets.holder(&connection).is_err(), "gone");
        }
    }

    #[test]
    fn an_end_that_was_inherited_has_no_holder() {
        use std::os::fd::OwnedFd;
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
        let (server, _) = listener.accept().expect("accepted");
        let connection = Connection {
            backend: std::process::id(),
            server: server.local_addr().expect("bound"),
            client: client.local_addr().expect("bound"),
        };
        let copy: OwnedFd = client.try_clone().expect("a copy").into();
        let mut heir = std::process::Command::new("sleep")
            .arg("30")
            .stdin(copy)
            .spawn()
            .expect("started");
        let answer = OldSockets::default().holder(&connection);
        heir.kill().expect("killed");
        heir.wait().expect("ended");
        let Err(NotHeld::Unclear(reason)) = answer else {
            panic!("{answer:?}")
        };
        assert!(
            reason.starts_with("2 processes hold the client's end"),
            "{reason}"
        );
        assert!(OldSockets::default().holder(&connection).is_ok(), "one again");
    }

    #[test]
    fn another_servers_connection_is_not_taken() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
        let (server, _) = listener.accept().expect("accepted");
        let connection = Connection {
            // Holds no socket of it.
            backend: 1,
            server: server.local_addr().expect("bound"),
            client: client.local_addr().expect("bound"),
        };
        assert_eq!(OldSockets::default().holder(&connection), Err(NotHeld::Over));
    }

    #[test]
    fn links_are_read() {
        assert_eq!(in_brackets("socket:[17]", "socket:"), Some(17_u64));
        for link in ["socket:[]", "socket:[x]", "pipe:[17]", "/dev/null", "socket:17"] {
            assert_eq!(in_brackets::<u64>(link, "socket:"), None, "{link}");
        }
    }
}
