//! What guardrails said and whether an answer was as it must be, in the story of a run.

use mooring_journal::event::{GuardrailChecked, OutputChecked};
use serde_json::Value;

use super::story::{BAD, DIM};
use super::text::{count, duration, one_line, safe};

/// What a guardrail said. Tool calls that pass are not told: there are many.
pub(crate) fn guardrail(checked: &GuardrailChecked) -> String {
    let name = safe(&checked.name);
    let stage = safe(&checked.stage.replace('_', " "));
    let why = match &checked.info {
        Value::Null => String::new(),
        Value::String(info) => format!(": {}", one_line(info, 150)),
        info => format!(": {}", one_line(&info.to_string(), 150)),
    };
    match checked.verdict.as_str() {
        "allow" if checked.call_id.is_some() => String::new(),
        "allow" => {
            format!(
                "{DIM}guardrail {name} lets the {stage} pass · {}{DIM:#}\n",
                duration(checked.duration_ms)
            )
        }
        "cancelled" => format!("{DIM}guardrail {name} was ended before it spoke{DIM:#}\n"),
        "reject" => format!("  guardrail {name} {BAD}rejects{BAD:#} the {stage}{why}\n"),
        "replace" => format!("  guardrail {name} {BAD}replaces{BAD:#} the {stage}\n"),
        _ => format!("guardrail {name} {BAD}trips{BAD:#} at the {stage}{why}\n"),
    }
}

/// Whether an answer was as its schema wants it.
pub(crate) fn output(checked: &OutputChecked) -> String {
    match checked.errors.split_first() {
        _ if checked.valid => format!("{DIM}the answer is as its schema wants it{DIM:#}\n"),
        None => format!("the answer is {BAD}not as its schema wants it{BAD:#}\n"),
        Some((first, others)) => {
            let more = match others.len() as u64 {
                0 => String::new(),
                more => format!(" · {} more", count(more, "error")),
            };
            format!("the answer is {BAD}not as its schema wants it{BAD:#}: {}{more}\n", one_line(first, 120))
        }
    }
}
