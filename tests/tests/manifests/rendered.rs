//! What kubectl and helm make of the manifests: the chart gives the same objects as the base, and nothing of its values gets lost.
//!
//! Takes both programs, and is skipped without them, which is said.

use std::{
    fs,
    process::{Command, Output},
};

use serde_json::{Value, json};

use super::{AGENT, COLLECTOR, Objects, base, deploy, get, objects, privileges};

/// What a program says, if it is there.
fn said(program: &str, variable: &str, words: &[&str]) -> Option<Output> {
    let program = std::env::var(variable).unwrap_or_else(|_| program.to_owned());
    let said = Command::new(&program).args(words).current_dir(deploy()).output();
    if said.is_err() {
        eprintln!("not run: there is no {program} ({variable} says where it is)");
    }
    said.ok()
}

/// The objects that it prints.
fn rendered(program: &str, variable: &str, words: &[&str]) -> Option<Objects> {
    let said = said(program, variable, words)?;
    let problem = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.status.success(), "{program} {words:?}: {problem}");
    Some(objects(&String::from_utf8(said.stdout).expect("text")))
}

fn kustomized(folder: &str) -> Option<Objects> {
    rendered("kubectl", "PGWITNESS_KUBECTL", &["kustomize", folder])
}

const TEMPLATE: &[&str] = &[
    "template",
    "pgwitness",
    "chart",
    "--namespace",
    "pgwitness",
    "--kube-version",
    "1.30.0",
];

fn templated(words: &[&str]) -> Option<Objects> {
    rendered("helm", "PGWITNESS_HELM", &[TEMPLATE, words].concat())
}

fn chart(settings: &[&str]) -> Option<Objects> {
    let words: Vec<&str> = settings.iter().flat_map(|setting| ["--set", *setting]).collect();
    templated(&words)
}

/// Why the chart does not take a setting.
fn refusal(setting: &str) -> Option<String> {
    let said = said(
        "helm",
        "PGWITNESS_HELM",
        &[TEMPLATE, &["--set", setting]].concat(),
    )?;
    assert!(!said.status.success(), "{setting} was taken");
    Some(String::from_utf8_lossy(&said.stderr).into_owned())
}

#[test]
fn kustomize_gives_what_the_files_say() {
    if let Some(given) = kustomized("base") {
        assert_eq!(given, base());
    }
    if let Some(mut given) = kustomized("overlays/standard") {
        given.remove(&("Namespace".to_owned(), "pgwitness".to_owned()));
        assert_eq!(given, base());
    }
}

#[test]
fn the_chart_is_the_base() {
    if let Some(given) = chart(&[]) {
        assert_eq!(given, base());
    }
    let overlay = kustomized("overlays/monitored").zip(chart(&["monitoring.enabled=true"]));
    if let Some((mut overlay, given)) = overlay {
        overlay.remove(&("Namespace".to_owned(), "pgwitness".to_owned()));
        assert_eq!(given, overlay);
    }
}

#[test]
fn newer_kernels_take_one_capability_less() {
    let less: Vec<String> = AGENT.iter().map(|line| line.replace(" SYS_ADMIN", "")).collect();
    if let Some(given) = chart(&["agent.linux66=true"]) {
        assert_eq!(privileges(get(&given, "DaemonSet", "pgwitness-agent")), less);
    }
    let component =
        fs::read_to_string(deploy().join("components/linux-6.6/kustomization.yaml")).expect("the component");
    assert!(
        component.contains("value: [BPF, DAC_READ_SEARCH, PERFMON, SETPCAP, SYS_PTRACE]"),
        "{component}"
    );
}

#[test]
fn the_fleets_key_is_for_the_agent_alone() {
    let overlay = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [../base]\n\
                   components: [../components/fleet-key, ../components/linux-6.6]\n";
    let copy = tempfile::tempdir().expect("a folder");
    for folder in ["base", "components/fleet-key", "components/linux-6.6"] {
        let to = copy.path().join(folder);
        fs::create_dir_all(&to).expect("a folder");
        for file in fs::read_dir(deploy().join(folder)).expect("files") {
            let file = file.expect("a file");
            fs::copy(file.path(), to.join(file.file_name())).expect("copied");
        }
    }
    let folder = copy.path().join("overlay");
    fs::create_dir(&folder).expect("a folder");
    fs::write(folder.join("kustomization.yaml"), overlay).expect("written");
    let settings = ["agent.fleetKeySecret=pgwitness-fleet", "agent.linux66=true"];
    let given = chart(&settings);
    if let Some(given) = &given {
        let lines = privileges(get(given, "DaemonSet", "pgwitness-agent"));
        let of_key: Vec<_> = lines.iter().filter(|line| line.contains("fleet")).collect();
        assert_eq!(
            of_key,
            [
                "containers.agent.volumeMounts.fleet.mountPath /run/secrets/pgwitness-fleet",
                "containers.agent.volumeMounts.fleet.readOnly true",
                "volumes.fleet.secret.defaultMode 256",
                "volumes.fleet.secret.secretName pgwitness-fleet",
            ]
        );
    }
    if let Some((overlay, given)) = kustomized(&folder.to_string_lossy()).zip(given) {
        assert_eq!(given, overlay);
    }
}

#[test]
fn nothing_of_a_setting_gets_lost_or_becomes_another_type() {
    let settings = [
        "agent.settings.PGWITNESS_AGENT__EVENTS__HEARTBEAT_S=5",
        "image.registry=registry.example/team/",
        "collector.enabled=false",
        "collector.url=https://collector.example:7433",
    ];
    let Some(given) = chart(&settings) else { return };
    let kept = &get(&given, "ConfigMap", "pgwitness-agent")["data"]["PGWITNESS_AGENT__EVENTS__HEARTBEAT_S"];
    assert_eq!(kept, "5", "the API server takes text alone");
    let pod = &get(&given, "DaemonSet", "pgwitness-agent")["spec"]["template"]["spec"];
    for container in [&pod["initContainers"][0], &pod["containers"][0]] {
        let image = container["image"].as_str().expect("an image");
        assert!(
            image.starts_with("registry.example/team/pgwitness-agent:"),
            "{image}"
        );
        let args = container["args"].as_array().expect("arguments");
        assert!(
            args.contains(&Value::from("--collector=https://collector.example:7433")),
            "{args:?}"
        );
    }
}

#[test]
fn settings_that_would_count_for_nothing_are_refused() {
    for (part, kind, name) in [
        ("agent", "DaemonSet", "pgwitness-agent"),
        ("collector", "StatefulSet", "pgwitness-collector"),
    ] {
        let base = base();
        let container = &get(&base, kind, name)["spec"]["template"]["spec"]["containers"][0];
        for variable in container["env"].as_array().expect("variables") {
            let name = variable["name"].as_str().expect("a name");
            if name.starts_with("PGWITNESS_") {
                let Some(problem) = refusal(&format!("{part}.settings.{name}=1")) else {
                    return;
                };
                assert!(problem.contains(name), "{problem}");
            }
        }
    }
}

#[test]
fn the_ring_and_where_it_listens_are_the_charts_to_set() {
    let Some(given) = chart(&["agent.ringMiB=256", "listen=[::]"]) else {
        return;
    };
    let set = |kind: &str, name: &str, container: &str, variable: &str| {
        let containers = &get(&given, kind, name)["spec"]["template"]["spec"][container];
        let variables = containers[0]["env"].as_array().expect("variables").clone();
        let found = variables.into_iter().find(|one| one["name"] == variable);
        found.expect("it is set")["value"].clone()
    };
    for container in ["initContainers", "containers"] {
        let agent = |variable: &str| set("DaemonSet", "pgwitness-agent", container, variable);
        assert_eq!(agent("PGWITNESS_AGENT__TAP__RING_MIB"), "256");
        assert_eq!(agent("PGWITNESS_AGENT__METRICS__LISTEN"), "[::]:7481");
    }
    let collector = |variable: &str| set("StatefulSet", "pgwitness-collector", "containers", variable);
    assert_eq!(collector("PGWITNESS_COLLECTOR__GRPC__LISTEN"), "[::]:7433");
    assert_eq!(collector("PGWITNESS_COLLECTOR__METRICS__LISTEN"), "[::]:7482");
}

#[test]
fn images_can_be_pinned() {
    let digest = format!("sha256:{}", "0a".repeat(32));
    let pinned = format!("image.digests.collector={digest}");
    let Some(given) = chart(&[pinned.as_str(), "image.registry=registry.example/team"]) else {
        return;
    };
    let image = |kind: &str, name: &str| {
        let pod = &get(&given, kind, name)["spec"]["template"]["spec"];
        pod["containers"][0]["image"].clone()
    };
    let expected = format!("registry.example/team/pgwitness-collector@{digest}");
    assert_eq!(image("StatefulSet", "pgwitness-collector"), Value::from(expected));
    let tagged = image("DaemonSet", "pgwitness-agent");
    let tag = concat!(
        "registry.example/team/pgwitness-agent:",
        env!("CARGO_PKG_VERSION")
    );
    assert_eq!(tagged, tag);
}

#[test]
fn agents_of_a_collector_elsewhere_can_enrol_and_deliver() {
    let settings = [
        "collector.enabled=false",
        "collector.url=https://collector.example:7443",
    ];
    let Some(given) = chart(&settings) else { return };
    // What it asks and writes here by a token of this account is there as ever; nothing of it runs.
    let mut expected = base();
    for (kind, name) in [
        ("NetworkPolicy", "pgwitness-collector"),
        ("Service", "pgwitness-collector"),
        ("Service", "pgwitness-collector-pods"),
        ("StatefulSet", "pgwitness-collector"),
    ] {
        expected.remove(&(kind.to_owned(), name.to_owned()));
    }
    assert!(given.keys().eq(expected.keys()), "{:?}", given.keys());
    let ways = &get(&given, "NetworkPolicy", "pgwitness-agent")["spec"]["egress"];
    let last = ways.as_array().and_then(|ways| ways.last());
    assert_eq!(last, Some(&json!({"ports": [{"protocol": "TCP", "port": 7443}]})));
    let Some(problem) = refusal("collector.enabled=false") else {
        return;
    };
    assert!(problem.contains("collector.url must say"), "{problem}");
}

#[test]
fn a_file_of_values_gives_settings_as_they_are_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("values.yaml");
    let values = "agent:\n  settings: {A: 2147483648, B: [a, 'b<c'], C: false, D: '0123', E: 0.5}\n";
    fs::write(&file, values).expect("written");
    let Some(given) = templated(&["-f", &file.to_string_lossy()]) else {
        return;
    };
    assert_eq!(
        get(&given, "ConfigMap", "pgwitness-agent")["data"],
        json!({"A": "2147483648", "B": r#"["a","b<c"]"#, "C": "false", "D": "0123", "E": "0.5"})
    );
}

#[test]
fn what_is_added_is_beside_what_was_there() {
    let settings = [
        "collector.extraVolumes[0].name=readers",
        "collector.extraVolumes[0].secret.secretName=readers",
        "collector.extraVolumeMounts[0].name=readers",
        "collector.extraVolumeMounts[0].mountPath=/run/readers",
        "agent.extraVolumes[0].name=rules",
        "agent.extraVolumes[0].configMap.name=rules",
        "agent.extraVolumeMounts[0].name=rules",
        "agent.extraVolumeMounts[0].mountPath=/etc/rules",
        "networkPolicy.collectorIngress[0].ports[0].port=7480",
        "networkPolicy.collectorEgress[0].ports[0].port=9000",
    ];
    let Some(given) = chart(&settings) else { return };
    let base = base();
    for (kind, name, listed, added) in [
        (
            "DaemonSet",
            "pgwitness-agent",
            AGENT,
            [
                "containers.agent.volumeMounts.rules.mountPath /etc/rules",
                "volumes.rules.configMap.name rules",
            ],
        ),
        (
            "StatefulSet",
            "pgwitness-collector",
            COLLECTOR,
            [
                "containers.collector.volumeMounts.readers.mountPath /run/readers",
                "volumes.readers.secret.secretName readers",
            ],
        ),
    ] {
        let mut lines = privileges(get(&given, kind, name));
        let is_new = |line: &String| !listed.contains(&line.as_str());
        let new: Vec<_> = lines.iter().filter(|line| is_new(line)).cloned().collect();
        assert_eq!(new, added);
        lines.retain(|line| !is_new(line));
        assert_eq!(lines, listed);
    }
    let policy = |objects: &Objects| get(objects, "NetworkPolicy", "pgwitness-collector")["spec"].clone();
    let mut expected = policy(&base);
    for (way, port) in [("ingress", 7480), ("egress", 9000)] {
        let rules = expected[way].as_array_mut().expect("rules");
        rules.push(json!({"ports": [{"port": port}]}));
    }
    assert_eq!(policy(&given), expected);
}

#[test]
fn what_the_chart_does_not_know_it_refuses() {
    for (setting, told) in [
        ("agent.ressources.limits.memory=2Gi", "'ressources' not allowed"),
        ("agent.seLinuxOptions={type: spc_t}", "got array, want object"),
        ("agent.settings.A.b=1", "/agent/settings/A"),
    ] {
        let Some(problem) = refusal(setting) else { return };
        assert!(problem.contains(told), "{setting}: {problem}");
    }
}

#[test]
fn alerts_are_about_metrics_that_are_there() {
    let rules = fs::read_to_string(deploy().join("components/monitoring/monitoring.yaml")).expect("alerts");
    let docs = fs::read_to_string(deploy().join("../../docs/operations.md")).expect("the documentation");
    let is_part = |c: char| c.is_ascii_lowercase() || c == '_';
    let mut count = 0;
    for word in rules.split(|c: char| !is_part(c)) {
        let name = ["pgwitness_agent_", "pgwitness_collector_"]
            .iter()
            .find_map(|prefix| word.strip_prefix(prefix));
        let Some(name) = name else { continue };
        assert!(
            docs.contains(&format!("`{name}")),
            "docs/operations.md has no {name}"
        );
        count += 1;
    }
    assert!(count > 20, "{count}");
}
