//! Chains of models: who is asked, when the next is, and what is said of it.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use mooring_model::{
    FunctionOutput, Item, ModelClient, ModelErrorKind as Kind, ModelEvent, ModelOptions, ModelSpec, Route,
    connect_all,
};
use mooring_testkit::{Reply, Server, Step};
use serde_json::{Map, Value, json};
use tokio::time::advance;

use crate::support::{Fake, answer, bare, call, client, conversation, options};

/// The models of a protocol each.
const ALL: [&str; 3] = ["openai/m", "chat/m", "anthropic/m"];

fn fixture(name: &str) -> String {
    std::fs::read_to_string(format!("{}/tests/fixtures/{name}.sse", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn route(models: &[&Arc<Fake>]) -> Route {
    Route::new(models.iter().map(|&model| -> Arc<dyn ModelClient> { model.clone() }).collect()).unwrap()
}

/// A model that takes a second for each call.
fn slow(name: &str) -> Arc<Fake> {
    Fake::new(name, Duration::from_secs(1), [])
}

/// Which model of this chain answers a call, or how it fails.
async fn answers(route: &Route) -> Result<String, Kind> {
    call(route, bare(0)).await.1.map(|response| response.model).map_err(|error| error.kind)
}

#[tokio::test]
async fn where_one_provider_fails_another_answers() {
    let overloaded =
        "data: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Busy\"}}\n\n";
    let text = fixture("anthropic/text");
    let cut = text.find("Hello").unwrap();
    let refused = |status: u16, code: &str| {
        Reply::json(status, &json!({"error": {"message": "No.", "type": code, "code": code}}))
    };
    let failures = [
        (
            "an overload inside a good stream",
            Reply::stream(format!(
                "{}{overloaded}",
                &text[..text.find("event: content_block_stop").unwrap()]
            )),
            "Busy",
        ),
        ("a rate limit", refused(429, "rate_limit_error"), "No"),
        ("no credit", refused(402, "billing_error"), "No"),
        ("no access", refused(401, "authentication_error"), "No"),
        ("a failure of the provider", Reply::new(503), "503"),
        ("a stall", Reply::stream(text[..cut].to_owned()).step(Step::Stall), "nothing came for 200ms"),
        ("a cut", Reply::stream(text[..cut].to_owned()).step(Step::Cut), "connection"),
        ("no such protocol", Reply::stream("data: hello\n\n"), "malformed JSON"),
    ];
    for (what, failure, said) in failures {
        let first = Server::start([failure]).await.unwrap();
        let second = Server::start([Reply::stream(fixture("chat/openai-text"))]).await.unwrap();
        let models = vec![client("anthropic/first", &first, 1), client("chat/second", &second, 1)];
        let route = Route::new(models).unwrap();
        assert_eq!(route.name(), "anthropic/first, then chat/second");
        let (events, outcome) = call(&route, bare(0)).await;
        let response = outcome.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!((response.model.as_str(), route.answered_by(&response)), ("chat/second", "chat/second"));
        let retries: Vec<_> = events
            .iter()
            .filter_map(|event| match event {
                ModelEvent::Retrying { attempt, after, reason, .. } => Some((*attempt, *after, reason)),
                _ => None,
            })
            .collect();
        let [(2, Duration::ZERO, reason)] = retries[..] else { panic!("{what}: {events:?}") };
        assert!(reason.starts_with("anthropic/first gives way to chat/second: "), "{what}: {reason}");
        assert!(reason.contains(said), "{what}: {reason}");
    }
}

#[tokio::test]
async fn what_every_provider_would_refuse_ends_the_call() {
    let second = Server::start([]).await.unwrap();
    for (code, kind) in
        [("invalid_request_error", Kind::InvalidRequest), ("context_length_exceeded", Kind::ContextTooLong)]
    {
        let refusal = Reply::json(400, &json!({"error": {"message": "No.", "type": code, "code": code}}));
        let first = Server::start([refusal]).await.unwrap();
        let alone = client("openai/first", &first, 1);
        let route = Route::new(vec![alone, client("chat/second", &second, 1)]).unwrap();
        let (events, outcome) = call(&route, bare(0)).await;
        let error = outcome.unwrap_err();
        assert_eq!((events, error.kind, error.model.as_str()), (vec![], kind, "openai/first"));
    }
    assert_eq!(second.requests(), []);
}

#[tokio::test]
async fn where_all_fail_each_is_named_with_its_failure() {
    let refused = |status: u16, message: &str| Reply::json(status, &json!({"error": {"message": message}}));
    let first = Server::start([refused(401, "Wrong key.")]).await.unwrap();
    let overloaded = || refused(529, "Busy.").header("retry-after-ms", "1").header("x-request-id", "req_2");
    let second = Server::start([overloaded(), overloaded()]).await.unwrap();
    let third = Server::start([refused(402, "Pay.")]).await.unwrap();
    let models = [("openai/a", &first, 1), ("anthropic/b", &second, 2), ("chat/c", &third, 1)];
    let models = models.map(|(spec, server, tries)| client(spec, server, tries));
    let (events, outcome) = call(&Route::new(models.into()).unwrap(), bare(0)).await;
    let error = outcome.unwrap_err();
    // What may pass decides on the kind, and so on whether the call is worth making again.
    assert_eq!(
        (error.kind, error.status, error.request_id.as_deref()),
        (Kind::Provider, Some(529), Some("req_2"))
    );
    let said = events.iter().map(|event| format!("{event:?}\n")).collect::<String>();
    insta::assert_snapshot!(format!("{said}{error}"));
}

/// A refusal of a later model decides on the kind, and the failures that led to it are not lost.
#[tokio::test(start_paused = true)]
async fn a_later_refusal_ends_the_call_with_what_led_to_it() {
    let (first, second, third) = (slow("a"), slow("b"), slow("c"));
    first.fail(Kind::RateLimited);
    second.fail(Kind::ContextTooLong);
    let error = call(&route(&[&first, &second, &third]), bare(0)).await.1.unwrap_err();
    assert_eq!(error.kind, Kind::ContextTooLong);
    assert_eq!(
        error.to_string(),
        "a, then b, then c: no model of the chain answered: a: failed (rate_limited); \
         b: failed (context_too_long)"
    );
    assert!(third.began().is_empty());
}

#[tokio::test(start_paused = true)]
async fn who_failed_rests_the_longer_the_more_often_it_did() {
    let (first, second) = (slow("a"), slow("b"));
    let route = route(&[&first, &second]);
    for rest in [30, 60, 120, 240, 480, 600, 600].map(Duration::from_secs) {
        first.fail(Kind::Provider);
        assert_eq!(answers(&route).await.unwrap(), "b");
        // The answer of the other took a second of the rest.
        advance(rest.checked_sub(Duration::from_millis(1001)).unwrap()).await;
        let asked = first.began().len();
        let resting = route.stream(bare(0)).next().await.unwrap().unwrap();
        assert!(matches!(resting, ModelEvent::Completed(response) if response.model == "b"), "{rest:?}");
        assert_eq!(first.began().len(), asked, "{rest:?}");
    }
    // An answer ends all that.
    advance(Duration::from_mins(10)).await;
    assert_eq!(answers(&route).await.unwrap(), "a");
    first.fail(Kind::Provider);
    assert_eq!(answers(&route).await.unwrap(), "b");
    advance(Duration::from_secs(30)).await;
    assert_eq!(answers(&route).await.unwrap(), "a");
}

/// Up to a bound: who asks for a day is asked again after ten minutes.
#[tokio::test(start_paused = true)]
async fn who_asks_to_wait_rests_as_long() {
    for (asked, rest) in [(1, 30), (90, 90), (86_400, 600)] {
        let (first, second) = (slow("a"), slow("b"));
        let route = route(&[&first, &second]);
        first.fail_and_ask_to_wait(Kind::RateLimited, Some(Duration::from_secs(asked)));
        assert_eq!(answers(&route).await.unwrap(), "b");
        advance(Duration::from_secs(rest - 2)).await;
        assert_eq!(answers(&route).await.unwrap(), "b", "{asked}");
        assert_eq!(answers(&route).await.unwrap(), "a", "{asked}");
    }
}

#[tokio::test(start_paused = true)]
async fn calls_side_by_side_count_one_failure() {
    let (first, second) = (slow("a"), slow("b"));
    let route = route(&[&first, &second]);
    (0..10).for_each(|_| first.fail(Kind::RateLimited));
    let outcomes = futures::future::join_all((0..10).map(|_| answers(&route))).await;
    assert_eq!(outcomes, vec![Ok("b".to_owned()); 10]);
    advance(Duration::from_secs(30)).await;
    assert_eq!(answers(&route).await.unwrap(), "a");
}

#[tokio::test(start_paused = true)]
async fn who_rests_is_asked_when_nobody_else_answers() {
    let (first, second) = (slow("a"), slow("b"));
    let route = route(&[&first, &second]);
    first.fail(Kind::Network);
    assert_eq!(answers(&route).await.unwrap(), "b");
    second.fail(Kind::Network);
    assert_eq!(answers(&route).await.unwrap(), "a");
    // Now only the second rests.
    assert_eq!(answers(&route).await.unwrap(), "a");
    // Where all rest, the order is that of the chain.
    first.fail(Kind::Network);
    second.fail(Kind::Network);
    assert_eq!(answers(&route).await, Err(Kind::Network));
    assert_eq!(answers(&route).await.unwrap(), "a");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_is_cancelled_and_blames_nobody() {
    let (first, second) = (slow("a"), slow("b"));
    let route = route(&[&first, &second]);
    let dropped = tokio::time::timeout(Duration::from_millis(500), call(&route, bare(0))).await;
    assert!(dropped.is_err());
    assert_eq!((first.under_way(), second.began().len()), (0, 0));
    assert_eq!(answers(&route).await.unwrap(), "a");
}

/// A chain in a chain: the name of the model that answered comes through.
#[tokio::test(start_paused = true)]
async fn chains_nest() {
    let (first, second, third) = (slow("a"), slow("b"), slow("c"));
    first.fail(Kind::Network);
    second.fail(Kind::Network);
    let inner: Arc<dyn ModelClient> = Arc::new(route(&[&second, &third]));
    let outer = Route::new(vec![first, inner]).unwrap();
    let (events, outcome) = call(&outer, bare(0)).await;
    assert_eq!(outer.answered_by(&outcome.unwrap()), "c");
    let attempts: Vec<_> = events
        .iter()
        .map(|event| match event {
            ModelEvent::Retrying { attempt, reason, .. } => (*attempt, reason.as_str()),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        attempts,
        [(2, "a gives way to b, then c: failed (network)"), (3, "b gives way to c: failed (network)")]
    );
}

#[tokio::test]
async fn one_model_stays_alone_and_none_is_refused() {
    let server = Server::start([Reply::stream(fixture("chat/openai-text"))]).await.unwrap();
    let specs = ["chat/a", "chat/b"].map(|spec| ModelSpec::parse(spec).unwrap());
    let url = server.url();
    let options = |_: &ModelSpec| options(&url);
    let only = connect_all(&specs[..1], options).unwrap();
    let response = call(&*only, bare(0)).await.1.unwrap();
    assert_eq!((only.name(), only.answered_by(&response)), ("chat/a", "chat/a"));
    // In the provider's words, as without any chain.
    assert_ne!(response.model, "chat/a");
    assert_eq!(connect_all(&specs, options).unwrap().name(), "chat/a, then chat/b");
    let error = connect_all(&[], options).unwrap_err();
    assert_eq!(error.to_string(), "model: the list of models is empty. Name at least one model");
    // A chain of which a part cannot work is refused before anything is sent.
    let error = connect_all(&specs, |_| ModelOptions::default()).unwrap_err();
    assert_eq!((error.kind, error.model.as_str()), (Kind::InvalidRequest, "chat/a"));
}

/// Begun on one protocol, with its reasoning, its signatures and its ids, a conversation goes on on both others.
#[tokio::test]
async fn a_conversation_goes_on_on_every_other_protocol() {
    let begun = [
        ("openai/m", "responses/tools"),
        ("chat/m", "chat/vllm-reasoning"),
        ("anthropic/m", "anthropic/thinking-tools"),
    ];
    for (at, (first_spec, first_fixture)) in begun.into_iter().enumerate() {
        let order = [first_spec, ALL[(at + 1) % 3], ALL[(at + 2) % 3]];
        let failure = || Reply::new(500);
        let last = match order[2] {
            "openai/m" => "responses/text",
            "chat/m" => "chat/openai-text",
            _ => "anthropic/text",
        };
        let servers = [
            Server::start([Reply::stream(fixture(first_fixture)), failure()]).await.unwrap(),
            Server::start([failure()]).await.unwrap(),
            Server::start([Reply::stream(fixture(last))]).await.unwrap(),
        ];
        let models = order.iter().zip(&servers).map(|(spec, server)| client(spec, server, 1));
        let route = Route::new(models.collect()).unwrap();

        let mut conversation = conversation();
        conversation.items = vec![Item::user("Fix it.")];
        let mut answer = call(&route, conversation.request()).await.1.unwrap();
        // What a provider's own tool did is for itself alone.
        answer.items.retain(|item| !matches!(item, Item::Other(_)));
        assert_eq!(answer.model, first_spec);
        assert!(answer.items.iter().any(|item| matches!(item, Item::Reasoning { .. })), "{first_spec}");
        let said: Vec<_> = answer.items.iter().map(Item::text).filter(|text| !text.is_empty()).collect();
        let outputs: Vec<_> = answer.items.iter().filter_map(output).collect();
        let calls = outputs.len();
        conversation.items.extend(answer.items);
        conversation.items.extend(outputs);

        let (_, outcome) = call(&route, conversation.request()).await;
        assert_eq!(outcome.unwrap().model, order[2]);
        for (spec, server) in order.iter().zip(&servers).skip(1) {
            let [request] = &server.requests()[..] else { panic!("{first_spec} to {spec}") };
            let text = request.body.to_string();
            let reasoning = [
                "signature",
                "encrypted_content\":",
                "reasoning_content",
                "\"reasoning\":\"",
                "redacted_thinking",
            ];
            for reasoning in reasoning {
                assert!(!text.contains(reasoning), "{first_spec} to {spec}: {reasoning} in {text}");
            }
            for said in &said {
                let said = Value::from(said.as_str()).to_string();
                assert!(text.contains(said.trim_matches('"')), "{first_spec} to {spec}: {said} in {text}");
            }
            assert_eq!(text.matches("output of a call").count(), calls, "{first_spec} to {spec}: {text}");
        }
    }
}

/// What a protocol cannot carry is left to the models that can, and is nobody's failure.
#[tokio::test]
async fn who_cannot_carry_the_conversation_is_passed_over() {
    let text = || Reply::stream(fixture("responses/text"));
    let away = Server::start([Reply::new(500)]).await.unwrap();
    let other = Server::start([Reply::stream(fixture("chat/openai-text"))]).await.unwrap();
    let last = Server::start([text(), text()]).await.unwrap();
    let models = [("openai/a", &away), ("chat/b", &other), ("openai/c", &last)];
    let route = Route::new(models.map(|(spec, server)| client(spec, server, 1)).into()).unwrap();
    let mut conversation = conversation();
    let searched = json!({"type": "web_search_call", "id": "ws_1", "status": "completed"});
    conversation.items.push(serde_json::from_value(searched).unwrap());
    conversation.items.push(Item::user("Go on."));
    let (events, outcome) = call(&route, conversation.request()).await;
    assert_eq!(outcome.unwrap().model, "openai/c");
    let [_, ModelEvent::Retrying { attempt: 3, reason, .. }, ..] = &events[..] else { panic!("{events:?}") };
    assert!(reason.starts_with("chat/b gives way to openai/c: an item `web_search_call`"), "{reason}");
    assert_eq!(other.requests(), []);
    // The first rests now; the second does not.
    assert_eq!(answers(&route).await.unwrap(), "chat/b");
    // Where nobody can be asked, the failure that may pass decides.
    let failing = Server::start([Reply::new(500)]).await.unwrap();
    let models = [("chat/b", &other), ("openai/a", &failing)];
    let route = Route::new(models.map(|(spec, server)| client(spec, server, 1)).into()).unwrap();
    let error = call(&route, conversation.request()).await.1.unwrap_err();
    assert_eq!(error.kind, Kind::Provider);
}

/// What came of a call.
fn output(item: &Item) -> Option<Item> {
    let output = FunctionOutput::Text("output of a call".into());
    match item {
        Item::FunctionCall { call_id, .. } => {
            Some(Item::FunctionCallOutput { call_id: call_id.clone(), output, extra: Map::new() })
        }
        Item::CustomToolCall { call_id, .. } => {
            Some(Item::CustomToolCallOutput { call_id: call_id.clone(), output, extra: Map::new() })
        }
        _ => None,
    }
}

/// The words of the provider are replaced in a chain, where the name of the model says more.
#[tokio::test(start_paused = true)]
async fn an_answer_names_the_model_of_the_chain() {
    let model = Fake::new("openai/gpt", Duration::ZERO, [Ok(answer("gpt-2026-01-01", 1))]);
    assert_eq!(answers(&route(&[&model])).await.unwrap(), "openai/gpt");
}
