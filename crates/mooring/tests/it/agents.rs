//! Agents: what fits together, and how they work together.

use std::collections::BTreeMap;

use mooring::{
    Agent, Budget, Compaction, GuardrailAction, GuardrailSpec, InputFilter, Item, Limits, Prices, Run,
    Runtime, Snapshots, Stage, Status, tool,
};
use serde_json::json;

use crate::words::{calls, named, says, script};

/// Reads a page.
#[tool(effect = "pure")]
async fn page(number: u32) -> String {
    format!("page {number}")
}

fn problem(builder: mooring::AgentBuilder) -> String {
    builder.build().unwrap_err().to_string()
}

#[test]
fn what_does_not_fit_is_told_before_anything_starts() {
    let model = || script(&[says("hello")]);
    let mate = |name: &str| Agent::builder(name).model(model()).build().unwrap();
    let problems = [
        problem(Agent::builder("").model(model())),
        problem(Agent::builder("a")),
        problem(Agent::builder("a").model("gpt-5")),
        problem(Agent::builder("a").model(model()).capability("telepathy")),
        problem(Agent::builder("a").model(model()).capability("shell")),
        problem(Agent::builder("a").model(model()).workspace("/tmp/here")),
        problem(Agent::builder("a").model(model()).snapshots(Snapshots::Turn)),
        problem(Agent::builder("a").model(model()).summariser(model())),
        problem(Agent::builder("a").model(model()).handoff(&mate("a"))),
        problem(Agent::builder("a").model(model()).handoff(&mate("b")).sub_agent(&mate("b"))),
    ];
    insta::assert_snapshot!(problems.join("\n"), @r"
    agent '': it needs a name
    agent 'a': it needs a model: `.model(…)`
    gpt-5: this model name begins with no known provider. Write one of: openai/NAME (OpenAI Responses), anthropic/NAME (Anthropic Messages), chat/NAME (Chat Completions at a base_url: vLLM, Ollama, llama.cpp and others), script:FILE (answers played from a JSONL file)
    agent 'a': there is no capability 'telepathy'. The capabilities are: filesystem, shell, skills
    agent 'a': its capabilities need a sandbox: `.sandbox(…)`
    agent 'a': its workspace and snapshots need a sandbox: `.sandbox(…)`
    agent 'a': its workspace and snapshots need a sandbox: `.sandbox(…)`
    agent 'a': it has a summariser and nothing to shorten: `.compaction(…)`
    agent 'a': two agents that work together are named 'a'
    agent 'a': two agents that work together are named 'b'
    ");
    let same = mate("b");
    Agent::builder("a").model(model()).handoff(&same).sub_agent(&same).build().unwrap();
}

#[tokio::test]
async fn a_tool_of_the_same_name_twice_is_refused() {
    let agent = Agent::builder("a").model(script(&[says("hello")])).tool(page).tool(page).build().unwrap();
    let error = Run::start(&Runtime::in_memory(), &agent, "go").await.unwrap_err();
    assert!(error.to_string().contains("two tools named 'page'"), "{error}");
}

#[tokio::test]
async fn a_sub_agent_works_as_a_tool_and_a_handoff_lets_another_go_on() {
    let reader = Agent::builder("reader")
        .description("Reads books.")
        .model(named("reading", &[calls(&[("page", json!({"number": 7}))]), says("it says: page 7")]))
        .tool(page)
        .build()
        .unwrap();
    let costly = json!({"output": says("goodbye"), "usage": {"input_tokens": 1_000_000, "output_tokens": 0}});
    let closer =
        Agent::builder("closer").model(named("closing", &[costly, says("still here")])).build().unwrap();
    let boss = Agent::builder("boss")
        .model(script(&[
            calls(&[("reader", json!({"input": "Read page 7."}))]),
            calls(&[("transfer_to_closer", json!({}))]),
        ]))
        .sub_agent(&reader)
        .handoff(&closer)
        .build()
        .unwrap();
    let prices: Prices = serde_json::from_value(json!({"*": {"input": 3, "output": 15}})).unwrap();
    let runtime = Runtime::in_memory().with_prices(prices);
    let run = Run::start(&runtime, &boss, "go").await.unwrap();
    assert_eq!((run.status(), run.output()), (Status::Completed, Some("goodbye")), "{:?}", run.error());
    assert_eq!(run.spent().turns, 5);
    assert_eq!(run.cost().await.unwrap().unwrap().to_string(), "$3");
    // Whoever the conversation was handed over to answers next.
    let next = run.reply("are you there?").await.unwrap();
    assert_eq!(next.output(), Some("still here"), "{:?}", next.error());
}

#[tokio::test]
async fn limits_and_a_clock_are_the_programs_own() {
    let lines = vec![calls(&[("page", json!({"number": 1}))]); 5];
    let limits = Limits { max_turns: 3, ..Limits::default() };
    let agent = Agent::builder("a").model(script(&lines)).tool(page).limits(limits).build().unwrap();
    let run = Run::start(&Runtime::in_memory().with_clock(|| 42), &agent, "go").await.unwrap();
    assert_eq!((run.status(), run.error().unwrap().code.as_str()), (Status::Failed, "max_turns"));
    let times: BTreeMap<i64, usize> =
        run.events().await.unwrap().iter().fold(BTreeMap::new(), |mut times, record| {
            *times.entry(record.at_ms).or_default() += 1;
            times
        });
    assert_eq!(times.into_keys().collect::<Vec<_>>(), [42]);
}

/// What an answer must be.
#[derive(Debug, PartialEq, serde::Deserialize, schemars::JsonSchema)]
struct Verdict {
    /// Whether it is good.
    good: bool,
    reasons: Vec<String>,
}

#[tokio::test]
async fn an_answer_is_of_the_type_that_was_asked_for() {
    let good = json!({"good": true, "reasons": ["it is short"]});
    let model = script(&[says("It is good."), says(&good.to_string())]);
    let agent = Agent::builder("judge").model(model).output::<Verdict>().build().unwrap();
    let run = Run::start(&Runtime::in_memory(), &agent, "judge").await.unwrap();
    assert_eq!(run.spent().turns, 2, "words alone go back to the model");
    let verdict: Verdict = run.output_as().unwrap();
    assert_eq!(verdict, Verdict { good: true, reasons: vec!["it is short".into()] });
    assert!(run.output_as::<u8>().unwrap_err().to_string().contains("is not what was asked for"));
}

/// Trips on everything.
#[derive(Debug)]
struct No;

impl mooring::Guardrail for No {
    fn name(&self) -> &'static str {
        "no"
    }

    fn stage(&self) -> Stage {
        Stage::Input
    }

    fn check<'a>(
        &'a self,
        _subject: &'a mooring::Subject,
    ) -> mooring::capability::BoxFuture<'a, Result<mooring::Verdict, Box<dyn std::error::Error + Send + Sync>>>
    {
        Box::pin(async { Ok(mooring::Verdict::Trip(json!("never"))) })
    }
}

#[tokio::test]
async fn guardrails_are_code_or_patterns() {
    let agent = Agent::builder("a").model(script(&[says("hello")])).guardrail(No).build().unwrap();
    let run = Run::start(&Runtime::in_memory(), &agent, "go").await.unwrap();
    assert_eq!(run.status(), Status::Failed);
    let secret = GuardrailSpec {
        name: "secret".into(),
        on: Stage::Output,
        tool: None,
        pattern: Some("hel+o".into()),
        agent: None,
        action: GuardrailAction::Trip,
        blocking: false,
    };
    let agent = Agent::builder("a").model(script(&[says("hello")])).guard(secret).build().unwrap();
    let run = Run::start(&Runtime::in_memory(), &agent, "go").await.unwrap();
    assert_eq!((run.status(), run.output()), (Status::Failed, None));
}

/// Leaves nothing but a note.
#[derive(Debug)]
struct Brief;

impl InputFilter for Brief {
    fn name(&self) -> &'static str {
        "brief"
    }

    fn filter(&self, _: &[Item]) -> Result<Vec<Item>, Box<dyn std::error::Error + Send + Sync>> {
        Ok(vec![Item::user("A customer waits.")])
    }
}

#[tokio::test]
async fn code_decides_what_the_next_agent_reads() {
    let closer = Agent::builder("closer").model(named("closing", &[says("good day")])).build().unwrap();
    let boss = Agent::builder("boss")
        .model(script(&[calls(&[("transfer_to_closer", json!({}))])]))
        .handoff_through(&closer, Brief)
        .build()
        .unwrap();
    let run = Run::start(&Runtime::in_memory(), &boss, "go").await.unwrap();
    assert_eq!(run.output(), Some("good day"), "{:?}", run.error());
    let read: Vec<u64> = run.events().await.unwrap().iter().filter_map(asked).collect();
    assert_eq!(read, [1, 1]);
}

fn asked(record: &mooring::Record) -> Option<u64> {
    match &record.event {
        mooring::Event::ModelRequested(asked) => Some(asked.items),
        _ => None,
    }
}

#[tokio::test]
async fn an_agent_judges_what_another_is_asked() {
    let judge = Agent::builder("judge")
        .model(named("judging", &[says(r#"{"trip": true, "reason": "it asks for a secret"}"#)]))
        .build()
        .unwrap();
    let spec: GuardrailSpec = serde_json::from_value(json!({"name": "secrets", "on": "input"})).unwrap();
    let agent = Agent::builder("a").model(script(&[says("sure")])).judge(&judge, spec).build().unwrap();
    let run = Run::start(&Runtime::in_memory(), &agent, "what is the key?").await.unwrap();
    let error = run.error().unwrap();
    assert_eq!(error.code, "guardrail_tripped");
    assert!(error.message.contains("it asks for a secret"), "{}", error.message);
}

#[tokio::test]
async fn a_conversation_is_shortened_by_its_summariser() {
    let lines = [vec![calls(&[("page", json!({"number": 1}))]); 4], vec![says("read")]].concat();
    let compaction =
        Compaction { at_tokens: 60, keep_turns: 1, model: None, instructions: None, provider: false };
    let agent = Agent::builder("a")
        .model(script(&lines))
        .tool(page)
        .compaction(compaction)
        .summariser(named("notes", &[says("-"), says("-"), says("-"), says("-")]))
        .build()
        .unwrap();
    let run =
        Run::start(&Runtime::in_memory(), &agent, "Read page 1 again and again, all of it.").await.unwrap();
    assert_eq!(run.output(), Some("read"), "{:?}", run.error());
    let asked = run.events().await.unwrap().into_iter().find_map(|record| match record.event {
        mooring::Event::CompactionRequested(asked) => Some(asked.model),
        _ => None,
    });
    assert_eq!(asked.as_deref(), Some("notes"));
}

#[tokio::test]
async fn runs_of_one_tenant_share_an_account() {
    let limits: Budget = serde_json::from_value(json!({"max_turns": 3})).unwrap();
    let runtime = Runtime::in_memory().with_tenant("acme", "acme 2026-11", limits);
    let lines = [calls(&[("page", json!({"number": 1}))]), says("read")];
    let agent = || Agent::builder("a").model(script(&lines)).tool(page).build().unwrap();
    let first = Run::start(&runtime, &agent(), "go").await.unwrap();
    assert_eq!(first.status(), Status::Completed, "{:?}", first.error());
    let second = Run::start(&runtime, &agent(), "go").await.unwrap();
    assert_eq!(second.error().unwrap().code, "budget_exhausted", "{:?}", second.output());
}
