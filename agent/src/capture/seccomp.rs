//! Whether a probe at the return of a function harms a process whose system calls are filtered.
//!
//! Since Linux 6.11 such a probe returns by a system call of its own (`uretprobe`, x86-64 only), which the kernel makes the
//! probed process do. Until the fix of January 2025 ("seccomp: passthrough uretprobe systemcall without filtering", in
//! 6.14 and the stable kernels since) seccomp judged it like any other: a server in a container or under systemd's
//! `SystemCallFilter=`, whose filter does not know the call, died of being probed. Whether a kernel has the fix cannot be
//! told by its version, so it is tried, on a process of our own.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::{Command, ExitCode, ExitStatus, Stdio},
};

use procfs::process::{MMapPath, Process};

use crate::privilege;

/// What it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing: this kernel makes no system call for it.
    NoCall,
    /// Nothing: it was tried.
    Harmless,
    /// It ends the process: it was tried.
    Deadly,
    /// It could not be tried, for this reason.
    Unknown(String),
}

impl Effect {
    /// Whether a server whose system calls are filtered can be probed.
    pub fn is_harmless(&self) -> bool {
        matches!(self, Self::NoCall | Self::Harmless)
    }
}

/// Argument by which this program is the process that it is tried on.
pub const TRIAL: &str = "seccomp-trial";

/// First kernel with the system call.
const SINCE: (u32, u32) = (6, 11);

/// Its number (arch/x86/entry/syscalls/syscall_64.tbl).
const URETPROBE: u32 = 335;

/// The trial's process was not probed when it looked.
const NOT_PROBED: u8 = 3;

/// `int3` of x86, which is how a probe looks in the code.
const BREAKPOINT: u8 = 0xcc;

/// Tries it. `attach` puts a probe at the return of the function at an offset of a file, until what it gives is dropped.
pub(super) fn effect<L>(attach: impl FnOnce(&Path, u64) -> Result<L, String>) -> Effect {
    if !cfg!(target_arch = "x86_64") || privilege::kernel() < SINCE {
        return Effect::NoCall;
    }
    match try_out(attach) {
        Ok(status) if status.success() => Effect::Harmless,
        Ok(status) if status.signal().is_some() => Effect::Deadly,
        Ok(status) if status.code() == Some(NOT_PROBED.into()) => {
            Effect::Unknown("the probe was not there".to_owned())
        }
        Ok(status) => Effect::Unknown(status.to_string()),
        Err(problem) => Effect::Unknown(problem),
    }
}

fn try_out<L>(attach: impl FnOnce(&Path, u64) -> Result<L, String>) -> Result<ExitStatus, String> {
    let said = |error: std::io::Error| error.to_string();
    let mut child = Command::new("/proc/self/exe")
        .arg(TRIAL)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(said)?;
    let go = child.stdin.take();
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut line).map_err(said)?;
    }
    let probe = match line.trim().parse() {
        Ok(offset) => attach(Path::new(&format!("/proc/{}/exe", child.id())), offset),
        Err(_) => Err("it does not say where its function is".to_owned()),
    };
    // The end of its input lets it go on.
    drop(go);
    let status = child.wait().map_err(said);
    probe?;
    status
}

/// The process that it is tried on: says where its function is in its file, waits, refuses itself the system call, and
/// calls the function.
pub fn trial() -> ExitCode {
    let Some(offset) = offset_of(probed as *const () as u64) else {
        return ExitCode::FAILURE;
    };
    println!("{offset}");
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    // SAFETY: the first byte of a function of this program, which is mapped readable.
    if unsafe { std::ptr::read_volatile(probed as *const u8) } != BREAKPOINT {
        return ExitCode::from(NOT_PROBED);
    }
    if !refuse(URETPROBE) {
        return ExitCode::FAILURE;
    }
    ExitCode::from(probed(std::hint::black_box(1)) - 1)
}

#[inline(never)]
extern "C" fn probed(number: u8) -> u8 {
    std::hint::black_box(number)
}

fn offset_of(address: u64) -> Option<u64> {
    let maps = Process::myself().ok()?.maps().ok()?;
    let map = maps
        .iter()
        .find(|map| (map.address.0..map.address.1).contains(&address))?;
    matches!(map.pathname, MMapPath::Path(_)).then_some(address - map.address.0 + map.offset)
}

/// Whoever makes this system call from here on is killed (seccomp(2)).
fn refuse(call: u32) -> bool {
    let statement = |code: u32, k| libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k,
    };
    let mut filter = [
        // The call's number is the first field of `struct seccomp_data`.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
        libc::sock_filter {
            jf: 1,
            ..statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, call)
        },
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_KILL_PROCESS),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: the kernel copies the filter during the call; the other arguments are plain numbers.
    unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(
                libc::PR_SET_SECCOMP,
                libc::SECCOMP_MODE_FILTER,
                &raw const program,
            ) == 0
    }
}

/// Whether a process' system calls are filtered (proc(5), `Seccomp`). One that cannot be read is taken for one.
pub fn is_confined(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    mode(&status) != Some(0)
}

fn mode(status: &str) -> Option<u8> {
    let line = status.lines().find_map(|line| line.strip_prefix("Seccomp:"))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_word_of_a_process_is_read() {
        assert_eq!(mode("Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t1\n"), Some(2));
        assert_eq!(mode("Name:\tx\n"), None);
        assert!(is_confined(u32::MAX), "there is no such process");
    }

    #[test]
    fn only_what_was_tried_or_cannot_be_is_harmless() {
        assert!(Effect::Harmless.is_harmless() && Effect::NoCall.is_harmless());
        assert!(!Effect::Deadly.is_harmless());
        assert!(!Effect::Unknown("why".to_owned()).is_harmless());
    }

    #[test]
    fn a_function_is_found_in_its_file() {
        let offset = offset_of(probed as *const () as u64).expect("this program");
        let file = fs::read("/proc/self/exe").expect("this program");
        // SAFETY: as in the trial.
        let first = unsafe { std::ptr::read_volatile(probed as *const u8) };
        assert_eq!(file.get(offset as usize), Some(&first));
    }
}
