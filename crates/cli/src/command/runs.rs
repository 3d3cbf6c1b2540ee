//! `moor runs`.

use std::collections::HashSet;
use std::process::ExitCode;

use mooring_journal::{Journal as _, RunRow};
use serde_json::json;

use crate::args::RunsArgs;
use crate::command_error::CommandError;
use crate::home::Home;
use crate::view::text::{one_line, time};

/// A run's status for listings: one that says running without a driver was interrupted.
pub(crate) fn status(row: &RunRow) -> &str {
    match row.summary["status"].as_str() {
        Some("running") | None if !row.driven => "interrupted",
        Some(status) => status,
        None => "starting",
    }
}

pub(crate) async fn runs(args: &RunsArgs) -> Result<ExitCode, CommandError> {
    let home = Home::find()?;
    let rows = home.journal()?.runs(None).await?;
    if args.json || !crate::view::people() {
        for row in &rows {
            let line = json!({
                "id": row.id,
                "status": status(row),
                "created_ms": row.created_ms,
                "updated_ms": row.updated_ms,
                "events": row.last_seq,
                "agent": row.summary["agent"],
                "model": row.summary["model"],
                "turns": row.summary["turns"],
                "usage": row.summary["usage"],
                "input": row.summary["input"],
                "parent": row.summary["parent"],
            });
            crate::view::line(&line.to_string())?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    if rows.is_empty() {
        crate::view::line("no runs yet: `moor run --help` tells how to start one")?;
    }
    let ids: HashSet<&str> = rows.iter().map(|row| row.id.0.as_str()).collect();
    for row in rows.iter().filter(|row| caller(&ids, &row.id.0).is_none()) {
        crate::view::line(&format!("{}  {}", row.id, told(row)))?;
        // The runs of its sub-agents, and of theirs, in the order that they began in.
        for row in rows.iter().rev().filter(|other| caller(&ids, &other.id.0) == Some(&row.id.0)) {
            crate::view::line(&format!("  {}  {}", row.id, told(row)))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The topmost run that a sub-agent's belongs to: its id begins with that one's. Of a run that has no event yet nothing
/// else says it, and a fork has a parent too.
fn caller<'a>(ids: &HashSet<&'a str>, id: &'a str) -> Option<&'a str> {
    id.match_indices('-').map(|(at, _)| &id[..at]).find_map(|begin| ids.get(begin).copied())
}

fn told(row: &RunRow) -> String {
    format!(
        "{:<11}  {}  {}  {}",
        status(row),
        time(row.created_ms),
        one_line(row.summary["agent"].as_str().unwrap_or("?"), 20),
        one_line(row.summary["input"].as_str().unwrap_or_default(), 60),
    )
}

#[cfg(test)]
mod tests {
    use super::caller;

    #[test]
    fn runs_of_sub_agents_belong_to_the_topmost_run() {
        let ids = ["0a-1b", "0a-1b-2-0", "0a-1b-2-0-1-0", "0c"].into();
        assert_eq!(caller(&ids, "0a-1b-2-0-1-0"), Some("0a-1b"));
        assert_eq!(caller(&ids, "0a-1b-2-0"), Some("0a-1b"));
        assert_eq!(caller(&ids, "0a-1b"), None);
        assert_eq!(caller(&ids, "0c"), None);
    }
}
