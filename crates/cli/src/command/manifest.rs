//! `moor manifest`.

use std::process::ExitCode;

use mooring_manifest::Manifest;
use mooring_sandbox::{NetworkSupport, Plan, ResourceSupport, Support, apply_to_dir};

use crate::agent_file::read_manifest;
use crate::args::{ManifestApplyArgs, ManifestCheckArgs};
use crate::command_error::CommandError;
use crate::home::absolute;

pub(crate) fn check(args: &ManifestCheckArgs) -> Result<ExitCode, CommandError> {
    let mut bad = 0;
    for file in &args.files {
        match read_manifest(file) {
            Ok((manifest, _)) => {
                crate::view::line(&format!("{}: valid · {}", file.display(), manifest.digest()))?;
            }
            Err(error) => {
                bad += 1;
                crate::view::complain(error.message());
            }
        }
    }
    match bad {
        0 => Ok(ExitCode::SUCCESS),
        _ => Ok(ExitCode::from(2)),
    }
}

pub(crate) async fn apply(args: &ManifestApplyArgs) -> Result<ExitCode, CommandError> {
    let (manifest, base) = read_manifest(&args.file)?;
    // A plain directory has neither users nor mounts. Nothing runs in it, so that nothing can exceed a limit.
    let support = Support {
        resources: ResourceSupport::ALL,
        network: NetworkSupport::ALL,
        secrets: true,
        ports: true,
        image: true,
        ..Support::default()
    };
    let plan = Plan::new(&manifest, &base, &support, "directory")?;
    let root = absolute(&args.root)?;
    let staged = apply_to_dir(&plan, &root).await?;
    crate::view::line(&format!(
        "{} files, {} bytes in {} · {}",
        staged.files,
        staged.bytes,
        root.display(),
        staged.digest
    ))?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn schema() -> Result<ExitCode, CommandError> {
    let schema = serde_json::to_string_pretty(&Manifest::schema())
        .map_err(|error| CommandError::failed(error.to_string()))?;
    crate::view::line(&schema)?;
    Ok(ExitCode::SUCCESS)
}
