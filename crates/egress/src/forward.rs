//! One request that the proxy can read, on its way to the other end: checked against the policy, filled with the secrets
//! bound to it, sent, and its response cleaned. Both messages are parsed and written anew by the HTTP library, so what
//! the other end sees is framed once, whatever the sandbox sent.

use std::sync::{Arc, OnceLock};

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri, Version};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio_util::task::AbortOnDropHandle;

use crate::body::{self, AnyBody, Outgoing, Returning};
use crate::connection::Connection;
use crate::host::Target;
use crate::record::{Entry, Protocol, Refusal, Stop};

/// The connections to the other end that belong to one client connection: one at a time, kept while it is used.
#[derive(Default)]
pub(crate) struct Link {
    /// Connected when the tunnel was opened, and not used yet.
    pub(crate) fresh: Option<TcpStream>,
    open: Option<Open>,
}

struct Open {
    target: Target,
    sender: SendRequest<AnyBody>,
    /// Moves the bytes; ends with the link.
    _driver: AbortOnDropHandle<()>,
}

/// Where the requests of a connection go.
pub(crate) struct Lane {
    /// The tunnel's target; absent where each request names its own.
    pub(crate) fixed: Option<Target>,
    /// Whether TLS was ended here, and is spoken to the other end.
    pub(crate) secure: bool,
    pub(crate) link: Mutex<Link>,
}

impl Lane {
    pub(crate) fn new(fixed: Option<Target>, secure: bool, fresh: Option<TcpStream>) -> Self {
        Self { fixed, secure, link: Mutex::new(Link { fresh, open: None }) }
    }

    /// Handles one request from its head to the head of its response. The body follows by itself.
    pub(crate) async fn handle(
        &self,
        connection: &Connection,
        request: Request<Incoming>,
    ) -> Response<AnyBody> {
        let protocol = if self.secure { Protocol::Https } else { Protocol::Http };
        let mut entry = connection.entry(protocol);
        let refused = Arc::new(OnceLock::new());
        match self.exchange(connection, request, &mut entry, &refused).await {
            Ok(response) => {
                let vault = Arc::clone(&connection.shared.vault);
                response.map(|incoming| AnyBody::new(Returning::new(incoming, vault, entry, refused)))
            }
            Err(stop) => {
                // A phantom in the body makes sending fail; that is the reason then.
                let stop = refused.get().cloned().map_or(stop, Stop::Refused);
                let response = answer(&stop);
                entry.stop(stop);
                response
            }
        }
    }

    async fn exchange(
        &self,
        connection: &Connection,
        request: Request<Incoming>,
        entry: &mut Entry,
        refused: &Arc<OnceLock<Refusal>>,
    ) -> Result<Response<Incoming>, Stop> {
        let shared = &connection.shared;
        let (mut parts, incoming) = request.into_parts();
        entry.request(parts.method.as_str(), parts.uri.path());
        if let (&Method::CONNECT, Some(fixed)) = (&parts.method, &self.fixed) {
            entry.target(fixed);
            return Err(Refusal::Relayed(fixed.clone()).into());
        }
        let target = self.target(&parts.uri, &parts.headers, parts.version, entry)?;
        let grant = shared.policy.target(&target)?;
        shared.policy.request(&target, &parts.method, parts.uri.path())?;
        if parts.headers.contains_key(header::UPGRADE) && is_websocket(&parts.headers) {
            return Err(Refusal::Malformed("WebSocket does not pass where requests are read".into()).into());
        }
        let vault = &shared.vault;
        strip_hop_by_hop(&mut parts.headers);
        let secrets = vault.inject(&target, &parts.method, &parts.uri, &mut parts.headers, self.secure)?;
        entry.secrets(secrets);

        let scrubbing = vault.scrubber.is_some();
        if scrubbing {
            parts.headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        parts.headers.remove(header::EXPECT);
        parts.headers.insert(header::HOST, host_header(&target, self.secure)?);
        parts.uri = origin_form(&parts.uri)?;
        parts.version = Version::HTTP_11;
        let outgoing =
            Outgoing::new(incoming, Arc::clone(&entry.meter), Arc::clone(vault), Arc::clone(refused));
        let request = Request::from_parts(parts, AnyBody::new(outgoing));
        let mut response = self.send(connection, &target, grant, request).await?;

        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Err(Stop::Failed(format!("{target} changed to another protocol without being asked to")));
        }
        strip_hop_by_hop(response.headers_mut());
        // A reason phrase is free text.
        response.extensions_mut().clear();
        if let Some(scrubber) = &vault.scrubber {
            let encoded =
                response.headers().get_all(header::CONTENT_ENCODING).iter().any(|value| value != "identity");
            if encoded && !response.body().is_end_stream() {
                return Err(Refusal::Encoded(target).into());
            }
            if !response.body().is_end_stream() {
                response.headers_mut().remove(header::CONTENT_LENGTH);
            }
            for value in response.headers_mut().values_mut() {
                if let Some(clean) = scrubber.whole(value.as_bytes()) {
                    *value = HeaderValue::from_bytes(&clean).unwrap_or(HeaderValue::from_static(""));
                }
            }
        }
        Ok(response)
    }

    /// Where the request goes: what its address, its `Host` and its tunnel say must be the same.
    fn target(
        &self,
        uri: &Uri,
        headers: &HeaderMap,
        version: Version,
        entry: &mut Entry,
    ) -> Result<Target, Stop> {
        let default_port = Some(if self.secure { 443 } else { 80 });
        let malformed = |why: &str| Stop::Refused(Refusal::Malformed(why.into()));
        let named = match (uri.scheme_str(), uri.authority()) {
            (None, None) => None,
            (Some("https"), _) if self.fixed.is_none() => {
                entry.no_target(uri.authority().map_or(b"", |text| text.as_str().as_bytes()));
                return Err(malformed("HTTPS goes through a proxy by CONNECT"));
            }
            (Some("http"), Some(authority)) if !self.secure => Some(authority),
            (Some("https"), Some(authority)) => Some(authority),
            _ => return Err(malformed("its address is of a kind that this proxy does not serve")),
        };
        let read = |text: &str, entry: &mut Entry| {
            Target::parse(text, default_port).inspect_err(|_| entry.no_target(text.as_bytes()))
        };
        let named = named.map(|authority| read(authority.as_str(), entry)).transpose()?;
        let target = match (&self.fixed, named) {
            (Some(fixed), Some(named)) if *fixed != named => {
                entry.target(fixed);
                return Err(Refusal::HostMismatch { target: fixed.clone() }.into());
            }
            (Some(fixed), _) => fixed.clone(),
            (None, Some(named)) => named,
            (None, None) => {
                let host = headers.get(header::HOST).map_or(&b""[..], HeaderValue::as_bytes);
                entry.no_target(host);
                return Err(malformed("this is a proxy: ask it for http://HOST/PATH, or use CONNECT"));
            }
        };
        entry.target(&target);
        let mut hosts = headers.get_all(header::HOST).iter();
        match (hosts.next(), hosts.next()) {
            (Some(host), None) => {
                let host = host.to_str().map_err(|_| malformed("its Host is not text"))?;
                if Target::parse(host, default_port)? != target {
                    return Err(Refusal::HostMismatch { target }.into());
                }
            }
            (None, _) if version == Version::HTTP_10 => {}
            (None, _) => return Err(malformed("it has no Host")),
            (Some(_), Some(_)) => return Err(malformed("it has more than one Host")),
        }
        Ok(target)
    }

    /// Sends over the connection that is open, or over a new one.
    async fn send(
        &self,
        connection: &Connection,
        target: &Target,
        grant: crate::policy::Grant,
        mut request: Request<AnyBody>,
    ) -> Result<Response<Incoming>, Stop> {
        let failed =
            |error: hyper::Error| Stop::Failed(format!("{target} did not answer: {}", causes(&error)));
        let mut link = self.link.lock().await;
        if let Some(mut open) = link.open.take().filter(|open| open.target == *target)
            && open.sender.ready().await.is_ok()
        {
            match open.sender.try_send_request(request).await {
                Ok(response) => {
                    link.open = Some(open);
                    return Ok(response);
                }
                // The other end closed meanwhile; a request that comes back was not sent.
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(failed(error.into_error())),
                },
            }
        }
        let limits = &connection.shared.limits;
        let upstream = &connection.shared.upstream;
        let stream = match link.fresh.take() {
            Some(fresh) => fresh,
            None => upstream.connect(target, grant, limits).await?,
        };
        let (mut sender, driver) = if self.secure {
            let stream = upstream.secure(stream, target, limits).await?;
            let (sender, work) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
            (sender, tokio::spawn(async move { drop(work.await) }))
        } else {
            let (sender, work) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
            (sender, tokio::spawn(async move { drop(work.await) }))
        };
        let driver = AbortOnDropHandle::new(driver);
        let response = sender.send_request(request).await.map_err(failed)?;
        link.open = Some(Open { target: target.clone(), sender, _driver: driver });
        Ok(response)
    }
}

/// The proxy's own answer, in words that the one who asked can act on.
pub(crate) fn answer(stop: &Stop) -> Response<AnyBody> {
    let (status, status_text) = match stop {
        Stop::Refused(Refusal::Malformed(_) | Refusal::Name(_)) => {
            (StatusCode::BAD_REQUEST, "http_request_error")
        }
        Stop::Refused(Refusal::Encoded(_)) | Stop::Failed(_) => {
            (StatusCode::BAD_GATEWAY, "destination_unavailable")
        }
        Stop::Refused(_) => (StatusCode::FORBIDDEN, "http_request_denied"),
    };
    let mut response = Response::new(body::text(format!("mooring egress: {stop}\n")));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    if let Ok(value) = HeaderValue::try_from(format!("mooring; error={status_text}")) {
        headers.insert(HeaderName::from_static("proxy-status"), value);
    }
    response
}

/// Removes what is meant for the next hop alone, named by the standard or by the message.
fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    let standard = [
        header::CONNECTION,
        header::PROXY_AUTHENTICATE,
        header::PROXY_AUTHORIZATION,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
    ];
    // What decides where the message goes and where it ends is not for the sender to take away.
    let kept = [header::HOST, header::CONTENT_LENGTH];
    for name in named.iter().filter(|name| !kept.contains(name)).chain(&standard) {
        headers.remove(name);
    }
}

fn is_websocket(headers: &HeaderMap) -> bool {
    headers.get_all(header::UPGRADE).iter().any(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

fn host_header(target: &Target, secure: bool) -> Result<HeaderValue, Refusal> {
    let usual = if secure { 443 } else { 80 };
    let text = if target.port == usual { target.host.to_string() } else { target.to_string() };
    HeaderValue::try_from(text).map_err(|_| Refusal::Malformed("its host cannot be written".into()))
}

/// Path and query alone, as a server is asked.
fn origin_form(uri: &Uri) -> Result<Uri, Refusal> {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    path.parse().map_err(|_| Refusal::Malformed("its path cannot be sent on".into()))
}

/// An error with what is behind it.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
