//! What belongs to one session, and to one client connection of it.

use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;

use crate::authority::Authority;
use crate::limits::Limits;
use crate::policy::Policy;
use crate::record::{Entry, Observer, Protocol};
use crate::secret::Vault;
use crate::upstream::Upstream;

/// What all connections of a session share.
pub(crate) struct Shared {
    pub(crate) policy: Policy,
    pub(crate) vault: Arc<Vault>,
    pub(crate) limits: Limits,
    pub(crate) upstream: Upstream,
    pub(crate) authority: Authority,
    pub(crate) observer: Observer,
    /// Cancelled when the session is left.
    pub(crate) left: CancellationToken,
}

/// One client connection.
pub(crate) struct Connection {
    pub(crate) shared: Arc<Shared>,
    /// Set before the connection is cut from outside, with the reason.
    pub(crate) cut: Arc<OnceLock<&'static str>>,
}

impl Connection {
    pub(crate) fn entry(&self, protocol: Protocol) -> Entry {
        Entry::new(Arc::clone(&self.shared.observer), Arc::clone(&self.cut), protocol)
    }
}
