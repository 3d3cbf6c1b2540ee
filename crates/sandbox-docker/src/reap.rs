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

/// A container of ours on the engine, whoever made it.
pub(crate) struct Found {
    id: String,
    pub(crate) session: String,
    name: String,
    /// Nobody is left whom it serves.
    pub(crate) dead: bool,
}

/// All containers of ours.
pub(crate) async fn containers(docker: &Docker) -> Result<Vec<Found>, SandboxError> {
    let own = Owner::this().map_err(|error| SandboxError::Invalid { reason: error.to_string() })?;
    let labelled = HashMap::from([("label".to_owned(), vec![SESSION.to_owned()])]);
    let options =
        ListContainersOptions { all: true, filters: Some(labelled), ..ListContainersOptions::default() };
    let containers =
        docker.list_containers(Some(options)).await.map_err(|error| refused("list of containers", error))?;
    let mut found = Vec::new();
    for container in containers {
        let labels = container.labels.unwrap_or_default();
        let (Some(id), Some(session)) = (container.id, labels.get(SESSION)) else { continue };
        let name = container.names.unwrap_or_default().into_iter().next();
        let name = name.map_or_else(|| id.clone(), |name| name.trim_start_matches('/').to_owned());
        found.push(Found { id, session: session.clone(), name, dead: own.judge(&labels) == Known::Dead });
    }
    Ok(found)
}

/// Removes containers whose owner is dead. What serves somebody, or might, stays; so do workspaces, which a session can
/// be resumed with. With `look_only` nothing is removed.
pub(crate) async fn reap(docker: &Docker, look_only: bool) -> Result<Vec<Reaped>, SandboxError> {
    let mut reaped = Vec::new();
    for found in containers(docker).await?.into_iter().filter(|found| found.dead) {
        if !look_only {
            remove(docker, &found.id).await?;
        }
        reaped.push(Reaped { session: found.session, container: found.name });
    }
    Ok(reaped)
}
