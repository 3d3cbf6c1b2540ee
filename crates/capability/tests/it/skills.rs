//! Skills: the index, what is refused and why, and loading one.

use std::sync::Arc;

use bytes::Bytes;
use mooring_capability::{
    ALL_CAPABILITIES, CAPABILITIES, Effect, SkillIndex, ToolInput, ToolResult, ToolStatus, capability,
    guidance_item,
};
use mooring_sandbox::SandboxSession;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::memory_session::{MemorySession, Node, context, text};

const PDF: &str = "---
name: pdf
description: >
  Reads and fills PDF forms.
  Use for `.pdf` files.
license: Apache-2.0
compatibility: Needs Python 3
metadata:
  author: somebody
  version: 1
allowed-tools: Bash(*) exec_command
---
# PDF

Run `scripts/fill.py`.
";

/// A minimal skill with this name.
fn skill(name: &str) -> Node {
    text(&format!("---\nname: {name}\ndescription: Does {name}.\n---\nDo {name}.\n"))
}

async fn index(session: &MemorySession) -> SkillIndex {
    SkillIndex::read(session).await.unwrap()
}

fn report(index: &SkillIndex) -> String {
    let skills =
        index.skills.iter().map(|skill| format!("{}: {} ({})", skill.name, skill.description, skill.path));
    let problems =
        index.problems.iter().map(|problem| format!("LEFT OUT {:?}: {}", problem.path, problem.reason));
    skills.chain(problems).collect::<Vec<_>>().join("\n")
}

async fn load(session: MemorySession, input: Value) -> ToolResult {
    let tool = Arc::clone(&capability("skills").unwrap().tools[0]);
    assert_eq!(tool.effect(), Effect::Pure);
    tool.call(&context(&Arc::new(session), "call_1"), &ToolInput::Json(input), &Value::Null).await
}

#[test]
fn skills_are_off_unless_named() {
    assert_eq!(CAPABILITIES, ["filesystem", "shell"]);
    for name in ALL_CAPABILITIES {
        assert_eq!(capability(name).unwrap().name, name);
    }
    let skills = capability("skills").unwrap();
    let spec = skills.tools[0].spec();
    insta::assert_snapshot!(format!(
        "{}\n\n{}",
        skills.instructions,
        serde_json::to_string_pretty(&json!(spec)).unwrap()
    ));
}

#[tokio::test]
async fn the_model_gets_names_and_descriptions_alone() {
    let session = MemorySession::with([
        ("skills/pdf/SKILL.md", text(PDF)),
        ("skills/pdf/scripts/fill.py", text("...")),
        (
            ".agents/skills/a-1/SKILL.md",
            text("\u{feff}---\r\nname: a-1\r\ndescription: 'One: two'\r\n---\r\nx"),
        ),
        ("skills/README.md", text("not a skill")),
        ("skills/empty/notes.txt", text("no skill either")),
        ("other/skills/x/SKILL.md", skill("x")),
    ]);
    let index = index(&session).await;
    insta::assert_snapshot!(guidance_item(&[], &index).unwrap().text());
    assert_eq!(index.problems, []);
}

#[tokio::test]
async fn what_is_malformed_is_left_out_with_its_reason() {
    let with = |front_matter: &str| text(&format!("---\n{front_matter}\n---\nbody"));
    let long = |length: usize| "d".repeat(length);
    let session = MemorySession::with([
        ("skills/a-good/SKILL.md", skill("a-good")),
        ("skills/b-none/SKILL.md", text("# No front matter")),
        ("skills/c-open/SKILL.md", text("---\nname: c-open\ndescription: x\n")),
        ("skills/d-name/SKILL.md", with("name: ../../etc\ndescription: x")),
        ("skills/e..up/SKILL.md", with("name: e..up\ndescription: x")),
        ("skills/F-Upper/SKILL.md", with("name: F-Upper\ndescription: x")),
        ("skills/g--double/SKILL.md", with("name: g--double\ndescription: x")),
        ("skills/h-undescribed/SKILL.md", with("name: h-undescribed")),
        ("skills/i-blank/SKILL.md", with("name: i-blank\ndescription: \"  \\x01\"")),
        ("skills/j-long/SKILL.md", with(&format!("name: j-long\ndescription: {}", long(1025)))),
        ("skills/k-just/SKILL.md", with(&format!("name: k-just\ndescription: {}", long(1024)))),
        (
            "skills/l-compat/SKILL.md",
            with(&format!("name: l-compat\ndescription: x\ncompatibility: {}", long(501))),
        ),
        ("skills/m-list/SKILL.md", with("- m-list\n- x")),
        ("skills/n-nested/SKILL.md", with("name: n-nested\ndescription: [x]")),
        ("skills/o-twice/SKILL.md", with("name: o-twice\ndescription: x\ndescription: y")),
        ("skills/p-bytes/SKILL.md", Node::File { data: Bytes::from_static(b"---\nname: \xff"), mode: 0o644 }),
        ("skills/q-link/SKILL.md", Node::Link("/etc/passwd".into())),
        ("skills/r-linked", Node::Link("../elsewhere".into())),
        ("skills/s-large/SKILL.md", text(&(long(256 << 10) + "d"))),
        ("skills/t-tag/SKILL.md", with("name: !!binary t-tag\ndescription: !evil x")),
    ]);
    let mut found = report(&index(&session).await);
    found = found.replace(&long(1024), "(1024 times d)");
    insta::assert_snapshot!(found);
}

#[tokio::test]
async fn two_skills_of_one_name_are_both_refused() {
    let session = || {
        MemorySession::with([
            ("skills/one/SKILL.md", skill("one")),
            (".agents/skills/one/SKILL.md", skill("one")),
            ("skills/two/SKILL.md", skill("two")),
            // Malformed: which one was meant is still not clear.
            (".agents/skills/two/SKILL.md", text("")),
            ("skills/three/SKILL.md", skill("three")),
            (".agents/skills/three/notes.md", text("no skill")),
        ])
    };
    insta::assert_snapshot!(report(&index(&session()).await));
    insta::assert_snapshot!(load(session(), json!({ "name": "one" })).await.output.text());
    assert_eq!(load(session(), json!({ "name": "two" })).await.status, ToolStatus::Failed);
    assert_eq!(load(session(), json!({ "name": "three" })).await.status, ToolStatus::Completed);
}

#[tokio::test]
async fn links_on_the_way_are_not_followed() {
    for (link, to) in [("skills", "elsewhere"), (".agents", "dot-agents"), (".agents/skills", "elsewhere")] {
        let session = || {
            MemorySession::with([
                ("elsewhere/x/SKILL.md", skill("x")),
                ("dot-agents/skills/x/SKILL.md", skill("x")),
            ])
            .linked(link, to)
        };
        let place = if link == "skills" { "skills" } else { ".agents/skills" };
        // The session itself would follow it.
        assert!(session().read(&format!("{place}/x/SKILL.md"), 1000).await.is_ok(), "{link}");
        let index = index(&session()).await;
        assert_eq!(report(&index), format!("LEFT OUT {link:?}: it is a symbolic link"));
        assert_eq!(load(session(), json!({ "name": "x" })).await.status, ToolStatus::Failed, "{link}");
    }
}

#[tokio::test]
async fn at_most_64_directories_are_looked_into() {
    let session = MemorySession::default();
    for nth in 0..70 {
        let name = format!("s{nth:02}");
        session.nodes.lock().unwrap().insert(format!("skills/{name}/SKILL.md"), skill(&name));
    }
    let index = index(&session).await;
    assert_eq!(index.skills.len(), 64);
    let problems = SkillIndex { skills: vec![], ..index };
    insta::assert_snapshot!(report(&problems));
}

/// Lists of nine aliases of the list before: spelt out, the last one has 9 to the 29th power members.
fn laughs(indent: &str) -> String {
    let line =
        |nth: usize| format!("{indent}a{nth}: &a{nth} [{}]", vec![format!("*a{}", nth - 1); 9].join(","));
    (1..30).map(line).collect::<Vec<_>>().join("\n") + "\n"
}

#[tokio::test]
async fn front_matter_bombs_are_refused() {
    let laughs = laughs("");
    let bombs = [
        ("name: x\ndescription: ".to_owned() + &"[".repeat(16_000), "deep"),
        ("name: x\nmetadata: ".to_owned() + &"{a: ".repeat(4000), "deep, ignored"),
        ("name: x\nmetadata:\n".to_owned() + &"- ".repeat(8000), "deep in blocks"),
        (format!("a0: &a0 [lol]\n{laughs}name: x\ndescription: *a29\n"), "aliases"),
        ("name: x\ndescription: &a [*a]".to_owned(), "an alias of itself"),
        (format!("name: x\ndescription: x\nmetadata: {}\n", "y".repeat(20 << 10)), "huge"),
        ("? ".repeat(8000), "keys of keys"),
        ("name: x\ndescription: \"\\u0000\"".to_owned(), "a zero byte"),
        ("%TAG ! tag:evil,2000:\nname: x".to_owned(), "a directive"),
    ];
    let mut reports = Vec::new();
    for (front_matter, what) in bombs {
        let file = format!("---\n{front_matter}\n---\nbody");
        let session = MemorySession::with([("skills/x/SKILL.md", text(&file))]);
        let index = index(&session).await;
        assert_eq!(index.skills, [], "{what}");
        reports.push(format!("{what}: {}", index.problems[0].reason));
    }
    insta::assert_snapshot!(reports.join("\n"));
}

#[tokio::test]
async fn what_is_not_used_costs_nothing() {
    let laughs = laughs("  ");
    for metadata in [
        format!("\n  a0: &a0 lol\n{laughs}"),
        format!("{}{}\n", "[".repeat(256), "]".repeat(256)),
        format!("{}x{}\n", "{a: ".repeat(256), "}".repeat(256)),
        format!("\n{}x\n", "- ".repeat(7000)),
        (0..900).map(|nth| format!("\n  a{nth}: &a{nth}")).collect::<Vec<_>>().concat() + "\n",
    ] {
        let file = format!("---\nname: x\ndescription: Does x.\nmetadata: {metadata}---\n");
        let session = MemorySession::with([("skills/x/SKILL.md", text(&file))]);
        assert_eq!(report(&index(&session).await), "x: Does x. (skills/x/SKILL.md)");
    }
}

#[tokio::test]
async fn loading_gives_instructions_and_files() {
    let session = MemorySession::with([
        ("skills/pdf/SKILL.md", text(PDF)),
        ("skills/pdf/scripts/fill.py", text("...")),
        ("skills/pdf/scripts/a\n`b`.py", text("...")),
        ("skills/pdf/assets/link", Node::Link("/etc/passwd".into())),
        ("skills/pdf/assets/deep/er/form.pdf", text("...")),
        ("skills/pdfx/SKILL.md", skill("pdfx")),
    ]);
    let result = load(session, json!({ "name": "pdf" })).await;
    insta::assert_snapshot!(result.output.text());
    assert_eq!(result.status, ToolStatus::Completed);
    assert_eq!(
        result.details,
        json!({ "skill": "pdf", "path": "skills/pdf/SKILL.md", "files": 4, "cut": false })
    );
}

#[tokio::test]
async fn a_long_skill_is_cut_and_says_so() {
    let session = MemorySession::default();
    let file = format!("---\nname: x\ndescription: x\n---\n{}", "é".repeat(20_001));
    session.nodes.lock().unwrap().insert("skills/x/SKILL.md".into(), text(&file));
    for nth in 0..200 {
        session.nodes.lock().unwrap().insert(format!("skills/x/f{nth:03}"), text(""));
    }
    let result = load(session, json!({ "name": "x" })).await;
    let shown = result.output.text();
    assert_eq!(shown.matches('é').count(), 20_000);
    assert!(shown.contains("\nOnly the first 40000 bytes are shown. Read the file for the rest.\n"));
    assert!(shown.ends_with("There are more files, which are not listed here."));
    assert_eq!(result.details["files"], 128);
    assert_eq!(result.details["cut"], true);
}

#[tokio::test]
async fn what_cannot_be_loaded_is_said() {
    let files = || {
        MemorySession::with([
            ("secret/SKILL.md", skill("secret")),
            ("skills/bad/SKILL.md", text("---\nname: good\ndescription: x\n---\n")),
            ("skills/empty/notes.md", text("")),
            ("skills/link/SKILL.md", Node::Link("../../secret/SKILL.md".into())),
        ])
    };
    let mut reports = Vec::new();
    for input in [
        json!({ "name": "../secret" }),
        json!({ "name": "..\n\u{1b}[31m" }),
        json!({ "name": "/etc" }),
        json!({ "name": "" }),
        json!({ "name": "missing" }),
        json!({ "name": "empty" }),
        json!({ "name": "bad" }),
        json!({ "name": "link" }),
        json!({ "name": 7 }),
        json!({}),
    ] {
        let result = load(files(), input.clone()).await;
        assert_eq!(result.status, ToolStatus::Failed, "{input}");
        reports.push(format!("{input}\n    {}", result.output.text()));
    }
    insta::assert_snapshot!(reports.join("\n"));
}

proptest! {
    /// Whatever a file says, it is either used as it says or left out: nothing panics, nothing breaks a line.
    #[test]
    fn any_front_matter_is_read_or_refused(front_matter in "(name: x\n)?(description: )?[-a:&*!\\[\\]{}>|'\"# \t\r\n\\\\%@`]{0,60}") {
        let file = format!("---\n{front_matter}\n---\nbody");
        let session = MemorySession::with([("skills/x/SKILL.md", text(&file))]);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let index = runtime.block_on(SkillIndex::read(&session)).unwrap();
        prop_assert_eq!(index.skills.len() + index.problems.len(), 1);
        for skill in &index.skills {
            prop_assert!(!skill.description.is_empty() && !skill.description.contains(char::is_control));
        }
        for problem in &index.problems {
            prop_assert!(!problem.reason.contains(char::is_control) && problem.reason.len() < 400);
        }
    }
}
