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
}

/// All that the agent uses. Without the first two it does not start; without another, `purpose` is what is missing.
pub const CAPABILITIES: [Capability; 5] = [
    Capability {
        name: "CAP_BPF",
        number: 39,
        purpose: "load programs and make maps",
    },
    Capability {
        name: "CAP_PERFMON",
        number: 38,
        purpose: "attach programs to tracepoints, read kernel memory in them",
    },
    Capability {
        name: "CAP_SYS_ADMIN",
        number: 21,
        purpose: "attach to the servers' encryption functions: TLS and GSS sessions stay opaque without it",
    },
    Capability {
        name: "CAP_SYS_PTRACE",
        number: 19,
        purpose: "see executable, environment and folder of other users' processes: servers are not found without it",
    },
    Capability {
        name: "CAP_DAC_READ_SEARCH",
        number: 2,
        purpose: "read the servers' executables and reach data directories, whatever their modes",
    },
];

/// The capabilities of [`CAPABILITIES`] that this process lacks.
pub fn missing() -> impl Iterator<Item = &'static Capability> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = effective(&status);
    CAPABILITIES
        .iter()
        .filter(move |capability| effective & (1 << capability.number) == 0)
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
        assert_eq!(all, 0xc0_0028_0004, "numbers and names belong together");
    }
}
