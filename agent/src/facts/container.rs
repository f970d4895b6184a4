//! What this host is if the agent itself is in a container, with the host's processes and cgroups in sight but a root, a network and a
//! view of cgroups of its own.
//!
//! Owns how the host's are found behind those: by process 1, and by the place of the agent's own cgroup. Outside of a container all
//! of it is as it was. Where the host's processes are not in sight, process 1 is the container's own, and so is what is found.

use std::{
    fs::{self, File},
    io::Read as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use nix::{
    fcntl::{OFlag, openat},
    sys::stat::Mode,
};

use super::cgroups::mount_point;

/// Its root as process 1 has it; to go there takes CAP_SYS_PTRACE.
const ROOT: &str = "/proc/1/root";

/// The root of the host's files.
pub fn root() -> &'static Path {
    Path::new(if is_own(Path::new("/"), Path::new(ROOT)) {
        "/"
    } else {
        ROOT
    })
}

/// The host's `/etc`, if that is another one: held, it can be read in by whoever holds no capability any more.
pub fn etc() -> Option<File> {
    let root = root();
    (root != Path::new("/")).then(|| File::open(root.join("etc")).ok())?
}

/// The name of a user by the host's file (passwd(5)); `None` also where another service knows it.
pub fn user(etc: &File, uid: u32) -> Option<String> {
    let file = openat(etc, "passwd", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).ok()?;
    let mut text = String::new();
    File::from(file).take(PASSWD_MAX).read_to_string(&mut text).ok()?;
    named(&text, uid)
}

/// Bytes that are read of it: a line takes some 60.
const PASSWD_MAX: u64 = 1 << 20;

fn named(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _, number) = (fields.next()?, fields.next()?, fields.next()?);
        (number.parse::<u32>() == Ok(uid)).then(|| name.to_owned())
    })
}

/// Whether two roots are one, or the other cannot be reached.
fn is_own(own: &Path, other: &Path) -> bool {
    // A service's own mounts do not make it another root: the folder is the same.
    let identity = |path: &Path| {
        fs::metadata(path.join("."))
            .map(|found| (found.dev(), found.ino()))
            .ok()
    };
    identity(other).is_none_or(|other| identity(own) == Some(other))
}

/// A path of `/proc/PID/cgroup` as the hierarchy has it. A container sees its own cgroup as the root, and others as `/../…`
/// (cgroup_namespaces(7)).
pub fn cgroup(shown: String) -> String {
    static OWN: LazyLock<Option<String>> = LazyLock::new(own_root);
    match OWN.as_deref() {
        Some(root) => absolute(root, &shown),
        None => shown,
    }
}

/// Where the agent's view of cgroups begins; `None` if it begins where the mounted hierarchy does, or is not found.
fn own_root() -> Option<String> {
    let mount = mount_point()?;
    let text = fs::read_to_string("/proc/self/cgroup").ok()?;
    let shown = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    let holds_us = |folder: &Path| {
        let processes = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
        let own = std::process::id().to_string();
        processes.lines().any(|process| process == own)
    };
    if holds_us(&mount.join(shown.trim_start_matches('/'))) {
        return None;
    }
    let mut waiting = vec![mount.clone()];
    while let Some(folder) = waiting.pop() {
        if holds_us(&folder) {
            let place = format!("/{}", folder.strip_prefix(&mount).ok()?.display());
            return place.strip_suffix(shown.trim_end_matches('/')).map(str::to_owned);
        }
        let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
        let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        waiting.extend(folders.map(|entry| entry.path()));
    }
    None
}

/// A path that is shown from `root`, from where the hierarchy begins.
fn absolute(root: &str, shown: &str) -> String {
    let is_part = |part: &&str| !part.is_empty();
    let mut parts: Vec<&str> = root.split('/').filter(is_part).collect();
    for part in shown.split('/').filter(is_part) {
        match part {
            ".." => _ = parts.pop(),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// Addresses of the network that process 1 is in; none if it is the agent's own.
pub fn addresses() -> Vec<IpAddr> {
    let network = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net")).ok();
    if network("1").is_none_or(|other| network("self") == Some(other)) {
        return Vec::new();
    }
    let read = |name: &str| fs::read_to_string(PathBuf::from("/proc/1/net").join(name)).unwrap_or_default();
    let four = four(&read("fib_trie")).into_iter().map(IpAddr::V4);
    four.chain(six(&read("if_inet6")).into_iter().map(IpAddr::V6))
        .collect()
}

/// The kernel's table of routes as a tree (fib_trie_seq_show in net/ipv4/fib_trie.c): a leaf, and the kinds of its routes behind it.
fn four(trie: &str) -> Vec<Ipv4Addr> {
    let mut found = Vec::new();
    let mut leaf: Option<Ipv4Addr> = None;
    for line in trie.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            leaf = address.parse().ok();
        } else if line == "/32 host LOCAL" {
            found.extend(leaf);
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// An address a line, in hexadecimal first (if6_seq_show in net/ipv6/addrconf.c).
fn six(table: &str) -> Vec<Ipv6Addr> {
    let addresses = table.lines().filter_map(|line| line.split(' ').next());
    let addresses = addresses.filter(|text| text.len() == 32);
    addresses
        .filter_map(|text| u128::from_str_radix(text, 16).ok())
        .map(Ipv6Addr::from_bits)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shown_path_is_made_the_hierarchys() {
        let root = "/kubepods/burstable/pod1/own";
        for (shown, expected) in [
            ("/", "/kubepods/burstable/pod1/own"),
            ("/below", "/kubepods/burstable/pod1/own/below"),
            ("/../other", "/kubepods/burstable/pod1/other"),
            ("/../../pod2/its", "/kubepods/burstable/pod2/its"),
            ("/../../../../system.slice/a.service", "/system.slice/a.service"),
            ("/../../../..", "/"),
        ] {
            assert_eq!(absolute(root, shown), expected, "{shown}");
        }
        assert_eq!(absolute("", "/system.slice"), "/system.slice");
    }

    #[test]
    fn outside_of_a_container_all_is_as_it_was() {
        assert!(is_own(Path::new("/"), Path::new("/")));
        assert!(is_own(Path::new("/"), Path::new("/nowhere")));
        let other = tempfile::tempdir().expect("a folder");
        assert!(!is_own(Path::new("/"), other.path()));
    }

    #[test]
    fn users_are_named_by_the_hosts_file() {
        let etc = tempfile::tempdir().expect("a folder");
        let text = "root:x:0:0:root:/root:/bin/bash\nbroken\neve:x:1000:1000::/home/eve:/bin/sh\n";
        fs::write(etc.path().join("passwd"), text).expect("written");
        let etc = File::open(etc.path()).expect("there");
        assert_eq!(user(&etc, 1000).as_deref(), Some("eve"));
        assert_eq!(user(&etc, 1001), None);
    }

    #[test]
    fn local_addresses_are_read_and_others_are_not() {
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n     |-- 10.0.0.0\n        /24 link UNICAST\n     \
                    |-- 10.0.0.5\n        /32 host LOCAL\n     |-- 10.0.0.255\n        /32 link BROADCAST\nLocal:\n     |-- 10.0.0.5\n        \
                    /32 host LOCAL\n     |-- 127.0.0.1\n        /32 host LOCAL\n";
        assert_eq!(four(trie), [Ipv4Addr::new(10, 0, 0, 5), Ipv4Addr::LOCALHOST]);
        let table = "00000000000000000000000000000001 01 80 10 80       lo\n\
                     fd000000000000000000000000000005 02 40 00 80     eth0\nshort 1\n";
        assert_eq!(
            six(table),
            [Ipv6Addr::LOCALHOST, "fd00::5".parse().expect("an address")]
        );
    }
}
