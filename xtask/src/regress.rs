//! PostgreSQL's own regression tests, as traffic for the suite `wire`.
//!
//! They are in the distribution's source package of the very version that is installed, which is fetched with apt: from
//! the machine's own Debian sources, read as source archives, with lists of its own, so that nothing of the machine's
//! configuration changes. The C functions that the tests call are compiled against the headers of the development
//! package, which is unpacked and not installed.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail};

use crate::step;

/// Debian's server in the suite's full form.
const SERVER: &str = "postgresql-15";
const HEADERS: &str = "postgresql-server-dev-15";
/// Where Debian keeps its sources of packages (sources.list(5)).
const SOURCES: &str = "/etc/apt/sources.list.d/debian.sources";

/// The folder with `sql`, `data`, the schedule and `regress.so`.
///
/// # Errors
/// When they cannot be had; the message says why.
pub(crate) fn ensure() -> anyhow::Result<PathBuf> {
    if env::consts::ARCH != "x86_64" {
        bail!("the other servers are for x86-64, and so are these tests");
    }
    let version = installed()?;
    let home = env::var_os("HOME").context("HOME is not set")?;
    let cache = PathBuf::from(home).join(".cache/pgwitness/regress");
    let place = cache.join(&version);
    if place.join("regress.so").is_file() {
        return Ok(place);
    }
    eprintln!("xtask: fetching the regression tests of {SERVER} {version}");
    let work = cache.join("unfinished");
    if work.exists() {
        fs::remove_dir_all(&work)?;
    }
    fs::create_dir_all(work.join("lists/partial"))?;
    fetch(&work, &version)?;
    let unpacked = unpack(&work)?;
    compile(&work, &unpacked)?;
    if place.exists() {
        fs::remove_dir_all(&place)?;
    }
    fs::rename(&unpacked, &place)?;
    fs::remove_dir_all(&work)?;
    Ok(place)
}

fn installed() -> anyhow::Result<String> {
    let output = Command::new("dpkg-query")
        .args(["-W", "-f", "${Version}", SERVER])
        .stderr(Stdio::null())
        .output()
        .context("there is no dpkg to ask for the server's version")?;
    let version = String::from_utf8(output.stdout)?;
    if !output.status.success() || version.is_empty() {
        bail!("the package {SERVER} is not installed");
    }
    Ok(version)
}

fn fetch(work: &Path, version: &str) -> anyhow::Result<()> {
    let sources = fs::read_to_string(SOURCES).with_context(|| format!("no Debian sources in {SOURCES}"))?;
    let mut text = String::new();
    for line in sources.lines() {
        text.push_str(if line.starts_with("Types:") {
            "Types: deb-src"
        } else {
            line
        });
        text.push('\n');
    }
    fs::create_dir(work.join("parts"))?;
    fs::write(work.join("parts/source.sources"), text)?;
    let with_sources = || {
        let mut apt = Command::new("apt-get");
        let option = |name: &str, path: &str| format!("Dir::{name}={}", work.join(path).display());
        apt.args(["-q", "-o", "Dir::Etc::sourcelist=/dev/null"])
            .args(["-o", &option("Etc::sourceparts", "parts")])
            .args(["-o", &option("State::lists", "lists")])
            .current_dir(work);
        apt
    };
    step::run(with_sources().arg("update"))?;
    step::run(with_sources().args(["source", "--download-only", &format!("{SERVER}={version}")]))?;
    step::run(
        Command::new("apt-get")
            .args(["-q", "download", &format!("{HEADERS}={version}")])
            .current_dir(work),
    )
}

fn unpack(work: &Path) -> anyhow::Result<PathBuf> {
    let of = |part: &str| {
        let entries = fs::read_dir(work)?.flatten().map(|entry| entry.path());
        let mut found = entries.filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.ends_with(part) || name.contains(&format!("{part}."))
        });
        found.next().with_context(|| format!("apt fetched no {part}"))
    };
    let (source, headers) = (of(".orig.tar")?, of("_amd64.deb")?);
    fs::create_dir(work.join("source"))?;
    step::run(
        Command::new("tar")
            .arg("-xf")
            .arg(source)
            .arg("-C")
            .arg(work.join("source"))
            .args(["--strip-components=1", "--wildcards", "*/src/test/regress/*"]),
    )?;
    step::run(
        Command::new("dpkg")
            .arg("-x")
            .arg(headers)
            .arg(work.join("headers")),
    )?;
    Ok(work.join("source/src/test/regress"))
}

fn compile(work: &Path, tests: &Path) -> anyhow::Result<()> {
    let include = work.join("headers/usr/include/postgresql");
    let server = fs::read_dir(&include)?
        .flatten()
        .map(|entry| entry.path().join("server"))
        .find(|path| path.is_dir())
        .context("the development package has no headers")?;
    step::run(
        Command::new("gcc")
            .args(["-shared", "-fPIC", "-O1", "-I"])
            .arg(server)
            .arg("-I")
            .arg(include.join("internal"))
            .arg("-o")
            .arg(tests.join("regress.so"))
            .arg(tests.join("regress.c")),
    )
}
