//! What a cgroup path says: container, pod, systemd unit.
//!
//! Layouts: systemd's (`system.slice/x.service`), the runtimes' scopes under the systemd driver
//! (`docker-<id>.scope`, `cri-containerd-<id>.scope`, `crio-<id>.scope`, `libpod-<id>.scope`) and bare ids under
//! the cgroupfs driver (`docker/<id>`, `kubepods/burstable/pod<uid>/<id>`).

/// What the path of a cgroup tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// 64 hexadecimal digits.
    pub container_id: Option<String>,
    /// "docker", "containerd", "cri-o", "podman", as far as the path names it.
    pub runtime: Option<&'static str>,
    /// The pod's uid in its usual form, with dashes.
    pub pod_uid: Option<String>,
    /// A systemd service, by its whole name. Only the manager of the system counts, not those of users.
    pub unit: Option<String>,
}

/// Reads a path below the root of the unified hierarchy.
#[must_use]
pub fn placement(path: &str) -> Placement {
    let mut found = Placement::default();
    let mut in_user_session = false;
    for component in path.split('/').filter(|component| !component.is_empty()) {
        if component.starts_with("user@") || component == "user.slice" {
            in_user_session = true;
        }
        if let Some(uid) = pod_uid(component) {
            found.pod_uid = Some(uid);
        } else if let Some((id, runtime)) = container(component) {
            // The innermost one counts: containers run inside containers (kind).
            found.container_id = Some(id.to_owned());
            found.runtime = runtime.or(found.runtime);
        } else if component.ends_with(".service") && !in_user_session && found.unit.is_none() {
            found.unit = Some(component.to_owned());
        }
        if component == "docker" {
            found.runtime = Some("docker");
        }
    }
    found
}

/// `pod<uid>` or `kubepods-burstable-pod<uid with underscores>.slice`.
fn pod_uid(component: &str) -> Option<String> {
    let name = component.strip_suffix(".slice").unwrap_or(component);
    let uid = if name.starts_with("kubepods") {
        name.rsplit_once("-pod")?.1
    } else {
        name.strip_prefix("pod")?
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
    const RUNTIMES: [(&str, &str); 5] = [
        ("docker-", "docker"),
        ("cri-containerd-", "containerd"),
        ("nerdctl-", "containerd"),
        ("crio-", "cri-o"),
        ("libpod-", "podman"),
    ];
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
    const UID: &str = "c5d9f7f0-1b2c-4d5e-8f90-a1b2c3d4e5f6";

    #[test]
    fn units_of_the_system_and_not_of_users() {
        assert_eq!(
            placement("/system.slice/orders-api.service").unit.as_deref(),
            Some("orders-api.service")
        );
        assert_eq!(
            placement("/system.slice/a.service/worker.scope").unit.as_deref(),
            Some("a.service")
        );
        let user = "/user.slice/user-1000.slice/user@1000.service/app.slice/editor.service";
        assert_eq!(placement(user), Placement::default());
        assert_eq!(
            placement("/user.slice/user-1000.slice/session-3.scope"),
            Placement::default()
        );
        assert_eq!(placement("/"), Placement::default());
    }

    #[test]
    fn containers_and_pods_in_each_layout() {
        let found = placement(&format!("/system.slice/docker-{ID}.scope"));
        assert_eq!(
            (found.container_id.as_deref(), found.runtime),
            (Some(ID), Some("docker"))
        );
        let found = placement(&format!("/docker/{ID}"));
        assert_eq!(
            (found.container_id.as_deref(), found.runtime),
            (Some(ID), Some("docker"))
        );
        let found = placement(&format!("/kubepods/burstable/pod{UID}/{ID}"));
        assert_eq!(
            (found.pod_uid.as_deref(), found.container_id.as_deref()),
            (Some(UID), Some(ID))
        );
        let slice = format!("kubepods-besteffort-pod{}.slice", UID.replace('-', "_"));
        let found = placement(&format!(
            "/kubepods.slice/kubepods-besteffort.slice/{slice}/cri-containerd-{ID}.scope"
        ));
        assert_eq!(
            (found.pod_uid.as_deref(), found.runtime),
            (Some(UID), Some("containerd"))
        );
        let found = placement(&format!("/kubepods.slice/{slice}/crio-{ID}.scope/container"));
        assert_eq!(
            (found.container_id.as_deref(), found.runtime),
            (Some(ID), Some("cri-o"))
        );
    }

    #[test]
    fn look_alikes_are_not_taken() {
        assert_eq!(placement("/podium").pod_uid, None);
        assert_eq!(placement("/system.slice/docker-abc.scope").container_id, None);
    }
}
