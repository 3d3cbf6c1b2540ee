//! The envelope of `apply_patch`: from the model's text to operations on files. Pure.
//!
//! Accepts what the OpenAI Agents SDK accepts, with its words for what it refuses: the `*** Begin Patch` form, and the
//! JSON form with one operation or several.

use serde_json::Value;

/// One operation of a patch. Paths are as the model wrote them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Makes a file.
    Create {
        /// The file.
        path: String,
        /// Its lines, each after a `+`.
        diff: String,
    },
    /// Changes a file.
    Update {
        /// The file.
        path: String,
        /// The hunks.
        diff: String,
        /// The file's new name, where it moves.
        move_to: Option<String>,
    },
    /// Removes a file.
    Delete {
        /// The file.
        path: String,
    },
}

/// Why a patch cannot be read. The text is the SDK's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SyntaxError {
    /// The first line is another.
    #[error("apply_patch input must start with '*** Begin Patch'")]
    Begin,
    /// The last line is another.
    #[error("apply_patch input must end with '*** End Patch'")]
    End,
    /// Nothing is between them.
    #[error("apply_patch input must include at least one file operation")]
    Empty,
    /// A section starts with an unknown line.
    #[error("Invalid apply_patch file operation header: {line}")]
    Header {
        /// The line.
        line: String,
    },
    /// A header names no file.
    #[error("Missing path in apply_patch header: {line}")]
    NoPath {
        /// The header.
        line: String,
    },
    /// A line of a new file does not start with `+`.
    #[error("Invalid Add File line: {line}")]
    AddLine {
        /// The line.
        line: String,
    },
    /// A new file has no line.
    #[error("Add File patch for {path} must include at least one + line")]
    AddNothing {
        /// The file.
        path: String,
    },
    /// Lines follow a deletion.
    #[error("Delete File patch for {path} must not include a diff")]
    DeleteBody {
        /// The file.
        path: String,
    },
    /// No hunk follows an update.
    #[error("Update File patch for {path} must include a hunk")]
    UpdateNothing {
        /// The file.
        path: String,
    },
    /// The input starts as JSON and is none.
    #[error("apply_patch JSON input is not valid JSON: {reason}")]
    Json {
        /// Where and why.
        reason: String,
    },
    /// The JSON form is of another shape.
    #[error("{reason}")]
    Shape {
        /// What is wrong.
        reason: String,
    },
}

const ADD: &str = "*** Add File: ";
const DELETE: &str = "*** Delete File: ";
const UPDATE: &str = "*** Update File: ";
const MOVE: &str = "*** Move to: ";

/// Reads a patch.
///
/// ```
/// use mooring_capability::{Operation, parse_patch};
/// let patch = "*** Begin Patch\n*** Delete File: old.txt\n*** End Patch";
/// assert_eq!(parse_patch(patch), Ok(vec![Operation::Delete { path: "old.txt".into() }]));
/// ```
pub fn parse_patch(input: &str) -> Result<Vec<Operation>, SyntaxError> {
    if input.trim_start().starts_with(['{', '[']) {
        let json =
            serde_json::from_str(input).map_err(|error| SyntaxError::Json { reason: error.to_string() })?;
        return parse_json_patch(&json);
    }
    let mut lines: Vec<_> = input.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line)).collect();
    if lines.last() == Some(&"") {
        lines.pop();
    }
    let body = match lines.as_slice() {
        ["*** Begin Patch", body @ .., "*** End Patch"] => body,
        ["*** Begin Patch", ..] => return Err(SyntaxError::End),
        _ => return Err(SyntaxError::Begin),
    };
    let mut operations = Vec::new();
    let mut rest = body;
    while let Some((header, after)) = rest.split_first() {
        let end = after.iter().position(|line| is_header(line)).unwrap_or(after.len());
        let (section, next) = after.split_at(end);
        operations.push(parse_operation(header, section)?);
        rest = next;
    }
    if operations.is_empty() { Err(SyntaxError::Empty) } else { Ok(operations) }
}

/// Reads the JSON form: an operation, an array of them, or either under `operation` or `operations`.
pub fn parse_json_patch(json: &Value) -> Result<Vec<Operation>, SyntaxError> {
    let operations = match json {
        Value::Array(operations) => operations.as_slice(),
        Value::Object(fields) => match (fields.get("operations"), fields.get("operation")) {
            (Some(Value::Array(operations)), _) => operations.as_slice(),
            (_, Some(operation)) if !operation.is_null() => std::slice::from_ref(operation),
            _ => std::slice::from_ref(json),
        },
        _ => return Err(shape("apply_patch JSON input must be an object or array")),
    };
    if operations.is_empty() {
        return Err(SyntaxError::Empty);
    }
    operations.iter().map(json_operation).collect()
}

fn parse_operation(header: &str, section: &[&str]) -> Result<Operation, SyntaxError> {
    let path_after = |line: &str, prefix: &str| match line[prefix.len()..].trim() {
        "" => Err(SyntaxError::NoPath { line: line.to_owned() }),
        path => Ok(path.to_owned()),
    };
    let diff = |lines: &[&str]| lines.join("\n") + "\n";
    if header.starts_with(ADD) {
        let path = path_after(header, ADD)?;
        if let Some(line) = section.iter().find(|line| !line.starts_with('+')) {
            return Err(SyntaxError::AddLine { line: (*line).to_owned() });
        }
        if section.is_empty() {
            return Err(SyntaxError::AddNothing { path });
        }
        Ok(Operation::Create { path, diff: diff(section) })
    } else if header.starts_with(DELETE) {
        let path = path_after(header, DELETE)?;
        if section.is_empty() {
            Ok(Operation::Delete { path })
        } else {
            Err(SyntaxError::DeleteBody { path })
        }
    } else if header.starts_with(UPDATE) {
        let path = path_after(header, UPDATE)?;
        let (move_to, hunks) = match section.split_first() {
            Some((line, hunks)) if line.starts_with(MOVE) => (Some(path_after(line, MOVE)?), hunks),
            _ => (None, section),
        };
        if hunks.is_empty() {
            return Err(SyntaxError::UpdateNothing { path });
        }
        Ok(Operation::Update { path, diff: diff(hunks), move_to })
    } else {
        Err(SyntaxError::Header { line: header.to_owned() })
    }
}

fn json_operation(json: &Value) -> Result<Operation, SyntaxError> {
    let Value::Object(fields) = json else {
        return Err(shape("apply_patch operation must be an object"));
    };
    let kind = fields.get("type").unwrap_or(&Value::Null);
    let text = |name: &str| fields.get(name).and_then(Value::as_str).map(str::to_owned);
    let Some(kind @ ("create_file" | "update_file" | "delete_file")) = kind.as_str() else {
        return Err(shape(format!("Invalid apply_patch operation type: {kind}")));
    };
    let Some(path) = text("path").filter(|path| !path.is_empty()) else {
        return Err(shape("apply_patch operation is missing a path"));
    };
    let move_to = match fields.get("move_to") {
        None | Some(Value::Null) => None,
        Some(Value::String(path)) => Some(path.clone()),
        Some(_) => return Err(shape("apply_patch operation move_to must be a string")),
    };
    let diff =
        || text("diff").ok_or_else(|| shape(format!("apply_patch operation {kind} is missing a diff")));
    match (kind, move_to) {
        ("update_file", move_to) => Ok(Operation::Update { path, diff: diff()?, move_to }),
        (_, Some(_)) => Err(shape(format!("apply_patch operation {kind} cannot have a move_to"))),
        ("create_file", None) => Ok(Operation::Create { path, diff: diff()? }),
        _ => Ok(Operation::Delete { path }),
    }
}

fn is_header(line: &str) -> bool {
    [ADD, DELETE, UPDATE].iter().any(|header| line.starts_with(header))
}

fn shape(reason: impl Into<String>) -> SyntaxError {
    SyntaxError::Shape { reason: reason.into() }
}
