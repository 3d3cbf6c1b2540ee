//! How an event becomes text and how records hang together: each checksum covers the one before it, so that a record
//! that was altered, removed, swapped or put in shows.
//!
//! The checksum finds damage, not forgery: there is no key, and who may write the file may write a new chain.

use crate::{Event, JournalError, RunId};

/// BLAKE3 over the checksum before and the record.
pub(crate) type Checksum = [u8; 32];

/// What stands before a run's first event.
pub(crate) const ROOT: Checksum = [0; 32];

/// JSON readers stop at 128 levels. What could not be read back is not written.
const MAX_DEPTH: usize = 120;

/// Longest run id, in bytes: it names a lock file.
const MAX_RUN_ID: usize = 128;

/// A record's place: everything in it but the event.
pub(crate) struct Place<'a> {
    pub(crate) run: &'a RunId,
    pub(crate) seq: u64,
    pub(crate) epoch: u64,
    pub(crate) at_ms: i64,
    pub(crate) v: u32,
}

/// The checksum of a record, given the one of the record before.
pub(crate) fn link(before: &Checksum, place: &Place<'_>, body: &str) -> Checksum {
    let mut hasher = blake3::Hasher::new();
    hasher.update(before);
    // Lengths first: no two records give the same bytes.
    hasher.update(&(place.run.0.len() as u64).to_le_bytes());
    hasher.update(place.run.0.as_bytes());
    hasher.update(&place.seq.to_le_bytes());
    hasher.update(&place.epoch.to_le_bytes());
    hasher.update(&place.at_ms.to_le_bytes());
    hasher.update(&place.v.to_le_bytes());
    hasher.update(&(body.len() as u64).to_le_bytes());
    hasher.update(body.as_bytes());
    *hasher.finalize().as_bytes()
}

/// The event as JSON, refused where it would not be the same event when read back.
pub(crate) fn encode(event: &Event, store: &str) -> Result<String, JournalError> {
    let refuse = |why: String| JournalError::Store { store: store.to_owned(), reason: why };
    if let Event::Reward(reward) = event
        && !reward.value.is_finite()
    {
        return Err(refuse(format!(
            "a reward of {} has no JSON form and was not recorded; give a finite number",
            reward.value
        )));
    }
    let body = serde_json::to_string(event)
        .map_err(|error| refuse(format!("an event has no JSON form and was not recorded: {error}")))?;
    // Few brackets cannot nest deep, and counting them is much faster than pairing them.
    let opening = |byte: &u8| matches!(byte, b'[' | b'{');
    if body.as_bytes().iter().filter(|byte| opening(byte)).count() > MAX_DEPTH && depth(&body) > MAX_DEPTH {
        return Err(refuse(format!(
            "an event nests deeper than {MAX_DEPTH} levels and was not recorded: it could not be read back"
        )));
    }
    Ok(body)
}

/// Refuses ids that cannot name a lock file.
pub(crate) fn check_run_id(run: &RunId, store: &str) -> Result<(), JournalError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !run.0.is_empty() && run.0.len() <= MAX_RUN_ID && run.0.chars().all(plain) {
        return Ok(());
    }
    Err(JournalError::Store {
        store: store.to_owned(),
        reason: format!(
            "{:?} cannot be a run's id: use 1 to {MAX_RUN_ID} ASCII letters, digits, `-` and `_`",
            run.0
        ),
    })
}

/// How deep a JSON text nests.
fn depth(json: &str) -> usize {
    let (mut now, mut most, mut in_string, mut escaped) = (0usize, 0usize, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                now += 1;
                most = most.max(now);
            }
            b']' | b'}' if !in_string => now = now.saturating_sub(1),
            _ => {}
        }
    }
    most
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_counts_brackets_outside_strings() {
        assert_eq!(depth("1"), 0);
        assert_eq!(depth(r#"{"a":[1,{"b":2}],"c":[]}"#), 3);
        assert_eq!(depth(r#"{"[[[\"[[":"\\","x":"{{"}"#), 1);
    }

    #[test]
    fn every_part_of_a_record_is_in_its_checksum() {
        let run = RunId("a".to_owned());
        let other = RunId("b".to_owned());
        let place = |run, seq, epoch, at_ms, v| Place { run, seq, epoch, at_ms, v };
        let sums = [
            link(&ROOT, &place(&run, 1, 1, 1, 1), "{}"),
            link(&[1; 32], &place(&run, 1, 1, 1, 1), "{}"),
            link(&ROOT, &place(&other, 1, 1, 1, 1), "{}"),
            link(&ROOT, &place(&run, 2, 1, 1, 1), "{}"),
            link(&ROOT, &place(&run, 1, 2, 1, 1), "{}"),
            link(&ROOT, &place(&run, 1, 1, 2, 1), "{}"),
            link(&ROOT, &place(&run, 1, 1, 1, 2), "{}"),
            link(&ROOT, &place(&run, 1, 1, 1, 1), "{ }"),
        ];
        let distinct: std::collections::BTreeSet<_> = sums.iter().collect();
        assert_eq!(distinct.len(), sums.len());
    }
}
