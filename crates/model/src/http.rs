//! One connection pool with the deadlines that a model call needs. It knows HTTP and no provider.
//!
//! There is no limit on the whole call unless one is set: a long answer is fine while bytes come. Redirects are not
//! followed, since they would carry the key elsewhere, and the environment's proxies are not read here.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, NoProxy, Proxy, Response, redirect};
use tokio::time::{Instant, timeout};

use crate::{ModelError, ModelErrorKind, ModelOptions, fault};

/// How much of an error's body is read.
const ERROR_BODY_LIMIT: usize = 64 * 1024;

/// What sends requests.
pub(crate) struct Http {
    client: Client,
    idle_timeout: Duration,
    total_timeout: Option<Duration>,
}

impl Http {
    /// A pool with these options; the errors of this and all else here name no model yet.
    pub(crate) fn new(options: &ModelOptions) -> Result<Self, ModelError> {
        let unusable = |what: &str| ModelError::new(ModelErrorKind::InvalidRequest, "", what);
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            return Err(unusable("no TLS provider is installed in this process")
                .hint("Call `rustls::crypto::ring::default_provider().install_default()` first in `main`"));
        }
        let mut builder = Client::builder()
            .user_agent(concat!("mooring/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .connect_timeout(options.connect_timeout)
            .no_proxy();
        if let Some(proxy) = &options.proxy {
            let proxy = Proxy::all(proxy.expose()).map_err(|error| {
                unusable(&format!("the proxy is no URL: {}", chain(&error.without_url())))
                    .hint("Write it as http://host:port")
            })?;
            builder =
                builder.proxy(proxy.no_proxy(options.no_proxy.as_deref().and_then(NoProxy::from_string)));
        }
        let client = builder.build().map_err(|error| unusable(&chain(&error)))?;
        Ok(Self { client, idle_timeout: options.idle_timeout, total_timeout: options.total_timeout })
    }

    /// Sends a JSON body and waits for the head of a successful answer.
    pub(crate) async fn post(
        &self,
        url: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Answer, ModelError> {
        let deadline = self.total_timeout.map(|total| Instant::now() + total);
        let wait = Wait { idle: self.idle_timeout, deadline };
        let request = self.client.post(url).headers(headers).body(body);
        let response = wait.for_next(request.send()).await?.map_err(|error| network(&error.without_url()))?;
        let status = response.status();
        let mut answer = Answer { response, wait };
        if status.is_success() {
            return Ok(answer);
        }
        // Whatever came of the body explains more than that it was cut.
        let mut body = Vec::new();
        while let Ok(Some(chunk)) = answer.chunk().await
            && body.len() < ERROR_BODY_LIMIT
        {
            body.extend_from_slice(&chunk);
        }
        body.truncate(ERROR_BODY_LIMIT);
        Err(fault::from_response(status.as_u16(), answer.response.headers(), &body))
    }
}

/// A successful answer whose body is still coming.
pub(crate) struct Answer {
    response: Response,
    wait: Wait,
}

impl Answer {
    /// The next bytes, or `None` at the end.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, ModelError> {
        self.wait.for_next(self.response.chunk()).await?.map_err(|error| network(&error.without_url()))
    }

    /// What the body claims to be, where it does not claim to be an event stream.
    pub(crate) fn other_kind(&self) -> Option<&str> {
        self.header("content-type").filter(|kind| !kind.starts_with("text/event-stream"))
    }

    /// The provider's id of the request.
    pub(crate) fn request_id(&self) -> Option<String> {
        self.header("x-request-id").or_else(|| self.header("request-id")).map(str::to_owned)
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }
}

/// A header that holds the key: hidden in every debug output.
pub(crate) fn key_header(name: &'static str, value: &str) -> Result<(HeaderName, HeaderValue), ModelError> {
    let mut value = HeaderValue::from_str(value).map_err(|_| {
        ModelError::new(ModelErrorKind::Authentication, "", "the API key holds a character that no key has")
            .hint("Set the key again; it may hold a line break or a blank")
    })?;
    value.set_sensitive(true);
    Ok((HeaderName::from_static(name), value))
}

#[derive(Debug, Clone, Copy)]
struct Wait {
    idle: Duration,
    deadline: Option<Instant>,
}

impl Wait {
    async fn for_next<T>(&self, next: impl Future<Output = T>) -> Result<T, ModelError> {
        let left = self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let limit = left.map_or(self.idle, |left| left.min(self.idle));
        timeout(limit, next).await.map_err(|_| {
            if limit < self.idle {
                return ModelError::new(ModelErrorKind::Timeout, "", "the answer was not whole in time")
                    .hint("Raise the total timeout");
            }
            ModelError::new(ModelErrorKind::Timeout, "", format!("nothing came for {:?}", self.idle))
                .hint("Raise the idle timeout if the model only is slow")
        })
    }
}

fn network(error: &reqwest::Error) -> ModelError {
    if error.is_timeout() {
        return ModelError::new(ModelErrorKind::Timeout, "", chain(error))
            .hint("Check the network and the `base_url`");
    }
    ModelError::new(ModelErrorKind::Network, "", chain(error)).hint("Check the network and the `base_url`")
}

/// An error with its causes, which its own text leaves out.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}
