//! The servers under load: two with the same data and the same configuration, but for pgAudit.
//!
//! pgAudit can only be loaded when a server starts, and costs something once it is loaded, whatever it is told to log.
//! So there is one server without it, for everything else, and one with it; neither restarts between two measurements.
//! The server's own log is turned on for the sessions of one role, in the first. An idle server uses next to nothing.

use std::{fs, io::Write as _, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use pgwitness_tests::{
    cluster::{APP_ROLE, Cluster, DATABASE, Witness, server_binaries},
    route::Route,
};

use super::account::Account;

/// The role whose sessions the server logs.
pub(crate) const LOGGED_ROLE: &str = "bench_logged";

/// A million accounts' table has 128 MB; with a scale of ten everything stays in memory.
const SCALE: &str = "10";

/// The same for both. The log's process and file are there from the start, so that logging is only writing lines.
const CONFIGURATION: &str = "max_connections = 400\nshared_buffers = 256MB\nmax_wal_size = 4GB\ncheckpoint_timeout = 1h\nlogging_collector = on\n\
     log_destination = 'csvlog'\nlog_filename = 'server.log'\nlog_rotation_age = 0\nlog_rotation_size = 0\n\
     password_encryption = 'md5'\n";

/// Passwords with MD5, because a hundred logins with SCRAM take longer than a measurement.
const HBA: &str = "local all postgres trust\nhost all all 127.0.0.1/32 md5\n";

/// What pgwitness records too: every statement with its parameters, and rows.
const PGAUDIT: &str = "shared_preload_libraries = 'pgaudit'\npgaudit.log = 'all'\npgaudit.log_parameter = on\n\
     pgaudit.log_rows = on\n";

/// Where a client connects, and as whom.
#[derive(Clone, Copy)]
pub(crate) struct Access<'a> {
    pub(crate) port: u16,
    pub(crate) role: &'a str,
    pub(crate) route: Route,
}

/// One running server.
pub(crate) struct Server {
    // Stops before its cgroup goes.
    cluster: Cluster,
    pub(crate) account: Account,
}

impl Server {
    /// Starts a server with the tables of all workloads.
    pub(crate) async fn start(account: Account, pgaudit: bool) -> Result<Self> {
        let mut cluster = Cluster::init_for(server_binaries()?, Witness::Silent, &[Route::Tls])?;
        append(&cluster.data().join("postgresql.conf"), CONFIGURATION)?;
        if pgaudit {
            append(&cluster.data().join("postgresql.conf"), PGAUDIT)?;
        }
        fs::write(cluster.data().join("pg_hba.conf"), HBA)?;
        cluster.start().await?;
        cluster.prepare().await?;
        let pid = fs::read_to_string(cluster.data().join("postmaster.pid"))?;
        let pid = pid.lines().next().and_then(|line| line.trim().parse().ok());
        account.adopt(pid.context("postmaster.pid has no pid")?)?;
        let server = Self { cluster, account };
        server.fill().await?;
        Ok(server)
    }

    async fn fill(&self) -> Result<()> {
        let mut pgbench = Command::new(self.cluster.client_binary("pgbench"));
        let access = Access {
            port: self.cluster.port(),
            role: APP_ROLE,
            route: Route::Tcp,
        };
        self.environment(&mut pgbench, access);
        let output = pgbench.args(["-i", "-q", "-s", SCALE]).output()?;
        ensure!(
            output.status.success(),
            "pgbench -i failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let columns: Vec<String> = (0..200)
            .map(|column| format!("left(md5((g * {column})::text), 8) AS c{column}"))
            .collect();
        let admin = self.cluster.superuser(DATABASE).await?;
        admin
            .batch_execute(&format!(
                "CREATE ROLE {LOGGED_ROLE} LOGIN PASSWORD '{password}' IN ROLE {APP_ROLE};
                 ALTER ROLE {LOGGED_ROLE} SET log_statement = 'all';
                 SET ROLE {APP_ROLE};
                 CREATE TABLE wide AS SELECT g AS id, {columns} FROM generate_series(1, 1000) g;
                 ALTER TABLE wide ADD PRIMARY KEY (id);
                 CREATE TABLE sheet AS SELECT g AS id, repeat(md5(g::text), 3) AS cell FROM generate_series(1, 20000) g;
                 CREATE UNLOGGED TABLE sink (LIKE sheet);
                 GRANT ALL ON ALL TABLES IN SCHEMA public TO {LOGGED_ROLE};
                 RESET ROLE;",
                password = self.cluster.password(),
                columns = columns.join(", "),
            ))
            .await
            .context("making the tables")?;
        // Behind it nothing is left to be written while something is measured. Neither runs in a transaction.
        for statement in ["VACUUM ANALYZE", "CHECKPOINT"] {
            admin.batch_execute(statement).await?;
        }
        Ok(())
    }

    /// What libpq reads; nothing of the caller's environment.
    pub(crate) fn environment(&self, command: &mut Command, access: Access<'_>) {
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .envs(self.cluster.client_environment(access.route))
            .env("PGPORT", access.port.to_string())
            .env("PGUSER", access.role)
            .env("PGPASSWORD", self.cluster.password())
            .env("PGDATABASE", DATABASE);
    }

    pub(crate) fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Ends it in order.
    pub(crate) async fn stop(mut self) -> Result<()> {
        self.cluster.stop().await
    }
}

fn append(path: &Path, text: &str) -> Result<()> {
    let mut file = fs::OpenOptions::new()
        .append(true)
        .open(path)
        .with_context(|| format!("opening {}", path.display()))?;
    file.write_all(text.as_bytes())
        .with_context(|| format!("writing {}", path.display()))
}
