//! What crashes left behind on the engine.

use std::collections::HashMap;

use bollard::Docker;
use bollard::query_parameters::ListContainersOptions;
use mooring_sandbox::SandboxError;

use crate::container::remove;
use crate::engine::refused;
use crate::owner::{Known, Owner, SESSION};

/// A container that was removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reaped {
    /// Its session's id.
    pub session: String,
    /// The container's name.
    pub container: String,
}

/// Removes containers whose owner is dead. What serves somebody, or might, stays; so do workspaces, which a session can
/// be resumed with.
pub(crate) async fn reap(docker: &Docker) -> Result<Vec<Reaped>, SandboxError> {
    let own = Owner::this().map_err(|error| SandboxError::Invalid { reason: error.to_string() })?;
    let labelled = HashMap::from([("label".to_owned(), vec![SESSION.to_owned()])]);
    let options =
        ListContainersOptions { all: true, filters: Some(labelled), ..ListContainersOptions::default() };
    let containers =
        docker.list_containers(Some(options)).await.map_err(|error| refused("list of containers", error))?;
    let mut reaped = Vec::new();
    for container in containers {
        let labels = container.labels.unwrap_or_default();
        let (Some(id), Some(session)) = (container.id, labels.get(SESSION)) else { continue };
        if own.judge(&labels) != Known::Dead {
            continue;
        }
        remove(docker, &id).await?;
        let name = container.names.unwrap_or_default().into_iter().next().unwrap_or(id);
        reaped.push(Reaped { session: session.clone(), container: name.trim_start_matches('/').to_owned() });
    }
    Ok(reaped)
}
