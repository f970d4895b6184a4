//! What kind of file it is, and what it is when it is unpacked.

use std::io::{self, BufRead, BufReader, Read};

use crate::{error::RecordingError, segments};

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// What our kernel side gave: see [`segments`].
    Segments,
    /// Packets: pcap or pcapng.
    Packets,
}

/// Bytes read at once.
const BUFFER: usize = 1 << 16;

/// The largest window that is allowed for unpacking, as a power of two: 128 MiB, what `zstd --long` takes.
const WINDOW_LOG: u32 = 27;

/// Unpacks what was compressed by zstd; anything else stays as it is.
///
/// # Errors
///
/// Those of reading.
pub fn unpacked<'a>(reader: impl Read + Send + 'a) -> io::Result<Box<dyn BufRead + Send + 'a>> {
    let mut reader = Peek::new(reader)?;
    if !reader.front().starts_with(&ZSTD) {
        reader.seen = 0;
        return Ok(Box::new(BufReader::with_capacity(BUFFER, reader)));
    }
    let mut decoder = zstd::Decoder::new(reader)?;
    decoder.window_log_max(WINDOW_LOG)?;
    Ok(Box::new(BufReader::with_capacity(BUFFER, decoder)))
}

/// Which format an unpacked file has, by its first bytes, which stay unread.
///
/// # Errors
///
/// If it is none, or cannot be read.
pub fn recognised(reader: &mut dyn BufRead) -> Result<Format, RecordingError> {
    let front = reader.fill_buf()?;
    let magic = front.get(..4).unwrap_or_default();
    if front.starts_with(segments::MAGIC) || (!front.is_empty() && segments::MAGIC.starts_with(front)) {
        return Ok(Format::Segments);
    }
    if PACKETS
        .iter()
        .any(|known| magic == known.to_le_bytes() || magic == known.to_be_bytes())
    {
        return Ok(Format::Packets);
    }
    if front.starts_with(&GZIP) {
        return Err(RecordingError::Gzip);
    }
    Err(RecordingError::UnknownFormat)
}

/// RFC 8878, "Zstandard Frames".
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// RFC 1952.
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// pcap with microseconds, with nanoseconds; the first block of a pcapng file
/// (draft-ietf-opsawg-pcap, draft-ietf-opsawg-pcapng).
const PACKETS: [u32; 3] = [0xa1b2_c3d4, 0xa1b2_3c4d, 0x0a0d_0d0a];

/// A reader whose first bytes were looked at.
struct Peek<R> {
    front: [u8; 4],
    length: usize,
    seen: usize,
    rest: R,
}

impl<R: Read> Peek<R> {
    fn new(mut rest: R) -> io::Result<Self> {
        let mut front = [0; 4];
        let mut length = 0;
        while let Some(room) = front.get_mut(length..).filter(|room| !room.is_empty()) {
            match rest.read(room) {
                Ok(0) => break,
                Ok(taken) => length += taken,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self {
            front,
            length,
            seen: 0,
            rest,
        })
    }

    fn front(&self) -> &[u8] {
        self.front.get(..self.length).unwrap_or_default()
    }
}

impl<R: Read> Read for Peek<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = self.front.get(self.seen..self.length).unwrap_or_default();
        if left.is_empty() {
            return self.rest.read(into);
        }
        let length = left.len().min(into.len());
        if let (Some(to), Some(from)) = (into.get_mut(..length), left.get(..length)) {
            to.copy_from_slice(from);
        }
        self.seen += length;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format(bytes: &[u8]) -> Result<Format, RecordingError> {
        let mut reader = unpacked(bytes)?;
        let format = recognised(reader.as_mut())?;
        let mut again = Vec::new();
        reader.read_to_end(&mut again)?;
        let plain = zstd::decode_all(bytes).unwrap_or_else(|_| bytes.to_vec());
        assert_eq!(again, plain, "nothing is taken by looking");
        Ok(format)
    }

    #[test]
    fn files_are_known_by_their_first_bytes() {
        let table: [(&[u8], Format); 5] = [
            (segments::MAGIC, Format::Segments),
            (b"\xa1\xb2\xc3\xd4rest", Format::Packets),
            (b"\xd4\xc3\xb2\xa1rest", Format::Packets),
            (b"\x4d\x3c\xb2\xa1rest", Format::Packets),
            (b"\x0a\x0d\x0d\x0arest", Format::Packets),
        ];
        for (bytes, expected) in table {
            assert_eq!(format(bytes).expect("known"), expected);
            let packed = zstd::encode_all(bytes, 0).expect("memory");
            assert_eq!(format(&packed).expect("known"), expected);
        }
        assert!(matches!(format(b"\x1f\x8b\x08"), Err(RecordingError::Gzip)));
        for other in [b"".as_slice(), b"PG", b"SELECT 1"] {
            assert!(matches!(format(other), Err(RecordingError::UnknownFormat)));
        }
    }
}
