//! Sandboxes with a way out. It stands around any backend whose sandboxes have no network, and makes what their
//! manifest allows possible by the session's proxy: nothing about it is the backend's business.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use mooring_manifest::Manifest;
use mooring_sandbox::{
    BoxFuture, CreateRequest, Credentials, SandboxClient, SandboxError, SandboxSession, SessionState, Support,
};
use serde::Deserialize as _;
use serde_json::Value;

use crate::manifest::{Asked, Operator};
use crate::session::EgressSession;

/// Where a session's state keeps what its manifest asked for.
const KEY: &str = "egress";
/// Why a backend cannot have it.
const OPEN: &str = "its sandboxes have other ways out, which an allow-list would not close; use isolation";

/// A backend, with a way out for its sandboxes.
#[derive(Debug)]
pub struct EgressClient {
    inner: Arc<dyn SandboxClient>,
    operator: Operator,
    /// Where sessions keep what their sandbox knows its proxy by.
    kept: Option<PathBuf>,
    sessions: Mutex<HashMap<String, Weak<EgressSession>>>,
}

impl EgressClient {
    /// Around a backend.
    pub fn new(inner: Arc<dyn SandboxClient>, operator: Operator) -> Self {
        Self { inner, operator, kept: None, sessions: Mutex::default() }
    }

    /// For sandboxes that live on between clients: what each knows its proxy by, a certificate authority and phantoms,
    /// is kept in `folder/SESSION.egress`, for this user alone, so that what runs in it has a way out through whichever
    /// client is there. It goes with the session.
    #[must_use]
    pub fn keeping(mut self, folder: impl Into<PathBuf>) -> Self {
        self.kept = Some(folder.into());
        self
    }

    fn known(&self, id: &str) -> Option<Arc<EgressSession>> {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.retain(|_, session| session.strong_count() > 0);
        sessions.get(id).and_then(Weak::upgrade)
    }

    /// A session with its proxy, which is served from its start on.
    async fn open(
        &self,
        inner: Arc<dyn SandboxSession>,
        asked: &Asked,
    ) -> Result<Arc<dyn SandboxSession>, SandboxError> {
        let mut state = inner.state();
        let asked_value = serde_json::to_value(asked).unwrap_or_default();
        match state.data.as_object_mut() {
            Some(data) => data.insert(KEY.into(), asked_value),
            None => return Err(self.unsupported("the state of its sessions has no room for it")),
        };
        let policy = asked.policy(&self.operator)?;
        let kept = self.kept_in(inner.id());
        let session =
            Arc::new(EgressSession::new(inner, state, policy, asked, &self.operator, kept.as_deref())?);
        match session.way_out() {
            Some(way_out) => way_out.serve(session.handler()).await?,
            None => {
                return Err(self.unsupported("a sandbox of it has other ways out, which could not be closed"));
            }
        }
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.insert(session.id().to_owned(), Arc::downgrade(&session));
        Ok(session)
    }

    fn kept_in(&self, id: &str) -> Option<PathBuf> {
        Some(self.kept.as_ref()?.join(format!("{id}.egress")))
    }

    fn unsupported(&self, reason: &str) -> SandboxError {
        SandboxError::Unsupported {
            operation: "network access".into(),
            backend: self.inner.backend_id().into(),
            reason: reason.into(),
        }
    }
}

/// Takes out what is ours, and leaves the state as the backend knows it.
fn split(mut state: SessionState) -> Result<(SessionState, Option<Asked>), SandboxError> {
    let asked = state.data.as_object_mut().and_then(|data| data.remove(KEY));
    let asked = asked.map(|asked: Value| {
        Asked::deserialize(asked).map_err(|error| SandboxError::Invalid {
            reason: format!("the network policy of session {} cannot be read: {error}", state.session_id),
        })
    });
    let asked = asked.transpose()?;
    Ok((state, asked))
}

impl SandboxClient for EgressClient {
    fn backend_id(&self) -> &'static str {
        self.inner.backend_id()
    }

    fn support(&self) -> Support {
        let mut support = self.inner.support();
        // What reaches nothing by itself can be given a way out that is the only one.
        if support.network.deny {
            support.network.allow = true;
            support.network.unrestricted = true;
            support.secrets = true;
        }
        support
    }

    fn check(&self, manifest: &Manifest) -> Result<(), SandboxError> {
        self.inner.check(manifest)
    }

    fn credentials(&self, manifest: &Manifest) -> Result<Credentials, SandboxError> {
        self.operator.credentials(manifest)
    }

    fn create(&self, request: CreateRequest) -> BoxFuture<'_, Result<Arc<dyn SandboxSession>, SandboxError>> {
        Box::pin(async move {
            let Some(asked) = Asked::of(&request.manifest.extension) else {
                return self.inner.create(request).await;
            };
            // A backend that reaches everything by itself does it without a proxy, unless there are secrets to be put in.
            if asked.needs_no_proxy() && self.inner.support().network.unrestricted {
                return self.inner.create(request).await;
            }
            if let Some(known) = self.known(&request.session_id) {
                return Ok(known as Arc<dyn SandboxSession>);
            }
            // What cannot be is known before anything is made.
            if !self.support().network.allow {
                return Err(self.unsupported(OPEN));
            }
            asked.policy(&self.operator)?;
            let inner = self.inner.create(request).await?;
            self.open(inner, &asked).await
        })
    }

    fn resume(&self, state: SessionState) -> BoxFuture<'_, Result<Arc<dyn SandboxSession>, SandboxError>> {
        Box::pin(async move {
            let (state, asked) = split(state)?;
            let Some(asked) = asked else { return self.inner.resume(state).await };
            if let Some(known) = self.known(&state.session_id) {
                return Ok(known as Arc<dyn SandboxSession>);
            }
            let inner = self.inner.resume(state).await?;
            self.open(inner, &asked).await
        })
    }

    fn fork<'a>(
        &'a self,
        parent: &'a SessionState,
        session_id: &'a str,
    ) -> BoxFuture<'a, Result<Arc<dyn SandboxSession>, SandboxError>> {
        Box::pin(async move {
            let (parent, asked) = split(parent.clone())?;
            let Some(asked) = asked else { return self.inner.fork(&parent, session_id).await };
            asked.policy(&self.operator)?;
            let inner = self.inner.fork(&parent, session_id).await?;
            self.open(inner, &asked).await
        })
    }

    fn delete<'a>(&'a self, state: &'a SessionState) -> BoxFuture<'a, Result<(), SandboxError>> {
        Box::pin(async move {
            let (state, _) = split(state.clone())?;
            self.inner.delete(&state).await?;
            match self.kept_in(&state.session_id).map(std::fs::remove_file) {
                Some(Err(error)) if error.kind() != std::io::ErrorKind::NotFound => Err(SandboxError::File {
                    operation: "remove what a sandbox knew its proxy by,",
                    path: format!("{}.egress", state.session_id),
                    reason: error.to_string(),
                }),
                _ => Ok(()),
            }
        })
    }
}
