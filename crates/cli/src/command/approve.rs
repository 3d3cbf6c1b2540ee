//! `moor approvals`, `moor approve`, `moor deny`.

use std::process::ExitCode;
use std::time::Duration;

use mooring_harness::{Answer, Answered, HarnessError};
use mooring_journal::{Journal, JournalError, RunId, RunRow};
use serde_json::{Value, json};

use crate::args::{ApprovalsArgs, ApproveArgs, DenyArgs};
use crate::command_error::CommandError;
use crate::home::{Home, variable};
use crate::host::now_ms;
use crate::view::text::{one_line, spelled, time};

/// How often it is tried while a driver is at work on the run.
const RETRY: Duration = Duration::from_millis(200);
/// After so many tries it is told what is waited for.
const TELL: u32 = 5;

pub(crate) async fn list(args: &ApprovalsArgs) -> Result<ExitCode, CommandError> {
    let rows = Home::find()?.journal()?.runs(None).await?;
    let json = args.json || !crate::view::people();
    let mut found = false;
    for (row, approval) in rows.iter().flat_map(|row| waiting(row).map(move |approval| (row, approval))) {
        found = true;
        if json {
            let mut line = approval.clone();
            line["run"] = json!(row.id);
            line["agent"] = row.summary["agent"].clone();
            crate::view::line(&line.to_string())?;
            continue;
        }
        let text = |name: &str| approval[name].as_str().unwrap_or_default();
        // Whoever answers must see all of it.
        let input = spelled(text("input"));
        let short = one_line(&input, 100);
        let (first, rest) = if short == input.trim() {
            (short.as_str(), String::new())
        } else {
            ("", input.lines().map(|line| format!("    | {line}\n")).collect())
        };
        crate::view::line(&format!(
            "{}  {} {first}\n{rest}    {} · run {} · until {}",
            text("id"),
            text("tool"),
            one_line(text("reason"), 80),
            row.id,
            time(approval["expires_ms"].as_i64().unwrap_or_default()),
        ))?;
        if !approval["schema"].is_null() {
            let schema = one_line(&approval["schema"].to_string(), 400);
            crate::view::line(&format!("    answer with --input, JSON after {schema}"))?;
        }
    }
    if !found && !json {
        crate::view::line("nothing waits for an approval")?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn approve(args: ApproveArgs) -> Result<ExitCode, CommandError> {
    let input = args.input.as_deref().map(|text| {
        serde_json::from_str::<serde_json::Map<String, Value>>(text)
            .map(Value::Object)
            .map_err(|error| CommandError::input(format!("--input: not a JSON object: {error}")))
    });
    answer(&args.id, true, args.always, None, input.transpose()?.unwrap_or_default()).await
}

pub(crate) async fn deny(args: DenyArgs) -> Result<ExitCode, CommandError> {
    answer(&args.id, false, false, args.reason, Value::Null).await
}

fn waiting(row: &RunRow) -> impl Iterator<Item = &Value> {
    row.summary["approvals"].as_array().into_iter().flatten()
}

async fn answer(
    id: &str,
    allow: bool,
    always: bool,
    reason: Option<String>,
    input: Value,
) -> Result<ExitCode, CommandError> {
    let journal = Home::find()?.journal()?;
    let by = variable("USER").or_else(|| variable("LOGNAME")).unwrap_or_else(|| "a person".into());
    let run = find(&journal, id).await?;
    let mut tries = 0;
    let answered = loop {
        let answer = Answer { allow, always, by: by.clone(), reason: reason.clone(), input: input.clone() };
        match mooring_harness::answer(&journal, &run, id, answer, now_ms()).await {
            // Other calls of the turn are still running, or somebody else answers another question.
            Err(HarnessError::Journal(JournalError::Driven { .. } | JournalError::Conflict { .. })) => {
                tries += 1;
                if tries == TELL {
                    crate::view::note(&format!(
                        "run {run} is at work on other calls; this waits, and answers when it pauses (Ctrl-C: no answer)"
                    ));
                }
                tokio::time::sleep(RETRY).await;
            }
            result => break result?,
        }
    };
    let word = if allow { "approved" } else { "denied" };
    let run = top(&journal, run).await?;
    match answered {
        Answered::Recorded => crate::view::line(&format!("{word}; go on with: moor resume {run}"))?,
        Answered::Before(decision) if allow == (decision == "allow") => {
            crate::view::line(&format!("answered before: {decision}"))?;
        }
        Answered::Before(decision) => {
            return Err(CommandError::input(format!(
                "'{id}' was answered before: {decision}. An answer stays as it was given; `moor show {run}` tells by whom"
            )));
        }
        Answered::Expired => {
            return Err(CommandError::input(format!(
                "the time to answer '{id}' has passed, and the call counts as denied; go on with: moor resume {run}"
            )));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The run that a person started: it goes on with those below it.
async fn top(journal: &dyn Journal, mut run: RunId) -> Result<RunId, CommandError> {
    while let Some(row) = journal.runs(Some(&run)).await?.into_iter().next()
        && let Some(parent) = row.summary["parent"].as_str()
    {
        run = RunId(parent.to_owned());
    }
    Ok(run)
}

/// The run that asks this. One that was answered is found too, since answering twice is no error.
async fn find(journal: &dyn Journal, id: &str) -> Result<RunId, CommandError> {
    let rows = journal.runs(None).await?;
    if let Some(row) = rows.iter().find(|row| waiting(row).any(|approval| approval["id"] == id)) {
        return Ok(row.id.clone());
    }
    for row in &rows {
        let mut asked = false;
        crate::command::show::each(journal, &row.id, 0, |record| {
            asked |= matches!(&record.event, mooring_journal::Event::ApprovalRequested(event) if event.approval_id == id);
        })
        .await?;
        if asked {
            return Ok(row.id.clone());
        }
    }
    Err(CommandError::input(format!(
        "nothing waits for an approval '{id}'. `moor approvals` lists what does"
    )))
}
