//! A map by name, bounded in number and bytes. The oldest is forgotten first, and that something was
//! forgotten is remembered: a name not found is then no proof of anything.

use std::collections::VecDeque;

use bytes::Bytes;
use hashbrown::HashMap;

/// What an entry keeps alive, in bytes.
pub(crate) trait Weight {
    fn weight(&self) -> usize;
}

pub(crate) struct Names<T> {
    max_names: usize,
    max_bytes: usize,
    /// The unnamed one is replaced all the time: it stays out of the map.
    unnamed: Option<T>,
    /// Boxed, because the map makes room for many at once, and most sessions have few. Whoever finds names that collide makes
    /// the tap look at `max_names` of them each time, of its own session.
    named: HashMap<Bytes, (u64, Box<T>)>,
    /// Ages with their names, oldest first; those whose name has been removed, or given again, since mean nothing.
    ages: VecDeque<(u64, Bytes)>,
    next_age: u64,
    /// Weight of all in `named`.
    bytes: usize,
    forgot: bool,
}

/// A copy. Most names are empty, and take no memory.
pub(crate) fn copied(name: &[u8]) -> Bytes {
    if name.is_empty() {
        return Bytes::new();
    }
    Bytes::copy_from_slice(name)
}

impl<T: Weight> Names<T> {
    pub(crate) fn new(max_names: usize, max_bytes: usize) -> Self {
        Self {
            max_names,
            max_bytes,
            unnamed: None,
            named: HashMap::new(),
            ages: VecDeque::new(),
            next_age: 0,
            bytes: 0,
            forgot: false,
        }
    }

    pub(crate) fn insert(&mut self, name: Bytes, value: T) {
        if name.is_empty() {
            self.unnamed = Some(value);
            return;
        }
        self.remove(&name);
        self.bytes += value.weight();
        self.drop_stale_ages();
        self.ages.push_back((self.next_age, name.clone()));
        self.named.insert(name, (self.next_age, Box::new(value)));
        self.next_age += 1;
        self.forget_surplus();
    }

    /// The name as it is kept, so that a copy of it costs nothing.
    pub(crate) fn shared_name(&self, name: &[u8]) -> Option<Bytes> {
        self.named.get_key_value(name).map(|(name, _)| name.clone())
    }

    pub(crate) fn get(&self, name: &[u8]) -> Option<&T> {
        if name.is_empty() {
            self.unnamed.as_ref()
        } else {
            self.named.get(name).map(|(_, value)| &**value)
        }
    }

    /// Changes an entry, whose weight may change with it.
    pub(crate) fn update(&mut self, name: &[u8], change: impl FnOnce(&mut T)) {
        if name.is_empty() {
            self.unnamed.as_mut().map(change);
        } else if let Some((_, value)) = self.named.get_mut(name) {
            self.bytes = self.bytes.saturating_sub(value.weight());
            change(value);
            self.bytes += value.weight();
            self.forget_surplus();
        }
    }

    pub(crate) fn remove(&mut self, name: &[u8]) {
        if name.is_empty() {
            self.unnamed = None;
        } else if let Some((_, value)) = self.named.remove(name) {
            self.bytes = self.bytes.saturating_sub(value.weight());
            if self.named.is_empty() {
                self.ages.clear();
            }
        }
    }

    pub(crate) fn clear(&mut self) {
        self.unnamed = None;
        if !self.named.is_empty() {
            self.named.clear();
            self.ages.clear();
            self.bytes = 0;
        }
    }

    /// Forgets those that do not fit, and the unnamed one.
    pub(crate) fn retain(&mut self, mut fits: impl FnMut(&T) -> bool) {
        self.unnamed = None;
        let bytes = &mut self.bytes;
        self.named.retain(|_, (_, value)| {
            let stays = fits(value);
            if !stays {
                *bytes = bytes.saturating_sub(value.weight());
            }
            stays
        });
        if self.named.is_empty() {
            self.ages.clear();
        }
    }

    /// Forgets all but the unnamed one, and that any was ever forgotten.
    pub(crate) fn clear_named(&mut self) {
        self.named.clear();
        self.ages.clear();
        self.bytes = 0;
        self.forgot = false;
    }

    /// Whether a name that is not here may have been forgotten.
    pub(crate) fn forgot(&self) -> bool {
        self.forgot
    }

    pub(crate) fn retained_bytes(&self) -> usize {
        let names: usize = self
            .ages
            .iter()
            .map(|(_, name)| name.len() + size_of::<(u64, Bytes)>())
            .sum();
        self.unnamed.as_ref().map_or(0, Weight::weight) + self.bytes + names + self.named.len() * ENTRY_BYTES
    }

    fn forget_surplus(&mut self) {
        while self.named.len() > self.max_names || self.bytes > self.max_bytes {
            let Some((age, oldest)) = self.ages.pop_front() else {
                break;
            };
            if self
                .named
                .get(&oldest)
                .is_some_and(|(current, _)| *current == age)
            {
                self.remove(&oldest);
                self.forgot = true;
            }
        }
    }

    /// Keeps the queue no longer than twice the map, at a cost that is constant for each insertion.
    fn drop_stale_ages(&mut self) {
        if self.ages.len() > 2 * self.named.len() + STALE_AGES {
            let named = &self.named;
            self.ages
                .retain(|(age, name)| named.get(name).is_some_and(|(current, _)| current == age));
        }
    }
}

/// Removed names whose age may stay in the queue beside twice those that are there.
const STALE_AGES: usize = 8;

/// What a map entry costs beside its text, columns and name.
pub(crate) const ENTRY_BYTES: usize = 512;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::{ENTRY_BYTES, Names};
    use crate::prepared::{Portal, Statement, Text};

    fn statement(sql: &'static str) -> Arc<Statement> {
        let text = Text {
            sql: Some(sql.into()),
            ..Text::default()
        };
        Arc::new(Statement {
            text,
            ..Statement::default()
        })
    }

    #[test]
    fn the_oldest_is_forgotten_first_and_that_is_remembered() {
        let mut names = Names::new(2, 100);
        names.insert("a".into(), statement("1"));
        names.insert("b".into(), statement("2"));
        names.insert("a".into(), statement("3"));
        assert!(!names.forgot());
        names.insert("c".into(), statement("4"));
        assert!(names.forgot());
        assert!(names.get(b"b").is_none());
        assert!(names.get(b"a").is_some() && names.get(b"c").is_some());
    }

    #[test]
    fn bytes_are_bounded_and_given_back() {
        let mut names = Names::new(100, 8);
        names.insert("a".into(), statement("12345"));
        names.insert("b".into(), statement("123"));
        assert!(names.get(b"a").is_some());
        names.update(b"b", |value| {
            Arc::make_mut(value).text.sql = Some(Bytes::from_static(b"1234"));
        });
        assert!(names.get(b"a").is_none() && names.get(b"b").is_some());
        names.remove(b"b");
        assert_eq!(names.retained_bytes(), 0);
    }

    #[test]
    fn an_entry_costs_less_than_is_counted_for_it() {
        assert!(size_of::<Portal>() + size_of::<(u64, Bytes)>() * 3 < ENTRY_BYTES);
    }
}
