//! One frame: what is appended, and how it is told from what an accident left.

use bytes::Bytes;
use thiserror::Error;

/// Bytes before a frame's body: checksum, length, sequence.
pub const FRONT: usize = 16;

/// Longest body: a signed batch at the collector's caps (16 MiB of payload, 4 KiB of header), with room for more fields.
/// A length beyond it is an accident, and no reason to allocate.
pub const BODY_BYTES: usize = (16 << 20) + (64 << 10);

/// A body with its sequence, in the form in which it lies in a file. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    sequence: u64,
    bytes: Bytes,
}

/// The front of a frame, as read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Front {
    sum: u32,
    /// Of the body, in bytes.
    pub(crate) length: u32,
    pub(crate) sequence: u64,
}

/// Why bytes are no frame.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Broken {
    /// The file ends before it does.
    #[error("the file ends within it")]
    Short,
    /// A length that no frame has.
    #[error("its length is {0}, where 1 to {BODY_BYTES} is possible")]
    Length(u32),
    /// Not the one that follows.
    #[error("its sequence is {found}, expected {expected}")]
    Sequence {
        /// What would follow.
        expected: u64,
        /// What stands there.
        found: u64,
    },
    /// The checksum is another one.
    #[error("its checksum does not hold")]
    Sum,
    /// In front of it is no beginning of a file.
    #[error("the file's beginning does not hold")]
    Beginning,
}

impl Frame {
    /// A frame whose body is what `write` appends to the buffer that it is given; `size` is the body's size, about.
    pub fn new(sequence: u64, size: usize, write: impl FnOnce(&mut Vec<u8>)) -> Self {
        let mut bytes = Vec::with_capacity(FRONT + size);
        bytes.resize(FRONT, 0);
        write(&mut bytes);
        // A body that is too long for the field is too long to be appended, and is refused there.
        let length = u32::try_from(bytes.len() - FRONT).unwrap_or(u32::MAX);
        if let Some((front, body)) = bytes.split_first_chunk_mut::<FRONT>() {
            let covered = covered(length, sequence);
            let sum = checksum(&covered, body).to_le_bytes();
            for (to, from) in front.iter_mut().zip(sum.into_iter().chain(covered)) {
                *to = from;
            }
        }
        Self {
            sequence,
            bytes: bytes.into(),
        }
    }

    /// Its sequence.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// What was appended, without a copy.
    #[must_use]
    pub fn body(&self) -> Bytes {
        self.bytes.slice(FRONT.min(self.bytes.len())..)
    }

    /// As it lies in a file.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Bytes that it takes in a file.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.bytes.len() as u64
    }
}

impl Front {
    pub(crate) fn read(bytes: &[u8; FRONT]) -> Self {
        let [a, b, c, d, e, f, g, h, sequence @ ..] = *bytes;
        Self {
            sum: u32::from_le_bytes([a, b, c, d]),
            length: u32::from_le_bytes([e, f, g, h]),
            sequence: u64::from_le_bytes(sequence),
        }
    }

    /// Bytes of the body, if a frame with this sequence and so many bytes behind its front can be one.
    pub(crate) fn body(&self, expected: u64, left: u64) -> Result<usize, Broken> {
        let length = self.length as usize;
        if length == 0 || length > BODY_BYTES {
            return Err(Broken::Length(self.length));
        }
        if self.sequence != expected {
            return Err(Broken::Sequence {
                expected,
                found: self.sequence,
            });
        }
        if u64::from(self.length) > left {
            return Err(Broken::Short);
        }
        Ok(length)
    }

    pub(crate) fn check(&self, body: &[u8]) -> Result<(), Broken> {
        let covered = covered(self.length, self.sequence);
        if checksum(&covered, body) == self.sum {
            Ok(())
        } else {
            Err(Broken::Sum)
        }
    }
}

/// What the checksum covers before the body, as it lies in a file.
fn covered(length: u32, sequence: u64) -> [u8; FRONT - 4] {
    let mut covered = [0; FRONT - 4];
    let bytes = length.to_le_bytes().into_iter().chain(sequence.to_le_bytes());
    for (to, from) in covered.iter_mut().zip(bytes) {
        *to = from;
    }
    covered
}

/// CRC-32C (RFC 3720, appendix B.4) over length, sequence and body.
fn checksum(front: &[u8], body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(front), body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_the_one_that_the_specification_says() {
        let frame = Frame::new(0x0102_0304_0506_0708, 3, |body| body.extend_from_slice(b"abc"));
        let (sum, rest) = frame.bytes().split_at(4);
        assert_eq!(rest, b"\x03\0\0\0\x08\x07\x06\x05\x04\x03\x02\x01abc");
        assert_eq!(sum, crc32c::crc32c(rest).to_le_bytes());
        // The check value of CRC-32C.
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
        assert_eq!((&frame.body()[..], frame.size()), (&b"abc"[..], 19));
        let front = Front::read(frame.bytes().first_chunk().expect("a front"));
        assert_eq!(front.body(frame.sequence(), 3), Ok(3));
        assert_eq!(front.body(frame.sequence(), 2), Err(Broken::Short));
        assert!(matches!(front.body(1, 3), Err(Broken::Sequence { .. })));
        assert_eq!(front.check(b"abc"), Ok(()));
        assert_eq!(front.check(b"abd"), Err(Broken::Sum));
        assert_eq!(
            Front::read(&[0; FRONT]).body(0, 9),
            Err(Broken::Length(0)),
            "zeros are no frame"
        );
    }
}
