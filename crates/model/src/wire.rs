//! What the wire clients share: sending, reading the stream, trying again. A provider's file only says how a
//! request is written and how its events are read.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

use crate::http::{Answer, Http};
use crate::retry::Retry;
use crate::sse::{SseEvent, SseParser};
use crate::{
    ModelClient, ModelError, ModelErrorKind, ModelEvent, ModelOptions, ModelRequest, ModelResponse,
    ModelStream, Secret, Settings, fault,
};

/// The largest event that is read. A whole answer with an image in it fits.
const EVENT_LIMIT: usize = 32 * 1024 * 1024;
/// The longest stream that is read. An answer of a hundred thousand tokens, each in its own event, is a tenth of it.
const ANSWER_LIMIT: usize = 256 * 1024 * 1024;

/// One provider's way of writing requests and reading answers. Errors name no model; the client adds it.
pub(crate) trait Protocol: Send + Sync {
    /// What comes after the base URL.
    fn path(&self) -> &'static str;

    /// The headers, the key's included.
    fn headers(&self, key: Option<&Secret>) -> Result<Vec<(HeaderName, HeaderValue)>, ModelError>;

    /// A header that only some requests have.
    fn header_of(&self, _: &ModelRequest<'_>) -> Option<(HeaderName, HeaderValue)> {
        None
    }

    /// The body.
    fn body(&self, request: &ModelRequest<'_>) -> Result<Value, ModelError>;

    /// What reads the answer to this request.
    fn decoder(&self, request: &ModelRequest<'_>) -> Box<dyn Decoder>;
}

/// Reads one answer.
pub(crate) trait Decoder: Send {
    /// Takes an event; gives the response when this was the last that matters.
    fn event(
        &mut self,
        event: &SseEvent,
        shown: &mut Vec<ModelEvent>,
    ) -> Result<Option<ModelResponse>, ModelError>;

    /// The response where the stream ended without its last event and nothing of it is missing.
    fn end(&mut self) -> Option<ModelResponse>;
}

/// A client for one model over one protocol.
pub(crate) struct WireClient {
    name: String,
    url: String,
    headers: HeaderMap,
    key: Option<Secret>,
    http: Http,
    retry: Retry,
    protocol: Box<dyn Protocol>,
}

impl WireClient {
    pub(crate) fn new(
        name: String,
        base_url: &str,
        options: &ModelOptions,
        protocol: Box<dyn Protocol>,
    ) -> Result<Self, ModelError> {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static("application/json"));
        headers.insert("accept", HeaderValue::from_static("text/event-stream"));
        headers.extend(protocol.headers(options.api_key.as_ref())?);
        Ok(Self {
            url: format!("{base_url}{}", protocol.path()),
            headers,
            key: options.api_key.clone(),
            http: Http::new(options)?,
            retry: Retry::new(options.tries, options.jitter_seed),
            name,
            protocol,
        })
    }

    /// The error as it leaves: with the model's name, and without the key wherever it came back from the provider.
    fn named(&self, mut error: ModelError) -> ModelError {
        error.model.clone_from(&self.name);
        if let Some(key) = self.key.as_ref().map(Secret::expose).filter(|key| !key.is_empty()) {
            error.message = error.message.replace(key, "(the key)");
        }
        error
    }
}

impl fmt::Debug for WireClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the rest: a proxy's URL may hold a password.
        f.debug_struct("WireClient").field("name", &self.name).field("url", &self.url).finish_non_exhaustive()
    }
}

impl ModelClient for WireClient {
    fn name(&self) -> &str {
        &self.name
    }

    fn stream<'a>(&'a self, request: ModelRequest<'a>) -> ModelStream<'a> {
        let (body, state) = match self.protocol.body(&request) {
            Ok(body) => (Bytes::from(body.to_string()), State::Wait(Duration::ZERO)),
            Err(error) => (Bytes::new(), State::Failed(error, false)),
        };
        let call = Call { client: self, request, body, attempt: 1, state, queue: VecDeque::new() };
        Box::pin(stream::unfold(call, async |mut call| call.next().await.map(|event| (event, call))))
    }
}

/// One call on its way, over all of its tries.
struct Call<'a> {
    client: &'a WireClient,
    request: ModelRequest<'a>,
    body: Bytes,
    /// Which try this is, from 1.
    attempt: u32,
    state: State,
    /// Events that are read and not given out yet.
    queue: VecDeque<ModelEvent>,
}

enum State {
    /// The next try begins after this.
    Wait(Duration),
    /// An answer is coming.
    Read(Box<Reading>),
    /// This try failed; whether its answer had begun.
    Failed(ModelError, bool),
    /// All that is left is in the queue.
    Over,
}

impl Call<'_> {
    async fn next(&mut self) -> Option<Result<ModelEvent, ModelError>> {
        loop {
            if let Some(event) = self.queue.pop_front() {
                return Some(Ok(event));
            }
            // Where this future is dropped, the call is cancelled with it, and no state is needed any more.
            self.state = match std::mem::replace(&mut self.state, State::Over) {
                State::Wait(wait) => {
                    if !wait.is_zero() {
                        tokio::time::sleep(wait).await;
                    }
                    match Reading::begin(self.client, self.body.clone(), &self.request).await {
                        Ok(reading) => State::Read(Box::new(reading)),
                        Err(error) => {
                            // Nobody knows what a server did that said nothing.
                            let begun = error.kind == ModelErrorKind::Timeout;
                            State::Failed(error, begun)
                        }
                    }
                }
                State::Read(mut reading) => {
                    let mut shown = Vec::new();
                    let outcome = reading.next(&mut shown).await;
                    self.queue.extend(shown);
                    match outcome {
                        Ok(None) => State::Read(reading),
                        Ok(Some(response)) => {
                            self.queue.push_back(ModelEvent::Completed(Box::new(response)));
                            State::Over
                        }
                        Err(mut error) => {
                            error.request_id = error.request_id.or_else(|| reading.answer.request_id());
                            State::Failed(error, true)
                        }
                    }
                }
                State::Failed(error, begun) => {
                    match self.client.retry.after(self.attempt, self.client.named(error)) {
                        Ok((after, error)) => {
                            self.attempt += 1;
                            self.queue.push_back(ModelEvent::Retrying {
                                attempt: self.attempt,
                                after,
                                reason: error.message,
                                begun,
                            });
                            State::Wait(after)
                        }
                        Err(error) => return Some(Err(error)),
                    }
                }
                State::Over => return None,
            };
        }
    }
}

/// One answer on its way.
struct Reading {
    answer: Answer,
    sse: SseParser,
    decoder: Box<dyn Decoder>,
}

impl Reading {
    async fn begin(client: &WireClient, body: Bytes, request: &ModelRequest<'_>) -> Result<Self, ModelError> {
        let mut headers = client.headers.clone();
        headers.extend(client.protocol.header_of(request));
        let answer = client.http.post(&client.url, headers, body).await?;
        let decoder = client.protocol.decoder(request);
        Ok(Self { answer, sse: SseParser::new(EVENT_LIMIT, ANSWER_LIMIT), decoder })
    }

    /// Reads on; gives the response once it is whole.
    async fn next(&mut self, shown: &mut Vec<ModelEvent>) -> Result<Option<ModelResponse>, ModelError> {
        if self.answer.other_kind().is_some_and(|kind| kind.starts_with("application/json")) {
            return Err(self.refusal().await?);
        }
        // However the stream ends: where nothing of the answer is missing, it counts.
        let ended = match self.answer.chunk().await {
            Ok(Some(chunk)) => return decode(&chunk, &mut self.sse, &mut *self.decoder, shown),
            Ok(None) => match self.answer.other_kind() {
                Some(kind) => protocol(&format!("the server answers with {kind} instead of an event stream")),
                None => ModelError::new(
                    ModelErrorKind::Network,
                    "",
                    "the stream ended before the answer was whole",
                ),
            },
            Err(error) => error,
        };
        self.decoder.end().map(Some).ok_or(ended)
    }

    /// What a server means that answers a streaming request with one JSON object.
    async fn refusal(&mut self) -> Result<ModelError, ModelError> {
        let mut body = Vec::new();
        while let Some(chunk) = self.answer.chunk().await? {
            body.extend_from_slice(&chunk);
            if body.len() > EVENT_LIMIT {
                break;
            }
        }
        Ok(match serde_json::from_slice::<Value>(&body) {
            Ok(object) if object.get("error").is_some_and(|error| !error.is_null()) => {
                fault::from_object(&object, None)
            }
            _ => protocol("the server answers with JSON instead of an event stream"),
        })
    }
}

/// Takes the next bytes of a stream; gives the response once it is whole.
pub(crate) fn decode(
    chunk: &[u8],
    sse: &mut SseParser,
    decoder: &mut dyn Decoder,
    shown: &mut Vec<ModelEvent>,
) -> Result<Option<ModelResponse>, ModelError> {
    let mut events = Vec::new();
    // Events before a malformed one still count: the last of them may have ended the answer.
    let pushed = sse.push(chunk, &mut events);
    for event in &events {
        if let Some(response) = decoder.event(event, shown)? {
            return Ok(Some(response));
        }
    }
    pushed.map_err(|error| protocol(&error.to_string()))?;
    Ok(None)
}

/// What came does not follow the protocol.
pub(crate) fn protocol(message: &str) -> ModelError {
    ModelError::new(ModelErrorKind::Protocol, "", message)
        .hint("Check that the `base_url` is an API of this kind; if it is, its server has a fault")
}

/// Refuses to ask an API for what it does not do: a conversation that nobody shortens would grow until it is refused.
pub(crate) fn cannot_compact(settings: &Settings) -> Result<(), ModelError> {
    if settings.compact_at.is_none() {
        return Ok(());
    }
    let message = "this API does not shorten conversations";
    Err(ModelError::new(ModelErrorKind::Unsupported, "", message)
        .hint("Leave `provider` out of [compaction], and the runtime does it"))
}

/// The JSON object of an event.
pub(crate) fn json(event: &SseEvent) -> Result<Value, ModelError> {
    let start = || event.data.chars().take(80).collect::<String>();
    match serde_json::from_str(&event.data) {
        Ok(Value::Object(object)) => Ok(Value::Object(object)),
        Ok(_) => Err(protocol(&format!("an event is no JSON object: {}", start()))),
        Err(error) => Err(protocol(&format!("an event is malformed JSON ({error}): {}", start()))),
    }
}

/// A field's text, where it has some.
pub(crate) fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object.get(field).and_then(Value::as_str).unwrap_or_default()
}
