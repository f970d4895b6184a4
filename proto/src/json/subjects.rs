//! Whose records a statement touched: values that are known by their tokens alone.
//!
//! Owns the form of parameters and subjects. Tokens and filters are bytes, and stand as lower-case hexadecimal, the form in
//! which the store is searched. Refuses to know how a token is made.

use super::fields::Fields;
use crate::v1;

/// A bound parameter.
pub(super) fn param(f: &mut Fields<'_>, p: &v1::Param) {
    if p.dropped {
        return f.always("dropped", &true);
    }
    f.number("oid", p.oid.into());
    let binary = p.format == i32::from(v1::Format::Binary);
    f.always("format", if binary { "binary" } else { "text" });
    f.always("null", &p.null);
    if !p.null {
        f.always("bytes", &p.bytes);
    }
    f.optional("value", p.value.as_deref());
    if p.value.is_some() {
        f.always("truncated", &p.truncated);
        f.always("raw", &p.raw);
    }
    f.text("token", &hex::encode(&p.token));
}

/// The values of one identifying column.
pub(super) fn subject(f: &mut Fields<'_>, s: &v1::Subject) {
    f.text("object", &s.object);
    f.text("column", &s.column);
    f.text("family", &s.family);
    f.text("key", &s.key);
    let tokens: Vec<String> = s.tokens.iter().map(hex::encode).collect();
    f.texts("tokens", &tokens);
    f.text("filter", &hex::encode(&s.filter));
    f.number("filter_values", s.filter_values);
    f.always("complete", &s.complete);
    f.texts("sources", &s.sources);
}
