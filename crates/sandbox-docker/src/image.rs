//! Images: found on the engine, or fetched by it.

use std::collections::BTreeMap;
use std::time::Duration;

use bollard::Docker;
use bollard::query_parameters::CreateImageOptions;
use futures::TryStreamExt as _;
use mooring_sandbox::SandboxError;

use crate::engine::{absent, reason, refused};

/// How long fetching an image may take.
const FETCH: Duration = Duration::from_mins(15);

/// An image on the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Image {
    /// By its content.
    pub(crate) id: String,
    /// The variables that it sets.
    pub(crate) environment: BTreeMap<String, String>,
}

/// Finds an image; one that the engine does not have is fetched from its registry.
pub(crate) async fn find(docker: &Docker, name: &str) -> Result<Image, SandboxError> {
    match inspect(docker, name).await {
        Err(error) if absent(&error) => fetch(docker, name).await?,
        found => return found.map_err(|error| refused(&format!("image '{name}'"), error)),
    }
    inspect(docker, name).await.map_err(|error| refused(&format!("image '{name}'"), error))
}

async fn inspect(docker: &Docker, name: &str) -> Result<Image, bollard::errors::Error> {
    let found = docker.inspect_image(name).await?;
    let variables = found.config.and_then(|config| config.env).unwrap_or_default();
    let split =
        |variable: &String| variable.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    Ok(Image {
        id: found.id.unwrap_or_else(|| name.to_owned()),
        environment: variables.iter().filter_map(split).collect(),
    })
}

async fn fetch(docker: &Docker, name: &str) -> Result<(), SandboxError> {
    // Without a tag the engine would fetch all of them.
    let last = name.rsplit('/').next().unwrap_or_default();
    let from_image = if last.contains([':', '@']) { name.to_owned() } else { format!("{name}:latest") };
    let options = CreateImageOptions { from_image: Some(from_image), ..CreateImageOptions::default() };
    let fetching = docker.create_image(Some(options), None, None).try_collect::<Vec<_>>();
    match tokio::time::timeout(FETCH, fetching).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(SandboxError::Isolation {
            primitive: format!("image '{name}'"),
            reason: format!("the engine has no such image, and cannot fetch it: {}", reason(error)),
            hint: "name one of those that `docker image ls` shows, or fetch it with `docker pull`, which knows your \
                   registries' passwords"
                .into(),
        }),
        Err(_) => Err(SandboxError::Deadline { operation: format!("fetch image '{name}'"), seconds: FETCH.as_secs() }),
    }
}
