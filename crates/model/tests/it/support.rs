//! What several tests need.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use futures::StreamExt as _;
use mooring_model::{
    Capture, Content, FunctionOutput, Item, ModelClient, ModelError, ModelErrorKind, ModelEvent,
    ModelOptions, ModelRequest, ModelResponse, ModelSpec, ModelStream, OutputSchema, ReasoningEffort, Role,
    Secret, Settings, StopReason, ToolKind, ToolSpec, Usage, connect,
};
use mooring_testkit::Server;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

/// The key that every test sends.
pub(crate) const KEY: &str = "sk-test-0123456789";

/// A request with nothing in it but its ordinal.
pub(crate) fn bare(ordinal: u64) -> ModelRequest<'static> {
    static SETTINGS: LazyLock<Settings> = LazyLock::new(Settings::default);
    ModelRequest { instructions: "", items: &[], tools: &[], settings: &SETTINGS, output: None, ordinal }
}

/// Everything that a call gives until it ends, and how it ended.
pub(crate) async fn call(
    model: &dyn ModelClient,
    request: ModelRequest<'_>,
) -> (Vec<ModelEvent>, Result<ModelResponse, ModelError>) {
    let mut stream = model.stream(request);
    let mut events = Vec::new();
    let mut outcome = None;
    while let Some(event) = stream.next().await {
        assert!(outcome.is_none(), "something came after the end: {event:?}");
        match event {
            Ok(ModelEvent::Completed(response)) => outcome = Some(Ok(*response)),
            Ok(event) => events.push(event),
            Err(error) => outcome = Some(Err(error)),
        }
    }
    (events, outcome.expect("a stream ends with an answer or an error"))
}

/// A client that asks this server, this often, and waits a fifth of a second for the next byte.
pub(crate) fn client(spec: &str, server: &Server, tries: u32) -> Arc<dyn ModelClient> {
    let options = ModelOptions { idle_timeout: Duration::from_millis(200), tries, ..options(&server.url()) };
    connect(&ModelSpec::parse(spec).unwrap(), &options).unwrap()
}

/// Options for a server at this address.
pub(crate) fn options(base_url: &str) -> ModelOptions {
    // The second test in a process finds it installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    ModelOptions {
        base_url: Some(base_url.to_owned()),
        api_key: Some(Secret::new(KEY)),
        ..ModelOptions::default()
    }
}

/// A conversation with all that a request can hold.
#[derive(Clone)]
pub(crate) struct Conversation {
    pub(crate) instructions: String,
    pub(crate) items: Vec<Item>,
    pub(crate) tools: Vec<ToolSpec>,
    pub(crate) settings: Settings,
    pub(crate) output: Option<OutputSchema>,
}

impl Conversation {
    pub(crate) fn request(&self) -> ModelRequest<'_> {
        ModelRequest {
            instructions: &self.instructions,
            items: &self.items,
            tools: &self.tools,
            settings: &self.settings,
            output: self.output.as_ref(),
            ordinal: 2,
        }
    }
}

/// The least that a request holds.
pub(crate) fn bare_conversation() -> Conversation {
    Conversation {
        instructions: String::new(),
        items: vec![Item::user("Hi")],
        tools: vec![],
        settings: Settings::default(),
        output: None,
    }
}

/// Items as they are journalled.
pub(crate) fn items(values: Value) -> Vec<Item> {
    serde_json::from_value(values).unwrap()
}

/// Two turns with parallel calls, a custom tool, an image in an output, and reasoning of every provider.
pub(crate) fn conversation() -> Conversation {
    let image = "data:image/png;base64,iVBORw0KGgo=".to_owned();
    let mut conversation = items(json!([
        {"role": "user", "content": [
            {"type": "input_text", "text": "Fix the bug."},
            {"type": "input_image", "image_url": "https://example.com/shot.png", "detail": "low"},
        ]},
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Look first."}],
         "encrypted_content": "gAAA", "status": null},
        {"type": "reasoning", "chat": {"reasoning_content": "I look first."}},
        {"type": "reasoning", "anthropic": {"type": "thinking", "thinking": "Look.", "signature": "EqQB"}},
        {"type": "reasoning", "anthropic": {"type": "redacted_thinking", "data": "EmwK"}},
        {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
         "content": [{"type": "output_text", "text": "I read the test.", "annotations": []}]},
        {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "exec_command",
         "arguments": "{\"cmd\": \"cat test.py\"}", "status": "completed"},
        {"type": "function_call", "id": "fc_2", "call_id": "call_2", "name": "view_image", "arguments": ""},
        {"type": "custom_tool_call", "id": "ctc_3", "call_id": "call_3", "name": "apply_patch",
         "input": "*** Begin Patch\n*** End Patch"},
        {"type": "function_call_output", "call_id": "call_1", "output": "assert 1 == 2\n"},
    ]));
    conversation.push(Item::FunctionCallOutput {
        call_id: "call_2".into(),
        output: FunctionOutput::Parts(vec![
            Content::InputText { text: "a.png".into() },
            Content::InputImage { image_url: image, detail: None },
        ]),
        extra: Map::new(),
    });
    conversation.extend(items(json!([
        {"type": "custom_tool_call_output", "call_id": "call_3", "output": "Done!"},
        {"type": "message", "role": "developer", "content": "Be quick."},
    ])));
    conversation.push(Item::assistant("Patched."));
    conversation.extend(items(json!([
        {"type": "function_call", "call_id": "call_4", "name": "exec_command", "arguments": "{\"cmd\": "},
        {"type": "function_call_output", "call_id": "call_4", "output": "error: the arguments are malformed"},
    ])));
    conversation.push(Item::user("Go on."));
    assert!(matches!(conversation[12], Item::Message { role: Role::Developer, .. }));
    Conversation {
        instructions: "You fix bugs.".into(),
        items: conversation,
        tools: vec![
            ToolSpec {
                name: "exec_command".into(),
                description: "Runs a command.".into(),
                kind: ToolKind::Function {
                    parameters: json!({"type": "object", "properties": {"cmd": {"type": "string"}},
                                       "required": ["cmd"], "additionalProperties": false}),
                    strict: true,
                },
            },
            ToolSpec {
                name: "view_image".into(),
                description: "Shows an image.".into(),
                kind: ToolKind::Function {
                    parameters: json!({"type": "object", "properties": {}}),
                    strict: false,
                },
            },
            ToolSpec {
                name: "apply_patch".into(),
                description: "Edits files.".into(),
                kind: ToolKind::Custom {
                    syntax: "lark".into(),
                    definition: "start: \"*** Begin Patch\"".into(),
                },
            },
        ],
        settings: Settings {
            temperature: Some(0.5),
            top_p: Some(0.9),
            max_output_tokens: Some(4000),
            reasoning_effort: Some(ReasoningEffort::Medium),
            parallel_tool_calls: Some(false),
            seed: Some(7),
            top_logprobs: Some(2),
            return_token_ids: true,
            cache_key: Some("run-7".into()),
            compact_at: None,
        },
        output: None,
    }
}

/// An answer with all that a schema in its strict form can say.
pub(crate) fn typed() -> OutputSchema {
    let schema = json!({
        "type": "object",
        "properties": {
            "kind": {"const": "answer"},
            "size": {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "null"}]},
            "parts": {"type": "array", "items": {"$ref": "#/$defs/part"}, "minItems": 1},
        },
        "required": ["kind"],
        "$defs": {"part": {
            "type": "object",
            "description": "A part.",
            "properties": {"name": {"type": "string", "maxLength": 9}},
        }},
    });
    OutputSchema { schema, strict: true }
}

/// What a [`Fake`] does with a call.
pub(crate) type Outcome = Result<ModelResponse, ModelError>;

/// A model without a wire: each call takes some time, then ends with the next outcome, or with a short answer where
/// none is left. It knows how many calls are under way.
#[derive(Debug, Default)]
pub(crate) struct Fake {
    name: String,
    takes: Duration,
    outcomes: Mutex<VecDeque<Outcome>>,
    began: Mutex<Vec<(u64, Instant)>>,
    answered: Mutex<Vec<Instant>>,
    under_way: Arc<AtomicUsize>,
    most: AtomicUsize,
}

impl Fake {
    pub(crate) fn new(name: &str, takes: Duration, outcomes: impl IntoIterator<Item = Outcome>) -> Arc<Self> {
        let outcomes = Mutex::new(outcomes.into_iter().collect());
        Arc::new(Self { name: name.into(), takes, outcomes, ..Self::default() })
    }

    pub(crate) fn fail(&self, kind: ModelErrorKind) {
        self.fail_and_ask_to_wait(kind, None);
    }

    pub(crate) fn fail_and_ask_to_wait(&self, kind: ModelErrorKind, retry_after: Option<Duration>) {
        let error = ModelError::new(kind, &self.name, format!("failed ({})", kind.as_str()));
        self.outcomes.lock().unwrap().push_back(Err(ModelError { retry_after, ..error }));
    }

    /// The ordinals of the calls that began, in their order.
    pub(crate) fn began(&self) -> Vec<u64> {
        self.began.lock().unwrap().iter().map(|(ordinal, _)| *ordinal).collect()
    }

    /// When calls began, and when they were answered.
    pub(crate) fn times(&self) -> (Vec<Instant>, Vec<Instant>) {
        let began = self.began.lock().unwrap().iter().map(|(_, at)| *at).collect();
        (began, self.answered.lock().unwrap().clone())
    }

    pub(crate) fn under_way(&self) -> usize {
        self.under_way.load(SeqCst)
    }

    /// The most calls that were under way at a time.
    pub(crate) fn most(&self) -> usize {
        self.most.load(SeqCst)
    }
}

/// Counts a call for as long as it is under way.
struct UnderWay(Arc<AtomicUsize>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

impl ModelClient for Fake {
    fn name(&self) -> &str {
        &self.name
    }

    fn stream<'a>(&'a self, request: ModelRequest<'a>) -> ModelStream<'a> {
        Box::pin(futures::stream::once(async move {
            self.began.lock().unwrap().push((request.ordinal, Instant::now()));
            self.most.fetch_max(self.under_way.fetch_add(1, SeqCst) + 1, SeqCst);
            let _under_way = UnderWay(self.under_way.clone());
            tokio::time::sleep(self.takes).await;
            self.answered.lock().unwrap().push(Instant::now());
            let outcome = self.outcomes.lock().unwrap().pop_front();
            let response = outcome.unwrap_or_else(|| Ok(answer("fake-1", 0)))?;
            Ok(ModelEvent::Completed(Box::new(response)))
        }))
    }
}

/// An answer that used so many tokens.
pub(crate) fn answer(model: &str, tokens: u64) -> ModelResponse {
    ModelResponse {
        id: None,
        model: model.into(),
        items: vec![Item::assistant("Hi.")],
        usage: Usage { input_tokens: tokens, ..Usage::default() },
        stop_reason: StopReason::Stop,
        capture: Capture::default(),
    }
}
