//! `moor runs`.

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
    let below = |row: &&RunRow| row.summary["parent"].is_string();
    for row in rows.iter().filter(|row| !below(row)) {
        crate::view::line(&format!("{}  {}", row.id, told(row)))?;
        // The runs of its sub-agents, and of theirs, in the order that they began in.
        let of = |id: &str| id.strip_prefix(row.id.0.as_str()).is_some_and(|rest| rest.starts_with('-'));
        for row in rows.iter().rev().filter(|row| below(row) && of(&row.id.0)) {
            crate::view::line(&format!("  {}  {}", row.id, told(row)))?;
        }
    }
    Ok(ExitCode::SUCCESS)
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
