//! The control plane: etcd, API server, controllers and scheduler, each the real one.
//!
//! Owns the four processes, their data and their certificates in the cluster's folder, and the API server's own list of the pods that were
//! made. It refuses callers without a token or a certificate, and lets each component do no more than its own role may.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use serde_json::json;

use super::access::{Access, User};
use super::machine::Machine;
use super::programs::Programs;
use super::tail;
use crate::certificates::Authority;
use crate::cluster::free_port;
use crate::process::Process;

/// Where something of a cluster runs.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place<'a> {
    /// On this machine's loopback.
    Here,
    /// Within the node.
    Node(&'a Machine),
}

impl Place<'_> {
    pub(super) const fn address(self) -> Ipv4Addr {
        match self {
            Self::Here => Ipv4Addr::LOCALHOST,
            Self::Node(machine) => machine.address(),
        }
    }

    /// A command without an environment, whose output goes to `<folder>/<name>.log`.
    pub(super) fn command(self, folder: &Path, name: &str, program: &Path) -> Result<Command> {
        let mut command = match self {
            Self::Here => Command::new(program),
            Self::Node(machine) => machine.command(name, program)?,
        };
        let log = File::create(folder.join(format!("{name}.log"))).context("a component's log")?;
        command
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        Ok(command)
    }
}

/// The running processes.
#[derive(Debug)]
pub(super) struct ControlPlane {
    // Dropped from the top: nobody is left who writes when the store goes.
    controllers: Process,
    scheduler: Process,
    server: Process,
    store: Process,
    /// What starts the API server.
    starts: Command,
    folder: PathBuf,
    authority: Authority,
    access: Access,
}

impl ControlPlane {
    /// Starts it, for so many nodes, and waits until the API server is ready. `folder` is the cluster's own.
    ///
    /// # Errors
    /// When a program is missing, or does not come up; the message carries what it said.
    pub(super) async fn start(
        programs: &Programs,
        folder: &Path,
        place: Place<'_>,
        nodes: usize,
    ) -> Result<Self> {
        let tls = folder.join("tls");
        fs::create_dir(&tls).context("a folder for certificates")?;
        let authority = Authority::make(&tls, "/CN=pgwitness Kubernetes authority")?;
        let port = free_port()?;
        let access = Access::make(folder, &authority.certificate(), (place.address(), port), nodes)?;
        let (store, store_url) = store(programs, folder, place, &authority)?;
        let mut starts = server(programs, folder, place, &authority, &access, (port, &store_url))?;
        let mut server = Process::start(SERVER, &mut starts, Signal::SIGKILL)?;
        ready(programs, folder, &access, &mut server).await?;
        let authority_file = authority.certificate();
        let component = |name: &str, user: User| -> Result<Command> {
            let mut command = place.command(folder, name, &programs.program(name))?;
            let configuration = access.configuration(user);
            for option in [
                "--kubeconfig",
                "--authentication-kubeconfig",
                "--authorization-kubeconfig",
            ] {
                command.arg(option).arg(&configuration);
            }
            // Nobody asks them anything, and there is one of each.
            command.args(["--secure-port=0", "--leader-elect=false"]);
            Ok(command)
        };
        let mut controllers = component("kube-controller-manager", User::Controllers)?;
        controllers
            .arg("--use-service-account-credentials")
            .arg("--service-account-private-key-file")
            .arg(tls.join("service-accounts.key"))
            .arg("--root-ca-file")
            .arg(&authority_file);
        let controllers = Process::start("kube-controller-manager", &mut controllers, Signal::SIGKILL)?;
        let mut scheduler = component("kube-scheduler", User::Scheduler)?;
        let scheduler = Process::start("kube-scheduler", &mut scheduler, Signal::SIGKILL)?;
        Ok(Self {
            controllers,
            scheduler,
            server,
            store,
            starts,
            folder: folder.to_owned(),
            authority,
            access,
        })
    }

    /// Ends the API server as a crash would. Nobody is answered until it is started again.
    pub(super) async fn kill_server(&mut self) -> Result<()> {
        self.server.stop(Signal::SIGKILL, PATIENCE).await.map(drop)
    }

    /// Starts it again at the same place, over the same store and with the same keys, and waits until it is ready.
    pub(super) async fn start_server(&mut self, programs: &Programs) -> Result<()> {
        self.server = Process::start(SERVER, &mut self.starts, Signal::SIGKILL)?;
        ready(programs, &self.folder, &self.access, &mut self.server).await
    }

    /// What the API server answered to whoever made pods or what owns them, a line each (Kubernetes, "Auditing").
    pub(super) fn audit(&self) -> PathBuf {
        self.folder.join(AUDIT)
    }

    pub(super) const fn access(&self) -> &Access {
        &self.access
    }

    pub(super) const fn authority(&self) -> &Authority {
        &self.authority
    }

    /// `kubectl` as that user.
    pub(super) fn kubectl(&self, programs: &Programs, user: User) -> Command {
        kubectl(programs, &self.folder, &self.access, user)
    }

    /// Whether all of it still runs.
    ///
    /// # Errors
    /// When something ended; the message carries what it said last.
    pub(super) fn check(&mut self) -> Result<()> {
        for (name, process) in [
            ("etcd", &mut self.store),
            ("kube-apiserver", &mut self.server),
            ("kube-controller-manager", &mut self.controllers),
            ("kube-scheduler", &mut self.scheduler),
        ] {
            if process.ended()?.is_some() {
                bail!(
                    "{name} ended:\n{}",
                    tail(&self.folder.join(format!("{name}.log")))
                );
            }
        }
        Ok(())
    }
}

async fn ready(programs: &Programs, folder: &Path, access: &Access, server: &mut Process) -> Result<()> {
    let said = || tail(&folder.join("kube-apiserver.log"));
    let deadline = Instant::now() + PATIENCE;
    loop {
        if server.ended()?.is_some() {
            bail!("the API server ended:\n{}", said());
        }
        let output = kubectl(programs, folder, access, User::Admin)
            .args(["get", "--raw", "/readyz"])
            .output()?;
        if output.status.success() {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("the API server is not ready:\n{}", said());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// etcd, which asks whoever speaks to it for a certificate. What it holds need not outlive anything.
fn store(
    programs: &Programs,
    folder: &Path,
    place: Place<'_>,
    authority: &Authority,
) -> Result<(Process, String)> {
    let (certificate, key) = authority.issue("etcd", "/CN=etcd", LOOPBACK)?;
    let url = format!("https://127.0.0.1:{}", free_port()?);
    // It is alone, and insists on a place for others of its kind.
    let for_peers = format!("http://127.0.0.1:{}", free_port()?);
    let mut command = place.command(folder, "etcd", &programs.program("etcd"))?;
    command
        .arg("--data-dir")
        .arg(folder.join("etcd"))
        .args(["--listen-client-urls", &url, "--advertise-client-urls", &url])
        .args(["--listen-peer-urls", &for_peers])
        .args(["--initial-advertise-peer-urls", &for_peers])
        .args(["--initial-cluster", &format!("default={for_peers}")])
        .arg("--client-cert-auth")
        .arg("--trusted-ca-file")
        .arg(authority.certificate())
        .arg("--cert-file")
        .arg(certificate)
        .arg("--key-file")
        .arg(key);
    Ok((Process::start("etcd", &mut command, Signal::SIGKILL)?, url))
}

fn server(
    programs: &Programs,
    folder: &Path,
    place: Place<'_>,
    authority: &Authority,
    access: &Access,
    (port, store): (u16, &str),
) -> Result<Command> {
    let address = place.address();
    let names = format!(
        "subjectAltName=DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,IP:127.0.0.1,\
         IP:{FIRST_SERVICE},IP:{address}"
    );
    let (certificate, key) = authority.issue("kube-apiserver", "/CN=kube-apiserver", &names)?;
    // Towards etcd and kubelets; kubelets ask the API server itself what this user may do.
    let (as_client, as_client_key) = authority.issue(
        "kube-apiserver-client",
        "/O=system:masters/CN=kube-apiserver",
        "extendedKeyUsage=clientAuth",
    )?;
    let (accounts, accounts_key) = authority.issue(
        "service-accounts",
        "/CN=service-accounts",
        "extendedKeyUsage=clientAuth",
    )?;
    let policy = folder.join("audit-policy.json");
    fs::write(&policy, audited()).context("what the API server writes down")?;
    let mut command = place.command(folder, SERVER, &programs.program(SERVER))?;
    let authority = authority.certificate();
    for (option, file) in [
        ("--tls-cert-file", &certificate),
        ("--tls-private-key-file", &key),
        ("--client-ca-file", &authority),
        ("--token-auth-file", &access.tokens()),
        ("--etcd-cafile", &authority),
        ("--etcd-certfile", &as_client),
        ("--etcd-keyfile", &as_client_key),
        ("--kubelet-certificate-authority", &authority),
        ("--kubelet-client-certificate", &as_client),
        ("--kubelet-client-key", &as_client_key),
        ("--service-account-key-file", &accounts),
        ("--service-account-signing-key-file", &accounts_key),
        ("--audit-policy-file", &policy),
        ("--audit-log-path", &folder.join(AUDIT)),
    ] {
        command.arg(option).arg(file);
    }
    command
        .args(["--etcd-servers", store])
        .arg(format!("--bind-address={address}"))
        .arg(format!("--advertise-address={address}"))
        .arg(format!("--secure-port={port}"))
        .args(["--authorization-mode", "Node,RBAC"])
        .args(["--enable-admission-plugins", "NodeRestriction"])
        .args(["--service-cluster-ip-range", SERVICES])
        .args(["--service-account-issuer", "https://kubernetes.default.svc"])
        .args(["--kubelet-preferred-address-types", "InternalIP"]);
    if address.is_loopback() {
        // Services cannot lead there, and there is nobody who would use one.
        command.args(["--endpoint-reconciler-type", "none"]);
    }
    Ok(command)
}

/// Each line is on disk before the answer: pods are made, told of, and bound to nodes; replica sets and jobs are made.
fn audited() -> String {
    json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived", "ResponseStarted"],
        "omitManagedFields": true,
        "rules": [
            {"level": "RequestResponse", "verbs": ["create", "update", "patch"], "resources": [
                {"group": "", "resources": ["pods", "pods/status"]},
            ]},
            {"level": "RequestResponse", "verbs": ["create"], "resources": [
                {"group": "apps", "resources": ["replicasets"]},
                {"group": "batch", "resources": ["jobs"]},
            ]},
            {"level": "None"},
        ],
    })
    .to_string()
}

fn kubectl(programs: &Programs, folder: &Path, access: &Access, user: User) -> Command {
    let mut command = Command::new(programs.program("kubectl"));
    command
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        // What it remembers of the API goes there.
        .env("HOME", folder)
        .env("KUBECONFIG", access.configuration(user));
    command
}

const SERVER: &str = "kube-apiserver";
const AUDIT: &str = "audit.log";
/// Addresses of services, and the one that the API server gets among them.
const SERVICES: &str = "10.96.0.0/16";
const FIRST_SERVICE: &str = "10.96.0.1";
const LOOPBACK: &str = "subjectAltName=DNS:localhost,IP:127.0.0.1";
/// Ten times what it takes on two idle cores.
const PATIENCE: Duration = Duration::from_secs(180);
