//! A throwaway PostgreSQL server whose own log is the witness.
//!
//! Owns one data folder and one postmaster, both gone when it is dropped. It refuses to run the server as root and
//! to listen anywhere but on loopback and a socket in its own folder. Separate from `csvlog`, which reads what the
//! server wrote.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid, User};
use rand::Rng as _;
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

use crate::certificates::Certificates;
use crate::kerberos::{self, Realm};
use crate::odd_server::compile;
use crate::process::Process;
use crate::route::Route;

/// The role that every program of a suite shares.
pub const APP_ROLE: &str = "app_user";
/// The database that they use.
pub const DATABASE: &str = "shop";

/// How much of what happens the server's own log tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Witness {
    /// Every statement, and every executed row count by pgAudit.
    Full,
    /// Every statement with its parameters, every replication command; no extension is needed.
    Statements,
    /// As `Statements`, and all that pgAudit says: class, command and objects of each statement.
    Audit,
    /// Nothing: for runs that measure time.
    Silent,
}

/// A server that exists for one suite. Initialised, not started: an agent may begin before the server does.
#[derive(Debug)]
pub struct Cluster {
    // Dropped first: the server must be down before its folder goes.
    postmaster: Option<Process>,
    realm: Option<Realm>,
    certificates: Option<Certificates>,
    folder: TempDir,
    binaries: PathBuf,
    port: u16,
    password: String,
    account: Option<(Uid, Gid)>,
    version: String,
}

impl Cluster {
    /// `initdb` and configuration.
    ///
    /// # Errors
    /// When PostgreSQL is not installed, or `initdb` fails.
    pub fn init(witness: Witness) -> Result<Self> {
        Self::init_with(server_binaries()?, witness)
    }

    /// As [`Cluster::init`], with the server programs of one folder. The account that runs the server must be able to
    /// read it.
    ///
    /// # Errors
    /// As [`Cluster::init`].
    pub fn init_with(binaries: PathBuf, witness: Witness) -> Result<Self> {
        Self::init_for(binaries, witness, &[])
    }

    /// As [`Cluster::init_with`], and offers every way of `routes`: TLS with certificates of its own, GSSAPI with a
    /// realm of its own. Unix and TCP are always offered.
    ///
    /// # Errors
    /// As [`Cluster::init`], and when a way cannot be offered here (see [`Cluster::unavailable`]).
    pub fn init_for(binaries: PathBuf, witness: Witness, routes: &[Route]) -> Result<Self> {
        let folder = TempDir::with_prefix("pgwitness-cluster-").context("making a folder for the cluster")?;
        // Others may not enter: the superuser logs in over the socket in here without a password.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700))?;
        let account = unprivileged_account()?;
        if let Some((uid, gid)) = account {
            nix::unistd::chown(folder.path(), Some(uid), Some(gid)).context("giving the folder away")?;
        }
        let version = Command::new(binaries.join("postgres"))
            .arg("--version")
            .output()?
            .stdout;
        let certificates = match routes.contains(&Route::Tls) {
            true => Some(Certificates::make(folder.path(), account)?),
            false => None,
        };
        let realm = match routes.contains(&Route::Gss) {
            true => Some(Realm::start(folder.path(), account)?),
            false => None,
        };
        let cluster = Self {
            postmaster: None,
            realm,
            certificates,
            folder,
            binaries,
            port: free_port()?,
            password: random_password()?,
            account,
            version: String::from_utf8_lossy(&version).trim().to_owned(),
        };
        let output = cluster
            .server_command(&cluster.binaries.join("initdb"))
            .args([
                "--username=postgres",
                "--auth=reject",
                "--encoding=UTF8",
                "--locale=C",
                "--no-sync",
                "-D",
            ])
            .arg(cluster.data())
            .output()
            .context("running initdb")?;
        ensure!(
            output.status.success(),
            "initdb failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        cluster.configure(witness)?;
        Ok(cluster)
    }

    /// Why a server of these programs cannot offer a way, if it cannot.
    #[must_use]
    pub fn unavailable(binaries: &Path, route: Route) -> Option<String> {
        match route {
            Route::Unix | Route::Tcp | Route::Tls => None,
            Route::Gss => kerberos::missing_in(&binaries.join("postgres")),
        }
    }

    /// What a client's environment has to say to come this way (manual, 34.15). Role, password and database are not
    /// in it.
    #[must_use]
    pub fn client_environment(&self, route: Route) -> Vec<(&'static str, String)> {
        let host = match route {
            Route::Unix => self.socket_folder().display().to_string(),
            Route::Tcp | Route::Tls => "127.0.0.1".to_owned(),
            // The name in the server's principal.
            Route::Gss => "localhost".to_owned(),
        };
        let mut environment = vec![
            ("PGHOST", host),
            ("PGPORT", self.port.to_string()),
            (
                "PGSSLMODE",
                if route == Route::Tls {
                    "verify-full"
                } else {
                    "disable"
                }
                .to_owned(),
            ),
            (
                "PGGSSENCMODE",
                if route == Route::Gss { "require" } else { "disable" }.to_owned(),
            ),
        ];
        if let (Route::Tls, Some(certificates)) = (route, &self.certificates) {
            let authority = certificates.authority().display().to_string();
            let (certificate, key) = certificates.client();
            environment.extend([
                ("PGSSLROOTCERT", authority.clone()),
                ("PGSSLCERT", certificate.display().to_string()),
                ("PGSSLKEY", key.display().to_string()),
                // For those that are not libpq: Node.js, and what is linked with OpenSSL.
                ("NODE_EXTRA_CA_CERTS", authority.clone()),
                ("SSL_CERT_FILE", authority),
            ]);
        }
        if let (Route::Gss, Some(realm)) = (route, &self.realm) {
            environment.extend([
                ("KRB5_CONFIG", realm.configuration().display().to_string()),
                ("KRB5CCNAME", realm.ticket()),
            ]);
        }
        environment
    }

    /// Starts the server and waits until it answers.
    ///
    /// # Errors
    /// When it does not come up within half a minute; the message carries what it said.
    pub async fn start(&mut self) -> Result<()> {
        let command = self.server_command(&self.binaries.join("postgres"));
        self.start_by(command).await
    }

    /// As [`Cluster::start`], under a filter of system calls that does not know the newest ones.
    ///
    /// # Errors
    /// As [`Cluster::start`], and when there is no C compiler.
    pub async fn start_confined(&mut self) -> Result<()> {
        let confine = self.folder.path().join("confine");
        compile(CONFINE, &confine)?;
        let mut command = self.server_command(&confine);
        command.arg(self.binaries.join("postgres"));
        self.start_by(command).await
    }

    async fn start_by(&mut self, mut command: Command) -> Result<()> {
        let said = self.folder.path().join("postmaster.log");
        command
            .arg("-D")
            .arg(self.data())
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command.stderr(File::create(&said).context("opening the server's log")?);
        // SIGQUIT: immediate shutdown, nothing of this data is needed again (manual, 19.5).
        let mut postmaster = Process::start("postgres", &mut command, Signal::SIGQUIT)?;
        let deadline = Instant::now() + START_PATIENCE;
        while self.superuser("postgres").await.is_err() {
            if postmaster.ended()?.is_some() || Instant::now() > deadline {
                bail!(
                    "PostgreSQL did not start: {}",
                    fs::read_to_string(&said).unwrap_or_default()
                );
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.postmaster = Some(postmaster);
        Ok(())
    }

    /// Makes the shared role with its password, the database and the tables that the programs use.
    ///
    /// # Errors
    /// When the server refuses a statement.
    pub async fn prepare(&self) -> Result<()> {
        let admin = self.superuser("postgres").await?;
        admin
            .batch_execute(&format!(
                "CREATE ROLE {APP_ROLE} LOGIN PASSWORD '{}'",
                self.password
            ))
            .await?;
        admin
            .batch_execute(&format!("CREATE DATABASE {DATABASE} OWNER {APP_ROLE}"))
            .await?;
        self.superuser(DATABASE)
            .await?
            .batch_execute(SCHEMA)
            .await
            .context("making the tables")
    }

    /// A connection of the superuser over the Unix socket.
    ///
    /// # Errors
    /// When the server does not let it in.
    pub async fn superuser(&self, database: &str) -> Result<Client> {
        let (client, connection) = tokio_postgres::Config::new()
            .host_path(self.socket_folder())
            .port(self.port)
            .user("postgres")
            .dbname(database)
            .application_name("pgwitness-truth")
            .connect(NoTls)
            .await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// Fast shutdown: sessions are ended, the log is complete.
    ///
    /// # Errors
    /// When it takes more than half a minute.
    pub async fn stop(&mut self) -> Result<()> {
        if let Some(mut postmaster) = self.postmaster.take() {
            postmaster.stop(Signal::SIGINT, START_PATIENCE).await?;
        }
        Ok(())
    }

    /// The data folder.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The folder of the Unix socket.
    #[must_use]
    pub fn socket_folder(&self) -> &Path {
        self.folder.path()
    }

    /// The port, on 127.0.0.1 and in the socket's name.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The account that the server runs under, if not the caller's own.
    #[must_use]
    pub fn account(&self) -> Option<(Uid, Gid)> {
        self.account
    }

    /// The shared role's password.
    #[must_use]
    pub fn password(&self) -> &str {
        &self.password
    }

    /// Where the server's csvlog is.
    #[must_use]
    pub fn csvlog(&self) -> PathBuf {
        self.data().join("log/server.csv")
    }

    /// A client program of this server's version, not a distribution's wrapper.
    #[must_use]
    pub fn client_binary(&self, name: &str) -> PathBuf {
        self.binaries.join(name)
    }

    /// `postgres (PostgreSQL) 15.1`
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    fn server_command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        if let Some((uid, gid)) = self.account {
            command.uid(uid.as_raw()).gid(gid.as_raw());
        }
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("LC_ALL", "C")
            .current_dir(self.folder.path());
        if let Some(realm) = &self.realm {
            // No replay cache: it would be a file outside of the folder.
            command
                .env("KRB5_CONFIG", realm.configuration())
                .env("KRB5RCACHENAME", "none:");
        }
        command
    }

    fn configure(&self, witness: Witness) -> Result<()> {
        let mut conf = format!(
            "port = {}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '{}'\n{BASE_CONF}",
            self.port,
            self.socket_folder().display()
        );
        conf.push_str(match witness {
            Witness::Full => WITNESS_CONF,
            Witness::Statements | Witness::Audit => STATEMENTS_CONF,
            Witness::Silent => "",
        });
        if witness == Witness::Audit {
            conf.push_str(AUDIT_CONF);
        }
        // The last line of a setting counts.
        if let Some(certificates) = &self.certificates {
            conf.push_str(&certificates.configuration());
        }
        if let Some(realm) = &self.realm {
            conf.push_str(&format!(
                "krb_server_keyfile = '{}'\n",
                realm.server_keys().display()
            ));
        }
        let mut file = fs::OpenOptions::new()
            .append(true)
            .open(self.data().join("postgresql.conf"))?;
        file.write_all(conf.as_bytes())
            .context("writing postgresql.conf")?;
        let hba = match witness {
            Witness::Statements | Witness::Audit => STATEMENTS_HBA,
            Witness::Full | Witness::Silent => HBA,
        };
        fs::write(self.data().join("pg_hba.conf"), hba).context("writing pg_hba.conf")
    }
}

/// The folder with `initdb` and `postgres`: `pg_config --bindir`, else the newest that Debian installed.
///
/// # Errors
/// When there is none.
pub fn server_binaries() -> Result<PathBuf> {
    if let Ok(output) = Command::new("pg_config").arg("--bindir").output() {
        let folder = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
        if folder.join("initdb").is_file() && folder.join("pgbench").is_file() {
            return Ok(folder);
        }
    }
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            let folder = entry.path().join("bin");
            folder.join("initdb").is_file().then_some((version, folder))
        })
        .collect();
    versions.sort();
    let (_, folder) = versions
        .pop()
        .context("no PostgreSQL server found: install the package postgresql")?;
    Ok(folder)
}

/// A TCP port on 127.0.0.1 that nobody listens on now, and that the kernel gives to no client: whoever starts a server again finds
/// it free (ephemeral ports are 32768 to 60999, ip(7)).
///
/// # Errors
/// When none can be bound.
pub fn free_port() -> Result<u16> {
    const TRIES: usize = 1000;
    for _ in 0..TRIES {
        let port = rand::thread_rng().gen_range(10_000..32_000);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no port from 10000 to 31999 is free")
}

/// PostgreSQL refuses to run as root; as anybody else it runs under the caller's own account.
fn unprivileged_account() -> Result<Option<(Uid, Gid)>> {
    if !Uid::effective().is_root() {
        return Ok(None);
    }
    let user =
        User::from_name("postgres")?.context("there is no account postgres to run the server under")?;
    Ok(Some((user.uid, user.gid)))
}

fn random_password() -> Result<String> {
    let mut bytes = [0_u8; 16];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .context("reading randomness")?;
    Ok(bytes
        .iter()
        .fold("pw-".to_owned(), |text, byte| text + &format!("{byte:02x}")))
}

const CONFINE: &str = include_str!("../programs/confine.c");
const START_PATIENCE: Duration = Duration::from_secs(30);

/// The superuser over the socket, the shared role with its password everywhere.
const HBA: &str = "local all postgres trust\n\
                   local all app_user scram-sha-256\n\
                   host all app_user 127.0.0.1/32 scram-sha-256\n";

/// Throwaway data: no waiting for disks. Enough connections for every suite.
const BASE_CONF: &str = "max_connections = 200\nshared_buffers = 64MB\nfsync = off\nsynchronous_commit = off\n\
                         full_page_writes = off\nautovacuum = off\nssl = off\nlog_timezone = 'UTC'\n";

/// The independent record. Statement texts come from `log_statement`, which logs before execution and needs no
/// duration; row counts from pgAudit, which counts in the executor.
const WITNESS_CONF: &str = "logging_collector = on\nlog_destination = 'csvlog'\nlog_filename = 'server.log'\n\
    log_rotation_age = 0\nlog_rotation_size = 0\nlog_statement = 'all'\nlog_duration = off\n\
    log_min_duration_statement = -1\nlog_connections = on\nlog_disconnections = on\n\
    log_parameter_max_length = -1\nshared_preload_libraries = 'pgaudit'\npgaudit.log = 'read, write'\n\
    pgaudit.log_rows = on\npgaudit.log_parameter = off\npgaudit.log_catalog = off\n";

/// Every role with its password, also for replication; but for one, whose program speaks the protocol by hand.
const STATEMENTS_HBA: &str = "local all postgres trust\n\
                              local all,replication w_protocol trust\n\
                              local all,replication all scram-sha-256\n\
                              host all,replication w_protocol 127.0.0.1/32 trust\n\
                              host all,replication all 127.0.0.1/32 scram-sha-256\n";

/// The independent record without an extension, so that every version's server can keep it.
const STATEMENTS_CONF: &str = "logging_collector = on\nlog_destination = 'csvlog'\nlog_filename = 'server.log'\n\
    log_rotation_age = 0\nlog_rotation_size = 0\nlog_statement = 'all'\nlog_duration = off\n\
    log_min_duration_statement = -1\nlog_connections = on\nlog_disconnections = on\nlog_replication_commands = on\n\
    log_parameter_max_length = -1\nlog_parameter_max_length_on_error = -1\nlog_min_error_statement = error\n\
    wal_level = logical\nmax_wal_senders = 10\nmax_replication_slots = 10\nmax_prepared_transactions = 10\n\
    password_encryption = 'scram-sha-256'\n";

/// Without rows: with them, pgAudit writes a statement down when it has ended, and none that failed.
const AUDIT_CONF: &str = "shared_preload_libraries = 'pgaudit'\npgaudit.log = 'all'\npgaudit.log_relation = on\n\
    pgaudit.log_parameter = on\npgaudit.log_catalog = on\npgaudit.log_rows = off\n";

/// A small shop, owned by the shared role.
const SCHEMA: &str = "SET ROLE app_user;
    CREATE TABLE customers (id int PRIMARY KEY, email text NOT NULL, region text NOT NULL);
    CREATE TABLE orders (id bigserial PRIMARY KEY, customer int NOT NULL, amount numeric NOT NULL, note text);
    INSERT INTO customers SELECT g, 'user' || g || '@example.org', (ARRAY['north','south','east','west'])[1 + g % 4]
      FROM generate_series(1, 1000) g;
    INSERT INTO orders (customer, amount) SELECT 1 + g % 1000, g % 97 FROM generate_series(1, 2000) g;
    RESET ROLE; ANALYZE;";

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn offers_encryption_and_says_so_itself() {
        let binaries = server_binaries().unwrap();
        let mut routes = vec![Route::Tls];
        if Cluster::unavailable(&binaries, Route::Gss).is_none() {
            routes.push(Route::Gss);
        }
        let mut cluster = Cluster::init_for(binaries, Witness::Silent, &routes).unwrap();
        cluster.start().await.unwrap();
        cluster.prepare().await.unwrap();
        for route in routes {
            let question = match route {
                Route::Gss => "SELECT encrypted FROM pg_stat_gssapi WHERE pid = pg_backend_pid()",
                _ => {
                    "SELECT ssl AND client_dn = '/CN=truth-client' FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
                }
            };
            let output = Command::new(cluster.client_binary("psql"))
                .env_clear()
                .envs(cluster.client_environment(route))
                .envs([
                    ("PGUSER", APP_ROLE),
                    ("PGPASSWORD", cluster.password()),
                    ("PGDATABASE", DATABASE),
                ])
                .args(["-XAtc", question])
                .output()
                .unwrap();
            assert_eq!(
                String::from_utf8_lossy(&output.stdout).trim(),
                "t",
                "{route:?} {output:?}"
            );
        }
    }

    #[tokio::test]
    async fn starts_serves_and_leaves_nothing() {
        let mut cluster = Cluster::init(Witness::Full).unwrap();
        cluster.start().await.unwrap();
        cluster.prepare().await.unwrap();
        let admin = cluster.superuser(DATABASE).await.unwrap();
        let rows = admin.query("SELECT count(*) FROM orders", &[]).await.unwrap();
        assert_eq!(rows[0].get::<_, i64>(0), 2000);
        let folder = cluster.folder.path().to_owned();
        let postmaster = cluster.postmaster.as_ref().unwrap().pid();
        drop(cluster);
        assert!(!folder.exists());
        assert!(!Path::new(&format!("/proc/{postmaster}")).exists());
    }
}
