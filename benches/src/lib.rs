//! Measurements with the peers beside them.
