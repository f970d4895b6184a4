//! Whose records a statement touched, as tokens: which columns identify somebody, how one value is brought into one form
//! whatever way it was sent, and what stands for it in the record.
//!
//! Owns the forms of the classification file, of the key file and of a token, and of the filter that stands for many
//! tokens. Refuses files, clocks and randomness: texts and key bytes come in as values. Apart from the pipeline, because
//! whoever searches has to make the same tokens again.
//!
//! ```text
//! classification: public.customers.id is a bigint and names a customer
//! value:          '42' | int4 00 00 00 2a | " 042 "  >  canonical  >  integer, 42  >  key  >  16 bytes
//! ```

mod array;
mod canonical;
mod classification;
mod family;
mod filter;
mod key;
mod tokens;

pub use array::elements;
pub use canonical::{canonical, canonical_text};
pub use classification::{Classification, ClassificationError, Mode, Rule, SubjectColumn, in_one_line};
pub use family::{Family, type_of_name};
pub use filter::Filter;
pub use key::{Key, KeyError, Keys, Token};
pub use tokens::{FILTER_VALUES, LISTED_TOKENS, Tokens, Told};
