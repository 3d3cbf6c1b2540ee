//! The database: how a connection is set up, which tables there are, and how older ones become newer ones.

use std::os::unix::fs::OpenOptionsExt as _;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension, TransactionBehavior};

use super::trouble::{Home, Trouble};
use crate::JournalError;

/// How long one process waits for another's write. Writes take microseconds: longer means that one is stuck.
pub(crate) const BUSY: Duration = Duration::from_secs(10);

/// The write-ahead log shrinks back to this many bytes after one large append.
const WAL_KEEP: u32 = 16 << 20;

/// Statement `n` turns a database of version `n` into one of version `n + 1`; the first makes an empty file one of
/// version 1. None ever changes: `tests/histories/` holds a database of each version.
///
/// Events are found by one integer, `run << 32 | seq`: one tree, appended to at the end of each run, costs less than
/// a table and an index. The view `log` is for who looks with other tools.
const MIGRATIONS: &[&str] = &["
    CREATE TABLE meta (
        key TEXT PRIMARY KEY,
        value INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    INSERT INTO meta VALUES ('version', 0);
    CREATE TABLE runs (
        key INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        created_ms INTEGER NOT NULL,
        updated_ms INTEGER NOT NULL,
        epoch INTEGER NOT NULL,
        last_seq INTEGER NOT NULL,
        head BLOB NOT NULL,
        summary TEXT NOT NULL
    ) STRICT;
    CREATE TABLE events (
        place INTEGER PRIMARY KEY,
        epoch INTEGER NOT NULL,
        at_ms INTEGER NOT NULL,
        v INTEGER NOT NULL,
        body TEXT NOT NULL,
        checksum BLOB NOT NULL
    ) STRICT;
    CREATE VIEW log AS
        SELECT runs.id AS run, place & 4294967295 AS seq, events.epoch, at_ms, v, body ->> 'type' AS type, body
        FROM events JOIN runs ON runs.key = place >> 32;
    CREATE TABLE signals (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        run INTEGER NOT NULL,
        word TEXT NOT NULL
    ) STRICT;
    CREATE INDEX signals_of_run ON signals (run);
", "
    CREATE TABLE holdings (
        account TEXT NOT NULL,
        holder TEXT NOT NULL,
        open INTEGER NOT NULL,
        amounts TEXT NOT NULL,
        PRIMARY KEY (account, holder)
    ) STRICT, WITHOUT ROWID;
"];

/// Opens the database for writing, makes it if there is none, and brings it up to date.
pub(crate) fn open_writer(home: &Home) -> Result<Connection, JournalError> {
    check_place(home)?;
    make(home);
    let prepare = || -> Result<Connection, Trouble> {
        let mut conn = connect(home)?;
        if conn.is_readonly("main")? {
            // SQLite opens for reading what it may not write.
            return Err(Trouble::Refused(home.unwritable(None)));
        }
        // First of all: a database that is not ours is left as it is.
        version(&conn, home)?;
        let mode: String = conn.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
        if mode != "wal" {
            return Err(Trouble::Refused(home.failed(format!(
                "the file system there cannot keep a write-ahead log (SQLite chose {mode:?}); keep the journal on a local disk"
            ))));
        }
        // The writer has the log folded when no append waits for it.
        conn.execute_batch(&format!(
            "PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = 0; PRAGMA journal_size_limit = {WAL_KEEP}"
        ))?;
        migrate(&mut conn, home, MIGRATIONS)?;
        Ok(conn)
    };
    prepare().map_err(|trouble| home.explain(trouble))
}

/// Opens an existing database for reading.
pub(crate) fn open_reader(home: &Home) -> Result<Connection, Trouble> {
    let conn = connect(home)?;
    conn.execute_batch("PRAGMA query_only = ON")?;
    Ok(conn)
}

fn connect(home: &Home) -> Result<Connection, Trouble> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(&home.path, flags)?;
    conn.busy_timeout(BUSY)?;
    conn.set_prepared_statement_cache_capacity(32);
    // Damage in a tree's pages is to be found, not followed.
    conn.execute_batch(
        "PRAGMA cell_size_check = ON; PRAGMA trusted_schema = OFF; PRAGMA temp_store = MEMORY",
    )?;
    Ok(conn)
}

/// SQLite says "unable to open database file" to all of these.
/// Makes the file for its owner alone: it holds what agents read and wrote. What SQLite puts beside it has its rights. Where
/// this fails, opening it says why.
fn make(home: &Home) {
    let _ = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&home.path);
}

fn check_place(home: &Home) -> Result<(), JournalError> {
    if let Some(parent) = home.path.parent()
        && !parent.is_dir()
    {
        let parent = parent.display();
        return Err(
            home.failed(format!("there is no directory {parent}; make it, or keep the journal elsewhere"))
        );
    }
    if home.path.is_dir() {
        return Err(home.failed("a directory is in its place; move it away, or keep the journal elsewhere"));
    }
    Ok(())
}

fn migrate(conn: &mut Connection, home: &Home, migrations: &[&str]) -> Result<(), Trouble> {
    if version(conn, home)? == migrations.len() {
        return Ok(());
    }
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Asked again: another process may have done it meanwhile.
    let from = version(&tx, home)?;
    if from > migrations.len() {
        return Err(Trouble::Refused(home.failed(format!(
            "it was written by a newer version (its format is {from}, this program knows up to {}); update this program",
            migrations.len()
        ))));
    }
    for step in &migrations[from..] {
        tx.execute_batch(step)?;
    }
    tx.execute("UPDATE meta SET value = ?1 WHERE key = 'version'", [migrations.len()])?;
    tx.commit()?;
    Ok(())
}

/// The format's version; 0 for an empty file.
fn version(conn: &Connection, home: &Home) -> Result<usize, Trouble> {
    let tables: Vec<String> = conn
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'table'")?
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let foreign = || {
        Trouble::Refused(home.failed(
            "the file is a database of another program; move it away to start anew, or keep the journal elsewhere",
        ))
    };
    if tables.is_empty() {
        return Ok(0);
    }
    if !["meta", "runs", "events"].iter().all(|name| tables.iter().any(|table| table == name)) {
        return Err(foreign());
    }
    conn.query_row("SELECT value FROM meta WHERE key = 'version'", [], |row| row.get(0))
        .optional()?
        .ok_or_else(foreign)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_database_becomes_a_newer_one_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(&dir.path().join("journal.db")).unwrap();
        let mut conn = open_writer(&home).unwrap();
        let columns = |conn: &Connection| -> Vec<String> {
            let mut columns = conn.prepare("SELECT name FROM pragma_table_info('signals')").unwrap();
            columns.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
        };
        let second = "ALTER TABLE signals ADD COLUMN at_ms INTEGER";
        let third = "ALTER TABLE signals RENAME COLUMN word TO text";
        let with = |more: &[&'static str]| [MIGRATIONS, more].concat();
        migrate(&mut conn, &home, &with(&[second, "no SQL"])).unwrap_err();
        assert_eq!(columns(&conn), ["id", "run", "word"]);
        migrate(&mut conn, &home, &with(&[second, third])).unwrap();
        assert_eq!(columns(&conn), ["id", "run", "text", "at_ms"]);
        let newer = MIGRATIONS.len() + 2;
        assert_eq!(version(&conn, &home).unwrap(), newer);
        let said = open_writer(&home).unwrap_err().to_string();
        assert!(said.contains(&format!("its format is {newer}")), "{said}");
    }
}
