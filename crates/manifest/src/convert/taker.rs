//! An object that is taken apart key by key. What nobody took is left over, and listed.

use serde_json::{Map, Value};

use crate::Problem;
use crate::problem::member;

/// An object, and where it stands.
pub(super) struct Taker {
    map: Map<String, Value>,
    at: String,
}

impl Taker {
    pub(super) fn new(map: Map<String, Value>, at: impl Into<String>) -> Self {
        Self { map, at: at.into() }
    }

    /// Where one of its keys stands.
    pub(super) fn at(&self, key: &str) -> String {
        member(&self.at, key)
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.map.get(key).is_some_and(|value| !value.is_null())
    }

    /// A key's value of one kind. Another kind stays, and is listed as left over.
    fn take<T>(&mut self, key: &str, read: impl FnOnce(&Value) -> Option<T>) -> Option<T> {
        let value = self.map.get(key).and_then(read)?;
        self.map.shift_remove(key);
        Some(value)
    }

    pub(super) fn any(&mut self, key: &str) -> Option<Value> {
        self.take(key, |value| Some(value.clone()))
    }

    pub(super) fn text(&mut self, key: &str) -> Option<String> {
        self.take(key, |value| value.as_str().map(str::to_owned))
    }

    pub(super) fn flag(&mut self, key: &str) -> Option<bool> {
        self.take(key, Value::as_bool)
    }

    pub(super) fn number(&mut self, key: &str) -> Option<f64> {
        self.take(key, Value::as_f64)
    }

    pub(super) fn list(&mut self, key: &str) -> Vec<Value> {
        self.take(key, |value| value.as_array().cloned()).unwrap_or_default()
    }

    pub(super) fn texts(&mut self, key: &str) -> Option<Vec<String>> {
        self.take(key, |value| value.as_array()?.iter().map(|item| Some(item.as_str()?.to_owned())).collect())
    }

    /// An object below a key; empty where there is none.
    pub(super) fn object(&mut self, key: &str) -> Self {
        let at = self.at(key);
        Self { map: self.take(key, |value| value.as_object().cloned()).unwrap_or_default(), at }
    }

    /// What is in it, all at once.
    pub(super) fn entries(self) -> impl Iterator<Item = (String, String, Value)> {
        let at = self.at;
        self.map.into_iter().map(move |(key, value)| (member(&at, &key), key, value))
    }

    /// Lists what is left over.
    pub(super) fn rest(self, left_out: &mut Vec<Problem>) {
        for (at, _, value) in self.entries() {
            let empty = match &value {
                Value::Null => true,
                Value::Array(items) => items.is_empty(),
                Value::Object(map) => map.is_empty(),
                _ => false,
            };
            if !empty {
                left_out.push(Problem::new(at, "a manifest has no place for it"));
            }
        }
    }
}

/// Notes what could not be taken over.
pub(super) fn leave(left_out: &mut Vec<Problem>, at: impl Into<String>, why: &str, hint: &str) {
    let problem = Problem::new(at, why);
    left_out.push(if hint.is_empty() { problem } else { problem.hint(hint) });
}
