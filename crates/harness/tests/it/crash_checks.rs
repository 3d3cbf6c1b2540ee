//! The driver dies at every append of a run with guardrails, an agent that judges and an answer that must be mended,
//! and the run comes to the same end: nothing passes unchecked, and no check that is recorded is made again.

use std::collections::BTreeMap;
use std::sync::Arc;

use mooring_harness::{
    AgentHost, Guardrail, GuardrailAction, GuardrailSpec, HarnessError, Host, NewRun, Stage, State, Status,
    Subject, Verdict, resume, start,
};
use mooring_journal::{Event, Journal, JournalError, MemoryJournal, RunId};
use mooring_model::{FunctionOutput, Item};
use serde_json::json;

use crate::crash::Dying;
use crate::guardrail::{Code, checks, code};
use crate::typed::number;
use crate::world::{World, call, events, host, member, new_run, script, tools};

fn run() -> NewRun {
    let mut new = new_run("r");
    new.entry.agent.output = Some(number());
    let declared = |name: &str, on: Stage| GuardrailSpec {
        name: name.into(),
        on,
        tool: Some("pay".into()),
        pattern: Some("evil".into()),
        agent: None,
        action: GuardrailAction::Reject,
        blocking: false,
    };
    new.entry.agent.guardrails = vec![
        declared("no-evil", Stage::ToolInput),
        GuardrailSpec {
            tool: None,
            pattern: None,
            agent: Some("judge".into()),
            action: GuardrailAction::Trip,
            ..declared("judged", Stage::Input)
        },
    ];
    let mut judge = member("judge");
    judge.agent.model = "script:judge".into();
    new.team.insert("judge".into(), judge);
    new
}

fn guards() -> Vec<Arc<Code>> {
    let redact = |subject: &Subject| match subject {
        Subject::ToolOutput { output, .. } => {
            Ok(Verdict::Replace(FunctionOutput::Text(output.text().replace("changed", "did"))))
        }
        _ => Err("not what it looks at"),
    };
    let last = |subject: &Subject| match subject {
        Subject::Output(text) if text == r#"{"n": 1}"# => Ok(Verdict::Allow),
        _ => Err("not the answer"),
    };
    vec![Arc::new(code("redact", Stage::ToolOutput, redact)), Arc::new(code("last", Stage::Output, last))]
}

fn with_agents(mut host: Host) -> Host {
    let mut agents: BTreeMap<String, AgentHost> = (*host.agents).clone();
    let judgement = vec![Item::assistant(json!({"trip": false, "reason": ""}).to_string())];
    let tester = agents.get_mut("tester").unwrap();
    let judge = AgentHost { model: script(vec![judgement]), tools: Vec::new(), ..tester.clone() };
    tester.guardrails = guards().into_iter().map(|guard| guard as Arc<dyn Guardrail>).collect();
    agents.insert("judge".into(), judge);
    host.agents = Arc::new(agents);
    host
}

/// Drives the run through a death to its end. Gives whether it died, and what was checked.
async fn survive(nth: u64, after: bool) -> (bool, Vec<String>) {
    let memory = MemoryJournal::new();
    let world = Arc::new(World::default());
    let id = RunId("r".into());
    let turns = vec![
        vec![call("pay", "good"), call("pay", "evil"), call("look", "a")],
        vec![Item::assistant("one")],
        vec![Item::assistant(r#"{"n": 1}"#)],
    ];
    let mut died = false;
    let mut journal: Arc<dyn Journal> = Arc::new(Dying::new(memory.clone(), nth, after));
    loop {
        let (host, _) = host(Arc::clone(&journal), script(turns.clone()), tools(&world));
        let host = with_agents(host);
        let driven = match memory.runs(Some(&id)).await {
            Err(_) => start(&host, run()).await,
            Ok(_) => resume(&host, &id).await,
        };
        match driven {
            Err(HarnessError::Journal(JournalError::Store { .. })) => {
                assert!(!died, "it dies once");
                died = true;
                journal = Arc::new(memory.clone());
            }
            Err(HarnessError::Empty { .. }) => return (died, Vec::new()),
            Err(HarnessError::Completed { .. }) => break,
            Err(error) => panic!("{error}"),
            Ok(finished) => {
                assert_eq!(
                    (finished.status, finished.output.as_deref()),
                    (Status::Completed, Some(r#"{"n": 1}"#)),
                    "{nth} {after}: {:?}",
                    finished.error
                );
                break;
            }
        }
    }
    let records = events(&memory, "r").await;
    let state = State::fold(&records).unwrap().unwrap();
    assert!(world.done("good") <= 1 && world.done("evil") == 0, "{nth} {after}");
    let outputs: Vec<String> = state
        .items
        .iter()
        .filter_map(|item| match item {
            Item::FunctionCallOutput { output, .. } => Some(output.text()),
            _ => None,
        })
        .collect();
    // What was done is told as the guardrail left it; what is in doubt is told so.
    assert!(outputs[0] == "did good" || outputs[0].contains("not repeated"), "{outputs:?}");
    assert!(outputs[1].starts_with("rejected by the guardrail no-evil"), "{outputs:?}");
    assert_eq!((outputs[2].as_str(), outputs.len()), ("did a", 3));
    let mut said: Vec<String> = checks(&records)
        .iter()
        .map(|check| format!("{} {} {}", check.name, check.call_id.as_deref().unwrap_or("-"), check.verdict))
        .collect();
    for record in &records {
        if let Event::OutputChecked(checked) = &record.event {
            said.push(format!("output {} {}", checked.turn, checked.valid));
        }
    }
    // The one that judges is asked once, whatever became of the driver.
    let judged =
        memory.runs(None).await.unwrap().into_iter().filter(|row| row.id.0.starts_with("r-")).count();
    assert_eq!(judged, 1, "{nth} {after}");
    (died, said)
}

#[tokio::test]
async fn the_driver_dies_at_every_append() {
    let all = [
        "judged - allow",
        "no-evil good allow",
        "no-evil evil reject",
        "redact good replace",
        "redact a replace",
        "last - allow",
        "output 2 false",
        "output 3 true",
    ];
    let mut deaths = 0;
    for nth in 1..40 {
        for after in [false, true] {
            let (died, said) = survive(nth, after).await;
            deaths += u64::from(died);
            // A call in doubt gave nothing to look at.
            let expected =
                |line: &&str| said.iter().any(|said| said == line) || *line == "redact good replace";
            if !said.is_empty() {
                assert!(all.iter().all(expected), "{nth} {after}: {said:?}");
                assert!(said.len() <= all.len(), "nothing is checked twice: {nth} {after}: {said:?}");
            }
        }
    }
    assert!(deaths >= 20, "the run has that many appends: {deaths}");
}
