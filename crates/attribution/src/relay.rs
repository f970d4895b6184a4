//! Programs that pass on what somebody else says: a hop of the way, never who it was.

use crate::Process;

/// What kind of relay a program is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relay {
    /// Hands the server connections that it keeps to its clients in turn.
    Pooler,
    /// A proxy of connections, a service mesh's included.
    Proxy,
    /// A tunnel: what comes out here went in elsewhere.
    Tunnel,
    /// Another PostgreSQL server's backend (`postgres_fdw`, `dblink`, replication).
    Server,
}

impl Relay {
    /// As it stands in records.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pooler => "pooler",
            Self::Proxy => "proxy",
            Self::Tunnel => "tunnel",
            Self::Server => "postgresql",
        }
    }

    /// What a process is: a server by what is in its executable, all others by its name. A program that takes such a name
    /// gets no name of its own for it: its statements stay unknown, with the process and its own principal beside them as
    /// a hop.
    #[must_use]
    pub fn of(process: &Process) -> Option<Self> {
        if process.is_server || process.exe_sha256.is_none() && is_named_like_a_server(process) {
            // Where nobody could look into the executable, its name has to do: better no name than a relay's.
            return Some(Self::Server);
        }
        let program = process.exe.as_deref()?.rsplit('/').next()?;
        let known = RELAYS.iter().find(|(name, _)| *name == program)?;
        match known.1 {
            // kubectl does many things; only this one passes on what others say.
            Self::Tunnel if program == "kubectl" => process
                .command_line
                .iter()
                .any(|argument| argument == "port-forward")
                .then_some(Self::Tunnel),
            kind => Some(kind),
        }
    }
}

/// Names of the executables of poolers.
pub fn pooler_programs() -> impl Iterator<Item = &'static str> {
    let poolers = RELAYS.iter().filter(|(_, relay)| *relay == Relay::Pooler);
    poolers.map(|(name, _)| *name)
}

fn is_named_like_a_server(process: &Process) -> bool {
    let program = process.exe.as_deref().and_then(|exe| exe.rsplit('/').next());
    program.is_some_and(|name| name.starts_with("postgres") || name.starts_with("postmaster"))
}

/// Executables, by name. Of ssh and its server whatever connects to a database is a forwarded port: neither speaks its
/// protocol.
const RELAYS: [(&str, Relay); 26] = [
    ("pgbouncer", Relay::Pooler),
    ("pgcat", Relay::Pooler),
    ("pgdog", Relay::Pooler),
    ("odyssey", Relay::Pooler),
    ("pgpool", Relay::Pooler),
    ("pgagroal", Relay::Pooler),
    ("supavisor", Relay::Pooler),
    ("haproxy", Relay::Proxy),
    ("envoy", Relay::Proxy),
    ("nginx", Relay::Proxy),
    ("traefik", Relay::Proxy),
    ("pilot-agent", Relay::Proxy),
    ("ztunnel", Relay::Proxy),
    ("linkerd2-proxy", Relay::Proxy),
    ("cloud-sql-proxy", Relay::Proxy),
    ("cloud_sql_proxy", Relay::Proxy),
    ("rinetd", Relay::Proxy),
    ("ssh", Relay::Tunnel),
    ("sshd", Relay::Tunnel),
    ("sshd-session", Relay::Tunnel),
    ("socat", Relay::Tunnel),
    ("stunnel", Relay::Tunnel),
    ("stunnel4", Relay::Tunnel),
    ("kubectl", Relay::Tunnel),
    ("kubelet", Relay::Tunnel),
    ("containerd", Relay::Tunnel),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relays_are_known_by_their_executable_alone() {
        let process = |exe: &str, arguments: &[&str]| Process {
            exe: Some(exe.into()),
            command_line: arguments.iter().collect(),
            ..Process::default()
        };
        assert_eq!(Relay::of(&process("/usr/sbin/haproxy", &[])), Some(Relay::Proxy));
        let mut server = process("/usr/lib/postgresql/15/bin/postgres", &[]);
        assert_eq!(Relay::of(&server), Some(Relay::Server), "nobody looked into it");
        server.exe_sha256 = Some([0; 32]);
        assert_eq!(Relay::of(&server), None, "a name alone");
        server.is_server = true;
        assert_eq!(Relay::of(&server), Some(Relay::Server));
        assert_eq!(
            Relay::of(&process("/usr/bin/psql", &["haproxy"])),
            None,
            "what a process calls itself says nothing"
        );
        let forwards = process("/usr/bin/kubectl", &["kubectl", "port-forward", "svc/db", "5432"]);
        assert_eq!(Relay::of(&forwards), Some(Relay::Tunnel));
        assert_eq!(
            Relay::of(&process("/usr/bin/kubectl", &["kubectl", "get", "pods"])),
            None
        );
        assert_eq!(Relay::of(&Process::default()), None);
    }
}
