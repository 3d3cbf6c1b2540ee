//! A workspace as a tree of text, for the model's instructions.

use std::collections::BTreeMap;

use crate::{EntryKind, Manifest};

/// How many characters a description may have.
const MAX_CHARS: usize = 5000;

#[derive(Default)]
struct Node {
    below: BTreeMap<String, Node>,
    directory: bool,
    description: Option<String>,
    /// Where it is, if not below its parent.
    elsewhere: Option<String>,
}

struct Line {
    name: String,
    comment: String,
}

impl Manifest {
    /// The workspace as a tree of at most `depth` levels, names sorted, each with its absolute path and what it is
    /// for; and below it what a run is to leave there. The tree has at most 5000 characters; what was left out is said.
    pub fn describe(&self, depth: usize) -> String {
        let root = match self.root.trim_end_matches('/') {
            "" => "/",
            root => root,
        };
        let mut tree = Node::default();
        for located in self.located() {
            let Some(path) = located.path else { continue };
            let names: Vec<&str> = path.names().collect();
            let mut node = &mut tree;
            for name in names.iter().take(depth) {
                node.directory = true;
                node = node.below.entry(one_line(name)).or_default();
            }
            node.directory |= names.len() > depth || located.entry.kind.is_directory();
            if names.len() <= depth {
                node.description = located.entry.description.as_deref().map(one_line);
                if let EntryKind::Mount(mount) = &located.entry.kind {
                    node.elsewhere = mount.common.mount_path.as_deref().map(|path| below(root, path));
                }
            }
        }
        let mut lines = Vec::new();
        draw(&tree, "", root, &mut lines);
        let width = lines.iter().map(|line| line.name.chars().count()).max().unwrap_or(0) + 2;
        let mut text = format!("{}\n", one_line(root));
        for Line { name, comment } in lines {
            let space = " ".repeat(width - name.chars().count());
            text.extend([&name, &space, "# ", &comment, "\n"]);
        }
        shorten(text) + &self.describe_outputs(root)
    }
}

impl Manifest {
    /// What is to be there in the end, one line each; empty where nothing is asked for.
    fn describe_outputs(&self, root: &str) -> String {
        let mut text = String::new();
        for output in &self.extension.outputs {
            let when = if output.required { "" } else { " (where there is something to put there)" };
            let about = output.description.as_deref().map(|about| format!(" — {about}")).unwrap_or_default();
            text += &one_line(&format!("- {}{when}{about}", below(root, &output.path)));
            text.push('\n');
        }
        if text.is_empty() { text } else { format!("\nWhen you are done, these must be there:\n{text}") }
    }
}

fn draw(node: &Node, prefix: &str, path: &str, lines: &mut Vec<Line>) {
    let last = node.below.len().saturating_sub(1);
    for (index, (name, child)) in node.below.iter().enumerate() {
        let (branch, more) = if index == last { ("└── ", "    ") } else { ("├── ", "│   ") };
        let slash = if child.directory { "/" } else { "" };
        let here = below(path, name);
        let comment = child.elsewhere.as_ref().unwrap_or(&here);
        let comment = match &child.description {
            Some(description) => format!("{comment} — {description}"),
            None => comment.clone(),
        };
        lines.push(Line { name: format!("{prefix}{branch}{name}{slash}"), comment });
        draw(child, &format!("{prefix}{more}"), &here, lines);
    }
}

fn below(directory: &str, path: &str) -> String {
    if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("{}/{path}", directory.trim_end_matches('/'))
    }
}

/// A name or description must not draw branches of its own.
fn one_line(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { ' ' } else { char }).collect()
}

fn shorten(text: String) -> String {
    let total = text.chars().count();
    if total <= MAX_CHARS {
        return text;
    }
    let note = |left_out: usize| {
        format!(
            "\n... (truncated {left_out} chars)\n\nThe filesystem layout above was truncated. Use `ls` to explore \
             specific directories before relying on omitted paths.\n"
        )
    };
    // The note's own length depends on the number in it, by a digit at most.
    let kept = MAX_CHARS - note(total).chars().count();
    let head: String = text.chars().take(kept).collect();
    let head = head.trim_end();
    format!("{head}{}", note(total - head.chars().count()))
}
