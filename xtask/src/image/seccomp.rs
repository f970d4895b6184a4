//! What `RuntimeDefault` is: the system calls that containerd lets a container make, by the capabilities that it holds.
//!
//! `seccomp.json` is what containerd 1.6.20 makes on x86-64 (`contrib/seccomp`, Apache-2.0), taken apart by capability. A test on a real node holds
//! it against what the containerd there gives the agent's pod (tests/tests/install/main.rs).

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

/// The file.
#[derive(serde::Deserialize)]
struct Profile {
    /// What everybody may call.
    allowed: Vec<String>,
    /// With these arguments alone.
    limited: Vec<Value>,
    by_capability: BTreeMap<String, Vec<String>>,
    /// For who does not hold CAP_SYS_ADMIN: no new namespaces.
    without_sys_admin: Vec<Value>,
}

/// The filter for who holds these capabilities (`CAP_…`), as runc takes it.
pub(super) fn filter(capabilities: &[String]) -> anyhow::Result<Value> {
    ensure!(
        std::env::consts::ARCH == "x86_64",
        "the runtime's filter of system calls is known for x86-64 alone"
    );
    let profile: Profile =
        serde_json::from_str(include_str!("seccomp.json")).context("seccomp.json is no profile")?;
    let allow = |names: &[String]| json!({"names": names, "action": "SCMP_ACT_ALLOW"});
    let mut rules = vec![allow(&profile.allowed)];
    rules.extend(profile.limited);
    let held = capabilities
        .iter()
        .filter_map(|name| profile.by_capability.get(name));
    rules.extend(held.map(|names| allow(names)));
    if !capabilities.iter().any(|name| name == "CAP_SYS_ADMIN") {
        rules.extend(profile.without_sys_admin);
    }
    Ok(json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": rules,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(filter: &Value, call: &str) -> bool {
        let rules = filter["syscalls"].as_array().expect("rules");
        rules.iter().any(|rule| {
            let names = rule["names"].as_array().expect("names");
            rule["action"] == "SCMP_ACT_ALLOW" && names.contains(&json!(call))
        })
    }

    #[test]
    fn capabilities_open_their_own_calls() {
        let filters = [&[][..], &["CAP_BPF".to_owned()]].map(|held| filter(held).expect("a filter"));
        for (filter, bpf) in filters.iter().zip([false, true]) {
            assert!(allows(filter, "read") && !allows(filter, "unshare"));
            assert_eq!(allows(filter, "bpf"), bpf);
        }
    }
}
