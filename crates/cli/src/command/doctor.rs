//! `moor doctor`.

use std::process::ExitCode;
use std::time::Duration;

use mooring_manifest::Manifest;
use mooring_model::PROVIDERS;
use mooring_sandbox::{CreateRequest, ExecRequest, Outcome, SandboxClient as _, SandboxError};
use mooring_sandbox_local::{LocalOptions, LocalSandboxClient};

use crate::command_error::CommandError;
use crate::home::{Home, variable};

/// One finding.
struct Finding {
    good: Option<bool>,
    what: String,
    detail: String,
    hint: String,
}

pub(crate) async fn doctor() -> Result<ExitCode, CommandError> {
    let home = Home::find()?;
    let config = home.config()?;
    crate::view::line("sandbox (local)")?;
    // What counts is whether a sandbox really starts; the single mechanisms tell why not, or what could be better.
    let tried = try_sandbox(&home).await;
    let mut missing = tried.is_err();
    say(&match tried {
        Ok(level) => Finding {
            good: Some(true),
            what: "a sandbox".into(),
            detail: format!("started, ran a command, isolation: {level}"),
            hint: String::new(),
        },
        Err(error) => Finding {
            good: Some(false),
            what: "a sandbox".into(),
            detail: error.to_string(),
            hint: String::new(),
        },
    })?;
    for check in mooring_sandbox_local::probe(&LocalOptions::new(&home.state)).await? {
        let good = if check.ok { Some(true) } else { None };
        say(&Finding { good, what: check.name, detail: check.detail, hint: check.hint })?;
    }
    crate::view::line("sandbox (docker)")?;
    let engine = match crate::host::docker(&home) {
        Ok(docker) => docker.version().await.map_err(|error| error.to_string()),
        Err(error) => Err(error.message().to_owned()),
    };
    // One of two sandboxes: nothing is missing without it.
    say(&Finding {
        good: engine.is_ok().then_some(true),
        what: "engine".into(),
        detail: engine.unwrap_or_else(|reason| reason),
        hint: String::new(),
    })?;
    crate::view::line("models")?;
    for provider in PROVIDERS {
        let configured = config.providers.get(provider.name);
        let from_environment = provider.key_variable.filter(|name| variable(name).is_some());
        let key = match (from_environment, configured.is_some_and(|provider| provider.api_key.is_some())) {
            (Some(name), _) => Some(format!("key from {name}")),
            (None, true) => Some(format!("key from {}", home.config_file.display())),
            (None, false) => None,
        };
        let hint = match provider.key_variable {
            Some(name) if key.is_none() && !provider.key_optional => format!("set {name} to use it"),
            _ => String::new(),
        };
        let detail = key.unwrap_or_else(|| match provider.key_variable {
            Some(_) if provider.key_optional => {
                "no key; none is needed where the server asks for none".into()
            }
            Some(_) => "no key".into(),
            None => "needs no key".into(),
        });
        let good = if hint.is_empty() { Some(true) } else { None };
        say(&Finding {
            good,
            what: provider.form.into(),
            detail: format!("{} · {detail}", provider.about),
            hint,
        })?;
    }
    crate::view::line("state")?;
    let journal = home.journal();
    missing |= journal.is_err();
    say(&match journal {
        Ok(_) => Finding {
            good: Some(true),
            what: "journal".into(),
            detail: home.journal_file().display().to_string(),
            hint: String::new(),
        },
        Err(error) => Finding {
            good: Some(false),
            what: "journal".into(),
            detail: error.message().to_owned(),
            hint: String::new(),
        },
    })?;
    let git = std::process::Command::new("git").arg("--version").output();
    let git = git.ok().filter(|output| output.status.success());
    say(&Finding {
        good: git.as_ref().map(|_| true),
        what: "git".into(),
        detail: git
            .map_or("not found".into(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        hint: "install git to stage git_repo entries".into(),
    })?;
    Ok(if missing { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

/// Makes a sandbox, runs a command in it, and removes it again.
async fn try_sandbox(home: &Home) -> Result<String, SandboxError> {
    let client = LocalSandboxClient::new(LocalOptions::new(&home.state));
    let session_id = uuid::Uuid::now_v7().to_string();
    let request = CreateRequest { session_id, manifest: Manifest::default(), workspace: None };
    let session = client.create(request).await?;
    let tried = async {
        session.start().await?;
        let result = session.exec(ExecRequest::argv(["true"]).timeout(Duration::from_secs(10))).await?;
        if result.outcome != (Outcome::Exited { code: 0 }) {
            return Err(SandboxError::Start {
                command: "true".into(),
                reason: format!("it ended as {:?}: {}", result.outcome, result.stderr.text()),
            });
        }
        Ok(session.isolation().map(|isolation| isolation.level).unwrap_or_default())
    }
    .await;
    client.delete(&session.state()).await?;
    tried
}

fn say(finding: &Finding) -> Result<(), CommandError> {
    let mark = match finding.good {
        Some(true) => "ok     ",
        Some(false) => "MISSING",
        None => "-      ",
    };
    crate::view::line(&format!("  {mark}  {:<22} {}", finding.what, finding.detail))?;
    if finding.good != Some(true) && !finding.hint.is_empty() {
        crate::view::line(&format!("           {:<22} → {}", "", finding.hint))?;
    }
    Ok(())
}
