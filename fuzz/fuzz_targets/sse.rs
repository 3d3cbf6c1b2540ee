//! The parser of server-sent events: however a stream is cut into pieces, it says the same.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&[u8], Vec<u8>)| mooring_model::fuzz_sse(input.0, &input.1));
