//! Where a journal cannot be: each refusal names the file, the reason and the next step.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use mooring_journal::{Journal, JournalError, SqliteJournal};
use rusqlite::Connection;

use crate::support::{append, child, child_dir, read_all, run_with, succeed, unshare};

/// What opening `path` says.
fn refusal(path: &Path) -> String {
    let error = SqliteJournal::open(path).unwrap_err();
    assert!(matches!(error, JournalError::Store { .. }), "{error:?}");
    error.to_string()
}

/// The lines, with the directory, which has another name each time, cut out.
fn without(dir: &Path, lines: &[String]) -> String {
    lines.join("\n").replace(&dir.display().to_string(), "DIR")
}

#[test]
fn what_is_no_journal_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::create_dir(path("directory")).unwrap();
    fs::write(path("text"), "not a database, but long enough to have a header\n".repeat(100)).unwrap();
    fs::write(path("short"), "xy").unwrap();
    let foreign = Connection::open(path("foreign")).unwrap();
    foreign.execute_batch("CREATE TABLE bookmarks (url TEXT)").unwrap();
    drop(foreign);
    drop(SqliteJournal::open(&path("newer")).unwrap());
    Connection::open(path("newer")).unwrap().execute("UPDATE meta SET value = 7", []).unwrap();
    drop(SqliteJournal::open(&path("cut")).unwrap());
    fs::OpenOptions::new().write(true).open(path("cut")).unwrap().set_len(5000).unwrap();
    let names = ["directory", "text", "short", "foreign", "newer", "cut"];
    let before: Vec<_> = names.map(|name| fs::read(path(name)).ok()).into();
    let mut said: Vec<_> = names.map(|name| refusal(&path(name))).into();
    said.push(refusal(&path("nowhere/journal.db")));
    assert_eq!(names.map(|name| fs::read(path(name)).ok()), *before);
    insta::assert_snapshot!(without(dir.path(), &said));
}

#[test]
fn it_is_its_owners_alone() {
    let dir = tempfile::tempdir().unwrap();
    let _open = SqliteJournal::open(&dir.path().join("journal.db")).unwrap();
    for name in ["journal.db", "journal.db-wal", "journal.db-shm"] {
        let mode = fs::metadata(dir.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn an_empty_file_becomes_a_journal() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("journal.db"), "").unwrap();
    SqliteJournal::open(&dir.path().join("journal.db")).unwrap();
}

#[tokio::test]
async fn a_path_is_no_uri() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a?mode=memory&b#c%20d.db");
    let journal = SqliteJournal::open(&path).unwrap();
    let (run, claim) = run_with(&journal, "run", 1).await;
    drop((journal, claim));
    assert!(path.is_file());
    assert_eq!(read_all(&SqliteJournal::open(&path).unwrap(), &run).await.len(), 1);
}

#[tokio::test]
async fn a_journal_that_is_moved_away_takes_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.db");
    let journal = SqliteJournal::open(&path).unwrap();
    let (run, claim) = run_with(&journal, "run", 1).await;
    fs::rename(&path, dir.path().join("away.db")).unwrap();
    let error = journal.append(append(&run, claim.epoch, 1, 1)).await.unwrap_err();
    assert!(error.to_string().contains("moved or deleted while in use; put it back"), "{error}");
    fs::rename(dir.path().join("away.db"), &path).unwrap();
    assert_eq!(journal.append(append(&run, claim.epoch, 1, 1)).await.unwrap(), 2);
}

#[test]
fn without_permission() {
    let dir = tempfile::tempdir().unwrap();
    let mode = |name: &str, mode| {
        fs::set_permissions(dir.path().join(name), PermissionsExt::from_mode(mode)).unwrap();
    };
    for (folder, bits) in [("locked", 0o555), ("open", 0o777)] {
        fs::create_dir(dir.path().join(folder)).unwrap();
        drop(SqliteJournal::open(&dir.path().join(folder).join("journal.db")).unwrap());
        mode(&format!("{folder}/journal.db"), 0o444);
        mode(folder, bits);
    }
    // Root may do all: then nobody does it, by a way that does not lead through root's home.
    let uid = fs::metadata("/proc/self").map(|meta| std::os::unix::fs::MetadataExt::uid(&meta)).unwrap();
    let mut command = Command::new("/proc/self/exe");
    if uid == 0 {
        mode("", 0o755);
        command.uid(65534).gid(65534);
    }
    command.args(["--exact", "places::without_permission_child", "--ignored", "--nocapture"]);
    command.env("DIR", dir.path()).current_dir("/");
    let output = succeed(command);
    // So that it can be removed.
    mode("locked", 0o755);
    insta::assert_snapshot!(said(&output));
}

#[test]
#[ignore = "run by without_permission"]
fn without_permission_child() {
    let names = ["locked/journal.db", "locked/new.db", "open/journal.db"];
    say(&names.map(|name| refusal(&child_dir().join(name))));
}

#[test]
fn on_a_read_only_file_system() {
    let dir = tempfile::tempdir().unwrap();
    let setup = unshare(r#"mount -t tmpfs tmpfs "$DIR" && exec "$@""#);
    let output = succeed(child(&setup, "places::on_a_read_only_file_system_child", dir.path()));
    insta::assert_snapshot!(said(&output));
}

#[test]
#[ignore = "run by on_a_read_only_file_system"]
fn on_a_read_only_file_system_child() {
    let path = child_dir().join("journal.db");
    drop(SqliteJournal::open(&path).unwrap());
    let mut mount = Command::new("mount");
    mount.args(["-o", "remount,bind,ro"]).arg(child_dir());
    succeed(mount);
    say(&[refusal(&path), refusal(&child_dir().join("new.db"))]);
}

/// Says it to the test that runs this one: snapshots are that one's, who may write them.
fn say(lines: &[String]) {
    println!("\n@ {}", without(&child_dir(), lines).replace('\n', "\n@ "));
}

fn said(output: &str) -> String {
    output.lines().filter_map(|line| line.strip_prefix("@ ")).collect::<Vec<_>>().join("\n")
}
