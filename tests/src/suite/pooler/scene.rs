//! What each part of the suite needs: a server, a pooler before it, clients of several programs, and a tap.
//!
//! Owns all of it; how it ends is in `ending`.

mod ending;

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::hosts::{CLIENTS_HOST, Hosts, SERVERS_ADDRESS, SERVERS_HOST};
use super::poolers::{self, Place, Poolers, Setup};
use crate::cluster::{APP_ROLE, Cluster, DATABASE, Witness, free_port, server_binaries};
use crate::process::Process;
use crate::route::Route;
use crate::suite::pooled::{FIRST_TICKET, Kind};
use crate::tap::{Agent, Settings, Tap, Tier, sibling};
use crate::unit::Unit;

/// How one reaches the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Unix,
    Tcp,
}

/// Everything of one part. Dropped from the top: clients, pooler, tap, server, folders, cgroups.
#[derive(Debug)]
pub(super) struct Scene {
    clients: Vec<Process>,
    pub(super) pooler: Option<Process>,
    inner: Option<Process>,
    pub(super) tap: Option<Tap>,
    /// Of the pooler's host, if that is another than the server's.
    other: Option<Agent>,
    cluster: Cluster,
    home: TempDir,
    units: Vec<(String, Unit)>,
    pooler_unit: Unit,
    inner_unit: Unit,
    pooler_port: u16,
    inner_port: u16,
    run: String,
    setup: Setup,
    poolers: Poolers,
    started: u64,
    /// The bundle that agents are started from.
    contained: Option<PathBuf>,
    // Behind all units.
    hosts: Option<Hosts>,
}

/// How many clients of each program, and what they do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    pub(super) kind: Kind,
    /// Processes of each program that come by TCP, and connections of each.
    pub(super) tcp: (u64, u64),
    /// Processes of each program that come over a Unix socket, a connection each.
    pub(super) unix: u64,
    /// Units of work of each connection.
    pub(super) units: u64,
    /// Or for how long.
    pub(super) seconds: u64,
    /// Units before a client connects anew.
    pub(super) per_connection: u64,
    /// Whether each program names itself: the pooler then sets that name again and again.
    pub(super) named: bool,
    /// Clients of each program that die in the middle.
    pub(super) doomed: u64,
}

impl Scene {
    /// A server that answers. Neither pooler nor tap.
    pub(super) async fn open(setup: Setup, poolers: &Poolers, contained: Option<&Path>) -> Result<Self> {
        let routes: &[Route] = if setup.tls { &[Route::Tls] } else { &[] };
        let mut cluster = Cluster::init_for(server_binaries()?, Witness::Full, routes)?;
        let home = TempDir::with_prefix("pgwitness-pooler-")?;
        let owner = fs::metadata(cluster.data())?;
        nix::unistd::chown(home.path(), Some(owner.uid().into()), Some(owner.gid().into()))?;
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755))?;
        for name in ["run", POOLER, INNER, "journal"] {
            let folder = home.path().join(name);
            fs::create_dir(&folder)?;
            fs::set_permissions(folder, fs::Permissions::from_mode(0o1777))?;
        }
        configure(&cluster, &home.path().join("run"))?;
        let mut run = format!("pgwitness-pooler-{}", std::process::id());
        let mut hosts = None;
        if setup.apart {
            let apart = Hosts::make(&run)?;
            let start = async || cluster.start().await;
            apart.networks.within(SERVERS_HOST, start).await?;
            apart.take_server(&cluster)?;
            run = apart.run(CLIENTS_HOST);
            hosts = Some(apart);
        } else {
            cluster.start().await?;
        }
        cluster.prepare().await?;
        let admin = cluster.superuser(DATABASE).await?;
        admin
            .batch_execute(&schema())
            .await
            .context("making the pooled tables")?;
        let mut units = Vec::new();
        for program in PROGRAMS {
            units.push((program.to_owned(), Unit::create(&run, program)?));
        }
        Ok(Self {
            clients: Vec::new(),
            pooler: None,
            inner: None,
            tap: None,
            other: None,
            pooler_unit: Unit::create(&run, POOLER)?,
            inner_unit: Unit::create(&run, INNER)?,
            pooler_port: free_port()?,
            inner_port: free_port()?,
            cluster,
            home,
            units,
            hosts,
            run,
            setup,
            poolers: poolers.clone(),
            started: 0,
            contained: contained.map(Path::to_owned),
        })
    }

    pub(super) async fn start_tap(&mut self) -> Result<()> {
        let settings = |host: &str| Settings {
            contained: self.contained.clone(),
            ..match &self.hosts {
                Some(hosts) => hosts.settings(host),
                None => Settings::clear(Tier::Auto),
            }
        };
        let tap = Tap::start(&self.cluster.data(), settings(SERVERS_HOST)).await?;
        if self.hosts.is_some() {
            let mut other = tap.another_agent(CLIENTS_HOST, settings(CLIENTS_HOST))?;
            other.start().await?;
            self.other = Some(other);
        }
        self.tap = Some(tap);
        Ok(())
    }

    pub(super) async fn start_pooler(&mut self) -> Result<()> {
        self.pooler = Some(self.another_pooler(false).await?);
        Ok(())
    }

    /// A pooler that takes over what the one before has, which ends by itself.
    pub(super) async fn succeed(&mut self) -> Result<()> {
        let successor = self.another_pooler(true).await?;
        let mut before = self.pooler.replace(successor).context("no pooler is running")?;
        before.wait(PATIENCE).await?;
        Ok(())
    }

    /// Says something to the pooler's console.
    pub(super) fn console(&self, command: &str) -> Result<()> {
        let output = Command::new(self.client_binary("psql"))
            .env_clear()
            .envs(environment(&self.home, self.pooler_port, Way::Unix))
            .args(["-XAtq", "-d", "pgbouncer", "-c", command])
            .output()
            .context("running psql")?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "{command} failed: {said}");
        Ok(())
    }

    async fn another_pooler(&mut self, successor: bool) -> Result<Process> {
        let server = Place {
            name: POOLER,
            port: self.pooler_port,
            behind: "run",
            behind_port: self.cluster.port(),
            size: SERVERS,
            successor,
        };
        let mut outer = server;
        if self.setup.chained {
            if self.inner.is_none() {
                let place = Place {
                    name: INNER,
                    port: self.inner_port,
                    size: FEWER,
                    ..server
                };
                self.inner = Some(self.started(place, &self.inner_unit).await?);
            }
            outer = Place {
                behind: INNER,
                behind_port: self.inner_port,
                ..server
            };
        }
        self.started(outer, &self.pooler_unit).await
    }

    async fn started(&self, place: Place, unit: &Unit) -> Result<Process> {
        let mut command = poolers::command(self, &self.setup, place, unit, &self.poolers)?;
        let said = self.home.path().join(SAID);
        let file = File::options().create(true).append(true).open(&said)?;
        command
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .current_dir(self.home.path());
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file);
        self.there(async || self.listening(command, &said, place.port).await)
            .await
    }

    /// On the clients' and the pooler's host.
    async fn there<T>(&self, work: impl AsyncFnOnce() -> Result<T>) -> Result<T> {
        match &self.hosts {
            Some(hosts) => hosts.networks.within(CLIENTS_HOST, work).await,
            None => work().await,
        }
    }

    async fn listening(&self, mut command: Command, said: &Path, port: u16) -> Result<Process> {
        let mut process = Process::start("the pooler", &mut command, Signal::SIGINT)?;
        let deadline = Instant::now() + PATIENCE;
        // A connection would be a client: only look whether the port is taken.
        while std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            if process.ended()?.is_some() || Instant::now() > deadline {
                bail!("the pooler does not listen; it said: {}", tail(said));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(process)
    }

    pub(super) fn home(&self) -> &Path {
        self.home.path()
    }

    /// Where the pooler reaches the server by TCP.
    pub(super) fn server_address(&self) -> &'static str {
        match self.hosts {
            Some(_) => SERVERS_ADDRESS,
            None => "127.0.0.1",
        }
    }

    /// Certificates of the server; the pooler runs under its account and shows the same.
    pub(super) fn certificates(&self) -> PathBuf {
        self.cluster.socket_folder().join("tls")
    }

    /// User and group that server and pooler run under.
    pub(super) fn account(&self) -> (u32, u32) {
        fs::metadata(self.cluster.data()).map_or((0, 0), |data| (data.uid(), data.gid()))
    }

    /// Starts the clients of every program.
    pub(super) async fn start_clients(&mut self, load: &Load) -> Result<()> {
        let mut commands = self.commands(load)?;
        let start = async || {
            let started = commands.iter_mut();
            started
                .map(|command| Process::start("a client", command, Signal::SIGKILL))
                .collect::<Result<Vec<_>>>()
        };
        let started = self.there(start).await?;
        self.clients.extend(started);
        Ok(())
    }

    fn commands(&mut self, load: &Load) -> Result<Vec<Command>> {
        let mut commands = Vec::new();
        let program = sibling("truth-pooled")?;
        let said = File::options()
            .create(true)
            .append(true)
            .open(self.home.path().join(SAID))?;
        for (name, unit) in &self.units {
            let tcp = (0..load.tcp.0).map(|_| (Way::Tcp, load.tcp.1, false));
            let unix = (0..load.unix).map(|_| (Way::Unix, 1, false));
            let doomed = (0..load.doomed).map(|number| match number % 2 {
                0 => (Way::Tcp, 1, true),
                _ => (Way::Unix, 1, true),
            });
            for (way, connections, doom) in tcp.chain(unix).chain(doomed) {
                self.started += 1;
                let mut command = unit.command(&program);
                command
                    .env_clear()
                    .envs(environment(&self.home, self.pooler_port, way));
                if self.setup.tls {
                    command.envs(self.cluster.client_environment(Route::Tls));
                    command.env("PGPORT", self.pooler_port.to_string());
                    command.env("PATH", "/usr/bin:/bin");
                }
                for (key, value) in [
                    ("CONNECTIONS", connections),
                    ("UNITS", if load.seconds > 0 { u64::MAX } else { load.units }),
                    ("SECONDS", load.seconds),
                    ("PER_CONNECTION", load.per_connection),
                    ("DOOM", u64::from(doom)),
                    ("SEED", self.started),
                ] {
                    command.env(key, value.to_string());
                }
                command.env("PROGRAM", name).env("KIND", load.kind.name());
                if load.named {
                    command.env("NAMED", "1");
                }
                command
                    .stdin(Stdio::null())
                    .stdout(said.try_clone()?)
                    .stderr(said.try_clone()?);
                commands.push(command);
            }
        }
        Ok(commands)
    }

    /// A program that keeps no journal: its texts carry its mark (`/* m=NAME.; */`).
    pub(super) fn start_program(&mut self, name: &str, program: &Path, arguments: &[&str]) -> Result<()> {
        let unit = Unit::create(&self.run, name)?;
        let mut command = unit.command(program);
        // One of an address: over the Unix socket the pooler's log knows it by its process.
        command
            .args(arguments)
            .env_clear()
            .envs(environment(&self.home, self.pooler_port, Way::Unix));
        let said = File::options()
            .create(true)
            .append(true)
            .open(self.home.path().join(SAID))?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(said);
        self.clients
            .push(Process::start(name, &mut command, Signal::SIGKILL)?);
        self.units.push((name.to_owned(), unit));
        Ok(())
    }

    /// A client program of the server's version.
    pub(super) fn client_binary(&self, name: &str) -> PathBuf {
        self.cluster.client_binary(name)
    }

    /// Waits for the end of all clients.
    pub(super) async fn clients_end(&mut self) -> Result<()> {
        for mut client in self.clients.drain(..) {
            client.wait(CLIENTS_PATIENCE).await?;
        }
        Ok(())
    }

    /// Whether any client is still at work.
    pub(super) fn busy(&mut self) -> bool {
        self.clients
            .iter_mut()
            .any(|client| matches!(client.ended(), Ok(None)))
    }

    /// What clients and pooler complained about: the last of it.
    pub(super) fn said(&self) -> String {
        tail(&self.home.path().join(SAID))
    }
}

fn environment(home: &TempDir, port: u16, way: Way) -> Vec<(&'static str, String)> {
    let host = match way {
        Way::Unix => home.path().join(POOLER).display().to_string(),
        Way::Tcp => "127.0.0.1".to_owned(),
    };
    vec![
        ("PGHOST", host),
        ("PGPORT", port.to_string()),
        ("PGUSER", APP_ROLE.to_owned()),
        ("PGDATABASE", DATABASE.to_owned()),
        ("JOURNAL", home.path().join("journal").display().to_string()),
    ]
}

/// Nobody needs a password here: what a client may do is not what is asked.
fn configure(cluster: &Cluster, sockets: &Path) -> Result<()> {
    let data = cluster.data();
    let path = data.join("postgresql.conf");
    let mut text = fs::read_to_string(&path)?;
    text += &format!(
        "unix_socket_directories = '{}, {}'\nlisten_addresses = '*'\n",
        cluster.socket_folder().display(),
        sockets.display()
    );
    fs::write(path, text)?;
    let hba = format!(
        "local all postgres trust\nlocal all {APP_ROLE} trust\nhost all {APP_ROLE} 0.0.0.0/0 trust\n"
    );
    fs::write(data.join("pg_hba.conf"), hba).context("writing pg_hba.conf")
}

/// The server logs each ticket that it hands out; who gets it knows it from the answer.
fn schema() -> String {
    format!(
        "SET ROLE {APP_ROLE}; CREATE TABLE same (id int PRIMARY KEY, v text NOT NULL);
         INSERT INTO same SELECT g, 'the same for everybody' FROM generate_series(1, 100) g;
         CREATE TABLE sink (n int, t text);
         CREATE SEQUENCE tickets START {FIRST_TICKET};
         CREATE FUNCTION ticket() RETURNS bigint LANGUAGE plpgsql AS $$
           DECLARE n bigint := nextval('tickets'); BEGIN RAISE LOG 'ticket %', n; RETURN n; END $$;
         RESET ROLE;"
    )
}

fn tail(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines
        .get(lines.len().saturating_sub(12)..)
        .unwrap_or_default()
        .join("\n")
}

/// The principals that share one role.
const PROGRAMS: [&str; 8] = [
    "orders", "billing", "search", "worker", "reports", "mailer", "imports", "batch",
];
/// The pooler's own unit.
pub(super) const POOLER: &str = "pooler";
/// That of the one behind it.
pub(super) const INNER: &str = "inner";
/// Connections to the server: always fewer than clients.
const SERVERS: u32 = 5;
const FEWER: u32 = 3;
const SAID: &str = "said.log";
const PATIENCE: Duration = Duration::from_secs(60);
const CLIENTS_PATIENCE: Duration = Duration::from_secs(1_200);
