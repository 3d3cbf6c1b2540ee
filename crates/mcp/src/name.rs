//! Names of tools: what the model sees of a server's own name, and patterns of names.
//!
//! Providers take 64 characters out of letters, digits, `_` and `-`. A server's name ends before the first `__`, so
//! no two servers can meet in one name; where a tool's own name had to be changed or cut, a hash of the whole follows.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

/// The longest name of a tool that every provider takes.
const LONGEST: usize = 64;

/// The longest name of a server: it leaves room for the tool's.
pub(crate) const LONGEST_SERVER: usize = 32;

/// Whether a server may be called so.
pub(crate) fn is_server_name(name: &str) -> bool {
    (1..=LONGEST_SERVER).contains(&name.len())
        && name.chars().all(is_allowed)
        && !name.contains("__")
        && !name.ends_with('_')
}

/// What the model sees of a tool.
pub(crate) fn tool_name(server: &str, tool: &str) -> String {
    let name = format!("{server}__{tool}");
    if !tool.is_empty() && name.len() <= LONGEST && name.chars().all(is_allowed) {
        return name;
    }
    let mut hash = String::from("_");
    for byte in &Sha256::digest(tool)[..4] {
        let _ = write!(hash, "{byte:02x}");
    }
    let room = LONGEST - hash.len();
    let allowed = name.chars().map(|character| if is_allowed(character) { character } else { '_' });
    allowed.take(room).collect::<String>() + &hash
}

/// Whether a pattern, where `*` stands for any text, matches the whole name.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    let Some((start, mut rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut name) = name.strip_prefix(start) else { return false };
    while let Some((middle, after)) = rest.split_once('*') {
        // The first place is enough: what follows has the more room.
        let Some(found) = name.find(middle) else { return false };
        name = &name[found + middle.len()..];
        rest = after;
    }
    name.ends_with(rest)
}

fn is_allowed(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '_' | '-')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_that_fits_is_kept_and_another_gets_a_hash() {
        assert_eq!(tool_name("git", "git_status"), "git__git_status");
        assert_eq!(tool_name("x", "a.b"), "x__a_b_2e7336dc");
        assert_ne!(tool_name("x", "a.b"), tool_name("x", "a b"));
        assert_ne!(tool_name("x", "a.b"), tool_name("x", "a_b"));
        let long = "t".repeat(80);
        assert_eq!(tool_name("x", &long).len(), LONGEST);
        assert_ne!(tool_name("x", &long), tool_name("x", &(long.clone() + "t")));
    }

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, name) in
            [("*", ""), ("a*", "a"), ("*b", "ab"), ("a*c*e", "abcde"), ("a**b", "ab"), ("*aa", "aaa")]
        {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in
            [("", "a"), ("a", "ab"), ("a*a", "a"), ("*b", "bc"), ("a*c*e", "aec"), ("a*b*b", "ab")]
        {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }

    proptest! {
        #[test]
        fn every_name_is_one_that_providers_take(server in "[a-zA-Z0-9-]{1,32}", tool in any::<String>()) {
            prop_assert!(is_server_name(&server));
            let name = tool_name(&server, &tool);
            prop_assert!(name.len() <= LONGEST && name.chars().all(is_allowed), "{}", name);
            prop_assert_eq!(name.split_once("__").map(|(server, _)| server.to_owned()), Some(server));
        }

        #[test]
        fn a_pattern_made_from_a_name_matches_it(parts in prop::collection::vec("[ab]{0,3}", 1..5)) {
            prop_assert!(matches(&parts.join("*"), &parts.concat()));
            prop_assert!(matches(&parts.join("*"), &parts.join("ba")));
        }
    }
}
