//! The tool `apply_patch`: the SDK's vectors, where ours differs and why, and that it does all or nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use mooring_capability::{Operation, ToolInput, ToolStatus, parse_patch};
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::memory_session::{Fault, MemorySession, Node, patch, run, text};

#[derive(Debug, Deserialize)]
struct Vectors {
    tool: Vec<Vector>,
}

#[derive(Debug, Deserialize)]
struct Vector {
    name: String,
    patch: String,
    output: Option<String>,
    message: Option<String>,
    files_after: BTreeMap<String, String>,
}

/// A vector's name, what ours says (its start), and which files differ.
type Deviation = (&'static str, &'static str, &'static [(&'static str, Option<&'static str>)]);

/// The vectors where the SDK loses something.
const DEVIATIONS: [Deviation; 6] = [
    // A created file ends with a newline.
    ("add", "Created n.txt", &[("n.txt", Some("hi\n"))]),
    ("json single", "Created j.txt", &[("j.txt", Some("x\n"))]),
    ("json operations", "Deleted b.txt\nCreated j.txt", &[("j.txt", Some("x\n"))]),
    ("path with trailing spaces", "Created sp.txt", &[("sp.txt", Some("1\n"))]),
    // Nothing is overwritten unseen.
    (
        "move over existing",
        "apply_patch cannot move a.txt to b.txt because b.txt already exists.",
        &[("a.txt", Some("one\ntwo\n")), ("b.txt", Some("B\n"))],
    ),
    // All or nothing.
    ("second op fails after first applied", "Invalid Context 0:\nnomatch", &[("first.txt", None)]),
];

fn workspace() -> Arc<MemorySession> {
    let binary = Node::File { data: Bytes::from_static(b"\xff\xfea"), mode: 0o644 };
    Arc::new(MemorySession::with([("a.txt", text("one\ntwo\n")), ("b.txt", text("B\n")), ("bin", binary)]))
}

/// The tree as the vectors write it: bytes as Latin-1 where they are not UTF-8.
fn files(session: &MemorySession) -> BTreeMap<String, String> {
    let as_text = |node: &Node| match node {
        Node::File { data, .. } => String::from_utf8(data.to_vec())
            .unwrap_or_else(|_| data.iter().map(|byte| char::from(*byte)).collect()),
        other => format!("{other:?}"),
    };
    session.tree().iter().map(|(path, node)| (path.clone(), as_text(node))).collect()
}

#[tokio::test]
async fn the_sdk_and_ours_agree_but_for_the_named_deviations() {
    let vectors: Vectors = serde_json::from_str(include_str!("../vectors.json")).unwrap();
    assert_eq!(vectors.tool.len(), 19);
    let mut deviated = Vec::new();
    for vector in &vectors.tool {
        let session = workspace();
        let result = patch(&session, &vector.patch).await;
        let mut expected_files = vector.files_after.clone();
        let mut expected = vector.output.clone().or(vector.message.clone()).unwrap().replace("<ws>", "/ws");
        let mut fails = vector.output.is_none();
        if let Some((name, says, differ)) = DEVIATIONS.iter().find(|(name, ..)| *name == vector.name) {
            deviated.push(*name);
            fails |= says.contains("cannot");
            expected = (*says).to_owned();
            for (path, content) in *differ {
                match content {
                    Some(content) => expected_files.insert((*path).to_owned(), (*content).to_owned()),
                    None => expected_files.remove(*path),
                };
            }
            assert_ne!(expected_files, vector.files_after, "{name} is no deviation");
        } else if vector.name.starts_with("line separator") {
            // A created file ends with a newline: the seventh deviation, whose name is awkward to repeat.
            deviated.push("line separator");
            expected_files.insert("u.txt".into(), "a\u{2028}b\n".into());
        }
        let output = result.output.text();
        if fails {
            assert!(output.starts_with(&expected), "{}: {output}", vector.name);
            assert!(output.contains("\nNothing was written. "), "{}: {output}", vector.name);
            assert_eq!(result.status, ToolStatus::Failed, "{}", vector.name);
        } else {
            assert_eq!((output, result.status), (expected, ToolStatus::Completed), "{}", vector.name);
        }
        assert_eq!(files(&session), expected_files, "{}", vector.name);
    }
    assert_eq!(deviated.len(), DEVIATIONS.len() + 1, "{deviated:?}");
}

#[tokio::test]
async fn a_file_keeps_its_mode_when_it_changes_or_moves() {
    let script = || Node::File { data: Bytes::from_static(b"a\nb\n"), mode: 0o755 };
    let session = Arc::new(MemorySession::with([("one.sh", script()), ("two.sh", script())]));
    let result = patch(
        &session,
        "*** Begin Patch\n*** Update File: one.sh\n@@\n-a\n+A\n*** Update File: two.sh\n*** Move to: bin/two.sh\n@@\n-b\n+B\n*** End Patch\n",
    )
    .await;
    assert_eq!(result.output.text(), "Updated one.sh\nUpdated two.sh\nMoved two.sh to bin/two.sh");
    let changed =
        |content: &'static str| Node::File { data: Bytes::from_static(content.as_bytes()), mode: 0o755 };
    let expected = [("one.sh", changed("A\nb\n")), ("bin/two.sh", changed("a\nB\n"))];
    assert_eq!(session.tree(), MemorySession::with(expected).tree());
}

#[tokio::test]
async fn operations_see_what_those_before_them_did() {
    let session = workspace();
    let result = patch(
        &session,
        "*** Begin Patch\n*** Delete File: b.txt\n*** Update File: a.txt\n*** Move to: b.txt\n@@\n-one\n+1\n\
         *** Update File: b.txt\n@@\n-two\n+2\n*** Add File: a.txt\n+new\n*** End Patch",
    )
    .await;
    assert_eq!(
        result.output.text(),
        "Deleted b.txt\nUpdated a.txt\nMoved a.txt to b.txt\nUpdated b.txt\nCreated a.txt"
    );
    let files = files(&session);
    assert_eq!((files["a.txt"].as_str(), files["b.txt"].as_str()), ("new\n", "1\n2\n"));
}

#[tokio::test]
async fn the_journal_gets_digests_before_anything_is_written() {
    let session = workspace();
    let input = json!({ "input": "*** Begin Patch\n*** Update File: a.txt\n@@\n-one\n+1\n*** Add File: n\n+x\n*** Delete File: b.txt\n*** End Patch" });
    let (prepared, result) = run(&session, "apply_patch", ToolInput::Json(input)).await;
    assert_eq!(result.details, prepared);
    insta::assert_json_snapshot!(prepared);
}

#[tokio::test]
async fn a_file_that_changed_since_it_was_looked_at_is_left_alone() {
    let session = workspace();
    let capability = mooring_capability::capability("filesystem").unwrap();
    let tool = &capability.tools[1];
    let context = crate::memory_session::context(&session, "call_1");
    let input = ToolInput::Text(
        "*** Begin Patch\n*** Add File: n\n+x\n*** Update File: a.txt\n@@\n-one\n+1\n*** End Patch"
            .to_owned(),
    );
    let prepared = tool.prepare(&context, &input).await.unwrap();
    session.nodes.lock().unwrap().insert("a.txt".into(), text("one\nother\n"));
    let before = session.tree();
    let result = tool.call(&context, &input, &prepared).await;
    insta::assert_snapshot!(result.output.text());
    assert_eq!(session.tree(), before);
}

#[tokio::test]
async fn a_write_that_fails_takes_back_those_before_it() {
    let all = "*** Begin Patch\n*** Add File: n\n+x\n*** Update File: a.txt\n@@\n-one\n+1\n*** Delete File: b.txt\n*** End Patch";
    for nth in 0..3 {
        let mut session = MemorySession::with([("a.txt", text("one\ntwo\n")), ("b.txt", text("B\n"))]);
        session.fault = Some(Fault::Refused(nth));
        let session = Arc::new(session);
        let before = session.tree();
        let result = patch(&session, all).await;
        assert_eq!(result.status, ToolStatus::Failed);
        assert!(result.output.text().contains("Nothing was written. "), "{}", result.output.text());
        assert_eq!(session.tree(), before);
        assert_eq!(session.mutations(), 2 * nth + 1, "each write before the failed one is taken back");
    }
}

#[tokio::test]
async fn a_file_with_two_names_does_not_lose_a_change() {
    let mut session = MemorySession::with([("dir/a", text("x\n"))]);
    session.linked = Some(("link/", "dir/"));
    let session = Arc::new(session);
    let before = session.tree();
    let result = patch(
        &session,
        "*** Begin Patch\n*** Update File: dir/a\n@@\n x\n+1\n*** Update File: link/a\n@@\n x\n+2\n*** End Patch",
    )
    .await;
    insta::assert_snapshot!(result.output.text());
    assert_eq!(session.tree(), before);
}

/// What the model reads when a patch is refused.
#[tokio::test]
async fn refusals_say_what_to_do() {
    let large = Node::File { data: Bytes::from(vec![b'x'; (16 << 20) + 1]), mode: 0o644 };
    let session = Arc::new(MemorySession::with([
        ("a.txt", text("x\n1\nx\n")),
        ("dir/file", text("")),
        ("link", Node::Link("a.txt".into())),
        ("large", large),
        ("empty", Node::Directory),
    ]));
    let patches = [
        "nonsense",
        "*** Begin Patch\n*** Add File: n",
        "*** Begin Patch\n*** Add File: n\nx\n*** End Patch",
        "*** Begin Patch\n*** Add File: n\n*** End Patch",
        "*** Begin Patch\n*** Add File:  \n+x\n*** End Patch",
        "*** Begin Patch\n*** Delete File: a.txt\n-x\n*** End Patch",
        "*** Begin Patch\n*** Update File: a.txt\n*** Move to: b\n*** End Patch",
        "*** Begin Patch\n*** Update File: a.txt\n@@\n-x\n+y\n*** End Patch",
        "*** Begin Patch\n*** Update File: a.txt\n@@\n-nope\n+y\n*** End Patch",
        "*** Begin Patch\n*** Update File: link\n@@\n-x\n+y\n*** End Patch",
        "*** Begin Patch\n*** Update File: large\n@@\n-x\n+y\n*** End Patch",
        "*** Begin Patch\n*** Delete File: dir\n*** End Patch",
        "*** Begin Patch\n*** Add File: empty\n+x\n*** End Patch",
        "*** Begin Patch\n*** Add File: a.txt/b\n+x\n*** End Patch",
        "*** Begin Patch\n*** Delete File: a.txt\n*** Add File: a.txt/b\n+x\n*** End Patch",
        "*** Begin Patch\n*** Add File: /etc/passwd\n+x\n*** End Patch",
        "{\"type\": \"rename_file\", \"path\": \"a\"}",
        "{\"type\": \"create_file\", \"path\": \"a\"}",
        "[",
        "[]",
    ];
    let before = session.tree();
    let mut report = Vec::new();
    for input in patches {
        report.push(format!("{input}\n    ->\n{}", patch(&session, input).await.output.text()));
    }
    assert_eq!(session.tree(), before);
    insta::assert_snapshot!(report.join("\n\n"));
}

#[test]
fn both_forms_of_a_patch_say_the_same() {
    let operations = json!([
        { "type": "create_file", "path": "n", "diff": "+x\n" },
        { "type": "update_file", "path": "a", "diff": "@@\n-a\n", "move_to": "b" },
        { "type": "delete_file", "path": "c" },
    ]);
    let envelope = "*** Begin Patch\r\n*** Add File: n\r\n+x\r\n*** Update File: a\r\n*** Move to: b\r\n@@\r\n-a\r\n*** Delete File: c\r\n*** End Patch\r\n";
    let expected = parse_patch(envelope).unwrap();
    assert_eq!(expected.len(), 3);
    assert_eq!(parse_patch(&operations.to_string()).unwrap(), expected);
    assert_eq!(parse_patch(&json!({ "operations": operations }).to_string()).unwrap(), expected);
    let one = json!({ "operation": operations[2] }).to_string();
    assert_eq!(parse_patch(&one), Ok(vec![Operation::Delete { path: "c".into() }]));
}

proptest! {
    #[test]
    fn any_input_is_answered_without_a_panic(input: String, json in "[\\[{\"a-z:,}\\]]{0,40}") {
        let _ = parse_patch(&input);
        let _ = parse_patch(&json);
        let _ = parse_patch(&format!("*** Begin Patch\n{input}\n*** End Patch"));
    }

    #[test]
    fn an_envelope_of_any_lines_is_answered_without_a_panic(lines in proptest::collection::vec(
        prop_oneof![
            Just("*** Begin Patch"), Just("*** End Patch"), Just("*** Add File: a"), Just("*** Update File: b"),
            Just("*** Delete File: c"), Just("*** Move to: d"), Just("@@"), Just("+x"), Just("-y"), Just(" z"), Just(""),
        ],
        0..12,
    )) {
        let patch = lines.join("\n");
        if let Ok(operations) = parse_patch(&patch) {
            prop_assert!(!operations.is_empty());
            prop_assert!(lines[0] == "*** Begin Patch");
        }
        let _: Value = json!(patch);
    }
}
