//! What is packed comes out again.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use mooring_archive::{Kind, Limits, Meta, Stats, Writer, pack, unpack, walk_layers};

use crate::support::{tree, unpack_all};

fn packed(root: &Path, without: &[&str]) -> (Vec<u8>, Stats) {
    let mut out = Vec::new();
    let without: Vec<String> = without.iter().map(ToString::to_string).collect();
    let stats = pack(root, &mut out, &without, &|_, _| ("", "")).unwrap();
    (out, stats)
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// A workspace with one of everything that is kept.
fn workspace() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    fs::create_dir_all(at("src/deep")).unwrap();
    fs::create_dir(at("empty")).unwrap();
    fs::write(at("src/main.py"), "print(1)\n").unwrap();
    fs::write(at("src/deep/run"), "#!/bin/sh\n").unwrap();
    fs::write(at("src/secret"), "s").unwrap();
    fs::write(at("файл with space"), "x").unwrap();
    fs::write(at(&"long".repeat(60)), "long name").unwrap();
    fs::hard_link(at("src/main.py"), at("src/z-again.py")).unwrap();
    symlink("../src/main.py", at("empty/link")).unwrap();
    symlink("/usr/bin/python3", at("python")).unwrap();
    symlink(format!("./odd//{}/", "target/".repeat(30)), at("odd")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, at("queue"), rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
        .unwrap();
    let holes = fs::File::create(at("holes")).unwrap();
    holes.write_all_at(b"begin", 0).unwrap();
    for piece in 1..40 {
        holes.write_all_at(&[7; 4096], piece << 16).unwrap();
    }
    holes.set_len(4 << 20).unwrap();
    fs::File::create(at("all-hole")).unwrap().set_len(1 << 20).unwrap();
    mode(&at("src/deep/run"), 0o755);
    mode(&at("src/main.py"), 0o640);
    mode(&at("src/secret"), 0o400);
    mode(&at("empty"), 0o500);
    let old = SystemTime::UNIX_EPOCH + Duration::new(1_234_567_890, 123_456_789);
    for name in ["src/main.py", "src/deep", "src"] {
        fs::File::open(at(name)).unwrap().set_modified(old).unwrap();
    }
    root
}

#[test]
fn a_tree_survives_with_modes_times_and_links() {
    let root = workspace();
    let (archive, stats) = packed(root.path(), &[]);
    let copy = tempfile::tempdir().unwrap();
    let unpacked = unpack_all(copy.path(), &archive).unwrap();

    assert_eq!(tree(copy.path()), tree(root.path()));
    assert_eq!(unpacked, Stats { skipped: 0, ..stats });
    for name in ["src/main.py", "src/deep", "src"] {
        let found = fs::metadata(copy.path().join(name)).unwrap();
        assert_eq!((found.mtime(), found.mtime_nsec()), (1_234_567_890, 123_456_789), "{name}");
    }
    let on_disk = |name: &str| fs::metadata(copy.path().join(name)).unwrap().blocks() * 512;
    assert!(on_disk("holes") < 512 << 10, "{}", on_disk("holes"));
    assert_eq!(on_disk("all-hole"), 0);
    assert!(archive.len() < 1 << 20, "holes are not written: {}", archive.len());
    let inode = |name: &str| fs::metadata(copy.path().join(name)).unwrap().ino();
    assert_eq!(inode("src/main.py"), inode("src/z-again.py"));
    assert_eq!(
        fs::read_link(copy.path().join("odd")).unwrap(),
        fs::read_link(root.path().join("odd")).unwrap(),
        "byte for byte"
    );
}

#[test]
fn the_same_tree_gives_the_same_bytes() {
    let root = workspace();
    assert_eq!(packed(root.path(), &[]), packed(root.path(), &[]));
}

#[test]
fn system_tar_reads_what_we_write_and_we_read_what_it_writes() {
    let root = workspace();
    let (archive, _) = packed(root.path(), &[]);
    let (theirs, ours) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = ours.path().join("archive.tar");
    fs::write(&file, &archive).unwrap();
    let run = |arguments: &[&str]| {
        let done = std::process::Command::new("tar").args(arguments).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    run(&["-xpf", file.to_str().unwrap(), "-C", theirs.path().to_str().unwrap()]);
    assert_eq!(tree(theirs.path()), tree(root.path()));

    for form in ["gnu", "pax"] {
        // Holes in the POSIX form have a dialect for each program; the GNU form has one.
        let sparse = if form == "gnu" { "--sparse" } else { "--no-check-device" };
        let form = format!("--format={form}");
        run(&[&form, sparse, "-cf", file.to_str().unwrap(), "-C", root.path().to_str().unwrap(), "."]);
        let copy = tempfile::tempdir().unwrap();
        unpack_all(copy.path(), &fs::read(&file).unwrap()).unwrap();
        assert_eq!(tree(copy.path()), tree(root.path()), "{form}");
    }
}

#[test]
fn excluded_paths_are_left_out_with_what_is_below() {
    let root = workspace();
    let (archive, _) = packed(root.path(), &["./src/deep/", "python", "no-such"]);
    let copy = tempfile::tempdir().unwrap();
    unpack_all(copy.path(), &archive).unwrap();
    let mut expected = tree(root.path());
    expected.retain(|name, _| !name.starts_with("src/deep") && name != "python");
    assert_eq!(tree(copy.path()), expected);
}

#[test]
fn layers_are_packed_as_an_overlay_shows_them() {
    let layers = tempfile::tempdir().unwrap();
    let at = |name: &str| layers.path().join(name);
    for name in ["top/both", "top/shut", "low/both/deep", "low/shut", "low/gone"] {
        fs::create_dir_all(at(name)).unwrap();
    }
    for (name, text) in [
        ("top/both/new", "n"),
        ("top/same", "top"),
        ("top/shut/own", "o"),
        ("low/both/old", "o"),
        ("low/both/deep/er", "d"),
        ("low/same", "low"),
        ("low/shut/hidden", "h"),
        ("low/gone/x", "x"),
    ] {
        fs::write(at(name), text).unwrap();
    }
    let kind = rustix::fs::FileType::CharacterDevice;
    rustix::fs::mknodat(rustix::fs::CWD, at("top/gone"), kind, rustix::fs::Mode::empty(), 0).unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(at("top/shut"), c"user.overlay.opaque", b"y", flags).unwrap();

    let opened = [at("top"), at("low")].map(|path| fs::File::open(path).unwrap());
    let seen = |without: &[std::path::PathBuf]| {
        let mut seen = Vec::new();
        walk_layers(&opened, without, &mut |node| {
            let text = match node.kind {
                Kind::File => std::io::read_to_string(node.open()?).unwrap(),
                _ => String::new(),
            };
            seen.push(format!("{} {text}", node.path.display()));
            Ok::<_, mooring_archive::ArchiveError>(())
        })
        .unwrap();
        seen
    };
    let mut expected = vec![
        "both ",
        "both/deep ",
        "both/deep/er d",
        "both/new n",
        "both/old o",
        "same top",
        "shut ",
        "shut/own o",
    ];
    assert_eq!(seen(&[]), expected);
    expected.drain(1..3);
    assert_eq!(seen(&["both/deep".into(), "elsewhere".into()]), expected);
}

#[test]
fn sockets_are_counted_and_left_out() {
    let root = tempfile::tempdir().unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(root.path().join("socket")).unwrap();
    fs::write(root.path().join("file"), "x").unwrap();
    let (_, stats) = packed(root.path(), &[]);
    assert_eq!(stats, Stats { members: 1, files: 1, bytes: 1, skipped: 1 });
}

#[test]
fn setuid_bits_are_dropped_and_parents_that_are_not_named_are_plain() {
    let mut archive = Vec::new();
    let mut writer = Writer::new(&mut archive);
    let meta = Meta { mode: 0o6755, ..Meta::default() };
    writer.file(Path::new("a/b/run"), meta, 2, &mut &b"ok"[..]).unwrap();
    writer.finish().unwrap();
    let root = tempfile::tempdir().unwrap();
    unpack_all(root.path(), &archive).unwrap();
    let expected = [("a", "dir 755"), ("a/b", "dir 755"), ("a/b/run", "file 755 \"ok\"")];
    assert_eq!(tree(root.path()), expected.map(|(a, b)| (a.to_owned(), b.to_owned())).into());
}

#[test]
fn owners_are_asked_for_by_name() {
    let mut archive = Vec::new();
    let mut writer = Writer::new(&mut archive);
    let meta = Meta { mode: 0o644, user: "zoe", group: "devs", uid: 12, gid: 34, ..Meta::default() };
    writer.file(Path::new("f"), meta, 0, &mut std::io::empty()).unwrap();
    writer.finish().unwrap();
    let root = tempfile::tempdir().unwrap();
    let asked = std::cell::RefCell::new(Vec::new());
    unpack(root.path(), &archive[..], &Limits::default(), &|user, group| {
        asked.borrow_mut().push((user.to_owned(), group.to_owned()));
        None
    })
    .unwrap();
    assert_eq!(*asked.borrow(), [("zoe".to_owned(), "devs".to_owned())]);
}

#[test]
fn a_file_that_became_shorter_is_an_error_and_not_padding() {
    let mut archive = Vec::new();
    let mut writer = Writer::new(&mut archive);
    let error = writer.file(Path::new("f"), Meta::default(), 10, &mut &b"short"[..]).unwrap_err();
    assert_eq!(error.to_string(), "cannot read f: it became shorter meanwhile");
    drop(writer);
    let root = tempfile::tempdir().unwrap();
    assert!(unpack_all(root.path(), &archive).is_err());
}

#[test]
fn what_exists_is_replaced_as_a_whole() {
    let root = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    fs::write(other.path().join("kept"), "kept").unwrap();
    symlink(other.path().join("kept"), root.path().join("f")).unwrap();
    fs::hard_link(other.path().join("kept"), root.path().join("g")).unwrap();
    let archive = crate::support::Raw::default().file("f", "new").file("g", "new").end();
    unpack_all(root.path(), &archive).unwrap();
    assert_eq!(fs::read_to_string(other.path().join("kept")).unwrap(), "kept");
    assert_eq!(tree(root.path())["f"], "file 644 \"new\"");
    assert_eq!(tree(root.path())["g"], "file 644 \"new\"");
}
