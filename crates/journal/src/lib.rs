//! Append-only events, their stores, and fencing.
