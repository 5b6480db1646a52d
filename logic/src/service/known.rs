//! A small memory of things that never change once they exist.
//!
//! Two generations: when the young one is full it becomes the old one and the old one is
//! forgotten; what is still asked for moves back to the young one. So it holds at most twice
//! `generation_max` entries, and never needs a clock or a list of uses.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard};

pub(super) struct Known<K, V> {
    generations: Mutex<Generations<K, V>>,
    generation_max: usize,
}

struct Generations<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
}

impl<K: Eq + Hash, V: Clone> Known<K, V> {
    pub(super) fn new(generation_max: usize) -> Self {
        let generations = Generations { young: HashMap::new(), old: HashMap::new() };
        Self { generations: Mutex::new(generations), generation_max }
    }

    pub(super) fn find<Q>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let mut generations = self.lock();
        if let Some(value) = generations.young.get(key) {
            return Some(value.clone());
        }
        let (key, value) = generations.old.remove_entry(key)?;
        self.insert(&mut generations, key, value.clone());
        Some(value)
    }

    pub(super) fn remember(&self, key: K, value: V) {
        self.insert(&mut self.lock(), key, value);
    }

    fn insert(&self, generations: &mut Generations<K, V>, key: K, value: V) {
        if generations.young.len() >= self.generation_max && !generations.young.contains_key(&key) {
            generations.old = std::mem::take(&mut generations.young);
        }
        generations.young.insert(key, value);
    }

    fn lock(&self) -> MutexGuard<'_, Generations<K, V>> {
        // Nothing panics while it is held, and a half-made entry cannot exist.
        self.generations.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_never_holds_more_than_two_generations() {
        let known = Known::new(8);
        for key in 0..1000u32 {
            known.remember(key, key);
            let generations = known.lock();
            assert!(generations.young.len() <= 8 && generations.old.len() <= 8);
        }
        assert_eq!(known.find(&999), Some(999));
        assert_eq!(known.find(&0), None);
    }

    #[test]
    fn what_is_asked_for_stays() {
        let known = Known::new(4);
        known.remember("hot".to_owned(), 1);
        for round in 0..100 {
            known.remember(format!("cold-{round}"), 2);
            assert_eq!(known.find("hot"), Some(1), "round {round}");
        }
    }

    #[test]
    fn a_later_value_replaces_an_earlier_one() {
        let known = Known::new(1);
        known.remember(1, "a");
        known.remember(2, "b");
        known.remember(1, "c");
        assert_eq!(known.find(&1), Some("c"));
    }
}
