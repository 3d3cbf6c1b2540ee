//! Budgets: kept before a call is made, across sub-agents, retries, crashes and processes.

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt as _, stream};
use mooring_harness::{
    Budget, Finished, HarnessError, Host, Limits, NewRun, Resource, Seconds, Status, SubAgent, SubSandbox,
    Terms, amounts, fold, resume, settle, start,
};
use mooring_journal::event::{ModelCompleted, Tenant};
use mooring_journal::{Amounts, Event, Journal, MemoryJournal, RunId};
use mooring_manifest::Manifest;
use mooring_model::{
    Cost, Item, ModelClient, ModelError, ModelErrorKind, ModelEvent, ModelRequest, ModelResponse,
    ModelStream, Prices, Route, ScriptModel, Usage,
};
use serde_json::{Map, json};

use crate::world::{World, call, events, host, member, new_run, response, seat, tools};

fn run_id(id: &str) -> RunId {
    RunId(id.into())
}

/// Answers that a provider counted: each turn reads all that came before.
fn counted(turns: Vec<Vec<Item>>, input: u64, output: u64) -> Vec<ModelResponse> {
    let mut read = input;
    let answer = |items| {
        let mut answer = response(items);
        answer.usage = Usage { input_tokens: read, output_tokens: output, ..Usage::default() };
        read += output;
        answer
    };
    turns.into_iter().map(answer).collect()
}

fn model(name: &str, answers: Vec<ModelResponse>) -> Arc<dyn ModelClient> {
    Arc::new(ScriptModel::from_responses(name, answers))
}

/// An agent that never comes to an end by itself.
fn busy() -> Vec<Vec<Item>> {
    (0..40).map(|turn| vec![Item::assistant("so far"), call("look", &format!("c{turn}"))]).collect()
}

fn prices() -> Prices {
    serde_json::from_value(json!({
        "script:test": {"input": 1, "output": 10},
        "script:dear": {"input": 100, "output": 1000},
    }))
    .unwrap()
}

async fn run(
    model: Arc<dyn ModelClient>,
    new: NewRun,
) -> (Result<Finished, HarnessError>, Arc<MemoryJournal>) {
    let journal = Arc::new(MemoryJournal::new());
    let world = Arc::new(World::default());
    let (host, _) = host(Arc::clone(&journal) as Arc<dyn Journal>, model, tools(&world));
    (start(&host, new).await, journal)
}

fn limited(limits: Limits) -> NewRun {
    let mut new = new_run("r");
    new.entry.limits = limits;
    new.terms.prices = prices();
    new
}

fn code(finished: &Finished) -> &str {
    finished.error.as_ref().map_or("", |error| error.code.as_str())
}

async fn answers(journal: &MemoryJournal, id: &str) -> Vec<ModelCompleted> {
    let answer = |event| match event {
        Event::ModelCompleted(answer) => Some(*answer),
        _ => None,
    };
    events(journal, id).await.into_iter().filter_map(|record| answer(record.event)).collect()
}

#[tokio::test]
async fn a_run_ends_before_it_goes_over_its_tokens() {
    let most = 2_000;
    let new = limited(Limits { max_tokens: Some(most), ..Limits::default() });
    let (finished, journal) = run(model("script:test", counted(busy(), 200, 50)), new).await;
    let finished = finished.unwrap();
    assert_eq!((finished.status, code(&finished)), (Status::Failed, "budget_exhausted"));
    assert_eq!(finished.output.as_deref(), Some("so far"), "what it has is not lost");
    assert!(finished.usage.total() <= most, "{finished:?}");
    // The next call would have read at least what the last one did, and did not fit.
    assert!(finished.usage.total() + 200 + 50 * finished.turns > most, "{finished:?}");
    // What a call may produce is what is left after what it reads.
    let mut spent = 0;
    for record in events(journal.as_ref(), "r").await {
        match record.event {
            Event::ModelRequested(request) => {
                let room = request.settings["max_output_tokens"].as_u64().unwrap();
                assert!(spent + room < most, "{spent} + {room}");
            }
            Event::ModelCompleted(answer) => {
                let usage: Usage = serde_json::from_value(answer.usage).unwrap();
                spent += usage.total();
            }
            _ => {}
        }
    }
    insta::assert_snapshot!(finished.error.unwrap().message);
}

/// openai/openai-agents-python#2848 and #3353: thousands of unexpected calls, and nothing but a sum afterwards.
#[tokio::test]
async fn thousands_of_unexpected_calls_are_stopped_by_a_hard_limit_of_the_run() {
    let new = limited(Limits {
        max_turns: 1_000,
        max_cost: Some(Cost::parse("0.01").unwrap()),
        ..Limits::default()
    });
    let (finished, journal) = run(model("script:test", counted(busy(), 100, 100)), new).await;
    let finished = finished.unwrap();
    assert_eq!((code(&finished), finished.output.as_deref()), ("budget_exhausted", Some("so far")));
    let told: Cost = answers(&journal, "r")
        .await
        .iter()
        .map(|answer| Cost::parse(answer.cost.as_deref().unwrap()).unwrap())
        .sum();
    assert_eq!(told, finished.spent.cost, "what each call cost adds up to what the run cost");
    assert!(told <= Cost::parse("0.01").unwrap() && told > Cost::parse("0.005").unwrap(), "{told}");
    insta::assert_snapshot!(finished.error.unwrap().message);
}

#[tokio::test]
async fn a_limit_of_money_needs_the_price_of_every_model_that_may_be_asked() {
    let limits = Limits { max_cost: Some(Cost::parse("1").unwrap()), ..Limits::default() };
    let fallback = |new: &mut NewRun| new.entry.agent.fallbacks = vec!["openai/unknown".into()];
    let team = |new: &mut NewRun| {
        let mut mate = member("mate");
        mate.agent.model = "openai/unknown".into();
        new.team.insert("mate".into(), mate);
    };
    let own = |new: &mut NewRun| {
        team(new);
        new.team.get_mut("mate").unwrap().limits.max_cost = new.entry.limits.max_cost.take();
    };
    let tenant = |new: &mut NewRun| {
        new.entry.agent.model = "openai/unknown".into();
        new.entry.limits.max_cost = None;
        new.terms.tenant =
            Some(Tenant { limits: json!({"max_cost": "1"}), account: "a".into(), name: "a".into() });
    };
    for change in [&fallback as &dyn Fn(&mut NewRun), &team, &own, &tenant] {
        let mut new = limited(limits.clone());
        change(&mut new);
        let journal = Arc::new(MemoryJournal::new());
        let (mut host, _) =
            host(Arc::clone(&journal) as Arc<dyn Journal>, model("script:test", vec![]), vec![]);
        let seat = host.agents["tester"].clone();
        host.agents = Arc::new([("tester".into(), seat.clone()), ("mate".into(), seat)].into());
        let error = start(&host, new).await.unwrap_err();
        assert!(
            matches!(&error, HarnessError::NoPrice { model, .. } if model == "openai/unknown"),
            "{error}"
        );
        assert_eq!(journal.runs(None).await.unwrap(), [], "nothing was recorded");
    }
}

#[tokio::test]
async fn a_price_that_changes_later_changes_nothing() {
    let new = limited(Limits::default());
    let answer = counted(vec![vec![Item::assistant("done")]], 1_000_000, 0);
    let (finished, journal) = run(model("script:test", answer), new).await;
    assert_eq!(finished.unwrap().spent.cost, Cost::parse("1").unwrap());
    // The run holds what it needs to be understood: only its own models' prices.
    let Event::RunStarted(started) = &events(journal.as_ref(), "r").await[0].event else { panic!() };
    assert_eq!(started.prices, json!({"script:test": {"input": "1", "output": "10"}}));
}

#[tokio::test]
async fn an_answer_of_a_fallback_is_paid_at_its_own_price() {
    #[derive(Debug)]
    struct Down;
    impl ModelClient for Down {
        fn name(&self) -> &'static str {
            "script:test"
        }
        fn stream<'a>(&'a self, _: ModelRequest<'a>) -> ModelStream<'a> {
            let error = ModelError::new(ModelErrorKind::Network, "script:test", "down");
            Box::pin(stream::iter([Err(error)]))
        }
    }
    let dear = model("script:dear", counted(vec![vec![Item::assistant("done")]], 1_000, 0));
    let route = Arc::new(Route::new(vec![Arc::new(Down), dear]).unwrap());
    let mut new = limited(Limits { max_cost: Some(Cost::parse("5").unwrap()), ..Limits::default() });
    new.entry.agent.fallbacks = vec!["script:dear".into()];
    let (finished, journal) = run(route, new).await;
    assert_eq!(finished.unwrap().spent.cost, Cost::parse("0.1").unwrap());
    // What an answer may be is bounded by the dearest of the chain.
    let Event::ModelRequested(asked) = &events(journal.as_ref(), "r").await[2].event else { panic!() };
    assert!(asked.settings["max_output_tokens"].as_u64().unwrap() < 5_000);
}

/// A model whose first tries fail once their answer has begun.
#[derive(Debug)]
struct Stutters(Arc<dyn ModelClient>);

impl ModelClient for Stutters {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn stream<'a>(&'a self, request: ModelRequest<'a>) -> ModelStream<'a> {
        let again = |attempt, begun| {
            let (after, reason) = (Duration::ZERO, "cut".to_owned());
            Ok(ModelEvent::Retrying { attempt, after, reason, begun })
        };
        // The second one never got through.
        Box::pin(stream::iter([again(2, true), again(3, false)]).chain(self.0.stream(request)))
    }
}

/// pydantic/pydantic-ai-harness#46 and its kin: reserve before the call, fail closed, and count each try once.
#[tokio::test]
async fn a_try_that_may_be_billed_counts_and_counts_once() {
    let done = || vec![vec![Item::assistant("done")]];
    let (plain, _) = run(model("script:test", counted(done(), 100, 10)), limited(Limits::default())).await;
    let stutters = Arc::new(Stutters(model("script:test", counted(done(), 100, 10))));
    let (finished, journal) = run(stutters, limited(Limits::default())).await;
    let (plain, finished) = (plain.unwrap(), finished.unwrap());
    let answer = answers(&journal, "r").await.remove(0);
    assert!(answer.retried_tokens > 0);
    assert_eq!(finished.usage.total(), plain.usage.total() + answer.retried_tokens);
    assert!(finished.spent.cost > plain.spent.cost);
    let state = fold(journal.as_ref(), &run_id("r"), |_| {}).await.unwrap();
    assert_eq!(state.spent, finished.spent, "the journal says the same");
}

#[tokio::test]
async fn a_model_call_that_a_crash_cut_off_counts_as_if_it_was_billed() {
    let journal = Arc::new(MemoryJournal::new());
    let (host, _) = host(Arc::clone(&journal) as Arc<dyn Journal>, Arc::new(Endless), vec![]);
    let crashed = tokio::spawn({
        let host = host.clone();
        async move { start(&host, limited(Limits::default())).await }
    });
    while journal.runs(None).await.unwrap().first().is_none_or(|row| row.last_seq < 3) {
        tokio::task::yield_now().await;
    }
    crashed.abort();
    crashed.await.unwrap_err();
    let cancel = host.cancel.clone();
    cancel.cancel();
    let finished = resume(&host, &run_id("r")).await.unwrap();
    assert_eq!(finished.status, Status::Cancelled);
    assert!(finished.usage.input_tokens > 0 && finished.spent.cost > Cost::default(), "{finished:?}");
}

/// A model that says a word and never ends.
#[derive(Debug)]
struct Endless;

impl ModelClient for Endless {
    fn name(&self) -> &'static str {
        "script:test"
    }

    fn stream<'a>(&'a self, _request: ModelRequest<'a>) -> ModelStream<'a> {
        let word = stream::iter([Ok(ModelEvent::TextDelta("well".into()))]);
        Box::pin(word.chain(stream::pending()))
    }
}

fn seconds(seconds: u64) -> Limits {
    Limits { max_seconds: Some(Seconds::from_millis(seconds * 1000)), ..Limits::default() }
}

#[tokio::test(start_paused = true)]
async fn a_model_that_never_ends_is_interrupted_when_the_time_is_up() {
    let (finished, journal) = run(Arc::new(Endless), limited(seconds(90))).await;
    let finished = finished.unwrap();
    assert_eq!((finished.status, code(&finished)), (Status::Failed, "budget_exhausted"));
    assert!(
        finished
            .error
            .unwrap()
            .message
            .contains("of at most 90 s. Raise max_seconds in the agent's [limits]")
    );
    let last: Vec<Event> =
        events(journal.as_ref(), "r").await.into_iter().rev().take(2).map(|record| record.event).collect();
    assert!(matches!(&last[1], Event::DeadlinePassed(passed) if passed.limit == "max_seconds"), "{last:?}");
    // It may have been billed: what it read counts.
    assert!(finished.usage.input_tokens > 0);
}

#[tokio::test(start_paused = true)]
async fn the_manifests_time_holds_where_it_is_the_shorter_one() {
    let with = |own, of_manifest: &str| {
        let mut new = limited(seconds(own));
        let text = format!(r#"{{"x-mooring": {{"resources": {{"wall_clock": "{of_manifest}"}}}}}}"#);
        new.entry.manifest = Manifest::from_json(&text).unwrap();
        new
    };
    let (finished, journal) = run(Arc::new(Endless), with(90, "30s")).await;
    let error = finished.unwrap().error.unwrap();
    assert_eq!(error.code, "budget_exhausted");
    assert!(
        error.message.contains("of at most 30 s. Raise resources.wall_clock in the manifest"),
        "{error:?}"
    );
    // The fold of what is recorded says the same.
    let state = mooring_harness::fold(journal.as_ref(), &RunId("r".into()), |_| {}).await.unwrap();
    assert_eq!(state.limits.max_seconds, Some(Seconds::from_millis(30_000)));
    let (finished, _) = run(Arc::new(Endless), with(20, "30s")).await;
    assert!(finished.unwrap().error.unwrap().message.contains("of at most 20 s. Raise max_seconds"));
}

#[tokio::test(start_paused = true)]
async fn calls_that_run_when_the_time_is_up_are_abandoned_and_answered() {
    let journal = Arc::new(MemoryJournal::new());
    let world = Arc::new(World::default());
    *world.stuck_after.lock().unwrap() = Some("a".into());
    let turns = vec![
        vec![Item::assistant("half"), call("pay", "a"), call("pay", "b")],
        vec![Item::assistant("resumed")],
    ];
    let (host, _) = host(
        Arc::clone(&journal) as Arc<dyn Journal>,
        model("script:test", counted(turns, 10, 10)),
        tools(&world),
    );
    let finished = start(&host, limited(seconds(60))).await.unwrap();
    assert_eq!((code(&finished), finished.output.as_deref()), ("budget_exhausted", Some("half")));
    let state = fold(journal.as_ref(), &run_id("r"), |_| {}).await.unwrap();
    let outputs = state.items.iter().filter(|item| matches!(item, Item::FunctionCallOutput { .. })).count();
    assert_eq!((outputs, world.done("a"), world.done("b")), (2, 1, 1), "the conversation is whole");
    // The clock of this test counts a millisecond a look, so the resumed run has time; and repeats nothing.
    let finished = resume(&host, &run_id("r")).await.unwrap();
    assert_eq!((finished.output.as_deref(), world.done("a")), (Some("resumed"), 1));
}

#[tokio::test]
async fn only_time_with_a_driver_counts() {
    let journal = Arc::new(MemoryJournal::new());
    let world = Arc::new(World::default());
    let turns = vec![vec![call("pay", "a")], vec![Item::assistant("done")]];
    let (mut host, _) = host(
        Arc::clone(&journal) as Arc<dyn Journal>,
        model("script:test", counted(turns, 10, 10)),
        tools(&world),
    );
    let clock = Arc::new(std::sync::atomic::AtomicI64::new(1_700_000_000_000));
    let read = Arc::clone(&clock);
    host.now_ms = Arc::new(move || read.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
    let mut new = limited(seconds(60));
    new.entry.agent.policy =
        serde_json::from_value(json!({"rules": [{"tool": "pay", "action": "ask"}]})).unwrap();
    let waiting = start(&host, new).await.unwrap();
    assert_eq!(waiting.status, Status::Waiting);
    // A day passes until somebody answers, and another until somebody goes on.
    let day = 24 * 3600 * 1000;
    let now = clock.fetch_add(day, std::sync::atomic::Ordering::Relaxed);
    let state = fold(journal.as_ref(), &run_id("r"), |_| {}).await.unwrap();
    let id = state.approvals().next().unwrap().1.approval_id.clone();
    let yes = mooring_harness::Answer {
        allow: true,
        always: false,
        by: "ann".into(),
        reason: None,
        input: json!(null),
    };
    mooring_harness::answer(journal.as_ref(), &run_id("r"), &id, yes, now).await.unwrap();
    clock.fetch_add(day, std::sync::atomic::Ordering::Relaxed);
    let finished = resume(&host, &run_id("r")).await.unwrap();
    assert_eq!(finished.output.as_deref(), Some("done"));
    assert!(finished.spent.driven_ms < 1_000, "{finished:?}");
}

fn give(agent: &str, call_id: &str) -> Item {
    let arguments = json!({"input": "work"}).to_string();
    Item::FunctionCall { call_id: call_id.into(), name: agent.into(), arguments, extra: Map::new() }
}

fn sub_agent(agent: &str) -> SubAgent {
    SubAgent { agent: agent.into(), tool: None, description: String::new(), sandbox: SubSandbox::Own }
}

/// A run of `tester`, whose sub-agents are these.
fn with_workers(
    workers: &[(&str, Vec<ModelResponse>)],
    answers: Vec<ModelResponse>,
) -> (Host, NewRun, Arc<MemoryJournal>) {
    let journal = Arc::new(MemoryJournal::new());
    let world = Arc::new(World::default());
    let (mut host, _) =
        host(Arc::clone(&journal) as Arc<dyn Journal>, model("script:test", answers), tools(&world));
    let mut agents = (*host.agents).clone();
    let mut new = limited(Limits::default());
    agents.get_mut("tester").unwrap().tools = Vec::new();
    for (name, answers) in workers {
        agents.insert((*name).into(), seat(model("script:test", answers.clone()), tools(&world)));
        new.team.insert((*name).into(), member(name));
        new.entry.agent.agents.push(sub_agent(name));
    }
    host.agents = Arc::new(agents);
    (host, new, journal)
}

#[tokio::test]
async fn a_sub_agent_that_exhausts_its_share_fails_its_call_and_not_its_caller() {
    let turns = vec![vec![give("worker", "w")], vec![Item::assistant("done without it")]];
    let (host, mut new, journal) =
        with_workers(&[("worker", counted(busy(), 200, 50))], counted(turns, 10, 10));
    new.entry.limits.max_tokens = Some(20_000);
    new.team.get_mut("worker").unwrap().limits.max_tokens = Some(2_000);
    let finished = start(&host, new).await.unwrap();
    assert_eq!((finished.status, finished.output.as_deref()), (Status::Completed, Some("done without it")));
    let state = fold(journal.as_ref(), &run_id("r"), |_| {}).await.unwrap();
    let Item::FunctionCallOutput { output, .. } = &state.items[2] else { panic!("{:?}", state.items) };
    let text = output.text();
    assert!(text.starts_with("worker failed: budget_exhausted"), "{text}");
    assert!(text.ends_with("What it had so far:\n\nso far"), "{text}");
    assert!(finished.usage.total() > 500, "what it used is its caller's too: {finished:?}");
}

/// anthropics/claude-code#90664: one search prompt fanned out to an entire quota of five hours.
#[tokio::test]
async fn one_prompt_cannot_fan_out_to_more_than_the_run_may_use() {
    let workers: Vec<String> = (0..8).map(|n| format!("worker{n}")).collect();
    let fan: Vec<Item> = workers.iter().map(|name| give(name, name)).collect();
    let seats: Vec<(&str, Vec<ModelResponse>)> =
        workers.iter().map(|name| (name.as_str(), counted(busy(), 200, 50))).collect();
    let (host, mut new, journal) =
        with_workers(&seats, counted(vec![fan, vec![Item::assistant("done")]], 10, 10));
    let most = 12_000;
    new.entry.limits.max_tokens = Some(most);
    // One of them needs little: the others get what it leaves.
    new.team.get_mut("worker0").unwrap().limits.max_tokens = Some(500);
    let finished = start(&host, new).await.unwrap();
    assert!(finished.usage.total() <= most, "{finished:?}");
    let mut shares = Vec::new();
    for record in events(journal.as_ref(), "r").await {
        if let Event::ToolRequested(requested) = record.event {
            let share: Budget = serde_json::from_value(requested.reserved).unwrap();
            shares.push(share.max_tokens.unwrap());
        }
    }
    assert_eq!((shares.len(), shares[0]), (8, 500));
    assert!(shares[1..].iter().all(|share| *share == shares[1] && *share > most / 8), "{shares:?}");
    assert!(shares.iter().sum::<u64>() <= most);
}

fn tenant(account: &str, most: u64) -> Terms {
    let limits = json!(Budget { max_tokens: Some(most), ..Budget::default() });
    Terms { prices: prices(), tenant: Some(Tenant { name: "acme".into(), account: account.into(), limits }) }
}

fn used(tokens: u64) -> Amounts {
    amounts(|resource| (resource == Resource::Tokens).then_some(tokens.into()))
}

#[tokio::test]
async fn runs_of_a_tenant_use_together_what_its_account_has() {
    let journal = Arc::new(MemoryJournal::new());
    let world = Arc::new(World::default());
    let (host, _) = host(
        Arc::clone(&journal) as Arc<dyn Journal>,
        model("script:test", counted(busy(), 200, 50)),
        tools(&world),
    );
    let mut total = 0;
    let mut ends = Vec::new();
    for id in ["one", "two", "three"] {
        let mut new = limited(Limits { max_tokens: (id == "one").then_some(2_000), ..Limits::default() });
        new.id = run_id(id);
        new.terms = tenant("acme 2026-11", 5_000);
        let finished = start(&host, new).await.unwrap();
        assert_eq!(code(&finished), "budget_exhausted");
        total += finished.usage.total();
        ends.push(finished.error.unwrap().message);
    }
    assert!((4_000..=5_000).contains(&total), "{total}");
    assert!(ends[0].contains("Raise max_tokens in the agent's [limits]"), "{}", ends[0]);
    assert!(ends[2].contains("what the tenant 'acme' had left: `moor budget`"), "{}", ends[2]);
    let held: u64 =
        journal.holdings().await.unwrap().iter().map(|holding| holding.amounts["max_tokens"]).sum();
    assert_eq!(held, total, "what nobody used is nobody's");
}

#[tokio::test]
async fn a_run_that_died_keeps_what_it_set_aside_until_it_goes_on_or_is_settled() {
    let journal = Arc::new(MemoryJournal::new());
    let (host, _) = host(Arc::clone(&journal) as Arc<dyn Journal>, Arc::new(Endless), vec![]);
    let mut new = limited(Limits { max_tokens: Some(3_000), ..Limits::default() });
    new.terms = tenant("acme", 5_000);
    let dying = tokio::spawn({
        let host = host.clone();
        async move { start(&host, new).await }
    });
    while journal.runs(None).await.unwrap().first().is_none_or(|row| row.last_seq < 4) {
        tokio::task::yield_now().await;
    }
    let error = settle(journal.as_ref(), "acme", &run_id("r"), "ann").await.unwrap_err();
    assert!(error.to_string().contains("is being driven"), "{error}");
    dying.abort();
    dying.await.unwrap_err();
    // Another run gets only the rest.
    let want = used(5_000);
    let got = journal.reserve("acme", &run_id("other"), &want, &want).await.unwrap();
    assert_eq!(got, used(2_000));
    journal.settle("acme", &run_id("other"), &used(0)).await.unwrap();

    settle(journal.as_ref(), "acme", &run_id("r"), "ann").await.unwrap();
    let holding = journal.holdings().await.unwrap().into_iter().find(|holding| holding.holder == run_id("r"));
    let holding = holding.unwrap();
    assert!(!holding.open && holding.amounts["max_tokens"] < 3_000, "{holding:?}");
    // It goes on all the same, with what is left now.
    host.cancel.cancel();
    resume(&host, &run_id("r")).await.unwrap();
    let state = fold(journal.as_ref(), &run_id("r"), |_| {}).await.unwrap();
    let held = journal.holdings().await.unwrap();
    let held = held.iter().find(|holding| holding.holder == run_id("r")).unwrap();
    assert_eq!((held.open, &held.amounts), (false, &used(state.spent.usage.total())));
}
