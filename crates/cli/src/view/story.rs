//! A run's events as a story. The live view and `moor show` tell the same one.

use std::collections::HashMap;

use anstyle::{AnsiColor, Style};
use mooring_harness::{Budget, Resource};
use mooring_journal::event::{
    Compacted, Egress, ModelCompleted, RunFinished, RunStarted, SandboxReady, ToolCompleted,
};
use mooring_journal::{Event, Record, RunId};
use mooring_model::{Cost, FunctionOutput, Item, Prices, Usage};
use serde_json::Value;

use crate::view::checks;
use crate::view::text::{count, duration, number, one_line, safe, time};

pub(super) const DIM: Style = Style::new().dimmed();
const BOLD: Style = Style::new().bold();
const TOOL: Style = AnsiColor::Cyan.on_default();
const GOOD: Style = AnsiColor::Green.on_default();
pub(super) const BAD: Style = AnsiColor::Red.on_default();

/// How many lines of an output are shown from its start and from its end.
const HEAD: usize = 3;
const TAIL: usize = 7;
/// How many characters of a line.
const WIDTH: usize = 160;

/// The stories of a run and of the runs below it, told side by side: each line of a run below says whose it is.
#[derive(Debug)]
pub(crate) struct Stories {
    prices: Prices,
    top: Option<RunId>,
    runs: HashMap<RunId, (Story, String)>,
}

impl Stories {
    /// Stories with outputs folded.
    pub(crate) fn new(prices: Prices) -> Self {
        Self { prices, top: None, runs: HashMap::new() }
    }

    /// What an event adds: whole lines, or nothing.
    pub(crate) fn tell(&mut self, record: &Record) -> String {
        let top = self.top.get_or_insert_with(|| record.run.clone()).clone();
        let (story, label) = self.runs.entry(record.run.clone()).or_insert_with(|| {
            let place = record.run.0.strip_prefix(&top.0).unwrap_or_default();
            (Story::new(false, self.prices.clone()), place.trim_start_matches('-').to_owned())
        });
        if record.run == top {
            return story.tell(record);
        }
        story.nested = true;
        if let Event::RunStarted(started) = &record.event {
            *label = format!("{} {label}", safe(started.agent["name"].as_str().unwrap_or("agent")));
        }
        let text = story.tell(record);
        let lines = text.lines().filter(|line| !line.trim().is_empty());
        lines.map(|line| format!("  {DIM}{label} │{DIM:#} {line}\n")).collect()
    }
}

/// Turns events into lines of text.
#[derive(Debug, Default)]
pub(crate) struct Story {
    /// Fold nothing.
    full: bool,
    /// It is told within another: what to do next is said there.
    nested: bool,
    /// What the calls that are not over were asked to do.
    calls: HashMap<String, String>,
    /// What the model wrote as the input of its last calls.
    inputs: HashMap<String, String>,
    workspace: Option<String>,
    began_ms: i64,
    prices: Prices,
    /// The agent's model, and whether others may stand in for it.
    model: (String, bool),
    /// What the answers cost so far; `None` once one has no price.
    cost: Option<Cost>,
}

impl Story {
    /// A story with outputs folded, or in full.
    pub(crate) fn new(full: bool, prices: Prices) -> Self {
        Self { full, prices, cost: Some(Cost::default()), ..Self::default() }
    }

    /// What an event adds to the story: whole lines, or nothing.
    pub(crate) fn tell(&mut self, record: &Record) -> String {
        match &record.event {
            Event::RunStarted(started) => {
                self.began_ms = record.at_ms;
                let model = started.agent["model"].as_str().unwrap_or_default().to_owned();
                self.model = (model, started.agent["fallbacks"].is_array());
                Self::started(record, started)
            }
            Event::DriverAttached(driver) if driver.resumed => {
                format!("\n{DIM}resumed at {} by process {}{DIM:#}\n", time(record.at_ms), driver.pid)
            }
            Event::SandboxReady(ready) => self.sandbox_ready(ready),
            Event::SandboxLost(lost) => format!("{BAD}sandbox lost{BAD:#}  {}\n", tidy(&lost.reason)),
            Event::SnapshotTaken(taken) => format!(
                "{DIM}snapshot {} · {} · {} bytes added · {}{DIM:#}\n",
                taken.snapshot,
                count(taken.files, "file"),
                number(taken.added_bytes),
                duration(taken.duration_ms)
            ),
            Event::SnapshotFailed(failed) => {
                format!("{BAD}no snapshot{BAD:#}  {}\n", tidy(&failed.reason))
            }
            Event::ContextAdded(context) => {
                let read =
                    context.sources.iter().map(|source| one_line(source, 60)).collect::<Vec<_>>().join(", ");
                let read =
                    if read.is_empty() { read } else { format!("{DIM}the workspace says: {read}{DIM:#}\n") };
                let problem =
                    |problem: &String| format!("{DIM}left out: {}{DIM:#}\n", one_line(problem, 150));
                read + &context.problems.iter().map(problem).collect::<String>()
            }
            Event::ModelCompleted(answer) => {
                self.inputs = answer.items.iter().filter_map(input).collect();
                self.price(answer);
                Self::answer(answer)
            }
            Event::ModelFailed(failed) => {
                format!("\nturn {}  {BAD}model failed{BAD:#}  {}\n", failed.turn, tidy(&failed.message))
            }
            Event::ApprovalRequested(asked) => {
                let input = self.inputs.get(&asked.call_id).map_or("", String::as_str);
                format!(
                    "  {BOLD}approval {}{BOLD:#} {TOOL}{}{TOOL:#} {}  {DIM}· {}{DIM:#}\n",
                    safe(&asked.approval_id),
                    safe(&asked.tool),
                    describe(&asked.tool, input, &Value::Null),
                    one_line(&asked.reason, 100)
                )
            }
            Event::ApprovalAnswered(answer) => {
                let style = if answer.decision == "allow" { GOOD } else { BAD };
                let reason = answer.reason.as_ref().map(|reason| format!(": {}", one_line(reason, 100)));
                let (id, decision, by) =
                    (safe(&answer.approval_id), safe(&answer.decision), safe(&answer.by));
                format!("  approval {id} {style}{decision}{style:#} by {by}{}\n", reason.unwrap_or_default())
            }
            Event::ToolRequested(requested) => {
                let told = describe(&requested.tool, &requested.arguments, &requested.prepared);
                self.calls.insert(requested.call_id.clone(), told);
                String::new()
            }
            Event::ToolCompleted(completed) => self.tool(completed),
            Event::ToolSuspended(suspended) => {
                format!("  {TOOL}{}{TOOL:#}  {}\n", safe(&suspended.tool), one_line(&suspended.reason, 150))
            }
            Event::HandedOff(handed) => {
                format!("\n{BOLD}{}{BOLD:#} {DIM}goes on{DIM:#}\n", safe(&handed.to))
            }
            Event::Egress(egress) => self.egress(egress),
            Event::MountFailed(failed) => {
                let tried = format!("{} {}", failed.operation, failed.path);
                format!(
                    "  {BAD}mount {} cannot {}{BAD:#}  {DIM}· {}{DIM:#}\n",
                    safe(&failed.mount),
                    one_line(tried.trim_end(), 100),
                    one_line(&failed.reason, 150)
                )
            }
            Event::RunForked(forked) => {
                let said: Vec<String> = forked.input.iter().map(item_text).collect();
                let said =
                    if said.is_empty() { String::new() } else { indent(&said.join("\n"), "> ") + "\n" };
                let place = place(forked.session.is_some(), !forked.items.is_empty());
                format!("{DIM}forked from event {} of run {}{place}{DIM:#}\n{said}", forked.at, forked.from)
            }
            Event::RunImported(imported) => {
                let place = place(imported.session.is_some(), !imported.items.is_empty());
                format!("{DIM}brought in, as {} wrote it{place}{DIM:#}\n", safe(&imported.runtime))
            }
            Event::GuardrailChecked(checked) => checks::guardrail(checked),
            Event::OutputChecked(checked) => checks::output(checked),
            Event::CancelRequested(cancel) => format!("\n{BAD}cancelled{BAD:#} by {}\n", safe(&cancel.by)),
            Event::BudgetGranted(granted) => {
                format!("{DIM}account {} grants {}{DIM:#}\n", safe(&granted.account), grant(&granted.granted))
            }
            Event::Compacted(compacted) => self.compacted(compacted),
            Event::CompactionFailed(failed) => {
                format!("\n{DIM}the conversation stays as it is: {}{DIM:#}\n", one_line(&failed.reason, 150))
            }
            Event::DeadlinePassed(passed) => format!("\n{BAD}time is up{BAD:#}  {}\n", safe(&passed.limit)),
            Event::RunFinished(finished) => self.finished(record, finished),
            Event::Reward(reward) => format!("reward  {} from {}\n", reward.value, safe(&reward.source)),
            Event::Unknown(fields) => {
                let kind = fields.get("type").and_then(Value::as_str).unwrap_or("?");
                format!("{DIM}{} (written by a newer version){DIM:#}\n", safe(kind))
            }
            _ => String::new(),
        }
    }

    fn started(record: &Record, started: &RunStarted) -> String {
        let name = started.agent["name"].as_str().unwrap_or("agent");
        let model = started.agent["model"].as_str().unwrap_or("?");
        // What came before in the conversation was told with the runs that it happened in.
        let before = started.history.as_ref().map_or(0, |history| history.items);
        let prompt: Vec<String> = started
            .input
            .iter()
            .skip(usize::try_from(before).unwrap_or(0))
            .filter_map(|item| serde_json::from_value::<Item>(item.clone()).ok())
            .map(|item| tidy(&item.text()))
            .collect();
        format!(
            "{BOLD}{}{BOLD:#} · {} {DIM}· run {}{DIM:#}\n{}\n",
            safe(name),
            one_line(model, 60),
            record.run,
            indent(&prompt.join("\n"), "> ")
        )
    }

    fn sandbox_ready(&mut self, ready: &SandboxReady) -> String {
        self.workspace = ready.state["data"]["workspace"].as_str().map(str::to_owned);
        let level = ready.isolation["level"].as_str().unwrap_or("?");
        let staged = ready.staged.as_ref().map_or(String::new(), |staged| {
            let setup = match staged["setup"]["how"].as_str() {
                Some("cached") => " · setup cached",
                Some(_) => " · setup run",
                None => "",
            };
            format!(" · {} staged{setup}", count(staged["files"].as_u64().unwrap_or(0), "file"))
        });
        let backend = ready.state["backend"].as_str().unwrap_or("?");
        let level = if level == "none" { format!("{BAD}no isolation{BAD:#}{DIM}") } else { level.to_owned() };
        let ports: String = ready
            .ports
            .iter()
            .map(|exposed| {
                format!("port {} of the sandbox is at {}\n", exposed.port, one_line(&exposed.address, 60))
            })
            .collect();
        let took = duration(ready.duration_ms);
        format!("{DIM}sandbox {backend} · {level}{staged} · {took}{DIM:#}\n{ports}")
    }

    fn answer(answer: &ModelCompleted) -> String {
        let usage: Usage = serde_json::from_value(answer.usage.clone()).unwrap_or_default();
        let mut head =
            format!("\n{BOLD}turn {}{BOLD:#} {DIM}· {}", answer.turn, duration(answer.duration_ms));
        if usage.total() > 0 {
            head += &format!(" · {} in", number(usage.input_tokens));
            if usage.cached_input_tokens > 0 {
                head += &format!(" ({} cached)", number(usage.cached_input_tokens));
            }
            head += &format!(" · {} out", number(usage.output_tokens));
        }
        if answer.attempts > 1 {
            head += &format!(" · {} tries", answer.attempts);
        }
        let items = answer.items.iter().filter_map(|item| serde_json::from_value::<Item>(item.clone()).ok());
        let called = answer
            .items
            .iter()
            .any(|item| matches!(item["type"].as_str(), Some("function_call" | "custom_tool_call")));
        // The last answer is told where the run ends.
        let texts: Vec<String> =
            items.map(|item| item.text()).filter(|text| called && !text.trim().is_empty()).collect();
        let body =
            if texts.is_empty() { String::new() } else { indent(&tidy(&texts.join("\n")), "  ") + "\n" };
        format!("{head}{DIM:#}\n{body}")
    }

    fn compacted(&mut self, compacted: &Compacted) -> String {
        let usage: Usage = serde_json::from_value(compacted.usage.clone()).unwrap_or_default();
        let recorded = compacted.cost.as_deref().and_then(|cost| Cost::parse(cost).ok());
        let cost = recorded.or_else(|| self.prices.cost(&compacted.model, &usage));
        self.cost = self.cost.and_then(|sum| Some([sum, cost?].into_iter().sum()));
        let part = count(compacted.to - compacted.from.min(compacted.to), "item");
        let head = format!(
            "\n{BOLD}shortened{BOLD:#} {DIM}· {part} into {} · {} in · {} out · {}{DIM:#}\n",
            compacted.items.len(),
            number(usage.input_tokens),
            number(usage.output_tokens),
            duration(compacted.duration_ms)
        );
        let last = compacted.items.last().and_then(|item| serde_json::from_value::<Item>(item.clone()).ok());
        let text = last.map(|item| self.fold(&item.text())).unwrap_or_default();
        head + &indent(&text, &format!("  {DIM}│{DIM:#} ")) + "\n"
    }

    fn price(&mut self, answer: &ModelCompleted) {
        // Of a chain, the answer names who gave it; alone, the provider may call the model otherwise than we do.
        let model = if self.model.1 { &answer.model } else { &self.model.0 };
        let usage: Usage = serde_json::from_value(answer.usage.clone()).unwrap_or_default();
        // What was recorded, tries that failed included; a run that knew no price may have one now.
        let recorded = answer.cost.as_deref().and_then(|cost| Cost::parse(cost).ok());
        let cost = recorded.or_else(|| self.prices.cost(model, &usage));
        self.cost = self.cost.and_then(|sum| Some([sum, cost?].into_iter().sum()));
    }

    fn tool(&mut self, completed: &ToolCompleted) -> String {
        let described = self.calls.remove(&completed.call_id).unwrap_or_else(|| {
            // It was answered without having begun: denied, or cancelled.
            let input = self.inputs.get(&completed.call_id).map_or("", String::as_str);
            describe(&completed.tool, input, &Value::Null)
        });
        let output: Option<Item> = serde_json::from_value(completed.output.clone()).ok();
        let output = match &output {
            Some(Item::FunctionCallOutput { output, .. } | Item::CustomToolCallOutput { output, .. }) => {
                shown(output)
            }
            _ => String::new(),
        };
        let (end, good) = ending(completed);
        let style = if good { GOOD } else { BAD };
        let folded = self.fold(&output);
        let below = completed.details["run"].as_str().map(|run| format!(" · run {}", safe(run)));
        let body = if folded.is_empty() {
            String::new()
        } else {
            indent(&folded, &format!("  {DIM}│{DIM:#} ")) + "\n"
        };
        format!(
            "  {TOOL}{}{TOOL:#} {}  {style}{end}{style:#} {DIM}· {}{}{DIM:#}\n{body}",
            safe(&completed.tool),
            described,
            duration(completed.duration_ms),
            below.unwrap_or_default()
        )
    }

    /// What was refused or failed, and what took a secret; all the rest in the full story.
    fn egress(&self, egress: &Egress) -> String {
        let denied = egress.decision == "deny";
        if egress.decision == "allow" && egress.secrets.is_empty() && !self.full {
            return String::new();
        }
        let times = if egress.count > 1 { format!(" {} times", egress.count) } else { String::new() };
        let host = if egress.host.is_empty() { "others" } else { &egress.host };
        let request = [egress.method.as_deref(), Some(host), egress.path.as_deref()];
        let request = request.into_iter().flatten().collect::<Vec<_>>().join(" ");
        let style = if egress.decision == "allow" { DIM } else { BAD };
        let word = if denied { "refused" } else { egress.decision.as_str() };
        let secrets = if egress.secrets.is_empty() {
            String::new()
        } else {
            format!("with {}", egress.secrets.join(", "))
        };
        let why = egress.reason.as_deref().unwrap_or(&secrets);
        format!(
            "  {style}network {}{style:#} {}{times}  {DIM}· {}{DIM:#}\n",
            safe(word),
            one_line(&request, 100),
            one_line(why, 150)
        )
    }

    fn finished(&self, record: &Record, finished: &RunFinished) -> String {
        let usage: Usage = serde_json::from_value(finished.usage.clone()).unwrap_or_default();
        let style = match finished.status.as_str() {
            "completed" => GOOD,
            "waiting" => DIM,
            _ => BAD,
        };
        let took = u64::try_from(record.at_ms - self.began_ms).unwrap_or(0);
        let mut text = format!(
            "\n{style}{}{style:#} {DIM}· {} · {}",
            safe(&finished.status),
            count(finished.turns, "turn"),
            duration(took)
        );
        if usage.total() > 0 {
            text += &format!(" · {} tokens", number(usage.total()));
            if let Some(cost) = self.cost {
                text += &format!(" · {cost}");
            }
        }
        text += &format!("{DIM:#}\n");
        if let Some(error) = &finished.error {
            text += &format!("{}\n", indent(&tidy(&format!("{}: {}", error.code, error.message)), "  "));
        }
        if let Some(output) = &finished.output {
            text += &format!("{}\n", indent(&tidy(output), "  "));
        }
        if let Some(workspace) = &self.workspace {
            text += &format!("{DIM}workspace {}{DIM:#}\n", safe(workspace));
        }
        if self.nested {
            return text;
        }
        if finished.status == "waiting" {
            text += &format!(
                "{DIM}moor approvals lists what waits; answer with: moor approve ID, or moor deny ID --reason TEXT{DIM:#}\n"
            );
        }
        let code = finished.error.as_ref().map_or("", |error| error.code.as_str());
        if matches!(code, "max_turns" | "budget_exhausted") {
            text += &format!(
                "{DIM}a run keeps its limits: raise them in the agent file and ask anew, or, where a tenant's account was \
                 full, go on with: moor resume {}{DIM:#}\n",
                record.run
            );
        } else if finished.status != "completed" {
            text += &format!("{DIM}go on with: moor resume {}{DIM:#}\n", record.run);
        }
        text
    }

    fn fold(&self, output: &str) -> String {
        let output = safe(output.trim_end());
        let lines: Vec<&str> = output.lines().collect();
        if self.full {
            return output;
        }
        let cut = |line: &&str| -> String { line.chars().take(WIDTH).collect() };
        if lines.len() <= HEAD + TAIL + 1 {
            return lines.iter().map(cut).collect::<Vec<_>>().join("\n");
        }
        let left_out = lines.len() - HEAD - TAIL;
        let mut kept: Vec<String> = lines[..HEAD].iter().map(cut).collect();
        kept.push(format!("… {} more …", count(left_out as u64, "line")));
        kept.extend(lines[lines.len() - TAIL..].iter().map(cut));
        kept.join("\n")
    }
}

/// What became of the workspace where a run goes on elsewhere.
fn place(restored: bool, anew: bool) -> &'static str {
    match (restored, anew) {
        (true, _) => " · workspace restored",
        (false, true) => " · workspace made anew",
        (false, false) => "",
    }
}

/// The text of an item.
fn item_text(item: &Value) -> String {
    serde_json::from_value::<Item>(item.clone()).map(|item| tidy(&item.text())).unwrap_or_default()
}

/// What a call is asked to do, in a line.
pub(crate) fn describe(tool: &str, input: &str, prepared: &Value) -> String {
    let arguments: Value = serde_json::from_str(input).unwrap_or_default();
    let text = match tool {
        "exec_command" => arguments["cmd"].as_str().unwrap_or_default().to_owned(),
        "write_stdin" => format!(
            "{} {}",
            arguments["session_id"],
            arguments["chars"].as_str().map(|chars| format!("{chars:?}")).unwrap_or_default()
        ),
        "view_image" => arguments["path"].as_str().unwrap_or_default().to_owned(),
        "apply_patch" => {
            let files = prepared["files"].as_array().cloned().unwrap_or_default();
            let names: Vec<&str> = files.iter().filter_map(|file| file["path"].as_str()).collect();
            names.join(" ")
        }
        _ => input.to_owned(),
    };
    one_line(&text, 100)
}

/// A call's id and what the model wrote as its input.
fn input(item: &Value) -> Option<(String, String)> {
    let input = item["arguments"].as_str().or(item["input"].as_str())?;
    Some((item["call_id"].as_str()?.to_owned(), input.to_owned()))
}

/// How a call ended, and whether that is well.
fn ending(completed: &ToolCompleted) -> (String, bool) {
    if completed.status != "completed" {
        return (completed.status.replace('_', " "), false);
    }
    let outcome = &completed.details["outcome"];
    match outcome["type"].as_str() {
        Some("exited") => match outcome["code"].as_i64() {
            Some(0) => ("exited 0".into(), true),
            code => (format!("exited {}", code.unwrap_or(-1)), false),
        },
        Some("signalled") => (format!("killed by signal {}", outcome["signal"]), false),
        Some(other) => (other.replace('_', " "), false),
        None if completed.details["session_id"].is_u64() => ("runs on".into(), true),
        None => ("done".into(), true),
    }
}

/// The output as people want it: without the header that `exec_command` gives the model.
fn shown(output: &FunctionOutput) -> String {
    match output {
        FunctionOutput::Text(text) if text.starts_with("Chunk ID: ") => {
            text.split_once("\nOutput:\n").map_or("", |(_, output)| output).to_owned()
        }
        FunctionOutput::Text(text) => text.clone(),
        FunctionOutput::Parts(parts) => {
            let images =
                parts.iter().filter(|part| matches!(part, mooring_model::Content::InputImage { .. }));
            let images = count(images.count() as u64, "image");
            [output.text(), images].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join("\n")
        }
    }
}

/// Text of a model or tool, without what is blank at its end.
fn tidy(text: &str) -> String {
    safe(text.trim_end())
}

fn indent(text: &str, with: &str) -> String {
    text.lines().map(|line| format!("{with}{line}").trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// What a tenant's account has set aside, in a line.
fn grant(granted: &Value) -> String {
    let budget: Budget = serde_json::from_value(granted.clone()).unwrap_or_default();
    let part = |resource: Resource| Some(resource.show(budget.of(resource)?));
    Resource::ALL.into_iter().filter_map(part).collect::<Vec<_>>().join(" · ")
}
