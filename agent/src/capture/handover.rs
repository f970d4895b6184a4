//! Descriptors that one process of the agent hands to the other. It is here because the agent's `unsafe` has one home.

use std::{
    io::{self, IoSliceMut},
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

/// Descriptors that come with one message at the most: all rings, and the way to the process that looks at catalogs.
pub const DESCRIPTORS: usize = 4;

/// Takes one message from a socket that keeps messages apart, with the descriptors that came with it. Never waits: an
/// error of the kind `WouldBlock` says that there is none. A message that is longer than `into` is an error.
///
/// # Errors
///
/// What the kernel says.
pub fn receive(socket: BorrowedFd<'_>, into: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = nix::cmsg_space!([RawFd; DESCRIPTORS]);
    let mut parts = [IoSliceMut::new(into)];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
    let mut descriptors = Vec::new();
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = part {
            // SAFETY: the kernel has just made each of them for us, and nothing else knows of it.
            descriptors.extend(raw.into_iter().map(|raw| unsafe { OwnedFd::from_raw_fd(raw) }));
        }
    }
    if message.flags.contains(MsgFlags::MSG_TRUNC) {
        return Err(io::Error::other("a message is longer than any may be"));
    }
    Ok((message.bytes, descriptors))
}
