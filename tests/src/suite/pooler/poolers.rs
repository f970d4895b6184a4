//! The poolers, each as its packages have it: where its program is, its configuration, how it is started.
//!
//! Owns the texts of configuration and the command. PgBouncer of another distribution runs in its own root (chroot), so that
//! its executable has its own name and its own libraries. None runs as root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::scene::{Scene, Way};
use crate::cluster::{APP_ROLE, DATABASE};
use crate::unit::Unit;

/// Which pooler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Program {
    /// The distribution's.
    Bouncer,
    /// Of Debian 13: it renames and shares prepared statements.
    NewBouncer,
    /// The distribution's; a process for each client.
    Pgpool,
}

/// How it is set up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setup {
    pub(super) program: Program,
    /// `transaction`, `session`, `statement`.
    pub(super) mode: &'static str,
    /// Whether it writes down each answer.
    pub(super) logged: bool,
    /// Whether it asks the server something before it lends a connection.
    pub(super) checks: bool,
    /// TLS on both of its sides.
    pub(super) tls: bool,
    /// Another one of its kind stands between it and the server, in transaction mode, with fewer connections yet.
    pub(super) chained: bool,
    /// The pooler and its clients are on another host than the server, with an agent of its own.
    pub(super) apart: bool,
    /// How it reaches the server.
    pub(super) way: Way,
}

impl Program {
    /// `PgBouncer 1.18.0`, as it says itself; or why it cannot be had.
    pub(super) fn version(self, poolers: &Poolers) -> Result<String> {
        let output = match self {
            Self::Bouncer => Command::new(bouncer()?).arg("--version").output(),
            Self::NewBouncer => Command::new("chroot")
                .arg(poolers.root()?)
                .args([BOUNCER, "--version"])
                .output(),
            Self::Pgpool => Command::new(pgpool()?).arg("--version").output(),
        };
        let output = output.context("asking for its version")?;
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        said.lines()
            .next()
            .map(str::to_owned)
            .context("it says no version")
    }

    fn is_bouncer(self) -> bool {
        self != Self::Pgpool
    }
}

/// Where poolers of other distributions are.
#[derive(Clone, Debug, Default)]
pub(super) struct Poolers {
    /// A folder with a root of Debian 13.
    pub(super) folder: Option<PathBuf>,
    /// Why there is none.
    pub(super) missing: Option<String>,
}

impl Poolers {
    fn root(&self) -> Result<PathBuf> {
        let root = self.folder.as_ref().map(|folder| folder.join("trixie"));
        match root.filter(|root| root.join(BOUNCER.trim_start_matches('/')).is_file()) {
            Some(root) => Ok(root),
            None => bail!(
                self.missing
                    .clone()
                    .unwrap_or_else(|| "it was not fetched".to_owned())
            ),
        }
    }
}

/// One pooler of a scene: where it is, and what stands behind it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// Of its unit, its files, and the folder of its socket.
    pub(super) name: &'static str,
    /// Where it listens.
    pub(super) port: u16,
    /// The folder with the socket of what is behind it, below the scene's.
    pub(super) behind: &'static str,
    /// The port of that.
    pub(super) behind_port: u16,
    /// Connections to it: always fewer than clients.
    pub(super) size: u32,
    /// It takes sockets and clients over from the one that runs (`pgbouncer -R`).
    pub(super) successor: bool,
}

/// The command that becomes a pooler, in its unit.
pub(super) fn command(
    scene: &Scene,
    setup: &Setup,
    place: Place,
    unit: &Unit,
    poolers: &Poolers,
) -> Result<Command> {
    let (uid, gid) = scene.account();
    let home = scene.home();
    if !setup.program.is_bouncer() {
        return pgpool_command(scene, setup, place, unit);
    }
    let file = home.join(format!("{}.ini", place.name));
    fs::write(&file, bouncer_configuration(scene, setup, place))
        .context("writing the pooler's configuration")?;
    if setup.program == Program::Bouncer {
        let mut command = unit.command(Path::new("/usr/bin/setpriv"));
        command.args([
            "--reuid",
            &uid.to_string(),
            "--regid",
            &gid.to_string(),
            "--clear-groups",
        ]);
        command
            .arg(bouncer()?)
            .args(place.successor.then_some("-R"))
            .arg(file);
        return Ok(command);
    }
    // The scene's folder has the same path inside.
    let mut command = unit.command(Path::new("/usr/bin/unshare"));
    command.args(["--mount", "/bin/sh", "-c", WITHIN, "within"]);
    command
        .arg(poolers.root()?)
        .arg(home)
        .arg(format!("+{uid}:+{gid}"))
        .arg(BOUNCER)
        .arg(file);
    Ok(command)
}

fn bouncer_configuration(scene: &Scene, setup: &Setup, place: Place) -> String {
    let home = scene.home().display();
    let host = match setup.way {
        Way::Unix => format!("{home}/{}", place.behind),
        Way::Tcp => scene.server_address().to_owned(),
    };
    let mut text = format!(
        "[databases]\n{DATABASE} = host={host} port={server} dbname={DATABASE} user={APP_ROLE}\n[pgbouncer]\n\
         listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir = {home}/{name}\nauth_type = any\n\
         pool_mode = {mode}\nadmin_users = {APP_ROLE}, pgbouncer\ndefault_pool_size = {size}\nmax_client_conn = 2000\nserver_reset_query = DISCARD ALL\n\
         server_check_query = SELECT 'check'\nserver_check_delay = {check}\npidfile = {home}/{name}.pid\n\
         logfile = {home}/{name}.log\nlog_stats = 0\n",
        server = place.behind_port,
        port = place.port,
        size = place.size,
        mode = setup.mode,
        name = place.name,
        check = if setup.checks { 0 } else { 30 },
    );
    if setup.logged {
        text += "verbose = 3\n";
    }
    if setup.program == Program::NewBouncer {
        text += "max_prepared_statements = 100\n";
    }
    if setup.tls {
        let folder = scene.certificates();
        let file = |name: &str| folder.join(name).display().to_string();
        text += &format!(
            "client_tls_sslmode = require\nclient_tls_key_file = {key}\nclient_tls_cert_file = {cert}\n\
             client_tls_ca_file = {authority}\nserver_tls_sslmode = verify-ca\nserver_tls_ca_file = {authority}\n",
            key = file("server.key"),
            cert = file("server.crt"),
            authority = file("ca.crt"),
        );
    }
    text
}

fn pgpool_command(scene: &Scene, setup: &Setup, place: Place, unit: &Unit) -> Result<Command> {
    let (uid, gid) = scene.account();
    let home = scene.home();
    let host = match setup.way {
        Way::Unix => home.join(place.behind).display().to_string(),
        Way::Tcp => "127.0.0.1".to_owned(),
    };
    let text = format!(
        "backend_clustering_mode = 'raw'\nlisten_addresses = '127.0.0.1'\nport = {port}\nsocket_dir = '{home}/{name}'\n\
         pcp_port = {pcp}\npcp_socket_dir = '{home}/{name}'\nbackend_hostname0 = '{host}'\nbackend_port0 = {server}\n\
         backend_weight0 = 1\nnum_init_children = {size}\nmax_pool = 1\nenable_pool_hba = off\n\
         reserved_connections = 0\nlisten_backlog_multiplier = 100\nconnection_cache = on\n\
         pid_file_name = '{home}/{name}.pid'\nlogdir = '{home}'\nwork_dir = '{home}'\n\
         memory_cache_enabled = off\nhealth_check_period = 0\nsr_check_period = 0\nfailover_on_backend_error = off\n\
         load_balance_mode = off\nlog_destination = 'stderr'\n",
        port = place.port,
        size = place.size,
        pcp = crate::cluster::free_port()?,
        home = home.display(),
        server = place.behind_port,
        name = place.name,
    );
    let file = home.join("pgpool.conf");
    fs::write(&file, text).context("writing the pooler's configuration")?;
    let mut command = unit.command(Path::new("/usr/bin/setpriv"));
    command.args([
        "--reuid",
        &uid.to_string(),
        "--regid",
        &gid.to_string(),
        "--clear-groups",
    ]);
    command.arg(pgpool()?).arg("-n").arg("-f").arg(file);
    // Others are optional; these would be looked for where the package has its own.
    for (option, name) in [("-a", "pool_hba.conf"), ("-F", "pcp.conf")] {
        let file = home.join(name);
        fs::write(&file, "")?;
        command.arg(option).arg(file);
    }
    Ok(command)
}

fn bouncer() -> Result<PathBuf> {
    installed(&["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer"])
}

fn pgpool() -> Result<PathBuf> {
    installed(&["/usr/sbin/pgpool", "/usr/bin/pgpool"])
}

fn installed(places: &[&str]) -> Result<PathBuf> {
    let found = places.iter().map(PathBuf::from).find(|path| path.is_file());
    found.with_context(|| format!("{} is not installed", places.join(" or ")))
}

/// In a root of its own, with the scene's folder mounted where it is outside, too.
const WITHIN: &str =
    r#"mkdir -p "$1$2" && mount --bind "$2" "$1$2" && exec chroot --userspec="$3" --groups= "$1" "$4" "$5""#;
const BOUNCER: &str = "/usr/sbin/pgbouncer";
