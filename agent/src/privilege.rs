//! What the agent has to be allowed to do, and why: the one list that `doctor`, the systemd unit and the documentation
//! share.

/// A capability, its number (include/uapi/linux/capability.h), and what it is needed for.
pub struct Capability {
    /// As in capabilities(7).
    pub name: &'static str,
    /// Bit in the sets of `/proc/PID/status`.
    pub number: u32,
    /// What fails without it.
    pub purpose: &'static str,
    /// Kernel from which on it is not needed, as (major, minor).
    pub until: Option<(u32, u32)>,
    /// It is used at the start and then given up, and can be done without.
    pub start_only: bool,
}

/// All that the agent uses, in one of its two processes: the other holds none. Without the first two it does not start;
/// without another, `purpose` is what is missing.
pub const CAPABILITIES: [Capability; 6] = [
    Capability {
        name: "CAP_BPF",
        number: 39,
        purpose: "load programs and make maps",
        until: None,
        start_only: false,
    },
    Capability {
        name: "CAP_PERFMON",
        number: 38,
        purpose: "attach programs to tracepoints, read kernel memory in them",
        until: None,
        start_only: false,
    },
    Capability {
        name: "CAP_SYS_ADMIN",
        number: 21,
        purpose: "attach to the servers' encryption functions on kernels before 6.6: there TLS and GSS sessions stay \
                  opaque without it",
        until: Some((6, 6)),
        start_only: false,
    },
    Capability {
        name: "CAP_SYS_PTRACE",
        number: 19,
        purpose: "see executable, environment and folder of other users' processes: servers are not found without it",
        until: None,
        start_only: false,
    },
    Capability {
        name: "CAP_DAC_READ_SEARCH",
        number: 2,
        purpose: "read the servers' executables and reach data directories, whatever their modes",
        until: None,
        start_only: false,
    },
    Capability {
        name: "CAP_SETPCAP",
        number: 8,
        purpose: "empty the bounding set of the process that parses, which then could not even be given a capability; \
                  without it, it is no_new_privs alone that keeps it from getting any",
        until: None,
        start_only: true,
    },
];

/// The capabilities of [`CAPABILITIES`] that this process lacks and this kernel asks for.
pub fn missing() -> impl Iterator<Item = &'static Capability> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let effective = effective(&read("/proc/self/status"));
    let kernel = kernel();
    CAPABILITIES.iter().filter(move |capability| {
        let needed = capability.until.is_none_or(|until| kernel < until);
        needed && !capability.start_only && effective & (1 << capability.number) == 0
    })
}

/// The capabilities that the broker keeps, by name. `admin`: attaching takes CAP_SYS_ADMIN here.
pub fn kept(admin: bool) -> Vec<&'static str> {
    let kept = CAPABILITIES
        .iter()
        .filter(|capability| !capability.start_only && (capability.until.is_none() || admin));
    kept.map(|capability| capability.name).collect()
}

/// Major and minor of the running kernel.
pub fn kernel() -> (u32, u32) {
    version(&std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default())
}

/// Major and minor of a kernel's release, as in "6.12.57+deb13-amd64".
fn version(release: &str) -> (u32, u32) {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// The effective set; where it cannot be read, all, so that the kernel decides.
fn effective(status: &str) -> u64 {
    status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_mask_is_read() {
        assert_eq!(effective("Name:\tx\nCapEff:\t000000c000280004\n"), 0xc0_0028_0004);
        assert_eq!(effective(""), u64::MAX);
        let all: u64 = CAPABILITIES.iter().map(|capability| 1 << capability.number).sum();
        assert_eq!(all, 0xc0_0028_0104, "numbers and names belong together");
    }

    #[test]
    fn what_is_kept_is_what_is_needed() {
        let four = ["CAP_BPF", "CAP_PERFMON", "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH"];
        assert_eq!(kept(false), four);
        assert!(kept(true).contains(&"CAP_SYS_ADMIN"));
    }

    #[test]
    fn a_kernels_release_is_read() {
        assert_eq!(version("6.12.57+deb13-amd64\n"), (6, 12));
        assert!(version("5.10.0-33-amd64") < (6, 6));
        assert_eq!(version("nonsense"), (0, 0));
    }
}
