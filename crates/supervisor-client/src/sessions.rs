//! The sessions that somebody in this process holds: one id is one session, however often it is asked for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use mooring_sandbox::SandboxError;

use crate::session::SupervisedSession;

/// Sessions by id, held no longer than their users hold them.
#[derive(Debug, Default)]
pub struct Sessions(Mutex<HashMap<String, Weak<SupervisedSession>>>);

impl Sessions {
    /// The session of this id: the one that is held, else the one that `make` gives.
    pub fn open(&self, id: &str, make: impl FnOnce() -> SupervisedSession) -> Arc<SupervisedSession> {
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.retain(|_, session| session.strong_count() > 0);
        if let Some(session) = sessions.get(id).and_then(Weak::upgrade) {
            return session;
        }
        let session = Arc::new(make());
        sessions.insert(id.to_owned(), Arc::downgrade(&session));
        session
    }

    /// Forgets a session; gives it where it is held.
    pub fn take(&self, id: &str) -> Option<Arc<SupervisedSession>> {
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.remove(id).and_then(|session| session.upgrade())
    }
}

/// A session's id becomes a part of names: of directories, groups, containers.
///
/// # Errors
/// [`SandboxError::Invalid`] where it cannot.
pub fn check_id(id: &str) -> Result<(), SandboxError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if (1..=64).contains(&id.len()) && id.chars().all(plain) {
        return Ok(());
    }
    Err(SandboxError::Invalid {
        reason: format!("session id '{id}' must be 1 to 64 letters, digits, '-' and '_'"),
    })
}
