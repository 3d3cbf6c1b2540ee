//! The program `moor`.
fn main() {}
