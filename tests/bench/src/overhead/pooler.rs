//! PgBouncer in the path. In session mode: the least that any proxy costs, audit not yet included.

use std::{
    fs::{self, File},
    os::unix::fs::{MetadataExt as _, chown},
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;
use pgwitness_tests::{
    cluster::{APP_ROLE, DATABASE, free_port},
    process::Process,
};
use tempfile::TempDir;

use super::{account::Account, server::Server};

/// A running pooler. An idle one uses next to nothing.
pub(crate) struct Pooler {
    // Ends before its folder and its cgroup go.
    _process: Process,
    _folder: TempDir,
    pub(crate) account: Account,
    pub(crate) port: u16,
}

/// How it lends its connections.
#[derive(Clone, Copy)]
pub(crate) struct Pool {
    /// `session`, `transaction`.
    pub(crate) mode: &'static str,
    /// Connections to the server.
    pub(crate) size: u32,
}

/// Where Debian puts it, and where else it may be.
const PROGRAMS: [&str; 3] = [
    "/usr/sbin/pgbouncer",
    "/usr/bin/pgbouncer",
    "/usr/local/bin/pgbouncer",
];

const READY_PATIENCE: Duration = Duration::from_secs(10);

impl Pooler {
    /// The program, if it is installed.
    pub(crate) fn program() -> Option<PathBuf> {
        PROGRAMS
            .map(PathBuf::from)
            .into_iter()
            .find(|path| path.is_file())
    }

    /// Starts it before a server.
    pub(crate) async fn start(program: &Path, account: Account, server: &Server, pool: Pool) -> Result<Self> {
        let folder = TempDir::with_prefix("pgwitness-pooler-")?;
        let port = free_port()?;
        let cluster = server.cluster();
        let users = folder.path().join("users");
        fs::write(&users, format!("\"{APP_ROLE}\" \"{}\"\n", cluster.password()))?;
        let configuration = folder.path().join("pgbouncer.ini");
        fs::write(
            &configuration,
            format!(
                "[databases]\n{DATABASE} = host=127.0.0.1 port={server}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
                 listen_port = {port}\nunix_socket_dir =\nauth_type = md5\nauth_file = {users}\npool_mode = {mode}\n\
                 default_pool_size = {size}\nmax_client_conn = 150\n",
                mode = pool.mode,
                size = pool.size,
                server = cluster.port(),
                users = users.display(),
            ),
        )?;
        // It refuses to run as root.
        let owner = fs::metadata(cluster.data())?;
        for path in [folder.path(), &users, &configuration] {
            chown(path, Some(owner.uid()), Some(owner.gid())).context("giving the pooler's files away")?;
        }
        let log = folder.path().join("log");
        let said = File::create(&log)?;
        let mut command = account.command(program);
        if nix::unistd::geteuid().is_root() {
            command.args(["-u", "postgres"]);
        }
        command
            .arg(&configuration)
            .stdin(Stdio::null())
            .stdout(said.try_clone()?)
            .stderr(said);
        // Immediate shutdown (manual of pgbouncer).
        let mut process = Process::start("pgbouncer", &mut command, Signal::SIGTERM)?;
        let deadline = Instant::now() + READY_PATIENCE;
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            if process.ended()?.is_some() || Instant::now() > deadline {
                bail!("pgbouncer is not ready:\n{}", fs::read_to_string(&log)?);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(Self {
            _process: process,
            _folder: folder,
            account,
            port,
        })
    }
}
