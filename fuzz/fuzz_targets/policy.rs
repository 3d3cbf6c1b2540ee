//! Policies from anywhere decide about any call without a panic; globs agree with their definition.
#![no_main]

use std::collections::BTreeSet;

use libfuzzer_sys::fuzz_target;
use mooring_harness::{Asked, Policy, glob};

/// Globs as they are defined, however slowly.
fn defined(pattern: &[char], text: &[char]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some(('*', rest)) => (0..=text.len()).any(|at| defined(rest, &text[at..])),
        Some((one, rest)) => {
            text.split_first().is_some_and(|(c, text)| (*one == '?' || one == c) && defined(rest, text))
        }
    }
}

fuzz_target!(|input: (&str, &str, &str, bool)| {
    let (policy, tool, arguments, leaves_sandbox) = input;
    let short = |text: &str| text.chars().take(10).collect::<Vec<_>>();
    let (pattern, text) = (short(policy), short(tool));
    assert_eq!(
        glob(&pattern.iter().collect::<String>(), &text.iter().collect::<String>()),
        defined(&pattern, &text)
    );
    let (Ok(policy), Ok(arguments)) = (serde_json::from_str::<Policy>(policy), serde_json::from_str(arguments)) else {
        return;
    };
    let read = BTreeSet::from(["sandbox".to_owned()]);
    let asked = Asked { tool, arguments: &arguments, sandbox: "local", read: &read, leaves_sandbox };
    assert_eq!(policy.decide(&asked), policy.decide(&asked));
});
