//! The system instructions and the tools' wire form.

use mooring_capability::{CAPABILITIES, Capability, capability, system_instructions};
use serde_json::json;

fn all() -> Vec<Capability> {
    CAPABILITIES.iter().map(|name| capability(name).unwrap()).collect()
}

#[test]
fn the_default_text_is_short() {
    let text = system_instructions(None, &all(), "", "/workspace");
    assert!(text.chars().count() < 4000, "{} characters", text.chars().count());
    insta::assert_snapshot!(text);
}

#[test]
fn parts_follow_each_other_and_empty_ones_are_left_out() {
    let whole = system_instructions(Some(" Be kind.\n"), &all(), "/workspace\n└── a\n", "/workspace");
    let headings: Vec<_> = whole.lines().filter(|line| line.starts_with("# ")).collect();
    assert_eq!(headings[headings.len() - 3..], ["# Agent instructions", "# Tools", "# Filesystem"]);
    assert!(whole.contains("\n\n# Agent instructions\n\nBe kind.\n\n# Tools\n\n"));
    assert!(whole.ends_with("\n\n# Filesystem\n\n/workspace\n└── a"));
    let bare = system_instructions(Some(" "), &[], "", "/workspace");
    assert!(
        !["# Agent instructions", "# Tools", "# Filesystem"].iter().any(|heading| bare.contains(heading))
    );
}

#[test]
fn tools_come_in_the_sdks_order_and_form() {
    let specs: Vec<_> =
        all().iter().flat_map(|capability| &capability.tools).map(|tool| tool.spec()).collect();
    let names: Vec<_> = specs.iter().map(|spec| spec.name.as_str()).collect();
    assert_eq!(names, ["view_image", "apply_patch", "exec_command", "write_stdin"]);
    insta::assert_snapshot!(serde_json::to_string_pretty(&json!(specs)).unwrap());
}
