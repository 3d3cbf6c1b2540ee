//! `moor sandbox ports`: what listens in a sandbox, at this machine's loopback address.

use std::process::ExitCode;
use std::sync::Arc;

use mooring_sandbox::SandboxSession;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::record::Found;
use crate::args::sandbox::PortsArgs;
use crate::command_error::CommandError;
use crate::home::Home;

/// Connections at one time.
const MOST: usize = 256;

pub(crate) async fn ports(args: &PortsArgs) -> Result<ExitCode, CommandError> {
    let home = Home::find()?;
    let pairs = args.ports.iter().map(|port| pair(port)).collect::<Result<Vec<_>, _>>()?;
    let found = Found::find(&home, &args.sandbox).await?;
    let session = found.start(&home).await?;
    if session.ports().is_none() {
        return Err(CommandError::input(format!("the {} sandbox has no way in", found.record.state.backend)));
    }
    let mut serving = JoinSet::new();
    for (here, inside) in pairs {
        let listener = listen(here, inside).await?;
        crate::view::line(&format!("127.0.0.1:{} -> {inside}", listener.local_addr()?.port()))?;
        serving.spawn(serve(listener, inside, Arc::clone(&session)));
    }
    tokio::select! {
        _ = tokio::signal::ctrl_c() => Ok(ExitCode::SUCCESS),
        Some(ended) = serving.join_next() => {
            let error = ended.map_err(|error| CommandError::failed(error.to_string()))?;
            Err(CommandError::failed(format!("cannot take connections any more: {error}")))
        }
    }
}

async fn listen(here: Option<u16>, inside: u16) -> Result<TcpListener, CommandError> {
    let bind = |port: u16| TcpListener::bind(("127.0.0.1", port));
    match here {
        Some(port) => bind(port)
            .await
            .map_err(|error| CommandError::input(format!("cannot listen at port {port}: {error}"))),
        None => match bind(inside).await {
            Ok(listener) => Ok(listener),
            // Taken, or below 1024.
            Err(_) => Ok(bind(0).await?),
        },
    }
}

async fn serve(listener: TcpListener, inside: u16, session: Arc<dyn SandboxSession>) -> std::io::Error {
    let mut connections = JoinSet::new();
    loop {
        if connections.len() >= MOST {
            connections.join_next().await;
        }
        match listener.accept().await {
            Ok((stream, _)) => drop(connections.spawn(connect(stream, inside, Arc::clone(&session)))),
            Err(error) => return error,
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn connect(mut here: TcpStream, inside: u16, session: Arc<dyn SandboxSession>) {
    let Some(ports) = session.ports() else { return };
    match ports.connect(inside).await {
        // Either side may end it in any way.
        Ok(mut there) => drop(tokio::io::copy_bidirectional(&mut here, &mut there).await),
        Err(error) => crate::view::note(&error.to_string()),
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
