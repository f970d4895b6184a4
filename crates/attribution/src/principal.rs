//! Who it was, and how sure that is.

use std::{fmt::Write as _, sync::Arc};

use crate::{Fact, Process, Relay};

/// Where principals of this host hang.
#[derive(Clone, Debug)]
pub struct Host {
    /// Trust domain of the cluster or site.
    pub trust_domain: String,
    /// Name of the host.
    pub name: String,
}

/// What kind of workload a principal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrincipalKind {
    /// A pod, by the service account whose rights it has.
    Kubernetes,
    /// A container, by its id.
    Container,
    /// A systemd unit.
    Unit,
    /// A person's login.
    Login,
    /// A process that is none of the above.
    Process,
    /// Another host, where no agent runs.
    Remote,
    /// Not known.
    Unknown,
}

/// How sure an attribution is. The order is that of trust.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Confidence {
    /// Unknown.
    None,
    /// The client said so.
    Asserted,
    /// A map that is true at that time, or a unique but not exact match.
    Inferred,
    /// An exact join of observations made in different places.
    Joined,
    /// One kernel saw both ends of this very socket.
    Observed,
}

/// A stable, readable identifier in the form of a SPIFFE ID. It is made here; no certificate was presented.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// Kind of workload.
    pub kind: PrincipalKind,
    /// The identifier, or "unknown".
    pub id: String,
}

/// The answer: who, how sure, by which method, on what evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribution {
    /// Who.
    pub principal: Principal,
    /// How sure.
    pub confidence: Confidence,
    /// "tcp-owner", "tcp-holder", "unix-peer-cred", "address", "lease", "pooler" or "none".
    pub method: &'static str,
    /// Why it is unknown; empty if it is not.
    pub reason: String,
    /// The facts that it rests on.
    pub evidence: Vec<Fact>,
    /// The process behind the client's end.
    pub process: Option<Arc<Process>>,
    /// What passed the statements on, from the client to the server.
    pub hops: Vec<Hop>,
}

/// A relay on the way: by itself it says nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// What kind of relay it is.
    pub relay: Relay,
    /// Its own name, as of any workload; "unknown" if it has none.
    pub principal: Principal,
    /// How sure that is.
    pub confidence: Confidence,
    /// Its process.
    pub process: Arc<Process>,
    /// Of a pooler: the client whose statement it passed on.
    pub client: Option<HopClient>,
}

/// The client of a pooler, by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HopClient {
    /// The pooler's session with it, by the id that it has in records.
    pub session: Arc<str>,
    /// How sure it is who that is.
    pub confidence: Confidence,
    /// How it is known, as [`Attribution::method`].
    pub method: &'static str,
}

impl Principal {
    /// What is known about a process decides in this order: container, unit, login, executable.
    ///
    /// # Errors
    ///
    /// Says why a process cannot be given a name.
    pub fn of_process(host: &Host, process: &Process) -> Result<Self, String> {
        let Some(cgroup) = &process.cgroup_path else {
            // Falling back to the executable would give one workload two names.
            return Err(format!(
                "cgroup {} was gone before its path could be learnt",
                process.cgroup_id
            ));
        };
        let on_host = |kind, folder: &str, name: &str| {
            let mut id = String::with_capacity(ID_BYTES);
            for part in ["spiffe://", &host.trust_domain, "/host/", &host.name, "/", folder] {
                id.push_str(part);
            }
            escape(&mut id, name);
            Self { kind, id }
        };
        // Never the image: two containers share it. Nor, in a pod, the name: every pod of a kind has containers of the same names.
        // Nor in a user's part of the hierarchy: users can give their cgroups the id of any container.
        let name = process.container.as_ref().and_then(|known| known.name.as_deref());
        let name = name.filter(|_| process.hosts_container_id().is_some() && !cgroup.is_in_pod());
        if let Some(name) = name.or_else(|| cgroup.container_id()) {
            let folder = cgroup.user().map(|user| format!("container/{user}/"));
            let folder = folder.as_deref().unwrap_or("container/");
            return Ok(on_host(PrincipalKind::Container, folder, name));
        }
        // Services that start sessions for people put them into their own cgroup where no session manager runs.
        let unit = cgroup
            .unit()
            .filter(|unit| process.login_uid.is_none() || !starts_sessions(unit));
        if let Some(unit) = unit {
            return Ok(on_host(PrincipalKind::Unit, "unit/", unit));
        }
        if let Some(uid) = process.login_uid {
            let name = process
                .login_user
                .as_deref()
                .map_or_else(|| uid.to_string(), str::to_owned);
            return Ok(on_host(PrincipalKind::Login, "login/", &name));
        }
        match &process.exe {
            Some(exe) => Ok(on_host(PrincipalKind::Process, "exe", exe)),
            None => Err("the executable was gone before its path could be learnt".to_owned()),
        }
    }

    /// A pod of a cluster, as the cluster's API server names it: all pods of one service account are one. A pod without one (of a
    /// kubelet's own files) is called by its own name. `None` where a part could not be told from another.
    #[must_use]
    pub fn of_pod(trust_domain: &str, namespace: &str, service_account: &str, name: &str) -> Option<Self> {
        let (folder, last) = match service_account {
            "" => ("/pod/", name),
            account => ("/sa/", account),
        };
        let parts = [trust_domain, namespace, last];
        if parts.iter().any(|part| part.is_empty() || part.contains('/')) {
            return None;
        }
        let mut id = format!("spiffe://{trust_domain}/ns/");
        escape(&mut id, namespace);
        id.push_str(folder);
        escape(&mut id, last);
        Some(Self {
            kind: PrincipalKind::Kubernetes,
            id,
        })
    }

    /// Another host, known by its address only.
    #[must_use]
    pub fn of_address(host: &Host, address: std::net::IpAddr) -> Self {
        Self {
            kind: PrincipalKind::Remote,
            id: format!("spiffe://{}/addr/{address}", host.trust_domain),
        }
    }

    /// Nobody can say.
    #[must_use]
    pub fn unknown() -> Self {
        Self {
            kind: PrincipalKind::Unknown,
            id: "unknown".to_owned(),
        }
    }
}

/// Units whose processes carry the login uid of the person or job that they were started for.
fn starts_sessions(unit: &str) -> bool {
    const NAMES: [&str; 6] = [
        "ssh.service",
        "sshd.service",
        "cron.service",
        "crond.service",
        "atd.service",
        "display-manager.service",
    ];
    NAMES.contains(&unit)
        || ["ssh@", "sshd@", "getty@", "serial-getty@"]
            .iter()
            .any(|prefix| unit.starts_with(prefix))
}

/// Adds a text, percent-encoded where it has what a path segment of a SPIFFE ID may not hold; slashes stay.
fn escape(out: &mut String, text: &str) {
    let may_stay = |byte: u8| byte.is_ascii_alphanumeric() || b"-._/@:".contains(&byte);
    if text.bytes().all(may_stay) {
        out.push_str(text);
        return;
    }
    for byte in text.bytes() {
        if may_stay(byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

/// What most of them have: it is no limit.
const ID_BYTES: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Container;

    fn host() -> Host {
        Host {
            trust_domain: "example.org".into(),
            name: "db1".into(),
        }
    }

    fn process(cgroup: &str) -> Process {
        Process {
            exe: Some("/usr/bin/ps ql".into()),
            cgroup_path: Some(cgroup.into()),
            ..Process::default()
        }
    }

    fn id(process: &Process) -> String {
        Principal::of_process(&host(), process).expect("a name").id
    }

    #[test]
    fn the_most_specific_fact_decides() {
        let mut job = process("/system.slice/orders.service");
        assert_eq!(id(&job), "spiffe://example.org/host/db1/unit/orders.service");
        job.login_uid = Some(1000);
        assert_eq!(id(&job), "spiffe://example.org/host/db1/unit/orders.service");
        job.cgroup_path = Some("/system.slice/ssh.service".into());
        assert_eq!(id(&job), "spiffe://example.org/host/db1/login/1000");
        job.login_user = Some("dba".into());
        job.cgroup_path = Some("/".into());
        assert_eq!(id(&job), "spiffe://example.org/host/db1/login/dba");
        job.login_uid = None;
        assert_eq!(id(&job), "spiffe://example.org/host/db1/exe/usr/bin/ps%20ql");
    }

    #[test]
    fn a_container_is_called_by_its_name_else_by_its_id() {
        let id_of = "a".repeat(64);
        let mut job = process(&format!("/system.slice/docker-{id_of}.scope"));
        let by_id = format!("spiffe://example.org/host/db1/container/{id_of}");
        assert_eq!(id(&job), by_id);
        let known = |name: Option<&str>| {
            Some(Arc::new(Container {
                name: name.map(str::to_owned),
                ..Container::default()
            }))
        };
        job.container = known(None);
        assert_eq!(id(&job), by_id);
        job.container = known(Some("orders"));
        assert_eq!(id(&job), "spiffe://example.org/host/db1/container/orders");
        job.cgroup_path = Some("/system.slice/a.service".into());
        assert_eq!(
            id(&job),
            "spiffe://example.org/host/db1/unit/a.service",
            "it is in none now"
        );
        let made_up = format!("/user.slice/user-1000.slice/user@1000.service/docker-{id_of}.scope");
        job.enter(7, Some(made_up.as_str().into()));
        let of_user = format!("spiffe://example.org/host/db1/container/user-1000/{id_of}");
        assert_eq!(id(&job), of_user);
        job.container = known(Some("orders"));
        assert_eq!(id(&job), of_user, "whoever says so");
    }

    #[test]
    fn a_container_of_a_pod_is_called_by_its_id_and_the_pod_by_its_service_account() {
        let id_of = "b".repeat(64);
        let mut job = process(&format!(
            "/kubepods.slice/kubepods-podc5d9f7f0_1b2c_4d5e_8f90_a1b2c3d4e5f6.slice/cri-containerd-{id_of}.scope"
        ));
        job.container = Some(Arc::new(Container {
            name: Some("app".to_owned()),
            ..Container::default()
        }));
        assert_eq!(
            id(&job),
            format!("spiffe://example.org/host/db1/container/{id_of}")
        );
        let named = |account: &str, name: &str| {
            Principal::of_pod("example.org", "shop", account, name).map(|principal| principal.id)
        };
        let by_account = "spiffe://example.org/ns/shop/sa/orders";
        assert_eq!(named("orders", "orders-x").as_deref(), Some(by_account));
        assert_eq!(
            named("", "etcd-n1").as_deref(),
            Some("spiffe://example.org/ns/shop/pod/etcd-n1")
        );
        assert_eq!(named("a/b", "x"), None, "it would be another's");
        assert_eq!(named("", ""), None);
    }

    #[test]
    fn a_lost_cgroup_gives_no_name_at_all() {
        let mut job = process("/");
        job.cgroup_path = None;
        assert!(Principal::of_process(&host(), &job).is_err());
    }
}
