//! The way to the other end: a name is resolved once, after the policy allowed it; every address it leads to is checked;
//! and exactly these addresses are connected to. TLS to the other end is verified before a byte of a request is sent.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use mooring_manifest::extension::HostName;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::host::{Host, Target};
use crate::limits::Limits;
use crate::policy::Grant;
use crate::record::{Refusal, Stop};

/// Most addresses of a name that are tried.
const MAX_ADDRESSES: usize = 16;

/// Looks names up. It is asked for names that the policy allows, and for no others.
pub trait Resolve: Send + Sync {
    /// The addresses of a name.
    fn resolve<'a>(
        &'a self,
        name: &'a HostName,
    ) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send + 'a>>;
}

/// The resolver of the machine that the proxy runs on.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve<'a>(
        &'a self,
        name: &'a HostName,
    ) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send + 'a>> {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    }
}

pub(crate) struct Upstream {
    resolver: Arc<dyn Resolve>,
    /// Certificates that are trusted besides the machine's own, in PEM.
    extra_roots: String,
    tls: OnceLock<Result<Arc<ClientConfig>, String>>,
}

impl Upstream {
    pub(crate) fn new(resolver: Arc<dyn Resolve>, extra_roots: String) -> Self {
        Self { resolver, extra_roots, tls: OnceLock::new() }
    }

    /// Resolves, checks and connects.
    pub(crate) async fn connect(
        &self,
        target: &Target,
        grant: Grant,
        limits: &Limits,
    ) -> Result<TcpStream, Stop> {
        let failed = |why: &dyn fmt::Display| Stop::Failed(format!("{target} could not be reached: {why}"));
        let work = async {
            let mut addresses = match &target.host {
                Host::Address(address) => vec![*address],
                Host::Name(name) => self.resolver.resolve(name).await.map_err(|error| failed(&error))?,
            };
            addresses.truncate(MAX_ADDRESSES);
            // One forbidden address among them is one too many: the name is not what it was taken for.
            if !addresses.iter().all(|address| grant.permits(*address)) {
                return Err(Refusal::Address(target.clone()).into());
            }
            let mut last = failed(&"the name has no address");
            for address in addresses {
                match timeout(limits.attempt(), TcpStream::connect(SocketAddr::new(address, target.port)))
                    .await
                {
                    Ok(Ok(stream)) => {
                        let _ = stream.set_nodelay(true);
                        return Ok(stream);
                    }
                    Ok(Err(error)) => last = failed(&error),
                    Err(_) => last = failed(&"no answer in time"),
                }
            }
            Err(last)
        };
        timeout(limits.connect, work).await.unwrap_or_else(|_| Err(failed(&"no answer in time")))
    }

    /// Speaks TLS to a target, and makes sure that it is the target. HTTP/1.1 alone is offered.
    pub(crate) async fn secure(
        &self,
        stream: TcpStream,
        target: &Target,
        limits: &Limits,
    ) -> Result<TlsStream<TcpStream>, Stop> {
        let failed =
            |why: &dyn fmt::Display| Stop::Failed(format!("no trusted connection to {target}: {why}"));
        let config = self.tls.get_or_init(|| self.client()).as_ref().map_err(|error| failed(error))?;
        let name = match &target.host {
            Host::Name(name) => ServerName::try_from(name.to_string()).map_err(|error| failed(&error))?,
            Host::Address(address) => ServerName::from(*address),
        };
        match timeout(limits.connect, TlsConnector::from(Arc::clone(config)).connect(name, stream)).await {
            Ok(done) => done.map_err(|error| failed(&error)),
            Err(_) => Err(failed(&"no answer in time")),
        }
    }

    fn client(&self) -> Result<Arc<ClientConfig>, String> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        for certificate in CertificateDer::pem_slice_iter(self.extra_roots.as_bytes()) {
            let certificate =
                certificate.map_err(|error| format!("an extra root certificate is unreadable: {error}"))?;
            roots
                .add(certificate)
                .map_err(|error| format!("an extra root certificate is unusable: {error}"))?;
        }
        if roots.is_empty() {
            return Err("this machine trusts no certificate authority: install its ca-certificates".into());
        }
        let mut config =
            ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .map_err(|error| error.to_string())?
                .with_root_certificates(roots)
                .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Upstream(..)")
    }
}
