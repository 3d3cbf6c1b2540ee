//! Counterparts for tests: a scriptable model server.
