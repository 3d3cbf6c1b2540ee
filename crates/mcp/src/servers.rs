//! All servers of a run: connected side by side, closed together.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::future::join_all;
use mooring_capability::Tool;
use tokio::time::Instant;

use crate::config::Launch;
use crate::connection::{Connection, Trouble};
use crate::name::is_server_name;
use crate::server::Server;
use crate::tool::{McpTool, Offer};
use crate::{McpConfig, McpFailure, McpProblem};

/// The servers that could be connected. Dropping it kills the processes among them, with all that they started in
/// their process groups; [`McpServers::close`] lets them end first. Their tools fail from then on.
#[derive(Default)]
pub struct McpServers {
    servers: Vec<Connected>,
}

/// What is known of a connected server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct McpServerInfo {
    /// Its name in the configuration.
    pub name: String,
    /// What it calls itself, with its version, where it says so.
    pub title: Option<String>,
    /// The version of the protocol that is spoken with it, such as `2026-07-28`.
    pub protocol: String,
    /// How many of its tools the model sees.
    pub tools: usize,
}

struct Connected {
    server: Arc<Server>,
    info: McpServerInfo,
    offers: Vec<Arc<Offer>>,
}

impl McpServers {
    /// Connects all servers at once, each within its `connect_timeout`, and lists their tools. Those that fail are
    /// told by name and harm no other.
    ///
    /// `resolve` gives the values of variables. It is asked for `PATH`, `HOME` and `LANG`, which every process gets,
    /// and for what the configurations name. The values are kept for restarts.
    ///
    /// Needs a tokio runtime with time and I/O, and for `https` an installed `rustls` provider.
    pub async fn connect(
        configs: BTreeMap<String, McpConfig>,
        resolve: &(dyn Fn(&str) -> Option<String> + Sync),
    ) -> (Self, Vec<McpFailure>) {
        let all = configs.into_iter().map(|(name, config)| async move {
            let connected = connect(&name, config, resolve).await;
            connected.map_err(|Trouble { problem, stderr }| McpFailure { server: name, problem, stderr })
        });
        let (mut servers, mut failures) = (Vec::new(), Vec::new());
        for connected in join_all(all).await {
            match connected {
                Ok(connected) => servers.push(connected),
                Err(failure) => failures.push(failure),
            }
        }
        (Self { servers }, failures)
    }

    /// The tools of these servers, in this order and each server's own. They are called `SERVER__TOOL`, with at most
    /// 64 characters; a hash stands for what does not fit in. The list stays the same whatever servers do later. A
    /// server that could not be connected offers none.
    pub fn tools(&self, names: &[String]) -> Vec<Arc<dyn Tool>> {
        let servers = names.iter().filter_map(|name| self.servers.iter().find(|one| one.info.name == *name));
        let all = servers.flat_map(|connected| {
            connected.offers.iter().map(|offer| -> Arc<dyn Tool> {
                Arc::new(McpTool { offer: offer.clone(), server: connected.server.clone() })
            })
        });
        all.collect()
    }

    /// What is known of the servers.
    pub fn servers(&self) -> impl Iterator<Item = &McpServerInfo> {
        self.servers.iter().map(|connected| &connected.info)
    }

    /// Ends all servers and waits for it, a few seconds at most: their input is closed, then they get SIGTERM, then
    /// SIGKILL. Servers elsewhere are told that the session is over.
    pub async fn close(self) {
        join_all(self.servers.iter().map(|connected| connected.server.close())).await;
    }
}

impl Drop for McpServers {
    fn drop(&mut self) {
        for connected in &self.servers {
            connected.server.kill();
        }
    }
}

impl std::fmt::Debug for McpServers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.servers()).finish()
    }
}

async fn connect(
    name: &str,
    config: McpConfig,
    resolve: &(dyn Fn(&str) -> Option<String> + Sync),
) -> Result<Connected, Trouble> {
    if !is_server_name(name) {
        return Err(McpProblem::Name.into());
    }
    let launch: Launch = config.launch(resolve)?;
    let until = Instant::now() + config.connect_timeout;
    let connection = Connection::open(&launch, config.connect_timeout).await?;
    let listed = connection.list(until.saturating_duration_since(Instant::now())).await;
    let offers = listed.and_then(|listed| {
        let mut seen = BTreeSet::new();
        let admitted = listed.into_iter().filter(|tool| config.tools.admits(&tool.name));
        let offers = admitted.map(|tool| {
            let offer = Offer::new(name, &config, tool);
            if seen.insert(offer.spec.name.clone()) {
                return Ok(Arc::new(offer));
            }
            Err(McpProblem::Tools { reason: format!("it has two tools for the name `{}`", offer.spec.name) })
        });
        offers.collect::<Result<Vec<_>, _>>()
    });
    let offers = match offers {
        Ok(offers) => offers,
        Err(problem) => {
            connection.kill();
            return Err(Trouble { problem, stderr: connection.last_lines() });
        }
    };
    let peer = connection.peer.peer_info();
    let info = McpServerInfo {
        name: name.to_owned(),
        title: peer.as_ref().and_then(|peer| {
            let server = peer.server_info.as_ref()?;
            Some(format!("{} {}", server.name, server.version))
        }),
        protocol: peer.map(|peer| peer.protocol_version.to_string()).unwrap_or_default(),
        tools: offers.len(),
    };
    let server = Arc::new(Server::new(name.to_owned(), config, launch, connection));
    Ok(Connected { server, info, offers })
}
