//! `moor events`.

use std::process::ExitCode;
use std::time::Duration;

use mooring_journal::{Event, Journal as _, Record, RunId};
use serde_json::Value;

use crate::args::EventsArgs;
use crate::command::show::each;
use crate::command_error::CommandError;
use crate::home::Home;
use crate::view::text::{one_line, time};

/// How often to look for further events.
const INTERVAL: Duration = Duration::from_millis(200);

pub(crate) async fn events(args: &EventsArgs) -> Result<ExitCode, CommandError> {
    let journal = Home::find()?.journal()?;
    let run = RunId(args.run.clone());
    let json = args.json || !crate::view::people();
    let mut after = 0;
    loop {
        let mut result = Ok(());
        let mut over = false;
        after = each(&journal, &run, after, |record| {
            over = matches!(record.event, Event::RunFinished(_));
            if result.is_ok() {
                result =
                    if json { crate::view::json_line(record) } else { crate::view::line(&brief(record)) };
            }
        })
        .await?;
        result?;
        if !args.follow || over {
            return Ok(ExitCode::SUCCESS);
        }
        if journal.runs(Some(&run)).await?.first().is_some_and(|row| !row.driven && row.last_seq == after) {
            crate::view::note(&format!("no driver: the run was interrupted. Go on with: moor resume {run}"));
            return Ok(ExitCode::SUCCESS);
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// An event in a line.
fn brief(record: &Record) -> String {
    let value = serde_json::to_value(&record.event).unwrap_or_default();
    let kind = value["type"].as_str().unwrap_or("?").to_owned();
    let fields = ["tool", "call_id", "status", "turn", "reason", "message", "session_id"];
    let told: Vec<String> = fields
        .iter()
        .filter_map(|field| match value.get(field)? {
            Value::String(text) => Some(format!("{field}={}", one_line(text, 60))),
            Value::Number(number) => Some(format!("{field}={number}")),
            _ => None,
        })
        .collect();
    format!("{:>5}  {}  {:<18} {}", record.seq, time(record.at_ms), kind, told.join(" "))
}
