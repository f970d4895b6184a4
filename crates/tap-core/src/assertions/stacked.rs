//! One setting as transactions and savepoints change it back: the server's own stack of former values.
//!
//! Owns the rules of `push_old_value` and `AtEOXact_GUC` in the server's utils/misc/guc.c, and nothing of what a value
//! means. Separate so that these rules can be read beside the server's.

/// A value, and those that come back.
#[derive(Clone, Debug)]
pub(super) struct Stacked<T> {
    current: T,
    /// By rising level, at most one for each.
    entries: Vec<Entry<T>>,
}

/// What one level of nesting did. Level 1 is the transaction, each savepoint is one more.
#[derive(Clone, Debug)]
struct Entry<T> {
    level: usize,
    /// The value before it.
    prior: T,
    how: How<T>,
}

#[derive(Clone, Debug)]
enum How<T> {
    Set,
    Local,
    /// A `SET`, then a `SET LOCAL`: at the end of the transaction the former counts.
    SetThenLocal(T),
}

impl<T: Clone> Stacked<T> {
    pub(super) fn new(current: T) -> Self {
        Self {
            current,
            entries: Vec::new(),
        }
    }

    pub(super) fn current(&self) -> &T {
        &self.current
    }

    /// Corrects what is known of the current value; its past stays.
    pub(super) fn correct(&mut self) -> &mut T {
        &mut self.current
    }

    /// `SET`, or `SET LOCAL`, at this level.
    pub(super) fn set(&mut self, level: usize, local: bool, value: T) {
        let prior = std::mem::replace(&mut self.current, value);
        match self.entries.last_mut() {
            Some(entry) if entry.level >= level => match (local, &entry.how) {
                (false, _) => entry.how = How::Set,
                (true, How::Set) => entry.how = How::SetThenLocal(prior),
                (true, _) => {}
            },
            _ => self.entries.push(Entry {
                level,
                prior,
                how: if local { How::Local } else { How::Set },
            }),
        }
    }

    /// The end of this level, and of those within it. Whether that made any difference.
    pub(super) fn end(&mut self, level: usize, commit: bool) -> bool {
        let before = self.entries.len();
        while let Some(mut last) = self.entries.pop_if(|last| last.level >= level) {
            if !commit {
                self.current = last.prior;
                continue;
            }
            if last.level <= 1 {
                match last.how {
                    How::Set => {}
                    How::Local => self.current = last.prior,
                    How::SetThenLocal(masked) => self.current = masked,
                }
                continue;
            }
            match self
                .entries
                .last_mut()
                .filter(|outer| outer.level == last.level - 1)
            {
                None => {
                    last.level -= 1;
                    self.entries.push(last);
                }
                Some(outer) => match (last.how, &outer.how) {
                    (How::Set, _) => outer.how = How::Set,
                    (How::Local, How::Set) => outer.how = How::SetThenLocal(last.prior),
                    (How::Local, _) => {}
                    (masked @ How::SetThenLocal(_), _) => outer.how = masked,
                },
            }
        }
        self.entries.len() != before
    }
}

#[cfg(test)]
mod tests {
    use super::Stacked;

    #[test]
    fn a_transaction_keeps_what_was_set_and_not_what_was_local() {
        let mut value = Stacked::new(0);
        value.set(1, false, 1);
        value.set(1, true, 2);
        value.set(1, true, 3);
        value.end(1, true);
        assert_eq!(*value.current(), 1);
        value.set(1, true, 4);
        value.set(1, false, 5);
        value.end(1, true);
        assert_eq!(*value.current(), 5);
        value.set(1, true, 6);
        value.end(1, true);
        assert_eq!(*value.current(), 5);
        value.set(1, false, 7);
        value.end(1, false);
        assert_eq!(*value.current(), 5);
        assert!(value.entries.is_empty());
    }

    #[test]
    fn savepoints_hand_down_what_they_did() {
        let mut value = Stacked::new(0);
        // SET in a savepoint, released, then rolled back with the transaction; and the same committed.
        for commit in [false, true] {
            value.set(3, false, 1);
            value.end(3, true);
            value.end(2, true);
            assert_eq!(*value.current(), 1);
            value.end(1, commit);
            assert_eq!(*value.current(), i32::from(commit));
        }
        // SET, then SET LOCAL in a savepoint: the former counts in the end.
        value.set(1, false, 2);
        value.set(2, true, 3);
        value.end(2, true);
        assert_eq!(*value.current(), 3);
        value.end(1, true);
        assert_eq!(*value.current(), 2);
        // SET LOCAL, then both in a savepoint.
        value.set(1, true, 4);
        value.set(2, false, 5);
        value.set(2, true, 6);
        value.end(2, true);
        value.end(1, true);
        assert_eq!(*value.current(), 5);
        // Undone to a savepoint.
        value.set(1, false, 7);
        value.set(2, false, 8);
        value.set(3, true, 9);
        value.end(3, false);
        assert_eq!(*value.current(), 8);
        value.end(2, false);
        assert_eq!(*value.current(), 7);
    }
}
