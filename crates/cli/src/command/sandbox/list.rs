//! `moor sandbox list`.

use std::process::ExitCode;

use serde_json::json;

use super::record::Record;
use crate::args::sandbox::ListArgs;
use crate::command_error::CommandError;
use crate::home::Home;
use crate::view::text::{count, number, one_line, time};

pub(crate) fn list(args: &ListArgs) -> Result<ExitCode, CommandError> {
    let home = Home::find()?;
    let json = args.json || !crate::view::people();
    if args.snapshots {
        return snapshots(&home, json);
    }
    let records = Record::all(&home)?;
    if records.is_empty() && !json {
        crate::view::line(
            "no sandboxes yet: `moor sandbox create` makes one; a run's own is named by the run's id",
        )?;
    }
    for record in &records {
        let line = if json {
            json!({
                "id": record.id(),
                "backend": record.state.backend,
                "created_ms": record.created_ms,
                "used_ms": record.used_ms,
                "base": record.base,
                "from": record.from,
                "unfinished": record.unfinished,
                "sandbox": record.sandbox,
            })
            .to_string()
        } else {
            let from = record.from.as_deref().map(|from| format!(" · from {}", one_line(from, 60)));
            let unfinished = match record.being_made(&home) {
                true => " · being made",
                false if record.unfinished => " · unfinished, to be removed with `moor sandbox rm`",
                false => "",
            };
            format!(
                "{}  {} · used {}{}{unfinished}",
                record.id(),
                record.state.backend,
                time(record.used_ms),
                from.unwrap_or_default()
            )
        };
        crate::view::line(&line)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn snapshots(home: &Home, json: bool) -> Result<ExitCode, CommandError> {
    let snapshots = home.snapshots()?.list()?;
    if snapshots.is_empty() && !json {
        crate::view::line("no snapshots yet: `moor sandbox snapshot` takes one")?;
    }
    for snapshot in &snapshots {
        let line = if json {
            serde_json::to_string(snapshot).map_err(|error| CommandError::failed(error.to_string()))?
        } else {
            format!(
                "{}  {} · {} · {} bytes, {} added",
                snapshot.id,
                time(snapshot.taken_ms),
                count(snapshot.files, "file"),
                number(snapshot.bytes),
                number(snapshot.added_bytes)
            )
        };
        crate::view::line(&line)?;
    }
    Ok(ExitCode::SUCCESS)
}
