//! The tree that a model sees.

use mooring_manifest::{Entry, Manifest};
use serde_json::json;

fn tree() -> Manifest {
    Manifest::from_value(&json!({ "root": "/workspace/", "entries": {
        "src": { "type": "dir", "description": "source", "children": {
            "lib": { "type": "dir", "children": { "deep.py": { "type": "file", "content": "" } } },
            "main.py": { "type": "file", "content": "", "description": "two\nlines" },
        } },
        "docs/guide/intro.md": { "type": "file", "content": "", "description": "read this first" },
        "data": { "type": "s3_mount", "bucket": "b", "mount_path": "mnt/s3",
            "mount_strategy": { "type": "in_container", "pattern": { "type": "rclone" } } },
        "файл": { "type": "file", "content": "" },
    } }))
    .unwrap()
}

#[test]
fn a_tree_is_drawn_to_its_depth() {
    insta::assert_snapshot!("one", tree().describe(1));
    insta::assert_snapshot!("three", tree().describe(3));
    assert_eq!(tree().describe(0), "/workspace\n");
    assert_eq!(Manifest::default().describe(3), "/workspace\n");
}

#[test]
fn a_long_description_is_cut_and_says_so() {
    let mut manifest = Manifest::default();
    for index in 0..500 {
        manifest.entries.insert(format!("file-{index:03}.txt"), Entry::file("x"));
    }
    let text = manifest.describe(1);
    assert!(text.chars().count() <= 5000, "{}", text.chars().count());
    let (kept, note) = text.split_once("\n... (truncated ").unwrap();
    let (number, hint) = note.split_once(" chars)\n\n").unwrap();
    assert!(hint.starts_with("The filesystem layout above was truncated. Use `ls`"), "{hint}");
    // One line each, all of the same width but for the root's.
    let line = "├── file-000.txt  # /workspace/file-000.txt\n".chars().count();
    let total = "/workspace\n".len() + 500 * line;
    assert_eq!(kept.chars().count() + number.parse::<usize>().unwrap(), total);
}

#[test]
fn what_is_to_be_there_in_the_end_is_said_too() {
    let manifest = Manifest::from_value(&json!({ "x-mooring": { "outputs": [
        "report.md", { "path": "./dist", "required": false, "description": "what was\nbuilt" },
    ] } }))
    .unwrap();
    insta::assert_snapshot!(manifest.describe(3), @r"
    /workspace

    When you are done, these must be there:
    - /workspace/report.md
    - /workspace/./dist (where there is something to put there) — what was built
    ");
}
