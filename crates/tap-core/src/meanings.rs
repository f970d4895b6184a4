//! What texts mean, with those of prepared statements known by where they lie in memory.
//!
//! Owns that short way. Refuses to read: that is `sql-meaning`'s.

use std::sync::Arc;

use bytes::Bytes;
use sql_meaning::{Interpreter, Statement};

/// Texts known by where they lie. Each is kept in memory for as long as it is known here.
const PLACES: usize = 256;

/// Longer texts are not kept.
const MAX_BYTES: usize = 4 << 10;

/// Reads texts, and remembers what they mean.
pub(crate) struct Meanings {
    interpreter: Interpreter,
    near: Vec<Option<(Bytes, Arc<Statement>)>>,
}

impl Meanings {
    /// Remembers up to `capacity` statements.
    pub(crate) fn new(capacity: usize) -> Self {
        let mut near = Vec::new();
        near.resize_with(PLACES, || None);
        Self {
            interpreter: Interpreter::new(capacity),
            near,
        }
    }

    /// What a text means.
    pub(crate) fn of(&mut self, text: &[u8]) -> Arc<Statement> {
        self.interpreter.interpret(text)
    }

    /// The same of a text that its session keeps for as long as the statement is prepared. Bytes never change, and those
    /// that are kept here cannot be others at the same place.
    pub(crate) fn of_prepared(&mut self, text: &Bytes) -> Arc<Statement> {
        let address = text.as_ptr() as usize;
        let Some(place) = self.near.get_mut((address >> 4 ^ address >> 12) % PLACES) else {
            return self.interpreter.interpret(text);
        };
        if let Some((known, meaning)) = place
            && (known.as_ptr(), known.len()) == (text.as_ptr(), text.len())
        {
            return Arc::clone(meaning);
        }
        let meaning = self.interpreter.interpret(text);
        if text.len() <= MAX_BYTES {
            *place = Some((text.clone(), Arc::clone(&meaning)));
        }
        meaning
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_place_is_the_same_text() {
        let mut meanings = Meanings::new(16);
        let text = Bytes::from_static(b"select a from b; select c");
        let whole = meanings.of_prepared(&text);
        assert!(Arc::ptr_eq(&whole, &meanings.of_prepared(&text.clone())));
        // Begins at the same place.
        let part = text.slice(..15);
        assert_eq!(*meanings.of_prepared(&part), *meanings.of(b"select a from b"));
        for n in 0..10_000_u32 {
            let text = Bytes::from(format!("select {n}, c{n} from t"));
            assert_eq!(*meanings.of_prepared(&text), *meanings.of(&text));
        }
    }
}
