//! The systemd units: that systemd takes them, that they are closed as far as they can be, and that the agent's may do
//! what the agent needs and nothing else.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails by panicking"
)]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use pgwitness_agent::{config::Config, privilege::CAPABILITIES};

const UNITS: [&str; 2] = ["pgwitness-agent.service", "pgwitness-collector.service"];

/// The exposure that `systemd-analyze security` may find, in tenths: 33 for the agent, which has to see other users'
/// processes, and 12 for the collector.
const EXPOSURE: [u32; 2] = [33, 12];

fn unit(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../deploy/systemd")
        .join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every value of a setting.
fn settings<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    unit.lines()
        .filter_map(|line| line.split_once('='))
        .filter(|(name, _)| *name == key)
        .map(|(_, value)| value)
        .collect()
}

#[test]
fn the_agent_has_the_capabilities_that_it_documents() {
    let unit = unit(UNITS[0]);
    let [list] = settings(&unit, "CapabilityBoundingSet")[..] else {
        panic!("one list")
    };
    let given: BTreeSet<&str> = list.split_ascii_whitespace().collect();
    let needed: BTreeSet<&str> = CAPABILITIES.iter().map(|capability| capability.name).collect();
    assert_eq!(given, needed);
    let manual = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operations.md");
    let manual = fs::read_to_string(manual).expect("the manual");
    for name in needed {
        assert!(
            manual.contains(&format!("`{name}`")),
            "{name} is not in operations.md"
        );
    }
}

#[test]
fn the_folders_are_those_of_the_defaults() {
    let unit = unit(UNITS[0]);
    let config = Config::default();
    let under = |top: &str, key: &str| Path::new(top).join(settings(&unit, key)[0]);
    assert_eq!(config.state_dir, under("/var/lib", "StateDirectory"));
    assert_eq!(
        config.control_socket().parent(),
        Some(under("/run", "RuntimeDirectory").as_path())
    );
    // The wall stands behind the agent's own limit and the largest ring that it takes by itself on most hosts.
    let wall = settings(&unit, "MemoryMax")[0];
    assert_eq!(wall, "1G");
    assert!(config.memory_mib() + 256 < 1024);
}

#[test]
fn systemd_takes_the_units_and_finds_them_closed() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        eprintln!("systemd-analyze is not installed: not run");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    for (name, exposure) in UNITS.into_iter().zip(EXPOSURE) {
        let path = installed(folder.path(), name);
        let output = analyze(&["verify", "--man=no"], &path);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        // It looks at what other packages have installed, too.
        let about_others = |line: &str| line.starts_with("/lib/systemd/") || line.contains(": /lib/systemd/");
        let is_silent = said
            .lines()
            .all(|line| line.trim().is_empty() || about_others(line));
        assert!(output.status.success() && is_silent, "{name}: {said}");
        let output = analyze(
            &["security", "--offline=yes", &format!("--threshold={exposure}")],
            &path,
        );
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{name}: {said}");
    }
}

/// The unit with a program that is there.
fn installed(folder: &Path, name: &str) -> PathBuf {
    let program = env!("CARGO_BIN_EXE_pgwitness-agent");
    let text: Vec<String> = unit(name)
        .lines()
        .map(|line| match line.strip_prefix("ExecStart=") {
            Some(command) => {
                let (_, arguments) = command.split_once(' ').expect("arguments");
                format!("ExecStart={program} {arguments}")
            }
            None => line.to_owned(),
        })
        .collect();
    let path = folder.join(name);
    fs::write(&path, text.join("\n") + "\n").expect("written");
    path
}

fn analyze(arguments: &[&str], unit: &Path) -> Output {
    Command::new("systemd-analyze")
        .args(arguments)
        .arg(unit)
        .output()
        .expect("it runs")
}
