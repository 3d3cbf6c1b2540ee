//! `moor show`.

use std::process::ExitCode;

use mooring_journal::{Journal, JournalError, Record, RunId};

use crate::args::ShowArgs;
use crate::command::runs::status;
use crate::command_error::CommandError;
use crate::home::Home;
use crate::view::story::Story;

/// How many events are read at a time.
const PAGE: usize = 1000;

pub(crate) async fn show(args: &ShowArgs) -> Result<ExitCode, CommandError> {
    let home = Home::find()?;
    let journal = home.journal()?;
    let run = RunId(args.run.clone());
    let mut story = Story::new(args.full, home.config()?.prices);
    let mut result = Ok(());
    each(&journal, &run, 0, |record| {
        let text = story.tell(record);
        if result.is_ok() && !text.is_empty() {
            result = crate::view::line(text.trim_end_matches('\n'));
        }
    })
    .await?;
    result?;
    if let Some(row) = journal.runs(Some(&run)).await?.first()
        && let word @ ("interrupted" | "running" | "starting") = status(row)
    {
        let next = if word == "interrupted" {
            format!("go on with: moor resume {run}")
        } else {
            format!("watch it with: moor events {run} --follow")
        };
        crate::view::line(&format!("\n{word} · {next}"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Calls `see` with each event after `after`; gives the last one's sequence number.
pub(crate) async fn each(
    journal: &dyn Journal,
    run: &RunId,
    mut after: u64,
    mut see: impl FnMut(&Record),
) -> Result<u64, JournalError> {
    loop {
        let records = match journal.read(run, after, PAGE).await {
            // What comes before the damage is shown first.
            Err(JournalError::Damaged { seq, .. }) if seq > after + 1 => {
                journal.read(run, after, (seq - after - 1) as usize).await?
            }
            result => result?,
        };
        let Some(last) = records.last() else { return Ok(after) };
        after = last.seq;
        records.iter().for_each(&mut see);
    }
}
