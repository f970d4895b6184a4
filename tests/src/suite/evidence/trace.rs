//! What a program did to its files, by `strace`: a record that the program had no part in.
//!
//! Owns the reading of strace's text. An operation counts from its return on: only then a sync has promised anything.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};

/// One thing done to a file or folder, and when it began (nanoseconds since the Unix epoch).
#[derive(Clone, Debug)]
pub(super) struct Done {
    pub(super) at_ns: u64,
    pub(super) what: Deed,
}

/// Files are numbered in the order in which they were created.
#[derive(Clone, Debug)]
pub(super) enum Deed {
    /// A new, empty file.
    Create { path: PathBuf, file: usize },
    /// Bytes at a place.
    Write {
        file: usize,
        offset: u64,
        bytes: Vec<u8>,
    },
    /// Its length is set.
    Resize { file: usize, length: u64 },
    /// What was written to this file is durable.
    SyncFile { file: usize },
    /// What was changed in this folder is durable.
    SyncFolder { path: PathBuf },
    /// A new folder.
    Folder { path: PathBuf },
    /// A file has another name, or (`keeps`) one more.
    Rename { from: PathBuf, to: PathBuf, keeps: bool },
    /// A name is gone.
    Remove { path: PathBuf },
}

/// What strace is asked to write down: all that changes files, and all that moves a descriptor's place.
pub(super) const CALLS: &str = "trace=open,openat,creat,write,pwrite64,writev,pwritev,pwritev2,fsync,fdatasync,sync_file_range,\
rename,renameat,renameat2,link,linkat,unlink,unlinkat,rmdir,mkdir,mkdirat,truncate,ftruncate,fallocate,copy_file_range,sendfile,\
lseek,close,dup,dup2,dup3,symlink,symlinkat,mmap";

/// An open descriptor.
#[derive(Clone, Debug)]
enum Open {
    File { file: usize, place: u64, appends: bool },
    Folder(PathBuf),
}

/// The operations on files below `root`, in the order in which they were done.
///
/// # Errors
/// When the text cannot be understood, or has a way of writing that is not followed.
pub(super) fn read(text: &str, root: &Path) -> Result<Vec<Done>> {
    let mut reader = Reader {
        root,
        done: Vec::new(),
        open: HashMap::new(),
        names: HashMap::new(),
        files: 0,
    };
    let mut unfinished: HashMap<&str, String> = HashMap::new();
    for line in text.lines() {
        let (process, rest) = line.split_once(' ').context("a line without a process")?;
        let rest = rest.trim_start();
        let (at, call) = rest.split_once(' ').context("a line without a time")?;
        if call.starts_with("+++") || call.starts_with("---") {
            continue;
        }
        // The trace ended within the call: nothing is known to be done.
        if call.ends_with("<detached ...>") {
            unfinished.remove(process);
            continue;
        }
        if let Some(begin) = call.strip_suffix("<unfinished ...>") {
            // Its number can be another file's before the call is over.
            if let Some(descriptor) = begin.trim_end().strip_prefix("close(") {
                reader.open.remove(&descriptor.trim_end_matches(')').parse()?);
                continue;
            }
            unfinished.insert(process, format!("{at} {begin}"));
            continue;
        }
        if call.starts_with("<... close resumed>") {
            continue;
        }
        let whole = if let Some(resumed) = call.strip_prefix("<... ") {
            let begin = unfinished.remove(process).context("a call that did not begin")?;
            let (_, end) = resumed
                .split_once("resumed>")
                .context("a call that goes on without a name")?;
            format!("{begin}{end}")
        } else {
            format!("{at} {call}")
        };
        reader
            .take(&whole)
            .with_context(|| whole.chars().take(300).collect::<String>())?;
    }
    Ok(reader.done)
}

struct Reader<'a> {
    root: &'a Path,
    done: Vec<Done>,
    open: HashMap<i64, Open>,
    /// Which file has which name now.
    names: HashMap<PathBuf, usize>,
    files: usize,
}

impl Reader<'_> {
    fn take(&mut self, line: &str) -> Result<()> {
        let (at, call) = line.split_once(' ').context("no time")?;
        let at_ns = nanoseconds(at)?;
        let (name, rest) = call.split_once('(').context("no call")?;
        let (arguments, result) = rest.rsplit_once(" = ").context("no result")?;
        let arguments = arguments
            .trim_end()
            .strip_suffix(')')
            .context("no end of arguments")?;
        let result: i64 = match result.split(' ').next().unwrap_or("?") {
            // Ended within the call: nothing is known to be done.
            "?" => return Ok(()),
            address if address.starts_with("0x") => 0,
            number => number.parse()?,
        };
        if result < 0 {
            return Ok(());
        }
        let arguments = split(arguments);
        let argument = |index: usize| arguments.get(index).map_or("", String::as_str);
        let number = |index: usize| argument(index).parse::<i64>().unwrap_or(-1);
        match name {
            "open" | "openat" | "creat" => {
                ensure!(
                    name == "openat" && argument(0) == "AT_FDCWD",
                    "a way to open that is not followed"
                );
                self.opened(at_ns, path(argument(1))?, argument(2), result);
            }
            "close" => {
                self.open.remove(&number(0));
            }
            "lseek" => {
                if let Some(Open::File { place, .. }) = self.open.get_mut(&number(0)) {
                    *place = u64::try_from(result)?;
                }
            }
            "write" | "writev" => self.written(at_ns, number(0), argument(1), None, result)?,
            "pwrite64" => {
                let offset = number(3);
                self.written(
                    at_ns,
                    number(0),
                    argument(1),
                    Some(u64::try_from(offset)?),
                    result,
                )?;
            }
            "fsync" | "fdatasync" => match self.open.get(&number(0)) {
                Some(Open::File { file, .. }) => self.push(at_ns, Deed::SyncFile { file: *file }),
                Some(Open::Folder(path)) => self.push(at_ns, Deed::SyncFolder { path: path.clone() }),
                None => {}
            },
            "ftruncate" => {
                if let Some(Open::File { file, .. }) = self.open.get(&number(0)) {
                    self.push(
                        at_ns,
                        Deed::Resize {
                            file: *file,
                            length: u64::try_from(number(1))?,
                        },
                    );
                }
            }
            "rename" => self.renamed(at_ns, path(argument(0))?, path(argument(1))?, false),
            "renameat" | "renameat2" => self.renamed(at_ns, path(argument(1))?, path(argument(3))?, false),
            "link" => self.renamed(at_ns, path(argument(0))?, path(argument(1))?, true),
            "linkat" => self.renamed(at_ns, path(argument(1))?, path(argument(3))?, true),
            "unlink" | "rmdir" => self.removed(at_ns, path(argument(0))?),
            "unlinkat" => {
                ensure!(
                    argument(0) == "AT_FDCWD" || self.open.is_empty(),
                    "a way to remove that is not followed"
                );
                self.removed(at_ns, path(argument(1))?);
            }
            "mkdir" | "mkdirat" => {
                let path = path(argument(usize::from(name == "mkdirat")))?;
                if path.starts_with(self.root) {
                    self.push(at_ns, Deed::Folder { path });
                }
            }
            "mmap" => {
                let shared = argument(3).contains("MAP_SHARED") && argument(2).contains("PROT_WRITE");
                ensure!(
                    !(shared && self.open.contains_key(&number(4))),
                    "a file is written through memory"
                );
            }
            other => {
                let known = self.open.contains_key(&number(0)) || self.open.contains_key(&number(2));
                ensure!(!known, "{other} is not followed");
            }
        }
        Ok(())
    }

    fn push(&mut self, at_ns: u64, what: Deed) {
        self.done.push(Done { at_ns, what });
    }

    fn opened(&mut self, at_ns: u64, path: PathBuf, flags: &str, descriptor: i64) {
        // A number that is used again was closed, seen or not.
        self.open.remove(&descriptor);
        if !path.starts_with(self.root) {
            return;
        }
        if path.is_dir() || flags.contains("O_DIRECTORY") {
            self.open.insert(descriptor, Open::Folder(path));
            return;
        }
        let file = match self.names.get(&path) {
            Some(file) => *file,
            None if flags.contains("O_CREAT") => {
                let file = self.files;
                self.files += 1;
                self.names.insert(path.clone(), file);
                self.push(at_ns, Deed::Create { path, file });
                file
            }
            None => {
                // A folder that is gone by now, or a file from before.
                self.open.insert(descriptor, Open::Folder(path));
                return;
            }
        };
        if flags.contains("O_TRUNC") {
            self.push(at_ns, Deed::Resize { file, length: 0 });
        }
        let appends = flags.contains("O_APPEND");
        self.open.insert(
            descriptor,
            Open::File {
                file,
                place: 0,
                appends,
            },
        );
    }

    fn written(
        &mut self,
        at_ns: u64,
        descriptor: i64,
        bytes: &str,
        offset: Option<u64>,
        count: i64,
    ) -> Result<()> {
        let Some(Open::File { file, place, appends }) = self.open.get_mut(&descriptor) else {
            return Ok(());
        };
        let mut bytes = unescape(bytes)?;
        let count = usize::try_from(count)?;
        ensure!(
            bytes.len() >= count,
            "strace cut the bytes: {} of {count}",
            bytes.len()
        );
        bytes.truncate(count);
        let at = match offset {
            Some(offset) => offset,
            // Its length is known when the state is made: the end.
            None if *appends => u64::MAX,
            None => {
                let at = *place;
                *place += count as u64;
                at
            }
        };
        let write = Deed::Write {
            file: *file,
            offset: at,
            bytes,
        };
        self.push(at_ns, write);
        Ok(())
    }

    fn renamed(&mut self, at_ns: u64, from: PathBuf, to: PathBuf, keeps: bool) {
        if !to.starts_with(self.root) {
            return;
        }
        if let Some(file) = self.names.get(&from).copied() {
            if !keeps {
                self.names.remove(&from);
            }
            self.names.insert(to.clone(), file);
        }
        self.push(at_ns, Deed::Rename { from, to, keeps });
    }

    fn removed(&mut self, at_ns: u64, path: PathBuf) {
        if path.starts_with(self.root) {
            self.names.remove(&path);
            self.push(at_ns, Deed::Remove { path });
        }
    }
}

/// Seconds with microseconds, as strace's `-ttt` writes them.
fn nanoseconds(text: &str) -> Result<u64> {
    let (seconds, fraction) = text.split_once('.').context("a time without a fraction")?;
    ensure!(fraction.len() == 6, "a time that is not in microseconds");
    Ok((seconds.parse::<u64>()? * 1_000_000 + fraction.parse::<u64>()?) * 1000)
}

/// Arguments at the outermost commas.
fn split(text: &str) -> Vec<String> {
    let (mut all, mut depth, mut quoted) = (vec![String::new()], 0_u32, false);
    for letter in text.chars() {
        match letter {
            '"' => quoted = !quoted,
            '[' | '{' | '(' if !quoted => depth += 1,
            ']' | '}' | ')' if !quoted => depth = depth.saturating_sub(1),
            ',' if !quoted && depth == 0 => {
                all.push(String::new());
                continue;
            }
            ' ' if !quoted && depth == 0 => continue,
            _ => {}
        }
        if let Some(last) = all.last_mut() {
            last.push(letter);
        }
    }
    all
}

fn path(quoted: &str) -> Result<PathBuf> {
    use std::os::unix::ffi::OsStringExt as _;
    let path = PathBuf::from(std::ffi::OsString::from_vec(unescape(quoted)?));
    ensure!(path.is_absolute(), "{} is not absolute", path.display());
    Ok(path)
}

/// The bytes of every string in it, as `-xx` writes them.
fn unescape(text: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4);
    for (index, part) in text.split('"').enumerate() {
        // Every other part is between quotes.
        if index % 2 == 0 {
            continue;
        }
        let digits = part.as_bytes();
        ensure!(
            digits.len().is_multiple_of(4),
            "a string that is not in hexadecimal"
        );
        for one in digits.chunks_exact(4) {
            let [b'\\', b'x', high, low] = one else {
                bail!("a string that is not in hexadecimal")
            };
            bytes.push(nibble(*high)? << 4 | nibble(*low)?);
        }
    }
    Ok(bytes)
}

fn nibble(digit: u8) -> Result<u8> {
    let value = char::from(digit).to_digit(16).context("no hexadecimal digit")?;
    Ok(u8::try_from(value)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_real_program_did_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let trace = folder.path().join("trace");
        let root = folder.path().join("root");
        std::fs::create_dir(&root).unwrap();
        // A shell would open its files by ways that are not followed.
        let script = "import os, sys
r = sys.argv[1]
f = open(r + '/a', 'wb', 0); f.write(b'abc'); f.close()
f = open(r + '/a', 'ab', 0); f.write(b'de')
os.mkdir(r + '/d'); os.rename(r + '/a', r + '/d/b'); os.fsync(f.fileno())
d = os.open(r + '/d', os.O_RDONLY); os.fsync(d); os.unlink(r + '/d/b')";
        let status = std::process::Command::new("strace")
            .args(["-f", "-ttt", "-xx", "-s", "1000000", "-e", CALLS, "-o"])
            .arg(&trace)
            .args(["python3", "-B", "-c", script])
            .arg(&root)
            .status()
            .unwrap();
        assert!(status.success());
        let text = std::fs::read_to_string(trace).unwrap();
        let done = read(&text, &root).unwrap();
        let seen: Vec<String> = done
            .iter()
            .map(|one| match &one.what {
                Deed::Create { .. } => "create".to_owned(),
                Deed::Write { bytes, .. } => String::from_utf8_lossy(bytes).into_owned(),
                Deed::Resize { length, .. } => format!("resize {length}"),
                Deed::SyncFile { .. } => "sync".to_owned(),
                Deed::SyncFolder { .. } => "sync folder".to_owned(),
                Deed::Folder { .. } => "folder".to_owned(),
                Deed::Rename { .. } => "rename".to_owned(),
                Deed::Remove { .. } => "remove".to_owned(),
            })
            .collect();
        assert_eq!(
            seen,
            [
                "create",
                "resize 0",
                "abc",
                "de",
                "folder",
                "rename",
                "sync",
                "sync folder",
                "remove"
            ]
        );
    }

    #[test]
    fn a_call_that_the_trace_ended_within_did_nothing() {
        let text = "7 1.0 openat(AT_FDCWD, \"\\x2f\\x78\", O_WRONLY|O_CREAT, 0600 <detached ...>\n\
                    8 1.0 openat(AT_FDCWD, \"\\x2f\\x79\" <unfinished ...>\n\
                    8 1.1 <... openat resumed> <detached ...>\n";
        assert!(read(text, Path::new("/")).unwrap().is_empty());
    }
}
