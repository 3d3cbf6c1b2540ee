//! What goes wrong on the way, against a server that does it on purpose.

use std::time::Duration;

use futures::StreamExt as _;
use mooring_model::{ModelErrorKind, ModelEvent, ModelOptions, ModelSpec, Secret, connect};
use mooring_testkit::{Reply, Server, Step};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{KEY, bare, call, client, options};

/// One model of each protocol.
const ALL: [&str; 3] = ["openai/m", "chat/m", "anthropic/m"];

/// A whole answer of this protocol.
fn answer(spec: &str) -> String {
    let fixture = match spec {
        "openai/m" => "responses/text",
        "chat/m" => "chat/openai-text",
        _ => "anthropic/text",
    };
    std::fs::read_to_string(format!("{}/tests/fixtures/{fixture}.sse", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// The first part of it, which ends inside an event after some text was shown.
fn half(spec: &str) -> String {
    let answer = answer(spec);
    let text = answer.find("Hello").or_else(|| answer.find("Gott!")).unwrap();
    let end = answer[text..].find("\n\n").unwrap() + text + 12;
    answer[..end].to_owned()
}

fn stream() -> Reply {
    Reply::new(200).header("content-type", "text/event-stream")
}

/// Where the first try fails like this, the second gives the whole answer.
async fn mended(first: impl Fn(&str) -> Reply, kind: &str) {
    for spec in ALL {
        let server = Server::start([first(spec), Reply::stream(answer(spec))]).await.unwrap();
        let (events, outcome) = call(&*client(spec, &server, 2), bare(0)).await;
        let response = outcome.unwrap();
        assert!(response.items[0].text().len() > 5, "{spec}: {response:?}");
        let retries: Vec<_> =
            events.iter().filter(|event| matches!(event, ModelEvent::Retrying { .. })).collect();
        let [ModelEvent::Retrying { attempt: 2, reason, .. }] = retries[..] else {
            panic!("{spec}: {events:?}")
        };
        assert!(reason.contains(kind), "{spec}: {reason}");
        assert_eq!(server.requests().len(), 2);
        assert_eq!(server.requests()[0], server.requests()[1]);
    }
}

#[tokio::test]
async fn a_stall_before_the_head() {
    mended(|_| Reply::new(200).step(Step::Stall), "nothing came for 200ms").await;
}

#[tokio::test]
async fn a_stall_after_the_head() {
    mended(|_| stream().send("").step(Step::Stall), "nothing came for 200ms").await;
}

#[tokio::test]
async fn a_stall_in_the_stream() {
    mended(|spec| stream().send(half(spec)).step(Step::Stall), "nothing came for 200ms").await;
}

#[tokio::test]
async fn a_cut_before_the_head() {
    mended(|_| Reply::new(200).step(Step::Cut), "error sending request").await;
}

#[tokio::test]
async fn a_cut_in_the_stream() {
    mended(|spec| stream().send(half(spec)).step(Step::Cut), "error decoding response body").await;
}

#[tokio::test]
async fn a_stream_that_ends_too_early() {
    mended(|spec| stream().send(half(spec)), "the stream ended before the answer was whole").await;
}

#[tokio::test]
async fn an_event_that_is_no_json() {
    mended(|spec| stream().send(half(spec) + "\n\ndata: {\"oops\n\n"), "malformed JSON").await;
}

#[tokio::test]
async fn an_error_in_the_stream() {
    let error = |spec: &str| match spec {
        "openai/m" => concat!(
            "event: error\ndata: {\"type\":\"error\",\"sequence_number\":5,\"code\":\"server_error\",",
            "\"message\":\"The server had an error processing your request. Sorry about that!\",\"param\":null}\n\n"
        ),
        "chat/m" => concat!(
            "data: {\"error\":{\"message\":\"EngineCore encountered a fatal server error\",",
            "\"type\":\"InternalServerError\",\"param\":null,\"code\":500}}\n\ndata: [DONE]\n\n"
        ),
        _ => concat!(
            "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",",
            "\"message\":\"Overloaded: a server error\"},\"request_id\":\"req_011CS\"}\n\n"
        ),
    };
    let text = |spec: &str| answer(spec).split_inclusive("\n\n").take(5).collect::<String>();
    mended(|spec| stream().send(text(spec)).send(error(spec)), "server").await;
}

#[tokio::test]
async fn a_failed_response() {
    let failed = concat!(
        "event: response.failed\ndata: {\"type\":\"response.failed\",\"sequence_number\":1,\"response\":",
        "{\"id\":\"resp_1\",\"object\":\"response\",\"status\":\"failed\",\"error\":{\"code\":\"rate_limit_exceeded\",",
        "\"message\":\"Rate limit reached for gpt-5. Limit 30000, Used 29000. Please try again in 12ms.\"},\"output\":[]}}\n\n"
    );
    let replies = [stream().send(failed), Reply::stream(answer("openai/m"))];
    let server = Server::start(replies).await.unwrap();
    let (events, outcome) = call(&*client("openai/m", &server, 2), bare(0)).await;
    outcome.unwrap();
    let ModelEvent::Retrying { after, reason, .. } = &events[0] else { panic!("{events:?}") };
    assert_eq!(*after, Duration::from_millis(12));
    assert!(reason.contains("Rate limit reached"), "{reason}");
}

#[tokio::test]
async fn a_rate_limit_is_waited_for() {
    for spec in ALL {
        let limited =
            Reply::json(429, &json!({"error": {"message": "Rate limit reached", "type": "requests"}}));
        let server = Server::start([
            limited.clone().header("retry-after", "0"),
            limited.header("retry-after", "90").header("retry-after-ms", "3"),
            Reply::stream(answer(spec)),
        ])
        .await
        .unwrap();
        let (events, outcome) = call(&*client(spec, &server, 3), bare(0)).await;
        outcome.unwrap();
        let waits: Vec<_> = events
            .iter()
            .filter_map(|event| match event {
                ModelEvent::Retrying { after, .. } => Some(*after),
                _ => None,
            })
            .collect();
        assert_eq!(waits, [Duration::ZERO, Duration::from_millis(3)]);
    }
}

#[tokio::test]
async fn server_errors_pass_or_are_given_up() {
    for spec in ALL {
        let broken = |status| Reply::new(status).header("retry-after-ms", "1").send("upstream is down");
        let server = Server::start([broken(500), broken(503), broken(529), Reply::stream(answer(spec))])
            .await
            .unwrap();
        assert!(call(&*client(spec, &server, 4), bare(0)).await.1.is_ok());

        let server = Server::start([broken(502), broken(500), broken(503), broken(500)]).await.unwrap();
        let error = call(&*client(spec, &server, 3), bare(0)).await.1.unwrap_err();
        assert_eq!(
            (error.kind, error.status, error.to_string()),
            (
                ModelErrorKind::Provider,
                Some(503),
                format!("{spec}: HTTP 503: upstream is down (tried 3 times)")
            )
        );
        assert_eq!(server.requests().len(), 3);
    }
}

/// What another try cannot mend: one request, and a text that says what to do.
#[tokio::test]
async fn refusals() {
    let openai = |message: &str, class: &str, code: Option<&str>| json!({"error": {"message": message, "type": class, "param": null, "code": code}});
    let anthropic = |class: &str, message: &str| json!({"type": "error", "error": {"type": class, "message": message}, "request_id": "req_body"});
    let cases = [
        (
            "openai/m",
            401,
            openai(
                &format!("Incorrect API key provided: {KEY}."),
                "invalid_request_error",
                Some("invalid_api_key"),
            ),
        ),
        (
            "openai/m",
            403,
            openai("Project has no access to model `m`", "invalid_request_error", Some("model_not_found")),
        ),
        (
            "openai/m",
            404,
            openai("The model `m` does not exist", "invalid_request_error", Some("model_not_found")),
        ),
        (
            "openai/m",
            400,
            openai(
                "Unknown parameter: 'input[1].status'.",
                "invalid_request_error",
                Some("unknown_parameter"),
            ),
        ),
        (
            "openai/m",
            429,
            openai(
                "You exceeded your current quota, please check your plan and billing details.",
                "insufficient_quota",
                Some("insufficient_quota"),
            ),
        ),
        (
            "openai/m",
            400,
            openai(
                "Your input exceeds the context window of this model.",
                "invalid_request_error",
                Some("context_length_exceeded"),
            ),
        ),
        (
            "chat/m",
            400,
            json!({"object": "error", "message": "This model's maximum context length is 8192 tokens. However, you requested 9000 tokens.", "type": "BadRequestError", "param": null, "code": 400}),
        ),
        (
            "chat/m",
            400,
            json!({"error": {"code": 400, "message": "the request exceeds the available context size, try increasing it", "type": "exceed_context_size_error", "n_prompt_tokens": 9412, "n_ctx": 8192}}),
        ),
        (
            "chat/m",
            404,
            json!({"error": {"message": "model \"m\" not found, try pulling it first", "type": "not_found_error", "param": null, "code": null}}),
        ),
        ("chat/m", 404, json!({"detail": "Not Found"})),
        ("chat/m", 422, json!({"detail": [{"loc": ["body", "messages"], "msg": "field required"}]})),
        ("chat/m", 400, json!({"error": "unexpected EOF"})),
        ("anthropic/m", 401, anthropic("authentication_error", "invalid x-api-key")),
        (
            "anthropic/m",
            400,
            anthropic("invalid_request_error", "prompt is too long: 208310 tokens > 200000 maximum"),
        ),
        (
            "anthropic/m",
            400,
            anthropic("invalid_request_error", "Your credit balance is too low to access the Anthropic API."),
        ),
        ("anthropic/m", 413, anthropic("request_too_large", "Request exceeds the maximum size")),
        (
            "anthropic/m",
            400,
            anthropic(
                "invalid_request_error",
                "max_tokens: 32000 > 8192, which is the maximum allowed number of output tokens",
            ),
        ),
    ];
    let mut said = String::new();
    for (spec, status, body) in cases {
        let reply = Reply::json(status, &body).header("x-request-id", "req_1");
        let server = Server::start([reply]).await.unwrap();
        let (events, outcome) = call(&*client(spec, &server, 3), bare(0)).await;
        let error = outcome.unwrap_err();
        assert_eq!((events, error.status), (vec![], Some(status)));
        assert_eq!(error.request_id.as_deref(), Some("req_1"));
        assert!(!format!("{error:?}").contains(KEY), "{error:?}");
        said += &format!("{:?}\n  {error}\n", error.kind);
    }
    insta::assert_snapshot!(said);
}

/// The same inside a stream that began with 200.
#[tokio::test]
async fn refusals_in_the_stream() {
    let cases = [
        ("openai/m", json!({"type": "error", "code": "context_length_exceeded", "message": "Too long."})),
        (
            "openai/m",
            json!({"type": "error", "error": {"type": "insufficient_quota", "code": "insufficient_quota", "message": "No quota."}}),
        ),
        (
            "openai/m",
            json!({"type": "response.failed", "response": {"id": "resp_9", "status": "failed", "error": {"code": "invalid_prompt", "message": "Flagged."}}}),
        ),
        (
            "chat/m",
            json!({"error": {"message": "This model's maximum context length is 10 tokens", "type": "BadRequestError", "code": 400}}),
        ),
        (
            "chat/m",
            json!({"error": {"message": format!("bad key {KEY}"), "type": "invalid_request_error", "code": 401}}),
        ),
        (
            "anthropic/m",
            json!({"type": "error", "error": {"type": "invalid_request_error", "message": "messages.1: bad"}}),
        ),
        (
            "anthropic/m",
            json!({"type": "error", "error": {"type": "billing_error", "message": "Payment is due"}}),
        ),
    ];
    let mut said = String::new();
    for (spec, event) in cases {
        let server = Server::start([stream().send(format!(": hello\n\ndata: {event}\n\n"))]).await.unwrap();
        let error = call(&*client(spec, &server, 3), bare(0)).await.1.unwrap_err();
        said += &format!("{:?}\n  {error}\n", error.kind);
    }
    insta::assert_snapshot!(said);
}

/// A server that answers at once with JSON, a web page, or somewhere else.
#[tokio::test]
async fn answers_that_are_no_stream() {
    let cases = [
        Reply::json(200, &json!({"error": {"message": "model is loading", "type": "unavailable"}})),
        Reply::json(200, &json!({"choices": [{"message": {"content": "Hi"}}]})),
        Reply::new(200).header("content-type", "text/html").send("<html>\n\n<p>Sign in</p>\n\n"),
        stream().send("data: [DONE]\n\n"),
        stream().send("data: \u{feff}\n\n"),
        Reply::new(307).header("location", "https://elsewhere.example/v1"),
        Reply::new(404),
    ];
    let mut said = String::new();
    for reply in cases {
        let server = Server::start([reply]).await.unwrap();
        let error = call(&*client("chat/m", &server, 1), bare(0)).await.1.unwrap_err();
        said += &format!("{:?}\n  {error}\n", error.kind);
    }
    insta::assert_snapshot!(said);
}

#[tokio::test]
async fn an_event_larger_than_the_limit() {
    let mut reply = stream().send("data: ");
    for _ in 0..34 {
        reply = reply.send(vec![b'x'; 1 << 20]);
    }
    let server = Server::start([reply]).await.unwrap();
    let options = ModelOptions { tries: 1, ..options(&server.url()) };
    let model = connect(&ModelSpec::parse("chat/m").unwrap(), &options).unwrap();
    let error = call(&*model, bare(0)).await.1.unwrap_err();
    assert_eq!(error.kind, ModelErrorKind::Protocol);
    assert!(error.message.contains("larger than 33554432 bytes"), "{error}");
}

#[tokio::test]
async fn a_slow_answer_is_no_stall() {
    for spec in ALL {
        let answer = answer(spec);
        let mut reply = stream();
        for piece in answer.as_bytes().chunks(answer.len() / 12) {
            reply = reply.send(piece.to_vec()).step(Step::Wait(Duration::from_millis(40)));
        }
        let server = Server::start([reply]).await.unwrap();
        let (events, outcome) = call(&*client(spec, &server, 1), bare(0)).await;
        outcome.unwrap();
        assert!(events.iter().all(|event| matches!(event, ModelEvent::TextDelta(_))), "{events:?}");
    }
}

#[tokio::test]
async fn a_total_limit_ends_even_an_answer_that_goes_on() {
    let mut reply = stream();
    for _ in 0..200 {
        reply = reply.send(": alive\n\n").step(Step::Wait(Duration::from_millis(20)));
    }
    let server = Server::start([reply]).await.unwrap();
    let options =
        ModelOptions { total_timeout: Some(Duration::from_millis(150)), tries: 1, ..options(&server.url()) };
    let model = connect(&ModelSpec::parse("anthropic/m").unwrap(), &options).unwrap();
    let error = call(&*model, bare(0)).await.1.unwrap_err();
    assert_eq!(
        (error.kind, error.to_string()),
        (
            ModelErrorKind::Timeout,
            "anthropic/m: the answer was not whole in time. Raise the total timeout".to_owned()
        )
    );
}

/// A Chat Completions server that says `finish_reason` and then neither `[DONE]` nor goodbye.
#[tokio::test]
async fn an_answer_that_is_whole_counts_however_the_stream_ends() {
    let body = answer("chat/m").replace("data: [DONE]\n\n", "");
    for reply in [stream().send(body.clone()).step(Step::Stall), stream().send(body.clone()).step(Step::Cut)]
    {
        let server = Server::start([reply]).await.unwrap();
        let response = call(&*client("chat/m", &server, 1), bare(0)).await.1.unwrap();
        assert_eq!((response.items[0].text(), response.usage.total()), ("Hello, wörld".to_owned(), 29));
    }
}

#[tokio::test]
async fn a_server_that_is_not_there() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let options = ModelOptions { tries: 1, ..options(&url) };
    let model = connect(&ModelSpec::parse("chat/m").unwrap(), &options).unwrap();
    let error = call(&*model, bare(0)).await.1.unwrap_err();
    assert_eq!(error.kind, ModelErrorKind::Network);
    assert!(error.message.contains("Connection refused"), "{error}");
    assert!(!format!("{model:?} {error:?}").contains(KEY));
}

/// The TLS stack is there and speaks; that the other side does not is a failure of the network.
#[tokio::test]
async fn a_server_that_speaks_no_tls() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    });
    let options = ModelOptions { tries: 1, ..options(&url) };
    let model = connect(&ModelSpec::parse("chat/m").unwrap(), &options).unwrap();
    let error = call(&*model, bare(0)).await.1.unwrap_err();
    server.await.unwrap();
    assert_eq!(error.kind, ModelErrorKind::Network);
    assert!(error.message.contains("InvalidContentType"), "{error}");
}

#[tokio::test]
async fn a_call_that_is_dropped_is_cancelled() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let model = connect(&ModelSpec::parse("anthropic/m").unwrap(), &options(&url)).unwrap();
    let begun = format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n{}", half("anthropic/m"));
    let server = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut request = vec![0; 4096];
        assert!(socket.read(&mut request).await.unwrap() > 0);
        socket.write_all(begun.as_bytes()).await.unwrap();
        socket
    };
    let mut call = model.stream(bare(0));
    let (mut socket, first) = tokio::join!(server, call.next());
    assert_eq!(first.unwrap().unwrap(), ModelEvent::TextDelta("Hello".into()));
    drop(call);
    // The end of the connection is all that comes; a test that hangs here has found a fault.
    let mut rest = Vec::new();
    let _ = socket.read_to_end(&mut rest).await;
}

#[test]
fn options_that_cannot_work_are_refused() {
    let cases = [
        ModelOptions { base_url: Some("127.0.0.1:8000/v1".into()), ..options("") },
        ModelOptions { base_url: Some("ftp://127.0.0.1/v1".into()), ..options("") },
        ModelOptions { base_url: Some("http://user:secret@127.0.0.1/v1".into()), ..options("") },
        ModelOptions { base_url: Some("http://127.0.0.1/v1?key=secret".into()), ..options("") },
        ModelOptions { api_key: Some(Secret::new("a secret\nkey")), ..options("http://127.0.0.1") },
        ModelOptions { proxy: Some(Secret::new("::secret")), ..options("http://127.0.0.1") },
    ];
    let mut said = String::new();
    for options in cases {
        let error = connect(&ModelSpec::parse("chat/m").unwrap(), &options).unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
        said += &format!("{:?}\n  {error}\n", error.kind);
    }
    insta::assert_snapshot!(said);
}
