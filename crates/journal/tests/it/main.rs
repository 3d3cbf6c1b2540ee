//! The journal's behaviour, seen from outside.

mod conformance;
mod support;
