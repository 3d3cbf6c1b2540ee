//! Guardrails: what they stop, when they are asked, and what a resumed run repeats.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mooring_capability::BoxFuture;
use mooring_harness::{
    AgentHost, Guardrail, GuardrailAction, GuardrailSpec, Handoff, HandoffFilter, HarnessError, Host, NewRun,
    Stage, Status, SubAgent, SubSandbox, Subject, Verdict, fold, resume, start,
};
use mooring_journal::event::GuardrailChecked;
use mooring_journal::{Event, Journal, MemoryJournal, Record, RunId};
use mooring_model::{FunctionOutput, Item};
use serde_json::json;

use crate::driver::Hangs;
use crate::world::{World, call, events, host, member, new_run, script, tools};

type Says = Box<dyn Fn(&Subject) -> Result<Verdict, &'static str> + Send + Sync>;

/// A guardrail in code. It waits as long as it is told, and remembers what it saw.
pub(crate) struct Code {
    name: &'static str,
    stage: Stage,
    blocking: bool,
    takes: Duration,
    says: Says,
    pub(crate) seen: Mutex<Vec<Subject>>,
}

impl std::fmt::Debug for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl Guardrail for Code {
    fn name(&self) -> &str {
        self.name
    }

    fn stage(&self) -> Stage {
        self.stage
    }

    fn blocking(&self) -> bool {
        self.blocking
    }

    fn check<'a>(
        &'a self,
        subject: &'a Subject,
    ) -> BoxFuture<'a, Result<Verdict, Box<dyn Error + Send + Sync>>> {
        Box::pin(async move {
            self.seen.lock().unwrap().push(subject.clone());
            tokio::time::sleep(self.takes).await;
            Ok((self.says)(subject)?)
        })
    }
}

pub(crate) fn code(
    name: &'static str,
    stage: Stage,
    says: impl Fn(&Subject) -> Result<Verdict, &'static str> + Send + Sync + 'static,
) -> Code {
    Code { name, stage, blocking: false, takes: Duration::ZERO, says: Box::new(says), seen: Mutex::default() }
}

fn pattern(name: &str, on: Stage, pattern: &str, action: GuardrailAction) -> GuardrailSpec {
    GuardrailSpec {
        name: name.into(),
        on,
        tool: None,
        pattern: Some(pattern.into()),
        agent: None,
        action,
        blocking: false,
    }
}

fn judge(name: &str, on: Stage, agent: &str) -> GuardrailSpec {
    GuardrailSpec { pattern: None, agent: Some(agent.into()), ..pattern(name, on, "", GuardrailAction::Trip) }
}

/// A run of the agent `tester` and what it needs.
struct Scene {
    journal: Arc<MemoryJournal>,
    world: Arc<World>,
    host: Host,
    new: NewRun,
}

impl Scene {
    /// The turns of `tester`, and its guardrails in code.
    fn new(turns: Vec<Vec<Item>>, code: Vec<Arc<Code>>) -> Self {
        let (journal, world) = (Arc::new(MemoryJournal::new()), Arc::new(World::default()));
        let (host, _) = host(Arc::clone(&journal) as Arc<dyn Journal>, script(turns), tools(&world));
        let mut scene = Self { journal, world, host, new: new_run("r") };
        scene.agent("tester", |agent| {
            agent.guardrails = code.into_iter().map(|code| code as Arc<dyn Guardrail>).collect();
        });
        scene
    }

    fn agent(&mut self, name: &str, change: impl FnOnce(&mut AgentHost)) {
        let mut agents: BTreeMap<String, AgentHost> = (*self.host.agents).clone();
        change(agents.get_mut(name).unwrap());
        self.host.agents = Arc::new(agents);
    }

    /// Another agent that takes part.
    fn mate(&mut self, name: &str, turns: Vec<Vec<Item>>) {
        let mut agents: BTreeMap<String, AgentHost> = (*self.host.agents).clone();
        let mate = AgentHost { model: script(turns), tools: Vec::new(), ..agents["tester"].clone() };
        agents.insert(name.into(), AgentHost { guardrails: Vec::new(), ..mate });
        self.host.agents = Arc::new(agents);
        let mut mate = member(name);
        mate.agent.model = format!("script:{name}");
        self.new.team.insert(name.into(), mate);
    }

    async fn start(&self) -> (Status, String) {
        let finished = start(&self.host, self.new.clone()).await.unwrap();
        (finished.status, told(&finished))
    }

    async fn resume(&self) -> (Status, String) {
        let finished = resume(&self.host, &RunId("r".into())).await.unwrap();
        (finished.status, told(&finished))
    }

    async fn events(&self) -> Vec<Record> {
        events(self.journal.as_ref(), "r").await
    }

    /// What guardrails said: stage, name, verdict.
    async fn said(&self) -> Vec<String> {
        checks(&self.events().await).iter().map(|c| format!("{} {} {}", c.stage, c.name, c.verdict)).collect()
    }

    /// What the model got to read of its calls.
    async fn outputs(&self) -> Vec<String> {
        let state = fold(self.journal.as_ref(), &RunId("r".into()), |_| {}).await.unwrap();
        let text = |item: &Item| match item {
            Item::FunctionCallOutput { output, .. } => Some(output.text()),
            _ => None,
        };
        state.items.iter().filter_map(text).collect()
    }
}

pub(crate) fn checks(records: &[Record]) -> Vec<GuardrailChecked> {
    let checked = |record: &Record| match &record.event {
        Event::GuardrailChecked(checked) => Some((**checked).clone()),
        _ => None,
    };
    records.iter().filter_map(checked).collect()
}

fn told(finished: &mooring_harness::Finished) -> String {
    match (&finished.error, &finished.output) {
        (Some(error), output) => {
            format!("{}: {} [{}]", error.code, error.message, output.as_deref().unwrap_or("no output"))
        }
        (None, output) => output.clone().unwrap_or_default(),
    }
}

fn answer(text: &str) -> Vec<Item> {
    vec![Item::assistant(text)]
}

fn place(records: &[Record], wanted: impl Fn(&Event) -> bool) -> usize {
    records.iter().position(|record| wanted(&record.event)).unwrap()
}

#[tokio::test]
async fn an_input_guardrail_that_trips_ends_the_call_of_the_model() {
    let guard = Arc::new(code("topic", Stage::Input, |_| Ok(Verdict::Trip(json!("not our topic")))));
    let mut scene = Scene::new(vec![], vec![Arc::clone(&guard)]);
    scene.agent("tester", |agent| agent.model = Arc::new(Hangs));
    let (status, told) = scene.start().await;
    assert_eq!(status, Status::Failed);
    assert_eq!(
        told,
        "guardrail_tripped: guardrail 'topic' stopped the run at the input: not our topic. A resumed run is checked \
         again [no output]"
    );
    assert_eq!(*guard.seen.lock().unwrap(), [Subject::Input(scene.new.input.clone())]);
    // The model was asked meanwhile; nothing came of it.
    let events = scene.events().await;
    assert!(events.iter().any(|record| matches!(record.event, Event::ModelRequested(_))));
    assert!(!events.iter().any(|record| matches!(record.event, Event::ModelCompleted(_))));
}

#[tokio::test]
async fn no_tool_is_called_and_no_answer_taken_before_the_input_has_passed() {
    for turns in [vec![vec![call("pay", "a")], answer("done")], vec![answer("done")]] {
        let journal = Arc::new(Mutex::new(None::<(Arc<MemoryJournal>, Arc<World>)>));
        let looks = Arc::clone(&journal);
        let guard = Code {
            takes: Duration::from_millis(50),
            ..code("slow", Stage::Input, move |_| {
                let held = looks.lock().unwrap();
                let (_, world) = held.as_ref().unwrap();
                // The model has answered long ago.
                assert!(world.began.lock().unwrap().is_empty());
                Ok(Verdict::Allow)
            })
        };
        let scene = Scene::new(turns, vec![Arc::new(guard)]);
        *journal.lock().unwrap() = Some((Arc::clone(&scene.journal), Arc::clone(&scene.world)));
        assert_eq!(scene.start().await, (Status::Completed, "done".into()));
        let events = scene.events().await;
        let checked = place(&events, |event| matches!(event, Event::GuardrailChecked(_)));
        assert!(place(&events, |event| matches!(event, Event::ModelCompleted(_))) < checked);
        assert!(checked < place(&events, |e| matches!(e, Event::ToolRequested(_) | Event::RunFinished(_))));
    }
}

#[tokio::test]
async fn the_model_waits_for_a_guardrail_that_is_blocking() {
    let guard = |trips| {
        Arc::new(Code {
            blocking: true,
            ..code("first", Stage::Input, move |_| {
                Ok(if trips { Verdict::Trip(json!("no")) } else { Verdict::Allow })
            })
        })
    };
    let scene = Scene::new(vec![answer("done")], vec![guard(false)]);
    scene.start().await;
    let events = scene.events().await;
    let checked = place(&events, |event| matches!(event, Event::GuardrailChecked(_)));
    assert!(checked < place(&events, |event| matches!(event, Event::ModelRequested(_))));
    let scene = Scene::new(vec![], vec![guard(true)]);
    assert_eq!(scene.start().await.0, Status::Failed);
    assert!(!scene.events().await.iter().any(|record| matches!(record.event, Event::ModelRequested(_))));
}

#[tokio::test]
async fn a_rejected_call_is_not_made_and_the_model_goes_on_without_it() {
    let mut scene = Scene::new(vec![vec![call("pay", "evil"), call("pay", "good")], answer("done")], vec![]);
    let mut guard = pattern("no-evil", Stage::ToolInput, "evil", GuardrailAction::Reject);
    guard.tool = Some("p*".into());
    scene.new.entry.agent.guardrails = vec![guard];
    // Nobody is asked about what is rejected anyway.
    scene.new.entry.agent.policy = serde_json::from_value(
        json!({"rules": [{"tool": "pay", "arguments": {"key": "evil"}, "action": "ask"}]}),
    )
    .unwrap();
    assert_eq!(scene.start().await, (Status::Completed, "done".into()));
    assert_eq!((scene.world.done("evil"), scene.world.done("good")), (0, 1));
    assert_eq!(scene.said().await, ["tool_input no-evil reject", "tool_input no-evil allow"]);
    assert_eq!(
        scene.outputs().await,
        [
            "rejected by the guardrail no-evil: its pattern was found. Do not try to get the same in another way.",
            "changed good",
        ]
    );
    let denied = |record: &Record| matches!(&record.event, Event::ToolCompleted(c) if c.status == "denied");
    assert_eq!(scene.events().await.iter().filter(|record| denied(record)).count(), 1);
}

/// JSON has many ways to write one string.
#[tokio::test]
async fn a_pattern_sees_arguments_as_the_tool_will() {
    let hidden = Item::FunctionCall {
        call_id: "a".into(),
        name: "pay".into(),
        arguments: r#"{"key": "\u0065vil"}"#.into(),
        extra: serde_json::Map::new(),
    };
    let mut scene = Scene::new(vec![vec![hidden]], vec![]);
    scene.new.entry.agent.guardrails =
        vec![pattern("no-evil", Stage::ToolInput, "^evil$", GuardrailAction::Trip)];
    let (status, told) = scene.start().await;
    assert_eq!(status, Status::Failed);
    assert!(
        told.starts_with(
            "guardrail_tripped: guardrail 'no-evil' stopped the run at the tool input of call a"
        )
    );
    assert_eq!(scene.world.done("evil"), 0);
}

/// Two calls of one id: whichever is meant, the rejected one is not made.
#[tokio::test]
async fn what_is_ambiguous_fails_closed() {
    let with = |key: &str| Item::FunctionCall {
        call_id: "same".into(),
        name: "pay".into(),
        arguments: json!({"key": key}).to_string(),
        extra: serde_json::Map::new(),
    };
    for (first, second) in [("good", "evil"), ("evil", "good")] {
        let mut scene = Scene::new(vec![vec![with(first), with(second)], answer("done")], vec![]);
        scene.new.entry.agent.guardrails =
            vec![pattern("no-evil", Stage::ToolInput, "evil", GuardrailAction::Reject)];
        assert_eq!(scene.start().await, (Status::Completed, "done".into()));
        assert_eq!(scene.world.done("evil"), 0);
    }
}

#[tokio::test]
async fn what_a_tool_gave_is_withheld_or_replaced_and_the_journal_keeps_it() {
    let redact = |subject: &Subject| match subject {
        Subject::ToolOutput { output, .. } if output.text().contains("secret") => {
            Ok(Verdict::Replace(FunctionOutput::Text(output.text().replace("secret", "[gone]"))))
        }
        _ => Ok(Verdict::Allow),
    };
    let again = Arc::new(code("again", Stage::ToolOutput, |_| Ok(Verdict::Allow)));
    let mut scene = Scene::new(
        vec![vec![call("look", "secret"), call("look", "key"), call("look", "open")], answer("done")],
        vec![Arc::new(code("redact", Stage::ToolOutput, redact)), Arc::clone(&again)],
    );
    scene.new.entry.agent.guardrails =
        vec![pattern("no-keys", Stage::ToolOutput, "key", GuardrailAction::Reject)];
    assert_eq!(scene.start().await, (Status::Completed, "done".into()));
    assert_eq!(
        scene.outputs().await,
        [
            "changed [gone]",
            "The output was withheld by the guardrail no-keys: its pattern was found.",
            "changed open"
        ]
    );
    // A later guardrail sees what the ones before it left.
    let seen: Vec<String> = again
        .seen
        .lock()
        .unwrap()
        .iter()
        .map(|subject| match subject {
            Subject::ToolOutput { output, .. } => output.text(),
            _ => String::new(),
        })
        .collect();
    assert_eq!(seen, scene.outputs().await);
    let events = serde_json::to_string(&scene.events().await).unwrap();
    assert!(events.contains("changed secret") && events.contains("changed key"));
}

#[tokio::test]
async fn an_answer_that_trips_is_not_given_away() {
    let mut scene = Scene::new(
        vec![vec![Item::assistant("secret talk"), call("look", "a")], answer("the secret")],
        vec![],
    );
    scene.new.entry.agent.guardrails = vec![pattern("dlp", Stage::Output, "secret", GuardrailAction::Trip)];
    let (status, told) = scene.start().await;
    assert_eq!(status, Status::Failed);
    assert!(
        told.contains("stopped the run at the output: its pattern was found")
            && told.ends_with("[no output]")
    );
    // Only the last answer is an output.
    assert_eq!(scene.said().await, ["output dlp trip"]);
    // Nor is a part of what nobody looked at, where the run ends for another reason.
    let mut scene = Scene::new(vec![vec![Item::assistant("secret talk"), call("look", "a")]], vec![]);
    scene.new.entry.agent.guardrails = vec![pattern("dlp", Stage::Output, "secret", GuardrailAction::Trip)];
    scene.new.entry.limits.max_tokens = Some(20);
    let (status, told) = scene.start().await;
    assert_eq!(status, Status::Failed);
    assert!(told.starts_with("budget_exhausted") && told.ends_with("[no output]"), "{told}");
}

#[tokio::test(start_paused = true)]
async fn a_guardrail_that_cannot_say_trips() {
    let late = Code { takes: Duration::from_hours(1), ..code("late", Stage::Input, |_| Ok(Verdict::Allow)) };
    for (guard, why) in [
        (code("fails", Stage::Input, |_| Err("no network")), "it failed: no network"),
        (late, "it did not say within 120s"),
        (code("odd", Stage::Input, |_| Ok(Verdict::Reject("no".into()))), "there is no tool call to reject"),
        (
            code("odd", Stage::Output, |_| Ok(Verdict::Replace(FunctionOutput::Text(String::new())))),
            "it replaces what is no output of a tool",
        ),
    ] {
        let (status, told) = Scene::new(vec![answer("done")], vec![Arc::new(guard)]).start().await;
        assert_eq!(status, Status::Failed);
        assert!(told.starts_with("guardrail_tripped: ") && told.contains(why), "{told}");
    }
}

#[tokio::test]
async fn a_resumed_run_checks_again_what_tripped_and_nothing_else() {
    let closed = Arc::new(Mutex::new(true));
    let door = Arc::clone(&closed);
    let gate = Arc::new(code("gate", Stage::Output, move |_| {
        Ok(if *door.lock().unwrap() { Verdict::Trip(json!("closed")) } else { Verdict::Allow })
    }));
    let input = Arc::new(code("input", Stage::Input, |_| Ok(Verdict::Allow)));
    let scene = Scene::new(vec![answer("done")], vec![Arc::clone(&input), Arc::clone(&gate)]);
    assert_eq!(scene.start().await.0, Status::Failed);
    assert_eq!(scene.resume().await.0, Status::Failed);
    *closed.lock().unwrap() = false;
    assert_eq!(scene.resume().await, (Status::Completed, "done".into()));
    assert_eq!((input.seen.lock().unwrap().len(), gate.seen.lock().unwrap().len()), (1, 3));
    let asked = |record: &Record| matches!(record.event, Event::ModelRequested(_));
    assert_eq!(scene.events().await.iter().filter(|record| asked(record)).count(), 1);
}

#[tokio::test]
async fn code_that_a_resumed_run_lacks_trips() {
    let gate = Arc::new(code("gate", Stage::Output, |_| Ok(Verdict::Trip(json!("closed")))));
    let mut scene = Scene::new(vec![answer("done")], vec![gate]);
    scene.start().await;
    scene.agent("tester", |agent| agent.guardrails.clear());
    let (status, told) = scene.resume().await;
    assert_eq!(status, Status::Failed);
    assert!(told.contains("it is code that was not given to this driver"), "{told}");
}

#[tokio::test]
async fn what_cannot_be_a_guardrail_is_refused_before_anything_is_recorded() {
    let good = || pattern("one", Stage::ToolInput, "a", GuardrailAction::Trip);
    for (guardrails, why) in [
        (vec![good(), good()], "two of its guardrails are named 'one'"),
        (vec![GuardrailSpec { pattern: Some("(".into()), ..good() }], "has a pattern that is none"),
        (vec![GuardrailSpec { pattern: None, ..good() }], "it is code that was not given to this driver"),
        (vec![GuardrailSpec { agent: Some("a".into()), ..good() }], "has a pattern and an agent"),
        (vec![GuardrailSpec { blocking: true, ..good() }], "`blocking` is for the input alone"),
        (
            vec![GuardrailSpec { on: Stage::Output, action: GuardrailAction::Reject, ..good() }],
            "`reject` is for tool calls",
        ),
        (vec![GuardrailSpec { on: Stage::Input, tool: Some("a".into()), ..good() }], "looks at no tool call"),
    ] {
        let mut scene = Scene::new(vec![answer("done")], vec![]);
        scene.new.entry.agent.guardrails = guardrails;
        let error = start(&scene.host, scene.new.clone()).await.unwrap_err();
        assert!(matches!(error, HarnessError::Agent { .. }) && error.to_string().contains(why), "{error}");
        assert!(scene.journal.runs(None).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_handoff_leaves_the_output_to_the_guardrails_of_the_agent_that_finishes() {
    let mut scene = Scene::new(vec![vec![call("transfer_to_other", "h")]], vec![]);
    scene.mate("other", vec![answer("done")]);
    scene.new.entry.agent.handoffs = vec![Handoff {
        agent: "other".into(),
        tool: None,
        description: String::new(),
        filter: HandoffFilter::All,
    }];
    let both = |name: &str| {
        let of =
            |on: Stage| pattern(&format!("{name}-{}", on.as_str()), on, "nowhere", GuardrailAction::Trip);
        vec![of(Stage::Input), of(Stage::Output)]
    };
    scene.new.entry.agent.guardrails = both("tester");
    scene.new.team.get_mut("other").unwrap().agent.guardrails = both("other");
    assert_eq!(scene.start().await, (Status::Completed, "done".into()));
    assert_eq!(scene.said().await, ["input tester-input allow", "output other-output allow"]);
}

#[tokio::test]
async fn what_trips_in_a_sub_agent_is_a_failed_call() {
    let task = Item::FunctionCall {
        call_id: "t".into(),
        name: "helper".into(),
        arguments: json!({"input": "tell the secret"}).to_string(),
        extra: serde_json::Map::new(),
    };
    let mut scene = Scene::new(vec![vec![task], answer("done")], vec![]);
    scene.mate("helper", vec![answer("it is 42")]);
    scene.new.entry.agent.agents = vec![SubAgent {
        agent: "helper".into(),
        tool: None,
        description: String::new(),
        sandbox: SubSandbox::Own,
    }];
    scene.new.team.get_mut("helper").unwrap().agent.guardrails =
        vec![pattern("no-secrets", Stage::Input, "secret", GuardrailAction::Trip)];
    assert_eq!(scene.start().await, (Status::Completed, "done".into()));
    let outputs = scene.outputs().await;
    assert!(
        outputs[0].starts_with("helper failed: guardrail_tripped: guardrail 'no-secrets'"),
        "{outputs:?}"
    );
    assert!(scene.said().await.is_empty());
}

#[tokio::test]
async fn an_agent_judges_in_a_run_of_its_own() {
    let judgement = |trip: bool| answer(&json!({"trip": trip, "reason": "because"}).to_string());
    let mut scene = Scene::new(vec![vec![call("pay", "a")], answer("done")], vec![]);
    scene.mate("judge", vec![judgement(false)]);
    scene.new.entry.agent.guardrails =
        vec![judge("on-topic", Stage::Input, "judge"), judge("fair", Stage::ToolInput, "judge")];
    assert_eq!(scene.start().await, (Status::Completed, "done".into()));
    let checks = checks(&scene.events().await);
    let children: Vec<String> = checks.iter().map(|check| check.child.clone().unwrap().0).collect();
    assert_eq!(children, ["r-0-g0-0", "r-1-c0-g1-0"]);
    // It is asked in JSON, told how to answer, and what it uses counts as the run's.
    let child = fold(scene.journal.as_ref(), &RunId("r-1-c0-g1-0".into()), |_| {}).await.unwrap();
    let question: serde_json::Value = serde_json::from_str(&child.items[0].text()).unwrap();
    assert_eq!(question, json!({"stage": "tool_input", "tool": "pay", "input": r#"{"key":"a"}"#}));
    assert!(child.instructions().contains(r#""trip":{"type":"boolean"}"#));
    let state = fold(scene.journal.as_ref(), &RunId("r".into()), |_| {}).await.unwrap();
    assert_eq!((state.spent.turns, state.turns), (4, 2));

    for (answers, why) in [
        (vec![judgement(true)], "stopped the run at the tool input of call a: because"),
        (vec![answer("fine"), answer("fine"), answer("fine")], "its agent failed: invalid_output"),
        (vec![], "its agent failed: model_"),
    ] {
        let mut scene = Scene::new(vec![vec![call("pay", "a")], answer("done")], vec![]);
        scene.mate("judge", answers);
        scene.new.entry.agent.guardrails = vec![judge("fair", Stage::ToolInput, "judge")];
        let (status, told) = scene.start().await;
        assert_eq!((status, scene.world.done("a")), (Status::Failed, 0));
        assert!(told.contains(why), "{told}");
    }
}

/// What is asked again after a trip is judged anew, and not by what was found the first time.
#[tokio::test]
async fn a_resumed_run_is_judged_again() {
    let trips = |trip: bool| json!({"trip": trip, "reason": "because"}).to_string();
    let mut scene = Scene::new(vec![answer("done")], vec![]);
    scene.mate("judge", vec![answer(&trips(true))]);
    scene.new.entry.agent.guardrails = vec![judge("fair", Stage::Output, "judge")];
    assert_eq!(scene.start().await.0, Status::Failed);
    scene.agent("judge", |agent| agent.model = script(vec![answer(&trips(false))]));
    assert_eq!(scene.resume().await, (Status::Completed, "done".into()));
    let children: Vec<String> =
        checks(&scene.events().await).iter().map(|check| check.child.clone().unwrap().0).collect();
    assert_eq!(children, ["r-1-g0-0", "r-1-g0-1"]);
}

#[tokio::test]
async fn one_that_trips_ends_the_others_and_what_they_used_counts() {
    let mut scene = Scene::new(vec![answer("done")], vec![]);
    scene.mate("judge", vec![]);
    scene.agent("judge", |agent| agent.model = Arc::new(Hangs));
    scene.new.entry.agent.guardrails = vec![
        judge("slow", Stage::Input, "judge"),
        pattern("fast", Stage::Input, "world", GuardrailAction::Trip),
    ];
    assert_eq!(scene.start().await.0, Status::Failed);
    assert_eq!(scene.said().await, ["input slow cancelled", "input fast trip"]);
    let judge = fold(scene.journal.as_ref(), &RunId("r-0-g0-0".into()), |_| {}).await.unwrap();
    assert_eq!(judge.status, Status::Cancelled);
}

#[tokio::test]
async fn cancelling_while_a_guardrail_looks_ends_the_run() {
    let slow =
        Code { takes: Duration::from_mins(10), ..code("slow", Stage::ToolOutput, |_| Ok(Verdict::Allow)) };
    let scene = Scene::new(vec![vec![call("pay", "a")], answer("done")], vec![Arc::new(slow)]);
    let cancel = scene.host.cancel.clone();
    let journal = Arc::clone(&scene.journal);
    tokio::spawn(async move {
        while !events(journal.as_ref(), "r").await.iter().any(|r| matches!(r.event, Event::ToolCompleted(_)))
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        cancel.cancel();
    });
    assert_eq!(scene.start().await.0, Status::Cancelled);
    assert_eq!(scene.world.done("a"), 1);
    // What nobody looked at is not given to the model, now or later.
    let outputs = scene.outputs().await;
    assert!(outputs[0].contains("before guardrails had looked") && outputs.len() == 1, "{outputs:?}");
}
