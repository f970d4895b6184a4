//! What `/proc` and the system's tables say of a process, a user, this host: read with the broker's privileges, handed on as
//! it is.
//!
//! Refuses to understand it: command lines and titles are others' bytes.

use std::{collections::HashSet, fs, io, net::IpAddr, os::unix::fs::MetadataExt as _};

use procfs::{
    net::TcpState,
    process::{Process, Stat},
};

use super::protocol::{Answer, COMMAND_LINE, Running};
use crate::facts::container;

/// Linux gives one page of a title that has outgrown the arguments (`get_mm_proctitle` in fs/proc/base.c).
const TITLE_MAX: usize = 4096;

/// All about a process.
pub(super) fn process(pid: u32) -> Option<Running> {
    let running = Process::new(i32::try_from(pid).ok()?).ok()?;
    let stat = running.stat().ok()?;
    let status = running.status().ok();
    let mut groups = running.cgroups().into_iter().flat_map(|groups| groups.0);
    let unified = groups.find(|group| group.hierarchy == 0);
    Some(Running {
        pid,
        parent: stat.ppid.unsigned_abs(),
        start: stat.starttime,
        comm: stat.comm,
        exe: exe_of(pid),
        command_line: shortened(running.cmdline().unwrap_or_default()),
        uid: status.as_ref().map(|status| status.ruid),
        login_uid: login(pid),
        cgroup: unified.map(|group| container::cgroup(group.pathname)),
        audit_session: number(pid, "sessionid"),
        session: stat.session.unsigned_abs(),
        tty: terminal(stat.tty_nr),
        namespaces: ["pid", "net", "mnt"].map(|name| namespace(pid, name).unwrap_or(0)),
        inner_pid: status
            .and_then(|status| status.nspid?.last().copied())
            .map_or(pid, i32::unsigned_abs),
    })
}

/// When a process began, in clock ticks since boot.
pub(super) fn start(pid: u32) -> Option<u64> {
    Some(stat(pid)?.1.starttime)
}

/// Inode number of a namespace: `/proc/PID/ns/NAME` links to `NAME:[number]`.
fn namespace(pid: u32, name: &str) -> Option<u32> {
    let link = fs::read_link(format!("/proc/{pid}/ns/{name}")).ok()?;
    let (_, number) = link.to_str()?.split_once(":[")?;
    number.strip_suffix(']')?.parse().ok()
}

/// Name of a terminal by its device (Documentation/admin-guide/devices.txt): the pseudo terminals and the consoles.
fn terminal(device: i32) -> Option<String> {
    let device = device.unsigned_abs();
    let (major, minor) = (device >> 8 & 0xfff, device & 0xff | device >> 12 & 0xf_ff00);
    match (major, minor) {
        (136..=143, _) => Some(format!("pts/{}", (major - 136) << 8 | minor)),
        (4, 0..64) => Some(format!("tty{minor}")),
        (4, _) => Some(format!("ttyS{}", minor - 64)),
        _ => None,
    }
}

/// Everything that runs.
pub(super) fn processes() -> impl Iterator<Item = Running> {
    let all = procfs::process::all_processes().into_iter().flatten().flatten();
    all.filter_map(|running| process(u32::try_from(running.pid).ok()?))
}

/// What a process runs.
pub(super) fn executable(pid: u32) -> Option<(u64, String)> {
    let inode = fs::metadata(format!("/proc/{pid}/exe")).ok()?.ino();
    Some((inode, exe_of(pid)?))
}

/// The title of a process and when it began; `None` if it may have been cut.
pub(super) fn title(pid: u32) -> Option<Answer> {
    let (process, stat) = stat(pid)?;
    let title = whole_title(pid, &stat)?;
    // Unchanged, so it was this process all the time.
    let start = stat.starttime;
    (process.stat().ok()?.starttime == start).then_some(Answer::Title { start, title })
}

/// The titles of a process' children.
pub(super) fn titles(parent: u32) -> Vec<Answer> {
    let all = procfs::process::all_processes().into_iter().flatten().flatten();
    let stats = all.filter_map(|child| child.stat().ok());
    let children = stats.filter(|stat| stat.ppid.unsigned_abs() == parent);
    children
        .filter_map(|stat| title(stat.pid.unsigned_abs()))
        .collect()
}

/// The TCP ports on which somebody listens in a process' network namespace.
pub(super) fn listening_ports(pid: u32) -> Vec<u16> {
    let process = i32::try_from(pid).ok();
    let Some(process) = process.and_then(|pid| Process::new(pid).ok()) else {
        return Vec::new();
    };
    let four = process.tcp().into_iter().flatten();
    let six = process.tcp6().into_iter().flatten();
    let ports: HashSet<u16> = four
        .chain(six)
        .filter(|entry| entry.state == TcpState::Listen)
        .map(|entry| entry.local_address.port())
        .collect();
    ports.into_iter().collect()
}

/// Who logged in, also behind sudo and su (proc(5), `loginuid`).
pub(super) fn login(pid: u32) -> Option<u32> {
    number(pid, "loginuid")
}

/// A number that the audit keeps of a process, if it was set.
fn number(pid: u32, name: &str) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/{name}")).ok()?;
    text.trim().parse().ok().filter(|number| *number != u32::MAX)
}

/// The addresses of this host.
pub(super) fn addresses() -> io::Result<Vec<IpAddr>> {
    let addresses = nix::ifaddrs::getifaddrs()?.filter_map(|interface| interface.address);
    Ok(addresses
        .filter_map(|address| {
            let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
        })
        .chain(container::addresses())
        .collect())
}

fn exe_of(pid: u32) -> Option<String> {
    let path = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    let path = path.to_string_lossy();
    // proc(5): appended when the file was replaced while it runs.
    Some(path.strip_suffix(" (deleted)").unwrap_or(&path).to_owned())
}

fn shortened(arguments: Vec<String>) -> Vec<String> {
    let mut room = COMMAND_LINE;
    let mut kept = Vec::new();
    for mut argument in arguments {
        argument.truncate(argument.floor_char_boundary(room));
        room -= argument.len();
        kept.push(argument);
        if room == 0 {
            break;
        }
        room -= 1;
    }
    kept
}

fn stat(pid: u32) -> Option<(Process, Stat)> {
    let process = Process::new(i32::try_from(pid).ok()?).ok()?;
    let stat = process.stat().ok()?;
    Some((process, stat))
}

/// The title, without the padding behind it; `None` if it may have been cut.
fn whole_title(pid: u32, stat: &Stat) -> Option<Vec<u8>> {
    let mut title = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    title.truncate(title.iter().position(|byte| *byte == 0).unwrap_or(title.len()));
    // The server overwrites arguments and environment, and cuts at their end.
    let room = usize::try_from(stat.env_end?.checked_sub(stat.arg_start?)?).ok()?;
    (title.len() + 2 < room.min(TITLE_MAX)).then_some(title)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_seen() {
        let pid = std::process::id();
        let own = process(pid).expect("this process");
        assert_eq!((own.pid, own.parent), (pid, std::os::unix::process::parent_id()));
        assert!(processes().any(|process| process.pid == pid));
        let (_, path) = executable(pid).expect("a program");
        assert_eq!(Some(path), own.exe);
        let Some(Answer::Title { start, title }) = title(pid) else {
            panic!("no title")
        };
        assert_eq!(start, own.start);
        assert!(!title.is_empty());
        assert_eq!(
            (own.inner_pid, own.namespaces.contains(&0)),
            (status_pid(), false)
        );
        assert!(addresses().is_ok_and(|addresses| addresses.iter().any(IpAddr::is_loopback)));
    }

    fn status_pid() -> u32 {
        let status = fs::read_to_string("/proc/self/status").expect("this process");
        let line = status
            .lines()
            .find(|line| line.starts_with("NSpid:"))
            .expect("a line");
        line.rsplit('\t')
            .next()
            .and_then(|pid| pid.parse().ok())
            .expect("a number")
    }

    #[test]
    fn terminals_are_named_by_their_device() {
        assert_eq!(terminal(0), None);
        assert_eq!(terminal(0x8803).as_deref(), Some("pts/3"));
        assert_eq!(terminal(0x0401).as_deref(), Some("tty1"));
        assert_eq!(terminal(0x0440).as_deref(), Some("ttyS0"));
    }

    #[test]
    fn command_lines_are_cut_at_a_character() {
        let long = "ä".repeat(COMMAND_LINE);
        let kept = shortened(vec!["x".to_owned(), long, "y".to_owned()]);
        assert_eq!(kept.len(), 2);
        let bytes: usize = kept.iter().map(String::len).sum();
        assert!(bytes < COMMAND_LINE && bytes > COMMAND_LINE - 4, "{bytes}");
    }
}
