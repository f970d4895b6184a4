//! Texts that many pods share, each kept once.

use std::{collections::HashSet, sync::Arc};

/// The texts that are known.
#[derive(Debug, Default)]
pub(crate) struct Texts(HashSet<Arc<str>>);

impl Texts {
    pub(crate) fn get(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.0.get(text) {
            return Arc::clone(known);
        }
        let text: Arc<str> = text.into();
        self.0.insert(Arc::clone(&text));
        text
    }

    /// Forgets those that nobody else holds.
    pub(crate) fn sweep(&mut self) {
        self.0.retain(|text| Arc::strong_count(text) > 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_there_once_and_for_as_long_as_it_is_used() {
        let mut texts = Texts::default();
        let (one, other) = (texts.get("shop"), texts.get("shop"));
        assert!(Arc::ptr_eq(&one, &other));
        texts.get("unused");
        texts.sweep();
        assert_eq!(texts.0.len(), 1);
        drop((one, other));
        texts.sweep();
        assert!(texts.0.is_empty());
    }
}
