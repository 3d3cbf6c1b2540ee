//! What went out and what was refused, kept until the session's host asks for it. What is alike is counted together, and
//! there is room for so many different things and no more: a sandbox that knocks at doors all day must not fill the
//! journal.

use std::sync::{Mutex, PoisonError};

use mooring_sandbox::Access;

use crate::record::{Record, Verdict};

/// Most different things between two times that it is asked.
const ROOM: usize = 1000;

#[derive(Debug, Default)]
pub(crate) struct AccessLog {
    accesses: Mutex<Vec<Access>>,
}

impl AccessLog {
    pub(crate) fn add(&self, record: Record) {
        let mut access = access(record);
        let mut accesses = self.accesses.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = accesses.iter_mut().find(|known| alike(known, &access)) {
            return join(known, &access);
        }
        if accesses.len() >= ROOM {
            access = Access {
                protocol: "unknown".into(),
                host: String::new(),
                port: 0,
                method: None,
                path: None,
                code: None,
                reason: Some(format!("more than {ROOM} different ones at once; these are not listed")),
                secrets: Vec::new(),
                ..access
            };
            if let Some(known) = accesses.iter_mut().find(|known| alike(known, &access)) {
                return join(known, &access);
            }
        }
        accesses.push(access);
    }

    pub(crate) fn take(&self) -> Vec<Access> {
        std::mem::take(&mut *self.accesses.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn access(record: Record) -> Access {
    let (decision, code, reason) = match record.verdict {
        Verdict::Allowed => ("allow", None, None),
        Verdict::Failed(why) => ("fail", None, Some(why)),
        Verdict::Denied(refusal) => ("deny", Some(refusal.code().to_owned()), Some(refusal.to_string())),
    };
    Access {
        protocol: record.protocol.as_str().into(),
        host: record.host,
        port: record.port,
        method: record.method,
        path: record.path,
        decision: decision.into(),
        code,
        reason,
        secrets: record.secrets,
        count: 1,
        bytes_up: record.bytes_up,
        bytes_down: record.bytes_down,
        duration_ms: u64::try_from(record.duration.as_millis()).unwrap_or(u64::MAX),
    }
}

/// Whether two differ in their numbers alone.
fn alike(one: &Access, other: &Access) -> bool {
    let numbers = Access { count: 0, bytes_up: 0, bytes_down: 0, duration_ms: 0, ..one.clone() };
    numbers == Access { count: 0, bytes_up: 0, bytes_down: 0, duration_ms: 0, ..other.clone() }
}

fn join(known: &mut Access, more: &Access) {
    known.count = known.count.saturating_add(more.count);
    known.bytes_up = known.bytes_up.saturating_add(more.bytes_up);
    known.bytes_down = known.bytes_down.saturating_add(more.bytes_down);
    known.duration_ms = known.duration_ms.saturating_add(more.duration_ms);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Protocol;

    fn record(host: &str) -> Record {
        Record {
            protocol: Protocol::Connect,
            host: host.into(),
            port: 443,
            method: None,
            path: None,
            verdict: Verdict::Allowed,
            secrets: Vec::new(),
            bytes_up: 1,
            bytes_down: 2,
            duration: std::time::Duration::from_millis(3),
        }
    }

    #[test]
    fn what_is_alike_is_counted_together_and_there_is_an_end_of_room() {
        let log = AccessLog::default();
        for number in 0..ROOM + 5 {
            log.add(record(&format!("{number}.test")));
            log.add(record("0.test"));
        }
        let accesses = log.take();
        assert_eq!(accesses.len(), ROOM + 1);
        let first = &accesses[0];
        assert_eq!((first.count, first.bytes_up, first.bytes_down), (1006, 1006, 2012));
        assert_eq!((accesses[ROOM].host.as_str(), accesses[ROOM].count), ("", 5));
        assert_eq!(log.take(), []);
    }
}
