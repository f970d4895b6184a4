//! Our own format: what the kernel side gave, in the order in which the pipeline took it.
//!
//! A magic line, then records: length (`u32`), kind (`u8`), fields of fixed width, all little-endian; what is of
//! variable length comes last. Owns exactly what the pipeline needs to come to the same events again: sockets, their
//! bytes, their ends. Command lines, environments and facts about other processes have no kind here, so they cannot
//! be written. A file is written until something stops the writer: an unfinished record at its end is told, and is no
//! error.

use std::io::{self, BufRead, Write};

use ebpf_abi::{CHUNK_MAX, CloseFact, FactKind, PeerProcess, SegmentHeader, SocketFact, UNIX_PATH_MAX};

use crate::{error::RecordingError, record::Record};

/// The first line of every file.
pub const MAGIC: &[u8] = b"pgwitness segments 1\n";

/// Longest record that is read: a segment is cut at [`CHUNK_MAX`], its fields are 40 bytes.
const RECORD_BYTES: usize = CHUNK_MAX + 1024;

const CLOCK: u8 = 0;
const SOCKET: u8 = 1;
const SEGMENT: u8 = 2;
const CLOSE: u8 = 3;
const EXIT: u8 = 4;

/// Writes a file.
#[derive(Debug)]
pub struct Writer<W> {
    to: W,
    buffer: Vec<u8>,
    written: u64,
}

impl<W: Write> Writer<W> {
    /// Begins a file.
    ///
    /// # Errors
    ///
    /// Those of `to`.
    pub fn new(mut to: W) -> io::Result<Self> {
        to.write_all(MAGIC)?;
        Ok(Self {
            to,
            buffer: Vec::with_capacity(RECORD_BYTES),
            written: MAGIC.len() as u64,
        })
    }

    /// Appends a record. A segment that is longer than the kernel side makes them is written as several.
    ///
    /// # Errors
    ///
    /// Those of `to`. The file may end in an unfinished record then.
    pub fn write(&mut self, record: &Record<'_>) -> io::Result<()> {
        if let Record::Segment(header, bytes) = record
            && let Some((front, rest)) = bytes.split_at_checked(CHUNK_MAX)
            && !rest.is_empty()
        {
            let behind = SegmentHeader {
                offset: header.offset.saturating_add(CHUNK_MAX as u64),
                ..*header
            };
            let front_header = SegmentHeader {
                missing: 0,
                reason: 0,
                ..*header
            };
            self.write(&Record::Segment(front_header, front))?;
            return self.write(&Record::Segment(behind, rest));
        }
        self.buffer.clear();
        self.buffer.extend_from_slice(&[0; 4]);
        encode(record, &mut self.buffer);
        let length = u32::try_from(self.buffer.len().saturating_sub(4)).unwrap_or(u32::MAX);
        if let Some(front) = self.buffer.first_chunk_mut() {
            *front = length.to_le_bytes();
        }
        self.to.write_all(&self.buffer)?;
        self.written += self.buffer.len() as u64;
        Ok(())
    }

    /// Bytes written so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Hands on what was buffered.
    ///
    /// # Errors
    ///
    /// Those of `to`.
    pub fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }

    /// Gives back what was written to.
    ///
    /// # Errors
    ///
    /// Those of flushing it.
    pub fn finish(mut self) -> io::Result<W> {
        self.to.flush()?;
        Ok(self.to)
    }
}

/// Reads a file.
#[derive(Debug)]
pub struct Reader<R> {
    from: R,
    buffer: Vec<u8>,
    /// Offset of the next record.
    offset: u64,
    torn: u64,
}

impl<R: BufRead> Reader<R> {
    /// Reads the magic line.
    ///
    /// # Errors
    ///
    /// If `from` does not begin with it, or cannot be read.
    pub fn new(mut from: R) -> Result<Self, RecordingError> {
        let mut magic = Vec::with_capacity(MAGIC.len());
        read_up_to(&mut from, MAGIC.len(), &mut magic)?;
        if magic != MAGIC {
            return Err(RecordingError::NotSegments);
        }
        Ok(Self {
            from,
            buffer: Vec::new(),
            offset: MAGIC.len() as u64,
            torn: 0,
        })
    }

    /// The next record; `None` at the end.
    ///
    /// # Errors
    ///
    /// If the bytes are no record of this format, or cannot be read.
    pub fn read(&mut self) -> Result<Option<Record<'_>>, RecordingError> {
        self.buffer.clear();
        let head = read_up_to(&mut self.from, 4, &mut self.buffer)?;
        let Some(length) = self.buffer.first_chunk().copied().map(u32::from_le_bytes) else {
            self.torn = head as u64;
            return Ok(None);
        };
        let damaged = |expected| RecordingError::Damaged {
            offset: self.offset,
            expected,
        };
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if !(1..=RECORD_BYTES).contains(&length) {
            return Err(damaged("a record of 1 to 17408 bytes"));
        }
        self.buffer.clear();
        let taken = read_up_to(&mut self.from, length, &mut self.buffer)?;
        if taken < length {
            self.torn = (head + taken) as u64;
            return Ok(None);
        }
        let record =
            decode(&self.buffer).ok_or_else(|| damaged("a record of a known kind and its length"))?;
        self.offset += 4 + length as u64;
        Ok(Some(record))
    }

    /// Bytes of an unfinished record at the end, once that was reached.
    pub fn torn(&self) -> u64 {
        self.torn
    }
}

/// Reads until `wanted` bytes were taken or the file ends. A compressed file that was cut off ends where its last
/// whole block does.
fn read_up_to(from: &mut impl BufRead, wanted: usize, into: &mut Vec<u8>) -> io::Result<usize> {
    let mut taken = 0;
    while taken < wanted {
        let piece = match from.fill_buf() {
            Ok(piece) => piece,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(error),
        };
        let length = piece.len().min(wanted - taken);
        if length == 0 {
            break;
        }
        into.extend_from_slice(piece.get(..length).unwrap_or_default());
        from.consume(length);
        taken += length;
    }
    Ok(taken)
}

fn encode(record: &Record<'_>, into: &mut Vec<u8>) {
    let mut put = |bytes: &[u8]| into.extend_from_slice(bytes);
    match record {
        Record::Clock { utc_offset_ns, boot } => {
            put(&[CLOCK]);
            put(&utc_offset_ns.to_le_bytes());
            put(boot.as_bytes().get(..BOOT_BYTES).unwrap_or(boot.as_bytes()));
        }
        Record::Socket(fact) => {
            put(&[SOCKET]);
            put(&fact.at.to_le_bytes());
            put(&fact.cookie.to_le_bytes());
            put(&fact.tgid.to_le_bytes());
            put(&fact.server.to_le_bytes());
            put(&fact.netns.to_le_bytes());
            put(&fact.sequence.to_le_bytes());
            put(&fact.family.to_le_bytes());
            put(&fact.local_port.to_le_bytes());
            put(&fact.remote_port.to_le_bytes());
            put(&[fact.role, fact.flags]);
            put(&fact.local);
            put(&fact.remote);
            put(&fact.peer.tgid.to_le_bytes());
            put(&fact.peer.uid.to_le_bytes());
            put(&fact.peer.start.to_le_bytes());
            put(&fact.peer.cgroup_id.to_le_bytes());
            put(&fact.peer.comm);
            let path = usize::try_from(fact.path_length).unwrap_or(0);
            put(fact.path.get(..path).unwrap_or_default());
        }
        Record::Segment(header, bytes) => {
            put(&[SEGMENT]);
            put(&header.at.to_le_bytes());
            put(&header.cookie.to_le_bytes());
            put(&header.offset.to_le_bytes());
            put(&header.tgid.to_le_bytes());
            put(&header.missing.to_le_bytes());
            put(&[whence(header), header.reason]);
            put(bytes);
        }
        Record::Close(fact) => {
            put(&[CLOSE]);
            put(&fact.at.to_le_bytes());
            put(&fact.cookie.to_le_bytes());
            put(&fact.received.to_le_bytes());
            put(&fact.sent.to_le_bytes());
            put(&fact.plain_received.to_le_bytes());
            put(&fact.plain_sent.to_le_bytes());
            put(&[fact.channel, fact.flags]);
        }
        Record::Exit { tgid, at } => {
            put(&[EXIT]);
            put(&at.to_le_bytes());
            put(&tgid.to_le_bytes());
        }
    }
}

/// Direction in bit 0, channel in bits 1 to 3, flags above.
fn whence(header: &SegmentHeader) -> u8 {
    header.direction & 1 | (header.channel & 7) << 1 | header.flags << 4
}

fn parts(whence: u8) -> (u8, u8, u8) {
    (whence & 1, whence >> 1 & 7, whence >> 4)
}

/// Longest name of a boot: a UUID has 36 characters.
const BOOT_BYTES: usize = 64;

fn decode(bytes: &[u8]) -> Option<Record<'_>> {
    let mut fields = Fields(bytes);
    let [kind] = fields.take()?;
    let record = match kind {
        CLOCK => Record::Clock {
            utc_offset_ns: i64::from_le_bytes(fields.take()?),
            boot: std::str::from_utf8(fields.rest(BOOT_BYTES)?).ok()?,
        },
        SOCKET => Record::Socket(socket(&mut fields)?),
        SEGMENT => {
            let mut header = SegmentHeader {
                at: fields.u64()?,
                cookie: fields.u64()?,
                offset: fields.u64()?,
                tgid: fields.u32()?,
                length: 0,
                missing: fields.u32()?,
                direction: 0,
                reason: 0,
                channel: 0,
                flags: 0,
            };
            (header.direction, header.channel, header.flags) = parts(fields.u8()?);
            header.reason = fields.u8()?;
            let payload = fields.rest(CHUNK_MAX)?;
            let length = u32::try_from(payload.len()).ok()?;
            Record::Segment(SegmentHeader { length, ..header }, payload)
        }
        CLOSE => Record::Close(CloseFact {
            kind: FactKind::Close as u32,
            reserved: 0,
            at: fields.u64()?,
            cookie: fields.u64()?,
            received: fields.u64()?,
            sent: fields.u64()?,
            // Absent where there was no plaintext but the socket's.
            plain_received: fields.u64().unwrap_or(0),
            plain_sent: fields.u64().unwrap_or(0),
            channel: fields.u8().unwrap_or(0),
            flags: fields.u8().unwrap_or(0),
        }),
        EXIT => Record::Exit {
            at: fields.u64()?,
            tgid: fields.u32()?,
        },
        _ => return None,
    };
    fields.0.is_empty().then_some(record)
}

fn socket(fields: &mut Fields<'_>) -> Option<SocketFact> {
    let mut fact = SocketFact {
        kind: FactKind::Socket as u32,
        at: fields.u64()?,
        cookie: fields.u64()?,
        tgid: fields.u32()?,
        server: fields.u32()?,
        netns: fields.u32()?,
        sequence: fields.u32()?,
        family: fields.u16()?,
        local_port: fields.u16()?,
        remote_port: fields.u16()?,
        role: fields.u8()?,
        flags: fields.u8()?,
        local: fields.take()?,
        remote: fields.take()?,
        peer: PeerProcess {
            tgid: fields.u32()?,
            uid: fields.u32()?,
            start: fields.u64()?,
            cgroup_id: fields.u64()?,
            comm: fields.take()?,
            changed: 0,
            login_uid: u32::MAX,
        },
        answer: 0,
        client_inode: 0,
        path_length: 0,
        path: [0; UNIX_PATH_MAX],
    };
    let path = fields.rest(UNIX_PATH_MAX)?;
    fact.path_length = u32::try_from(path.len()).ok()?;
    fact.path.get_mut(..path.len())?.copy_from_slice(path);
    Some(fact)
}

/// The fields of a record, front to back.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (front, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*front)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take().map(u8::from_le_bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    /// All that is left, if it is not more than `most`.
    fn rest(&mut self, most: usize) -> Option<&'a [u8]> {
        (self.0.len() <= most).then(|| std::mem::take(&mut self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(payload: &[u8]) -> Vec<Record<'_>> {
        let mut fact = SocketFact {
            kind: FactKind::Socket as u32,
            tgid: 1,
            at: 2,
            cookie: 3,
            server: 4,
            netns: 5,
            family: 6,
            local_port: 7,
            remote_port: 8,
            role: 9,
            flags: 10,
            local: [11; 16],
            remote: [12; 16],
            peer: PeerProcess {
                tgid: 13,
                uid: 14,
                start: 15,
                cgroup_id: 16,
                comm: [17; 16],
                changed: 0,
                login_uid: u32::MAX,
            },
            sequence: 18,
            answer: 0,
            client_inode: 0,
            path_length: 5,
            path: [0; UNIX_PATH_MAX],
        };
        fact.path[..5].copy_from_slice(b"/a/b\0");
        let header = SegmentHeader {
            at: 1,
            cookie: 2,
            offset: 3,
            tgid: 4,
            length: u32::try_from(payload.len()).expect("short"),
            missing: 6,
            direction: 1,
            reason: 2,
            channel: 2,
            flags: 5,
        };
        let close = CloseFact {
            kind: FactKind::Close as u32,
            channel: 1,
            flags: 2,
            reserved: 0,
            at: 1,
            cookie: 2,
            received: 3,
            sent: 4,
            plain_received: 5,
            plain_sent: 6,
        };
        vec![
            Record::Clock {
                utc_offset_ns: -7,
                boot: "0a1b2c3d",
            },
            Record::Socket(fact),
            Record::Segment(header, payload),
            Record::Segment(SegmentHeader { length: 0, ..header }, b""),
            Record::Close(close),
            Record::Exit { tgid: 5, at: 6 },
        ]
    }

    fn written(records: &[Record<'_>]) -> Vec<u8> {
        let mut writer = Writer::new(Vec::new()).expect("memory");
        for record in records {
            writer.write(record).expect("memory");
        }
        let length = writer.written();
        let bytes = writer.finish().expect("memory");
        assert_eq!(bytes.len() as u64, length);
        bytes
    }

    #[test]
    fn what_is_written_is_read_and_any_cut_is_a_torn_tail() {
        let records = records(b"some bytes");
        let expected: Vec<String> = records.iter().map(|record| format!("{record:?}")).collect();
        let bytes = written(&records);
        for cut in MAGIC.len()..=bytes.len() {
            let mut reader = Reader::new(&bytes[..cut]).expect("the magic line is whole");
            let mut read = Vec::new();
            while let Some(record) = reader.read().expect("a torn tail is no error") {
                read.push(format!("{record:?}"));
            }
            assert_eq!(read, expected[..read.len()]);
            assert_eq!(reader.offset + reader.torn(), cut as u64);
            assert!(cut < bytes.len() || (read.len() == expected.len() && reader.torn() == 0));
        }
    }

    #[test]
    fn changed_bytes_are_an_error_or_another_record_and_never_a_panic() {
        let bytes = written(&records(b"some bytes"));
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0x55;
            let Ok(mut reader) = Reader::new(changed.as_slice()) else {
                assert!(at < MAGIC.len());
                continue;
            };
            while let Ok(Some(_)) = reader.read() {}
        }
        let mut long = MAGIC.to_vec();
        long.extend_from_slice(&u32::MAX.to_le_bytes());
        let mut reader = Reader::new(long.as_slice()).expect("magic");
        assert!(matches!(
            reader.read(),
            Err(RecordingError::Damaged { offset: 21, .. })
        ));
    }

    #[test]
    fn a_long_segment_becomes_several_and_only_the_last_tells_what_is_missing() {
        let payload = vec![7; 2 * CHUNK_MAX + 1];
        let bytes = written(&records(&payload)[2..3]);
        let mut reader = Reader::new(bytes.as_slice()).expect("magic");
        let mut seen = Vec::new();
        while let Some(record) = reader.read().expect("whole") {
            if let Record::Segment(header, bytes) = record {
                assert_eq!(header.length as usize, bytes.len());
                seen.push((header.offset, bytes.len(), header.missing, header.reason));
            }
        }
        let chunk = CHUNK_MAX as u64;
        let expected = [
            (3, CHUNK_MAX, 0, 0),
            (3 + chunk, CHUNK_MAX, 0, 0),
            (3 + 2 * chunk, 1, 6, 2),
        ];
        assert_eq!(seen, expected);
    }
}
