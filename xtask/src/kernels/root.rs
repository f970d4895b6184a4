//! What a machine begins with: an initramfs with a shell, the modules by which the host's files are reached, and what to do
//! there. Everything else is the host's own: what runs in a machine is what runs here.

use std::{
    collections::BTreeSet,
    env,
    fs::{self, File},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, ensure};

use super::kernel::{self, Kernel};

/// Packs it for a kernel and one command, and returns the file.
///
/// # Errors
/// When something cannot be copied, or the command has no words for a shell.
pub(crate) fn initramfs(kernel: &Kernel, command: &Command, folder: &Path) -> anyhow::Result<PathBuf> {
    let busybox = kernel::busybox()?;
    let root = folder.join("root");
    if root.exists() {
        fs::remove_dir_all(&root).with_context(|| format!("emptying {}", root.display()))?;
    }
    for folder in ["bin", "dev", "proc", "sys"] {
        fs::create_dir_all(root.join(folder))?;
    }
    fs::copy(&busybox, root.join("bin/busybox"))?;
    let output = Command::new(&busybox).arg("--list").output().context("busybox")?;
    for name in String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter(|name| *name != "busybox")
    {
        symlink("busybox", root.join("bin").join(name))?;
    }
    modules(kernel, &root)?;
    let variable = |name: &str| env::var(name).with_context(|| format!("{name} is not set"));
    let machine = format!(
        "HOME={}\nPATH={}\nMODULES={}\n",
        quoted(&variable("HOME")?),
        quoted(&variable("PATH")?),
        quoted(kernel.modules.to_str().context("a path that is not UTF-8")?),
    );
    let files = [
        ("init", INIT),
        ("host.sh", HOST),
        ("machine", &machine),
        ("command", &line(command)?),
    ];
    for (name, text) in files {
        fs::write(root.join(name), text)?;
    }
    fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755))?;
    let file = folder.join("initramfs");
    archive(&busybox, &root, &file)?;
    Ok(file)
}

/// Those by which the host's files are reached, and the ones that they use (depmod(8)).
fn modules(kernel: &Kernel, root: &Path) -> anyhow::Result<()> {
    let from = kernel.modules.join(&kernel.release);
    let to = root.join("lib/modules").join(&kernel.release);
    let lists = fs::read_to_string(from.join("modules.dep")).context("reading modules.dep")?;
    let mut files = BTreeSet::new();
    for (file, needs) in lists.lines().filter_map(|line| line.split_once(':')) {
        let name = Path::new(file).file_stem().and_then(|stem| stem.to_str());
        if name.is_some_and(|name| MODULES.contains(&name)) {
            files.insert(file);
            files.extend(needs.split_whitespace());
        }
    }
    for file in files
        .iter()
        .chain(&["modules.dep", "modules.alias", "modules.symbols"])
    {
        let copy = to.join(file);
        fs::create_dir_all(copy.parent().context("a path in a folder")?)?;
        fs::copy(from.join(file), copy).with_context(|| format!("copying {file}"))?;
    }
    fs::write(root.join("modules"), MODULES.join("\n"))?;
    Ok(())
}

/// As a shell reads it.
fn line(command: &Command) -> anyhow::Result<String> {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Option<Vec<String>> = words.map(|word| Some(quoted(word.to_str()?))).collect();
    Ok(words.context("a word that is not UTF-8")?.join(" ") + "\n")
}

fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// The kernel unpacks the format `newc` (Documentation/driver-api/early-userspace/buffer-format.rst). Not compressed:
/// unpacking is slow in a machine that is emulated.
fn archive(busybox: &Path, root: &Path, file: &Path) -> anyhow::Result<()> {
    let mut names = Command::new(busybox)
        .args(["find", "."])
        .current_dir(root)
        .stdout(Stdio::piped())
        .spawn()?;
    let status = Command::new(busybox)
        .args(["cpio", "-o", "-H", "newc", "-R", "0:0"])
        .current_dir(root)
        .stdin(names.stdout.take().context("find has no output")?)
        .stdout(File::create(file)?)
        .stderr(Stdio::null())
        .status()?;
    ensure!(names.wait()?.success() && status.success(), "cpio failed");
    Ok(())
}

/// The bus, the files, and the memory above them. A kernel that has one built in has no file of it.
const MODULES: [&str; 4] = ["virtio_pci", "9pnet_virtio", "9p", "overlay"];
/// The first process.
const INIT: &str = include_str!("init.sh");
/// The same process, when the host's files are its root.
const HOST: &str = include_str!("host.sh");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_the_words_that_were_meant() {
        let mut command = Command::new("printf");
        command.args(["%s|", "a b", "it's", "$HOME", ""]);
        let line = line(&command).expect("words");
        let output = Command::new("sh").args(["-c", &line]).output().expect("a shell");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "a b|it's|$HOME||");
    }
}
