//! Filters of system calls. The process that parses may use those that its work consists of; whatever else it tries is
//! refused, and what only somebody would try who took it over ends it. The broker is refused the latter alone.
//!
//! Lists instead of groups, so that each entry can be questioned: memory, threads, time, open files and sockets. Files and
//! sockets themselves are Landlock's matter (`confine`).

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Length, SeccompCmpOp as Op, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch, apply_filter,
};

/// A filter was refused.
pub type Refused = seccompiler::Error;

/// Calls without which the work would not go on.
const ALLOWED: &[i64] = &[
    // Memory; new pages that can be executed are a condition below.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    // Threads.
    libc::SYS_futex,
    libc::SYS_rseq,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_sigaltstack,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_gettid,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // Signals that come.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_restart_syscall,
    // Time, and chance.
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    // Who it is.
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_capget,
    // Descriptors that are open.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_lseek,
    libc::SYS_close,
    libc::SYS_dup,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_flock,
    libc::SYS_ppoll,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_eventfd2,
    // Files, of which Landlock says which.
    libc::SYS_openat,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_fstatfs,
    libc::SYS_getdents64,
    libc::SYS_readlinkat,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_unlinkat,
    libc::SYS_mkdirat,
    // Sockets: the collector, the broker, whoever asks for status or metrics.
    libc::SYS_connect,
    libc::SYS_accept4,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_shutdown,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    // Answered by another filter.
    libc::SYS_clone3,
];

/// The older forms of some of these, which the C library uses where there are any.
#[cfg(target_arch = "x86_64")]
const ALLOWED_OLDER: &[i64] = &[
    libc::SYS_poll,
    libc::SYS_epoll_wait,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_rename,
    libc::SYS_unlink,
    libc::SYS_mkdir,
    libc::SYS_time,
];
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_OLDER: &[i64] = &[];

/// What neither process ever does: other programs, other processes' memory, the kernel's own matters. The broker starts the
/// other process before.
const NEVER: &[i64] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_process_madvise,
    libc::SYS_kcmp,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_open_tree,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_open_by_handle_at,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_sethostname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
];

/// And what the process that parses does not do either.
const NEVER_PARSER: &[i64] = &[
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_add_key,
    libc::SYS_keyctl,
    libc::SYS_request_key,
];

/// From here on what neither of the two ever does is refused to this thread, and to those that it starts. Refused and no
/// more: a directory service's code may try things in the broker.
///
/// # Errors
///
/// If the kernel has no filters of system calls.
pub fn never() -> Result<(), Refused> {
    let refused = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    apply(
        NEVER.iter().map(|number| (*number, Vec::new())),
        SeccompAction::Allow,
        refused,
    )
}

/// From here on this thread, and those that it starts, may do what parsing and delivering takes; with `unix` over Unix
/// sockets, too.
///
/// # Errors
///
/// If the kernel has no filters of system calls.
pub fn only(unix: bool) -> Result<(), Refused> {
    let never = NEVER.iter().chain(NEVER_PARSER);
    apply(
        never.map(|number| (*number, Vec::new())),
        SeccompAction::Allow,
        SeccompAction::KillProcess,
    )?;
    // Its arguments are in memory, where no filter looks: the C library uses the older call, whose are not.
    let absent = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
    apply(
        [(libc::SYS_clone3, Vec::new())].into_iter(),
        SeccompAction::Allow,
        absent,
    )?;
    let refused = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let plain = ALLOWED
        .iter()
        .chain(ALLOWED_OLDER)
        .map(|number| (*number, Vec::new()));
    apply(plain.chain(conditional(unix)?), refused, SeccompAction::Allow)
}

/// Calls that are allowed with some arguments only.
fn conditional(unix: bool) -> Result<Vec<(i64, Vec<SeccompRule>)>, Refused> {
    let executable = libc::PROT_EXEC.unsigned_abs().into();
    let thread = libc::CLONE_THREAD.unsigned_abs().into();
    let commands = [
        libc::F_GETFD,
        libc::F_SETFD,
        libc::F_GETFL,
        libc::F_SETFL,
        libc::F_DUPFD_CLOEXEC,
    ];
    let number = |value: libc::c_int| u64::from(value.unsigned_abs());
    let exactly = |argument, value: libc::c_int| rule(argument, Length::Dword, Op::Eq, number(value));
    let families = [libc::AF_INET, libc::AF_INET6, libc::AF_UNIX];
    let families = families.iter().take(if unix { 3 } else { 2 });
    Ok(vec![
        (
            libc::SYS_mmap,
            vec![rule(2, Length::Dword, Op::MaskedEq(executable), 0)?],
        ),
        (
            libc::SYS_mprotect,
            vec![rule(2, Length::Dword, Op::MaskedEq(executable), 0)?],
        ),
        (
            libc::SYS_clone,
            vec![rule(0, Length::Dword, Op::MaskedEq(thread), thread)?],
        ),
        (
            libc::SYS_tgkill,
            vec![rule(0, Length::Dword, Op::Eq, u64::from(std::process::id()))?],
        ),
        (libc::SYS_prlimit64, vec![rule(2, Length::Qword, Op::Eq, 0)?]),
        (
            libc::SYS_ioctl,
            vec![rule(1, Length::Dword, Op::Eq, libc::FIONBIO)?],
        ),
        (
            libc::SYS_prctl,
            vec![exactly(0, libc::PR_SET_NAME)?, exactly(0, libc::PR_SET_VMA)?],
        ),
        (
            libc::SYS_socket,
            families
                .map(|family| exactly(0, *family))
                .collect::<Result<_, _>>()?,
        ),
        (libc::SYS_socketpair, vec![exactly(0, libc::AF_UNIX)?]),
        (
            libc::SYS_fcntl,
            commands
                .into_iter()
                .map(|command| exactly(1, command))
                .collect::<Result<_, _>>()?,
        ),
    ])
}

fn rule(argument: u8, length: Length, op: Op, value: u64) -> Result<SeccompRule, Refused> {
    let condition = SeccompCondition::new(argument, length, op, value)?;
    Ok(SeccompRule::new(vec![condition])?)
}

fn apply(
    rules: impl Iterator<Item = (i64, Vec<SeccompRule>)>,
    otherwise: SeccompAction,
    then: SeccompAction,
) -> Result<(), Refused> {
    let rules: BTreeMap<i64, Vec<SeccompRule>> = rules.collect();
    let here = TargetArch::try_from(std::env::consts::ARCH)?;
    let filter: BpfProgram = SeccompFilter::new(rules, otherwise, then, here)?.try_into()?;
    apply_filter(&filter)
}

#[cfg(test)]
mod tests {
    use std::{net::UdpSocket, os::unix::net::UnixDatagram, process::Command, thread};

    use super::*;

    fn in_a_thread(unix: bool, tried: impl FnOnce() + Send + 'static) {
        thread::spawn(move || {
            only(unix).expect("filtered");
            tried();
        })
        .join()
        .expect("as it should be");
    }

    #[test]
    fn the_lists_are_apart() {
        let allowed = ALLOWED.iter().chain(ALLOWED_OLDER);
        for number in allowed {
            assert!(
                !NEVER.contains(number) && !NEVER_PARSER.contains(number),
                "{number}"
            );
        }
    }

    #[test]
    fn work_goes_on_and_nothing_else() {
        in_a_thread(false, || {
            let sum = thread::spawn(|| 1 + 1).join().expect("threads can be started");
            assert_eq!(sum, 2);
            assert!(UdpSocket::bind("127.0.0.1:0").is_err(), "no new server");
            assert!(UnixDatagram::unbound().is_err(), "no new Unix socket");
            assert!(Command::new("/bin/true").status().is_err(), "no other program");
            assert!(
                nix::sys::signal::kill(nix::unistd::getppid(), None).is_err(),
                "no signals to others"
            );
        });
    }

    #[test]
    fn a_unix_socket_is_opened_only_for_a_collector_at_one() {
        in_a_thread(true, || {
            assert!(UnixDatagram::unbound().is_ok());
            assert!(UdpSocket::bind("127.0.0.1:0").is_err(), "no new server");
        });
    }
}
