//! Workspaces that nobody names any more: volumes on the engine, and the sessions' directories on this host.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use bollard::Docker;
use bollard::query_parameters::{ListVolumesOptions, RemoveVolumeOptions};
use mooring_sandbox::SandboxError;

use crate::client::file;
use crate::container::name;
use crate::engine::{absent, refused};
use crate::owner::SESSION;
use crate::reap::{Reaped, containers, reap};

/// The label of a volume with the state directory that it belongs to: others may use the same engine.
const STATE: &str = "dev.mooring.state";
/// The label with the time when it was made, in milliseconds since the Unix epoch.
const CREATED: &str = "dev.mooring.created";

/// What a prune removed, or would remove.
#[derive(Debug, Default)]
pub struct Pruned {
    /// Containers that nobody is left for.
    pub containers: Vec<Reaped>,
    /// Sessions whose workspace went, and why one could not be removed.
    pub workspaces: Vec<(String, Result<(), SandboxError>)>,
}

/// What a session's volume is labelled with.
pub(crate) fn labels(session: &str, state_dir: &Path) -> HashMap<String, String> {
    let label = |name: &str, value: String| (name.to_owned(), value);
    HashMap::from([
        label(SESSION, session.to_owned()),
        label(STATE, place(state_dir)),
        label(CREATED, ms(SystemTime::now()).to_string()),
    ])
}

/// Removes containers whose owner is dead, and workspaces of this state directory that `unused` says nobody needs, given
/// their session and the time they were made. One whose container exists stays.
pub(crate) async fn prune(
    docker: &Docker,
    state_dir: &Path,
    look_only: bool,
    unused: &(dyn Fn(&str, i64) -> bool + Sync),
) -> Result<Pruned, SandboxError> {
    let mut pruned = Pruned { containers: reap(docker, look_only).await?, ..Pruned::default() };
    let served: HashSet<String> = containers(docker)
        .await?
        .into_iter()
        .filter(|found| !found.dead)
        .map(|found| found.session)
        .collect();
    let ours = format!("{STATE}={}", place(state_dir));
    let options = ListVolumesOptions { filters: Some([("label".to_owned(), vec![ours])].into()) };
    let volumes =
        docker.list_volumes(Some(options)).await.map_err(|error| refused("list of volumes", error))?;
    for volume in volumes.volumes.unwrap_or_default() {
        let label = |name| volume.labels.get(name);
        let (Some(session), Some(created)) = (label(SESSION), label(CREATED).and_then(|ms| ms.parse().ok()))
        else {
            continue;
        };
        // Only what is called as this crate calls it.
        if volume.name != name(session) || served.contains(session) || !unused(session, created) {
            continue;
        }
        let removed = if look_only { Ok(()) } else { remove_volume(docker, session).await };
        pruned.workspaces.push((session.clone(), removed));
    }
    if !look_only {
        remove_folders(&state_dir.join("docker"), &|session, made| {
            !served.contains(session) && unused(session, made)
        })?;
    }
    Ok(pruned)
}

/// Removes a session's volume. One that is not there is no error.
pub(crate) async fn remove_volume(docker: &Docker, session: &str) -> Result<(), SandboxError> {
    match docker.remove_volume(&name(session), None::<RemoveVolumeOptions>).await {
        Err(error) if absent(&error) => Ok(()),
        removed => removed.map_err(|error| refused("removal of a volume", error)),
    }
}

/// Removes the directories, which held a socket each, of sessions that are unused.
fn remove_folders(home: &Path, unused: &dyn Fn(&str, i64) -> bool) -> Result<(), SandboxError> {
    let entries = match fs_err::read_dir(home) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(file("list", home, &error)),
        Ok(entries) => entries,
    };
    for entry in entries {
        let path = entry.map_err(|error| file("list", home, &error))?.path();
        let session = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Ok(made) = fs_err::metadata(&path).and_then(|metadata| metadata.modified()) else { continue };
        if unused(&session, ms(made)) {
            fs_err::remove_dir_all(&path).map_err(|error| file("remove", &path, &error))?;
        }
    }
    Ok(())
}

fn place(state_dir: &Path) -> String {
    std::path::absolute(state_dir).unwrap_or_else(|_| state_dir.to_owned()).display().to_string()
}

fn ms(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
