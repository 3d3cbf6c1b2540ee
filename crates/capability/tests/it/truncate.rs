//! Cutting of long output: the SDK's results, and that pieces make no difference.

use mooring_capability::truncate;
use proptest::prelude::*;

/// Text, tokens, the SDK's result and its count.
type Vector = (String, usize, String, Option<u64>);

#[test]
fn the_cut_is_the_sdks() {
    let vectors: Vec<Vector> = serde_json::from_str(include_str!("../truncation.json")).unwrap();
    assert_eq!(vectors.len(), 91);
    for (text, tokens, expected, count) in vectors {
        assert_eq!(truncate(&text, tokens), (expected, count), "{text:?} to {tokens}");
    }
}

proptest! {
    #[test]
    fn the_result_keeps_to_its_limit(text in "\\PC{0,200}", tokens in 1..60usize) {
        let (cut, count) = truncate(&text, tokens);
        // The final marker counts fewer tokens than the provisional one it replaces, so it is never longer.
        prop_assert!(cut.len() <= tokens * 4);
        prop_assert_eq!(count.is_some(), text.len() > tokens * 4);
    }
}
