//! The words of a watch on their way to the collector: passed on at once, or late and in another order.
//!
//! Owns the order, pure. Words on one object stay in their order, as they do in every watch; words on different objects may overtake each
//! other.

use std::time::Instant;

/// One line of a watch.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Word {
    /// Of the object that it is on.
    pub(super) uid: String,
    pub(super) line: Vec<u8>,
    pub(super) came: Instant,
    due: Instant,
    /// In the order in which they came.
    pub(super) number: u64,
}

/// Those that wait.
#[derive(Debug, Default)]
pub(super) struct Words {
    waiting: Vec<Word>,
    next: u64,
}

impl Words {
    /// One came that may go on at `due`, and not before an earlier one on the same object.
    pub(super) fn push(&mut self, uid: &str, line: Vec<u8>, came: Instant, due: Instant) {
        let before = self.waiting.iter().filter(|word| word.uid == uid);
        let before = before.map(|word| word.due).max();
        self.waiting.push(Word {
            uid: uid.to_owned(),
            line,
            came,
            due: before.map_or(due, |before| due.max(before)),
            number: self.next,
        });
        self.next += 1;
    }

    /// Those that go on now, in the order in which they do.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Word> {
        let all = std::mem::take(&mut self.waiting);
        let (mut due, waiting): (Vec<Word>, Vec<Word>) = all.into_iter().partition(|word| word.due <= now);
        self.waiting = waiting;
        due.sort_by_key(|word| (word.due, word.number));
        due
    }

    /// All that wait, likewise: nothing may be lost when a watch ends, because what a client has heard it is not told again.
    pub(super) fn all(&mut self) -> Vec<Word> {
        let mut all = std::mem::take(&mut self.waiting);
        all.sort_by_key(|word| (word.due, word.number));
        all
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn one_objects_words_keep_their_order() {
        let now = Instant::now();
        let at = |millis| now + Duration::from_millis(millis);
        let mut words = Words::default();
        words.push("a", b"1".to_vec(), now, at(50));
        words.push("b", b"2".to_vec(), now, at(10));
        words.push("a", b"3".to_vec(), now, now);
        let lines = |words: Vec<Word>| -> Vec<u8> { words.into_iter().flat_map(|word| word.line).collect() };
        assert_eq!(lines(words.due(at(20))), b"2");
        assert_eq!(lines(words.due(at(49))), b"");
        assert_eq!(lines(words.due(at(50))), b"13");
        words.push("a", b"4".to_vec(), now, at(90));
        words.push("b", b"5".to_vec(), now, at(80));
        assert_eq!(lines(words.all()), b"54");
        assert_eq!(lines(words.all()), b"");
    }
}
