//! `moor sandbox rm`.

use std::process::ExitCode;

use mooring_snapshot::SnapshotError;

use super::record::{Found, Record, one_of};
use crate::args::sandbox::RmArgs;
use crate::command_error::CommandError;
use crate::home::Home;

pub(crate) async fn rm(args: &RmArgs) -> Result<ExitCode, CommandError> {
    let home = Home::find()?;
    for id in &args.ids {
        let records = Record::all(&home)?;
        if let Some(record) = one_of(&records, id, "sandbox", |record| record.id())? {
            let found = Found::find(&home, record.id()).await?;
            found.client.delete(&record.state).await?;
            Record::forget(&home, record.id())?;
            crate::view::line(&format!("removed sandbox {}", record.id()))?;
            continue;
        }
        match home.snapshots()?.remove(id) {
            Ok(()) => crate::view::line(&format!("removed snapshot {id}"))?,
            Err(SnapshotError::Unknown { .. }) => {
                return Err(CommandError::input(format!(
                    "there is no sandbox and no snapshot '{id}'; `moor sandbox list` lists the sandboxes, with \
                     --snapshots the snapshots. What runs left goes with `moor sandbox prune`"
                )));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(ExitCode::SUCCESS)
}
