//! A model behind a wire: the whole way from the command line over HTTP into the sandbox and back.

use mooring_testkit::{Reply, Server};
use serde_json::{Value, json};

use crate::moor::{Moor, Ran, say};

fn chunks(deltas: &[Value], reason: &str) -> String {
    let chunk = |delta: &Value, reason: Value| {
        let choice = json!({"index": 0, "delta": delta, "finish_reason": reason});
        format!("data: {}\n\n", json!({"id": "c1", "model": "served", "choices": [choice]}))
    };
    let mut stream: String = deltas.iter().map(|delta| chunk(delta, Value::Null)).collect();
    stream += &chunk(&json!({}), json!(reason));
    let usage = json!({"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25});
    stream
        + &format!(
            "data: {}\n\ndata: [DONE]\n\n",
            json!({"id": "c1", "model": "served", "choices": [], "usage": usage})
        )
}

fn command(cmd: &str) -> String {
    let function = json!({"name": "exec_command", "arguments": json!({"cmd": cmd}).to_string()});
    let call = json!({"index": 0, "id": "call_1", "type": "function", "function": function});
    chunks(&[json!({"role": "assistant", "tool_calls": [call]})], "tool_calls")
}

fn text(text: &str) -> String {
    chunks(&[json!({"role": "assistant", "content": text})], "stop")
}

/// `moor run` against a server, with a key in its environment.
fn run(moor: &Moor, url: &str) -> Ran {
    let mut command = moor.command(&["run", "--model", "chat/served", "say hello"]);
    command
        .env("CHAT_BASE_URL", format!("{url}/v1"))
        .env("CHAT_API_KEY", "sk-secret-value")
        .output()
        .unwrap()
        .into()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_served_model_works_in_the_sandbox() {
    let server =
        Server::start([Reply::stream(command("echo from-$((40 + 2)); env")), Reply::stream(text("said it"))])
            .await
            .unwrap();
    let moor = Moor::new();
    let ran = run(&moor, &server.url());
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let last = ran.last();
    assert_eq!(
        (last["output"].as_str(), last["usage"]["input_tokens"].as_u64()),
        (Some("said it"), Some(40))
    );

    let requests = server.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[0].header("authorization"), Some("Bearer sk-secret-value"));
    let messages = requests[1].body["messages"].as_array().unwrap();
    let answer = messages.last().unwrap();
    assert_eq!((answer["role"].as_str(), answer["tool_call_id"].as_str()), (Some("tool"), Some("call_1")));
    let output = answer["content"].as_str().unwrap();
    assert!(output.contains("from-42"), "{output}");
    // With a price it says what the run cost: 40 tokens read and 10 produced. Without one it says nothing.
    assert!(!moor.run(&["show", &ran.run()]).out.contains("tokens · $"));
    moor.write("home/config.toml", "[prices.\"chat/*\"]\ninput = 1\noutput = 2.5\n");
    let shown = moor.run(&["show", &ran.run()]).out;
    assert!(shown.contains("50 tokens · $0.000065"), "{shown}");
    // The key is nowhere: not in the sandbox, not in the journal, not in what people see.
    assert!(!output.contains("sk-secret-value"));
    for told in [ran.out.clone(), moor.run(&["show", "--full", &ran.run()]).out] {
        assert!(!told.contains("sk-secret-value"));
    }
    let mut kept = fs_err::read(moor.home().join("journal.db")).unwrap();
    kept.extend(fs_err::read(moor.home().join("journal.db-wal")).unwrap_or_default());
    assert!(!kept.windows(15).any(|window| window == b"sk-secret-value"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_never_answers_is_given_up_and_the_next_model_asked() {
    let moor = Moor::new();
    // It takes the connection and says nothing.
    let hole = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = hole.local_addr().unwrap();
    let provider =
        format!("[providers.chat]\nbase_url = 'http://{address}/v1'\nidle_timeout_s = 1\ntries = 1\n");
    moor.write("home/config.toml", &provider);
    moor.write("s.jsonl", &say("from the other"));
    moor.write("chain.toml", "model = ['chat/hole', 'script:s.jsonl']\n");

    let ran = moor.run(&["run", "--agent", "chain.toml", "hello"]);
    assert_eq!((ran.code, ran.last()["output"].as_str()), (Some(0), Some("from the other")), "{}", ran.err);
    let ran = moor.run(&["run", "--model", "chat/hole", "hello"]);
    let last = ran.last();
    assert_eq!((ran.code, last["error"]["code"].as_str()), (Some(1), Some("model_timeout")), "{last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_key_fails_the_run_which_goes_on_once_it_is_right() {
    let refusal = json!({"error": {"message": "wrong key", "type": "invalid_request_error", "code": "invalid_api_key"}});
    let server = Server::start([Reply::json(401, &refusal), Reply::stream(text("hello"))]).await.unwrap();
    let moor = Moor::new();
    let ran = run(&moor, &server.url());
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    assert_eq!(ran.last()["error"]["code"], "model_authentication");
    let mut resume = moor.command(&["resume", &ran.run()]);
    let resumed: Ran = resume
        .env("CHAT_BASE_URL", format!("{}/v1", server.url()))
        .env("CHAT_API_KEY", "right")
        .output()
        .unwrap()
        .into();
    assert_eq!((resumed.code, resumed.last()["output"].as_str()), (Some(0), Some("hello")));
}
