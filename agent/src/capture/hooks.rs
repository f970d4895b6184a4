//! The hooks: which program goes where, and whether this kernel has the place.

use aya::{Btf, Ebpf, programs::BtfTracePoint};

use super::{AttachError, refused};

/// One kernel hook.
#[derive(Debug)]
pub struct Hook {
    /// Tracepoint, and name of the program for it.
    pub name: &'static str,
    /// What it is there for.
    pub purpose: &'static str,
    /// First kernel that has it.
    pub since: &'static str,
}

/// All hooks, in the order in which they are attached.
pub const HOOKS: [Hook; 7] = [
    Hook {
        name: "sock_recv_length",
        purpose: "plaintext received (tier A)",
        since: "6.3",
    },
    Hook {
        name: "sock_send_length",
        purpose: "plaintext sent (tier A)",
        since: "6.3",
    },
    Hook {
        name: "inet_sock_set_state",
        purpose: "who opened a TCP connection",
        since: "4.16",
    },
    Hook {
        name: "cgroup_mkdir",
        purpose: "paths of new cgroups",
        since: "4.19",
    },
    Hook {
        name: "sched_process_exit",
        purpose: "ends of processes",
        since: "5.5",
    },
    Hook {
        name: "sched_process_exec",
        purpose: "programs started",
        since: "5.5",
    },
    Hook {
        name: "sched_process_fork",
        purpose: "new processes",
        since: "5.5",
    },
];

impl Hook {
    /// Whether this kernel has the tracepoint.
    pub fn exists(&self, types: &Btf) -> bool {
        let name = format!("btf_trace_{}", self.name);
        types
            .id_by_type_name_kind(&name, aya_obj::btf::BtfKind::Typedef)
            .is_ok()
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
            .program_mut(self.name)
            .ok_or_else(|| refused(Some(self.name), "it is missing from the embedded object"))?;
        let program: &mut BtfTracePoint = program.try_into().map_err(fail)?;
        program.load(self.name, types).map_err(fail)?;
        program.attach().map_err(fail)?;
        Ok(())
    }
}

/// The verifier's account is long; its last lines say why.
fn describe(error: aya::programs::ProgramError) -> String {
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
