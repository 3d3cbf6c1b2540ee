//! `#[tool]`: what the model gets to know of a function, and what comes of a call.

use std::sync::{Arc, Mutex};

use mooring::{Agent, Effect, Json, Run, Runtime, Status, Tool, ToolContext, tool};
use serde_json::json;

use crate::words::{calls, says, script};

/// How to travel.
#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
enum By {
    Train,
    Ship,
}

/// Books a journey.
///
/// It can be undone within a day.
#[tool(name = "book_journey", effect = "compensatable")]
async fn book(
    /// From where.
    from: String,
    /// To where;
    /// several places are possible.
    to: Vec<String>,
    by: By,
    /// How many travel.
    #[serde(default)]
    travellers: u8,
    note: Option<String>,
) -> Json<serde_json::Value> {
    Json(json!({"from": from, "to": to, "by": format!("{by:?}"), "travellers": travellers, "note": note}))
}

/// Has no arguments, and is not async.
#[tool]
fn ping() -> &'static str {
    "pong"
}

/// Divides.
#[tool(effect = "pure")]
fn divide(dividend: i64, divisor: i64) -> Result<i64, String> {
    dividend.checked_div(divisor).ok_or_else(|| format!("{dividend} cannot be divided by {divisor}"))
}

static PROGRESS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Tells what it works with.
#[tool(effect = "pure")]
async fn inspect(context: &ToolContext) -> String {
    (context.progress)("looking");
    PROGRESS.lock().unwrap().push(context.key.clone());
    format!("session {}", context.session.id())
}

#[test]
fn a_model_gets_to_know_what_the_function_says() {
    let spec = book.spec();
    assert_eq!(book.effect(), Effect::Compensatable);
    assert_eq!(spec.name, "book_journey");
    assert_eq!(spec.description, "Books a journey.\n\nIt can be undone within a day.");
    let parameters = |spec: mooring::ToolSpec| match spec.kind {
        mooring::models::ToolKind::Function { parameters, .. } => parameters,
        other @ mooring::models::ToolKind::Custom { .. } => panic!("{other:?}"),
    };
    assert_eq!(
        parameters(spec),
        json!({
            "type": "object",
            "additionalProperties": false,
            "properties": {
                "from": {"type": "string", "description": "From where."},
                "to": {
                    "type": "array",
                    "items": {"type": "string"},
                    "description": "To where;\nseveral places are possible.",
                },
                "by": {"type": "string", "enum": ["train", "ship"], "description": "How to travel."},
                "travellers": {
                    "type": "integer",
                    "format": "uint8",
                    "minimum": 0,
                    "maximum": 255,
                    "description": "How many travel.",
                    "default": 0,
                },
                "note": {"type": ["string", "null"]},
            },
            "required": ["from", "to", "by"],
        })
    );
    let none = json!({"type": "object", "additionalProperties": false, "properties": {}});
    assert_eq!(parameters(ping.spec()), none);
    assert_eq!(
        (ping.effect(), ping.leaves_sandbox()),
        (Effect::AtMostOnce, true),
        "what nobody said is careful"
    );
}

#[test]
fn the_function_can_still_be_called() {
    assert_eq!(ping::invoke(), "pong");
    assert_eq!(divide::invoke(6, 3), Ok(2));
}

/// The outputs of one turn in which the model calls these.
async fn outputs(agent: Agent) -> Vec<String> {
    let run = Run::start(&Runtime::in_memory(), &agent, "go").await.unwrap();
    assert_eq!(run.status(), Status::Completed, "{:?}", run.error());
    let output = |record: mooring::Record| match record.event {
        mooring::Event::ToolCompleted(completed) => completed.output["output"].as_str().map(str::to_owned),
        _ => None,
    };
    run.events().await.unwrap().into_iter().filter_map(output).collect()
}

#[tokio::test]
async fn what_is_returned_is_what_the_model_reads() {
    let model = script(&[
        calls(&[
            ("divide", json!({"dividend": 6, "divisor": 3})),
            ("divide", json!({"dividend": 6, "divisor": 0})),
            ("divide", json!({"dividend": "six", "divisor": 3})),
            ("divide", json!({"dividend": 6, "divisor": 3, "rest": 0})),
            ("book_journey", json!({"from": "Oslo", "to": ["Hull"], "by": "ship"})),
            ("ping", json!({})),
        ]),
        says("done"),
    ]);
    let agent =
        Agent::builder("a").model(model).tool(divide).tool(book).tool(ping).allow("*").build().unwrap();
    let mut outputs = outputs(agent).await;
    outputs.sort();
    insta::assert_snapshot!(outputs.join("\n"), @r#"
    2
    6 cannot be divided by 0
    The arguments of divide do not fit: invalid type: string "six", expected i64. Call it again with arguments that do.
    The arguments of divide do not fit: unknown field `rest`, expected `dividend` or `divisor`. Call it again with arguments that do.
    pong
    {"from":"Oslo","to":["Hull"],"by":"Ship","travellers":0,"note":null}
    "#);
}

#[tokio::test]
async fn a_function_can_ask_for_what_it_works_with() {
    let model = script(&[calls(&[("inspect", json!({}))]), says("done")]);
    let agent = Agent::builder("a").model(model).tool(inspect).build().unwrap();
    assert_eq!(outputs(agent).await, ["session none"]);
    assert!(PROGRESS.lock().unwrap()[0].ends_with(":1:call_0"));
}

#[tokio::test]
async fn a_tool_that_changes_something_is_asked_for_and_a_pure_one_is_not() {
    let lines =
        [calls(&[("ping", json!({})), ("divide", json!({"dividend": 1, "divisor": 1}))]), says("done")];
    let agent = Agent::builder("a").model(script(&lines)).tool(ping).tool(divide).build().unwrap();
    let run = Run::start(&Runtime::in_memory(), &agent, "go").await.unwrap();
    let asked: Vec<String> = run.approvals().await.unwrap().into_iter().map(|asked| asked.tool).collect();
    assert_eq!((run.status(), asked), (Status::Waiting, vec!["ping".to_owned()]));
    // The agent's own rules go before.
    let agent = Agent::builder("a").model(script(&lines)).tool(ping).tool(divide).ask("*").build().unwrap();
    let run = Run::start(&Runtime::in_memory(), &agent, "go").await.unwrap();
    assert_eq!(run.approvals().await.unwrap().len(), 2);
    let agent =
        Agent::builder("a").model(script(&lines)).tools([Arc::new(ping) as Arc<dyn Tool>]).deny("ping");
    assert!(outputs(agent.build().unwrap()).await[0].starts_with("denied by the policy"));
}
