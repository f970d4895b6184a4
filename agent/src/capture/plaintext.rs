//! Probes in the servers' encryption functions: which executables have them, and what was attached where.
//!
//! A server exports the functions in its dynamic symbol table, for its extensions' sake, so that a stripped executable
//! has them too. Whoever runs the file hits the probe, so one attachment serves all its processes, and unencrypted
//! connections never come by.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File},
    io,
    num::NonZeroU32,
    os::{fd::OwnedFd, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use aya::{
    Ebpf,
    programs::{
        UProbe,
        uprobe::{UProbeAttachLocation, UProbeLinkId, UProbeScope},
    },
};
use ebpf_abi::{TARGET_PROBED_GSS, TARGET_PROBED_TLS};
use object::{Object as _, ObjectSegment as _, ObjectSymbol, read::ReadCache};

use serde::{Deserialize, Serialize};
use tracing::warn;

use super::{
    gauge::Skipped,
    hooks::describe,
    multi::MultiPrograms,
    openssl,
    seccomp::{self, Effect},
};

/// Functions of the server, by the encryption that they serve; each has a program of its name for its entry.
const FUNCTIONS: [(Encryption, [&str; 2]); 2] = [
    (Encryption::Tls, ["be_tls_read", "be_tls_write"]),
    (Encryption::Gss, ["be_gssapi_read", "be_gssapi_write"]),
];

/// Which servers may be probed at the return of a function.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AtReturn {
    /// All; those whose system calls are filtered only where it was tried that it does them no harm.
    #[default]
    Auto,
    /// All, whatever becomes of them.
    Always,
    /// Those whose system calls are not filtered.
    Unconfined,
}

/// What a server can be asked to encrypt with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encryption {
    /// Transport Layer Security.
    Tls,
    /// GSSAPI (Kerberos).
    Gss,
}

impl From<tap_core::EncryptionKind> for Encryption {
    fn from(kind: tap_core::EncryptionKind) -> Self {
        match kind {
            tap_core::EncryptionKind::Tls => Self::Tls,
            tap_core::EncryptionKind::Gss => Self::Gss,
        }
    }
}

/// How the encrypted sessions of a server are read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readable {
    /// With TLS, or why not.
    pub tls: Why,
    /// With GSSAPI, or why not.
    pub gss: Why,
}

/// `None`: it works; else the reason why not.
pub type Why = Option<String>;

impl Readable {
    /// The flags of a [`ebpf_abi::Target`] that say so.
    pub fn flags(&self) -> u32 {
        let flag = |why: &Why, flag| if why.is_none() { flag } else { 0 };
        flag(&self.tls, TARGET_PROBED_TLS) | flag(&self.gss, TARGET_PROBED_GSS)
    }

    /// Why one kind of encryption is not.
    pub fn why_not(&self, encryption: Encryption) -> &Why {
        match encryption {
            Encryption::Tls => &self.tls,
            Encryption::Gss => &self.gss,
        }
    }

    /// Nothing is, for this reason.
    fn nothing(why: &str) -> Self {
        Self {
            tls: Some(why.to_owned()),
            gss: Some(why.to_owned()),
        }
    }
}

/// An executable: device and inode.
type FileId = (u64, u64);

/// The programs, and where they are attached.
pub struct Probes {
    programs: Ebpf,
    multi: Option<MultiPrograms>,
    /// Programs that cannot be used, and why.
    refused: HashMap<&'static str, String>,
    files: HashMap<FileId, Attached>,
    at_return: AtReturn,
    /// What a probe at a return does to a process whose system calls are filtered.
    effect: Effect,
    /// Those in poolers, by process.
    pub(super) poolers: HashMap<u32, Vec<Link>>,
}

struct Attached {
    links: Vec<Link>,
    readable: Readable,
    servers: HashSet<u32>,
}

/// One probe in one file. Dropping a link of the new kind detaches it.
pub(super) enum Link {
    Multi(#[expect(dead_code, reason = "held for its drop")] OwnedFd),
    PerfEvent(&'static str, UProbeLinkId),
}

/// The programs for links of the new kind.
pub(super) fn load_multi(object: &[u8], loaded: &Ebpf) -> Result<MultiPrograms, String> {
    MultiPrograms::load(object, loaded, all_names())
}

impl Probes {
    /// Loads them all: when a server starts there is no time for it, its first client comes within milliseconds. `multi`
    /// are the programs for the new kind of link, where the kernel has it.
    pub(super) fn new(
        programs: Ebpf,
        multi: Option<Result<MultiPrograms, String>>,
        at_return: AtReturn,
    ) -> Self {
        let mut probes = Self::load(programs, multi, at_return);
        probes.effect =
            seccomp::effect(|executable, offset| probes.attach_one(AT_RETURN, offset, executable, None));
        if !probes.effect.is_harmless() {
            warn!(
                "probes would or might end servers whose system calls are filtered ({:?}): see tap.uretprobes",
                probes.effect
            );
        }
        probes
    }

    fn load(programs: Ebpf, multi: Option<Result<MultiPrograms, String>>, at_return: AtReturn) -> Self {
        let mut probes = Self {
            programs,
            multi: None,
            refused: HashMap::new(),
            files: HashMap::new(),
            at_return,
            effect: Effect::Unknown(String::new()),
            poolers: HashMap::new(),
        };
        match multi {
            Some(Ok(multi)) => {
                probes.multi = Some(multi);
                return probes;
            }
            Some(Err(problem)) => {
                warn!("probes are attached the old way, which needs CAP_SYS_ADMIN: {problem}");
            }
            None => {}
        }
        for name in all_names() {
            let loaded = probes
                .uprobe(name)
                .and_then(|program| program.load().map_err(describe));
            if let Err(problem) = loaded {
                let problem = format!("the kernel refused the program {name}: {problem}");
                probes.refused.insert(name, problem);
            }
        }
        probes
    }

    /// Attaches the probes to the executable of a server, unless they are there.
    pub fn attach(&mut self, server: u32) -> Readable {
        // The link leads to the very file, whatever stands at its path by now, in whatever container.
        let executable = PathBuf::from(format!("/proc/{server}/exe"));
        let id = match fs::metadata(&executable) {
            Ok(metadata) => (metadata.dev(), metadata.ino()),
            Err(error) => return Readable::nothing(&format!("its executable cannot be read: {error}")),
        };
        if let Some(why) = self.harm(server) {
            // Whoever runs the file hits the probe: none of its servers can have it.
            let links = match self.files.get_mut(&id) {
                Some(attached) => {
                    attached.readable = Readable::nothing(&why);
                    std::mem::take(&mut attached.links)
                }
                None => {
                    let attached = Attached {
                        links: Vec::new(),
                        readable: Readable::nothing(&why),
                        servers: HashSet::new(),
                    };
                    self.files.insert(id, attached);
                    Vec::new()
                }
            };
            self.detach(links);
        }
        if let Some(attached) = self.files.get_mut(&id) {
            attached.servers.insert(server);
            return attached.readable.clone();
        }
        let mut links = Vec::new();
        let mut why = [None, None];
        let wanted: Vec<&str> = FUNCTIONS.iter().flat_map(|(_, names)| *names).collect();
        match offsets(&executable, &wanted) {
            Err(problem) => return Readable::nothing(&problem),
            Ok(offsets) => {
                for ((_, functions), why) in FUNCTIONS.iter().zip(&mut why) {
                    *why = self
                        .attach_all(functions, &offsets, &executable, &mut links)
                        .err();
                }
            }
        }
        let [tls, gss] = why;
        let readable = Readable { tls, gss };
        let attached = Attached {
            links,
            readable: readable.clone(),
            servers: HashSet::from([server]),
        };
        self.files.insert(id, attached);
        readable
    }

    /// What a probe at the return of a function does to a process whose system calls are filtered.
    pub fn effect(&self) -> &Effect {
        &self.effect
    }

    /// Why a server must not be probed, if so.
    pub(super) fn harm(&self, server: u32) -> Option<String> {
        let why = match (self.at_return, &self.effect) {
            (AtReturn::Always, _) => return None,
            (AtReturn::Unconfined, _) => "tap.uretprobes leaves those alone".to_owned(),
            (AtReturn::Auto, Effect::NoCall | Effect::Harmless) => return None,
            (AtReturn::Auto, Effect::Deadly) => "this kernel would end it at a probe".to_owned(),
            (AtReturn::Auto, Effect::Unknown(why)) => {
                format!("whether this kernel would end it at a probe could not be tried ({why})")
            }
        };
        let confined = seccomp::is_confined(server);
        confined.then(|| format!("its system calls are filtered (seccomp), and {why}"))
    }

    /// Whether attaching takes CAP_SYS_ADMIN, because this kernel has no other way.
    pub fn take_admin(&self) -> bool {
        self.multi.is_none()
    }

    /// Runs of the programs that the kernel skipped.
    pub fn skipped(&self) -> Skipped {
        super::gauge::skipped(&self.programs)
    }

    /// A server ended: the file that only it ran needs no probes any more.
    pub fn ended(&mut self, server: u32) {
        let mut over = Vec::new();
        self.files.retain(|_, attached| {
            let was_there = attached.servers.remove(&server);
            if was_there && attached.servers.is_empty() {
                over.append(&mut attached.links);
                return false;
            }
            true
        });
        self.detach(over);
    }

    pub(super) fn detach(&mut self, links: Vec<Link>) {
        for link in links {
            if let Link::PerfEvent(name, link) = link
                && let Ok(program) = self.uprobe(name)
            {
                // The file may be gone with all its pages: then there is nothing to detach.
                let _ = program.detach(link);
            }
        }
    }

    fn attach_all(
        &mut self,
        functions: &[&'static str; 2],
        offsets: &HashMap<String, u64>,
        executable: &Path,
        links: &mut Vec<Link>,
    ) -> Result<(), String> {
        for function in functions {
            let offset = *offsets
                .get(*function)
                .ok_or_else(|| format!("its executable has no function {function}"))?;
            for name in names(function) {
                let link = self
                    .attach_one(name, offset, executable, None)
                    .map_err(|problem| format!("the kernel refused a probe at {function}: {problem}"))?;
                links.push(link);
            }
        }
        Ok(())
    }

    pub(super) fn attach_one(
        &mut self,
        name: &'static str,
        offset: u64,
        executable: &Path,
        process: Option<u32>,
    ) -> Result<Link, String> {
        if let Some(multi) = &self.multi {
            let at_return = name == AT_RETURN || name == openssl::AT_RETURN;
            let link = multi.attach(name, executable, offset, at_return, process);
            return link.map(Link::Multi).map_err(|error| error.to_string());
        }
        if let Some(problem) = self.refused.get(name) {
            return Err(problem.clone());
        }
        let scope = match process.and_then(NonZeroU32::new) {
            Some(process) => UProbeScope::OneProcess(process),
            None => UProbeScope::AllProcesses,
        };
        let link = self
            .uprobe(name)?
            .attach(UProbeAttachLocation::AbsoluteOffset(offset), executable, scope);
        Ok(Link::PerfEvent(name, link.map_err(describe)?))
    }

    fn uprobe(&mut self, name: &str) -> Result<&mut UProbe, String> {
        let program = self
            .programs
            .program_mut(name)
            .ok_or_else(|| format!("the embedded object has no program {name}"))?;
        program.try_into().map_err(describe)
    }
}

/// The program for the return of any of them.
const AT_RETURN: &str = "encryption_return";

/// The programs for a function. The return first: an entry whose return is not seen would leave a call open.
fn names(function: &'static str) -> [&'static str; 2] {
    [AT_RETURN, function]
}

fn all_names() -> impl Iterator<Item = &'static str> {
    let entries = FUNCTIONS.iter().flat_map(|(_, functions)| *functions);
    std::iter::once(AT_RETURN).chain(entries).chain(openssl::names())
}

/// Longest executable that is read. Anybody can name a file like a server and run it, and what its headers say is held in
/// memory; a server has some 10 MiB, with everything for debuggers some 60.
const EXECUTABLE_MAX: u64 = 256 << 20;

/// Opens an executable, to look for symbols in it.
///
/// # Errors
///
/// If it cannot be opened, or is too long to be a server's.
pub fn open_executable(path: &Path) -> io::Result<File> {
    let file = File::open(path)?;
    if file.metadata()?.len() > EXECUTABLE_MAX {
        return Err(io::Error::other(format!(
            "it is longer than {} MiB",
            EXECUTABLE_MAX >> 20
        )));
    }
    Ok(file)
}

/// File offsets of functions that an executable or a library exports, or has under their names.
pub(super) fn offsets(executable: &Path, wanted: &[&str]) -> Result<HashMap<String, u64>, String> {
    let unreadable = |problem: String| format!("its executable cannot be read: {problem}");
    let file = open_executable(executable).map_err(|error| unreadable(error.to_string()))?;
    let cache = ReadCache::new(file);
    let elf = object::File::parse(&cache).map_err(|error| unreadable(error.to_string()))?;
    let mut found = HashMap::new();
    let symbols = elf.dynamic_symbols().chain(elf.symbols());
    for symbol in symbols.filter(ObjectSymbol::is_definition) {
        let Some(name) = symbol.name().ok().filter(|name| wanted.contains(name)) else {
            continue;
        };
        let address = symbol.address();
        let offset = elf.segments().find_map(|segment| {
            let within = address.checked_sub(segment.address())?;
            let (start, size) = segment.file_range();
            (within < size).then_some(start + within)
        });
        if let Some(offset) = offset {
            found.insert(name.to_owned(), offset);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_functions_are_found_and_a_programs_are_not() {
        let wanted: Vec<&str> = FUNCTIONS.iter().flat_map(|(_, names)| *names).collect();
        let offsets = |path: &Path| offsets(path, &wanted);
        let server = Path::new("/usr/lib/postgresql/15/bin/postgres");
        if server.exists() {
            let offsets = offsets(server).expect("a server can be read");
            assert_eq!(offsets.len(), 4, "{offsets:?}");
            assert!(offsets.values().all(|offset| *offset > 0));
        }
        let own = std::env::current_exe().expect("this program");
        assert_eq!(offsets(&own), Ok(HashMap::new()));
        assert!(offsets(Path::new("/etc/passwd")).is_err());
    }
}
