//! Images for pods, made of files of this machine: no registry is asked for anything.
//!
//! Owns one image's folder, whose content becomes the only layer. Programs bring the libraries that they are linked with.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use super::node::PAUSE;

/// An image in the making.
#[derive(Debug)]
pub struct Image {
    folder: TempDir,
    libraries: BTreeSet<PathBuf>,
}

impl Image {
    /// With nothing in it.
    ///
    /// # Errors
    /// When no folder can be made.
    pub fn empty() -> Result<Self> {
        let folder = TempDir::with_prefix("pgwitness-image-").context("a folder for an image")?;
        fs::create_dir(folder.path().join("root"))?;
        Ok(Self {
            folder,
            libraries: BTreeSet::new(),
        })
    }

    /// What holds the namespaces of a pod.
    ///
    /// # Errors
    /// When there is no C compiler.
    pub(super) fn pause() -> Result<Self> {
        let image = Self::empty()?;
        let source = image.folder.path().join("pause.c");
        fs::write(&source, PAUSE_SOURCE)?;
        let output = Command::new("gcc")
            .args(["-O1", "-static", "-Wall", "-Wextra", "-Werror", "-o"])
            .arg(image.root().join("pause"))
            .arg(&source)
            .output()
            .context("running gcc (package gcc)")?;
        ensure!(
            output.status.success(),
            "gcc failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(image)
    }

    /// PostgreSQL as this machine has it, server and clients, a shell, and an account for the server (100).
    ///
    /// # Errors
    /// When it is not installed.
    pub fn postgres() -> Result<Self> {
        let versions = fs::read_dir("/usr/lib/postgresql").context("no PostgreSQL server is installed")?;
        let version = versions
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
            .max()
            .context("no PostgreSQL server is installed")?;
        let of_version = PathBuf::from(format!("/usr/lib/postgresql/{version}"));
        let mut image = Self::empty()?;
        for name in ["initdb", "pg_isready", "pgbench", "postgres", "psql"] {
            image.file(&of_version.join("bin").join(name))?;
            image.link(
                &of_version.join("bin").join(name),
                &Path::new("/usr/bin").join(name),
            )?;
        }
        for entry in fs::read_dir(of_version.join("lib"))?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            // What compiles queries is larger than everything else together; other languages want more than a file.
            let is_language = name.starts_with("plp") && name != "plpgsql.so";
            if name.ends_with(".so") && !name.starts_with("llvmjit") && !is_language {
                image.file(&entry.path())?;
            }
        }
        image.tree(Path::new(&format!("/usr/share/postgresql/{version}")))?;
        for program in ["/bin/cat", "/bin/date", "/bin/mkdir", "/bin/sh", "/bin/sleep"] {
            image.file(Path::new(program))?;
        }
        image.file(Path::new("/usr/share/zoneinfo/UTC"))?;
        image.text(
            "etc/passwd",
            "root:x:0:0::/:/bin/sh\npostgres:x:100:100::/tmp:/bin/sh\n",
        )?;
        image.text("etc/group", "root:x:0:\npostgres:x:100:\n")?;
        for open in ["run", "tmp"] {
            let folder = image.root().join(open);
            fs::create_dir_all(&folder)?;
            fs::set_permissions(folder, fs::Permissions::from_mode(0o1777))?;
        }
        Ok(image)
    }

    /// Copies a file to the same place in the image, and what it is linked with.
    ///
    /// # Errors
    /// When it cannot be copied, or a library is missing.
    pub fn file(&mut self, path: &Path) -> Result<()> {
        self.file_as(path, path)
    }

    /// As [`Image::file`], to another place.
    ///
    /// # Errors
    /// As [`Image::file`].
    pub fn file_as(&mut self, path: &Path, place: &Path) -> Result<()> {
        copy(path, &self.inside(place)?)?;
        if is_elf(path)? {
            self.needs(path)?;
        }
        Ok(())
    }

    /// A file with this text.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn text(&self, place: &str, text: &str) -> Result<()> {
        let to = self.inside(&Path::new("/").join(place))?;
        fs::write(&to, text).with_context(|| format!("writing {}", to.display()))
    }

    /// Packs it as one archive, which `docker save` would write, and returns its place: it goes with the image. Its first process
    /// is the program `command`, if a pod says no other; `user` is a number.
    ///
    /// # Errors
    /// When something cannot be read or written.
    pub fn pack(&self, tags: &[&str], user: u32, command: &[&str]) -> Result<PathBuf> {
        for library in &self.libraries {
            copy(library, &self.inside(library)?)?;
        }
        let folder = self.folder.path();
        tar(&self.root(), &folder.join("layer.tar"), &["."])?;
        let layer = digest(&folder.join("layer.tar"))?;
        let configuration = json!({
            "architecture": "amd64",
            "os": "linux",
            "config": { "User": user.to_string(), "Cmd": command, "Env": ["PATH=/usr/bin:/bin"] },
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{layer}")] },
            "history": [],
        });
        let manifest = json!([{ "Config": "config.json", "RepoTags": tags, "Layers": ["layer.tar"] }]);
        fs::write(folder.join("config.json"), configuration.to_string())?;
        fs::write(folder.join("manifest.json"), manifest.to_string())?;
        let archive = folder.join("image.tar");
        tar(folder, &archive, &["manifest.json", "config.json", "layer.tar"])?;
        Ok(archive)
    }

    /// As [`Image::pack`], for what [`Image::pause`] made.
    pub(super) fn pack_pause(&self) -> Result<PathBuf> {
        self.pack(&[PAUSE], 65_535, &["/pause"])
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    fn inside(&self, place: &Path) -> Result<PathBuf> {
        let to = self
            .root()
            .join(place.strip_prefix("/").context("an absolute path")?);
        fs::create_dir_all(to.parent().context("a path in a folder")?)?;
        Ok(to)
    }

    fn link(&self, to: &Path, place: &Path) -> Result<()> {
        Ok(symlink(to, self.inside(place)?)?)
    }

    fn tree(&mut self, folder: &Path) -> Result<()> {
        for entry in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
            let path = entry?.path();
            // What a link leads to counts.
            match path.is_dir() {
                true if path.ends_with("man") => {}
                true => self.tree(&path)?,
                false => copy(&path, &self.inside(&path)?)?,
            }
        }
        Ok(())
    }

    /// Notes what the dynamic linker loads for a program (ldd(1)).
    fn needs(&mut self, program: &Path) -> Result<()> {
        let output = Command::new("ldd").arg(program).output().context("running ldd")?;
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
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to)
        .map(drop)
        .with_context(|| format!("copying {}", from.display()))
}

fn is_elf(path: &Path) -> Result<bool> {
    let mut begin = [0_u8; 4];
    let length = File::open(path)
        .and_then(|mut file| file.read(&mut begin))
        .with_context(|| format!("reading {}", path.display()))?;
    Ok(length == begin.len() && &begin == b"\x7fELF")
}

fn tar(folder: &Path, archive: &Path, names: &[&str]) -> Result<()> {
    let output = Command::new("tar")
        .args(["--numeric-owner", "--owner=0", "--group=0", "-c", "-f"])
        .arg(archive)
        .args(names)
        .current_dir(folder)
        .output()
        .context("running tar")?;
    ensure!(
        output.status.success(),
        "tar failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

fn digest(path: &Path) -> Result<String> {
    let mut digest = Sha256::new();
    std::io::copy(&mut File::open(path)?, &mut digest)?;
    Ok(digest
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

const PAUSE_SOURCE: &str = include_str!("../../programs/pause.c");
