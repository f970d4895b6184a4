//! `cargo xtask fuzz`: libFuzzer on the bodies that the tests run over `tests/corpus`. Built by the project's own stable
//! compiler, with coverage counted, in a target folder of its own; nothing else pays for it.

use std::{
    collections::{HashMap, HashSet},
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, bail, ensure};

use crate::{build, setup, step};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// frontend, backend, startup, session, values, sql, tcp, pcap, segments, or all
    #[arg(value_parser = clap::builder::PossibleValuesParser::new(names()))]
    name: String,
    /// How long, for each
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Print one JSON object for each as the last lines
    #[arg(long)]
    json: bool,
    /// Add what was found to tests/corpus, which stays small: the inputs that reach most
    #[arg(long)]
    keep: bool,
}

const TARGETS: [&str; 9] = [
    "frontend", "backend", "startup", "session", "values", "sql", "tcp", "pcap", "segments",
];

fn names() -> impl Iterator<Item = &'static str> {
    TARGETS.into_iter().chain(["all"])
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    setup::compiler()?;
    let programs = compiled()?;
    let targets = TARGETS
        .into_iter()
        .filter(|name| args.name == "all" || args.name == *name);
    let mut results = Vec::new();
    for target in targets {
        let result = Run::new(target, &programs)?.fuzz(args)?;
        eprintln!("xtask: fuzz {target}: {} found", result.found);
        results.push(result);
    }
    if args.json {
        for result in &results {
            println!("{}", result.json(args.seconds));
        }
    }
    Ok(if results.iter().all(|result| result.found == 0) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Builds the targets and gives the folder that they are in.
fn compiled() -> anyhow::Result<PathBuf> {
    let target = build::target().join("fuzz");
    let triple = host()?;
    step::run(
        step::cargo()
            .current_dir(project())
            // With a triple, build scripts and macros are built without the flags.
            .args(["build", "--release", "--locked", "--bins", "--target", &triple])
            .env("CARGO_TARGET_DIR", &target)
            .env("RUSTFLAGS", FLAGS.join(" "))
            .env_remove("RUSTC_WORKSPACE_WRAPPER")
            .env_remove("CARGO_ENCODED_RUSTFLAGS"),
    )?;
    Ok(target.join(triple).join("release"))
}

/// Counters in line at each edge, and comparisons told to libFuzzer: what `cargo-fuzz` passes, without the sanitizers,
/// which need a nightly compiler and look for what unsafe code does; the code under test has none.
const FLAGS: [&str; 6] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "--cfg=fuzzing",
];

fn host() -> anyhow::Result<String> {
    let output = Command::new("rustc")
        .arg("-vV")
        .output()
        .context("cannot start rustc")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc -vV names no host")
}

fn project() -> PathBuf {
    step::root().join("tests/fuzz")
}

/// One target and its folders.
struct Run {
    target: &'static str,
    program: PathBuf,
    corpus: PathBuf,
    artifacts: PathBuf,
    /// What is found while it runs. Goes away with this.
    found: Scratch,
}

impl Run {
    fn new(target: &'static str, programs: &Path) -> anyhow::Result<Self> {
        let run = Self {
            target,
            program: programs.join(target),
            corpus: step::root().join("tests/corpus").join(target),
            artifacts: project().join("artifacts").join(target),
            found: Scratch::new(target)?,
        };
        fs::create_dir_all(&run.corpus)?;
        fs::create_dir_all(&run.artifacts)?;
        Ok(run)
    }

    fn fuzz(&self, args: &Args) -> anyhow::Result<Outcome> {
        let before = files(&self.artifacts)?;
        eprintln!("xtask: fuzz {} for {} s", self.target, args.seconds);
        let log = self.found.path.join("log");
        let status = Command::new(&self.program)
            .arg(format!("-max_total_time={}", args.seconds))
            .arg(format!("-max_len={MAX_BYTES}"))
            .arg(format!("-timeout={SLOW_SECONDS}"))
            .arg(format!("-rss_limit_mb={MEMORY_MIB}"))
            .arg(format!("-artifact_prefix={}/", self.artifacts.display()))
            .args(["-print_final_stats=1", "-use_value_profile=1"])
            .arg(self.found.inputs())
            .arg(&self.corpus)
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log)?)
            .status()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        let log = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
        let found: Vec<PathBuf> = files(&self.artifacts)?.difference(&before).cloned().collect();
        for artifact in &found {
            eprintln!(
                "xtask: fuzz {} found something; to see it again:\n    {} {}",
                self.target,
                self.program.display(),
                artifact.display()
            );
        }
        if !status.success() {
            let lines: Vec<&str> = log.lines().collect();
            eprintln!(
                "{}",
                lines
                    .get(lines.len().saturating_sub(30)..)
                    .unwrap_or_default()
                    .join("\n")
            );
            ensure!(
                !found.is_empty(),
                "{} failed ({status}), without an input",
                self.target
            );
        }
        if args.keep && found.is_empty() {
            self.keep()?;
        }
        Ok(Outcome {
            target: self.target,
            executions: last_number(&log, "stat::number_of_executed_units:"),
            coverage: last_number(&log, " cov:"),
            corpus: files(&self.corpus)?.len(),
            found: found.len(),
        })
    }

    /// Makes the corpus anew, of what it was and what was found: always the input that reaches most that none before
    /// it did, until nothing is left or the corpus is full.
    fn keep(&self) -> anyhow::Result<()> {
        let control = self.found.path.join("merge");
        let merged = self.found.path.join("merged");
        fs::create_dir_all(&merged)?;
        let status = Command::new(&self.program)
            .args([
                "-set_cover_merge=1",
                &format!("-merge_control_file={}", control.display()),
            ])
            .arg(&merged)
            .arg(&self.corpus)
            .arg(self.found.inputs())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()?;
        ensure!(
            status.success(),
            "merging the corpus of {} failed ({status})",
            self.target
        );
        let mut inputs = reached(&fs::read_to_string(control)?)?;
        let (mut kept, mut bytes) = (HashMap::new(), 0);
        let mut known: HashSet<u32> = HashSet::new();
        while kept.len() < CORPUS_FILES {
            for (_, features) in &mut inputs {
                features.retain(|feature| !known.contains(feature));
            }
            inputs.retain(|(_, features)| !features.is_empty());
            let Some((best, _)) = inputs
                .iter()
                .enumerate()
                .max_by_key(|(_, (_, features))| features.len())
            else {
                break;
            };
            let (path, features) = inputs.swap_remove(best);
            let data = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            if bytes + data.len() <= CORPUS_BYTES {
                bytes += data.len();
                known.extend(features);
                let name = path.file_name().context("an input without name")?.to_owned();
                kept.insert(name, data);
            }
        }
        for path in files(&self.corpus)? {
            // What once broke something stays, whatever it reaches.
            let stays = path
                .file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("found-"));
            if !stays {
                fs::remove_file(path)?;
            }
        }
        for (name, data) in kept {
            fs::write(self.corpus.join(name), data)?;
        }
        Ok(())
    }
}

/// Reads libFuzzer's control file of a merge: the inputs, and the features that each of them reaches.
fn reached(control: &str) -> anyhow::Result<Vec<(PathBuf, HashSet<u32>)>> {
    let mut lines = control.lines();
    let count: usize = lines.next().context("an empty control file")?.parse()?;
    // The size of the first folder.
    lines.next();
    let mut inputs: Vec<(PathBuf, HashSet<u32>)> = lines
        .by_ref()
        .take(count)
        .map(|path| (path.into(), HashSet::new()))
        .collect();
    for line in lines {
        let mut words = line.split(' ');
        if words.next() != Some("FT") {
            continue;
        }
        let index: usize = words.next().context("a feature line without input")?.parse()?;
        let Some((_, features)) = inputs.get_mut(index) else {
            bail!("input {index} of {count}");
        };
        *features = words.map(str::parse).collect::<Result<_, _>>()?;
    }
    Ok(inputs)
}

fn files(folder: &Path) -> anyhow::Result<HashSet<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    Ok(entries
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<_>>()?)
}

/// The number behind the last occurrence of a word.
fn last_number(log: &str, word: &str) -> u64 {
    let behind = log.rfind(word).and_then(|at| log.get(at + word.len()..));
    let number = behind.and_then(|behind| behind.split_whitespace().next());
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

struct Outcome {
    target: &'static str,
    executions: u64,
    /// Edges that were reached.
    coverage: u64,
    /// Inputs in `tests/corpus`.
    corpus: usize,
    /// Inputs that broke something.
    found: usize,
}

impl Outcome {
    fn json(&self, seconds: u32) -> serde_json::Value {
        serde_json::json!({
            "target": self.target,
            "seconds": seconds,
            "executions": self.executions,
            "coverage": self.coverage,
            "corpus": self.corpus,
            "found": self.found,
        })
    }
}

/// A folder that goes away.
struct Scratch {
    path: PathBuf,
}

impl Scratch {
    fn new(target: &str) -> anyhow::Result<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
        let path = env::temp_dir().join(format!("pgwitness-fuzz-{target}-{now}"));
        fs::create_dir_all(path.join("inputs"))?;
        Ok(Self { path })
    }

    fn inputs(&self) -> PathBuf {
        self.path.join("inputs")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Longest input. Every limit under test can be reached with less: the targets have a setting with tight ones.
const MAX_BYTES: u32 = 4096;
/// An input that takes longer is a finding: nothing of 4 KiB needs a tenth of it.
const SLOW_SECONDS: u32 = 10;
/// Memory that is a finding.
const MEMORY_MIB: u32 = 1024;
/// Small enough that `cargo test` replays all of it in seconds, and for the repository.
const CORPUS_FILES: usize = 60;
const CORPUS_BYTES: usize = 200 << 10;
