//! Long output in the workspace: what the file holds, how the report names it, and how many files there are.

use std::sync::Arc;

use mooring_capability::{ToolStatus, truncate};
use mooring_sandbox::{Outcome, Stream};
use serde_json::json;

use crate::memory_session::{Fault, MemorySession, Node, Script, text};
use crate::shell::Shell;

const DONE: Outcome = Outcome::Exited { code: 0 };

/// A command that writes this at once and ends.
fn writes(text: &str) -> Script {
    let output = vec![(0, Stream::Stdout, text.as_bytes().to_vec())];
    Script { output, ..Script::default() }.ends(0, DONE)
}

/// A shell on a workspace with these files.
fn shell(session: MemorySession, scripts: impl IntoIterator<Item = Script>) -> Shell {
    let (mut shell, scripts) = Shell::new(scripts);
    session.scripts.lock().unwrap().extend(scripts);
    shell.session = Arc::new(session);
    shell
}

/// The lines of a report before the output.
fn header(text: &str) -> String {
    text.split_once("\nOutput:\n").unwrap().0.to_owned()
}

fn kept(shell: &Shell) -> Vec<(String, String)> {
    let ours = |(path, node): (String, Node)| match node {
        Node::File { data, .. } if path.starts_with(".moor/output/") => {
            Some((path, String::from_utf8_lossy(&data).into_owned()))
        }
        _ => None,
    };
    shell.session.tree().into_iter().filter_map(ours).collect()
}

#[tokio::test(start_paused = true)]
async fn what_was_cut_is_whole_in_a_file() {
    let long = "naïve line of output\n".repeat(10_000);
    let shell = shell(MemorySession::default(), [writes(&long)]);
    let result = shell.exec(json!({ "cmd": "make" })).await;
    insta::assert_snapshot!(header(&result.output.text()));
    let (_, shown) =
        result.output.text().split_once("\nOutput:\n").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    assert_eq!(shown, truncate(&long, 10_000).0);
    let files = kept(&shell);
    let [(path, content)] = files.as_slice() else { panic!("{} files", files.len()) };
    assert_eq!(*content, long);
    assert_eq!(result.details["output_file"], json!(path));
    assert!(result.output.text().contains(path));
    assert_eq!(shell.session.tree()[".moor/.gitignore"], text("*\n"));
}

#[tokio::test(start_paused = true)]
async fn output_within_its_limit_makes_no_file() {
    let shell = shell(MemorySession::default(), [writes(&"x".repeat(40_000))]);
    let result = shell.exec(json!({ "cmd": "make" })).await;
    assert_eq!(shell.session.mutations(), 0);
    assert_eq!(result.details.get("output_file"), None);
}

#[tokio::test(start_paused = true)]
async fn each_read_of_a_command_has_its_own_file() {
    let mut script = writes(&"first ".repeat(20));
    script.output.push((20_000, Stream::Stdout, "second ".repeat(20).into_bytes()));
    script.end = None;
    let shell = shell(MemorySession::default(), [script]);
    shell.exec(json!({ "cmd": "serve", "max_output_tokens": 15 })).await;
    shell.write(json!({ "session_id": 1, "max_output_tokens": 15, "yield_time_ms": 30_000 })).await;
    let mut contents: Vec<_> = kept(&shell).into_iter().map(|(_, content)| content).collect();
    contents.sort();
    assert_eq!(contents, ["first ".repeat(20), "second ".repeat(20)]);
}

#[tokio::test(start_paused = true)]
async fn a_file_has_a_limit_too() {
    let long = "0123456789abcde\n".repeat(200_000);
    let shell = shell(MemorySession::default(), [writes(&long)]);
    let result = shell.exec(json!({ "cmd": "yes" })).await;
    insta::assert_snapshot!(header(&result.output.text()));
    assert_eq!(kept(&shell)[0].1, truncate(&long, (1 << 18) + 1024).0);
}

#[tokio::test(start_paused = true)]
async fn what_the_sandbox_dropped_is_counted_and_its_place_kept() {
    let long = "x".repeat(1 << 20);
    let mut script = writes(&long);
    script.dropped = 4_000_000;
    let shell = shell(MemorySession::default(), [script]);
    let result = shell.exec(json!({ "cmd": "yes" })).await;
    insta::assert_snapshot!(header(&result.output.text()));
    let note = "\n[4000000 bytes of output are missing here: more came than is kept]\n";
    assert_eq!(kept(&shell)[0].1, note.to_owned() + &long);
}

#[tokio::test(start_paused = true)]
async fn the_oldest_of_32_files_goes_and_nothing_else() {
    let files = [
        (".moor/output/notes.txt", text("not ours by its name")),
        (".moor/output/0123456789abcdef.txt", text("the oldest")),
        (".moor/output/fedcba9876543210.txt", Node::Link("/etc/passwd".into())),
    ];
    let shell = shell(MemorySession::with(files), (0..33).map(|_| writes(&"x".repeat(100))));
    for nth in 0..31 {
        shell.exec(json!({ "cmd": format!("{nth}"), "max_output_tokens": 15 })).await;
    }
    let before = kept(&shell);
    assert_eq!(before.len(), 33);
    let first = shell.exec(json!({ "cmd": "31", "max_output_tokens": 15 })).await;
    assert!(!shell.session.tree().contains_key(".moor/output/0123456789abcdef.txt"));
    // The same call tried again writes the same file and removes no other.
    let again = shell.exec(json!({ "cmd": "31", "max_output_tokens": 15 })).await;
    assert_eq!(first.details["output_file"], again.details["output_file"]);
    let gone: Vec<_> =
        before.iter().filter(|file| !kept(&shell).contains(file)).map(|file| &file.0).collect();
    assert_eq!(gone, [".moor/output/0123456789abcdef.txt"]);
    assert!(shell.session.tree().contains_key(".moor/output/fedcba9876543210.txt"));
}

#[tokio::test(start_paused = true)]
async fn a_file_that_cannot_be_written_is_said_and_no_failure() {
    let outside = || MemorySession::with([(".moor", Node::Link("src".into())), ("src/a", text("a"))]);
    let file = || MemorySession::with([(".moor/output", text("a file"))]);
    let full = || MemorySession::default().failing(Fault::Refused(1));
    let gone = || MemorySession::default().failing(Fault::GoneBefore(0));
    let mut reports = Vec::new();
    for session in [outside(), file(), full(), gone()] {
        let shell = shell(session, [writes(&"x".repeat(100))]);
        let before = shell.session.tree();
        let result = shell.exec(json!({ "cmd": "make", "max_output_tokens": 15 })).await;
        assert_eq!((result.status, result.session_lost), (ToolStatus::Completed, false));
        assert_eq!(result.details["output_file"], json!(null));
        let text = result.output.text();
        assert!(text.ends_with(&truncate(&"x".repeat(100), 15).0));
        reports.push(header(&text).lines().last().unwrap().to_owned());
        let mut after = shell.session.tree();
        after.remove(".moor/.gitignore");
        assert_eq!(after, before);
    }
    insta::assert_snapshot!(reports.join("\n"));
}
