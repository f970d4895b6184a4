//! Probes in OpenSSL, where a pooler uses it: in its processes alone, so that nobody else who has the library mapped pays.
//!
//! The library is the file that the process has mapped, in whatever container; or its executable, if that has the functions
//! in itself. Programs that encrypt by other means have none of them, and stay encrypted.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use procfs::process::{MMPermissions, MMapPath, Process};

use super::plaintext::{Link, Probes, Why, offsets};

/// Programs for the entries, and the functions (SSL_read(3), SSL_write(3)).
const FUNCTIONS: [(&str, &str); 4] = [
    ("ssl_read", "SSL_read"),
    ("ssl_write", "SSL_write"),
    ("ssl_read_ex", "SSL_read_ex"),
    ("ssl_write_ex", "SSL_write_ex"),
];

/// The program for the return of any of them.
pub(super) const AT_RETURN: &str = "ssl_return";

/// Processes that are probed at once: each takes eight descriptors, of the 1024 that a process has by default.
const PROCESSES: usize = 64;

/// What its file is called, up to its version.
const LIBRARY: &str = "libssl.so";

pub(super) fn names() -> impl Iterator<Item = &'static str> {
    std::iter::once(AT_RETURN).chain(FUNCTIONS.map(|(program, _)| program))
}

impl Probes {
    /// Attaches the probes to a pooler's process, unless they are there.
    pub fn attach_pooler(&mut self, pid: u32) -> Why {
        if self.poolers.contains_key(&pid) {
            return None;
        }
        match self.try_attach_pooler(pid) {
            Ok(links) => {
                self.poolers.insert(pid, links);
                None
            }
            Err(why) => Some(why),
        }
    }

    /// A pooler's process ended, or runs something else.
    pub fn pooler_ended(&mut self, pid: u32) {
        let links = self.poolers.remove(&pid).unwrap_or_default();
        self.detach(links);
    }

    fn try_attach_pooler(&mut self, pid: u32) -> Result<Vec<Link>, String> {
        if let Some(why) = self.harm(pid) {
            return Err(why);
        }
        if self.poolers.len() >= PROCESSES {
            return Err(format!("{PROCESSES} processes of poolers are probed already"));
        }
        let (library, offsets) = library(pid)?;
        let mut links = Vec::new();
        // The returns first: an entry whose return is not seen would leave a call open.
        for at_return in [true, false] {
            for (program, function) in FUNCTIONS {
                let Some((_, offset)) = offsets.iter().find(|(name, _)| *name == function) else {
                    continue;
                };
                let program = if at_return { AT_RETURN } else { program };
                match self.attach_one(program, *offset, &library, Some(pid)) {
                    Ok(link) => links.push(link),
                    Err(problem) => {
                        self.detach(links);
                        return Err(format!("the kernel refused a probe at {function}: {problem}"));
                    }
                }
            }
        }
        Ok(links)
    }
}

/// The file in which a process has OpenSSL, and where the functions are in it.
fn library(pid: u32) -> Result<(PathBuf, Vec<(String, u64)>), String> {
    let unreadable = |error: &dyn std::fmt::Display| format!("its memory map cannot be read: {error}");
    let process = i32::try_from(pid).map_err(|error| unreadable(&error))?;
    let maps = Process::new(process).and_then(|process| process.maps());
    let maps = maps.map_err(|error| unreadable(&error))?;
    let mapped = maps.iter().find_map(|map| match &map.pathname {
        MMapPath::Path(path) if map.perms.contains(MMPermissions::EXECUTE) && is_library(path) => {
            Some((path, map.inode, map.address))
        }
        _ => None,
    });
    let file = match mapped {
        None => PathBuf::from(format!("/proc/{pid}/exe")),
        Some((path, inode, (from, to))) => {
            let inside = path.strip_prefix("/").unwrap_or(path);
            let file = Path::new("/proc").join(pid.to_string()).join("root").join(inside);
            match fs::metadata(&file) {
                Ok(metadata) if metadata.ino() == inode => file,
                // It was replaced since; this link leads to the very file, but takes more privilege.
                _ => PathBuf::from(format!("/proc/{pid}/map_files/{from:x}-{to:x}")),
            }
        }
    };
    let wanted = FUNCTIONS.map(|(_, function)| function);
    let found: Vec<(String, u64)> = offsets(&file, &wanted)?.into_iter().collect();
    if !found.iter().any(|(name, _)| name == "SSL_read") {
        return Err("it has no OpenSSL".to_owned());
    }
    Ok((file, found))
}

fn is_library(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.starts_with(LIBRARY))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_is_known_by_its_name() {
        for name in [
            "/usr/lib/x86_64-linux-gnu/libssl.so.3",
            "/opt/libssl.so.1.1",
            "/libssl.so",
        ] {
            assert!(is_library(Path::new(name)), "{name}");
        }
        for name in ["/usr/lib/libcrypto.so.3", "/usr/lib/libssl3.so", "/"] {
            assert!(!is_library(Path::new(name)), "{name}");
        }
    }

    #[test]
    fn who_has_no_openssl_says_so() {
        let why = library(std::process::id()).expect_err("rustls, if anything");
        assert_eq!(why, "it has no OpenSSL");
        assert!(library(u32::MAX).is_err_and(|why| why.starts_with("its memory map")));
    }
}
