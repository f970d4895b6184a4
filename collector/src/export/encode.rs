//! Rows to the bytes of a format, batch by batch.
//!
//! Owns what each format keeps of an event. Refuses to hold more than a batch, or of Parquet a row group.

use anyhow::Context as _;
use bytes::Bytes;
use datafusion::{
    arrow::{
        array::{Array, AsArray, RecordBatch},
        datatypes::SchemaRef,
    },
    parquet::{
        arrow::ArrowWriter,
        basic::{Compression, ZstdLevel},
        file::properties::WriterProperties,
    },
};

use super::{Format, ocsf};
use crate::{
    query::{plain, write_csv},
    store::{Shown, page},
};

/// An export in the making.
pub(super) enum Encoder {
    /// One line an event, of its JSON form or made of it.
    Lines {
        shown: Shown,
        is_ocsf: bool,
    },
    /// With whether the header was written.
    Csv {
        shown: Shown,
        header: Option<Bytes>,
    },
    Parquet(Box<ArrowWriter<Vec<u8>>>),
}

impl Encoder {
    pub(super) fn new(format: Format, schema: SchemaRef, shown: Shown) -> anyhow::Result<Self> {
        Ok(match format {
            Format::Jsonl | Format::Ocsf => Self::Lines {
                shown,
                is_ocsf: format == Format::Ocsf,
            },
            Format::Csv => {
                let mut header = Vec::new();
                write_csv(
                    &mut header,
                    schema.fields().iter().map(|field| field.name().clone()),
                )?;
                Self::Csv {
                    shown,
                    header: Some(header.into()),
                }
            }
            Format::Parquet => {
                let properties = WriterProperties::builder()
                    .set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?))
                    .build();
                Self::Parquet(Box::new(ArrowWriter::try_new(
                    Vec::new(),
                    schema,
                    Some(properties),
                )?))
            }
        })
    }

    /// What a batch adds; nothing yet where it waits for others.
    pub(super) fn add(&mut self, batch: &RecordBatch) -> anyhow::Result<Bytes> {
        let mut out = Vec::new();
        match self {
            Self::Lines { shown, is_ocsf } => {
                let names = batch.columns().first().context("a batch without a column")?;
                let names = names.as_fixed_size_binary();
                // By entry of the log, so that each is read once.
                let mut order: Vec<&[u8]> = (0..names.len())
                    .filter(|n| names.is_valid(*n))
                    .map(|n| names.value(n))
                    .collect();
                order.sort_unstable();
                for name in order {
                    let event = shown.json(name)?.context("the evidence log is not at hand")?;
                    if *is_ocsf {
                        serde_json::to_writer(&mut out, &ocsf::of(serde_json::from_str(&event)?))?;
                    } else {
                        out.extend_from_slice(event.as_bytes());
                    }
                    out.push(b'\n');
                }
            }
            Self::Csv { shown, header } => {
                out.extend(header.take().unwrap_or_default());
                for row in 0..batch.num_rows() {
                    let values = page::values(batch, row, shown)?;
                    write_csv(&mut out, values.iter().map(plain))?;
                }
            }
            Self::Parquet(writer) => {
                writer.write(batch)?;
                if writer.in_progress_size() >= ROW_GROUP_BYTES {
                    writer.flush()?;
                }
                out = std::mem::take(writer.inner_mut());
            }
        }
        Ok(out.into())
    }

    /// What stands behind all batches.
    pub(super) fn end(self) -> anyhow::Result<Bytes> {
        Ok(match self {
            Self::Lines { .. } => Bytes::new(),
            // Without rows, there is still a header.
            Self::Csv { header, .. } => header.unwrap_or_default(),
            Self::Parquet(writer) => writer.into_inner()?.into(),
        })
    }
}

/// What a row group may take while it is made: the memory of an export.
const ROW_GROUP_BYTES: usize = 32 << 20;

/// As the store's own files.
const ZSTD_LEVEL: i32 = 3;
