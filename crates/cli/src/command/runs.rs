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
            });
            crate::view::line(&line.to_string())?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    if rows.is_empty() {
        crate::view::line("no runs yet: `moor run --help` tells how to start one")?;
    }
    for row in &rows {
        crate::view::line(&format!(
            "{}  {:<11}  {}  {}  {}",
            row.id,
            status(row),
            time(row.created_ms),
            one_line(row.summary["agent"].as_str().unwrap_or("?"), 20),
            one_line(row.summary["input"].as_str().unwrap_or_default(), 60),
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}
