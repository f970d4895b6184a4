//! `cargo xtask image`: the container images of agent and collector, made by nobody's daemon and from nobody's base image.
//!
//! Owns what is in an image (`contents`), how that becomes bytes (`layer`, `layout`), what it is made of (`sbom`, `parts`, `debian`, `elf`), and
//! that it runs (`trial`), with what the manifests give it (`pod`, `seccomp`). The same programs on the same system give the same digests: nothing of the time, the user or the order
//! of a folder gets in.

mod contents;
mod debian;
mod elf;
mod layer;
mod layout;
mod parts;
mod pod;
mod sbom;
mod seccomp;
mod trial;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, ensure};

use crate::{
    build::target,
    step::{cargo, root, run as step},
};

use contents::Contents;
use layout::Image;
use pod::Pod;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Take the programs from this folder, and build none
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,
    /// Where images go [default: images in the target folder]
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    /// Where the source is: the label by which registries and update programs find it
    #[arg(long, value_name = "URL")]
    source: Option<String>,
    /// Make each image twice, and fail if the digests differ
    #[arg(long)]
    check: bool,
    /// Run each image's program under runc, in the security context that the manifests give it (takes root and runc)
    #[arg(long = "try")]
    trial: bool,
    /// Also write the agent's image as a bundle for runc, with what its pods are given on a node
    #[arg(long, value_name = "DIR")]
    bundle: Option<PathBuf>,
}

/// An image to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    Agent,
    Collector,
}

impl Which {
    const ALL: [Self; 2] = [Self::Agent, Self::Collector];

    /// The program, its package, and the image's name.
    const fn name(self) -> &'static str {
        match self {
            Self::Agent => "pgwitness-agent",
            Self::Collector => "pgwitness-collector",
        }
    }

    const fn title(self) -> &'static str {
        match self {
            Self::Agent => {
                "pgwitness agent: records what PostgreSQL servers of this node are asked, and by whom"
            }
            Self::Collector => "pgwitness collector: keeps the tamper-evident record and answers questions",
        }
    }

    /// User and group that it runs as. The agent is root, because what it holds are capabilities of root's, and gives up all others.
    const fn user(self) -> (u32, u32) {
        match self {
            Self::Agent => (0, 0),
            Self::Collector => (COLLECTOR_USER, COLLECTOR_USER),
        }
    }
}

/// The collector's user and group, as in the manifests. It is nobody else's by custom: the "nonroot" of images without a system.
const COLLECTOR_USER: u32 = 65532;

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let programs = match &args.programs {
        Some(folder) => folder.clone(),
        None => build()?,
    };
    let to = args.to.clone().unwrap_or_else(|| target().join("images"));
    let source = Source {
        url: args.source.clone(),
        ..Source::here(args.programs.is_none())?
    };
    for which in Which::ALL {
        let image = make(which, &programs, &source)?;
        if args.check {
            let again = make(which, &programs, &source)?;
            ensure!(
                image.digest() == again.digest(),
                "{}: made twice, and the digests differ: {} and {}",
                which.name(),
                image.digest(),
                again.digest()
            );
        }
        image.write(&to)?;
        println!("{} {}", image.reference(), image.digest());
        if args.trial {
            trial::run(which, &to.join(which.name()))?;
        }
    }
    if let Some(folder) = &args.bundle {
        unpack(&to.join(Which::Agent.name()), folder)?;
    }
    println!("images are in {}", to.display());
    Ok(ExitCode::SUCCESS)
}

/// The agent's image of these programs as a bundle for runc, in the target folder.
pub(crate) fn bundle(programs: &Path) -> anyhow::Result<PathBuf> {
    let (images, folder) = (target().join("contained-image"), target().join("contained"));
    make(Which::Agent, programs, &Source::here(false)?)?.write(&images)?;
    unpack(&images.join(Which::Agent.name()), &folder)?;
    Ok(folder)
}

/// What runc takes: the image's files in `rootfs`, and what is run of them in `config.json`.
fn unpack(image: &Path, folder: &Path) -> anyhow::Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot replace {}", folder.display()))?;
    }
    fs::create_dir_all(folder)?;
    trial::unpack(image, &folder.join("rootfs"))?;
    let configuration = Pod::of(Which::Agent)?.deployed()?;
    fs::write(
        folder.join("config.json"),
        serde_json::to_vec_pretty(&configuration)?,
    )
    .with_context(|| format!("cannot write into {}", folder.display()))
}

fn make(which: Which, programs: &Path, source: &Source) -> anyhow::Result<Image> {
    let program = programs.join(which.name());
    let parts = parts::of(which)?;
    let contents = Contents::of(which, &program, &parts)
        .with_context(|| format!("what {} takes cannot be put together", which.name()))?;
    let sbom = sbom::of(which, &contents, &parts, source)?;
    Image::of(which, &contents, &sbom, source)
}

/// Builds the programs as they are handed out: optimised, and without what only a debugger reads.
fn build() -> anyhow::Result<PathBuf> {
    step(cargo().args([
        "build",
        "--release",
        "--locked",
        "--config",
        "profile.release.strip=\"debuginfo\"",
        "--package",
        Which::Agent.name(),
        "--package",
        Which::Collector.name(),
    ]))?;
    Ok(target().join("release"))
}

/// Where an image comes from: what stands in its labels, and the time that everything in it has.
struct Source {
    version: &'static str,
    /// The commit, where the programs were built of it just now and nothing was changed since.
    revision: Option<String>,
    url: Option<String>,
    /// Seconds since the Unix epoch.
    time: u64,
}

impl Source {
    /// The time is `SOURCE_DATE_EPOCH` if that is set, else the commit's, else 0.
    fn here(is_built: bool) -> anyhow::Result<Self> {
        let set = std::env::var("SOURCE_DATE_EPOCH").ok();
        let time = match set.or_else(|| git(&["log", "-1", "--format=%ct"])) {
            Some(time) => time.parse().with_context(|| {
                format!("SOURCE_DATE_EPOCH is {time:?}: it must be seconds since the Unix epoch")
            })?,
            None => 0,
        };
        let is_clean = is_built && git(&["status", "--porcelain"]).is_some_and(|changes| changes.is_empty());
        Ok(Self {
            version: env!("CARGO_PKG_VERSION"),
            revision: git(&["rev-parse", "HEAD"]).filter(|_| is_clean),
            url: None,
            time,
        })
    }

    /// As RFC 3339 has it, in UTC.
    fn date(&self) -> String {
        date(self.time)
    }
}

fn git(words: &[&str]) -> Option<String> {
    let said = Command::new("git")
        .args(words)
        .current_dir(root())
        .output()
        .ok()?;
    let text = said
        .status
        .success()
        .then(|| String::from_utf8(said.stdout).ok())??;
    Some(text.trim().to_owned())
}

/// Days and seconds to a date, by the proleptic Gregorian calendar (H. Hinnant, "chrono-compatible low-level date algorithms").
fn date(time: u64) -> String {
    let (days, second) = (time / 86_400 + 719_468, time % 86_400);
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Reads a file, or says which.
fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_the_calendars() {
        for (time, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_767_225_599, "2025-12-31T23:59:59Z"),
            (1_795_413_816, "2026-11-23T06:03:36Z"),
        ] {
            assert_eq!(date(time), expected);
        }
    }
}
