//! `every(texts)`: an aggregate function that SQL sees, each text of a group once, in their order.
//!
//! Owns that function, of a column of texts or of lists of them. DataFusion's own (`array_agg(DISTINCT …)`) keeps a set of values
//! that own their text for each group, which is slow for each row; here a text is kept once, and groups know it by its number. A NULL
//! among texts is one of them, the first; a list that is NULL has none, and a group without any is NULL.

use std::{fmt::Debug, mem::size_of, sync::Arc};

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, BooleanArray, ListArray, ListBuilder, StringBuilder},
        datatypes::{DataType, Field, FieldRef},
    },
    common::{HashMap, HashSet, Result, ScalarValue, exec_err},
    logical_expr::{
        Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature, TypeSignature,
        Volatility,
        function::{AccumulatorArgs, StateFieldsArgs},
    },
};

/// The function.
pub(super) fn every() -> AggregateUDF {
    let of = [DataType::Utf8, texts()].map(|of| TypeSignature::Exact(vec![of]));
    AggregateUDF::from(Every {
        signature: Signature::one_of(of.to_vec(), Volatility::Immutable),
    })
}

fn texts() -> DataType {
    DataType::new_list(DataType::Utf8, true)
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Every {
    signature: Signature,
}

impl AggregateUDFImpl for Every {
    fn name(&self) -> &'static str {
        "every"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(texts())
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        Ok(vec![Arc::new(Field::new(args.name, texts(), true))])
    }

    fn accumulator(&self, _: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(One(Sets::default())))
    }

    fn groups_accumulator_supported(&self, _: AccumulatorArgs<'_>) -> bool {
        true
    }

    fn create_groups_accumulator(&self, _: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(Sets::default()))
    }
}

/// The texts of groups.
#[derive(Debug, Default)]
struct Sets {
    /// Each text of any group once; its place is its number.
    texts: Vec<Arc<str>>,
    numbers: HashMap<Arc<str>, u32>,
    bytes: usize,
    /// By group, which it has.
    groups: Vec<HashSet<Option<u32>>>,
}

impl Sets {
    /// Takes in a value for each of these groups.
    fn take(
        &mut self,
        values: &ArrayRef,
        groups: impl Iterator<Item = usize>,
        filter: Option<&BooleanArray>,
        count: usize,
    ) {
        if self.groups.len() < count {
            self.groups.resize_with(count, HashSet::default);
        }
        let is_wanted = |row: usize| filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row));
        let rows = groups.enumerate().filter(|(row, _)| is_wanted(*row));
        if let Some(values) = values.as_string_opt::<i32>() {
            for (row, group) in rows {
                self.add(group, values.is_valid(row).then(|| values.value(row)));
            }
            return;
        }
        let lists = values.as_list::<i32>();
        let texts = lists.values().as_string::<i32>();
        for (row, group) in rows.filter(|(row, _)| lists.is_valid(*row)) {
            let (start, length) = (lists.value_offsets().get(row), lists.value_length(row));
            let start = start.copied().unwrap_or_default();
            for place in (start..start + length).map(|place| place as usize) {
                self.add(group, texts.is_valid(place).then(|| texts.value(place)));
            }
        }
    }

    fn add(&mut self, group: usize, text: Option<&str>) {
        let number = text.map(|text| self.number(text));
        if let Some(group) = self.groups.get_mut(group) {
            group.insert(number);
        }
    }

    fn number(&mut self, text: &str) -> u32 {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let (number, text) = (self.texts.len() as u32, Arc::<str>::from(text));
        self.bytes += text.len();
        self.texts.push(Arc::clone(&text));
        self.numbers.insert(text, number);
        number
    }

    /// Each group's texts, in order.
    fn lists(&self, groups: Vec<HashSet<Option<u32>>>) -> ListArray {
        let mut lists = ListBuilder::new(StringBuilder::new());
        let text = |number: Option<u32>| Some(self.texts.get(number? as usize)?.as_ref());
        for group in groups {
            let mut texts: Vec<Option<&str>> = group.into_iter().map(text).collect();
            texts.sort_unstable();
            for text in &texts {
                lists.values().append_option(*text);
            }
            lists.append(!texts.is_empty());
        }
        lists.finish()
    }
}

impl GroupsAccumulator for Sets {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        let [values] = values else {
            return exec_err!("every takes a text, or a list of texts");
        };
        self.take(
            values,
            group_indices.iter().copied(),
            opt_filter,
            total_num_groups,
        );
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let groups = emit_to.take_needed(&mut self.groups);
        Ok(Arc::new(self.lists(groups)))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.evaluate(emit_to)?])
    }

    fn merge_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        total_num_groups: usize,
    ) -> Result<()> {
        self.update_batch(values, group_indices, None, total_num_groups)
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        opt_filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        let [values] = values else {
            return exec_err!("every takes a text, or a list of texts");
        };
        let mut each = Self::default();
        each.take(values, 0..values.len(), opt_filter, values.len());
        Ok(vec![each.evaluate(EmitTo::All)?])
    }

    fn size(&self) -> usize {
        let of_text = 2 * size_of::<Arc<str>>() + 2 * size_of::<usize>() + size_of::<u32>();
        let in_groups: usize = self.groups.iter().map(HashSet::capacity).sum();
        self.bytes
            + self.texts.capacity() * of_text
            + self.groups.capacity() * size_of::<HashSet<Option<u32>>>()
            + in_groups * (size_of::<Option<u32>>() + 1)
    }
}

/// Where there is but one group.
#[derive(Debug)]
struct One(Sets);

impl Accumulator for One {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let [values] = values else {
            return exec_err!("every takes a text, or a list of texts");
        };
        self.0.take(values, std::iter::repeat_n(0, values.len()), None, 1);
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        if self.0.groups.is_empty() {
            self.0.groups.push(HashSet::default());
        }
        let list = self.0.lists(self.0.groups.clone());
        Ok(ScalarValue::List(Arc::new(list)))
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.evaluate()?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.update_batch(states)
    }

    fn size(&self) -> usize {
        GroupsAccumulator::size(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use datafusion::{
        arrow::{array::Int64Array, record_batch::RecordBatch},
        prelude::{SessionConfig, SessionContext},
    };

    use super::*;

    /// Rows of groups with a text and a list of texts each, by a rule that repeats some and leaves out others.
    fn rows() -> RecordBatch {
        let mut lists = ListBuilder::new(StringBuilder::new());
        let (mut groups, mut single) = (Vec::new(), StringBuilder::new());
        for row in 0_i64..5_000 {
            groups.push(row % 7 * (row % 3));
            single.append_option((row % 11 != 0).then(|| format!("t{}", row % 13)));
            for n in 0..row % 4 {
                lists
                    .values()
                    .append_option((row % 17 != 0).then(|| format!("o{}", (row * n) % 29)));
            }
            lists.append(row % 5 != 0);
        }
        let columns: [(&str, ArrayRef); 3] = [
            ("g", Arc::new(Int64Array::from(groups))),
            ("t", Arc::new(single.finish())),
            ("l", Arc::new(lists.finish())),
        ];
        RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true)))
            .expect("rows")
    }

    async fn shown(session: &SessionContext, sql: &str) -> String {
        let rows = session
            .sql(sql)
            .await
            .expect("a plan")
            .collect()
            .await
            .expect("rows");
        datafusion::arrow::util::pretty::pretty_format_batches(&rows)
            .expect("a table")
            .to_string()
    }

    #[tokio::test]
    async fn it_says_what_datafusions_own_does() {
        // In small batches and two parts, so that states are merged, and also where no groups are made first.
        for skipping in ["0.1", "1.1"] {
            let config = SessionConfig::new()
                .with_batch_size(64)
                .with_target_partitions(2)
                .set_str(
                    "datafusion.execution.skip_partial_aggregation_probe_rows_threshold",
                    "100",
                )
                .set_str(
                    "datafusion.execution.skip_partial_aggregation_probe_ratio_threshold",
                    skipping,
                );
            let session = SessionContext::new_with_config(config);
            session.register_udaf(every());
            session.register_batch("r", rows()).expect("a table");
            for (ours, theirs) in [
                (
                    "SELECT g, every(t) AS e FROM r GROUP BY g ORDER BY g",
                    "SELECT g, array_sort(array_agg(DISTINCT t)) AS e FROM r GROUP BY g ORDER BY g",
                ),
                (
                    "SELECT every(t) AS e FROM r",
                    "SELECT array_sort(array_agg(DISTINCT t)) AS e FROM r",
                ),
                (
                    "SELECT g, every(t) FILTER (WHERE t < 't5') AS e FROM r GROUP BY g ORDER BY g",
                    "SELECT g, array_sort(array_agg(DISTINCT t) FILTER (WHERE t < 't5')) AS e FROM r GROUP BY g ORDER BY g",
                ),
                (
                    "SELECT g, every(l) AS e FROM r GROUP BY g ORDER BY g",
                    "SELECT g, array_sort(array_agg(DISTINCT o)) AS e FROM (SELECT g, unnest(l) AS o FROM r) GROUP BY g ORDER BY g",
                ),
            ] {
                assert_eq!(
                    shown(&session, ours).await,
                    shown(&session, theirs).await,
                    "{ours}"
                );
            }
            let none = shown(&session, "SELECT every(t) AS e, every(l) AS f FROM r WHERE g < 0").await;
            assert_eq!(
                none,
                shown(
                    &session,
                    "SELECT CAST(NULL AS VARCHAR) AS e, CAST(NULL AS VARCHAR) AS f"
                )
                .await
            );
        }
    }
}
