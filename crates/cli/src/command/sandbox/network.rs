//! What went out of a sandbox while a command was attached to it. There is no journal here: whoever typed the command is
//! told on standard error, once it has ended, since what runs inside may have the terminal until then.

use mooring_sandbox::{Access, SandboxSession};

use crate::view::text::one_line;

/// Takes leave of a sandbox, and tells what it reached through this process and what it was refused.
pub(crate) async fn leave(session: &dyn SandboxSession) {
    session.leave().await;
    for line in lines(session.accesses()) {
        crate::view::note(&line);
    }
}

/// One line for each host and what became of it, in the order in which they came.
fn lines(accesses: Vec<Access>) -> Vec<String> {
    let mut told: Vec<(String, u64, String)> = Vec::new();
    for access in accesses {
        let (what, why) = (what(&access), why(&access));
        match told.iter_mut().find(|(known, _, because)| *known == what && *because == why) {
            Some((_, count, _)) => *count = count.saturating_add(access.count),
            None => told.push((what, access.count, why)),
        }
    }
    let line = |(what, count, why): (String, u64, String)| {
        let times = if count > 1 { format!(" {count} times") } else { String::new() };
        format!("network {what}{times}{why}")
    };
    told.into_iter().map(line).collect()
}

fn what(access: &Access) -> String {
    let word = match access.decision.as_str() {
        "allow" => "allowed",
        "deny" => "refused",
        _ => "failed",
    };
    match (access.host.as_str(), access.port) {
        ("", _) => format!("{word} others"),
        (host, 0) => format!("{word} {}", one_line(host, 100)),
        (host, port) => format!("{word} {}:{port}", one_line(host, 100)),
    }
}

fn why(access: &Access) -> String {
    match &access.reason {
        Some(reason) => format!(": {}", one_line(reason, 200)),
        None if access.secrets.is_empty() => String::new(),
        None => format!(", with {}", access.secrets.join(", ")),
    }
}
