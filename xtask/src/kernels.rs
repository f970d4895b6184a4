//! `cargo xtask kernels`: does the tap work on the kernels that people run? Real kernels of Debian are booted in virtual
//! machines, and in each one the tap is held against a server's own log; on those that people run most, truth suites run
//! too, as they do on this machine's own kernel.
//!
//! Owns which kernels there are and what runs on each. Separate are where a kernel comes from (`kernel`), what a machine
//! begins with (`root`), the machine itself (`machine`), what runs in there (`suite`), and the figures (`figures`).

mod figures;
mod kernel;
mod machine;
mod root;
mod suite;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use anyhow::{Context as _, bail};

use crate::{build, setup};
use figures::{Figures, Row};
use kernel::Kernel;
use suite::{SUITES, Suite};

/// A kernel, by the suite of Debian that it comes from.
struct Source {
    name: &'static str,
    /// Whether every suite runs there unless the caller says otherwise: hours, and one kernel of each kind is enough.
    is_whole: bool,
    /// Why the tap is known not to be whole there: what goes wrong is shown, and is no failure.
    limit: Option<&'static str>,
}

/// By their kernels' age: 5.10 has neither tier A's tracepoints nor socket storage in tracing programs, 6.1 has only the
/// latter, the others have both.
const SOURCES: [Source; 7] = [
    whole("bullseye"),
    small("bullseye-backports"),
    whole("bookworm"),
    small("bookworm-backports"),
    whole("trixie"),
    Source {
        name: "trixie-backports",
        is_whole: false,
        limit: Some(
            "from Linux 7.0 on, programs on tracepoints can be preempted, and the kernel skips calls meanwhile; docs/kernels.md",
        ),
    },
    whole(OWN),
];

/// This machine's own, without a machine around it.
const OWN: &str = "own";

const fn whole(name: &'static str) -> Source {
    Source {
        name,
        is_whole: true,
        limit: None,
    }
}

const fn small(name: &'static str) -> Source {
    Source {
        name,
        is_whole: false,
        limit: None,
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only the kernel of this suite of Debian, or `own` (can be given several times)
    #[arg(long, value_name = "NAME")]
    kernel: Vec<String>,
    /// Only this, on every kernel that is asked for (can be given several times) [default: `check` on every kernel, the others on
    /// one of each kind]
    #[arg(long, value_enum, value_name = "NAME")]
    suite: Vec<Suite>,
    /// The long form of the suite `local`: most of a day for each kernel
    #[arg(long)]
    full: bool,
    /// Print one JSON object of counts as the last line
    #[arg(long)]
    json: bool,
    /// Take the programs of this folder instead of building them
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,
}

impl Args {
    /// What runs on a kernel.
    fn suites(&self, source: &Source) -> Vec<Suite> {
        let wanted = |suite: &Suite| match self.suite.as_slice() {
            [] => *suite == Suite::Check || source.is_whole,
            named => named.contains(suite),
        };
        SUITES.into_iter().filter(wanted).collect()
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let names = SOURCES.each_ref().map(|source| source.name);
    if let Some(unknown) = args.kernel.iter().find(|name| !names.contains(&name.as_str())) {
        bail!("there is no kernel `{unknown}`; there are {}", names.join(", "));
    }
    let wanted =
        |source: &&Source| args.kernel.is_empty() || args.kernel.iter().any(|name| name == source.name);
    let sources: Vec<&Source> = SOURCES.iter().filter(wanted).collect();
    setup::ensure()?;
    if sources.iter().any(|source| source.name != OWN) {
        setup::virtual_machine()?;
    }
    let programs = match &args.programs {
        Some(folder) => folder.clone(),
        None => build::programs()?,
    };
    let folder = build::target().join("kernels");
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let programs = copied(&programs, &folder.join("programs"))?;

    let mut figures = Figures::default();
    for source in sources {
        match place(source.name) {
            Ok(place) => figures.add(on(source, &place, args, &programs, &folder), source.limit),
            Err(reason) => figures.unavailable(source.name, &reason),
        }
    }
    Ok(figures.print(args.json))
}

/// The programs in a folder of their own: a machine takes it for granted that files do not change, and this runs for hours,
/// in which somebody may build.
fn copied(programs: &Path, to: &Path) -> anyhow::Result<PathBuf> {
    if to.exists() {
        fs::remove_dir_all(to).with_context(|| format!("emptying {}", to.display()))?;
    }
    fs::create_dir_all(to)?;
    let entries = fs::read_dir(programs).with_context(|| format!("reading {}", programs.display()))?;
    for entry in entries {
        let from = entry?.path();
        let name = from
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let is_ours = PROGRAMS.iter().any(|prefix| name.starts_with(prefix));
        // Beside the programs lie cargo's lists of what they are made of.
        if is_ours && from.is_file() && from.extension().is_none() {
            fs::copy(&from, to.join(name)).with_context(|| format!("copying {}", from.display()))?;
        }
    }
    fs::canonicalize(to).with_context(|| format!("no folder {}", to.display()))
}

/// Where a kernel runs.
enum Place {
    Here { release: String },
    Machine(Kernel),
}

impl Place {
    fn release(&self) -> &str {
        match self {
            Self::Here { release } | Self::Machine(Kernel { release, .. }) => release,
        }
    }
}

fn place(name: &str) -> anyhow::Result<Place> {
    Ok(match name {
        OWN => Place::Here {
            release: fs::read_to_string("/proc/sys/kernel/osrelease")?
                .trim()
                .to_owned(),
        },
        name => Place::Machine(kernel::fetch(name)?),
    })
}

/// Runs what is to run on one kernel: each suite in a machine of its own, so that none can spoil another's.
fn on(source: &Source, place: &Place, args: &Args, programs: &Path, folder: &Path) -> Row {
    let mut row = Row::new(source.name, place.release());
    for suite in args.suites(source) {
        let name = format!("{}-{}", source.name, suite.name());
        let log = folder.join(format!("{name}.log"));
        eprintln!("xtask: kernels: {name}: Linux {}", place.release());
        let began = Instant::now();
        let said = match place {
            Place::Here { .. } => {
                let mut command = suite.command(programs, args.full, &folder.join("truth-wire"));
                suite::here(&mut command, &log)
            }
            Place::Machine(kernel) => {
                let command = suite.command(programs, args.full, Path::new(STATE));
                root::initramfs(kernel, &command, folder)
                    .and_then(|initramfs| machine::boot(kernel, &initramfs, &log, suite.patience(args.full)))
            }
        };
        let passed = row.add(suite, said, began.elapsed().as_secs());
        eprintln!(
            "xtask: kernels: {name}: {} in {} s; what it said is in {}",
            if passed { figures::PASSED } else { figures::FAILED },
            began.elapsed().as_secs(),
            log.display()
        );
    }
    row
}

/// Everything that suites start is called like this.
const PROGRAMS: [&str; 2] = ["pgwitness-", "truth-"];
/// In a machine, for what a suite keeps.
const STATE: &str = "/run/scratch/state";

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(suite: &[Suite]) -> Args {
        Args {
            kernel: Vec::new(),
            suite: suite.to_vec(),
            full: false,
            json: true,
            programs: None,
        }
    }

    #[test]
    fn every_suite_runs_on_one_kernel_of_each_kind_and_the_check_on_all() {
        let args = asked(&[]);
        let everything = SOURCES.iter().filter(|source| args.suites(source) == SUITES);
        let names: Vec<_> = everything.map(|source| source.name).collect();
        assert_eq!(names, ["bullseye", "bookworm", "trixie", OWN]);
        assert!(
            SOURCES
                .iter()
                .all(|source| args.suites(source).contains(&Suite::Check))
        );
    }

    #[test]
    fn what_is_asked_for_runs_on_every_kernel() {
        let args = asked(&[Suite::Wire]);
        assert!(SOURCES.iter().all(|source| args.suites(source) == [Suite::Wire]));
    }
}
