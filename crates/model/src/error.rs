//! What can go wrong with a model.

use std::time::Duration;

/// What kind of failure it was; decides whether another try makes sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ModelErrorKind {
    /// No key, or the provider refused it.
    Authentication,
    /// The provider limits the rate (429).
    RateLimited,
    /// The account has no credit left.
    QuotaExceeded,
    /// The conversation is too long for the model.
    ContextTooLong,
    /// The provider refused the request as malformed (400, 404, 422).
    InvalidRequest,
    /// The conversation holds what this protocol cannot carry, as an item that another provider made for itself.
    Unsupported,
    /// The provider failed (5xx, overloaded, an error inside the stream).
    Provider,
    /// The connection failed, or was cut before the answer was whole.
    Network,
    /// No byte came for too long.
    Timeout,
    /// What came does not follow the protocol.
    Protocol,
    /// A scripted model has no further answer, or its file is malformed.
    Script,
}

impl ModelErrorKind {
    /// The word in events: `rate_limited`, `network`, ….
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Authentication => "authentication",
            Self::RateLimited => "rate_limited",
            Self::QuotaExceeded => "quota_exceeded",
            Self::ContextTooLong => "context_too_long",
            Self::InvalidRequest => "invalid_request",
            Self::Unsupported => "unsupported",
            Self::Provider => "provider",
            Self::Network => "network",
            Self::Timeout => "timeout",
            Self::Protocol => "protocol",
            Self::Script => "script",
        }
    }
}

/// A failed model call. Its text names the model, what failed, and the next step; never a key.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{model}: {message}{}", .hint.as_ref().map(|hint| format!(". {hint}")).unwrap_or_default())]
pub struct ModelError {
    /// What kind of failure.
    pub kind: ModelErrorKind,
    /// The model asked.
    pub model: String,
    /// What failed, in the provider's words where it gave some.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// The HTTP status.
    pub status: Option<u16>,
    /// The provider's id of the request, for its support.
    pub request_id: Option<String>,
    /// How long the provider asks to wait.
    pub retry_after: Option<Duration>,
}

impl ModelError {
    /// An error with its kind and message; the rest is empty.
    pub fn new(kind: ModelErrorKind, model: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            kind,
            model: model.into(),
            message: message.into(),
            hint: None,
            status: None,
            request_id: None,
            retry_after: None,
        }
    }

    /// The same with advice.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Whether another try may succeed.
    pub fn retryable(&self) -> bool {
        matches!(
            self.kind,
            ModelErrorKind::RateLimited
                | ModelErrorKind::Provider
                | ModelErrorKind::Network
                | ModelErrorKind::Timeout
                | ModelErrorKind::Protocol
        )
    }
}
