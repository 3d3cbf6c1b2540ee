//! The patch grammar: nothing that a model writes panics, and a diff that applies gives the same every time.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mooring_capability::{apply_diff, created_content, parse_json_patch, parse_patch};

fuzz_target!(|input: (&str, &str)| {
    let (file, patch) = input;
    let _ = parse_patch(patch);
    if let Ok(value) = serde_json::from_str(patch) {
        let _ = parse_json_patch(&value);
    }
    let _ = created_content(patch);
    if let Ok(changed) = apply_diff(file, patch) {
        assert_eq!(apply_diff(file, patch).as_ref().ok(), Some(&changed));
    }
});
