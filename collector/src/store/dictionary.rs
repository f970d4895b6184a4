//! A column of a row group in which values repeat: each of them once, and for each row its place among them.
//!
//! Owns the two pages that Parquet keeps such a column in. The library's own writer looks up the bytes of each row's value in a
//! table of those seen; what repeats here is up to a kilobyte, and which rows share a value is known before. So bytes
//! are compared once for each value of the chunk, not for each row, and so much is hashed for a filter. Refuses to know
//! what the values mean.
//!
//! Source: the Parquet format, `Encodings.md` (plain, dictionary, and the hybrid of runs and packed bits), data pages of version 1.

use bytes::{BufMut, Bytes};
use datafusion::{
    arrow::{
        array::{Array, AsArray, DictionaryArray},
        datatypes::{DataType, Int32Type},
    },
    common::HashMap,
    parquet::{
        basic::{Compression, Encoding, EncodingMask, PageType, ZstdLevel},
        bloom_filter::Sbbf,
        column::{
            page::{CompressedPage, Page, PageWriteSpec, PageWriter},
            writer::ColumnCloseResult,
        },
        data_type::ByteArray,
        errors::{ParquetError, Result},
        file::{
            metadata::{ColumnChunkMetaData, OffsetIndexBuilder, PageEncodingStats},
            statistics::Statistics,
            writer::{SerializedPageWriter, TrackedWrite},
        },
        schema::types::ColumnDescPtr,
    },
};

/// What a column says of itself beside its pages.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Told {
    /// The least and the greatest value, so that a search by range can leave the row group out.
    pub(super) range: bool,
    /// A Bloom filter of the values, so that a search for one can.
    pub(super) filter: bool,
}

/// A column of a row group as it will lie in the file.
pub(super) struct Encoded {
    pub(super) bytes: Bytes,
    pub(super) close: ColumnCloseResult,
}

/// These rows, as pages.
///
/// # Errors
///
/// When the values are neither text nor bytes, or more than a page can hold.
pub(super) fn encode(
    column: &DictionaryArray<Int32Type>,
    descr: &ColumnDescPtr,
    level: ZstdLevel,
    told: Told,
) -> Result<Encoded> {
    let rows = Rows::of(column)?;
    let mut pages = Pages {
        sink: TrackedWrite::new(Vec::new()),
        compressor: zstd::bulk::Compressor::new(level.compression_level())?,
    };
    let known = rows.values.len();
    let dictionary = pages.write(rows.dictionary()?, |buf| Page::DictionaryPage {
        buf,
        num_values: count(known),
        encoding: Encoding::PLAIN,
        is_sorted: false,
    })?;
    let data = pages.write(rows.data()?, |buf| Page::DataPage {
        buf,
        num_values: count(column.len()),
        encoding: Encoding::RLE_DICTIONARY,
        def_level_encoding: Encoding::RLE,
        rep_level_encoding: Encoding::RLE,
        statistics: None,
    })?;

    let used = [Encoding::PLAIN, Encoding::RLE, Encoding::RLE_DICTIONARY];
    let pages_of = |page_type, encoding| PageEncodingStats {
        page_type,
        encoding,
        count: 1,
    };
    let mut metadata = ColumnChunkMetaData::builder(descr.clone())
        .set_encodings_mask(EncodingMask::new_from_encodings(used.iter()))
        .set_compression(Compression::ZSTD(level))
        .set_num_values(long(column.len())?)
        .set_total_compressed_size(long(dictionary.compressed_size + data.compressed_size)?)
        .set_total_uncompressed_size(long(dictionary.uncompressed_size + data.uncompressed_size)?)
        .set_dictionary_page_offset(Some(dictionary.offset.cast_signed()))
        .set_data_page_offset(data.offset.cast_signed())
        .set_page_encoding_stats(vec![
            pages_of(PageType::DICTIONARY_PAGE, Encoding::PLAIN),
            pages_of(PageType::DATA_PAGE, Encoding::RLE_DICTIONARY),
        ]);
    if told.range {
        metadata = metadata.set_statistics(rows.range());
    }
    let mut index = OffsetIndexBuilder::new();
    index.append_offset_and_size(data.offset.cast_signed(), int(data.compressed_size)?);
    index.append_row_count(long(column.len())?);
    index.append_unencoded_byte_array_data_bytes(None);
    let bytes = Bytes::from(pages.sink.into_inner()?);
    Ok(Encoded {
        close: ColumnCloseResult {
            bytes_written: bytes.len() as u64,
            rows_written: column.len() as u64,
            metadata: metadata.build()?,
            bloom_filter: told.filter.then(|| rows.filter()).transpose()?,
            column_index: None,
            offset_index: Some(index.build()),
        },
        bytes,
    })
}

/// The pages of one column, one behind the other.
struct Pages {
    sink: TrackedWrite<Vec<u8>>,
    compressor: zstd::bulk::Compressor<'static>,
}

impl Pages {
    fn write(&mut self, plain: Vec<u8>, page: impl FnOnce(Bytes) -> Page) -> Result<PageWriteSpec> {
        let compressed = Bytes::from(self.compressor.compress(&plain)?);
        let page = CompressedPage::new(page(compressed), plain.len());
        SerializedPageWriter::new(&mut self.sink).write_page(page)
    }
}

/// Which value each row has.
struct Rows<'a> {
    /// Each distinct value, in the order of its first row.
    values: Vec<&'a [u8]>,
    /// For each row that has a value, its place among them.
    places: Vec<u32>,
    /// For each row, whether it has a value: 1, or 0.
    known: Vec<u32>,
}

impl<'a> Rows<'a> {
    fn of(column: &'a DictionaryArray<Int32Type>) -> Result<Self> {
        let values = bytes_of(column.values().as_ref())?;
        let mut rows = Self {
            values: Vec::new(),
            places: Vec::with_capacity(column.len()),
            known: Vec::with_capacity(column.len()),
        };
        // Equal values may have several keys.
        let mut found = HashMap::<&[u8], u32>::default();
        let mut by_key = vec![None; values.len()];
        for key in column.keys() {
            let key = key.and_then(|key| usize::try_from(key).ok());
            let value = key.and_then(|key| Some((by_key.get_mut(key)?, (*values.get(key)?)?)));
            let place = value.map(|(place, value)| {
                *place.get_or_insert_with(|| {
                    *found.entry(value).or_insert_with(|| {
                        rows.values.push(value);
                        count(rows.values.len() - 1)
                    })
                })
            });
            rows.known.push(place.is_some().into());
            rows.places.extend(place);
        }
        Ok(rows)
    }

    /// Length and bytes of each value.
    fn dictionary(&self) -> Result<Vec<u8>> {
        let mut page = Vec::with_capacity(self.values.iter().map(|value| value.len() + 4).sum());
        for value in &self.values {
            page.put_u32_le(u32::try_from(value.len()).map_err(|_| too_large())?);
            page.extend_from_slice(value);
        }
        Ok(page)
    }

    /// Which rows have a value, and its place.
    fn data(&self) -> Result<Vec<u8>> {
        let mut known = Vec::new();
        hybrid(&self.known, 1, &mut known);
        let mut page = Vec::with_capacity(known.len() + self.places.len() * 2);
        page.put_u32_le(u32::try_from(known.len()).map_err(|_| too_large())?);
        page.append(&mut known);
        let width = bits(self.values.len());
        page.push(width);
        hybrid(&self.places, width, &mut page);
        Ok(page)
    }

    /// The least and the greatest value, where neither would make the footer large.
    fn range(&self) -> Statistics {
        let short = |value: &&[u8]| (value.len() <= MAX_BOUND_BYTES).then(|| ByteArray::from(value.to_vec()));
        let least = self.values.iter().min().and_then(short);
        let greatest = self.values.iter().max().and_then(short);
        let nulls = (self.known.len() - self.places.len()) as u64;
        Statistics::byte_array(
            least,
            greatest,
            Some(self.values.len() as u64),
            Some(nulls),
            false,
        )
    }

    fn filter(&self) -> Result<Sbbf> {
        let mut filter = Sbbf::new_with_ndv_fpp(self.values.len().max(1) as u64, FALSE_POSITIVES)?;
        for value in &self.values {
            filter.insert(*value);
        }
        Ok(filter)
    }
}

/// The bytes of each value; `None` where it is NULL.
fn bytes_of(values: &dyn Array) -> Result<Vec<Option<&[u8]>>> {
    match values.data_type() {
        DataType::Utf8 => {
            let texts = values.as_string::<i32>().iter();
            Ok(texts.map(|text| text.map(str::as_bytes)).collect())
        }
        DataType::Binary => Ok(values.as_binary::<i32>().iter().collect()),
        other => Err(ParquetError::NYI(format!("a dictionary of {other}"))),
    }
}

/// Bits that the places of so many values take.
fn bits(values: usize) -> u8 {
    let last = values.saturating_sub(1);
    (usize::BITS - last.leading_zeros()) as u8
}

/// Values of `width` bits, as runs of equal ones and groups of eight packed.
///
/// A group is followed by other than its end only if it is full, so that a reader knows how many values are in it.
fn hybrid(values: &[u32], width: u8, into: &mut Vec<u8>) {
    let mut packed = 0..0;
    let mut at = 0;
    while at < values.len() {
        let rest = values.get(at..).unwrap_or_default();
        let equal = rest
            .iter()
            .take_while(|value| Some(*value) == rest.first())
            .count();
        // What the group before lacks comes out of the run.
        let lacking = packed.len().next_multiple_of(GROUP) - packed.len();
        if equal < lacking + GROUP {
            at += equal;
            packed.end = at;
            continue;
        }
        packed.end += lacking;
        pack(values.get(packed.clone()).unwrap_or_default(), width, into);
        let run = equal - lacking;
        put_varint((run as u64) << 1, into);
        if let Some(value) = rest.first() {
            let bytes = value.to_le_bytes();
            into.extend_from_slice(bytes.get(..usize::from(width).div_ceil(8)).unwrap_or(&bytes));
        }
        at += equal;
        packed = at..at;
    }
    pack(values.get(packed).unwrap_or_default(), width, into);
}

/// Groups of eight values, the last one filled up with zeros.
fn pack(values: &[u32], width: u8, into: &mut Vec<u8>) {
    if values.is_empty() {
        return;
    }
    let groups = values.len().div_ceil(GROUP);
    put_varint((groups as u64) << 1 | 1, into);
    let end = into.len() + groups * usize::from(width);
    let (mut waiting, mut bits) = (0_u64, 0);
    for value in values {
        waiting |= u64::from(*value) << bits;
        bits += u32::from(width);
        while bits >= 8 {
            into.push(waiting as u8);
            waiting >>= 8;
            bits -= 8;
        }
    }
    if bits > 0 {
        into.push(waiting as u8);
    }
    into.resize(end, 0);
}

fn put_varint(mut value: u64, into: &mut Vec<u8>) {
    while value >= 0x80 {
        into.push(value as u8 | 0x80);
        value >>= 7;
    }
    into.push(value as u8);
}

fn count(values: usize) -> u32 {
    u32::try_from(values).unwrap_or(u32::MAX)
}

fn long(number: usize) -> Result<i64> {
    i64::try_from(number).map_err(|_| too_large())
}

fn int(number: usize) -> Result<i32> {
    i32::try_from(number).map_err(|_| too_large())
}

fn too_large() -> ParquetError {
    ParquetError::General("a column is too large for one page".to_owned())
}

/// Values that are packed together.
const GROUP: usize = 8;

/// Beyond it a bound is left out: the file's footer holds it, and is read before anything else.
const MAX_BOUND_BYTES: usize = 256;

/// Share of the values that are not there of which a filter says that they may be.
const FALSE_POSITIVES: f64 = 0.01;

#[cfg(test)]
mod tests;
