//! Which of Debian's packages a file is of, for the bill of materials and for the terms under which it is handed on.
//!
//! Asks dpkg. On another system nothing is known: then files stand for themselves.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// An installed package.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Package {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) architecture: String,
    /// What it was built from.
    pub(super) source: String,
    pub(super) source_version: String,
    /// "debian", "ubuntu".
    pub(super) vendor: String,
}

impl Package {
    /// The package that brought a file.
    pub(super) fn of(path: &Path) -> Option<Self> {
        // Where /lib is a link to /usr/lib, packages name either.
        let without = path
            .strip_prefix("/usr")
            .ok()
            .map(|rest| Path::new("/").join(rest));
        let with = path
            .strip_prefix("/")
            .ok()
            .map(|rest| Path::new("/usr").join(rest));
        let places = [Some(path.to_path_buf()), without, with];
        let owner = places.into_iter().flatten().find_map(|place| {
            let said = said("dpkg-query", &["--search", place.to_str()?])?;
            // "libc6:amd64: /lib/…"; what was diverted is said in lines of another form.
            let line = said
                .lines()
                .find(|line| line.ends_with(place.to_str().unwrap_or(" ")))?;
            Some(line.rsplit_once(": ")?.0.to_owned())
        })?;
        let form = "${Package}\t${Version}\t${Architecture}\t${source:Package}\t${source:Version}\n";
        let said = said("dpkg-query", &["--show", "--showformat", form, &owner])?;
        let fields: Vec<&str> = said.lines().next()?.split('\t').collect();
        let [name, version, architecture, source, source_version] = fields.as_slice() else {
            return None;
        };
        Some(Self {
            name: (*name).to_owned(),
            version: (*version).to_owned(),
            architecture: (*architecture).to_owned(),
            source: (*source).to_owned(),
            source_version: (*source_version).to_owned(),
            vendor: vendor(),
        })
    }

    /// The file with its terms, which Debian's policy (12.5) asks of each package.
    pub(super) fn copyright(&self) -> PathBuf {
        Path::new("/usr/share/doc").join(&self.name).join("copyright")
    }

    /// What dpkg would know of it, as far as scanners ask.
    pub(super) fn status(&self) -> String {
        format!(
            "Package: {}\nStatus: install ok installed\nArchitecture: {}\nSource: {} ({})\nVersion: {}\n",
            self.name, self.architecture, self.source, self.source_version, self.version
        )
    }

    /// As a package URL.
    pub(super) fn purl(&self) -> String {
        let version = self
            .version
            .replace('+', "%2B")
            .replace(':', "%3A")
            .replace('~', "%7E");
        format!(
            "pkg:deb/{}/{}@{version}?arch={}",
            self.vendor, self.name, self.architecture
        )
    }
}

/// `ID` of os-release(5).
fn vendor() -> String {
    let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let id = text.lines().find_map(|line| line.strip_prefix("ID="));
    id.unwrap_or("debian").trim_matches('"').to_owned()
}

fn said(program: &str, words: &[&str]) -> Option<String> {
    let said = Command::new(program)
        .args(words)
        .env("LC_ALL", "C")
        .output()
        .ok()?;
    said.status
        .success()
        .then(|| String::from_utf8(said.stdout).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_c_library_is_of_a_package() {
        let library = Path::new("/lib/x86_64-linux-gnu/libc.so.6");
        if said("dpkg-query", &["--version"]).is_none() || !library.exists() {
            return eprintln!("not run: it needs Debian on x86-64");
        }
        let package = Package::of(library).expect("known");
        assert_eq!(
            (package.name.as_str(), package.source.as_str()),
            ("libc6", "glibc")
        );
        assert!(
            package.purl().starts_with("pkg:deb/") && !package.purl().contains('+'),
            "{package:?}"
        );
        assert!(
            package.status().contains("\nSource: glibc (2."),
            "{}",
            package.status()
        );
        assert_eq!(Package::of(&package.copyright()), Some(package.clone()));
        assert_eq!(Package::of(Path::new("/nowhere")), None);
    }
}
