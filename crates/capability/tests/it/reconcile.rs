//! A patch that a crash interrupts is brought to its end: stopped at every single write, before it and after it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use mooring_capability::{Reconciled, Tool, ToolInput, ToolResult, ToolStatus, capability};
use proptest::prelude::*;
use serde_json::Value;

use crate::memory_session::{Fault, MemorySession, Node, context, text};

type Tree = BTreeMap<String, Node>;

fn tool() -> Arc<dyn Tool> {
    Arc::clone(&capability("filesystem").unwrap().tools[1])
}

fn session(tree: &Tree, fault: Option<Fault>) -> Arc<MemorySession> {
    let mut session = MemorySession::default();
    session.nodes = tree.clone().into();
    session.fault = fault;
    Arc::new(session)
}

/// Prepares on the tree, then calls in a session with a fault; gives what is left and how it went.
async fn interrupted(tree: &Tree, input: &ToolInput, fault: Option<Fault>) -> (Value, Tree, ToolResult, u64) {
    let session = session(tree, fault);
    let context = context(&session, "call_1");
    let prepared = tool().prepare(&context, input).await.unwrap();
    let result = tool().call(&context, input, &prepared).await;
    (prepared, session.tree(), result, session.mutations())
}

async fn reconciled(tree: &Tree, input: &ToolInput, prepared: &Value) -> (Reconciled, Tree) {
    let session = session(tree, None);
    let outcome = tool().reconcile(&context(&session, "call_1"), input, prepared).await;
    (outcome, session.tree())
}

/// Stops a call at every write and checks that reconciling leads to the same tree and the same words.
async fn survives_every_stop(tree: Tree, patch: String) {
    let input = ToolInput::Text(patch);
    let (prepared, wanted, result, writes) = interrupted(&tree, &input, None).await;
    assert_eq!(result.status, ToolStatus::Completed, "{}", result.output.text());
    for nth in 0..writes {
        for fault in [Fault::GoneBefore(nth), Fault::GoneAfter(nth)] {
            let (_, left, failure, _) = interrupted(&tree, &input, Some(fault)).await;
            assert!(failure.session_lost && failure.status == ToolStatus::Failed, "{fault:?}");
            let (outcome, now) = reconciled(&left, &input, &prepared).await;
            if left == tree {
                assert_eq!(outcome, Reconciled::NotStarted, "{fault:?}");
                assert_eq!(now, tree);
            } else {
                assert_eq!(outcome, Reconciled::Done(result.clone()), "{fault:?}");
                assert_eq!(now, wanted, "{fault:?}");
            }
        }
    }
    // Done, with the answer lost on the way.
    let (outcome, now) = reconciled(&wanted, &input, &prepared).await;
    assert_eq!((outcome, now), (Reconciled::Done(result), wanted));
}

fn tree(files: impl IntoIterator<Item = (&'static str, Node)>) -> Tree {
    MemorySession::with(files).tree()
}

#[tokio::test]
async fn a_patch_with_everything_survives_every_stop() {
    let script = Node::File { data: Bytes::from_static(b"run\n"), mode: 0o755 };
    let patch = "*** Begin Patch\n*** Update File: log\n@@\n head\n+inserted\n*** Add File: new/file\n+x\n\
                 *** Update File: run.sh\n*** Move to: bin/run\n@@\n run\n+more\n*** Delete File: old\n\
                 *** Update File: other\n@@\n-a\n+b\n*** End Patch";
    let files =
        [("log", text("head\ntail\n")), ("run.sh", script), ("old", text("old\n")), ("other", text("a\n"))];
    survives_every_stop(tree(files), patch.into()).await;
}

#[tokio::test]
async fn a_chain_of_moves_survives_every_stop() {
    let patch = "*** Begin Patch\n*** Update File: a\n*** Move to: b\n@@\n-a\n+a1\n*** Add File: a\n+new\n\
                 *** Update File: c\n*** Move to: d\n@@\n-c\n+c1\n*** End Patch";
    survives_every_stop(tree([("a", text("a\n")), ("c", text("c\n"))]), patch.into()).await;
}

#[tokio::test]
async fn a_file_that_nobody_knows_is_not_touched() {
    let before = tree([("a", text("a\n")), ("b", text("b\n"))]);
    let patch =
        "*** Begin Patch\n*** Update File: a\n@@\n-a\n+A\n*** Update File: b\n@@\n-b\n+B\n*** End Patch";
    let input = ToolInput::Text(patch.into());
    let (prepared, ..) = interrupted(&before, &input, Some(Fault::GoneBefore(0))).await;
    let strange = tree([("a", text("A\n")), ("b", text("somebody else's\n"))]);
    let (outcome, now) = reconciled(&strange, &input, &prepared).await;
    assert_eq!((outcome, now), (Reconciled::Unknown, strange));
}

#[tokio::test]
async fn a_patch_that_changes_nothing_is_done() {
    let before = tree([("a", text("a\n"))]);
    let input = ToolInput::Text("*** Begin Patch\n*** Update File: a\n@@\n a\n*** End Patch".into());
    let (prepared, ..) = interrupted(&before, &input, None).await;
    let (outcome, now) = reconciled(&before, &input, &prepared).await;
    assert!(matches!(outcome, Reconciled::Done(_)), "{outcome:?}");
    assert_eq!(now, before);
}

#[tokio::test]
async fn without_what_prepare_found_nothing_is_known() {
    let before = tree([("a", text("a\n"))]);
    let input = ToolInput::Text("*** Begin Patch\n*** Delete File: a\n*** End Patch".into());
    assert_eq!(reconciled(&before, &input, &Value::Null).await, (Reconciled::Unknown, before));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// For each of some files: nothing, a change, a move, a removal, a replacement; and new files.
    #[test]
    fn generated_patches_survive_every_stop(actions in proptest::collection::vec(0..6u8, 1..8)) {
        let mut files = Tree::new();
        let mut patch = vec!["*** Begin Patch".to_owned()];
        for (nth, action) in actions.iter().enumerate() {
            if *action < 5 {
                files.insert(format!("f{nth}"), text(&format!("one {nth}\ntwo\n")));
            }
            let update = format!("*** Update File: f{nth}");
            patch.push(match action {
                0 => format!("*** Add File: n{nth}\n+new"),
                1 => format!("{update}\n@@\n two\n+inserted"),
                2 => format!("{update}\n*** Move to: d/f{nth}\n@@\n-one {nth}\n+1"),
                3 => format!("*** Delete File: f{nth}"),
                4 => format!("*** Delete File: f{nth}\n*** Add File: f{nth}\n+replaced"),
                _ => format!("*** Add File: d/e/n{nth}\n+deep"),
            });
        }
        patch.push("*** End Patch".to_owned());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(survives_every_stop(files, patch.join("\n")));
    }
}
