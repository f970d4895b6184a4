//! What a program needs of the system, by its ELF headers: the loader, and the shared libraries of it and of these in turn.
//!
//! Refuses to run anything: `ldd` would execute the program.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use object::{
    Architecture, Endianness, Object as _,
    elf::{DT_NEEDED, FileHeader64},
    read::elf::{ElfFile, ProgramHeader as _},
};

use super::read;

/// Where the loader looks without a cache or a setting (ld.so(8)), `{}` being the triplet of Debian's multiarch.
const FOLDERS: [&str; 6] = [
    "/lib/{}",
    "/usr/lib/{}",
    "/lib64",
    "/usr/lib64",
    "/lib",
    "/usr/lib",
];

/// Shared objects that a program may need in all: beyond, something goes round in circles.
const MAX: usize = 64;

/// What an executable or library says.
pub(super) struct Needs {
    pub(super) architecture: &'static str,
    /// The program that loads it.
    loader: Option<PathBuf>,
    libraries: Vec<String>,
}

impl Needs {
    pub(super) fn of(bytes: &[u8]) -> anyhow::Result<Self> {
        let file =
            ElfFile::<FileHeader64<Endianness>>::parse(bytes).context("it is no ELF file of 64 bits")?;
        let architecture = match file.architecture() {
            Architecture::X86_64 => "amd64",
            Architecture::Aarch64 => "arm64",
            other => bail!("it is for {other:?}: pgwitness is for x86-64 and AArch64"),
        };
        let endian = file.endian();
        let mut loader = None;
        for header in file.elf_program_headers() {
            if let Some(path) = header.interpreter(endian, bytes)? {
                loader = Some(PathBuf::from(std::str::from_utf8(path)?));
            }
        }
        let table = file.elf_dynamic_table()?;
        let mut libraries = Vec::new();
        for entry in table.iter() {
            if entry.tag == DT_NEEDED {
                libraries.push(std::str::from_utf8(table.string(entry)?)?.to_owned());
            }
        }
        Ok(Self {
            architecture,
            loader,
            libraries,
        })
    }
}

/// The loader and all libraries that a program needs: where the loader finds each, and its bytes.
pub(super) fn libraries(program: &Needs) -> anyhow::Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut waiting = program.libraries.clone();
    if let Some(loader) = &program.loader {
        found.insert(loader.clone(), read(loader)?);
    }
    while let Some(name) = waiting.pop() {
        let is_there = |path: &PathBuf| path.file_name().is_some_and(|known| known == name.as_str());
        if found.keys().any(is_there) {
            continue;
        }
        let path = find(&name, program.architecture)?;
        let bytes = read(&path)?;
        waiting.extend(
            Needs::of(&bytes)
                .with_context(|| path.display().to_string())?
                .libraries,
        );
        found.insert(path, bytes);
        if found.len() > MAX {
            bail!("more than {MAX} shared libraries are needed");
        }
    }
    Ok(found)
}

fn find(name: &str, architecture: &str) -> anyhow::Result<PathBuf> {
    let triplet = match architecture {
        "arm64" => "aarch64-linux-gnu",
        _ => "x86_64-linux-gnu",
    };
    let folders = FOLDERS.iter().map(|folder| folder.replace("{}", triplet));
    folders
        .map(|folder| Path::new(&folder).join(name))
        .find(|path| path.is_file())
        .with_context(|| format!("the library {name} is not where the loader looks for it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_very_program_is_read() {
        let own = std::env::current_exe().expect("its path");
        let needs = Needs::of(&read(&own).expect("its bytes")).expect("an ELF file");
        let libraries = libraries(&needs).expect("it runs, so they are there");
        let names: Vec<_> = libraries
            .keys()
            .filter_map(|path| path.file_name()?.to_str())
            .collect();
        assert!(names.contains(&"libc.so.6"), "{names:?}");
        assert!(names.iter().any(|name| name.starts_with("ld-linux")), "{names:?}");
        assert!(Needs::of(b"#!/bin/sh\n").is_err());
    }
}
