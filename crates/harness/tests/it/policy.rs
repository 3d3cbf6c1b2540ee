//! Which calls are allowed, asked for, denied.

use std::collections::BTreeSet;

use mooring_harness::{Action, Asked, Policy, Rule, glob};
use proptest::prelude::*;
use serde_json::{Value, json};

fn policy(rules: &Value) -> Policy {
    serde_json::from_value(json!({ "rules": rules })).unwrap()
}

fn decide(policy: &Policy, tool: &str, arguments: &Value) -> (Action, Option<u64>) {
    let read = BTreeSet::from(["sandbox".to_owned()]);
    let asked =
        Asked { tool, arguments, sandbox: "local", read: &read, leaves_sandbox: tool.starts_with("mail") };
    let decision = policy.decide(&asked);
    (decision.action, decision.rule)
}

#[test]
fn the_first_rule_that_matches_decides() {
    let policy = policy(&json!([
        {"tool": "exec_*", "arguments": {"cmd": "git push*"}, "action": "ask", "reason": "it leaves"},
        {"tool": "exec_command", "arguments": {"cmd": "*sudo*"}, "action": "deny"},
        {"tool": "mail_send", "arguments": {"to": "*@example.org", "n": "1"}, "action": "allow"},
        {"tool": "write", "sandbox": "docker*", "action": "deny"},
        {"tool": "read", "read": "sand*", "action": "ask"},
        {"tool": "read", "read": "agent", "action": "deny"},
    ]));
    for (tool, arguments, expected) in [
        ("exec_command", json!({"cmd": "git push origin"}), (Action::Ask, Some(0))),
        ("exec_command", json!({"cmd": "x; git push"}), (Action::Allow, None)),
        ("exec_command", json!({"cmd": "sudo git push"}), (Action::Deny, Some(1))),
        // An argument that is missing or of another kind matches nothing by chance.
        ("exec_command", json!({}), (Action::Allow, None)),
        ("mail_send", json!({"to": "ann@example.org", "n": 1}), (Action::Allow, Some(2))),
        ("mail_send", json!({"to": "ann@example.org"}), (Action::Ask, None)),
        ("mail_send", json!({"to": ["ann@example.org"], "n": 1}), (Action::Ask, None)),
        ("write", json!({}), (Action::Allow, None)),
        ("read", json!({}), (Action::Ask, Some(4))),
    ] {
        assert_eq!(decide(&policy, tool, &arguments), expected, "{tool} {arguments}");
    }
}

#[test]
fn without_rules_what_leaves_the_sandbox_is_asked_for() {
    assert_eq!(decide(&Policy::default(), "exec_command", &json!({})), (Action::Allow, None));
    assert_eq!(decide(&Policy::default(), "mail_send", &json!({})), (Action::Ask, None));
}

#[test]
fn a_rule_that_is_not_understood_is_refused() {
    for rule in [json!({"tool": "x"}), json!({"action": "maybe"}), json!({"action": "allow", "tol": "x"})] {
        assert!(serde_json::from_value::<Rule>(rule.clone()).is_err(), "{rule}");
    }
}

#[test]
fn another_policy_is_another_version() {
    let one = policy(&json!([{"action": "ask"}]));
    let other = policy(&json!([{"action": "allow"}]));
    assert_ne!(one.version(), other.version());
    assert_eq!(one.version(), policy(&json!([{"action": "ask"}])).version());
}

/// The meaning of a pattern, written down plainly.
fn plain(pattern: &[char], text: &[char]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some(('*', rest)), _) => {
            plain(rest, text) || text.split_first().is_some_and(|(_, t)| plain(pattern, t))
        }
        (Some(('?', rest)), Some((_, text))) => plain(rest, text),
        (Some((c, rest)), Some((t, text))) => c == t && plain(rest, text),
        _ => false,
    }
}

proptest! {
    #[test]
    fn globs_mean_what_they_say(pattern in "[ab*?]{0,8}", text in "[ab]{0,10}") {
        let (p, t): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
        prop_assert_eq!(glob(&pattern, &text), plain(&p, &t));
    }

    #[test]
    fn a_glob_of_any_text_matches_itself(text in "[^*?]{0,40}") {
        prop_assert!(glob(&text, &text));
        prop_assert!(glob("*", &text));
    }
}
