//! One direction of a connection as a stream of bytes with explicit gaps.

/// Where the stream stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ByteStream {
    next: Option<u64>,
}

/// How a segment fits the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fit {
    /// Bytes that are missing before it.
    pub(crate) missing: u64,
    /// Bytes at its front that were seen already.
    pub(crate) repeated: usize,
}

impl ByteStream {
    /// A stream that starts at its first byte.
    pub(crate) fn from_start() -> Self {
        Self { next: Some(0) }
    }

    /// A stream that starts wherever the first segment does.
    pub(crate) fn mid_stream() -> Self {
        Self { next: None }
    }

    /// A stream that goes on from there.
    pub(crate) fn at(offset: u64) -> Self {
        Self { next: Some(offset) }
    }

    /// Takes `length` bytes at `offset`.
    pub(crate) fn take(&mut self, offset: u64, length: u64) -> Fit {
        let next = self.next.unwrap_or(offset);
        let end = offset.saturating_add(length);
        self.next = Some(next.max(end));
        let repeated = next.saturating_sub(offset).min(length);
        Fit {
            missing: offset.saturating_sub(next),
            repeated: usize::try_from(repeated).unwrap_or(usize::MAX),
        }
    }

    /// Where it stands; `None` if nothing was seen of it.
    pub(crate) fn seen_to(&self) -> Option<u64> {
        self.next
    }

    /// Bytes until here.
    pub(crate) fn position(&self) -> u64 {
        self.next.unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jumps_are_gaps_and_overlaps_are_repeats() {
        let mut stream = ByteStream::from_start();
        assert_eq!(
            stream.take(0, 10),
            Fit {
                missing: 0,
                repeated: 0
            }
        );
        assert_eq!(
            stream.take(15, 5),
            Fit {
                missing: 5,
                repeated: 0
            }
        );
        assert_eq!(
            stream.take(18, 4),
            Fit {
                missing: 0,
                repeated: 2
            }
        );
        assert_eq!(
            stream.take(0, 3),
            Fit {
                missing: 0,
                repeated: 3
            }
        );
        assert_eq!(stream.position(), 22);
        let mut stream = ByteStream::mid_stream();
        assert_eq!(
            stream.take(1000, 10),
            Fit {
                missing: 0,
                repeated: 0
            }
        );
        assert_eq!(stream.take(u64::MAX, u64::MAX).missing, u64::MAX - 1010);
    }
}
