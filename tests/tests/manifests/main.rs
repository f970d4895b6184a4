//! What the manifests let pods do is one list, here and in the documentation; and the chart is the same as the base.
//!
//! The list is exact: whoever gives a pod another privilege, mount, token or right has to write it here, and its reason into
//! docs/kubernetes.md. No cluster is needed.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails by panicking"
)]

mod rendered;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize as _;
use serde_json::Value;

/// Everything in the pods that lets them do or see something, and where they run, and nothing else.
const AGENT: &[&str] = &[
    "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms.0.matchExpressions.0.key eks.amazonaws.com/compute-type",
    "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms.0.matchExpressions.0.operator NotIn",
    "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms.0.matchExpressions.0.values fargate",
    "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms.0.matchExpressions.1.key type",
    "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms.0.matchExpressions.1.operator NotIn",
    "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms.0.matchExpressions.1.values virtual-kubelet",
    "automountServiceAccountToken false",
    "containers.agent.ports.metrics.containerPort 7481",
    "containers.agent.securityContext.allowPrivilegeEscalation false",
    "containers.agent.securityContext.capabilities.add BPF DAC_READ_SEARCH PERFMON SETPCAP SYS_ADMIN SYS_PTRACE",
    "containers.agent.securityContext.capabilities.drop ALL",
    "containers.agent.securityContext.readOnlyRootFilesystem true",
    "containers.agent.volumeMounts.cgroups.mountPath /sys/fs/cgroup",
    "containers.agent.volumeMounts.cgroups.readOnly true",
    "containers.agent.volumeMounts.run.mountPath /run/pgwitness-agent",
    "containers.agent.volumeMounts.state.mountPath /var/lib/pgwitness",
    "hostPID true",
    "initContainers.enroll.securityContext.allowPrivilegeEscalation false",
    "initContainers.enroll.securityContext.capabilities.drop ALL",
    "initContainers.enroll.securityContext.readOnlyRootFilesystem true",
    "initContainers.enroll.volumeMounts.authorities.mountPath /run/pgwitness-authorities",
    "initContainers.enroll.volumeMounts.authorities.readOnly true",
    "initContainers.enroll.volumeMounts.state.mountPath /var/lib/pgwitness",
    "initContainers.enroll.volumeMounts.token.mountPath /run/secrets/pgwitness",
    "initContainers.enroll.volumeMounts.token.readOnly true",
    "metadata.annotations.container.apparmor.security.beta.kubernetes.io/agent unconfined",
    "nodeSelector.kubernetes.io/arch amd64",
    "nodeSelector.kubernetes.io/os linux",
    "priorityClassName pgwitness-agent",
    "securityContext.runAsGroup 0",
    "securityContext.runAsUser 0",
    "securityContext.seccompProfile.type RuntimeDefault",
    "serviceAccountName pgwitness-agent",
    "volumes.authorities.configMap.name pgwitness-authorities",
    "volumes.authorities.configMap.optional true",
    "volumes.cgroups.hostPath.path /sys/fs/cgroup",
    "volumes.cgroups.hostPath.type Directory",
    "volumes.run.emptyDir.medium Memory",
    "volumes.run.emptyDir.sizeLimit 1Mi",
    "volumes.state.hostPath.path /var/lib/pgwitness",
    "volumes.state.hostPath.type DirectoryOrCreate",
    "volumes.token.projected.defaultMode 256",
    "volumes.token.projected.sources.0.serviceAccountToken.audience pgwitness-collector",
    "volumes.token.projected.sources.0.serviceAccountToken.expirationSeconds 600",
    "volumes.token.projected.sources.0.serviceAccountToken.path token",
];

/// The same of the collector.
const COLLECTOR: &[&str] = &[
    "automountServiceAccountToken true",
    "containers.collector.ports.grpc.containerPort 7433",
    "containers.collector.ports.metrics.containerPort 7482",
    "containers.collector.securityContext.allowPrivilegeEscalation false",
    "containers.collector.securityContext.capabilities.drop ALL",
    "containers.collector.securityContext.readOnlyRootFilesystem true",
    "containers.collector.volumeMounts.record.mountPath /var/lib/pgwitness",
    "containers.collector.volumeMounts.tmp.mountPath /tmp",
    "nodeSelector.kubernetes.io/arch amd64",
    "nodeSelector.kubernetes.io/os linux",
    "securityContext.fsGroup 65532",
    "securityContext.fsGroupChangePolicy OnRootMismatch",
    "securityContext.runAsGroup 65532",
    "securityContext.runAsNonRoot true",
    "securityContext.runAsUser 65532",
    "securityContext.seccompProfile.type RuntimeDefault",
    "serviceAccountName pgwitness-collector",
    "volumes.tmp.emptyDir.sizeLimit 8Gi",
];

/// The same of the examples that copy the record, but for which volume is read alone, and where they run beside the nodes' kind.
const COPIES: &[&str] = &[
    "automountServiceAccountToken false",
    "containers.copy.securityContext.allowPrivilegeEscalation false",
    "containers.copy.securityContext.capabilities.drop ALL",
    "containers.copy.securityContext.readOnlyRootFilesystem true",
    "containers.copy.volumeMounts.backup.mountPath /backup",
    "containers.copy.volumeMounts.record.mountPath /var/lib/pgwitness",
    "nodeSelector.kubernetes.io/arch amd64",
    "nodeSelector.kubernetes.io/os linux",
    "restartPolicy Never",
    "securityContext.fsGroup 65532",
    "securityContext.fsGroupChangePolicy OnRootMismatch",
    "securityContext.runAsGroup 65532",
    "securityContext.runAsNonRoot true",
    "securityContext.runAsUser 65532",
    "securityContext.seccompProfile.type RuntimeDefault",
    "volumes.backup.persistentVolumeClaim.claimName pgwitness-backup",
    "volumes.record.persistentVolumeClaim.claimName record-pgwitness-collector-0",
];

/// What the API server lets anybody of this do, and whom.
const RIGHTS: &[&str] = &[
    "ClusterRole pgwitness-collector: apps/replicasets list watch",
    "ClusterRole pgwitness-collector: authentication.k8s.io/tokenreviews create",
    "ClusterRole pgwitness-collector: batch/jobs list watch",
    "ClusterRole pgwitness-collector: pods list watch",
    "ClusterRoleBinding pgwitness-collector: ClusterRole pgwitness-collector to ServiceAccount pgwitness-collector",
    "Role pgwitness-collector: configmaps pgwitness-authorities patch",
    "Role pgwitness-collector: pods get",
    "RoleBinding pgwitness-collector: Role pgwitness-collector to ServiceAccount pgwitness-collector",
];

/// What of a pod and its containers gives nobody a right. Whatever is not here is compared.
const HARMLESS: &[&str] = &[
    "args",
    "enableServiceLinks",
    "env",
    "envFrom",
    "image",
    "imagePullPolicy",
    "livenessProbe",
    "readinessProbe",
    "resources",
    "startupProbe",
    "terminationGracePeriodSeconds",
    "tolerations",
];

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/kubernetes")
}

type Objects = BTreeMap<(String, String), Value>;

/// The objects of YAML documents, by kind and name; the namespace is the installation's.
fn objects(text: &str) -> Objects {
    let documents = serde_norway::Deserializer::from_str(text);
    let values = documents.map(|document| Value::deserialize(document).expect("YAML"));
    let mut objects = Objects::new();
    for mut value in values.filter(|value| !value.is_null()) {
        let name = value["metadata"]["name"].as_str().expect("a name").to_owned();
        let kind = value["kind"].as_str().expect("a kind").to_owned();
        if let Some(metadata) = value["metadata"].as_object_mut() {
            metadata.remove("namespace");
        }
        let former = objects.insert((kind, name), value);
        assert!(former.is_none(), "{former:?} is there twice");
    }
    objects
}

/// The base, as its files are.
fn base() -> Objects {
    let folder = deploy().join("base");
    let list = fs::read_to_string(folder.join("kustomization.yaml")).expect("the list of files");
    let list: Value = serde_norway::from_str(&list).expect("YAML");
    let mut all = Objects::new();
    for file in list["resources"].as_array().expect("files") {
        let file = folder.join(file.as_str().expect("a file's name"));
        all.append(&mut objects(
            &fs::read_to_string(file).expect("a file of the base"),
        ));
    }
    all
}

fn get<'a>(objects: &'a Objects, kind: &str, name: &str) -> &'a Value {
    objects
        .get(&(kind.to_owned(), name.to_owned()))
        .expect("it is there")
}

/// Each value on a line behind the way to it; members of lists by their names.
fn flatten(way: &str, value: &Value, into: &mut Vec<String>) {
    let below = |key: &str| match way {
        "" => key.to_owned(),
        way => format!("{way}.{key}"),
    };
    match value {
        Value::Object(members) => {
            for (key, value) in members
                .iter()
                .filter(|(key, _)| !HARMLESS.contains(&key.as_str()))
            {
                // It is in the way already.
                if key != "name" || way.is_empty() || !is_item(way) {
                    flatten(&below(key), value, into);
                }
            }
        }
        Value::Array(items) if items.iter().all(Value::is_object) => {
            for (number, item) in items.iter().enumerate() {
                let name = item["name"]
                    .as_str()
                    .map_or_else(|| number.to_string(), str::to_owned);
                flatten(&below(&name), item, into);
            }
        }
        Value::Array(items) => {
            let words: Vec<String> = items.iter().map(word).collect();
            into.push(format!("{way} {}", words.join(" ")));
        }
        value => into.push(format!("{way} {}", word(value))),
    }
}

/// Whether this is the way to a member of one of the lists whose members have names.
fn is_item(way: &str) -> bool {
    let lists = ["containers", "initContainers", "ports", "volumeMounts", "volumes"];
    let list = way.rsplit('.').nth(1);
    list.is_some_and(|list| lists.contains(&list))
}

fn word(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// All that a workload's pods may do.
fn privileges(workload: &Value) -> Vec<String> {
    let template = &workload["spec"]["template"];
    let mut lines = Vec::new();
    flatten("", &template["spec"], &mut lines);
    if let Some(annotations) = template["metadata"].get("annotations") {
        flatten("metadata.annotations", annotations, &mut lines);
    }
    lines.sort();
    lines
}

#[test]
fn pods_may_do_what_is_listed_and_nothing_else() {
    let base = base();
    assert_eq!(privileges(get(&base, "DaemonSet", "pgwitness-agent")), AGENT);
    assert_eq!(
        privileges(get(&base, "StatefulSet", "pgwitness-collector")),
        COLLECTOR
    );
    let workloads = base.keys().filter(|(kind, _)| {
        ![
            "ClusterRole",
            "ClusterRoleBinding",
            "ConfigMap",
            "NetworkPolicy",
            "PriorityClass",
            "Role",
            "RoleBinding",
            "Service",
            "ServiceAccount",
        ]
        .contains(&kind.as_str())
    });
    assert_eq!(workloads.count(), 2, "no others have pods");
}

#[test]
fn what_is_given_in_passing_is_seen() {
    let mut agent = get(&base(), "DaemonSet", "pgwitness-agent").clone();
    let pod = &mut agent["spec"]["template"]["spec"];
    pod["containers"][0]["ports"][0]["hostPort"] = Value::from(7481);
    pod["hostNetwork"] = Value::from(true);
    let lines = privileges(&agent);
    let more: Vec<_> = lines
        .iter()
        .filter(|line| !AGENT.contains(&line.as_str()))
        .collect();
    assert_eq!(
        more,
        ["containers.agent.ports.metrics.hostPort 7481", "hostNetwork true"]
    );
}

#[test]
fn copies_of_the_record_are_made_by_who_may_do_nothing_else() {
    let base = base();
    let collector = &get(&base, "StatefulSet", "pgwitness-collector")["spec"]["template"]["spec"];
    for (file, kind, name, only_read) in [
        ("backup.yaml", "CronJob", "pgwitness-backup", "record"),
        ("restore.yaml", "Job", "pgwitness-restore", "backup"),
    ] {
        let text = fs::read_to_string(deploy().join("examples").join(file)).expect("an example");
        let given = objects(&text);
        assert_eq!(given.len(), 2, "{file}: a volume, and who copies");
        let work = get(&given, kind, name);
        let job = if kind == "Job" {
            work
        } else {
            &work["spec"]["jobTemplate"]
        };
        let mut lines = privileges(job);
        let read = format!("containers.copy.volumeMounts.{only_read}.readOnly true");
        assert!(lines.contains(&read), "{file}: {lines:?}");
        lines.retain(|line| *line != read && !line.starts_with("affinity.podAffinity."));
        assert_eq!(lines, COPIES, "{file}");
        let image = &job["spec"]["template"]["spec"]["containers"][0]["image"];
        assert_eq!(image, &collector["containers"][0]["image"], "{file}");
    }
}

#[test]
fn rights_are_what_is_listed_and_nothing_else() {
    let mut found = Vec::new();
    for ((kind, name), object) in base() {
        for rule in object["rules"].as_array().into_iter().flatten() {
            let words = |key: &str| {
                let list = rule[key].as_array().cloned().unwrap_or_default();
                list.iter().map(word).collect::<Vec<_>>()
            };
            let group = words("apiGroups").join(",");
            let resources = words("resources").join(",");
            let place = if group.is_empty() {
                resources
            } else {
                format!("{group}/{resources}")
            };
            let names = words("resourceNames")
                .iter()
                .map(|name| format!(" {name}"))
                .collect::<String>();
            found.push(format!(
                "{kind} {name}: {place}{names} {}",
                words("verbs").join(" ")
            ));
        }
        for subject in object["subjects"].as_array().into_iter().flatten() {
            let role = &object["roleRef"];
            found.push(format!(
                "{kind} {name}: {} {} to {} {}",
                word(&role["kind"]),
                word(&role["name"]),
                word(&subject["kind"]),
                word(&subject["name"])
            ));
        }
    }
    found.sort();
    assert_eq!(found, RIGHTS);
}

#[test]
fn the_agent_has_the_capabilities_of_its_unit() {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/systemd/pgwitness-agent.service");
    let unit = fs::read_to_string(unit).expect("the unit");
    let list = unit
        .lines()
        .find_map(|line| line.strip_prefix("CapabilityBoundingSet="))
        .expect("its list");
    let mut of_unit: Vec<&str> = list
        .split_ascii_whitespace()
        .filter_map(|name| name.strip_prefix("CAP_"))
        .collect();
    of_unit.sort_unstable();
    let line = AGENT
        .iter()
        .find_map(|line| line.strip_prefix("containers.agent.securityContext.capabilities.add "));
    assert_eq!(line.expect("listed"), of_unit.join(" "));
}

#[test]
fn everything_that_is_listed_has_its_reason() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/kubernetes.md");
    let docs = fs::read_to_string(docs).expect("the documentation");
    let mut told: Vec<&str> = Vec::new();
    for line in AGENT.iter().chain(COLLECTOR) {
        let (way, value) = line.split_once(' ').expect("a value");
        if way.ends_with("capabilities.add") {
            told.extend(value.split(' '));
        } else if way.ends_with("hostPath.path") || way.ends_with("mountPath") {
            told.push(value);
        }
    }
    told.extend([
        "hostPID",
        "RuntimeDefault",
        "unconfined",
        "automountServiceAccountToken",
        "readOnlyRootFilesystem",
        "runAsUser",
        "fsGroup",
    ]);
    told.extend(["pods", "replicasets", "jobs", "tokenreviews", "configmaps"]);
    for word in told {
        let is_told = docs
            .lines()
            .any(|line| line.starts_with('|') && line.contains(&format!("`{word}`")));
        assert!(is_told, "docs/kubernetes.md has no row for `{word}`");
    }
}
