//! What a machine finds when it is up: pgwitness, a PostgreSQL server with its clients, and what they need, copied from
//! this machine into one initramfs. There is no disk: no kernel module is needed, and nothing is left behind.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail, ensure};

use super::kernel;
use crate::step;

/// Packs it, and returns the file.
pub(crate) fn initramfs(programs: &Path, folder: &Path) -> anyhow::Result<PathBuf> {
    eprintln!("xtask: kernels: packing what runs in the machines");
    let busybox = kernel::busybox()?;
    let root = folder.join("root");
    if root.exists() {
        fs::remove_dir_all(&root).with_context(|| format!("emptying {}", root.display()))?;
    }
    fs::create_dir_all(&root)?;
    let mut guest = Root {
        root,
        libraries: BTreeSet::new(),
    };
    guest.skeleton(&busybox)?;
    guest.pgwitness(programs)?;
    guest.postgres()?;
    guest.copy_libraries()?;
    let file = folder.join("initramfs");
    archive(&busybox, &guest.root, &file)?;
    Ok(file)
}

struct Root {
    root: PathBuf,
    /// Of everything that was copied, as `ldd` resolves them here.
    libraries: BTreeSet<PathBuf>,
}

impl Root {
    fn skeleton(&mut self, busybox: &Path) -> anyhow::Result<()> {
        for folder in ["bin", "dev", "etc", "opt", "proc", "run", "sys", "tmp", "usr/bin"] {
            fs::create_dir_all(self.root.join(folder))?;
        }
        let inside = self.root.join("bin/busybox");
        fs::copy(busybox, &inside)?;
        let output = Command::new(busybox).arg("--list").output().context("busybox")?;
        for name in String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter(|name| *name != "busybox")
        {
            symlink("busybox", self.root.join("bin").join(name))?;
        }
        let files = [
            (
                "etc/passwd",
                "root:x:0:0::/:/bin/sh\npostgres:x:100:100::/tmp:/bin/sh\n",
            ),
            ("etc/group", "root:x:0:\npostgres:x:100:\n"),
            ("etc/hosts", "127.0.0.1 localhost\n"),
            ("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n"),
            ("init", INIT),
        ];
        for (name, text) in files {
            fs::write(self.root.join(name), text)?;
        }
        fs::set_permissions(self.root.join("init"), fs::Permissions::from_mode(0o755))?;
        Ok(())
    }

    /// Without their symbols, which are most of them.
    fn pgwitness(&mut self, programs: &Path) -> anyhow::Result<()> {
        for name in PROGRAMS {
            let (from, to) = (programs.join(name), self.root.join("opt").join(name));
            ensure!(from.is_file(), "{} is not built", from.display());
            step::run(Command::new("strip").arg("-o").arg(&to).arg(&from))?;
            self.needs(&from)?;
        }
        Ok(())
    }

    /// The newest server that Debian's packages installed, and what its clients use.
    fn postgres(&mut self) -> anyhow::Result<()> {
        let versions = fs::read_dir("/usr/lib/postgresql").context("no PostgreSQL server is installed")?;
        let version = versions
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
            .max()
            .context("no PostgreSQL server is installed")?;
        for name in SERVER_PROGRAMS {
            self.file(Path::new(&format!("/usr/lib/postgresql/{version}/bin/{name}")))?;
        }
        let modules = PathBuf::from(format!("/usr/lib/postgresql/{version}/lib"));
        for entry in fs::read_dir(&modules)?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            // LLVM is larger than everything else together, and nothing here runs for so long that it would compile.
            if name.ends_with(".so")
                && !name.starts_with("llvmjit")
                && !name.starts_with("plp") | (name == "plpgsql.so")
            {
                self.file(&entry.path())?;
            }
        }
        self.tree(Path::new(&format!("/usr/share/postgresql/{version}")))?;
        self.file(Path::new("/usr/bin/openssl"))?;
        self.file(Path::new("/etc/ssl/openssl.cnf"))?;
        fs::create_dir_all(self.root.join("usr/lib/ssl"))?;
        symlink("/etc/ssl/openssl.cnf", self.root.join("usr/lib/ssl/openssl.cnf"))?;
        for zone in ["UTC", "GMT", "Etc/UTC"] {
            self.file(&Path::new("/usr/share/zoneinfo").join(zone))?;
        }
        Ok(())
    }

    /// Copies a file to the same place inside.
    fn file(&mut self, path: &Path) -> anyhow::Result<()> {
        let to = self.inside(path)?;
        fs::copy(path, &to).with_context(|| format!("copying {}", path.display()))?;
        if is_elf(path)? {
            self.needs(path)?;
        }
        Ok(())
    }

    fn tree(&mut self, folder: &Path) -> anyhow::Result<()> {
        for entry in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
            let path = entry?.path();
            // What a link leads to counts.
            match path.is_dir() {
                true if path.ends_with("man") => {}
                true => self.tree(&path)?,
                false => {
                    let to = self.inside(&path)?;
                    fs::copy(&path, &to).with_context(|| format!("copying {}", path.display()))?;
                }
            }
        }
        Ok(())
    }

    fn inside(&self, path: &Path) -> anyhow::Result<PathBuf> {
        let to = self
            .root
            .join(path.strip_prefix("/").context("an absolute path")?);
        fs::create_dir_all(to.parent().context("a path in a folder")?)?;
        Ok(to)
    }

    /// Notes what the dynamic linker loads for a program (ldd(1)).
    fn needs(&mut self, program: &Path) -> anyhow::Result<()> {
        let output = Command::new("ldd")
            .arg(program)
            .output()
            .context("cannot start ldd")?;
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            // `libm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x…)`, or the linker's own path alone.
            let found = line.split_once(" => ").map_or(line, |(_, path)| path).trim();
            if found.starts_with("not found") {
                bail!("{} needs a library that is not here: {line}", program.display());
            }
            if let Some(path) = found.split(' ').next().filter(|path| path.starts_with('/')) {
                self.libraries.insert(path.into());
            }
        }
        Ok(())
    }

    fn copy_libraries(&self) -> anyhow::Result<()> {
        for library in &self.libraries {
            let to = self.inside(library)?;
            fs::copy(library, &to).with_context(|| format!("copying {}", library.display()))?;
        }
        Ok(())
    }
}

fn is_elf(path: &Path) -> anyhow::Result<bool> {
    Ok(fs::read(path)?.starts_with(b"\x7fELF"))
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

/// What the suite runs.
const PROGRAMS: [&str; 4] = [
    "pgwitness-agent",
    "pgwitness-collector",
    "pgwitness-truth",
    "truth-oneshot",
];
const SERVER_PROGRAMS: [&str; 4] = ["initdb", "postgres", "psql", "pgbench"];

/// The first process. The last line that it prints is what `machine` reads; the machine is off behind it.
const INIT: &str = include_str!("init.sh");
