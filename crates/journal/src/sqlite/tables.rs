//! What is done in the tables: one function for each operation, within a transaction that the caller holds.

use rusqlite::{Connection, OptionalExtension, Row, Transaction, named_params};

use super::trouble::{Home, Trouble};
use crate::chain::{self, Checksum, Place, ROOT};
use crate::store::MAX_SIGNALS;
use crate::{Event, JournalError, Record, RunId, RunRow, SCHEMA_VERSION};

/// Bits of an event's place that hold its sequence number; the rest hold its run's key.
const SEQ_BITS: u32 = 32;

/// An append with its events encoded.
#[derive(Debug)]
pub(crate) struct Encoded {
    pub(crate) run: RunId,
    pub(crate) epoch: u64,
    pub(crate) after: u64,
    /// Times and bodies.
    pub(crate) events: Vec<(i64, String)>,
    pub(crate) summary: Option<String>,
}

/// What `runs` holds of a run, for work on its events.
struct Head {
    key: i64,
    epoch: u64,
    last_seq: u64,
    checksum: Checksum,
}

pub(crate) fn exists(conn: &Connection, run: &RunId) -> Result<bool, Trouble> {
    Ok(conn.prepare_cached("SELECT 1 FROM runs WHERE id = ?1")?.exists([&run.0])?)
}

/// Makes an empty run of epoch 1.
pub(crate) fn create(conn: &Connection, home: &Home, run: &RunId, at_ms: i64) -> Result<(), Trouble> {
    if exists(conn, run)? {
        return Err(Trouble::Refused(home.exists(run)));
    }
    conn.prepare_cached(
        "INSERT INTO runs (id, created_ms, updated_ms, epoch, last_seq, head, summary)
         VALUES (?1, ?2, ?2, 1, 0, ?3, 'null')",
    )?
    .execute((&run.0, at_ms, ROOT))?;
    Ok(())
}

/// Begins a new epoch of a run; gives it, and the run's last sequence number.
pub(crate) fn raise_epoch(conn: &Connection, home: &Home, run: &RunId) -> Result<(u64, u64), Trouble> {
    conn.prepare_cached("UPDATE runs SET epoch = epoch + 1 WHERE id = ?1 RETURNING epoch, last_seq")?
        .query_row([&run.0], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?
        .ok_or_else(|| Trouble::Refused(home.unknown(run)))
}

/// Checks before it writes: what it refuses has written nothing.
pub(crate) fn append(conn: &Connection, home: &Home, append: &Encoded) -> Result<u64, Trouble> {
    let Encoded { run, epoch, after, events, summary } = append;
    let head = head(conn, home, run)?;
    if head.epoch != *epoch {
        let fenced = JournalError::Fenced { run: run.clone(), epoch: *epoch, current: head.epoch };
        return Err(Trouble::Refused(fenced));
    }
    if head.last_seq != *after {
        let conflict = JournalError::Conflict { run: run.clone(), expected: *after, actual: head.last_seq };
        return Err(Trouble::Refused(conflict));
    }
    let (mut seq, mut checksum) = (*after, head.checksum);
    let mut insert = conn.prepare_cached(
        "INSERT INTO events (place, epoch, at_ms, v, body, checksum) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    for (at_ms, body) in events {
        seq += 1;
        let place = Place { run, seq, epoch: *epoch, at_ms: *at_ms, v: SCHEMA_VERSION };
        checksum = chain::link(&checksum, &place, body);
        insert.execute((place_of(head.key, seq), epoch, at_ms, SCHEMA_VERSION, body, checksum))?;
    }
    // Without events too: a commit that writes nothing would not be synced.
    conn.prepare_cached(
        "UPDATE runs SET updated_ms = coalesce(:updated_ms, updated_ms), last_seq = :last_seq, head = :head,
                summary = coalesce(:summary, summary)
         WHERE key = :key",
    )?
    .execute(named_params! {
        ":updated_ms": events.last().map(|(at_ms, _)| at_ms),
        ":last_seq": seq,
        ":head": checksum,
        ":summary": summary,
        ":key": head.key,
    })?;
    Ok(seq)
}

/// Reads and checks events. Takes a transaction: run and events must be of one moment.
pub(crate) fn read(
    tx: &Transaction<'_>,
    home: &Home,
    run: &RunId,
    after: u64,
    limit: usize,
) -> Result<Vec<Record>, Trouble> {
    let head = head(tx, home, run)?;
    if after >= head.last_seq && after > 0 {
        return Ok(Vec::new());
    }
    let mut before = if after == 0 { ROOT } else { stored_checksum(tx, home, run, head.key, after)? };
    let mut statement = tx.prepare_cached(
        "SELECT place, epoch, at_ms, v, body, checksum FROM events WHERE place > ?1 AND place < ?2
         ORDER BY place LIMIT ?3",
    )?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut rows = statement.query((place_of(head.key, after), place_of(head.key + 1, 0), limit))?;
    let mut records: Vec<Record> = Vec::new();
    let mut next = after + 1;
    loop {
        let damaged = |reason: String| Trouble::Refused(home.damaged(run, next, reason));
        let row = match rows.next() {
            Ok(Some(row)) => row,
            Ok(None) => break,
            Err(error) if is_damage(&error) => return Err(damaged(error.to_string())),
            Err(error) => return Err(error.into()),
        };
        let (record, body, checksum) =
            raw(row, run, head.key).map_err(|error| damaged(format!("it cannot be read: {error}")))?;
        let event = check(&before, &head, next, &record, &body, &checksum).map_err(damaged)?;
        records.push(Record { event, ..record });
        before = checksum;
        next += 1;
    }
    let missing = next <= head.last_seq && (records.len() as u64) < limit as u64;
    if missing {
        return Err(Trouble::Refused(home.damaged(run, next, "it is missing")));
    }
    if next == head.last_seq + 1 && before != head.checksum {
        return Err(Trouble::Refused(home.damaged(
            run,
            head.last_seq,
            "it is not the event that was last appended",
        )));
    }
    Ok(records)
}

/// One run, or all; the newest first. `driven` is not the database's to know.
pub(crate) fn list(conn: &Connection, home: &Home, run: Option<&RunId>) -> Result<Vec<RunRow>, Trouble> {
    let mut statement = conn.prepare_cached(
        "SELECT id, created_ms, updated_ms, last_seq, epoch, summary FROM runs
         WHERE ?1 IS NULL OR id = ?1 ORDER BY created_ms DESC, key DESC",
    )?;
    let mut rows = statement.query([run.map(|run| &run.0)])?;
    let mut list = Vec::new();
    while let Some(row) = rows.next()? {
        let id = RunId(row.get(0)?);
        let summary = row.get_ref(5)?.as_str().ok().and_then(|text| serde_json::from_str(text).ok());
        let Some(summary) = summary else {
            return Err(Trouble::Refused(home.failed(format!(
                "what it says of run {id} in listings is damaged; the run's events are apart from it: `moor events {id}` shows them"
            ))));
        };
        list.push(RunRow {
            id,
            created_ms: row.get(1)?,
            updated_ms: row.get(2)?,
            last_seq: row.get(3)?,
            epoch: row.get(4)?,
            driven: false,
            summary,
        });
    }
    match run {
        Some(run) if list.is_empty() => Err(Trouble::Refused(home.unknown(run))),
        _ => Ok(list),
    }
}

pub(crate) fn add_signal(conn: &Connection, home: &Home, run: &RunId, word: &str) -> Result<(), Trouble> {
    let key = head(conn, home, run)?.key;
    let waiting: usize = conn
        .prepare_cached("SELECT count(*) FROM signals WHERE run = ?1")?
        .query_row([key], |row| row.get(0))?;
    if waiting >= MAX_SIGNALS {
        return Err(Trouble::Refused(crate::store::too_many_signals(run, &home.name)));
    }
    conn.prepare_cached("INSERT INTO signals (run, word) VALUES (?1, ?2)")?.execute((key, word))?;
    Ok(())
}

pub(crate) fn has_signals(conn: &Connection, home: &Home, run: &RunId) -> Result<bool, Trouble> {
    let key = head(conn, home, run)?.key;
    let mut found = conn.prepare_cached("SELECT EXISTS (SELECT 1 FROM signals WHERE run = ?1)")?;
    Ok(found.query_row([key], |row| row.get(0))?)
}

pub(crate) fn take_signals(conn: &Connection, home: &Home, run: &RunId) -> Result<Vec<String>, Trouble> {
    let key = head(conn, home, run)?.key;
    let words: Vec<String> = conn
        .prepare_cached("SELECT word FROM signals WHERE run = ?1 ORDER BY id")?
        .query_map([key], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    if !words.is_empty() {
        conn.prepare_cached("DELETE FROM signals WHERE run = ?1")?.execute([key])?;
    }
    Ok(words)
}

fn head(conn: &Connection, home: &Home, run: &RunId) -> Result<Head, Trouble> {
    conn.prepare_cached("SELECT key, epoch, last_seq, head FROM runs WHERE id = ?1")?
        .query_row([&run.0], |row| {
            Ok(Head { key: row.get(0)?, epoch: row.get(1)?, last_seq: row.get(2)?, checksum: row.get(3)? })
        })
        .optional()?
        .ok_or_else(|| Trouble::Refused(home.unknown(run)))
}

fn stored_checksum(
    conn: &Connection,
    home: &Home,
    run: &RunId,
    key: i64,
    seq: u64,
) -> Result<Checksum, Trouble> {
    let stored = conn
        .prepare_cached("SELECT checksum FROM events WHERE place = ?1")?
        .query_row([place_of(key, seq)], |row| row.get(0))
        .optional();
    match stored {
        Ok(Some(checksum)) => Ok(checksum),
        Ok(None) => Err(Trouble::Refused(home.damaged(run, seq, "it is missing"))),
        Err(error) if is_damage(&error) => Err(Trouble::Refused(home.damaged(run, seq, error.to_string()))),
        Err(error) => Err(error.into()),
    }
}

/// A row as it stands, its event not yet looked at.
fn raw(row: &Row<'_>, run: &RunId, key: i64) -> Result<(Record, String, Checksum), rusqlite::Error> {
    let place: i64 = row.get(0)?;
    let record = Record {
        run: run.clone(),
        seq: (place - place_of(key, 0)) as u64,
        epoch: row.get(1)?,
        at_ms: row.get(2)?,
        v: row.get(3)?,
        event: Event::Unknown(serde_json::Map::new()),
    };
    Ok((record, row.get(4)?, row.get(5)?))
}

/// The event, if the record is the one that was written here.
fn check(
    before: &Checksum,
    head: &Head,
    expected: u64,
    record: &Record,
    body: &str,
    checksum: &Checksum,
) -> Result<Event, String> {
    if record.seq != expected {
        return Err(format!("it is missing; the next is {}", record.seq));
    }
    if record.seq > head.last_seq {
        return Err(format!("the run is said to end at {}", head.last_seq));
    }
    let place =
        Place { run: &record.run, seq: record.seq, epoch: record.epoch, at_ms: record.at_ms, v: record.v };
    if chain::link(before, &place, body) != *checksum {
        return Err("its checksum does not match".to_owned());
    }
    serde_json::from_str(body).map_err(|error| format!("it is no event: {error}"))
}

fn place_of(key: i64, seq: u64) -> i64 {
    (key << SEQ_BITS) + seq as i64
}

/// Whether the file's content is at fault, not the system.
fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    matches!(error.sqlite_error_code(), None | Some(DatabaseCorrupt | NotADatabase))
}
