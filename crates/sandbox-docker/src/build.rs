//! Images that a manifest has built: once for each content of its directory.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bollard::Docker;
use bollard::query_parameters::BuildImageOptions;
use futures::TryStreamExt as _;
use mooring_manifest::extension::{ImageBuild, Network};
use mooring_sandbox::SandboxError;
use sha2::{Digest as _, Sha256};

use crate::engine::reason;

/// How long a build may take.
const BUILD: Duration = Duration::from_mins(30);
/// The most that its directory may hold.
const CONTEXT: u64 = 512 << 20;
/// How much of what a build said is told when it fails.
const SAID: usize = 2000;

/// The name of the image that `build` makes, built unless the engine has it. `base` is what its directory is relative
/// to, and below.
///
/// Without a word about the network a build reaches what the engine reaches, as its commands mostly install
/// something; with `deny`, or an allow-list, which an engine cannot keep, it reaches nothing.
pub(crate) async fn build(
    docker: &Docker,
    build: &ImageBuild,
    base: &Path,
    network: Option<&Network>,
) -> Result<String, SandboxError> {
    let directory = locate(base, &build.context)?;
    let archive = tokio::task::spawn_blocking(move || pack(&directory))
        .await
        .map_err(|error| SandboxError::Invalid { reason: format!("packing was interrupted: {error}") })??;
    let name = name(build, &archive);
    if docker.inspect_image(&name).await.is_ok() {
        return Ok(name);
    }
    let closed = matches!(network, Some(Network::Deny | Network::Allow(_)));
    let options = BuildImageOptions {
        dockerfile: build.dockerfile.clone(),
        t: Some(name.clone()),
        buildargs: Some(build.args.iter().map(|(name, value)| (name.clone(), value.clone())).collect()),
        target: build.target.clone().unwrap_or_default(),
        networkmode: closed.then(|| "none".into()),
        labels: Some(HashMap::from([("dev.mooring.built".to_owned(), "yes".to_owned())])),
        rm: true,
        forcerm: true,
        ..BuildImageOptions::default()
    };
    let mut said = String::new();
    let building = async {
        let mut lines = docker.build_image(options, None, Some(bollard::body_full(archive.into())));
        while let Some(line) = lines.try_next().await? {
            said += line.stream.as_deref().unwrap_or_default();
            if let Some(message) = line.error_detail.and_then(|error| error.message) {
                return Err(bollard::errors::Error::DockerStreamError { error: message });
            }
            // The end says why; what was long before does not.
            if said.len() > 2 * SAID {
                let cut = (said.len() - SAID..said.len())
                    .find(|&at| said.is_char_boundary(at))
                    .unwrap_or(said.len());
                said.drain(..cut);
            }
        }
        Ok(())
    };
    match tokio::time::timeout(BUILD, building).await {
        Ok(Ok(())) => Ok(name),
        Ok(Err(error)) => Err(SandboxError::Stage {
            entry: format!("image.context ({})", build.context),
            reason: format!("the build failed: {}\n{}", reason(error), said.trim_end()),
        }),
        Err(_) => {
            Err(SandboxError::Deadline { operation: "build the image".into(), seconds: BUILD.as_secs() })
        }
    }
}

/// The build's directory, which must not leave the base.
fn locate(base: &Path, context: &str) -> Result<PathBuf, SandboxError> {
    let fail = |reason: String| SandboxError::Stage { entry: format!("image.context ({context})"), reason };
    let base = fs_err::canonicalize(base).map_err(|error| fail(error.to_string()))?;
    let found = fs_err::canonicalize(base.join(context)).map_err(|error| fail(error.to_string()))?;
    if found.starts_with(&base) && found.is_dir() {
        return Ok(found);
    }
    Err(fail(format!("it must be a directory below {}", base.display())))
}

/// The directory as the engine takes it, without its history.
fn pack(directory: &Path) -> Result<Vec<u8>, SandboxError> {
    let mut archive = Limited(Vec::new());
    mooring_archive::pack(directory, &mut archive, &[".git".to_owned()], &|_, _| ("", ""))
        .map_err(SandboxError::of_archive)?;
    Ok(archive.0)
}

struct Limited(Vec<u8>);

impl std::io::Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if (self.0.len() + bytes.len()) as u64 > CONTEXT {
            let limit = CONTEXT >> 20;
            return Err(std::io::Error::other(format!("the build's directory holds more than {limit} MiB")));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A name that follows all that goes into the build.
fn name(build: &ImageBuild, archive: &[u8]) -> String {
    let mut digest = Sha256::new();
    for part in [&build.dockerfile, build.target.as_deref().unwrap_or_default()] {
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part);
    }
    for (name, value) in &build.args {
        digest.update((name.len() as u64).to_le_bytes());
        digest.update(name);
        digest.update((value.len() as u64).to_le_bytes());
        digest.update(value);
    }
    digest.update(archive);
    let digest = digest.finalize();
    digest.iter().take(16).fold(String::from("mooring-build:"), |name, byte| format!("{name}{byte:02x}"))
}
