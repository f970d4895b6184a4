//! The system call that a task is in: which it is, on which file, and where its buffers are.

use aya_ebpf::helpers::bpf_probe_read_user;
use ebpf_abi::{Direction, Walk};

use crate::kernel::{Address, Place, offset};

/// A system call that reads or writes a socket.
#[derive(Clone, Copy)]
pub struct Call {
    number: u64,
    /// First argument: the file descriptor.
    pub descriptor: u32,
    second: u64,
    third: u64,
    fourth: u64,
}

/// `include/linux/socket.h`
pub const MSG_PEEK: u64 = 2;
pub const MSG_TRUNC: u64 = 0x20;

impl Call {
    /// `registers` as at the call's entry.
    #[inline(always)]
    pub fn read(registers: impl Place) -> Option<Self> {
        let [number, first, second, third, fourth] = arch::number_and_arguments(registers)?;
        Some(Self {
            number: u64::from(number as u32),
            descriptor: first as u32,
            second,
            third,
            fourth,
        })
    }

    /// Which way bytes go; `None` if it is no call that is known here.
    #[inline(always)]
    pub fn direction(&self) -> Option<Direction> {
        match self.number {
            READ | READV | RECVFROM | RECVMSG => Some(Direction::Received),
            WRITE | WRITEV | SENDTO | SENDMSG => Some(Direction::Sent),
            _ => None,
        }
    }

    /// Whether it leaves in the socket what it reads.
    #[inline(always)]
    pub fn peeks(&self) -> bool {
        self.receive_flags() & MSG_PEEK != 0
    }

    #[inline(always)]
    fn receive_flags(&self) -> u64 {
        match self.number {
            RECVFROM => self.fourth,
            RECVMSG => self.third,
            _ => 0,
        }
    }

    /// Goes to the front of its buffers; `None` if they do not hold what the call counts.
    #[inline(always)]
    pub fn begin(&self, walk: &mut Walk) -> Option<()> {
        // TCP takes the bytes out of the socket then, and copies none.
        if self.receive_flags() & MSG_TRUNC != 0 {
            return None;
        }
        let (mut base, mut vector, mut vectors) = (0, 0, 0);
        match self.number {
            READ | WRITE | SENDTO | RECVFROM => base = self.second,
            READV | WRITEV => (vector, vectors) = (self.second, self.third),
            // `struct user_msghdr`: name, namelen, iov, iovlen
            SENDMSG | RECVMSG => {
                (vector, vectors) = (read_user(self.second + 16)?, read_user(self.second + 24)?);
            }
            _ => return None,
        }
        *walk = Walk {
            base,
            left: if vector == 0 { u64::MAX } else { 0 },
            vector,
            vectors,
            done: 0,
        };
        Some(())
    }
}

impl Call {
    /// The first two words, as they stand in the first buffer.
    #[inline(always)]
    pub fn front(&self) -> Option<[u32; 2]> {
        let mut walk = Walk::default();
        self.begin(&mut walk)?;
        let base = if walk.left == 0 {
            read_user::<u64>(walk.vector)?
        } else {
            walk.base
        };
        read_user(base)
    }
}

#[inline(always)]
pub fn read_user<T>(address: u64) -> Option<T> {
    // SAFETY: the helper copies with fault handling.
    unsafe { bpf_probe_read_user(address as *const T) }.ok()
}

/// The `struct file` behind a descriptor of a task; 0 if there is none.
#[inline(always)]
pub fn file_of(task: impl Place, descriptor: u32) -> Option<u64> {
    let table = task.follow(offset!(task_files))?.follow(offset!(files_fdt))?;
    if descriptor >= table.read::<u32>(offset!(fdtable_max_fds))? {
        return None;
    }
    let files: u64 = table.read(offset!(fdtable_fd))?;
    Address(files + u64::from(descriptor) * 8).read(0)
}

#[cfg(bpf_target_arch = "x86_64")]
mod arch {
    //! `arch/x86/include/asm/ptrace.h` and `arch/x86/entry/syscalls/syscall_64.tbl`.
    use crate::kernel::Place;

    /// One copy, from r10 to orig_ax.
    #[inline(always)]
    pub fn number_and_arguments(registers: impl Place) -> Option<[u64; 5]> {
        let [r10, _, _, _, _, dx, si, di, orig_ax] = registers.words(56)?;
        Some([orig_ax, di, si, dx, r10])
    }

    pub const READ: u64 = 0;
    pub const WRITE: u64 = 1;
    pub const READV: u64 = 19;
    pub const WRITEV: u64 = 20;
    pub const SENDTO: u64 = 44;
    pub const RECVFROM: u64 = 45;
    pub const SENDMSG: u64 = 46;
    pub const RECVMSG: u64 = 47;
}

#[cfg(bpf_target_arch = "aarch64")]
mod arch {
    //! `arch/arm64/include/asm/ptrace.h` and `include/uapi/asm-generic/unistd.h`.
    use crate::kernel::Place;

    /// Two copies. The first argument is `orig_x0`, because the return value has overwritten x0.
    #[inline(always)]
    pub fn number_and_arguments(registers: impl Place) -> Option<[u64; 5]> {
        let [x1, x2, x3] = registers.words(8)?;
        let [orig_x0, number] = registers.words(272)?;
        Some([number, orig_x0, x1, x2, x3])
    }

    pub const READ: u64 = 63;
    pub const WRITE: u64 = 64;
    pub const READV: u64 = 65;
    pub const WRITEV: u64 = 66;
    pub const SENDTO: u64 = 206;
    pub const RECVFROM: u64 = 207;
    pub const SENDMSG: u64 = 211;
    pub const RECVMSG: u64 = 212;
}
use arch::{READ, READV, RECVFROM, RECVMSG, SENDMSG, SENDTO, WRITE, WRITEV};
