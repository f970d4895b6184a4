//! Whether a node's runtime gives the agent what the bundle has that suites are run in.

use std::collections::BTreeSet;

use serde_json::Value;

/// Holds what containerd made of the pod against the bundle: user, capabilities, filter of system calls, namespaces, mounts, hidden paths.
pub(super) fn is_given(real: &Value, bundle: &Value) {
    for pointer in [
        "/process/user/uid",
        "/process/user/gid",
        "/process/noNewPrivileges",
        "/root/readonly",
        "/linux/seccomp/defaultAction",
    ] {
        assert_eq!(real.pointer(pointer), bundle.pointer(pointer), "{pointer}");
    }
    for pointer in [
        "/process/capabilities/bounding",
        "/process/capabilities/effective",
        "/process/capabilities/permitted",
        "/linux/readonlyPaths",
        "/linux/seccomp/architectures",
    ] {
        assert_eq!(sorted(real, pointer), sorted(bundle, pointer), "{pointer}");
    }
    // Of each processor there are more, if the kernel has them.
    let mut masked = sorted(real, "/linux/maskedPaths");
    masked.retain(|path| !path.starts_with("/sys/devices/system/cpu/"));
    assert_eq!(masked, sorted(bundle, "/linux/maskedPaths"));
    // A pod's own are said by a path, and so is that of its processes, which is the node's.
    let is_nodes = |one: &Value| one["type"] == "pid" && one.get("path").is_some();
    let kinds = |all: &Value| {
        let list = all
            .pointer("/linux/namespaces")
            .and_then(Value::as_array)
            .expect("namespaces");
        let kinds = list
            .iter()
            .filter(|one| !is_nodes(one))
            .map(|one| one["type"].as_str().unwrap_or_default().to_owned());
        kinds.collect::<BTreeSet<_>>()
    };
    assert_eq!(kinds(real), kinds(bundle));
    assert_eq!(allowed(real), allowed(bundle));
    let places = |all: &Value| {
        let list = all.pointer("/mounts").and_then(Value::as_array).expect("mounts");
        let place = |one: &Value| one["destination"].as_str().unwrap_or_default().to_owned();
        list.iter().map(place).collect::<BTreeSet<_>>()
    };
    let missing: Vec<_> = places(bundle).difference(&places(real)).cloned().collect();
    assert!(missing.is_empty(), "{missing:?}");
    // What kubelet and containerd write for every pod.
    let more: Vec<_> = places(real)
        .difference(&places(bundle))
        .filter(|place| !place.starts_with("/etc/") && !place.starts_with("/dev/"))
        .cloned()
        .collect();
    assert!(more.is_empty(), "{more:?}");
}

/// The members of a list of texts, if there is one.
fn sorted(all: &Value, pointer: &str) -> BTreeSet<String> {
    let list = all.pointer(pointer).and_then(Value::as_array);
    let texts = list.into_iter().flatten().filter_map(Value::as_str);
    texts.map(str::to_owned).collect()
}

/// Each call with its rule, whatever the order and the grouping.
fn allowed(all: &Value) -> BTreeSet<String> {
    let rules = all.pointer("/linux/seccomp/syscalls").and_then(Value::as_array);
    let mut found = BTreeSet::new();
    for rule in rules.expect("rules") {
        let rest = format!("{} {} {}", rule["action"], rule["args"], rule["errnoRet"]);
        for name in sorted(rule, "/names") {
            found.insert(format!("{name} {rest}"));
        }
    }
    found
}
