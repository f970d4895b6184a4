//! Records of a payload segment: how one batch lies in a file.
//!
//! Owns the framing: length, CRC-32 of the length, CRC-32 of the body (each four bytes, big-endian), body. The length
//! has a checksum of its own so that a record cut short by a crash (whole header, missing body) is told from one
//! whose length was changed. The checksums find accidents; changes on purpose are found by signature and tree.

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom},
    os::unix::fs::MetadataExt,
    path::Path,
};

use evidence::{MAX_HEADER_BYTES, MAX_PAYLOAD_BYTES};
use prost::{
    Message,
    encoding::{decode_key, decode_varint},
};
use proto::v1::SignedBatch;

/// Bytes in front of a body.
pub(crate) const FRAME_BYTES: usize = 12;

/// Longest body: a batch at its caps, with its signature and field tags.
pub(crate) const MAX_BODY_BYTES: usize = MAX_PAYLOAD_BYTES + MAX_HEADER_BYTES + 256;

/// The bytes that record a batch.
pub(crate) fn encode(batch: &SignedBatch) -> Vec<u8> {
    let body = batch.encode_to_vec();
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes();
    let mut record = Vec::with_capacity(FRAME_BYTES + body.len());
    record.extend(length);
    record.extend(crc32fast::hash(&length).to_be_bytes());
    record.extend(crc32fast::hash(&body).to_be_bytes());
    record.extend(body);
    record
}

/// What stands at a place of a segment.
pub(crate) enum Next {
    /// A whole record; the reader stands behind it.
    Record { batch: SignedBatch },
    /// The file ends here.
    End,
    /// The file ends inside a record.
    Torn,
    /// A record that is not as it was written.
    Damaged(String),
}

/// Reads a segment from its start.
pub(crate) struct SegmentReader {
    file: BufReader<File>,
    /// Where the next record begins.
    pub(crate) offset: u64,
}

impl SegmentReader {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            file: BufReader::with_capacity(1 << 18, File::open(path)?),
            offset: 0,
        })
    }

    /// Goes on at a place where a record begins.
    pub(crate) fn go_to(&mut self, offset: u64) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(offset))?;
        self.offset = offset;
        Ok(())
    }

    /// Which file it is, whatever has come to stand under its name.
    pub(crate) fn inode(&self) -> io::Result<u64> {
        Ok(self.file.get_ref().metadata()?.ino())
    }

    /// Steps over the next record, whose body is not looked at; false where none begins.
    pub(crate) fn skip(&mut self) -> io::Result<bool> {
        let mut frame = Vec::with_capacity(FRAME_BYTES);
        (&mut self.file)
            .take(FRAME_BYTES as u64)
            .read_to_end(&mut frame)?;
        let Some((length, check, _)) = split(&frame) else {
            return Ok(false);
        };
        if crc32fast::hash(&length).to_be_bytes() != check {
            return Ok(false);
        }
        let length = u32::from_be_bytes(length);
        self.file.seek_relative(length.into())?;
        self.offset += FRAME_BYTES as u64 + u64::from(length);
        Ok(true)
    }

    /// Reads the next record; `offset` moves only over whole ones.
    pub(crate) fn read(&mut self) -> io::Result<Next> {
        let (length, body_check) = match self.frame()? {
            Ok(frame) => frame,
            Err(next) => return Ok(next),
        };
        let mut body = Vec::with_capacity(length);
        (&mut self.file).take(length as u64).read_to_end(&mut body)?;
        if body.len() < length {
            return Ok(Next::Torn);
        }
        let found = crc32fast::hash(&body);
        if found != body_check {
            return Ok(Next::Damaged(format!(
                "the record's checksum is {found:08x}, expected {body_check:08x}"
            )));
        }
        let body = bytes::Bytes::from(body);
        let Ok(batch) = SignedBatch::decode(body.clone()) else {
            return Ok(Next::Damaged("the record is not a batch".to_owned()));
        };
        if batch.encode_to_vec() != body {
            return Ok(Next::Damaged(
                "the record is not in canonical encoding".to_owned(),
            ));
        }
        self.offset += (FRAME_BYTES + length) as u64;
        Ok(Next::Record { batch })
    }

    /// Reads the header and the signature of the next record, and passes over the rest: nothing of it is checked.
    pub(crate) fn read_head(&mut self) -> io::Result<Next> {
        let (length, _) = match self.frame()? {
            Ok(frame) => frame,
            Err(next) => return Ok(next),
        };
        let mut head = Vec::with_capacity(MAX_HEAD_BYTES.min(length));
        (&mut self.file)
            .take(MAX_HEAD_BYTES.min(length) as u64)
            .read_to_end(&mut head)?;
        let Some(batch) = head_of(&head) else {
            return Ok(Next::Damaged("the record does not begin as a batch".to_owned()));
        };
        // Past the end without an error, if the file is shorter; the next read finds out.
        let rest = i64::try_from(length.saturating_sub(head.len())).unwrap_or(0);
        self.file.seek_relative(rest)?;
        self.offset += (FRAME_BYTES + length) as u64;
        Ok(Next::Record { batch })
    }

    /// The length of the next record's body, and its checksum.
    fn frame(&mut self) -> io::Result<Result<(usize, u32), Next>> {
        let mut frame = Vec::with_capacity(FRAME_BYTES);
        (&mut self.file)
            .take(FRAME_BYTES as u64)
            .read_to_end(&mut frame)?;
        if frame.is_empty() {
            return Ok(Err(Next::End));
        }
        let Some((length, check, body_check)) = split(&frame) else {
            return Ok(Err(Next::Torn));
        };
        let (found, expected) = (crc32fast::hash(&length), u32::from_be_bytes(check));
        if found != expected {
            return Ok(Err(Next::Damaged(format!(
                "the checksum of the record's length is {found:08x}, expected {expected:08x}"
            ))));
        }
        let length = u32::from_be_bytes(length) as usize;
        if length > MAX_BODY_BYTES {
            return Ok(Err(Next::Damaged(format!(
                "the record takes {length} bytes, expected at most {MAX_BODY_BYTES}"
            ))));
        }
        Ok(Ok((length, u32::from_be_bytes(body_check))))
    }
}

/// What the header and the signature of a batch take at most, with their tags.
const MAX_HEAD_BYTES: usize = MAX_HEADER_BYTES + 256;

/// A batch without its payload, from the beginning of an encoded one.
fn head_of(mut bytes: &[u8]) -> Option<SignedBatch> {
    let mut batch = SignedBatch::default();
    while !bytes.is_empty() {
        let (tag, _) = decode_key(&mut bytes).ok()?;
        let length = usize::try_from(decode_varint(&mut bytes).ok()?).ok()?;
        let field = match tag {
            1 => &mut batch.header,
            2 => &mut batch.signature,
            _ => break,
        };
        let (value, rest) = bytes.split_at_checked(length)?;
        *field = bytes::Bytes::copy_from_slice(value);
        bytes = rest;
    }
    Some(batch)
}

type Word = [u8; 4];

fn split(frame: &[u8]) -> Option<(Word, Word, Word)> {
    let (length, rest) = frame.split_first_chunk()?;
    let (check, rest) = rest.split_first_chunk()?;
    Some((*length, *check, rest.try_into().ok()?))
}
