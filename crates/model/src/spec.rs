//! Which model is meant: the text after `--model` and in an agent file.

use std::fmt;
use std::path::PathBuf;

use crate::{ModelError, ModelErrorKind};

/// A way to reach models, for help texts and for checking what is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Provider {
    /// How a model of it is written: `openai/NAME`.
    pub form: &'static str,
    /// The name of its section in the configuration file.
    pub name: &'static str,
    /// The environment variable that holds its key.
    pub key_variable: Option<&'static str>,
    /// Whether it answers without a key.
    pub key_optional: bool,
    /// Where it is, unless `base_url` says otherwise.
    pub base_url: Option<&'static str>,
    /// What it is.
    pub about: &'static str,
}

/// OpenAI's Responses API, and every server that speaks it.
const OPENAI: Provider = Provider {
    form: "openai/NAME",
    name: "openai",
    key_variable: Some("OPENAI_API_KEY"),
    key_optional: false,
    base_url: Some("https://api.openai.com/v1"),
    about: "OpenAI Responses",
};

/// Anthropic's Messages API.
const ANTHROPIC: Provider = Provider {
    form: "anthropic/NAME",
    name: "anthropic",
    key_variable: Some("ANTHROPIC_API_KEY"),
    key_optional: false,
    base_url: Some("https://api.anthropic.com"),
    about: "Anthropic Messages",
};

/// Any server with the Chat Completions API.
const CHAT: Provider = Provider {
    form: "chat/NAME",
    name: "chat",
    key_variable: Some("CHAT_API_KEY"),
    key_optional: true,
    base_url: None,
    about: "Chat Completions at a base_url: vLLM, Ollama, llama.cpp and others",
};

/// Answers from a file, for tests and demonstrations.
const SCRIPT: Provider = Provider {
    form: "script:FILE",
    name: "script",
    key_variable: None,
    key_optional: true,
    base_url: None,
    about: "answers played from a JSONL file",
};

/// Every provider.
pub const PROVIDERS: &[Provider] = &[OPENAI, ANTHROPIC, CHAT, SCRIPT];

/// A model, named.
///
/// ```
/// use mooring_model::ModelSpec;
///
/// let spec = ModelSpec::parse("chat/Qwen/Qwen3-8B")?;
/// assert_eq!(spec, ModelSpec::Chat("Qwen/Qwen3-8B".into()));
/// assert_eq!(spec.to_string(), "chat/Qwen/Qwen3-8B");
/// # Ok::<(), mooring_model::ModelError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelSpec {
    /// `openai/NAME`: over OpenAI's Responses API.
    OpenAi(String),
    /// `anthropic/NAME`: over Anthropic's Messages API.
    Anthropic(String),
    /// `chat/NAME`: over Chat Completions.
    Chat(String),
    /// `script:FILE`: from a file.
    Script(PathBuf),
}

impl ModelSpec {
    /// Reads `openai/NAME`, `anthropic/NAME`, `chat/NAME` or `script:FILE`.
    ///
    /// # Errors
    /// [`ModelErrorKind::InvalidRequest`] for an unknown prefix or an empty name; it lists the known forms.
    pub fn parse(text: &str) -> Result<Self, ModelError> {
        let spec = match (text.split_once('/'), text.strip_prefix("script:")) {
            (_, Some(file)) => Some((file, Self::Script(file.into()))),
            (Some(("openai", name)), _) => Some((name, Self::OpenAi(name.into()))),
            (Some(("anthropic", name)), _) => Some((name, Self::Anthropic(name.into()))),
            (Some(("chat", name)), _) => Some((name, Self::Chat(name.into()))),
            _ => None,
        };
        let message = match spec {
            Some((name, spec)) if !name.trim().is_empty() => return Ok(spec),
            Some(_) => "nothing follows the provider in this model name",
            None => "this model name begins with no known provider",
        };
        let forms = PROVIDERS.iter().map(|provider| format!("{} ({})", provider.form, provider.about));
        let hint = format!("Write one of: {}", forms.collect::<Vec<_>>().join(", "));
        let shown = if text.is_empty() { "\"\"" } else { text };
        Err(ModelError::new(ModelErrorKind::InvalidRequest, shown, message).hint(hint))
    }

    /// Who serves it.
    pub fn provider(&self) -> &'static Provider {
        match self {
            Self::OpenAi(_) => &OPENAI,
            Self::Anthropic(_) => &ANTHROPIC,
            Self::Chat(_) => &CHAT,
            Self::Script(_) => &SCRIPT,
        }
    }
}

impl fmt::Display for ModelSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OpenAi(name) => write!(f, "openai/{name}"),
            Self::Anthropic(name) => write!(f, "anthropic/{name}"),
            Self::Chat(name) => write!(f, "chat/{name}"),
            Self::Script(file) => write!(f, "script:{}", file.display()),
        }
    }
}
