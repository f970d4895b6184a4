//! The programs as somebody meets them who gets something wrong: no privilege, a kernel that lacks something, a folder,
//! file, address or question that cannot be used, nobody on the other side.
//!
//! Owns the expectation that all of these have in common: exit code 1 or 2, one line on standard error that says what
//! is wrong and what to do, and never a panic or a backtrace. What needs root is skipped without it, and says so.

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on fails by panicking"
)]

use std::{
    fs::{self, File},
    io::{Read as _, Seek as _},
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{sys::signal::Signal, unistd::geteuid};
use pgwitness_tests::{cluster::free_port, process::Process, tap::sibling};
use tempfile::TempDir;

const AGENT: &str = "pgwitness-agent";
const COLLECTOR: &str = "pgwitness-collector";

/// How long a program may take to say what is wrong: far more than it needs, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// Words of a program that fell over instead of giving an answer.
const FALLEN_OVER: [&str; 3] = ["panicked", "RUST_BACKTRACE", "stack backtrace"];

/// How somebody without privilege runs a program.
const AS_NOBODY: [&str; 4] = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"];

// --- the agent

#[test]
fn without_privilege_the_agent_says_so_before_anything_else() {
    let folder = TempDir::new().unwrap();
    let state = folder.path().join("state");
    fails(
        unprivileged(AGENT, &folder)
            .arg("run")
            .arg("--state-dir")
            .arg(&state),
        1,
        "loading eBPF programs is not permitted",
        "run as root, or with CAP_BPF, CAP_PERFMON",
    );
    assert!(!state.exists(), "nothing is left behind");

    let doctor = run(unprivileged(AGENT, &folder).arg("doctor"));
    assert_eq!(
        (doctor.code, doctor.error.as_str()),
        (Some(1), ""),
        "{}",
        doctor.output
    );
    let (_, missing) = doctor.output.split_once("missing:").unwrap();
    assert!(missing.contains("not permitted: run as root"), "{missing}");
}

#[test]
fn doctor_shows_what_this_host_has() {
    if !root("a whole tap is attached") {
        return;
    }
    let doctor = run(program(AGENT).arg("doctor"));
    assert_eq!(
        (doctor.code, doctor.error.as_str()),
        (Some(0), ""),
        "{}",
        doctor.output
    );
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let hooks = [
        "sock_recv_length",
        "sock_send_length",
        "inet_sock_set_state",
        "cgroup_mkdir",
    ];
    let processes = ["sched_process_exit", "sched_process_exec", "sched_process_fork"];
    for expected in [
        &hooks[..],
        &processes,
        &["kernel ", release.trim(), "BTF ", "cgroups "],
    ]
    .concat()
    {
        assert!(
            doctor.output.contains(expected),
            "{expected} in {}",
            doctor.output
        );
    }
    for expected in [
        "loads and attaches; used by default",
        "tier B: loads and attaches",
        "\nPostgreSQL servers\n",
        "\nnothing is missing\n",
    ] {
        assert!(
            doctor.output.contains(expected),
            "{expected} in {}",
            doctor.output
        );
    }
}

/// The kernel's type information is hidden or changed for these runs alone, in a mount namespace of their own.
#[test]
fn a_kernel_that_lacks_something_is_named() {
    const TYPES: &str = "/sys/kernel/btf/vmlinux";
    if !root("the kernel's type information is replaced") {
        return;
    }
    let folder = TempDir::new().unwrap();
    let types = fs::read(TYPES).unwrap();
    let without = |name: &str| {
        let file = folder.path().join(name);
        let (old, new) = (format!("\0{name}\0"), format!("\0{}\0", "x".repeat(name.len())));
        let at = types
            .windows(old.len())
            .position(|bytes| bytes == old.as_bytes())
            .unwrap();
        let mut changed = types.clone();
        changed.splice(at..at + old.len(), new.bytes());
        fs::write(&file, changed).unwrap();
        format!("mount --bind '{}' {TYPES}", file.display())
    };
    let short = folder.path().join("short");
    fs::write(&short, &types[..1000]).unwrap();
    let cases = [
        (
            "mount -t tmpfs none /sys/kernel/btf".to_owned(),
            "CONFIG_DEBUG_INFO_BTF",
        ),
        (
            without("btf_trace_sched_process_fork"),
            "no tracepoint `sched_process_fork` (it exists from Linux 5.5)",
        ),
        (
            without("sk_peer_cred"),
            "this kernel has no `sk_peer_cred` in `struct sock`",
        ),
        (
            format!("mount --bind '{}' {TYPES}", short.display()),
            "is malformed: expected the type section",
        ),
    ];
    let changed = |mount: &str, arguments: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c"]);
        command.arg(format!("{mount} && exec \"$@\"")).arg("sh");
        command.args(arguments);
        plain(command)
    };
    if run(&mut changed(&cases[0].0, &["true"])).code != Some(0) {
        eprintln!("skipped: this machine does not let its mounts be changed in a namespace");
        return;
    }
    let agent = sibling(AGENT).unwrap().display().to_string();
    let older = without("btf_trace_sock_recv_length");
    let doctor = run(&mut changed(&older, &[&agent, "doctor"]));
    assert_eq!(doctor.code, Some(0), "{}", doctor.output);
    let second = "tier B: loads and attaches; used by default";
    assert!(doctor.output.contains(second), "{}", doctor.output);
    let state = folder.path().join("state").display().to_string();
    for (mount, wrong) in &cases {
        fails(
            &mut changed(mount, &[&agent, "run", "--state-dir", &state]),
            1,
            wrong,
            "`pgwitness-agent doctor` shows everything that this host lacks",
        );
        let doctor = run(&mut changed(mount, &[&agent, "doctor"]));
        assert_eq!(
            (doctor.code, doctor.error.as_str()),
            (Some(1), ""),
            "{}",
            doctor.output
        );
        let (_, missing) = doctor.output.split_once("missing:").unwrap();
        assert_eq!(missing.matches(wrong).count(), 1, "said once: {missing}");
    }
    assert!(!Path::new(&state).exists(), "nothing is left behind");
}

#[test]
fn a_state_folder_that_cannot_be_used_is_named() {
    if !root("the agent looks at its folder when it has attached") {
        return;
    }
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    for unusable in [&file, &file.join("below"), Path::new("/proc/pgwitness")] {
        fails(
            program(AGENT).arg("run").arg("--state-dir").arg(unusable),
            1,
            &format!("cannot create the state folder {}", unusable.display()),
            "give another one with --state-dir",
        );
    }
    let state = folder.path().join("state");
    fs::create_dir(&state).unwrap();
    let key = state.join("agent.key");
    let with_broken_key = |wrong: &str| {
        fails(
            program(AGENT).arg("run").arg("--state-dir").arg(&state),
            1,
            wrong,
            "restore it, or remove it to enrol anew",
        );
    };
    fs::write(&key, "no key\n").unwrap();
    with_broken_key("agent.key is not a key of 64 hexadecimal digits");
    assert_eq!(
        fs::read_to_string(&key).unwrap(),
        "no key\n",
        "it is left as it is"
    );
    fs::write(&key, [0xff; 64]).unwrap();
    with_broken_key("agent.key");
    fs::remove_file(&key).unwrap();
    fs::create_dir(&key).unwrap();
    with_broken_key("cannot read");
}

#[test]
fn the_agent_waits_for_servers_alone_and_stops_cleanly() {
    if !root("the agent runs") {
        return;
    }
    let folder = TempDir::new().unwrap();
    let state = folder.path().join("state");
    let agent = |metrics: &str| {
        let mut command = program(AGENT);
        command
            .args(["run", "--metrics", metrics, "--state-dir"])
            .arg(&state);
        // Whatever else runs on this machine: no server has this folder.
        command.arg("--data-dir").arg(folder.path().join("pgdata"));
        command
    };
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = held.local_addr().unwrap().to_string();
    fails(
        &mut agent(&taken),
        1,
        &format!("cannot serve metrics on {taken}"),
        "give another address with --metrics, or none",
    );
    assert!(!state.join("running").exists(), "a start that failed is no run");

    let mut first = Running::start(AGENT, agent("127.0.0.1:0"), &folder);
    first.says("ready: no server to tap is running yet; new ones are tapped as they start");
    let warned = first.says("no collector is set, so nothing is kept");
    assert!(
        warned.contains("pgwitness-collector serve") && warned.contains("--collector"),
        "{warned}"
    );
    fails(
        &mut agent("127.0.0.1:0"),
        1,
        "another agent uses the state folder",
        "stop it, or give another folder with --state-dir",
    );
    assert!(state.join("running").exists(), "the first is not disturbed");
    assert!(first.stop(Signal::SIGTERM).success());
    first.says("stopped (SIGTERM)");
    assert!(!state.join("running").exists());
}

#[test]
fn the_agent_goes_on_while_no_collector_can_be_reached() {
    if !root("the agent runs") {
        return;
    }
    let folder = TempDir::new().unwrap();
    let grpc = format!("127.0.0.1:{}", free_port().unwrap());
    let mut command = program(AGENT);
    command.args([
        "run",
        "--collector",
        &format!("http://{grpc}"),
        "--data-dir",
        "/nonexistent",
        "--state-dir",
    ]);
    command.arg(folder.path().join("agent"));
    let mut agent = Running::start(AGENT, command, &folder);
    let unreachable = format!("the collector http://{grpc} cannot be reached, events wait for it");
    let said = agent.says(&unreachable);
    assert!(
        said.contains("is it running? pgwitness-collector serve"),
        "{said}"
    );
    agent.says("ready:");

    let mut command = program(COLLECTOR);
    command.args(["serve", "--grpc", &grpc, "--http", "127.0.0.1:0", "--data"]);
    command.arg(folder.path().join("collector"));
    let mut collector = Running::start(COLLECTOR, command, &folder);
    agent.says("connected to the collector");
    assert!(collector.stop(Signal::SIGTERM).success());
    let until = Instant::now() + PATIENCE;
    while agent.log().matches(&unreachable).count() < 2 {
        assert!(
            Instant::now() < until,
            "an outage later on is told too: {}",
            agent.log()
        );
        thread::sleep(Duration::from_millis(20));
    }
    assert!(agent.stop(Signal::SIGTERM).success());
    agent.says("stopped (SIGTERM)");
}

// --- configuration and command lines of both

#[test]
fn a_configuration_that_cannot_be_used_is_named() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("settings.toml");
    let path = file.display().to_string();
    let written = |name, text: &[u8], wrong: &str, advice: &str| {
        fs::write(&file, text).unwrap();
        fails(
            program(name).args([serving(name), "--config", &path]),
            2,
            wrong,
            advice,
        );
    };
    let malformed = format!("{path} is malformed: TOML parse error at line 2, column");
    for name in [AGENT, COLLECTOR] {
        written(name, b"# fine\n[section", &malformed, "expected");
        written(name, b"# fine\nno TOML at all\n", &malformed, "expected");
        written(name, b"\xff\xfe", "cannot read the configuration file", "UTF-8");
        let missing = "/nonexistent/settings.toml";
        let command = &mut program(name);
        command.args([serving(name), "--config", missing]);
        fails(
            command,
            2,
            &format!("cannot read the configuration file {missing}"),
            "No such file",
        );
    }
    let unknown = |key: &str| format!("unknown key \"{key}\" in {path}");
    written(
        AGENT,
        b"stat_dir = '/x'\n",
        &unknown("stat_dir"),
        "did you mean \"state_dir\"?",
    );
    written(
        AGENT,
        b"[tap]\nring_mb = 1\n",
        &unknown("tap.ring_mb"),
        "did you mean \"tap.ring_mib\"?",
    );
    written(
        COLLECTOR,
        b"dta = '/x'\n",
        &unknown("dta"),
        "did you mean \"data\"?",
    );
    written(
        COLLECTOR,
        b"[log]\nsegment_mb = 1\n",
        &unknown("log.segment_mb"),
        "did you mean \"log.segment_mib\"?",
    );

    let typed = |key: &str| format!("{key} in {path} is malformed");
    written(
        AGENT,
        b"[tap]\nring_mib = 'much'\n",
        &typed("tap.ring_mib"),
        "found string \"much\"",
    );
    written(
        AGENT,
        b"[tap]\ndata_directories = '/x'\n",
        &typed("tap.data_directories"),
        "expected a sequence",
    );
    written(
        AGENT,
        b"[events]\nredaction = 'none'\n",
        &typed("events.redaction"),
        "literals",
    );
    written(
        AGENT,
        b"[tap]\nring_mib = 0\n",
        "tap.ring_mib is 0",
        "it must be 1 to 1024",
    );
    written(
        AGENT,
        b"[agent]\nid = 'Not One'\n",
        "agent.id is \"Not One\"",
        "[a-z0-9.-]",
    );
    written(
        COLLECTOR,
        b"[log]\nsegment_mib = 'much'\n",
        &typed("log.segment_mib"),
        "found string \"much\"",
    );
    written(
        COLLECTOR,
        b"[http]\nlisten = 7480\n",
        &typed("http.listen"),
        "expected socket address",
    );
    written(
        COLLECTOR,
        b"[log]\nsegment_mib = 0\n",
        "log.segment_mib is 0",
        "it must be 1 to 4096",
    );

    let environment = |name, key: &str, value: &str, wrong: &str, advice: &str| {
        fails(program(name).arg(serving(name)).env(key, value), 2, wrong, advice);
    };
    let there = "in the environment (PGWITNESS_";
    environment(
        AGENT,
        "PGWITNESS_AGENT__TAP__RING_MB",
        "1",
        there,
        "did you mean \"tap.ring_mib\"?",
    );
    environment(
        AGENT,
        "PGWITNESS_AGENT__TAP__RING_MIB",
        "much",
        "tap.ring_mib in the environment",
        "found string",
    );
    environment(
        COLLECTOR,
        "PGWITNESS_COLLECTOR__GRCP__LISTEN",
        "x",
        there,
        "did you mean \"grpc\"?",
    );
}

#[test]
fn addresses_that_cannot_be_used_are_named() {
    let urls = ["nonsense", "", "http://10.0.0.1:7433", "http://127.0.0.1"];
    for url in [
        &urls[..],
        &[
            "http://127.0.0.1:7433/path",
            "http://127.0.0.1:0",
            "http://127.0.0.1:7433 ",
        ],
    ]
    .concat()
    {
        fails(
            program(AGENT).args(["run", "--collector", url]),
            2,
            &format!("delivery.collectors is {url:?}"),
            "as in http://127.0.0.1:7433",
        );
    }
    // Agents on other hosts are let in, with certificates; people, over TLS.
    for (name, flag, key, refused) in [
        (
            AGENT,
            "--metrics",
            "metrics.listen",
            Some("only a loopback address (127.0.0.1, ::1) is allowed"),
        ),
        (COLLECTOR, "--grpc", "grpc.listen", None),
        (
            COLLECTOR,
            "--http",
            "http.listen",
            Some("set http.tls.certificate and http.tls.key"),
        ),
    ] {
        if let Some(because) = refused {
            fails(
                program(name).args([serving(name), flag, "0.0.0.0:7999"]),
                2,
                &format!("{key} is 0.0.0.0:7999"),
                because,
            );
        }
        // A command line that is not one gets the parser's usual answer, which takes more than a line.
        let wrong = run(program(name).args([serving(name), flag, "nowhere"]));
        assert_eq!(wrong.code, Some(2), "{}", wrong.error);
        assert!(
            wrong.error.contains(flag) && wrong.error.contains("'nowhere'"),
            "{}",
            wrong.error
        );
    }
}

#[test]
fn whoever_is_new_finds_the_way() {
    for name in [AGENT, COLLECTOR] {
        let (nothing, help) = (run(&mut program(name)), run(program(name).arg("--help")));
        assert_eq!((nothing.code, help.code), (Some(2), Some(0)));
        assert_eq!(
            nothing.error.trim(),
            help.output.trim(),
            "no arguments: the same text"
        );
        assert!(
            help.output.contains(&format!("\n  {} ", serving(name))),
            "{}",
            help.output
        );
        let serve = run(program(name).args([serving(name), "--help"]));
        assert_eq!(serve.code, Some(0));
        for expected in [
            "--config <FILE>",
            "--check-config",
            "default",
            "127.0.0.1:7433",
            "loopback",
        ] {
            assert!(serve.output.contains(expected), "{expected} in {}", serve.output);
        }
        let effective = run(program(name).args([serving(name), "--check-config"]));
        assert_eq!((effective.code, effective.error.as_str()), (Some(0), ""));
    }
    let help = run(program(AGENT).arg("--help")).output;
    assert!(
        help.contains("pgwitness-agent run --collector http://127.0.0.1:7433"),
        "{help}"
    );
}

// --- the collector

#[test]
fn a_collector_that_cannot_serve_says_why() {
    let folder = TempDir::new().unwrap();
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = held.local_addr().unwrap().to_string();
    for (flag, other, key) in [
        ("--grpc", "--http", "grpc.listen (--grpc)"),
        ("--http", "--grpc", "http.listen (--http)"),
    ] {
        fails(
            program(COLLECTOR)
                .args(["serve", flag, &taken, other, "127.0.0.1:0", "--data"])
                .arg(folder.path()),
            1,
            &format!("cannot listen on {taken}"),
            &format!("stop what uses the port, or set {key}"),
        );
    }
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    for unusable in [&file, &file.join("below"), Path::new("/proc/pgwitness")] {
        fails(
            collector(program(COLLECTOR)).arg("--data").arg(unusable),
            1,
            &format!("cannot create {}", unusable.display()),
            "name a folder that this user may write with --data",
        );
    }
    if root("the folder belongs to somebody else") {
        let data = folder.path().join("data");
        fs::create_dir(&data).unwrap();
        fails(
            collector(unprivileged(COLLECTOR, &folder))
                .arg("--data")
                .arg(&data),
            1,
            &format!("cannot create {}", data.display()),
            "name a folder that this user may write with --data",
        );
    }
}

#[test]
fn a_question_that_cannot_be_answered_says_why() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    let mut command = collector(program(COLLECTOR));
    command.arg("--data").arg(&data);
    let mut serving = Running::start(COLLECTOR, command, &folder);
    let line = serving.says("the collector is serving");
    let address = |key: &str| {
        let (_, rest) = line.split_once(&format!(" {key}=")).unwrap();
        format!("http://{}", rest.split(' ').next().unwrap())
    };
    let (http, grpc) = (address("http"), address("grpc"));
    fails(
        collector(program(COLLECTOR)).arg("--data").arg(&data),
        1,
        &format!("another collector is using {}", data.display()),
        "stop it, or name another folder",
    );

    let stolen = folder.path().join("stolen.csv");
    let copy = format!("COPY (SELECT 1) TO '{}'", stolen.display());
    let advice = "one SELECT, WITH, EXPLAIN, SHOW or DESCRIBE; SHOW TABLES and SHOW COLUMNS FROM events say what there is";
    let questions = [
        (
            "SELEC 1",
            "Expected: an SQL statement, found: SELEC at Line: 1, Column: 1",
        ),
        ("SELECT 1\n  FROM (", "Expected"),
        ("", "No SQL statements were provided"),
        ("SELECT 1; SELECT 2", "only supports a single SQL statement"),
        ("DROP TABLE events", "DDL not supported: DropTable"),
        ("DELETE FROM events", "DML not supported"),
        ("INSERT INTO gaps SELECT * FROM gaps", "DML not supported"),
        (&copy, "DML not supported"),
        (
            "SET datafusion.execution.batch_size = 1",
            "Statement not supported",
        ),
        ("SELECT nothing FROM events", "No field named nothing"),
        ("SELECT * FROM nowhere", "nowhere' not found"),
    ];
    for (sql, wrong) in questions {
        fails(
            program(COLLECTOR).args(["query", sql, "--url", &http]),
            1,
            wrong,
            advice,
        );
    }
    fails(
        program(COLLECTOR).args(["query", "SELEC 1", "--data"]).arg(&data),
        1,
        "found: SELEC",
        advice,
    );
    fails(
        program(COLLECTOR).args(["query", "SELECT CAST('x' AS INT)", "--url", &http]),
        1,
        "not answered: ",
        "Cannot cast string 'x'",
    );
    assert!(!stolen.exists());
    for watch in [&["query", "SELECT 1"][..], &["tail"]] {
        fails(
            program(COLLECTOR).args(watch).args(["--url", &grpc]),
            1,
            "does not answer as a collector",
            "--url takes its http.listen, not its grpc.listen",
        );
    }
    assert!(serving.stop(Signal::SIGTERM).success());
    for watch in [&["query", "SELECT 1"][..], &["tail"]] {
        fails(
            program(COLLECTOR).args(watch).args(["--url", &http]),
            1,
            &format!("no collector answers at {http}"),
            "is it running? (pgwitness-collector serve)",
        );
        for url in ["nonsense", "ftp://127.0.0.1:7480", "http://127.0.0.1:7480/api"] {
            fails(
                program(COLLECTOR).args(watch).args(["--url", url]),
                1,
                &format!("{url:?}"),
                "give a URL as in http://127.0.0.1:7480",
            );
        }
    }
}

#[test]
fn a_folder_without_evidence_is_named() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    for command in [&["verify"][..], &["rebuild"], &["query", "SELECT 1"]] {
        for data in [folder.path(), &file, Path::new("/nonexistent")] {
            fails(
                program(COLLECTOR).args(command).arg("--data").arg(data),
                1,
                &format!("no evidence log can be read in {}", data.display()),
                "name the data folder of a collector with --data",
            );
        }
    }
    let evidence = folder.path().join("evidence");
    fs::create_dir(&evidence).unwrap();
    let empty = run(program(COLLECTOR).args(["verify", "--data"]).arg(folder.path()));
    assert_eq!(empty.code, Some(1));
    assert!(
        empty.output.starts_with("WRONG: ") && empty.output.contains("origin"),
        "{}",
        empty.output
    );
    fs::set_permissions(&evidence, fs::Permissions::from_mode(0o000)).unwrap();
    let mut somebody = unprivileged(COLLECTOR, &folder);
    fails(
        somebody.args(["verify", "--data"]).arg(folder.path()),
        1,
        "no evidence log can be read",
        "Permission denied",
    );
}

// --- how programs are run

/// The command that runs for long.
fn serving(name: &str) -> &'static str {
    if name == AGENT { "run" } else { "serve" }
}

fn collector(mut command: Command) -> Command {
    command.args(["serve", "--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
    command
}

fn program(name: &str) -> Command {
    plain(Command::new(sibling(name).unwrap()))
}

/// Nothing of the caller's environment steers what is tested, and backtraces would be shown if there were any.
fn plain(mut command: Command) -> Command {
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.env("RUST_BACKTRACE", "full").stdin(Stdio::null());
    command
}

/// The program as a user without privilege runs it: nobody if this is root, else whoever this is.
fn unprivileged(name: &str, folder: &TempDir) -> Command {
    let built = sibling(name).unwrap();
    if !geteuid().is_root() {
        return plain(Command::new(built));
    }
    // The place where it was built may be closed to others.
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let open: PathBuf = folder.path().join(name);
    if !open.exists() && fs::hard_link(&built, &open).is_err() {
        fs::copy(&built, &open).unwrap();
    }
    let [setpriv, options @ ..] = AS_NOBODY;
    let mut command = Command::new(setpriv);
    command.args(options).arg(open);
    plain(command)
}

/// Whether this is root; if not, says what is skipped for that.
fn root(what: &str) -> bool {
    let is_root = geteuid().is_root();
    if !is_root {
        eprintln!("skipped, because it needs root: {what}");
    }
    is_root
}

/// How a program that ended by itself ended.
struct Ended {
    code: Option<i32>,
    output: String,
    error: String,
}

/// Runs a program that must end by itself, soon, and whatever happens without falling over.
fn run(command: &mut Command) -> Ended {
    let (mut output, mut error) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    command
        .stdout(output.try_clone().unwrap())
        .stderr(error.try_clone().unwrap());
    let mut process = Process::start("the program", command, Signal::SIGKILL).unwrap();
    let status =
        wait(&mut process).unwrap_or_else(|| panic!("still running after {PATIENCE:?}: {command:?}"));
    let ended = Ended {
        code: status.code(),
        output: text(&mut output),
        error: text(&mut error),
    };
    stands([&ended.output, &ended.error]);
    ended
}

/// Runs a program that must end with `code` and one line that says what is `wrong` and gives `advice`.
#[track_caller]
fn fails(command: &mut Command, code: i32, wrong: &str, advice: &str) {
    let ended = run(command);
    let error = &ended.error;
    assert_eq!(ended.code, Some(code), "{command:?}: {error}");
    assert_eq!(error.lines().count(), 1, "one line from {command:?}: {error}");
    assert!(error.starts_with("pgwitness-") && error.contains(": "), "{error}");
    assert!(error.contains(wrong), "{wrong:?} from {command:?}: {error}");
    assert!(error.contains(advice), "{advice:?} from {command:?}: {error}");
    assert_eq!(ended.output, "", "standard output is for answers: {command:?}");
}

#[track_caller]
fn stands(said: [&str; 2]) {
    for word in FALLEN_OVER {
        assert!(!said.concat().contains(word), "{said:?}");
    }
}

fn wait(process: &mut Process) -> Option<ExitStatus> {
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        if let Some(status) = process.ended().unwrap() {
            return Some(status);
        }
        thread::sleep(Duration::from_millis(5));
    }
    None
}

fn text(file: &mut File) -> String {
    let mut text = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut text).unwrap();
    text
}

/// A program that runs until it is told to stop.
struct Running {
    process: Process,
    said: PathBuf,
}

impl Running {
    fn start(name: &str, mut command: Command, folder: &TempDir) -> Self {
        let said = folder.path().join(format!("{name}.said"));
        let file = File::create(&said).unwrap();
        command.stdout(file.try_clone().unwrap()).stderr(file);
        Self {
            process: Process::start(name, &mut command, Signal::SIGKILL).unwrap(),
            said,
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.said).unwrap()
    }

    /// Waits for a line that holds `expected`, and returns it.
    #[track_caller]
    fn says(&mut self, expected: &str) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            let ended = self.process.ended().unwrap();
            let log = self.log();
            if let Some(line) = log.lines().find(|line| line.contains(expected)) {
                return line.to_owned();
            }
            assert!(
                ended.is_none() && Instant::now() < until,
                "{expected:?} is not in {log}"
            );
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Stops it; it must do so by itself, and without falling over.
    #[track_caller]
    fn stop(&mut self, signal: Signal) -> ExitStatus {
        assert!(
            self.process.ended().unwrap().is_none(),
            "it ended before: {}",
            self.log()
        );
        self.process.signal(signal).unwrap();
        let status = wait(&mut self.process).unwrap_or_else(|| panic!("it does not stop: {}", self.log()));
        stands([&self.log(), ""]);
        status
    }
}
