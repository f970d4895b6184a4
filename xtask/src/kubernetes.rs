//! The programs of a Kubernetes cluster of one node, for tests that take a real one.
//!
//! Owns a folder in the cache with Kubernetes and Helm, built from their modules as the Go module proxy has them, and with what Debian packages:
//! etcd, containerd, plugins for pods' networks. Nothing is installed. `tests::kubernetes` is what runs them.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail};

use crate::{
    apt::{packages, quiet},
    step,
};

/// The folder, filled once for each set of versions: `bin` with programs, `cni` with plugins.
///
/// # Errors
/// When something cannot be fetched or built; the message says why.
pub(crate) fn ensure() -> anyhow::Result<PathBuf> {
    if env::consts::ARCH != "x86_64" {
        bail!("only packages for x86-64 are fetched");
    }
    let folder = ebpf_build::tools_folder()
        .parent()
        .context("the cache has no folder")?
        .join("kubernetes");
    let wanted = wanted()?;
    let made = folder.join(MADE);
    if fs::read_to_string(&made).is_ok_and(|made| made == wanted) {
        return Ok(folder);
    }
    eprintln!(
        "xtask: kubernetes: building it in {}; that takes a quarter of an hour on two cores",
        folder.display()
    );
    // What an interrupted build left is used again: Go keeps what it compiled in here.
    let unfinished = folder.join("unfinished");
    let (programs, plugins) = (unfinished.join("bin"), unfinished.join("cni"));
    fs::create_dir_all(&programs)?;
    fs::create_dir_all(&plugins)?;
    from_debian(&unfinished.join("debian"), &programs, &plugins)?;
    for module in &MODULES {
        module.build(&unfinished, &programs)?;
    }
    for (from, to) in [(programs, folder.join("bin")), (plugins, folder.join("cni"))] {
        if to.exists() {
            fs::remove_dir_all(&to)?;
        }
        fs::rename(from, to)?;
    }
    fs::remove_dir_all(&unfinished)?;
    // Last: with it, everything is there.
    fs::write(&made, wanted).with_context(|| format!("cannot write {}", made.display()))?;
    Ok(folder)
}

/// A Go module of ours, which only says what is built, in which versions.
struct Module {
    folder: &'static str,
    /// What gives it its version.
    names_version: &'static str,
    programs: &'static [&'static str],
    /// The linker's settings, `VERSION`, `MAJOR` and `MINOR` to be filled in. Both programs ask what they are by them.
    settings: &'static str,
}

const MODULES: [Module; 2] = [
    Module {
        folder: "tests/kubernetes/programs",
        names_version: "k8s.io/kubernetes",
        programs: &[
            "k8s.io/kubernetes/cmd/kube-apiserver",
            "k8s.io/kubernetes/cmd/kube-controller-manager",
            "k8s.io/kubernetes/cmd/kube-proxy",
            "k8s.io/kubernetes/cmd/kube-scheduler",
            "k8s.io/kubernetes/cmd/kubectl",
            "k8s.io/kubernetes/cmd/kubelet",
        ],
        settings: "-s -w -X k8s.io/component-base/version.gitVersion=VERSION \
                   -X k8s.io/component-base/version.gitMajor=MAJOR -X k8s.io/component-base/version.gitMinor=MINOR",
    },
    Module {
        folder: "tests/kubernetes/helm",
        names_version: "helm.sh/helm/v3",
        programs: &["helm.sh/helm/v3/cmd/helm"],
        settings: "-s -w -X helm.sh/helm/v3/internal/version.version=VERSION",
    },
];

impl Module {
    fn place(&self) -> PathBuf {
        step::root().join(self.folder)
    }

    /// `v1.34.4`, as `go.mod` requires it.
    fn version(&self) -> anyhow::Result<String> {
        let path = self.place().join("go.mod");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        text.lines()
            .map(|line| line.trim().trim_start_matches("require ").trim())
            .find_map(|line| line.strip_prefix(self.names_version)?.strip_prefix(' '))
            .and_then(|rest| rest.split(' ').next())
            .map(str::to_owned)
            .with_context(|| format!("{} does not require {}", path.display(), self.names_version))
    }

    fn build(&self, unfinished: &Path, programs: &Path) -> anyhow::Result<()> {
        let version = self.version()?;
        let mut numbers = version.trim_start_matches('v').split('.');
        let settings = self
            .settings
            .replace("VERSION", &version)
            .replace("MAJOR", numbers.next().unwrap_or_default())
            .replace("MINOR", numbers.next().unwrap_or_default());
        let has_go = Command::new("go").arg("version").stdout(Stdio::null()).status();
        if !has_go.is_ok_and(|status| status.success()) {
            bail!(
                "there is no Go to build {} {version} with (1.24 or newer)",
                self.names_version
            );
        }
        eprintln!("xtask: kubernetes: {} {version}", self.names_version);
        let mut command = Command::new("go");
        command
            .args(["build", "-trimpath", "-buildvcs=false", "-modcacherw", "-ldflags"])
            .arg(settings)
            // With a slash at its end it is a folder.
            .arg("-o")
            .arg(programs.join(""))
            .args(self.programs)
            .current_dir(self.place())
            // Without C: the programs need no library where they run.
            .env("CGO_ENABLED", "0")
            .env("GOCACHE", unfinished.join("go-build"))
            .env("GOMODCACHE", unfinished.join("go-mod"));
        step::run(&mut command)
    }
}

/// What makes the programs other ones.
fn wanted() -> anyhow::Result<String> {
    let mut wanted = String::new();
    for module in &MODULES {
        let path = module.place().join("go.mod");
        wanted += &fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    }
    wanted += &DEBIAN.map(|(package, _)| package).join("\n");
    Ok(wanted)
}

/// Of this machine's own release. `runc` and `nft` are there: `setup` installs them.
fn from_debian(folder: &Path, programs: &Path, plugins: &Path) -> anyhow::Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder)?;
    let names = DEBIAN.map(|(package, _)| package);
    eprintln!("xtask: kubernetes: fetching {}", names.join(", "));
    quiet(
        Command::new("apt-get")
            .arg("download")
            .args(names)
            .current_dir(folder),
    )?;
    for package in packages(folder)? {
        step::run(Command::new("dpkg-deb").arg("-x").arg(package).arg(folder))?;
    }
    for path in DEBIAN.iter().flat_map(|(_, paths)| *paths) {
        let from = folder.join(path);
        let to = if path.contains("/cni/") { plugins } else { programs };
        let name = from.file_name().context("a path without a name")?;
        fs::copy(&from, to.join(name)).with_context(|| format!("copying {}", from.display()))?;
    }
    Ok(())
}

/// Packages, and what is taken out of them.
const DEBIAN: [(&str, &[&str]); 3] = [
    ("etcd-server", &["usr/bin/etcd"]),
    (
        "containerd",
        &[
            "usr/bin/containerd",
            "usr/bin/containerd-shim-runc-v2",
            "usr/bin/ctr",
        ],
    ),
    (
        "containernetworking-plugins",
        &[
            "usr/lib/cni/host-local",
            "usr/lib/cni/loopback",
            "usr/lib/cni/ptp",
        ],
    ),
];

/// What the programs were made of.
const MADE: &str = "made";
