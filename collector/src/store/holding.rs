//! `may_hold(filter, token)`: whether a filter that stands for many tokens may stand for this one.
//!
//! Owns the function that SQL sees. False is sure; true is wrong for fewer than one token in a thousand. Of a filter that this
//! version cannot read it is NULL, and so of what is no token.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, BooleanArray},
        datatypes::DataType,
    },
    common::{Result, exec_err},
    logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf},
};
use subjects::{Filter, Token};

/// The function.
pub(super) fn may_hold() -> ScalarUDF {
    create_udf(
        "may_hold",
        vec![DataType::Binary, DataType::Utf8],
        DataType::Boolean,
        Volatility::Immutable,
        Arc::new(ask_all),
    )
}

/// A token of 32 hexadecimal digits.
pub(super) fn token(digits: &str) -> Option<Token> {
    let mut bytes = [0; 16];
    hex::decode_to_slice(digits, &mut bytes).ok()?;
    Some(Token(bytes))
}

fn ask_all(arguments: &[ColumnarValue]) -> Result<ColumnarValue> {
    let [_, asked] = arguments else {
        return exec_err!("may_hold takes a filter and a token");
    };
    // Mostly one token is looked for in all.
    let one = match asked {
        ColumnarValue::Scalar(asked) => asked.try_as_str().flatten().and_then(token),
        ColumnarValue::Array(_) => None,
    };
    let columns = ColumnarValue::values_to_arrays(arguments)?;
    let [filters, tokens] = columns.as_slice() else {
        return exec_err!("may_hold takes a filter and a token");
    };
    let each = |row: usize, tokens: &ArrayRef| {
        one.or_else(|| {
            let tokens = tokens.as_string::<i32>();
            tokens.is_valid(row).then(|| token(tokens.value(row))).flatten()
        })
    };
    let filters = filters.as_binary::<i32>().iter().enumerate();
    let found = filters.map(|(row, filter)| {
        let filter = Filter::from_bytes(filter?)?;
        Some(filter.contains(each(row, tokens)?))
    });
    Ok(ColumnarValue::Array(Arc::new(found.collect::<BooleanArray>())))
}
