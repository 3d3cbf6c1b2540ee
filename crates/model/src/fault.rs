//! From a provider's refusal to a [`ModelError`]: in the body of an HTTP error, and inside a stream that began well.
//!
//! Providers put the reason into a type, a code, a status or only into words; the same reading serves all of them.

use std::time::Duration;

use reqwest::header::HeaderMap;
use serde_json::Value;

use crate::{ModelError, ModelErrorKind, retry};

/// Types and codes that mean that no credit is left.
const QUOTA: &[&str] = &[
    "insufficient_quota",
    "billing_hard_limit_reached",
    "billing_not_active",
    "billing_error",
    "usage_limit_reached",
];
/// The same in words.
const QUOTA_WORDS: &[&str] = &["credit balance is too low", "exceeded your current quota"];
/// Types and codes that mean that the conversation is too long.
const CONTEXT: &[&str] = &["context_length_exceeded", "exceed_context_size_error", "request_too_large"];
/// The same in the words of OpenAI, vLLM, SGLang, llama.cpp, Ollama and Anthropic.
const CONTEXT_WORDS: &[&str] = &[
    "maximum context length",
    "exceeds the context window",
    "longer than the model's context length",
    "exceeds the available context size",
    "exceeds the context length",
    "prompt is too long",
    "exceed context limit",
];
/// The longest text of a provider that goes into an error.
const LONGEST_MESSAGE: usize = 2000;

/// An answer that is no success.
pub(crate) fn from_response(status: u16, headers: &HeaderMap, body: &[u8]) -> ModelError {
    let text = String::from_utf8_lossy(body);
    let mut error = match serde_json::from_str::<Value>(&text) {
        Ok(body) => from_object(&body, Some(status)),
        Err(_) => build(kind_of_status(status), text.trim(), Some(status)),
    };
    if (300..400).contains(&status) {
        let to = headers.get("location").and_then(|to| to.to_str().ok()).unwrap_or("nowhere");
        error = build(ModelErrorKind::InvalidRequest, &format!("the server redirects to {to}"), Some(status))
            .hint("Set `base_url` to where the API is; a key is never carried along a redirect");
    }
    let header = |name: &str| headers.get(name)?.to_str().ok().map(str::to_owned);
    error.request_id = header("x-request-id").or_else(|| header("request-id")).or(error.request_id);
    error.retry_after = retry::asked(headers).or(error.retry_after);
    error
}

/// A provider's error object, with or without its `{"error": …}` around it.
pub(crate) fn from_object(object: &Value, status: Option<u16>) -> ModelError {
    let inner = object.get("error").filter(|error| !error.is_null()).unwrap_or(object);
    let field = |name: &str| inner.get(name).and_then(Value::as_str).unwrap_or_default();
    let (class, code) = (field("type"), field("code"));
    let message = match inner {
        Value::String(message) => message.clone(),
        _ if !field("message").is_empty() => field("message").to_owned(),
        // FastAPI's own errors, in front of vLLM and others.
        _ => match object.get("detail") {
            Some(Value::String(detail)) => detail.clone(),
            Some(detail) => detail.to_string(),
            None => object.to_string(),
        },
    };
    // A stream has no status of its own, but some servers put one into `code`.
    let status = status
        .or_else(|| inner.get("code").and_then(Value::as_u64).and_then(|code| u16::try_from(code).ok()));
    let message = message.trim_end_matches('.').to_owned();
    let lower = message.to_lowercase();
    let is = |names: &[&str]| names.contains(&class) || names.contains(&code);
    let says = |words: &[&str]| words.iter().any(|words| lower.contains(words));
    let kind = if is(QUOTA) || says(QUOTA_WORDS) {
        ModelErrorKind::QuotaExceeded
    } else if is(CONTEXT) || (says(CONTEXT_WORDS) && !matches!(status, Some(401 | 403 | 429))) {
        ModelErrorKind::ContextTooLong
    } else {
        match status {
            Some(status) if status >= 300 => kind_of_status(status),
            _ => kind_of_word(if code.is_empty() { class } else { code }),
        }
    };
    let message = match (code.is_empty(), class.is_empty()) {
        (false, _) if !message.contains(code) => format!("{message} ({code})"),
        (true, false) if class != "error" && !message.contains(class) => format!("{message} ({class})"),
        _ => message,
    };
    let mut error = build(kind, &message, status);
    error.request_id = object.get("request_id").and_then(Value::as_str).map(str::to_owned);
    if kind == ModelErrorKind::RateLimited {
        error.retry_after = asked_in_words(&lower);
    }
    error
}

fn build(kind: ModelErrorKind, message: &str, status: Option<u16>) -> ModelError {
    let mut message = match (message.is_empty(), status) {
        (true, Some(status)) => format!("HTTP {status} without an explanation"),
        (true, None) => "an error without an explanation".to_owned(),
        (false, Some(status)) => format!("HTTP {status}: {message}"),
        (false, None) => message.to_owned(),
    };
    if message.len() > LONGEST_MESSAGE {
        message.truncate(message.floor_char_boundary(LONGEST_MESSAGE));
        message.push('…');
    }
    let mut error = ModelError::new(kind, "", message);
    error.status = status;
    match kind {
        ModelErrorKind::Authentication => error.hint("Check the API key, and that it may use this model"),
        ModelErrorKind::QuotaExceeded => error.hint("Add credit or raise the limit at the provider"),
        ModelErrorKind::ContextTooLong => {
            error.hint("Shorten the conversation, or take a model with a larger window")
        }
        ModelErrorKind::RateLimited => error.hint("Run less at once, or raise the limit at the provider"),
        // Anthropic's words where our own default is more than an older model allows.
        ModelErrorKind::InvalidRequest
            if error.message.contains("maximum allowed number of output tokens") =>
        {
            error.hint("Set `max_output_tokens` to what this model allows")
        }
        ModelErrorKind::InvalidRequest if status == Some(404) => {
            error.hint("Check the model's name and the `base_url`")
        }
        _ => error,
    }
}

/// OpenAI's "Please try again in 1.898s", the only place where it says so inside a stream.
fn asked_in_words(lower: &str) -> Option<Duration> {
    let (_, after) = lower.split_once("try again in ")?;
    let end = after.find(|c: char| c != '.' && !c.is_ascii_digit())?;
    let (number, unit) = after.split_at(end);
    let number: f64 = number.parse().ok()?;
    let seconds = if unit.starts_with("ms") {
        number / 1000.0
    } else if unit.starts_with('s') {
        number
    } else {
        return None;
    };
    Duration::try_from_secs_f64(seconds).ok()
}

fn kind_of_status(status: u16) -> ModelErrorKind {
    match status {
        401 | 403 => ModelErrorKind::Authentication,
        402 => ModelErrorKind::QuotaExceeded,
        408 => ModelErrorKind::Timeout,
        413 => ModelErrorKind::ContextTooLong,
        429 => ModelErrorKind::RateLimited,
        // A lock, or too early: both pass.
        409 | 425 | 500.. => ModelErrorKind::Provider,
        _ => ModelErrorKind::InvalidRequest,
    }
}

/// The kind of an error inside a stream. What is not known is taken for a failure that may pass.
fn kind_of_word(word: &str) -> ModelErrorKind {
    match word {
        "authentication_error" | "permission_error" | "invalid_api_key" => ModelErrorKind::Authentication,
        "rate_limit_error" | "rate_limit_exceeded" => ModelErrorKind::RateLimited,
        "invalid_request_error"
        | "not_found_error"
        | "invalid_prompt"
        | "BadRequestError"
        | "unknown_parameter" => ModelErrorKind::InvalidRequest,
        word if word.ends_with("_policy")
            || word.ends_with("_policy_violation")
            || word.contains("image")
            || word == "data_residency_mismatch" =>
        {
            ModelErrorKind::InvalidRequest
        }
        _ => ModelErrorKind::Provider,
    }
}
