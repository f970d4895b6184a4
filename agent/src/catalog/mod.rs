//! The optional look at servers' catalogs: what names mean, from those who say so. Off unless `[[catalog]]` is configured.
//!
//! A process of its own holds the connections (`process`), asks a fixed set of questions (`questions`), and hands fixed rows to
//! the process that parses (`protocol`), where `link` makes names of them, and `looks` decides when a look is due and which
//! server it was of. It is a third process because what parses holds nothing, not even a connection, and because a server's
//! answers are as hostile as a client's requests (`docs/adr/0017`).

pub mod link;
pub mod looks;
pub mod process;
pub mod protocol;
mod questions;

use std::{net::IpAddr, path::PathBuf};

use serde::{Deserialize, Serialize};
use tokio_postgres::config::Host;

/// One server whose catalog is looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CatalogConfig {
    /// Where the server is and who asks, as libpq writes it: `host=/run/postgresql port=5432 user=pgwitness`. No password.
    pub connection: String,
    /// Its databases; each takes a connection.
    pub databases: Vec<String>,
    /// File with the role's password, if it takes one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// Seconds between two looks, 5 to 86400. After a definition that is seen, the next one comes at once.
    #[serde(default = "refresh_s")]
    pub refresh_s: u64,
}

fn refresh_s() -> u64 {
    60
}

/// Connections in all: each is a process of its server.
pub const MAX_DATABASES: usize = 64;

/// Why an entry cannot be used: what it has to be.
type Expected = &'static str;

impl CatalogConfig {
    /// Where its server is.
    ///
    /// # Errors
    ///
    /// What the entry has to be.
    pub fn server(&self) -> Result<tokio_postgres::Config, Expected> {
        let config: tokio_postgres::Config = self
            .connection
            .parse()
            .map_err(|_| "it must be as libpq writes it: host=/run/postgresql port=5432 user=NAME")?;
        if config.get_password().is_some() {
            return Err("a password is not to stand there; name its file in password_file");
        }
        if config.get_dbname().is_some() {
            return Err("databases are named in the key databases");
        }
        if config.get_user().is_none() {
            return Err("it must name the user");
        }
        let is_here = match config.get_hosts() {
            [Host::Unix(folder)] => folder.is_absolute() && config.get_hostaddrs().is_empty(),
            [Host::Tcp(address)] => {
                address.parse().is_ok_and(|address: IpAddr| address.is_loopback())
                    && config.get_hostaddrs().is_empty()
            }
            _ => false,
        };
        if !is_here || config.get_ports().len() > 1 {
            return Err("it must have one host: the folder of a server's Unix socket, or a loopback address");
        }
        Ok(config)
    }

    /// The loopback port that is connected to; `None`: a Unix socket.
    pub fn port(&self) -> Option<u16> {
        let config = self.server().ok()?;
        match config.get_hosts() {
            [Host::Tcp(_)] => Some(config.get_ports().first().copied().unwrap_or(5432)),
            _ => None,
        }
    }

    /// Checks what types cannot.
    ///
    /// # Errors
    ///
    /// The value that is wrong, and what it has to be.
    pub fn check(&self) -> Result<(), (String, Expected)> {
        // What is no connection may hold a password.
        self.server()
            .map_err(|expected| ("not usable in `connection`".to_owned(), expected))?;
        let is_name = |name: &String| (1..=63).contains(&name.len()) && !name.contains('\0');
        if self.databases.is_empty() || !self.databases.iter().all(is_name) {
            let databases = format!("databases = {:?}", self.databases);
            return Err((databases, "it must be the names of one database or more"));
        }
        if !(5..=86_400).contains(&self.refresh_s) {
            return Err((
                format!("refresh_s = {}", self.refresh_s),
                "it must be 5 to 86400 seconds",
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::CatalogConfig;

    #[test]
    fn only_servers_of_this_host_are_looked_at_and_no_password_is_written_down() {
        let config = |connection: &str| CatalogConfig {
            connection: connection.to_owned(),
            databases: vec!["shop".to_owned()],
            password_file: None,
            refresh_s: 60,
        };
        for good in [
            "host=/run/postgresql user=pgwitness",
            "host=127.0.0.1 port=6000 user=pgwitness",
            "host=::1 user='p w'",
        ] {
            assert_eq!(config(good).check(), Ok(()), "{good}");
        }
        assert_eq!(config("host=127.0.0.1 port=6000 user=a").port(), Some(6000));
        assert_eq!(config("host=/run port=6000 user=a").port(), None);
        for (bad, words) in [
            ("host=/run/postgresql user=a password=secret", "password_file"),
            ("host=/run/postgresql user=a dbname=shop", "databases"),
            ("host=/run/postgresql", "user"),
            ("host=10.0.0.1 user=a", "loopback"),
            ("host=localhost user=a", "loopback"),
            ("host=127.0.0.1 hostaddr=10.0.0.1 user=a", "loopback"),
            ("user=a", "one host"),
            ("nonsense", "libpq"),
        ] {
            let (value, said) = config(bad).check().expect_err(bad);
            assert!(said.contains(words), "{bad}: {said}");
            assert!(!value.contains("secret"), "{value}");
        }
        let mut none = config("host=/run/postgresql user=a");
        none.databases.clear();
        assert!(none.check().is_err());
        none.databases = vec!["shop".to_owned()];
        none.refresh_s = 1;
        assert!(none.check().is_err());
    }
}
