//! The pooler between most of the demo's programs and the server: PgBouncer in transaction mode, a service like the others.
//!
//! Owns its configuration and its process. It refuses to tell pgwitness anything: it is started as its package would.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::cluster::{APP_ROLE, Cluster, DATABASE, free_port};
use crate::process::Process;
use crate::unit::Unit;

/// The running pooler. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Bouncer {
    process: Process,
    unit: Unit,
    folder: TempDir,
    port: u16,
}

impl Bouncer {
    /// Starts it with fewer connections to the server than there are programs, and waits until it answers.
    pub(super) async fn start(slice: &str, cluster: &Cluster) -> Result<Self> {
        let program = Path::new(PROGRAM);
        ensure!(
            program.is_file(),
            "{PROGRAM} is not there: `cargo xtask setup` installs it"
        );
        let folder = TempDir::with_prefix("pgwitness-bouncer-")?;
        let (port, home) = (free_port()?, folder.path());
        let file = home.join("pgbouncer.ini");
        fs::write(&file, configuration(cluster, home, port)).context("writing its configuration")?;
        let unit = Unit::create(slice, NAME)?;
        let mut command = unit.command(Path::new("/usr/bin/setpriv"));
        if let Some((uid, gid)) = cluster.account() {
            for path in [home, &file] {
                nix::unistd::chown(path, Some(uid), Some(gid))?;
            }
            command.arg(format!("--reuid={uid}"));
            command.arg(format!("--regid={gid}")).arg("--clear-groups");
        }
        // The clients are other accounts; the password in the file is not for them.
        fs::set_permissions(home, fs::Permissions::from_mode(0o755))?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
        command.arg("--").arg(program).arg("--quiet").arg(&file);
        let process = Process::start(NAME, &mut command, Signal::SIGTERM)?;
        let bouncer = Self {
            process,
            unit,
            folder,
            port,
        };
        let deadline = Instant::now() + PATIENCE;
        while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            ensure!(
                Instant::now() < deadline,
                "PgBouncer does not come up: {}",
                bouncer.said()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(bouncer)
    }

    /// Its unit's name.
    pub(super) fn unit(&self) -> &str {
        self.unit.name()
    }

    /// Its process.
    pub(super) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Where its Unix socket is.
    pub(super) fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// Its port, also in the name of its Unix socket.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    fn said(&self) -> String {
        fs::read_to_string(self.folder.path().join("pgbouncer.log")).unwrap_or_default()
    }
}

fn configuration(cluster: &Cluster, home: &Path, port: u16) -> String {
    let home = home.display();
    format!(
        "[databases]\n{DATABASE} = host=127.0.0.1 port={server} user={APP_ROLE} password={password}\n[pgbouncer]\n\
         listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir = {home}\nauth_type = any\n\
         pool_mode = transaction\ndefault_pool_size = {SERVERS}\nlogfile = {home}/pgbouncer.log\n\
         pidfile = {home}/pgbouncer.pid\nlog_connections = 0\nlog_disconnections = 0\nlog_stats = 0\n",
        server = cluster.port(),
        password = cluster.password(),
    )
}

const NAME: &str = "pgbouncer";
const PROGRAM: &str = "/usr/sbin/pgbouncer";
/// For four programs: they have to wait for each other.
const SERVERS: u32 = 2;
const PATIENCE: Duration = Duration::from_secs(10);
