//! A Kerberos realm that lives as long as one cluster: what GSSAPI encryption needs.
//!
//! Owns a database of principals, a key distribution centre on a loopback port, and the keys and the ticket of one
//! server and one client, all in a folder of its own. It refuses to run as root and to touch the machine's own
//! configuration of Kerberos. Separate from `cluster`, which only points at the files.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid};

use crate::cluster::free_port;
use crate::process::Process;

/// A running realm.
#[derive(Debug)]
pub struct Realm {
    _centre: Process,
    folder: PathBuf,
}

impl Realm {
    /// Makes the realm below `folder`, starts its centre and fetches the client's ticket. `account` runs it.
    ///
    /// # Errors
    /// When one of the programs is missing or fails.
    pub fn start(folder: &Path, account: Option<(Uid, Gid)>) -> Result<Self> {
        for program in ["kdb5_util", "kadmin.local", "krb5kdc", "kinit"] {
            ensure!(
                found(program),
                "{program} is not installed (packages krb5-kdc, krb5-admin-server, krb5-user)"
            );
        }
        let folder = folder.join("kerberos");
        fs::create_dir(&folder).context("a folder for the realm")?;
        if let Some((uid, gid)) = account {
            nix::unistd::chown(&folder, Some(uid), Some(gid)).context("giving the realm's folder away")?;
        }
        let port = free_port()?;
        let place = folder.display();
        fs::write(
            folder.join("krb5.conf"),
            format!(
                "[libdefaults]\n default_realm = {REALM}\n dns_lookup_realm = false\n dns_lookup_kdc = false\n \
                 rdns = false\n dns_canonicalize_hostname = false\n\
                 [realms]\n {REALM} = {{\n  kdc = 127.0.0.1:{port}\n }}\n"
            ),
        )?;
        fs::write(
            folder.join("kdc.conf"),
            format!(
                "[kdcdefaults]\n kdc_listen = 127.0.0.1:{port}\n kdc_tcp_listen = 127.0.0.1:{port}\n\
                 [realms]\n {REALM} = {{\n  database_name = {place}/principal\n  key_stash_file = {place}/stash\n  \
                 acl_file = {place}/acl\n }}\n[logging]\n kdc = FILE:{place}/kdc.log\n"
            ),
        )?;
        let command = |program: &str| {
            let mut command = Command::new(program);
            if let Some((uid, gid)) = account {
                command.uid(uid.as_raw()).gid(gid.as_raw());
            }
            command
                .env_clear()
                .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
                .env("KRB5_CONFIG", folder.join("krb5.conf"))
                .env("KRB5_KDC_PROFILE", folder.join("kdc.conf"))
                .current_dir(&folder)
                .stdin(Stdio::null());
            command
        };
        succeed(command("kdb5_util").args(["create", "-s", "-P", "not a secret", "-r", REALM]))?;
        for (principal, keys) in [(SERVICE, "server.keytab"), (CLIENT, "client.keytab")] {
            succeed(command("kadmin.local").args(["-q", &format!("addprinc -randkey {principal}")]))?;
            succeed(command("kadmin.local").args(["-q", &format!("ktadd -k {place}/{keys} {principal}")]))?;
        }
        let mut centre = command("krb5kdc");
        centre.arg("-n").stdout(Stdio::null()).stderr(Stdio::null());
        let mut centre = Process::start("krb5kdc", &mut centre, Signal::SIGTERM)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut ticket = command("kinit");
            ticket.arg("-c").arg(format!("FILE:{place}/ticket"));
            ticket
                .args(["-k", "-t"])
                .arg(folder.join("client.keytab"))
                .arg(CLIENT);
            match succeed(&mut ticket) {
                Ok(()) => break,
                Err(error) if centre.ended()?.is_some() || Instant::now() > deadline => {
                    bail!("no ticket could be had: {error:#}")
                }
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
        Ok(Self {
            _centre: centre,
            folder,
        })
    }

    /// The configuration that server and clients have to be pointed at (`KRB5_CONFIG`).
    #[must_use]
    pub fn configuration(&self) -> PathBuf {
        self.folder.join("krb5.conf")
    }

    /// The server's keys (`krb_server_keyfile`).
    #[must_use]
    pub fn server_keys(&self) -> PathBuf {
        self.folder.join("server.keytab")
    }

    /// The client's ticket (`KRB5CCNAME`).
    #[must_use]
    pub fn ticket(&self) -> String {
        format!("FILE:{}", self.folder.join("ticket").display())
    }
}

/// Why a server cannot offer GSSAPI: it is a question of how it was built.
#[must_use]
pub fn missing_in(server: &Path) -> Option<String> {
    const NEEDED: &[u8] = b"be_gssapi_read";
    match fs::read(server) {
        Err(error) => Some(format!("{}: {error}", server.display())),
        Ok(bytes) if bytes.windows(NEEDED.len()).any(|window| window == NEEDED) => None,
        Ok(_) => Some("this server is built without GSSAPI".to_owned()),
    }
}

fn found(program: &str) -> bool {
    let folders = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    folders
        .iter()
        .any(|folder| Path::new(folder).join(program).is_file())
}

fn succeed(command: &mut Command) -> Result<()> {
    let name = command.get_program().display().to_string();
    let output = command.output().with_context(|| format!("running {name}"))?;
    ensure!(
        output.status.success(),
        "{name} failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

const REALM: &str = "PGWITNESS.TEST";
const SERVICE: &str = "postgres/localhost";
const CLIENT: &str = "app_user";
const PATIENCE: Duration = Duration::from_secs(10);
