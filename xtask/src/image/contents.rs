//! What is in an image, and nothing else: the program, what loads it, and the few files that its libraries read.
//!
//! There is no shell and no package manager: whoever gets into the container finds the program alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use anyhow::Context as _;

use super::{
    Which,
    debian::Package,
    elf::{self, Needs},
    parts::{self, Part},
    read,
};

/// Authorities that servers on the internet are believed by, as Debian's `ca-certificates` puts them together.
const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// The package of them: the file is made when it is installed, so that dpkg does not know it.
const AUTHORITIES_ARE_OF: &str = "/usr/share/ca-certificates/mozilla/ISRG_Root_X1.crt";

/// Which system this is: os-release(5).
const SYSTEM: &str = "/etc/os-release";

/// Without this file the C library would ask name servers before it looks at /etc/hosts.
const NAMES: &str = "passwd: files\ngroup: files\nhosts: files dns\n";

/// A file of an image.
pub(super) struct File {
    pub(super) bytes: Vec<u8>,
    pub(super) executable: bool,
}

/// All files of an image, by their places, and where they are from.
pub(super) struct Contents {
    pub(super) architecture: &'static str,
    pub(super) files: BTreeMap<PathBuf, File>,
    /// Packages of the system that files were taken from.
    pub(super) packages: BTreeSet<Package>,
    /// Libraries that no package is known of.
    pub(super) strangers: Vec<PathBuf>,
}

impl Contents {
    /// For a program on this system.
    pub(super) fn of(which: Which, program: &Path, parts: &BTreeSet<Part>) -> anyhow::Result<Self> {
        let bytes = read(program)?;
        let needs = Needs::of(&bytes).with_context(|| program.display().to_string())?;
        let mut contents = Self {
            architecture: needs.architecture,
            files: BTreeMap::new(),
            packages: BTreeSet::new(),
            strangers: Vec::new(),
        };
        for (path, bytes) in elf::libraries(&needs)? {
            match Package::of(&path) {
                Some(package) => contents.add_package(package),
                None => contents.strangers.push(path.clone()),
            }
            contents.add(path, bytes, true);
        }
        contents.add(super::pod::program(which), bytes, true);
        contents.text("/etc/passwd", &users(which));
        contents.text("/etc/group", &groups(which));
        contents.text("/etc/nsswitch.conf", NAMES);
        if which == Which::Collector {
            let authorities = read(Path::new(AUTHORITIES)).context(
                "the collector's image takes the authorities that issuers and buckets are believed by (apt install ca-certificates)",
            )?;
            contents.add(AUTHORITIES.into(), authorities, false);
            contents
                .packages
                .extend(Package::of(Path::new(AUTHORITIES_ARE_OF)));
        }
        for package in contents.packages.clone() {
            let path = package.copyright();
            let terms = read(&path)?;
            contents.add(path, terms, false);
            // Where scanners look in images that have no package manager.
            let place = format!("/var/lib/dpkg/status.d/{}", package.name);
            contents.text(&place, &package.status());
        }
        if !contents.packages.is_empty() {
            // Whose packages these are.
            contents.add(SYSTEM.into(), read(Path::new(SYSTEM))?, false);
        }
        let own = read(&crate::step::root().join("LICENSE"))?;
        let docs = Path::new("/usr/share/doc").join(which.name());
        contents.add(docs.join("copyright"), own, false);
        let others = parts::terms(parts)?.into_bytes();
        contents.add(docs.join("third-party"), others, false);
        Ok(contents)
    }

    fn add(&mut self, path: PathBuf, bytes: Vec<u8>, executable: bool) {
        self.files.insert(path, File { bytes, executable });
    }

    fn add_package(&mut self, package: Package) {
        self.packages.insert(package);
    }

    fn text(&mut self, path: &str, text: &str) {
        self.add(path.into(), text.as_bytes().to_vec(), false);
    }
}

fn users(which: Which) -> String {
    let mut text = "root:x:0:0:root:/:/nonexistent\n".to_owned();
    if let (user @ 1.., group) = which.user() {
        text += &format!("pgwitness:x:{user}:{group}:pgwitness:/:/nonexistent\n");
    }
    text
}

fn groups(which: Which) -> String {
    let mut text = "root:x:0:\n".to_owned();
    if let (_, group @ 1..) = which.user() {
        text += &format!("pgwitness:x:{group}:\n");
    }
    text
}
