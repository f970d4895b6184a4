//! Texts that many processes have in common, each kept once: paths of executables and of cgroups, names of tasks, terminals.
//!
//! Owns the bound. Whoever makes up ever new ones only has them shared less.

use std::{borrow::Borrow, collections::HashSet, hash::Hash, sync::Arc};

use attribution::CgroupPath;

/// Texts of one kind.
#[derive(Debug)]
pub struct Shared<T>(HashSet<T>);

/// A text that is kept once and counts its holders.
pub trait Text: Borrow<str> + Clone + Eq + Hash + for<'a> From<&'a str> {
    /// Whether anybody but one holds it.
    fn is_held(&self) -> bool;
}

impl Text for Arc<str> {
    fn is_held(&self) -> bool {
        Self::strong_count(self) > 1
    }
}

impl Text for CgroupPath {
    fn is_held(&self) -> bool {
        self.holders() > 1
    }
}

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self(HashSet::new())
    }
}

impl<T: Text> Shared<T> {
    /// The one that says this.
    pub fn get(&mut self, text: &str) -> T {
        if let Some(known) = self.0.get(text) {
            return known.clone();
        }
        if self.0.len() >= TEXTS {
            self.0.retain(Text::is_held);
            if self.0.len() > TEXTS / 2 {
                self.0.clear();
            }
        }
        let text = T::from(text);
        self.0.insert(text.clone());
        text
    }
}

/// Kept at a time: a node of the largest size has some ten thousand cgroups, and hundreds of programs.
const TEXTS: usize = 16_384;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_equal_is_one_and_there_is_a_bound() {
        let mut names = Shared::<Arc<str>>::default();
        let first = names.get("a");
        assert!(Arc::ptr_eq(&first, &names.get("a")));
        for n in 0..3 * TEXTS {
            names.get(&n.to_string());
            assert!(names.0.len() <= TEXTS);
        }
        assert!(Arc::ptr_eq(&first, &names.get("a")), "who is held stays");
        let mut paths = Shared::<CgroupPath>::default();
        let held: Vec<CgroupPath> = (0..=TEXTS).map(|n| paths.get(&format!("/{n}"))).collect();
        assert!(paths.0.len() <= TEXTS && held[0] == paths.get("/0"));
    }
}
