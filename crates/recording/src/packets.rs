//! Packet captures: pcap and pcapng, read as a stream. Owns times and link layers of frames; what is in them is read
//! in `link`.

use std::{
    io::{self, BufRead, Read},
    sync::{Arc, Mutex},
};

use pcap_parser::{
    Block, InterfaceDescriptionBlock, PcapBlockOwned, PcapError, create_reader, traits::PcapReaderIterator,
};

use crate::error::RecordingError;

/// Largest block that is read: tcpdump's largest packet is 256 KiB, and pcapng may hold lists of names.
const BLOCK_BYTES: usize = 16 << 20;

/// Bytes buffered at first.
const BUFFER: usize = 1 << 17;

/// Interfaces of one section: `-i any` has one, a host some dozens.
const INTERFACES: usize = 4096;

/// A frame as it was captured.
pub(crate) struct Frame<'a> {
    /// Nanoseconds since the Unix epoch.
    pub(crate) at: u64,
    /// Number of the link layer.
    pub(crate) link: u16,
    pub(crate) bytes: &'a [u8],
    /// Bytes that were not captured.
    pub(crate) cut: u32,
}

/// How frames of an interface are to be read.
#[derive(Clone, Copy, Debug)]
struct Interface {
    link: u16,
    /// Units of time in a second.
    resolution: u64,
    /// Seconds to add.
    offset: i64,
    most: u32,
}

/// Reads a capture.
pub(crate) struct Capture<'a> {
    reader: Box<dyn PcapReaderIterator + Send + 'a>,
    interfaces: Vec<Interface>,
    /// In which order of bytes a section of pcapng is written; `None` before the first, and in pcap.
    sections: Option<ByteOrder>,
    failed: Arc<Mutex<Option<io::Error>>>,
    capacity: usize,
    frames: u64,
    torn: u64,
}

impl<'a> Capture<'a> {
    pub(crate) fn new(from: impl BufRead + Send + 'a) -> Result<Self, RecordingError> {
        let failed = Arc::new(Mutex::new(None));
        let from = Primed::new(from, Arc::clone(&failed))?;
        let capacity = BUFFER.max(from.front.len() * 2);
        let reader = create_reader(capacity, from).map_err(|error| damaged(0, &error))?;
        Ok(Self {
            reader,
            interfaces: Vec::new(),
            sections: None,
            failed,
            capacity,
            frames: 0,
            torn: 0,
        })
    }

    /// Hands on the next frame; false at the end.
    pub(crate) fn step(&mut self, sink: &mut dyn FnMut(Frame<'_>)) -> Result<bool, RecordingError> {
        loop {
            if self
                .sections
                .is_some_and(|order| order.has_stunted_block(self.reader.data()))
            {
                return Err(RecordingError::DamagedCapture {
                    packet: self.frames,
                    found: "a block that is shorter than its own length fields".to_owned(),
                });
            }
            let (length, is_frame) = match self.reader.next() {
                Ok((length, block)) => {
                    if let PcapBlockOwned::NG(Block::SectionHeader(header)) = &block {
                        self.sections = Some(ByteOrder::of(header.big_endian()));
                    }
                    (
                        length,
                        frame(&block, &mut self.interfaces).map(&mut *sink).is_some(),
                    )
                }
                Err(PcapError::Eof) => return self.ended(),
                Err(PcapError::UnexpectedEof) => {
                    self.torn = self.reader.data().len() as u64;
                    return self.ended();
                }
                Err(PcapError::Incomplete(_)) => {
                    let _ = self.reader.refill();
                    continue;
                }
                Err(PcapError::BufferTooSmall) if self.capacity < BLOCK_BYTES => {
                    self.capacity = (self.capacity * 2).min(BLOCK_BYTES);
                    self.reader.grow(self.capacity);
                    let _ = self.reader.refill();
                    continue;
                }
                Err(error) => return Err(damaged(self.frames, &error)),
            };
            self.reader.consume(length);
            if is_frame {
                self.frames += 1;
                return Ok(true);
            }
        }
    }

    /// Bytes of an unfinished block at the end, once that was reached.
    pub(crate) fn torn(&self) -> u64 {
        self.torn
    }

    fn ended(&self) -> Result<bool, RecordingError> {
        let failed = self.failed.lock().ok().and_then(|mut failed| failed.take());
        failed.map_or(Ok(false), |error| Err(error.into()))
    }
}

fn frame<'a>(block: &'a PcapBlockOwned<'_>, interfaces: &mut Vec<Interface>) -> Option<Frame<'a>> {
    match block {
        PcapBlockOwned::LegacyHeader(header) => {
            let resolution = if header.is_nanosecond_precision() {
                1_000_000_000
            } else {
                1_000_000
            };
            *interfaces = vec![Interface {
                // The upper half has the length of a checksum behind frames.
                link: (header.network.0 & 0xffff) as u16,
                resolution,
                offset: i64::from(header.thiszone),
                most: 0,
            }];
            None
        }
        PcapBlockOwned::Legacy(packet) => {
            let interface = interfaces.first()?;
            let seconds = u64::from(packet.ts_sec)
                .checked_add_signed(interface.offset)
                .unwrap_or(0);
            let fraction = u64::from(packet.ts_usec) * (1_000_000_000 / interface.resolution);
            Some(Frame {
                at: seconds.saturating_mul(1_000_000_000).saturating_add(fraction),
                link: interface.link,
                bytes: packet.data,
                cut: packet.origlen.saturating_sub(packet.caplen),
            })
        }
        PcapBlockOwned::NG(Block::SectionHeader(_)) => {
            interfaces.clear();
            None
        }
        PcapBlockOwned::NG(Block::InterfaceDescription(description)) => {
            if interfaces.len() < INTERFACES {
                interfaces.push(interface(description));
            }
            None
        }
        PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
            let interface = interfaces.get(packet.if_id as usize)?;
            let bytes = packet.data.get(..packet.caplen as usize).unwrap_or(packet.data);
            Some(Frame {
                at: interface.time(u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low)),
                link: interface.link,
                bytes,
                cut: packet.origlen.saturating_sub(packet.caplen),
            })
        }
        PcapBlockOwned::NG(Block::SimplePacket(packet)) => {
            let interface = interfaces.first()?;
            let most = if interface.most == 0 {
                u32::MAX
            } else {
                interface.most
            };
            let captured = packet.origlen.min(most);
            let bytes = packet.data.get(..captured as usize).unwrap_or(packet.data);
            // This kind of block has no time.
            Some(Frame {
                at: 0,
                link: interface.link,
                bytes,
                cut: packet.origlen.saturating_sub(bytes.len() as u32),
            })
        }
        PcapBlockOwned::NG(_) => None,
    }
}

fn interface(description: &InterfaceDescriptionBlock<'_>) -> Interface {
    // draft-ietf-opsawg-pcapng, 4.2: a power of ten, or with the highest bit one of two. What does not fit is taken for
    // the default.
    let exponent = u32::from(description.if_tsresol & 0x7f);
    let base: u64 = if description.if_tsresol & 0x80 == 0 { 10 } else { 2 };
    Interface {
        link: (description.linktype.0 & 0xffff) as u16,
        resolution: base.checked_pow(exponent).unwrap_or(1_000_000),
        offset: description.if_tsoffset,
        most: description.snaplen,
    }
}

impl Interface {
    fn time(&self, units: u64) -> u64 {
        let since = u128::from(units) * 1_000_000_000 / u128::from(self.resolution);
        let time = i128::try_from(since).unwrap_or(0) + i128::from(self.offset) * 1_000_000_000;
        u64::try_from(time).unwrap_or(0)
    }
}

fn damaged<I>(packet: u64, error: &PcapError<I>) -> RecordingError {
    // What a parser quotes of its input is content.
    let found = match error {
        PcapError::Eof | PcapError::UnexpectedEof | PcapError::Incomplete(_) => {
            "it ends within its header".to_owned()
        }
        PcapError::BufferTooSmall => format!("a packet or block of more than {BLOCK_BYTES} bytes"),
        PcapError::NomError(_, kind) | PcapError::OwnedNomError(_, kind) => format!("no block ({kind:?})"),
        _ => "no block".to_owned(),
    };
    RecordingError::DamagedCapture { packet, found }
}

#[derive(Clone, Copy, Debug)]
enum ByteOrder {
    Little,
    Big,
}

impl ByteOrder {
    fn of(is_big: bool) -> Self {
        if is_big { Self::Big } else { Self::Little }
    }

    /// Whether the block at the front says that it is shorter than the fields that every block has. The parser takes
    /// that for granted and panics on some kinds. A section header has its own order, and is checked by the parser.
    fn has_stunted_block(self, data: &[u8]) -> bool {
        let (Some(kind), Some(length)) = (data.first_chunk::<4>(), data.get(4..8)) else {
            return false;
        };
        let length = length.first_chunk().copied().unwrap_or_default();
        let length = match self {
            Self::Little => u32::from_le_bytes(length),
            Self::Big => u32::from_be_bytes(length),
        };
        *kind != [0x0a, 0x0d, 0x0d, 0x0a] && length < BLOCK_FIELDS
    }
}

/// Type, length, and length again (draft-ietf-opsawg-pcapng, 3.1).
const BLOCK_FIELDS: u32 = 12;

/// A reader whose first read gives the whole first block, which the parser asks for; and which remembers why it failed.
struct Primed<R> {
    front: Vec<u8>,
    seen: usize,
    rest: R,
    failed: Arc<Mutex<Option<io::Error>>>,
}

impl<R: BufRead> Primed<R> {
    fn new(mut rest: R, failed: Arc<Mutex<Option<io::Error>>>) -> Result<Self, RecordingError> {
        /// A header of pcap; the fixed fields of a first block of pcapng.
        const FIRST: u64 = 24;
        let mut front = Vec::new();
        rest.by_ref().take(FIRST).read_to_end(&mut front)?;
        let field = |at: usize| {
            front
                .get(at..at + 4)
                .and_then(|field| field.first_chunk().copied())
        };
        if field(0) == Some([0x0a, 0x0d, 0x0d, 0x0a]) {
            let is_little = field(8) == Some([0x4d, 0x3c, 0x2b, 0x1a]);
            let length = field(4).map_or(
                0,
                if is_little {
                    u32::from_le_bytes
                } else {
                    u32::from_be_bytes
                },
            );
            let left = u64::from(length).saturating_sub(FIRST).min(BLOCK_BYTES as u64);
            rest.by_ref().take(left).read_to_end(&mut front)?;
        }
        Ok(Self {
            front,
            seen: 0,
            rest,
            failed,
        })
    }
}

impl<R: BufRead> Read for Primed<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = self.front.get(self.seen..).unwrap_or_default();
        if left.is_empty() {
            return match self.rest.read(into) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => self.read(into),
                // A compressed file that was cut off.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
                Err(error) => {
                    if let Ok(mut failed) = self.failed.lock() {
                        *failed = Some(error);
                    }
                    Ok(0)
                }
                read => read,
            };
        }
        let length = left.len().min(into.len());
        if let (Some(to), Some(from)) = (into.get_mut(..length), left.get(..length)) {
            to.copy_from_slice(from);
        }
        self.seen += length;
        Ok(length)
    }
}
