//! The proxy of one sandbox session, as its host sees it.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::authority::Authority;
use crate::connection::{Connection, Shared};
use crate::identity::Identity;
use crate::limits::Limits;
use crate::policy::{Policy, PolicyError};
use crate::proxy;
use crate::record::{Meter, Observer, Protocol, Refusal, Stop};
use crate::secret::Vault;
use crate::stream::{Metered, Peeked};
use crate::upstream::{Resolve, SystemResolver, Upstream};

/// Before a listener that failed to accept tries again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often it is looked whether connections have ended.
const QUIET_STEP: Duration = Duration::from_millis(2);

/// How a session's network access is set up.
pub struct Config {
    /// What may be reached.
    pub policy: Policy,
    /// Bounds.
    pub limits: Limits,
    /// Gets a record of everything that went out or was refused.
    pub observer: Observer,
    /// Looks names up.
    pub resolver: Arc<dyn Resolve>,
    /// Certificate authorities that are trusted besides the machine's own, in PEM: a company's, say.
    pub extra_roots: String,
}

impl Config {
    /// The usual set-up for a policy: the machine's resolver and trust, default limits.
    pub fn new(policy: Policy, observer: Observer) -> Self {
        Self {
            policy,
            limits: Limits::default(),
            observer,
            resolver: Arc::new(SystemResolver),
            extra_roots: String::new(),
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("policy", &self.policy)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// The proxy of one session. A clone is the same proxy.
///
/// It is for one sandbox: whoever can reach it may use what the policy allows. A session that starts anew gets a new
/// one, with other phantoms and another certificate authority, unless its sandbox lives on.
#[derive(Clone)]
pub struct Egress {
    shared: Arc<Shared>,
    places: Arc<Semaphore>,
}

impl Egress {
    /// Checks the policy, and makes the session's phantoms and certificate authority.
    pub fn new(config: Config) -> Result<Self, PolicyError> {
        let identity = Identity::new(&config.policy.secrets)?;
        Self::known_by(config, &identity)
    }

    /// The same for a sandbox that knows its proxy already.
    pub(crate) fn known_by(config: Config, identity: &Identity) -> Result<Self, PolicyError> {
        let Config { policy, limits, observer, resolver, extra_roots } = config;
        policy.validate()?;
        let vault = Arc::new(Vault::new(policy.secrets.clone(), &identity.phantoms)?);
        let authority = Authority::new(&identity.authority_key);
        let authority = authority.map_err(|error| PolicyError::Setup(error.to_string()))?;
        let places = Arc::new(Semaphore::new(limits.connections));
        let upstream = Upstream::new(resolver, extra_roots);
        let left = CancellationToken::new();
        let shared = Arc::new(Shared { policy, vault, limits, upstream, authority, observer, left });
        Ok(Self { shared, places })
    }

    /// The name of each secret and the phantom that stands for it in the sandbox.
    pub fn phantoms(&self) -> impl Iterator<Item = (&str, &str)> {
        self.shared.vault.phantoms()
    }

    /// The certificate of this session's authority, in PEM: the sandbox adds it to what it trusts.
    pub fn authority_pem(&self) -> &str {
        self.shared.authority.pem()
    }

    /// What is allowed, in a few words.
    pub(crate) fn describe(&self) -> String {
        let Policy { unrestricted, rules, secrets, .. } = &self.shared.policy;
        match (unrestricted, secrets.len()) {
            (true, _) => "unrestricted, by proxy".into(),
            (false, 0) => format!("allow-list of {}, by proxy", rules.len()),
            (false, bindings) => {
                format!("allow-list of {}, by proxy; {bindings} places for secrets", rules.len())
            }
        }
    }

    /// Waits until no connection is served, and no longer than this.
    pub(crate) async fn quiet(&self, wait: Duration) {
        let all_free = async {
            // Whoever waited for all places at once would hold them back from those who come meanwhile.
            while self.places.available_permits() < self.shared.limits.connections {
                sleep(QUIET_STEP).await;
            }
        };
        let _ = tokio::time::timeout(wait, all_free).await;
    }

    /// Cuts what is open, and serves nothing any more.
    pub(crate) fn leave(&self) {
        self.shared.left.cancel();
    }

    /// Serves one connection from the sandbox to its end. HTTP proxy requests, `CONNECT` and SOCKS 5 are told apart by
    /// themselves. Dropping the future cuts the connection.
    pub async fn serve(&self, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) {
        let cut = Arc::new(OnceLock::new());
        let connection = Arc::new(Connection { shared: Arc::clone(&self.shared), cut: Arc::clone(&cut) });
        let limits = &self.shared.limits;
        let Ok(_place) = self.places.try_acquire() else {
            let refusal = Refusal::TooMany(limits.connections);
            return connection.entry(Protocol::Unknown).stop(Stop::Refused(refusal));
        };
        let meter = Arc::<Meter>::default();
        let client = Peeked::new(Box::new(Metered::new(stream, Arc::clone(&meter))));
        let mut work = pin!(proxy::serve(&connection, client));
        let why = tokio::select! {
            () = &mut work => return,
            () = idle(&meter, limits) => "nothing moved on the connection for too long",
            () = sleep(limits.total) => "the connection was open for longer than one may be",
            () = self.shared.left.cancelled() => "the process that carried it has left the sandbox",
        };
        // Before the work is dropped, which is when its records are handed over.
        let _ = cut.set(why);
    }

    /// Serves whoever connects to a TCP address, which must be one that only the sandbox reaches, until the future is
    /// dropped.
    pub async fn listen_tcp(&self, listener: TcpListener) {
        self.listen(|| async { listener.accept().await.map(|(stream, _)| stream) }).await;
    }

    /// Serves whoever connects to a Unix socket, as `listen_tcp`.
    pub async fn listen_unix(&self, listener: UnixListener) {
        self.listen(|| async { listener.accept().await.map(|(stream, _)| stream) }).await;
    }

    async fn listen<S, F>(&self, accept: impl Fn() -> F)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
        F: Future<Output = io::Result<S>>,
    {
        let mut serving = JoinSet::new();
        loop {
            match accept().await {
                Ok(stream) => {
                    let egress = self.clone();
                    serving.spawn(async move { egress.serve(stream).await });
                }
                // Out of file descriptors, say: it passes when connections end.
                Err(_) => sleep(ACCEPT_PAUSE).await,
            }
            while serving.try_join_next().is_some() {}
        }
    }
}

/// Ends when nothing has moved for too long.
async fn idle(meter: &Meter, limits: &Limits) {
    let mut before = meter.total();
    loop {
        sleep(limits.idle).await;
        let now = meter.total();
        if now == before {
            return;
        }
        before = now;
    }
}

impl fmt::Debug for Egress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Egress").field("policy", &self.shared.policy).finish_non_exhaustive()
    }
}
