//! What an archive may not do.

use std::fs;
use std::os::unix::fs::symlink;

use mooring_archive::{Limits, unpack};
use proptest::prelude::*;
use tar::{EntryType, Header};

use crate::support::{Raw, refusal, tree, unpack_all};

fn refused(archive: Raw) -> String {
    let root = tempfile::tempdir().unwrap();
    refusal(root.path(), &archive.end())
}

#[test]
fn members_that_a_workspace_may_not_hold() {
    let new = Raw::default;
    let cases = [
        (new().file("/etc/x", ""), "archive member '/etc/x' refused: its name is absolute"),
        (new().file("a/../../x", ""), "archive member 'a/../../x' refused: its name has '..' in it"),
        (new().file("", ""), "archive member '' refused: it has no name"),
        (new().file(".", ""), "archive member '.' refused: it names the root itself"),
        (new().file(&"x/".repeat(3000), ""), "its name is too long"),
        (new().symlink("l", ""), "archive member 'l' refused: the link has no target"),
        (new().member(EntryType::Char, b"c", b"", b""), "archive member 'c' refused: it is a device"),
        (new().member(EntryType::Block, b"c", b"", b""), "archive member 'c' refused: it is a device"),
        (
            new().member(EntryType::new(b'Z'), b"c", b"", b""),
            "archive member 'c' refused: its type is unknown",
        ),
        (
            new().file("a", "").file("./a", ""),
            "archive member './a' refused: the archive has this path twice",
        ),
        (new().directory("a").file("a", ""), "archive member 'a' refused: the archive has this path twice"),
        (new().file("a", "").directory("a"), "'a' refused: the archive has this path twice"),
        (new().file("a", "").file("a/b", ""), "'a' refused: it is below something that is not a directory"),
        (new().hard_link("h", "../../etc/passwd"), "archive member 'h' refused: its name has '..' in it"),
        (
            new().hard_link("h", "not-brought"),
            "archive member 'h' refused: a hard link may only name a file that the archive brought before",
        ),
        (
            new().symlink("s", "x").hard_link("h", "s"),
            "archive member 'h' refused: a hard link may only name a file that the archive brought before",
        ),
    ];
    for (archive, expected) in cases {
        let message = refused(archive);
        assert!(message.ends_with(expected), "{message}\nexpected: {expected}");
    }
}

#[test]
fn links_may_point_outside_and_nothing_is_written_through_them() {
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().to_str().unwrap();
    for (archive, path) in [
        (Raw::default().symlink("out", target).file("out/x", "evil"), "out"),
        (Raw::default().symlink("up", "..").file("up/x", "evil"), "up"),
        (Raw::default().symlink("a", target).symlink("b", "a").directory("b/x"), "b"),
        (Raw::default().symlink("proc", "/proc/self/root").file("proc/tmp/x", "evil"), "proc/tmp"),
    ] {
        assert_eq!(
            refused(archive),
            format!("archive member '{path}' refused: it is below a link that leaves the root")
        );
    }
    assert_eq!(tree(outside.path()), [].into());
}

#[test]
fn a_link_within_the_root_may_be_on_the_way() {
    let root = tempfile::tempdir().unwrap();
    let archive = Raw::default()
        .directory("lib")
        .directory("sub")
        .symlink("sub/l", "../lib")
        .file("sub/l/new/x", "1")
        .end();
    unpack_all(root.path(), &archive).unwrap();
    assert_eq!(tree(root.path())["lib/new/x"], "file 644 \"1\"");
}

#[test]
fn links_that_were_there_before_are_not_followed_out_either() {
    let (root, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    symlink(outside.path(), root.path().join("out")).unwrap();
    symlink(outside.path().join("new"), root.path().join("dangling")).unwrap();
    for name in ["out/x", "dangling/x"] {
        let message = refusal(root.path(), &Raw::default().file(name, "evil").end());
        assert!(message.ends_with("it is below a link that leaves the root"), "{message}");
    }
    // The link itself may be replaced; what it points at stays.
    unpack_all(root.path(), &Raw::default().file("dangling", "mine").end()).unwrap();
    assert_eq!(tree(outside.path()), [].into());
}

#[test]
fn limits_hold_before_anything_is_written() {
    let root = tempfile::tempdir().unwrap();
    let archive = Raw::default().file("a", "12345").file("b", "67890").end();
    let limited = |members, bytes| {
        unpack(root.path(), &archive[..], &Limits { members, bytes }, &|_, _| None).unwrap_err().to_string()
    };
    assert_eq!(limited(10, 9), "archive exceeds the limit of 9 bytes at member 'b'");
    assert_eq!(fs::read(root.path().join("b")).unwrap_or_default(), b"");
    assert_eq!(limited(1, 100), "archive exceeds the limit of 1 members at member 'b'");
}

#[test]
fn a_stream_that_breaks_off_is_an_error() {
    let root = tempfile::tempdir().unwrap();
    let archive = Raw::default().file("a", "12345").directory("d").end();
    for length in 0..=archive.len() - 1024 {
        assert!(unpack_all(root.path(), &archive[..length]).is_err(), "cut to {length} bytes");
    }
    unpack_all(root.path(), &archive).unwrap();
}

#[test]
fn what_does_not_come_whole_replaces_nothing_and_leaves_nothing() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("old"), "precious").unwrap();
    let big = "x".repeat(5000);
    for name in ["old", "new"] {
        let archive = Raw::default().file(name, &big).end();
        unpack_all(root.path(), &archive[..3000]).unwrap_err();
    }
    assert_eq!(tree(root.path()), [("old".to_owned(), "file 644 \"precious\"".to_owned())].into());
    unpack_all(root.path(), &Raw::default().file("old", "after").end()).unwrap();
    assert_eq!(fs::read_to_string(root.path().join("old")).unwrap(), "after");
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
}

#[test]
fn a_long_name_without_end_fills_no_memory() {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::GNULongName);
    header.set_mode(0);
    header.set_size(1 << 40);
    header.set_cksum();
    let root = tempfile::tempdir().unwrap();
    let stream = std::io::Read::chain(&header.as_bytes()[..], std::io::repeat(b'x'));
    let error = unpack(root.path(), stream, &Limits::default(), &|_, _| None).unwrap_err();
    assert_eq!(error.to_string(), "cannot read the archive: an extended header is too large");
}

#[test]
fn a_file_that_claims_to_be_huge_is_refused_from_its_header() {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.as_old_mut().name[0] = b'f';
    header.set_size(1 << 60);
    header.set_cksum();
    let root = tempfile::tempdir().unwrap();
    let stream = std::io::Read::chain(&header.as_bytes()[..], std::io::repeat(b'x'));
    let error = unpack(root.path(), stream, &Limits::default(), &|_, _| None).unwrap_err();
    assert!(error.to_string().starts_with("archive exceeds the limit of 17179869184 bytes"), "{error}");
}

fn name() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        4 => "[abc]",
        1 => Just("..".to_owned()),
        1 => Just(".".to_owned()),
        1 => Just(String::new()),
        1 => Just("@outside@".to_owned()),
    ];
    proptest::collection::vec(part, 1..4).prop_map(|parts| parts.join("/"))
}

fn member() -> impl Strategy<Value = (u8, String, String)> {
    (prop_oneof![Just(b'0'), Just(b'1'), Just(b'2'), Just(b'2'), Just(b'5')], name(), name())
}

proptest! {
    /// Whatever an archive says, nothing outside of the root is made, changed or removed.
    #[test]
    fn nothing_outside_of_the_root_changes(members in proptest::collection::vec(member(), 1..12)) {
        let home = tempfile::tempdir().unwrap();
        let root = home.path().join("x/root");
        fs::create_dir_all(&root).unwrap();
        fs::create_dir_all(home.path().join("outside/a")).unwrap();
        fs::write(home.path().join("outside/b"), "sentinel").unwrap();
        fs::write(home.path().join("x/c"), "sentinel").unwrap();
        let outside = home.path().join("outside");
        // One archive per member, so that a refusal does not end the attack.
        for (kind, name, target) in members {
            let put = |text: &str| text.replace("@outside@", outside.to_str().unwrap());
            let archive = Raw::default()
                .member(EntryType::new(kind), put(&name).as_bytes(), put(&target).as_bytes(), b"evil"
                    .get(..if kind == b'0' { 4 } else { 0 }).unwrap_or_default())
                .end();
            let _ = unpack_all(&root, &archive);
        }
        let mut after = tree(home.path());
        after.retain(|name, _| !name.starts_with("x/root"));
        let expected = [
            ("outside", "dir 755"), ("outside/a", "dir 755"), ("outside/b", "file 644 \"sentinel\""),
            ("x", "dir 755"), ("x/c", "file 644 \"sentinel\""),
        ];
        prop_assert_eq!(after, expected.map(|(a, b)| (a.to_owned(), b.to_owned())).into());
    }

    /// Any bytes at all: an error or not, but no panic.
    #[test]
    fn arbitrary_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
        let root = tempfile::tempdir().unwrap();
        let _ = unpack_all(root.path(), &bytes);
    }
}
