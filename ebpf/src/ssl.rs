//! The tap in the functions of OpenSSL by which a pooler encrypts (SSL_read(3), SSL_write(3)): as behind its socket calls,
//! told by buffer, order and offset, of the plaintext.
//!
//! Which connection a session is of, the socket calls inside of these functions say. Handshakes are made by others, so that
//! offsets count what the application says.

use aya_ebpf::{
    helpers::{bpf_get_current_pid_tgid, generated::bpf_ktime_get_boot_ns},
    programs::{ProbeContext, RetProbeContext},
};
use ebpf_abi::{Channel, Counter, Direction, TARGET_POOLER, TRANSFER_END, TRANSFER_NONE};

use crate::{
    call::read_user,
    emit,
    maps::{Encrypting, SESSIONS, SessionKey, TARGETS},
    transfer::{self, About, Buffer},
};

/// `int f(SSL *session, void *buffer, int length)`, or `int f_ex(SSL *, void *, size_t length, size_t *done)`, is entered.
#[inline(always)]
pub fn entered(ctx: &ProbeContext, direction: Direction, is_ex: bool) {
    let ids = bpf_get_current_pid_tgid();
    // SAFETY: the value is only read, and at once.
    let target = unsafe { TARGETS.get((ids >> 32) as u32) };
    if target.is_none_or(|target| target.flags & TARGET_POOLER == 0) {
        return;
    }
    let Some(thread) = transfer::thread(ids as u32) else {
        return emit::count(Counter::TransfersLost, 1);
    };
    // SAFETY: the lookup proved the value; it is this thread's own.
    let thread = unsafe { &mut *thread };
    thread.said = 0;
    thread.call = Encrypting {
        session: ctx.arg(0).unwrap_or(0),
        buffer: ctx.arg(1).unwrap_or(0),
        length: if is_ex { ctx.arg(3).unwrap_or(0) } else { 0 },
        direction: direction as u32,
        reserved: 0,
    };
}

/// The function that was entered last returns.
#[inline(always)]
pub fn returned(ctx: &RetProbeContext) -> Option<()> {
    let ids = bpf_get_current_pid_tgid();
    let thread = transfer::known_thread(ids as u32)?;
    // SAFETY: as above.
    let (call, said) = unsafe {
        let call = (*thread).call;
        (*thread).call.session = 0;
        (call, (*thread).said as u8)
    };
    if call.session == 0 {
        return None;
    }
    let result = ctx.ret::<u64>() as i32;
    let mut length = if result > 0 { result as u32 } else { 0 };
    if result > 0 && call.length != 0 {
        length = read_user::<u64>(call.length)? as u32;
    }
    let key = SessionKey {
        tgid: ids >> 32,
        address: call.session,
    };
    let Some(session) = SESSIONS.get_ptr_mut(key) else {
        // No call on its socket was seen yet: what was buffered before.
        emit::count(Counter::PlaintextUnplaced, u64::from(length));
        return None;
    };
    // SAFETY: the lookup proved the value; one thread at a time uses a session (openssl-threads(7)).
    let session = unsafe { &mut *session };
    let position = if call.direction == Direction::Received as u32 {
        &mut session.received
    } else {
        &mut session.sent
    };
    let offset = *position;
    *position += u64::from(length);
    if session.told == 0 {
        return None;
    }
    let about = About {
        // SAFETY: the helper has no precondition.
        at: unsafe { bpf_ktime_get_boot_ns() },
        cookie: session.cookie,
        tgid: (ids >> 32) as u32,
        thread: ids as u32,
        direction: call.direction as u8,
        channel: Channel::Tls as u8,
        flags: match (length, said & TRANSFER_END) {
            (0, 0) => TRANSFER_NONE,
            (0, _) => TRANSFER_END,
            _ => 0,
        },
    };
    let buffer = Buffer {
        at: call.buffer,
        length,
        offset,
    };
    transfer::give(&mut session.lost, thread, &about, &buffer);
    Some(())
}
