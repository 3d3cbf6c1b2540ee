//! From a model's name to a client for it. Everything that a client depends on comes in here: nothing is read from
//! the environment.

use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;

use crate::anthropic::Anthropic;
use crate::chat::Chat;
use crate::responses::Responses;
use crate::wire::{Protocol, WireClient};
use crate::{
    Limited, Limiter, ModelClient, ModelError, ModelErrorKind, ModelSpec, Provider, Route, ScriptModel,
    Secret,
};

/// How to reach a model. The default suits every provider but for the key, and `chat/` needs its `base_url`.
#[derive(Debug, Clone)]
pub struct ModelOptions {
    /// Where the API is, up to and without the method's own path: `http://127.0.0.1:8000/v1`.
    pub base_url: Option<String>,
    /// The key. It goes to `base_url` and nowhere else.
    pub api_key: Option<Secret>,
    /// How long to wait for a connection.
    pub connect_timeout: Duration,
    /// How long to wait for the next byte of an answer. Providers send signs of life while a model thinks.
    pub idle_timeout: Duration,
    /// How long one try may take in all; unlimited where it is not set.
    pub total_timeout: Option<Duration>,
    /// How often to try in all, from 1.
    pub tries: u32,
    /// Spreads the retries of many processes: pass randomness.
    pub jitter_seed: u64,
    /// The proxy to go through (`http://host:port`, which may hold a password); none is used where it is not set.
    pub proxy: Option<Secret>,
    /// Hosts reached without the proxy, in the form of the variable `NO_PROXY`.
    pub no_proxy: Option<String>,
    /// The limits that its calls share with those of all other models that are given the same.
    pub limiter: Option<Arc<Limiter>>,
}

impl Default for ModelOptions {
    fn default() -> Self {
        Self {
            base_url: None,
            api_key: None,
            connect_timeout: Duration::from_secs(15),
            idle_timeout: Duration::from_mins(5),
            total_timeout: None,
            tries: 5,
            jitter_seed: 0,
            proxy: None,
            no_proxy: None,
            limiter: None,
        }
    }
}

/// A client for a model. Nothing is sent yet.
///
/// # Errors
/// [`ModelErrorKind::Authentication`] without the key that the provider needs, [`ModelErrorKind::InvalidRequest`] for
/// options that cannot work, [`ModelErrorKind::Script`] for a malformed script.
pub fn connect(spec: &ModelSpec, options: &ModelOptions) -> Result<Arc<dyn ModelClient>, ModelError> {
    let client = unlimited(spec, options)?;
    Ok(match &options.limiter {
        Some(limiter) => Arc::new(Limited::new(client, limiter.clone())),
        None => client,
    })
}

/// A client for several models of which each answers where those before it fail: a [`Route`]; for one, that alone.
///
/// # Errors
/// Those of [`connect`] for each of them: a chain with a part that cannot work is refused. Without any model,
/// [`ModelErrorKind::InvalidRequest`].
pub fn connect_all(
    specs: &[ModelSpec],
    options: impl Fn(&ModelSpec) -> ModelOptions,
) -> Result<Arc<dyn ModelClient>, ModelError> {
    let clients = specs.iter().map(|spec| connect(spec, &options(spec))).collect::<Result<Vec<_>, _>>()?;
    Ok(match <[_; 1]>::try_from(clients) {
        Ok([only]) => only,
        Err(clients) => Arc::new(Route::new(clients)?),
    })
}

fn unlimited(spec: &ModelSpec, options: &ModelOptions) -> Result<Arc<dyn ModelClient>, ModelError> {
    let provider = spec.provider();
    require_key(spec, provider, options)?;
    let protocol: Box<dyn Protocol> = match spec {
        ModelSpec::OpenAi(model) => Box::new(Responses { model: model.clone() }),
        ModelSpec::Anthropic(model) => Box::new(Anthropic { model: model.clone() }),
        ModelSpec::Chat(model) => {
            let at_openai = options.base_url.as_ref().is_some_and(|url| url.contains("://api.openai.com"));
            Box::new(Chat { model: model.clone(), at_openai })
        }
        ModelSpec::Script(path) => return Ok(Arc::new(ScriptModel::open(path)?)),
    };
    let base_url = base_url(spec, provider, options)?;
    let name = spec.to_string();
    let client = WireClient::new(name.clone(), &base_url, options, protocol).map_err(|mut error| {
        error.model = name;
        error
    })?;
    Ok(Arc::new(client))
}

fn require_key(spec: &ModelSpec, provider: &Provider, options: &ModelOptions) -> Result<(), ModelError> {
    let (name, Some(variable)) = (provider.name, provider.key_variable) else { return Ok(()) };
    if provider.key_optional || options.api_key.as_ref().is_some_and(|key| !key.expose().is_empty()) {
        return Ok(());
    }
    let hint = format!(
        "Set the environment variable {variable}, or `api_key` under `[providers.{name}]` in the configuration file"
    );
    Err(ModelError::new(ModelErrorKind::Authentication, spec.to_string(), "no API key is set").hint(hint))
}

fn base_url(spec: &ModelSpec, provider: &Provider, options: &ModelOptions) -> Result<String, ModelError> {
    let given = options.base_url.as_deref().or(provider.base_url);
    let Some(url) = given.map(str::trim).filter(|url| !url.is_empty()) else {
        let hint = format!(
            "Set `base_url` under `[providers.{}]` in the configuration file, for example http://127.0.0.1:8000/v1",
            provider.name
        );
        let message = "`base_url` is not set, so nobody knows where this model is served";
        return Err(ModelError::new(ModelErrorKind::InvalidRequest, spec.to_string(), message).hint(hint));
    };
    let refused = |what: &str| {
        ModelError::new(ModelErrorKind::InvalidRequest, spec.to_string(), format!("`base_url` {what}"))
            .hint("Write it as in http://127.0.0.1:8000/v1; a key goes into `api_key`")
    };
    let parsed = Url::parse(url).map_err(|error| refused(&format!("is no URL: {error}")))?;
    if !matches!(parsed.scheme(), "http" | "https") {
        return Err(refused("begins with neither http:// nor https://"));
    }
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Err(refused("holds a user or a password"));
    }
    if parsed.query().is_some() || parsed.fragment().is_some() {
        return Err(refused("holds a query or a fragment"));
    }
    // Anthropic's path begins with the version, and people write it on either side.
    let url = url.trim_end_matches('/');
    Ok(if provider.name == "anthropic" { url.trim_end_matches("/v1") } else { url }.to_owned())
}
