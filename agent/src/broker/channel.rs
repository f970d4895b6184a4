//! The socket between the two processes: messages of JSON that stay apart, capped in length.
//!
//! Refuses to wait: who sends or receives decides how long that may take.

use std::{
    io::{self, IoSlice},
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd, RawFd},
};

use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair},
};
use serde::{Serialize, de::DeserializeOwned};

use crate::capture::handover;

/// One end.
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

/// What came.
#[derive(Debug)]
pub enum Received<T> {
    /// A message.
    Message(T, Vec<OwnedFd>),
    /// Nothing yet.
    Nothing,
    /// The other end is closed.
    End,
}

impl Channel {
    /// Two ends. Of what comes, no message may be longer than `longest` bytes at this one.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn pair(longest: usize) -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )?;
        Ok((Self::new(ours, longest), theirs))
    }

    /// The end with this descriptor.
    pub fn new(socket: OwnedFd, longest: usize) -> Self {
        Self {
            socket,
            buffer: vec![0; longest],
        }
    }

    /// Sends a message. Never waits: an error of the kind `WouldBlock` says that there is no room now.
    ///
    /// # Errors
    ///
    /// What the kernel says; if the message is no JSON, or too long.
    pub fn send(
        &self,
        message: &impl Serialize,
        longest: usize,
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        if bytes.len() > longest {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let raw: Vec<RawFd> = descriptors.iter().map(std::os::fd::AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let control = if raw.is_empty() { &[][..] } else { &rights[..] };
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        sendmsg::<()>(
            self.socket.as_raw_fd(),
            &[IoSlice::new(&bytes)],
            control,
            flags,
            None,
        )?;
        Ok(())
    }

    /// Takes a message, if there is one.
    ///
    /// # Errors
    ///
    /// If what came is none, or too long; what the kernel says.
    pub fn receive<T: DeserializeOwned>(&mut self) -> io::Result<Received<T>> {
        let (length, descriptors) = match handover::receive(self.socket.as_fd(), &mut self.buffer) {
            Ok((0, _)) => return Ok(Received::End),
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Received::Nothing),
            Err(error) if error.raw_os_error() == Some(Errno::ECONNRESET as i32) => return Ok(Received::End),
            Err(error) => return Err(error),
        };
        let bytes = self.buffer.get(..length).unwrap_or_default();
        Ok(Received::Message(serde_json::from_slice(bytes)?, descriptors))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_descriptors_arrive_and_long_ones_are_refused() {
        let (mut one, other) = Channel::pair(64).expect("a pair");
        let mut other = Channel::new(other, 8);
        assert!(matches!(one.receive::<u64>(), Ok(Received::Nothing)));
        let file = tempfile::tempfile().expect("a file");
        other
            .send(&7_u64, 64, &[file.as_fd(), file.as_fd()])
            .expect("room");
        match one.receive::<u64>().expect("a message") {
            Received::Message(7, descriptors) => assert_eq!(descriptors.len(), 2),
            received => panic!("{received:?}"),
        }
        assert!(one.send(&"x".repeat(100), 64, &[]).is_err());
        one.send(&"x".repeat(20), 64, &[]).expect("room");
        assert!(other.receive::<String>().is_err(), "longer than it takes");
        one.send(&"text", 64, &[]).expect("room");
        assert!(other.receive::<u64>().is_err(), "not what was expected");
        drop(one);
        assert!(matches!(other.receive::<u64>(), Ok(Received::End)));
    }
}
