//! What is written is read back by the library's own reader, which knows nothing of how it was made.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{ArrayRef, BinaryArray, Int32Array, RecordBatch, StringArray},
        compute::cast,
        datatypes::{Field, Schema},
    },
    parquet::{
        arrow::{
            ArrowWriter,
            arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection, RowSelector},
        },
        file::{
            metadata::{PageIndexPolicy, ParquetMetaData},
            properties::{EnabledStatistics, WriterProperties},
            reader::{FileReader, SerializedFileReader},
        },
    },
};
use proptest::prelude::*;

use super::*;

/// A file of one column, a row group for each of these.
fn file(groups: &[DictionaryArray<Int32Type>], told: Told) -> Bytes {
    let plain = groups[0].values().data_type().clone();
    let schema = Arc::new(Schema::new(vec![Field::new("it", plain, true)]));
    let writer = ArrowWriter::try_new(Vec::new(), schema, None).unwrap();
    let (mut writer, _) = writer.into_serialized_writer().unwrap();
    let descr = writer.schema_descr().column(0);
    for rows in groups {
        let encoded = encode(rows, &descr, ZstdLevel::try_new(3).unwrap(), told).unwrap();
        let mut group = writer.next_row_group().unwrap();
        group.append_column(&encoded.bytes, encoded.close).unwrap();
        group.close().unwrap();
    }
    Bytes::from(writer.into_inner().unwrap())
}

fn read(file: &Bytes, selection: Option<RowSelection>) -> Vec<Option<Vec<u8>>> {
    let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Required);
    let mut reader = ParquetRecordBatchReaderBuilder::try_new_with_options(file.clone(), options).unwrap();
    if let Some(selection) = selection {
        reader = reader.with_row_selection(selection);
    }
    let batches: Vec<RecordBatch> = reader.build().unwrap().map(Result::unwrap).collect();
    let of = |batch: &RecordBatch| {
        let column = cast(batch.column(0), &DataType::Binary).unwrap();
        let column = column.as_binary::<i32>();
        column
            .iter()
            .map(|value| value.map(<[u8]>::to_vec))
            .collect::<Vec<_>>()
    };
    batches.iter().flat_map(of).collect()
}

fn spelt(rows: &DictionaryArray<Int32Type>) -> Vec<Option<Vec<u8>>> {
    let column = cast(rows, &DataType::Binary).unwrap();
    let column = column.as_binary::<i32>();
    column.iter().map(|value| value.map(<[u8]>::to_vec)).collect()
}

fn metadata(file: &Bytes) -> ParquetMetaData {
    SerializedFileReader::new(file.clone())
        .unwrap()
        .metadata()
        .clone()
}

fn texts(keys: Vec<Option<i32>>, values: &[Option<&str>]) -> DictionaryArray<Int32Type> {
    let values: ArrayRef = Arc::new(values.iter().copied().collect::<StringArray>());
    DictionaryArray::try_new(Int32Array::from(keys), values).unwrap()
}

/// Values, some of them equal or NULL, and rows in runs of such.
fn columns() -> impl Strategy<Value = DictionaryArray<Int32Type>> {
    let value = prop_oneof![
        1 => Just(None),
        4 => (0_u16..40).prop_map(|n| Some(n.to_be_bytes().to_vec())),
        4 => prop::collection::vec(any::<u8>(), 0..70).prop_map(Some),
    ];
    let values = prop_oneof![
        prop::collection::vec(value.clone(), 1..4),
        prop::collection::vec(value, 1..600),
    ];
    let run = (
        any::<prop::sample::Index>(),
        prop::bool::weighted(0.9),
        prop_oneof![Just(1), 1_usize..40],
    );
    (values, prop::collection::vec(run, 0..300)).prop_map(|(values, runs)| {
        let keys = runs.iter().flat_map(|(which, known, length)| {
            let key = known.then(|| which.index(values.len()) as i32);
            std::iter::repeat_n(key, *length)
        });
        let keys: Int32Array = keys.collect();
        let values: ArrayRef = Arc::new(values.iter().map(Option::as_deref).collect::<BinaryArray>());
        DictionaryArray::try_new(keys, values).unwrap()
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read(groups in prop::collection::vec(columns(), 1..3), skipped in 0_usize..500) {
        let file = file(&groups, Told { range: true, filter: true });
        let rows: Vec<_> = groups.iter().flat_map(spelt).collect();
        prop_assert_eq!(read(&file, None), rows.clone());
        let skipped = skipped.min(rows.len());
        let rest = vec![RowSelector::skip(skipped), RowSelector::select(rows.len() - skipped)];
        prop_assert_eq!(read(&file, Some(rest.into())), rows.get(skipped..).unwrap_or_default());
    }
}

#[test]
fn columns_of_one_value_and_of_none_are_columns() {
    for rows in [
        texts(vec![Some(0); 100], &[Some("one")]),
        texts(vec![None; 100], &[Some("unused")]),
        texts(vec![Some(0); 3], &[None]),
        texts(vec![], &[]),
    ] {
        assert_eq!(
            read(&file(std::slice::from_ref(&rows), Told::default()), None),
            spelt(&rows)
        );
    }
}

#[test]
fn equal_values_are_kept_once_and_unused_ones_not_at_all() {
    let wordy = "word ".repeat(2_000);
    let rows = texts(
        vec![Some(0), Some(1), Some(0)],
        &[Some("a"), Some("a"), Some(&wordy)],
    );
    let encoded = file(&[rows], Told::default());
    let page = metadata(&encoded).row_group(0).column(0).uncompressed_size();
    assert!(page < 200, "{page} bytes of pages");
}

#[test]
fn a_range_and_a_filter_are_those_of_the_values() {
    let rows = texts(
        vec![Some(2), Some(0), None, Some(2)],
        &[Some("m"), Some("a"), Some("x")],
    );
    let encoded = file(
        &[rows],
        Told {
            range: true,
            filter: true,
        },
    );
    let found = metadata(&encoded);
    let column = found.row_group(0).column(0);
    let range = column.statistics().unwrap();
    assert_eq!(range.min_bytes_opt(), Some(b"m".as_slice()));
    assert_eq!(range.max_bytes_opt(), Some(b"x".as_slice()));
    assert_eq!(range.null_count_opt(), Some(1));
    let filter = Sbbf::read_from_column_chunk(column, &encoded).unwrap().unwrap();
    assert!(filter.check("m") && filter.check("x"));
    assert!(!filter.check("a"), "a value that no row has");
}

#[test]
fn a_bound_of_any_length_does_not_stand_in_the_footer() {
    let long = "z".repeat(MAX_BOUND_BYTES + 1);
    let rows = texts(vec![Some(0), Some(1)], &[Some("a"), Some(&long)]);
    let found = metadata(&file(
        &[rows],
        Told {
            range: true,
            filter: false,
        },
    ));
    let range = found.row_group(0).column(0).statistics().unwrap();
    assert_eq!(range.min_bytes_opt(), Some(b"a".as_slice()));
    assert_eq!(range.max_bytes_opt(), None);
}

#[test]
fn pages_are_no_larger_than_the_librarys() {
    let keys = (0..20_000).map(|row| Some(row * 7919 % 300)).collect();
    let values: Vec<String> = (0..300).map(|n| format!("session number {n}")).collect();
    let values: Vec<Option<&str>> = values.iter().map(|value| Some(value.as_str())).collect();
    let rows = texts(keys, &values);
    let ours = file(std::slice::from_ref(&rows), Told::default()).len();
    let schema = Arc::new(Schema::new(vec![Field::new("it", DataType::Utf8, true)]));
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3).unwrap()))
        .set_statistics_enabled(EnabledStatistics::None)
        .build();
    let mut writer = ArrowWriter::try_new(Vec::new(), schema.clone(), Some(properties)).unwrap();
    let column = cast(&rows, &DataType::Utf8).unwrap();
    writer
        .write(&RecordBatch::try_new(schema, vec![column]).unwrap())
        .unwrap();
    let theirs = writer.into_inner().unwrap().len();
    assert!(
        ours <= theirs + theirs / 50,
        "{ours} bytes, and {theirs} by the library"
    );
}
