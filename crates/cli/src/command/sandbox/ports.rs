//! `moor sandbox ports`: what listens in a sandbox, at this machine's loopback address.

use std::process::ExitCode;

use mooring_sandbox::ExposedPort;
use tokio::task::JoinSet;

use super::network;
use super::record::{self, Found};
use crate::args::sandbox::PortsArgs;
use crate::command_error::CommandError;
use crate::home::Home;

pub(crate) async fn ports(args: &PortsArgs) -> Result<ExitCode, CommandError> {
    let home = Home::find()?;
    let mut pairs = args.ports.iter().map(|port| pair(port)).collect::<Result<Vec<_>, _>>()?;
    let found = Found::find(&home, &args.sandbox).await?;
    if pairs.is_empty() {
        let exposed = record::manifest(&found.record)?.extension.ports;
        pairs = exposed.into_iter().map(|port| (None, port)).collect();
    }
    if pairs.is_empty() {
        return Err(CommandError::input(
            "the sandbox's manifest exposes no port; write which, such as 8080, or 9000:8080",
        ));
    }
    let session = found.attach(&home).await?;
    let mut serving = JoinSet::new();
    for (here, inside) in pairs {
        let mut port = ExposedPort::open(&session, inside, here)
            .await
            .map_err(|error| CommandError::input(error.to_string()))?;
        crate::view::line(&format!("{} -> {inside}", port.address()))?;
        serving.spawn(async move { port.failed().await });
    }
    let ended = tokio::select! {
        _ = tokio::signal::ctrl_c() => None,
        ended = serving.join_next() => ended,
    };
    network::leave(session.as_ref()).await;
    match ended {
        None => Ok(ExitCode::SUCCESS),
        Some(ended) => {
            let error = ended.map_err(|error| CommandError::failed(error.to_string()))?;
            Err(CommandError::failed(format!("cannot take connections any more: {error}")))
        }
    }
}

fn pair(text: &str) -> Result<(Option<u16>, u16), CommandError> {
    let number = |part: &str| {
        let port = part.parse::<u16>().ok().filter(|port| *port > 0);
        port.ok_or_else(|| CommandError::input(format!("'{text}' is no port; write 8080, or 9000:8080")))
    };
    match text.split_once(':') {
        Some((here, inside)) => Ok((Some(number(here)?), number(inside)?)),
        None => Ok((None, number(text)?)),
    }
}
