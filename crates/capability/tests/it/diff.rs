//! What a diff makes of a text: the SDK's vectors, where ours differs and why, and properties.

use mooring_capability::{apply_diff, created_content};
use proptest::prelude::*;
use serde::Deserialize;

#[derive(Debug, Deserialize)]
struct Vectors {
    apply_diff: Vec<Vector>,
}

#[derive(Debug, Deserialize)]
struct Vector {
    name: String,
    input: String,
    diff: String,
    mode: String,
    output: Option<String>,
    message: Option<String>,
}

/// The vectors where the SDK loses something, and what ours gives.
const DEVIATIONS: [(&str, Result<&str, &str>); 6] = [
    // A created file ends with a newline.
    ("create basic", Ok("a\nb\n")),
    ("create keeps no trailing newline", Ok("a\n")),
    ("create crlf diff", Ok("a\r\nb\r\n")),
    ("create stops at terminator", Ok("a\n")),
    // Untouched lines keep their endings.
    ("mixed newline file", Ok("a\r\nB\nc\n")),
    // What matches at several places is not guessed.
    (
        "duplicate context picks first after cursor",
        Err("Ambiguous Context: the same lines are at lines 1, 3:\nx"),
    ),
];

fn outcome(vector: &Vector) -> Result<String, String> {
    let outcome = match vector.mode.as_str() {
        "create" => created_content(&vector.diff),
        _ => apply_diff(&vector.input, &vector.diff),
    };
    outcome.map_err(|error| error.to_string())
}

#[test]
fn the_sdk_and_ours_agree_but_for_the_named_deviations() {
    let vectors: Vectors = serde_json::from_str(include_str!("../vectors.json")).unwrap();
    assert_eq!(vectors.apply_diff.len(), 38);
    for vector in &vectors.apply_diff {
        let sdk = vector.output.clone().ok_or_else(|| vector.message.clone().unwrap());
        let ours = outcome(vector);
        match DEVIATIONS.iter().find(|(name, _)| *name == vector.name) {
            None => assert_eq!(ours, sdk, "{}", vector.name),
            Some((name, expected)) => {
                let expected = expected.map(str::to_owned).map_err(str::to_owned);
                assert_eq!(ours, expected, "{name}");
                assert_ne!(ours, sdk, "{name} is no deviation");
            }
        }
    }
    for (name, _) in DEVIATIONS {
        assert!(vectors.apply_diff.iter().any(|vector| vector.name == name), "{name} is no vector");
    }
}

fn update(input: &str, diff: &str) -> Result<String, String> {
    apply_diff(input, diff).map_err(|error| error.to_string())
}

#[test]
fn an_anchor_that_is_in_the_file_once_decides() {
    let file = "class A:\n  x\n  x\nclass B:\n  x\n  x\n";
    assert_eq!(
        update(file, "@@ class B:\n-  x\n+  y\n"),
        Ok("class A:\n  x\n  x\nclass B:\n  y\n  x\n".into())
    );
    assert_eq!(
        update(file, "@@ class C:\n-  x\n+  y\n"),
        Err("Ambiguous Context: the same lines are at lines 2, 3, 5, 6:\n  x".into())
    );
}

#[test]
fn an_anchor_that_is_in_the_file_twice_does_not_decide() {
    let file = "def f():\n  x\ndef f():\n  x\n";
    assert_eq!(
        update(file, "@@ def f():\n-  x\n+  y\n"),
        Err("Ambiguous Context: the same lines are at lines 2, 4:\n  x".into())
    );
    assert_eq!(
        update(file, "@@ def f():\n+  y\n"),
        Err("Ambiguous Context: the same lines are at lines 1, 3:\ndef f():".into())
    );
    // With context that is there once, it need not.
    assert_eq!(
        update("def f():\n  x\ndef f():\n  z\n", "@@ def f():\n-  z\n+  y\n"),
        Ok("def f():\n  x\ndef f():\n  y\n".into())
    );
}

#[test]
fn lines_for_an_anchor_that_is_not_there_go_nowhere() {
    assert_eq!(update("a\nb\n", "@@ nope\n+z\n"), Err("Invalid Anchor 0:\nnope".into()));
}

#[test]
fn an_exact_place_is_taken_before_a_similar_one() {
    assert_eq!(update("  x\nx \nx\n", "@@\n-x\n+y\n"), Ok("  x\nx \ny\n".into()));
}

#[test]
fn candidates_are_named_up_to_a_limit() {
    let file = "x\n".repeat(100);
    let expected =
        "Ambiguous Context: the same lines are at lines 1, 2, 3, 4, 5, 6, 7, 8 and perhaps more:\nx";
    assert_eq!(update(&file, "@@\n-x\n+y\n"), Err(expected.into()));
}

#[test]
fn the_end_of_the_file_stays_as_it_was() {
    assert_eq!(update("a\nb", "@@\n-b\n+B\n"), Ok("a\nB".into()));
    assert_eq!(update("a\nb", "@@\n b\n+c\n"), Ok("a\nb\nc".into()));
    assert_eq!(update("a\nb", "@@\n a\n-b\n"), Ok("a".into()));
    assert_eq!(update("a\r\nb", "@@\n b\n+c\n"), Ok("a\r\nb\r\nc".into()));
    assert_eq!(update("", "@@\n+a\n"), Ok("a\n".into()));
    // An empty line at the end of a patch stands for the end of the file, and is no line of it.
    assert_eq!(update("a\nb\n", "@@\n-b\n+B\n\n"), Ok("a\nB\n".into()));
    assert_eq!(update("a\nb\n", "@@\n b\n\n+c\n"), Ok("a\nb\nc\n".into()));
    assert_eq!(update("a\nb\n", "@@\n b\n-\n"), Err("Invalid Context 0:\nb\n".into()));
}

#[test]
fn new_lines_take_the_ending_of_their_place() {
    assert_eq!(update("a\r\nb\nc\r\n", "@@\n-b\n+x\n+y\n"), Ok("a\r\nx\ny\nc\r\n".into()));
    assert_eq!(update("a\r\nb\n", "@@\n a\n+x\n"), Ok("a\r\nx\r\nb\n".into()));
    assert_eq!(update("a\r\nb\n", "@@\n+x\n a\n"), Ok("x\r\na\r\nb\n".into()));
}

#[test]
fn lines_after_the_end_of_a_diff_are_refused() {
    assert_eq!(update("a\n", "@@\n-a\n+b\n*** End Patch\n+c\n"), Err("Invalid Line: +c".into()));
}

#[test]
fn hunks_that_overlap_are_refused() {
    let error = update("a\nb\n", "@@\n-a\n-b\n+c\n@@\n-b\n+d\n*** End of File\n");
    assert_eq!(error, Err("applyDiff: overlapping chunk at 1 (cursor 2)".into()));
}

#[test]
fn repetitive_text_is_searched_in_linear_time() {
    // A search that starts anew at every line would compare 10^10 lines here.
    let file = "x\n".repeat(200_000);
    let diff = format!("@@\n{}-y\n+z\n", " x\n".repeat(50_000));
    assert!(apply_diff(&file, &diff).is_err());
}

/// Lines that are all different, so that every edit has one place.
fn edits() -> impl Strategy<Value = Vec<(u8, Vec<u8>)>> {
    proptest::collection::vec((0..4u8, proptest::collection::vec(0..9u8, 0..3)), 0..30)
}

proptest! {
    #[test]
    fn any_text_is_answered_without_a_panic(file in "[ab \r\n]{0,30}", diff in "(@@|[-+ *ab]| End of File|\\*\\*\\*|\r|\n){0,30}") {
        let _ = apply_diff(&file, &diff);
        let _ = created_content(&diff);
    }

    #[test]
    fn arbitrary_text_is_answered_without_a_panic(file: String, diff: String) {
        let _ = apply_diff(&file, &diff);
        let _ = created_content(&diff);
    }

    /// Each line is kept (0, 1), deleted (2) or replaced (3); lines are added after it.
    #[test]
    fn a_generated_diff_gives_the_intended_file(edits in edits(), crlf: bool, last in any::<bool>(), whole: bool) {
        let newline = if crlf { "\r\n" } else { "\n" };
        let (mut before, mut after, mut diff) = (Vec::new(), Vec::new(), vec!["@@".to_owned()]);
        for (nth, (action, added)) in edits.iter().enumerate() {
            let line = format!("line {nth}");
            before.push(line.clone());
            match action {
                0 | 1 => {
                    diff.push(format!(" {line}"));
                    after.push(line);
                }
                2 => diff.push(format!("-{line}")),
                _ => {
                    diff.extend([format!("-{line}"), format!("+new {nth}")]);
                    after.push(format!("new {nth}"));
                }
            }
            for text in added {
                diff.push(format!("+added {nth} {text}"));
                after.push(format!("added {nth} {text}"));
            }
            // A hunk ends after a kept line; the next one starts with its own context.
            if !whole && *action == 0 && nth + 1 < edits.len() {
                diff.push("@@".to_owned());
            }
        }
        prop_assume!(!edits.is_empty());
        let diff = diff.join("\n") + "\n";
        // A file of one unfinished line has no style of its own; it takes the diff's.
        let newline = if before.len() == 1 && !last { "\n" } else { newline };
        let text = |lines: &[String]| {
            let text = lines.join(newline);
            if last && !lines.is_empty() { text + newline } else { text }
        };
        prop_assert_eq!(apply_diff(&text(&before), &diff), Ok(text(&after)));
    }
}
