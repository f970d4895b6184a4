//! The pipeline from segments to events, sans-IO: stream order and gaps, one protocol session for each connection,
//! and query events with their meaning. Driven as `handle_*` and then [`Tap::poll`]; time comes in as capture time.
//!
//! Owns what an event says about a statement. Refuses sockets, clocks and processes: who is behind a connection
//! is joined elsewhere.

mod assertions;
pub mod catalog;
mod connection;
mod cookies;
mod discarded;
mod doubt;
mod earlier;
mod encoding;
mod encrypted;
mod event;
mod handshake;
pub mod lease;
mod meanings;
mod query;
pub mod relations;
mod stream;
mod subjects;
mod tap;
mod transaction;

pub use self::subjects::{ParamTold, Sensitive, Shown, Sources, Subject, Touched};
pub use assertions::{Asserted, Claim, END_USER, EffectiveRole, Named, Names, SetBy, Source};
pub use cookies::{ByCookie, Mix};
pub use earlier::{AGENT_RESTART, Earlier, MISSED, Places, Title, Told};
pub use event::{
    Body, Endpoint, Event, Final, Gap, Query, SessionFacts, Times, TransactionEnd, Transport, Unreadable,
};
pub use pg_wire::{
    Column, Direction, EncryptionKind, ExchangeKind, Format, Limits, Nanos, Outcome, Param, Phase,
    ServerError, Tag, ValueText, text_of, text_of_start,
};
pub use query::Redaction;
pub use sql_meaning::Statement;
pub use tap::{Settings, Tap, address, session_facts};
