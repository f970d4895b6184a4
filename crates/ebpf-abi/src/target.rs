//! What the kernel side knows of a process that belongs to a PostgreSQL server, and of the client that it serves; of one
//! that belongs to a pooler it only knows that.

/// Flag of [`Target`]: the kernel saw the process fork, so that every byte of its sockets was seen.
pub const TARGET_BORN_TAPPED: u32 = 1;

/// Flag of [`Target`]: the server's TLS functions were probed before the process was marked.
pub const TARGET_PROBED_TLS: u32 = 2;

/// Flag of [`Target`]: the same of its GSSAPI functions.
pub const TARGET_PROBED_GSS: u32 = 8;

/// Flag of [`Target`]: its client's socket could not be told at first, so that what is told later begins mid-stream.
pub const TARGET_SOCKET_UNTOLD: u32 = 4;

/// Flag of [`Target`]: it is no server's process but passes statements on. `server` is the process by which it was
/// recognised; its sockets are kept elsewhere, because it has many.
pub const TARGET_POOLER: u32 = 16;

/// Process ids whose marks are in one page of the map `MARKED`, a byte for each.
pub const MARKS: u32 = 4096;

/// A process of a server. User space writes `server` and `flags`; the rest is the kernel side's own.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// Process id of the postmaster that it descends from.
    pub server: u32,
    /// Or'ed flags.
    pub flags: u32,
    /// The connection that it serves.
    pub client: Client,
    /// The call of an encryption function that it is in.
    pub call: ProbedCall,
    /// Where a copy of a system call's buffers stands.
    pub walk: Walk,
}

/// The connection that a backend serves: one in its life. Addresses are the kernel's, 0 while there is none.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Client {
    /// `struct sock`.
    pub sock: u64,
    /// `struct file` of the same socket.
    pub file: u64,
    /// What was last used and is no client's connection: a `struct sock` (tier A) or a `struct file` (tier B).
    pub other: u64,
    /// By what the connection is named in records.
    pub cookie: u64,
    /// Bytes received and sent over the socket.
    pub received: u64,
    /// As above.
    pub sent: u64,
    /// Bytes that the encryption functions have given and taken.
    pub plain_received: u64,
    /// As above.
    pub plain_sent: u64,
    /// Bytes of an encrypted connection that passed outside of any encryption function, and what of it is doubtful yet.
    pub outside: u64,
    /// `tcp_sock.copied_seq` when `received` was true.
    pub copied_seq: u32,
    /// `tcp_sock.write_seq` when `sent` was true.
    pub write_seq: u32,
    /// File descriptor of the socket.
    pub descriptor: u32,
    /// Address family; that of Unix sockets for all whose bytes the kernel does not count.
    pub family: u16,
    /// A [`crate::Channel`]: where its plaintext is read.
    pub channel: u8,
    /// What was lost since the last record, as in [`crate::SegmentHeader::flags`].
    pub lost: u8,
}

/// A call of an encryption function that has not returned.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProbedCall {
    /// The buffer that it was given.
    pub buffer: u64,
    /// The thread that is in it; 0 if none is.
    pub thread: u32,
    /// A [`crate::Channel`].
    pub channel: u8,
    /// A [`crate::Direction`].
    pub direction: u8,
    /// Zero.
    pub reserved: u16,
}

/// Where a copy of user memory stands. It lives in the map, because what is read back from there the verifier takes
/// for any value, and so walks the loop over buffers once and not once for every path to it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Walk {
    /// Next byte.
    pub base: u64,
    /// Bytes left in this buffer.
    pub left: u64,
    /// The next `struct iovec`.
    pub vector: u64,
    /// How many of those are left.
    pub vectors: u64,
    /// Bytes copied.
    pub done: u64,
}

const _: () = assert!(size_of::<Client>() == 88);
const _: () = assert!(size_of::<Target>() == 8 + 88 + 16 + 40);
