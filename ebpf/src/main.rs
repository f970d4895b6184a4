//! The kernel side: entry points that only delegate. What they do is in one file a concern.
//!
//! Owns nothing but the list of hooks; each names the kernel prototype that it relies on.

#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod call;
mod cgroup;
mod client;
mod connect;
mod copy;
mod emit;
mod kernel;
mod maps;
mod plaintext;
mod pooled;
mod pooler;
mod process;
mod sockets;
mod ssl;
mod tap;
mod transfer;

use aya_ebpf::{
    macros::{btf_tracepoint, raw_tracepoint, uprobe, uretprobe},
    programs::{BtfTracePointContext, ProbeContext, RawTracePointContext, RetProbeContext},
};
use ebpf_abi::{Channel, Direction};

/// `TP_PROTO(struct sock *sk, int ret, int flags)`, from `sock_recvmsg`: in the reading process, behind the read.
#[btf_tracepoint(function = "sock_recv_length")]
pub fn sock_recv_length(ctx: BtfTracePointContext) -> i32 {
    tap::transferred(&ctx, Direction::Received);
    0
}

/// `TP_PROTO(struct sock *sk, int ret, int flags)`, from `sock_sendmsg`: in the writing process, behind the write.
#[btf_tracepoint(function = "sock_send_length")]
pub fn sock_send_length(ctx: BtfTracePointContext) -> i32 {
    tap::transferred(&ctx, Direction::Sent);
    0
}

/// `TP_PROTO(struct pt_regs *regs, long ret)`: every system call of the host, for kernels without the two above.
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn sys_exit(ctx: RawTracePointContext) -> i32 {
    tap::returned(&ctx);
    0
}

/// `ssize_t be_tls_read(Port *port, void *ptr, size_t len, int *waitfor)` of the server's `be-secure-openssl.c`.
#[uprobe]
pub fn be_tls_read(ctx: ProbeContext) -> u32 {
    plaintext::entered(&ctx, Channel::Tls, Direction::Received);
    0
}

/// `ssize_t be_tls_write(Port *port, const void *ptr, size_t len, int *waitfor)`.
#[uprobe]
pub fn be_tls_write(ctx: ProbeContext) -> u32 {
    plaintext::entered(&ctx, Channel::Tls, Direction::Sent);
    0
}

/// `ssize_t be_gssapi_read(Port *port, void *ptr, size_t len)` of the server's `be-secure-gssapi.c`.
#[uprobe]
pub fn be_gssapi_read(ctx: ProbeContext) -> u32 {
    plaintext::entered(&ctx, Channel::Gss, Direction::Received);
    0
}

/// `ssize_t be_gssapi_write(Port *port, const void *ptr, size_t len)`.
#[uprobe]
pub fn be_gssapi_write(ctx: ProbeContext) -> u32 {
    plaintext::entered(&ctx, Channel::Gss, Direction::Sent);
    0
}

/// The return of any of these four: bytes, or -1 where the same will be tried again.
#[uretprobe]
pub fn encryption_return(ctx: RetProbeContext) -> u32 {
    plaintext::returned(&ctx);
    0
}

/// `int SSL_read(SSL *ssl, void *buf, int num)` of OpenSSL.
#[uprobe]
pub fn ssl_read(ctx: ProbeContext) -> u32 {
    ssl::entered(&ctx, Direction::Received, false);
    0
}

/// `int SSL_write(SSL *ssl, const void *buf, int num)`.
#[uprobe]
pub fn ssl_write(ctx: ProbeContext) -> u32 {
    ssl::entered(&ctx, Direction::Sent, false);
    0
}

/// `int SSL_read_ex(SSL *ssl, void *buf, size_t num, size_t *readbytes)`.
#[uprobe]
pub fn ssl_read_ex(ctx: ProbeContext) -> u32 {
    ssl::entered(&ctx, Direction::Received, true);
    0
}

/// `int SSL_write_ex(SSL *s, const void *buf, size_t num, size_t *written)`.
#[uprobe]
pub fn ssl_write_ex(ctx: ProbeContext) -> u32 {
    ssl::entered(&ctx, Direction::Sent, true);
    0
}

/// The return of any of these four.
#[uretprobe]
pub fn ssl_return(ctx: RetProbeContext) -> u32 {
    let _ = ssl::returned(&ctx);
    0
}

/// `TP_PROTO(const struct sock *sk, const int oldstate, const int newstate)`: the move to SYN_SENT runs in the
/// connecting process, the others in any.
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn inet_sock_set_state(ctx: BtfTracePointContext) -> i32 {
    connect::state_changed(&ctx, connect::Place::First);
    0
}

/// As above, for what the kernel skips there.
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn inet_sock_set_state_again(ctx: BtfTracePointContext) -> i32 {
    connect::state_changed(&ctx, connect::Place::Second);
    0
}

/// `TP_PROTO(struct task_struct *parent, struct task_struct *child)`: before the child runs.
#[btf_tracepoint(function = "sched_process_fork")]
pub fn sched_process_fork(ctx: BtfTracePointContext) -> i32 {
    process::forked(&ctx);
    0
}

/// `TP_PROTO(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)`: in the process, with its new memory.
#[btf_tracepoint(function = "sched_process_exec")]
pub fn sched_process_exec(ctx: BtfTracePointContext) -> i32 {
    process::executed(&ctx);
    0
}

/// `TP_PROTO(struct task_struct *p, …)`, from `do_exit`, for every thread.
#[btf_tracepoint(function = "sched_process_exit")]
pub fn sched_process_exit(ctx: BtfTracePointContext) -> i32 {
    process::exited(&ctx);
    0
}

/// `TP_PROTO(struct cgroup *cgrp, const char *path)`: in the process that makes the folder.
#[btf_tracepoint(function = "cgroup_mkdir")]
pub fn cgroup_mkdir(ctx: BtfTracePointContext) -> i32 {
    cgroup::made(&ctx);
    0
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // The verifier refuses a program that could get here.
    loop {}
}
