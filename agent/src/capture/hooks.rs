//! The hooks: which program goes where, and whether this kernel has the place.

use std::fmt;

use aya::{
    Btf, Ebpf,
    programs::{BtfTracePoint, RawTracePoint},
};
use aya_obj::btf::BtfKind;

use super::{AttachError, refused};

/// How the socket is tapped: two ways to the same segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// Behind the kernel's own socket functions: only socket calls pay.
    A,
    /// Behind every system call: for kernels without the tracepoints of tier A.
    B,
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::A => "A",
            Self::B => "B",
        })
    }
}

impl Tier {
    /// The best one that this kernel has the places for.
    pub fn of_this_kernel(types: &Btf) -> Self {
        let all = SOCKET_CALLS.iter().all(|hook| hook.exists(types));
        if all { Self::A } else { Self::B }
    }

    /// Its hooks, in the order in which they are attached: payload first and the marking of processes last, so that a
    /// process that is marked had all its calls watched.
    pub fn hooks(self) -> impl Iterator<Item = &'static Hook> {
        let payload = match self {
            Self::A => SOCKET_CALLS.as_slice(),
            Self::B => SYSTEM_CALLS.as_slice(),
        };
        payload.iter().chain(&LIFE)
    }
}

/// One kernel hook.
#[derive(Debug)]
pub struct Hook {
    /// Tracepoint.
    pub name: &'static str,
    /// Name of the program for it.
    pub(super) program: &'static str,
    /// What it is there for.
    pub purpose: &'static str,
    /// First kernel that has it.
    pub since: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// `tp_btf`: typed arguments.
    Typed,
    /// `raw_tp`.
    Raw,
}

/// Payload in tier A.
pub const SOCKET_CALLS: [Hook; 2] = [
    Hook::typed("sock_recv_length", "bytes received (tier A)", "6.3"),
    Hook::typed("sock_send_length", "bytes sent (tier A)", "6.3"),
];

/// Payload in tier B.
pub const SYSTEM_CALLS: [Hook; 1] = [Hook {
    name: "sys_exit",
    program: "sys_exit",
    purpose: "bytes received and sent (tier B)",
    since: "4.17",
    kind: Kind::Raw,
}];

/// Processes, connections, cgroups: in both.
pub const LIFE: [Hook; 6] = [
    Hook::typed("inet_sock_set_state", "who opened a TCP connection", "4.16"),
    Hook {
        program: "inet_sock_set_state_again",
        ..Hook::typed(
            "inet_sock_set_state",
            "the same, where one interrupts one",
            "4.16",
        )
    },
    Hook::typed("cgroup_mkdir", "paths of new cgroups", "4.19"),
    Hook::typed("sched_process_exit", "ends of processes", "5.5"),
    Hook::typed("sched_process_exec", "programs started", "5.5"),
    Hook::typed("sched_process_fork", "new processes", "5.5"),
];

impl Hook {
    const fn typed(name: &'static str, purpose: &'static str, since: &'static str) -> Self {
        Self {
            name,
            program: name,
            purpose,
            since,
            kind: Kind::Typed,
        }
    }

    /// Whether its program only takes what the kernel skips of another one: when it is skipped itself, nothing is lost.
    pub(super) fn is_second(&self) -> bool {
        self.program != self.name
    }

    /// Whether this kernel has the tracepoint.
    pub fn exists(&self, types: &Btf) -> bool {
        let name = format!("btf_trace_{}", self.name);
        types.id_by_type_name_kind(&name, BtfKind::Typedef).is_ok()
    }

    pub(super) fn attach(&self, programs: &mut Ebpf, types: &Btf) -> Result<(), AttachError> {
        if !self.exists(types) {
            return Err(AttachError::NoTracepoint {
                hook: self.name,
                since: self.since,
            });
        }
        let fail = |error: aya::programs::ProgramError| refused(Some(self.name), describe(error));
        let program = programs
            .program_mut(self.program)
            .ok_or_else(|| refused(Some(self.name), "it is missing from the embedded object"))?;
        match self.kind {
            Kind::Typed => {
                let program: &mut BtfTracePoint = program.try_into().map_err(fail)?;
                program.load(self.name, types).map_err(fail)?;
                program.attach().map_err(fail)?;
            }
            Kind::Raw => {
                let program: &mut RawTracePoint = program.try_into().map_err(fail)?;
                program.load().map_err(fail)?;
                program.attach(self.name).map_err(fail)?;
            }
        }
        Ok(())
    }
}

/// The verifier's account is long; its last lines say why.
pub(super) fn describe(error: aya::programs::ProgramError) -> String {
    const LINES: usize = 12;
    match error {
        aya::programs::ProgramError::LoadError {
            io_error,
            verifier_log,
        } => {
            let log = verifier_log.to_string();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines
                .get(lines.len().saturating_sub(LINES)..)
                .unwrap_or_default()
                .join("\n");
            format!("{io_error}\n{tail}")
        }
        other => other.to_string(),
    }
}
