//! `moor export-state`, `moor import-state`.

use std::path::Path;
use std::process::ExitCode;

use mooring_journal::{Journal, RunId};
use mooring_transfer::{Bundle, Export, Importer};

use crate::args::{ExportArgs, ImportArgs};
use crate::command::resume::started;
use crate::command_error::CommandError;
use crate::home::{Config, Home, absolute};
use crate::host::{Wiring, now_ms, version};
use crate::team::Team;

pub(crate) async fn export(args: &ExportArgs) -> Result<ExitCode, CommandError> {
    let home = Home::find()?;
    let journal = home.journal()?;
    let run = RunId(args.run.clone());
    let team = Team::again(&started(&journal, &run).await?)?;
    let config = Config::default();
    let agents = team.hosts(&Wiring::idle(&home, &config))?;
    let path = absolute(args.output.as_deref().unwrap_or(Path::new(&format!("{run}.tar"))))?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    if path.symlink_metadata().is_ok() {
        return Err(CommandError::input(format!(
            "{} is there already: name another file with -o",
            path.display()
        )));
    }
    // It gets its name once it is whole. For its owner alone, as the journal is.
    let file = tempfile::NamedTempFile::new_in(folder)
        .map_err(|error| CommandError::input(format!("cannot write to {}: {error}", folder.display())))?;
    let how = Export {
        runtime: version(),
        now_ms: now_ms(),
        owner: "moor export-state".into(),
        workspaces: !args.without_workspace,
        spool: home.state.clone(),
    };
    let out = file.reopen()?;
    let exported = mooring_transfer::export(&journal, &agents, &run, &how, out).await?;
    file.as_file().sync_all()?;
    file.persist_noclobber(&path)
        .map_err(|error| CommandError::failed(format!("cannot write {}: {}", path.display(), error.error)))?;
    crate::view::line(&format!(
        "{}: {} run(s), {} events, {} workspace(s)",
        path.display(),
        exported.runs,
        exported.events,
        exported.workspaces
    ))?;
    crate::view::note("go on with it in one place only: here, or where you import it");
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn import(args: &ImportArgs) -> Result<ExitCode, CommandError> {
    let home = Home::find()?;
    let path = &args.file;
    let file = fs_err::File::open(path).map_err(|error| CommandError::input(error.to_string()))?;
    let journal = home.journal()?;
    let spool = home.state.clone();
    let reading = tokio::task::spawn_blocking(move || Bundle::read(std::io::BufReader::new(file), &spool));
    let bundle = reading.await.map_err(|error| CommandError::failed(error.to_string()))?;
    let bundle = bundle.map_err(|error| CommandError::from(error).at(&path.display().to_string()))?;
    let team = Team::again(bundle.started()?)?;
    let config = Config::default();
    let agents = team.hosts(&Wiring::idle(&home, &config))?;
    let new_session = || uuid::Uuid::now_v7().to_string();
    let importer = Importer {
        journal: &journal,
        agents: &agents,
        new_session: &new_session,
        now_ms: now_ms(),
        owner: "moor import-state",
    };
    let imported = bundle.import(&importer).await?;
    let run = imported.run;
    if imported.runs == 0 {
        crate::view::line(&format!("run {run} is here already, with all of its events"))?;
        return Ok(ExitCode::SUCCESS);
    }
    crate::view::line(&format!("{} run(s), {} workspace(s) restored", imported.runs, imported.workspaces))?;
    if imported.anew > 0 {
        crate::view::note(&format!(
            "{} workspace(s) did not come along and are made anew from the manifest; the model is told",
            imported.anew
        ));
    }
    let row = journal.runs(Some(&run)).await?.into_iter().next();
    let completed = row.is_some_and(|row| row.summary["status"] == "completed");
    let next = if completed { format!("moor show {run}") } else { format!("moor resume {run}") };
    crate::view::line(&format!("go on with: {next}"))?;
    Ok(ExitCode::SUCCESS)
}
