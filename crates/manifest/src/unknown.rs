//! Keys that nobody knows. What was read is written again; what is missing there was not understood.
//!
//! Comparing with the written form needs no second list of field names that could fall behind the first.

use serde_json::Value;

use crate::Problem;
use crate::problem::member;

/// The keys of `read` that are not in `written`, at any depth.
pub(crate) fn keys(read: &Value, written: &Value, at: &str, found: &mut Vec<Problem>) {
    match (read, written) {
        (Value::Object(read), Value::Object(written)) => {
            for (key, value) in read {
                match written.get(key) {
                    // Reading fails on what it does not know in there, and what says nothing is not written.
                    _ if at.is_empty() && key == crate::read::ADDITIONS => {}
                    // The only field that is not written when it has no value.
                    None if key == "host_path" && value.is_null() => {}
                    Some(written) => keys(value, written, &member(at, key), found),
                    None => found.push(unknown(key, value, at, written)),
                }
            }
        }
        (Value::Array(read), Value::Array(written)) => {
            for (index, (read, written)) in read.iter().zip(written).enumerate() {
                keys(read, written, &format!("{at}[{index}]"), found);
            }
        }
        _ => {}
    }
}

fn unknown(key: &str, value: &Value, at: &str, written: &serde_json::Map<String, Value>) -> Problem {
    let problem = Problem::new(member(at, key), format!("unknown key '{key}'"));
    if at == "environment" {
        let inner = serde_json::json!({ "value": { key: value } });
        return problem.hint(format!("variables stand below 'value': write {inner}"));
    }
    if at.starts_with("environment.value") && key == "description" {
        return problem.hint("with a description, write \"value\": {\"type\": \"str\", \"value\": \"…\"}");
    }
    let known = written.keys().map(String::as_str).chain(at.is_empty().then_some(crate::read::ADDITIONS));
    problem.hint(suggest(key, known))
}

/// `did you mean …?`, or what there is.
pub(crate) fn suggest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    let near = known
        .iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1.max(candidate.len() / 3))
        .min();
    match near {
        Some((_, candidate)) => format!("did you mean '{candidate}'?"),
        None => format!("known: {}", known.join(", ")),
    }
}

/// How many letters must be put in, taken out or changed. Words that are far longer than any key are not compared.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().collect());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut corner = i;
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let changed = corner + usize::from(from != to);
            corner = row[j + 1];
            row[j + 1] = changed.min(corner + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
