//! `moor manifest`.

mod convert;

use std::process::ExitCode;

use mooring_manifest::Manifest;
use mooring_sandbox::{Lock, Plan, apply_to_dir};

use crate::agent_file::read_manifest;
use crate::args::{ManifestApplyArgs, ManifestCheckArgs, ManifestCommand, ManifestLockArgs};
use crate::command_error::CommandError;
use crate::home::absolute;
use crate::lock::{credentials, directory, lock_file, plan, read_locked};

pub(crate) async fn manifest(command: ManifestCommand) -> Result<ExitCode, CommandError> {
    match command {
        ManifestCommand::Check(args) => check(&args),
        ManifestCommand::Apply(args) => apply(&args).await,
        ManifestCommand::Lock(args) => lock(&args).await,
        ManifestCommand::Import(args) => convert::import(&args),
        ManifestCommand::Export(args) => convert::export(&args),
        ManifestCommand::Schema => schema(),
    }
}

fn check(args: &ManifestCheckArgs) -> Result<ExitCode, CommandError> {
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

async fn apply(args: &ManifestApplyArgs) -> Result<ExitCode, CommandError> {
    let (manifest, base) = read_locked(&args.file)?;
    let credentials = credentials(&manifest)?;
    let plan = Plan::with_credentials(&manifest, &base, &directory(), "directory", &credentials)?;
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

async fn lock(args: &ManifestLockArgs) -> Result<ExitCode, CommandError> {
    let (manifest, base) = read_manifest(&args.file)?;
    let lock = Lock::of(&manifest, &plan(&manifest, &base)?).await?;
    let file = lock_file(&args.file);
    fs_err::write(&file, lock.to_json()?).map_err(|error| CommandError::failed(error.to_string()))?;
    for (path, locked) in &lock.entries {
        let what = locked.commit.as_ref().unwrap_or(&locked.digest);
        crate::view::line(&format!("{path}: {what}"))?;
    }
    crate::view::line(&format!("{}: {} entries", file.display(), lock.entries.len()))?;
    Ok(ExitCode::SUCCESS)
}

fn schema() -> Result<ExitCode, CommandError> {
    crate::view::line(&format!("{:#}", Manifest::schema()))?;
    Ok(ExitCode::SUCCESS)
}
