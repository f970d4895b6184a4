//! Columns of amended sessions and statements: what stands in place of what was recorded.
//!
//! Owns the way from a row to its amendment and from there to the values that SQL sees. A row's amendment is looked up
//! once; where there are no amendments at all, nothing is. What one kernel saw at both ends is never replaced, but for what its
//! pod is called. Refuses to touch what is stored.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, BooleanArray, Int32Array, StringArray},
        compute::{is_not_null, kernels::zip::zip, nullif, take},
        datatypes::{DataType, Int32Type},
    },
    common::{Result, ScalarValue, exec_err},
    functions::expr_fn::coalesce,
    logical_expr::{ColumnarValue, Expr, Volatility, create_udf},
    prelude::{col, lit},
};
use proto::v1;

use super::{
    amendments::{OBSERVED, View},
    columns::{COLUMNS, Column},
};

/// The columns that an amendment replaces.
const REPLACED: &[&str] = &[
    "principal",
    "principal_kind",
    "confidence",
    "method",
    "reason",
    "pooler",
    "client_session",
    "pid",
    "exe",
    "uid",
    "user",
    "unit",
    "cgroup",
    "command_line",
];

/// Of these, what was recorded stays where an amendment does not say: a client's own host knows nothing of the pooler behind it.
const KEPT: &[&str] = &["pooler", "client_session"];

/// What the client said of who is behind it.
const END_USER: &str = "end_user";

/// The level of what two observations say together.
const JOINED: &str = "joined";

/// The column that names the amendment.
const AMENDED_BY: &str = "amended_by";

/// The columns of one question.
pub(super) struct Amended {
    view: Arc<View>,
    /// The row's amendment; `None` where there are none at all.
    place: Option<Expr>,
}

impl Amended {
    pub(super) fn new(view: View) -> Self {
        let view = Arc::new(view);
        let place = (!view.is_empty()).then(|| {
            let view = Arc::clone(&view);
            let find = move |arguments: &[ColumnarValue]| find(&view, arguments);
            let text = DataType::Utf8;
            let function = create_udf(
                "amendment",
                vec![text.clone(), text.clone(), text.clone(), text, DataType::Int64],
                DataType::Int32,
                Volatility::Immutable,
                Arc::new(find),
            );
            // A pooled statement has the name of its client's session.
            let session = coalesce(vec![col("client_session"), col("session_id")]);
            let row = [col("confidence"), col("method"), col("seq")];
            function.call([col("agent"), session].into_iter().chain(row).collect())
        });
        Self { view, place }
    }

    /// Who the client said is behind it, but where a pooler passed the statement on: what its host did not see set may be
    /// another client's word.
    fn end_user(&self, place: &Expr) -> Expr {
        let view = Arc::clone(&self.view);
        let withhold = move |arguments: &[ColumnarValue]| withhold(&view, arguments);
        let function = create_udf(
            "own_end_user",
            vec![DataType::Int32, DataType::Utf8],
            DataType::Utf8,
            Volatility::Immutable,
            Arc::new(withhold),
        );
        function.call(vec![place.clone(), col(END_USER)]).alias(END_USER)
    }

    /// The column as answers show it.
    pub(super) fn column(&self, name: &'static str) -> Expr {
        if let Some(place) = self.place.as_ref().filter(|_| name == END_USER) {
            return self.end_user(place);
        }
        let at = COLUMNS.iter().position(|(column, _)| *column == name);
        let (Some(place), Some(n)) = (&self.place, at.filter(|_| REPLACED.contains(&name))) else {
            return col(name);
        };
        let Some((_, column)) = COLUMNS.get(n) else {
            return col(name);
        };
        let view = Arc::clone(&self.view);
        let replace = move |arguments: &[ColumnarValue]| replace(&view, n, arguments);
        let function = create_udf(
            &format!("amended_{name}"),
            vec![DataType::Int32, column.data_type()],
            column.data_type(),
            Volatility::Immutable,
            Arc::new(replace),
        );
        let replaced = function.call(vec![place.clone(), col(name)]);
        if KEPT.contains(&name) {
            return coalesce(vec![replaced, col(name)]).alias(name);
        }
        replaced.alias(name)
    }

    /// Id of the event that amends a row's session.
    pub(super) fn amended_by(&self) -> Expr {
        let Some(place) = &self.place else {
            return lit(ScalarValue::Utf8(None)).alias(AMENDED_BY);
        };
        let view = Arc::clone(&self.view);
        let name = move |arguments: &[ColumnarValue]| event_ids(&view, arguments);
        let function = create_udf(
            AMENDED_BY,
            vec![DataType::Int32],
            DataType::Utf8,
            Volatility::Immutable,
            Arc::new(name),
        );
        function.call(vec![place.clone()]).alias(AMENDED_BY)
    }
}

fn find(view: &View, arguments: &[ColumnarValue]) -> Result<ColumnarValue> {
    let arguments = ColumnarValue::values_to_arrays(arguments)?;
    let [agents, sessions, confidences, methods, seqs] = arguments.as_slice() else {
        return exec_err!("amendment takes an agent, a session, a confidence, a method and a number");
    };
    let found = view.find_all(
        agents.as_string(),
        sessions.as_string(),
        confidences.as_string(),
        methods.as_string(),
        seqs.as_primitive(),
    );
    Ok(ColumnarValue::Array(Arc::new(found)))
}

/// Column `n` of the rows' amendments, and what was recorded where they have none.
fn replace(view: &View, n: usize, arguments: &[ColumnarValue]) -> Result<ColumnarValue> {
    let arguments = ColumnarValue::values_to_arrays(arguments)?;
    let ([places, recorded], Some((name, Column::Party(get)))) = (arguments.as_slice(), COLUMNS.get(n))
    else {
        return exec_err!("an amended column takes an amendment and what was recorded");
    };
    if places.null_count() == places.len() {
        return Ok(ColumnarValue::Array(Arc::clone(recorded)));
    }
    let (attributions, keys) = if *name == "pid" {
        let (used, keys) = distinct(places.as_primitive());
        (view.shown(&used), keys)
    } else {
        // Many sessions are the same workload's.
        let (used, keys) = distinct(&view.faces(places.as_primitive()));
        (view.of_faces(&used), keys)
    };
    let party = |attribution| v1::Party {
        session: None,
        attribution: Some(attribution),
    };
    let parties: Vec<v1::Party> = attributions.into_iter().map(party).collect();
    let mut amended: ArrayRef = take(&get.values(&parties.iter().collect::<Vec<_>>()), &keys, None)?;
    if *name == "confidence" {
        amended = through(amended.as_string(), recorded.as_string());
    }
    let which: BooleanArray = is_not_null(places)?;
    Ok(ColumnarValue::Array(zip(&which, &amended, recorded)?))
}

/// The levels of amendments: of a statement that a pooler passed on, its client's is not its own.
fn through(amended: &StringArray, recorded: &StringArray) -> ArrayRef {
    let levels = amended.iter().zip(recorded).map(|levels| match levels {
        (Some(OBSERVED), recorded) if recorded != Some(OBSERVED) => Some(JOINED),
        (amended, _) => amended,
    });
    Arc::new(levels.collect::<StringArray>())
}

fn withhold(view: &View, arguments: &[ColumnarValue]) -> Result<ColumnarValue> {
    let arguments = ColumnarValue::values_to_arrays(arguments)?;
    let [places, recorded] = arguments.as_slice() else {
        return exec_err!("own_end_user takes an amendment and what was recorded");
    };
    let withheld = view.are_of_statements(places.as_primitive());
    Ok(ColumnarValue::Array(nullif(recorded, &withheld)?))
}

fn event_ids(view: &View, arguments: &[ColumnarValue]) -> Result<ColumnarValue> {
    let arguments = ColumnarValue::values_to_arrays(arguments)?;
    let [places] = arguments.as_slice() else {
        return exec_err!("amended_by takes an amendment");
    };
    let (used, keys) = distinct(places.as_primitive());
    let ids: StringArray = used.iter().map(|place| view.event_id(*place)).collect();
    Ok(ColumnarValue::Array(take(&ids, &keys, None)?))
}

/// The places or faces that rows name, each once, and for each row which of them.
fn distinct(places: &Int32Array) -> (Vec<u32>, Int32Array) {
    let mut known = datafusion::common::HashMap::<i32, i32>::default();
    let mut used = Vec::new();
    let keys = places.iter().map(|place| {
        let place = place?;
        Some(*known.entry(place).or_insert_with(|| {
            used.push(place.cast_unsigned());
            (used.len() - 1) as i32
        }))
    });
    let keys = keys.collect::<datafusion::arrow::array::PrimitiveArray<Int32Type>>();
    (used, keys)
}
