//! What a cgroup path says: container, pod, systemd unit, session.
//!
//! Layouts: systemd's (`system.slice/x.service`, `user.slice/…/session-3.scope`), the runtimes' scopes under the systemd
//! driver (`docker-<id>.scope`, `cri-containerd-<id>.scope`, `crio-<id>.scope`, `libpod-<id>.scope`), bare ids under the
//! cgroupfs driver (`docker/<id>`, `kubepods/burstable/pod<uid>/<id>`), and any of these below another (kind, systemd in
//! a container, rootless runtimes below a user's manager).
//!
//! Whoever may write to a part of the hierarchy names what is below it as they like. So no uid of a pod is taken from a user's part,
//! and containers there are that user's; and neither counts below a container of a pod.

use std::{
    borrow::Borrow,
    hash::{Hash, Hasher},
    ops::{Deref, Range},
    sync::Arc,
};

/// The path of a cgroup, shared by all that are in it, with the parts of it that decide on names.
#[derive(Clone, Debug)]
pub struct CgroupPath(Arc<Read>);

#[derive(Debug)]
struct Read {
    path: Box<str>,
    /// Where these stand in the path.
    container_id: Option<Range<u32>>,
    unit: Option<Range<u32>>,
    user: Option<Range<u32>>,
    in_pod: bool,
}

impl CgroupPath {
    /// What it tells.
    #[must_use]
    pub fn placement(&self) -> Placement {
        placement(&self.0.path)
    }

    /// [`Placement::container_id`].
    #[must_use]
    pub fn container_id(&self) -> Option<&str> {
        self.part(self.0.container_id.as_ref())
    }

    /// Whether it is a container's, or below one: [`Self::container_id`] has its id.
    #[must_use]
    pub fn is_container(&self) -> bool {
        self.0.container_id.is_some()
    }

    /// Whether it is a pod's, or below one: [`Self::placement`] has its uid.
    #[must_use]
    pub fn is_in_pod(&self) -> bool {
        self.0.in_pod
    }

    /// [`Placement::unit`].
    #[must_use]
    pub fn unit(&self) -> Option<&str> {
        self.part(self.0.unit.as_ref())
    }

    /// [`Placement::user`].
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.part(self.0.user.as_ref())
    }

    /// How many hold it.
    #[must_use]
    pub fn holders(&self) -> usize {
        Arc::strong_count(&self.0)
    }

    fn part(&self, range: Option<&Range<u32>>) -> Option<&str> {
        let range = range?;
        self.0.path.get(range.start as usize..range.end as usize)
    }
}

impl From<&str> for CgroupPath {
    fn from(path: &str) -> Self {
        let placement = placement(path);
        // All are parts of the path as they stand there.
        let place = |part: Option<&String>| {
            let start = path.find(part?.as_str())?;
            Some(u32::try_from(start).ok()?..u32::try_from(start + part?.len()).ok()?)
        };
        Self(Arc::new(Read {
            path: path.into(),
            container_id: place(placement.container_id.as_ref()),
            unit: place(placement.unit.as_ref()),
            user: place(placement.user.as_ref()),
            in_pod: placement.pod_uid.is_some(),
        }))
    }
}

impl From<String> for CgroupPath {
    fn from(path: String) -> Self {
        path.as_str().into()
    }
}

impl Deref for CgroupPath {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0.path
    }
}

impl PartialEq for CgroupPath {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.path == other.0.path
    }
}

impl Eq for CgroupPath {}

impl Hash for CgroupPath {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // As a text has it, so that it is found by one.
        self.0.path.hash(state);
    }
}

impl Borrow<str> for CgroupPath {
    fn borrow(&self) -> &str {
        &self.0.path
    }
}

/// What the path of a cgroup tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// 64 hexadecimal digits, or the name that LXC gives.
    pub container_id: Option<String>,
    /// "docker", "containerd", "cri-o", "podman", "lxc", as far as the path names it.
    pub runtime: Option<&'static str>,
    /// The pod's uid in its usual form, with dashes.
    pub pod_uid: Option<String>,
    /// A systemd service of the host's own manager, by its whole name.
    pub unit: Option<String>,
    /// A service of a user's manager, or of the manager within a container.
    pub inner_unit: Option<String>,
    /// The innermost slice, by its whole name.
    pub slice: Option<String>,
    /// A login session, as logind numbers it.
    pub session: Option<String>,
    /// Whose part of the hierarchy it is, where a user may give cgroups any name: `user-1000` of `user-1000.slice`, else `user`.
    pub user: Option<String>,
}

/// Reads a path below the root of the unified hierarchy.
#[must_use]
pub fn placement(path: &str) -> Placement {
    let mut found = Placement::default();
    let mut of_host = true;
    let mut of_pods_container = false;
    let mut folder_of = None;
    for component in path.split('/').filter(|component| !component.is_empty()) {
        if component == "docker" {
            folder_of = Some("docker");
        }
        if component.starts_with("user@") || component == "user.slice" {
            of_host = false;
            found.user.get_or_insert_with(|| "user".to_owned());
        } else if found.user.as_deref() == Some("user")
            && let Some(user) = component.strip_suffix(".slice")
            && user.starts_with("user-")
        {
            found.user = Some(user.to_owned());
        }
        // `<slice>:<runtime>:<id>`, where a runtime takes systemd's form of a path for a folder's name.
        for part in component.split(':') {
            if let Some(uid) = pod_uid(part) {
                // The outermost one counts: a pod may make groups below its own.
                if found.user.is_none() {
                    found.pod_uid.get_or_insert(uid);
                }
            } else if !of_pods_container && let Some((id, runtime)) = container(part) {
                // The innermost one counts, down to a pod's: containers run inside containers (kind).
                found.container_id = Some(id.to_owned());
                found.runtime = runtime.or(folder_of.take());
                of_host = false;
                of_pods_container = found.pod_uid.is_some();
            }
        }
        if component.ends_with(".slice") {
            found.slice = Some(component.to_owned());
        } else if let Some(session) = component
            .strip_prefix("session-")
            .and_then(|rest| rest.strip_suffix(".scope"))
        {
            found.session = Some(session.to_owned());
        } else if component.ends_with(".service") && !component.starts_with("user@") {
            let unit = if of_host {
                &mut found.unit
            } else {
                &mut found.inner_unit
            };
            unit.get_or_insert_with(|| component.to_owned());
        }
    }
    found
}

/// `pod<uid>`, or `kubepods-burstable-pod<uid with underscores>.slice`, before which kind writes `kubelet-`.
fn pod_uid(component: &str) -> Option<String> {
    let name = component.strip_suffix(".slice").unwrap_or(component);
    let uid = match name.rsplit_once("-pod") {
        Some((kind, uid)) => kind.contains("kubepods").then_some(uid)?,
        None => name.strip_prefix("pod")?,
    };
    // A UUID, or the 32 digits that static pods have.
    let digits = uid.bytes().filter(u8::is_ascii_hexdigit).count();
    let plausible = digits == 32
        && uid
            .bytes()
            .all(|byte| byte.is_ascii_hexdigit() || byte == b'-' || byte == b'_');
    plausible.then(|| uid.replace('_', "-"))
}

/// A 64-digit id, bare or in a runtime's scope.
fn container(component: &str) -> Option<(&str, Option<&'static str>)> {
    const RUNTIMES: [(&str, &str); 6] = [
        ("docker-", "docker"),
        ("cri-containerd-", "containerd"),
        ("nerdctl-", "containerd"),
        ("crio-", "cri-o"),
        // Podman below the unit that started it (`--cgroups=split`).
        ("libpod-payload-", "podman"),
        ("libpod-", "podman"),
    ];
    if let Some(name) = component.strip_prefix("lxc.payload.") {
        return (!name.is_empty()).then_some((name, Some("lxc")));
    }
    let name = component.strip_suffix(".scope").unwrap_or(component);
    let known = RUNTIMES
        .into_iter()
        .find_map(|(prefix, runtime)| Some((name.strip_prefix(prefix)?, Some(runtime))));
    let (id, runtime) = known.unwrap_or((name, None));
    let is_id = id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id.then_some((id, runtime))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const OTHER: &str = "f123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const UID: &str = "c5d9f7f0-1b2c-4d5e-8f90-a1b2c3d4e5f6";

    #[test]
    fn units_of_the_system_and_not_of_users() {
        let unit = |path: &str| {
            let unit = placement(path).unit;
            assert_eq!(CgroupPath::from(path).unit(), unit.as_deref());
            unit
        };
        assert_eq!(
            unit("/system.slice/orders-api.service").as_deref(),
            Some("orders-api.service")
        );
        assert_eq!(
            unit("/system.slice/a.service/worker.scope").as_deref(),
            Some("a.service")
        );
        assert_eq!(
            unit("/system.slice/system-worker.slice/worker@7.service").as_deref(),
            Some("worker@7.service")
        );
        let user = placement("/user.slice/user-1000.slice/user@1000.service/app.slice/editor.service");
        assert_eq!(
            (user.unit, user.inner_unit.as_deref(), user.slice.as_deref()),
            (None, Some("editor.service"), Some("app.slice"))
        );
        let session = placement("/user.slice/user-1000.slice/session-3.scope");
        assert_eq!((session.unit, session.session.as_deref()), (None, Some("3")));
        assert_eq!(placement("/"), Placement::default());
    }

    #[test]
    fn containers_and_pods_in_each_layout() {
        let underscored = UID.replace('-', "_");
        let cases = [
            (format!("/system.slice/docker-{ID}.scope"), Some("docker"), false),
            (format!("/docker/{ID}"), Some("docker"), false),
            (format!("/docker/{OTHER}/docker/{ID}"), Some("docker"), false),
            (
                format!("/user.slice/user-1000.slice/user@1000.service/user.slice/docker-{ID}.scope"),
                Some("docker"),
                false,
            ),
            (
                format!("/machine.slice/libpod-{ID}.scope/container"),
                Some("podman"),
                false,
            ),
            (
                format!("/machine.slice/machine-libpod_pod_{OTHER}.slice/libpod-{ID}.scope"),
                Some("podman"),
                false,
            ),
            (
                format!("/system.slice/app.service/libpod-payload-{ID}"),
                Some("podman"),
                false,
            ),
            (
                format!("/system.slice/nerdctl-{ID}.scope"),
                Some("containerd"),
                false,
            ),
            (format!("/kubepods/burstable/pod{UID}/{ID}"), None, true),
            (format!("/kubepods/pod{UID}/{ID}"), None, true),
            (
                format!(
                    "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{underscored}.slice/cri-containerd-{ID}.scope"
                ),
                Some("containerd"),
                true,
            ),
            (
                format!("/kubepods.slice/kubepods-pod{underscored}.slice/crio-{ID}.scope/container"),
                Some("cri-o"),
                true,
            ),
            (
                format!("/system.slice/kubepods-burstable-pod{underscored}.slice:cri-containerd:{ID}"),
                None,
                true,
            ),
            // kind: a node that is a container
            (
                format!(
                    "/system.slice/docker-{OTHER}.scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-pod{underscored}.slice/cri-containerd-{ID}.scope"
                ),
                Some("containerd"),
                true,
            ),
            (
                format!("/docker/{OTHER}/kubelet/kubepods/besteffort/pod{UID}/{ID}"),
                None,
                true,
            ),
        ];
        for (path, runtime, is_pod) in cases {
            let found = placement(&path);
            assert_eq!(found.container_id.as_deref(), Some(ID), "{path}");
            assert_eq!(CgroupPath::from(path.as_str()).container_id(), Some(ID), "{path}");
            assert_eq!(found.runtime, runtime, "{path}");
            assert_eq!(found.pod_uid.as_deref(), is_pod.then_some(UID), "{path}");
        }
        let found = placement("/lxc.payload.web1/system.slice/nginx.service");
        assert_eq!(
            (found.container_id.as_deref(), found.runtime),
            (Some("web1"), Some("lxc"))
        );
    }

    #[test]
    fn nobody_makes_up_a_pod() {
        let user = "/user.slice/user-1000.slice/user@1000.service";
        let underscored = UID.replace('-', "_");
        for path in [
            format!("{user}/kubepods/burstable/pod{UID}/{ID}"),
            format!("{user}/kubepods.slice/kubepods-pod{underscored}.slice/cri-containerd-{ID}.scope"),
            format!("{user}/user.slice/docker-{OTHER}.scope/kubelet/kubepods/pod{UID}/{ID}"),
            format!("/docker/{OTHER}/user.slice/user-1000.slice/user@1000.service/pod{UID}/{ID}"),
        ] {
            let found = placement(&path);
            assert_eq!(found.pod_uid, None, "{path}");
            assert_eq!(found.user.as_deref(), Some("user-1000"), "{path}");
            assert!(!CgroupPath::from(path.as_str()).is_in_pod(), "{path}");
            assert_eq!(found.container_id.as_deref(), Some(ID), "{path}");
        }
        let another = UID.replace('c', "d");
        for below in [
            format!("kubepods/pod{another}/{OTHER}"),
            format!("pod{another}/cri-containerd-{OTHER}.scope"),
            format!("container/kubepods/burstable/pod{another}"),
            format!("docker/{OTHER}"),
        ] {
            let path = format!("/kubepods/burstable/pod{UID}/{ID}/{below}");
            let found = placement(&path);
            assert_eq!(found.pod_uid.as_deref(), Some(UID), "{path}");
            assert_eq!(found.container_id.as_deref(), Some(ID), "{path}");
            assert_eq!(CgroupPath::from(path.as_str()).container_id(), Some(ID), "{path}");
        }
    }

    #[test]
    fn a_unit_within_a_container_is_not_the_hosts() {
        let found = placement(&format!(
            "/system.slice/docker-{ID}.scope/system.slice/orders.service"
        ));
        assert_eq!(found.unit, None);
        assert_eq!(found.inner_unit.as_deref(), Some("orders.service"));
        let found = placement(&format!("/system.slice/app.service/libpod-payload-{ID}"));
        assert_eq!(found.unit.as_deref(), Some("app.service"));
    }

    #[test]
    fn look_alikes_are_not_taken() {
        assert_eq!(placement("/podium").pod_uid, None);
        assert_eq!(
            placement(&format!("/tripod-pod{UID}")).pod_uid,
            None,
            "only the kubelet's own"
        );
        assert_eq!(placement("/system.slice/docker-abc.scope").container_id, None);
        let monitor = placement(&format!("/machine.slice/libpod-conmon-{ID}.scope"));
        assert_eq!(monitor.container_id, None, "the monitor is outside");
        assert_eq!(placement(&format!("/crio-conmon-{ID}.scope")).container_id, None);
    }
}
