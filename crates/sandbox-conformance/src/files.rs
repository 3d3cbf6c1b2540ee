//! File operations: what they do, and that they stay in the workspace.

use bytes::Bytes;
use mooring_sandbox::{FileKind, SandboxError, WriteOptions};

use crate::bench::{Bench, Sandbox};

fn new() -> WriteOptions {
    WriteOptions { create_new: true, ..WriteOptions::default() }
}

pub(crate) fn kind_of(error: &SandboxError) -> &'static str {
    match error {
        SandboxError::NotFound { .. } => "not found",
        SandboxError::AlreadyExists { .. } => "exists",
        SandboxError::PathEscape { .. } => "escape",
        SandboxError::File { .. } => "file",
        SandboxError::Invalid { .. } => "invalid",
        SandboxError::Archive { .. } => "archive",
        _ => "other",
    }
}

/// A path below the root, in its absolute form.
fn absolute(sandbox: &Sandbox, path: &str) -> String {
    format!("{}/{path}", sandbox.session.root())
}

pub(crate) async fn what_is_written_is_read(bench: &Bench) {
    let sandbox = bench.sandbox().await;
    let session = &sandbox.session;
    let big: Bytes = (0..20_000_000_u32).map(|number| number as u8).collect();
    session.write("a", "text".into(), WriteOptions::default()).await.unwrap();
    session.write(&absolute(&sandbox, "b"), big.clone(), WriteOptions::default()).await.unwrap();
    assert_eq!(session.read(&absolute(&sandbox, "./a"), 4).await.unwrap(), "text");
    assert!(session.read("b", 1 << 30).await.unwrap() == big);
    let through_a_file = session.read("b/../a", 10).await.unwrap_err();
    assert!(through_a_file.to_string().contains("Not a directory"), "{through_a_file}");
    // Commands see the same.
    assert_eq!(sandbox.out("cat a; stat -c '%U %a' a").await, "textagent 644\n");
    // No traces of how.
    assert_eq!(sandbox.out("ls -A").await, "a\nb\n");
}

pub(crate) async fn an_empty_file_and_odd_names_are_files_too(bench: &Bench) {
    let sandbox = bench.sandbox().await;
    let session = &sandbox.session;
    let long = "l".repeat(255);
    for name in ["empty", " ", "a b", "ü€", "-rf", "new\nline", "*", ".hidden", long.as_str()] {
        session.write(name, Bytes::new(), new()).await.unwrap();
        assert_eq!(session.read(name, 0).await.unwrap(), "", "{name:?}");
        assert_eq!(session.stat(name).await.unwrap().size, 0, "{name:?}");
    }
    assert_eq!(session.list(".").await.unwrap().len(), 9);
    let too_long = session.write(&"x".repeat(256), "x".into(), new()).await.unwrap_err();
    assert_eq!(kind_of(&too_long), "file", "{too_long}");
}

pub(crate) async fn reading_is_all_or_nothing(bench: &Bench) {
    let sandbox = bench.sandbox().await;
    sandbox.session.write("five", "12345".into(), WriteOptions::default()).await.unwrap();
    let refused = sandbox.session.read("five", 4).await.unwrap_err();
    assert_eq!(refused.to_string(), "cannot read five: it has 5 bytes, more than the 4 allowed");
    sandbox.out("mkdir folder; mkfifo fifo").await;
    for path in ["folder", "fifo", sandbox.session.root()] {
        let refused = sandbox.session.read(path, 100).await.unwrap_err();
        assert_eq!(refused.to_string(), format!("cannot read {path}: it is not a regular file"));
    }
    assert_eq!(kind_of(&sandbox.session.read("nothing", 100).await.unwrap_err()), "not found");
}

pub(crate) async fn writing_keeps_the_mode_unless_told_otherwise(bench: &Bench) {
    let sandbox = bench.sandbox().await;
    let session = &sandbox.session;
    sandbox.out("echo old > tool; chmod 751 tool").await;
    session.write("tool", "new".into(), WriteOptions::default()).await.unwrap();
    assert_eq!(sandbox.out("stat -c %a tool; cat tool").await, "751\nnew");
    let options = WriteOptions { mode: Some(0o600), ..WriteOptions::default() };
    session.write("tool", "newer".into(), options).await.unwrap();
    assert_eq!(session.stat("tool").await.unwrap().mode, 0o600);
    let set_id = WriteOptions { mode: Some(0o6755), ..WriteOptions::default() };
    session.write("tool", "newest".into(), set_id).await.unwrap();
    assert_eq!(session.stat("tool").await.unwrap().mode, 0o755, "no set-user-id file is made");
}

pub(crate) async fn writing_anew_refuses_whatever_is_there(bench: &Bench) {
    let sandbox = bench.sandbox().await;
    let session = &sandbox.session;
    sandbox.out("echo a > file; mkdir folder; ln -s nowhere dangling").await;
    for path in ["file", "folder", "dangling"] {
        assert_eq!(kind_of(&session.write(path, "x".into(), new()).await.unwrap_err()), "exists", "{path}");
    }
    session.write("fresh", "x".into(), new()).await.unwrap();
    let over_a_folder = session.write("folder", "x".into(), WriteOptions::default()).await.unwrap_err();
    assert_eq!(kind_of(&over_a_folder), "file", "{over_a_folder}");
    assert_eq!(sandbox.out("cat file; ls -A").await, "a\ndangling\nfile\nfolder\nfresh\n");
}

pub(crate) async fn a_reader_sees_the_old_file_or_the_new_one(bench: &Bench) {
    let sandbox = bench.sandbox().await;
    let session = &sandbox.session;
    let content = |number: u8| Bytes::from(vec![b'a' + number % 26; 300_000]);
    session.write("f", content(0), WriteOptions::default()).await.unwrap();
    let watching =
        sandbox.out("while [ ! -e stop ]; do cat f | tr -s a-z | wc -c; done | sort -u; echo done");
    let writing = async {
        for number in 1..40 {
            session.write("f", content(number), WriteOptions::default()).await.unwrap();
        }
        session.write("stop", "".into(), WriteOptions::default()).await.unwrap();
    };
    let (seen, ()) = tokio::join!(watching, writing);
    assert_eq!(seen, "1\ndone\n", "a reader saw a mixture");
}

pub(crate) async fn parents_are_made_only_when_asked_for(bench: &Bench) {
    let sandbox = bench.sandbox().await;
    let session = &sandbox.session;
    let refused = session.write("a/b/c", "x".into(), WriteOptions::default()).await.unwrap_err();
    assert_eq!(kind_of(&refused), "not found");
    let parents = WriteOptions { parents: true, ..WriteOptions::default() };
    session.write("a/b/c", "x".into(), parents).await.unwrap();
    assert_eq!(kind_of(&session.mkdir("x/y", false).await.unwrap_err()), "not found");
    session.mkdir("x/y/z", true).await.unwrap();
    session.mkdir("x/y/z", true).await.unwrap();
    assert_eq!(kind_of(&session.mkdir("x", false).await.unwrap_err()), "exists");
    assert_eq!(sandbox.out("find . -mindepth 1 | sort").await, "./a\n./a/b\n./a/b/c\n./x\n./x/y\n./x/y/z\n");
}

pub(crate) async fn a_directory_is_listed_by_name(bench: &Bench) {
    let sandbox = bench.sandbox().await;
    sandbox
        .out("mkdir -m 750 b; printf abc > a; ln -s /etc/passwd c; mkfifo d; touch -d @1234567890 a")
        .await;
    let own: u32 = sandbox.out("id -u").await.trim().parse().unwrap();
    let files = sandbox.session.list(".").await.unwrap();
    let told: Vec<_> =
        files.iter().map(|file| (file.name.as_str(), file.kind, file.mode, file.uid)).collect();
    assert_eq!(
        told,
        [
            ("a", FileKind::File, 0o644, own),
            ("b", FileKind::Directory, 0o750, own),
            ("c", FileKind::Symlink, 0o777, own),
            ("d", FileKind::Other, 0o644, own),
        ]
    );
    assert_eq!((files[0].size, files[0].modified_ns), (3, 1_234_567_890_000_000_000));
    assert_eq!(files[2].target.as_deref(), Some("/etc/passwd"));
    let path = absolute(&sandbox, "c");
    let link = sandbox.session.stat(&path).await.unwrap();
    assert_eq!(
        (link.name, link.kind, link.target.as_deref()),
        (path, FileKind::Symlink, Some("/etc/passwd"))
    );
    assert_eq!(sandbox.session.list("b").await.unwrap(), []);
    assert_eq!(kind_of(&sandbox.session.list("a").await.unwrap_err()), "file");
    assert_eq!(sandbox.session.stat(".").await.unwrap().kind, FileKind::Directory);
}

pub(crate) async fn a_big_directory_is_listed_whole(bench: &Bench) {
    let sandbox = bench.sandbox().await;
    sandbox.out("i=0; while [ $i -lt 3000 ]; do : > f$i; i=$((i+1)); done").await;
    assert_eq!(sandbox.session.list(".").await.unwrap().len(), 3000);
}

pub(crate) async fn removing_is_careful_and_complete(bench: &Bench) {
    let sandbox = bench.sandbox().await;
    let session = &sandbox.session;
    sandbox
        .out("mkdir -p t/deep/er empty; touch t/deep/f g; ln -s /usr t/link; ln -s t l; chmod 000 t/deep/er")
        .await;
    let refused = session.remove("t", false).await.unwrap_err();
    assert_eq!(refused.to_string(), "cannot remove t: the directory is not empty; remove it recursively");
    session.remove("empty", false).await.unwrap();
    session.remove("g", false).await.unwrap();
    session.remove("l", true).await.unwrap();
    assert_eq!(sandbox.out("ls").await, "t\n", "a link is removed, not what it names");
    session.remove("t", true).await.unwrap();
    assert_eq!(sandbox.out("ls -A; ls -d /usr").await, "/usr\n");
    assert_eq!(kind_of(&session.remove("t", true).await.unwrap_err()), "not found");
    let root = session.root();
    for path in [".", root, "x/.."] {
        assert_ne!(kind_of(&session.remove(path, true).await.unwrap_err()), "other", "{path}");
    }
    assert_eq!(sandbox.out("pwd").await, format!("{root}\n"));
}

pub(crate) async fn renaming_replaces_nothing(bench: &Bench) {
    let sandbox = bench.sandbox().await;
    let session = &sandbox.session;
    sandbox.out("echo a > a; echo b > b; mkdir d").await;
    assert_eq!(kind_of(&session.rename("a", "b").await.unwrap_err()), "exists");
    assert_eq!(kind_of(&session.rename("nothing", "c").await.unwrap_err()), "not found");
    assert_eq!(kind_of(&session.rename("a", "nowhere/a").await.unwrap_err()), "not found");
    session.rename("a", "d/a").await.unwrap();
    assert_eq!(sandbox.out("cat d/a b").await, "a\nb\n");
}

pub(crate) async fn no_path_leaves_the_workspace(bench: &Bench) {
    let sandbox = bench.sandbox().await;
    let session = &sandbox.session;
    let root = session.root();
    sandbox
        .out(&format!(
            "ln -s /etc absolute; ln -s ../../etc relative; mkdir in; ln -s ../.. in/up; ln -s absolute/passwd chain; \
             ln -s /proc/self/root magic; ln -s loop2 loop1; ln -s loop1 loop2; ln -s {root}/../etc sly"
        ))
        .await;
    let (dotted, beside) = (format!("{root}/../etc/passwd"), format!("{root}s"));
    let escapes = [
        "/etc/passwd",
        "..",
        "../etc/passwd",
        "in/../../etc",
        "absolute/passwd",
        "relative/passwd",
        "in/up/etc/passwd",
        "chain",
        "magic/etc/passwd",
        &dotted,
        &beside,
        "/",
        "sly/passwd",
    ];
    for path in escapes {
        assert_eq!(kind_of(&session.read(path, 100).await.unwrap_err()), "escape", "read {path}");
        assert_eq!(kind_of(&session.list(path).await.unwrap_err()), "escape", "list {path}");
        let written = session.write(path, "x".into(), WriteOptions::default()).await.unwrap_err();
        assert!(["escape", "invalid"].contains(&kind_of(&written)), "write {path}: {written}");
        let made = session.mkdir(&format!("{path}/made"), true).await.unwrap_err();
        assert_eq!(kind_of(&made), "escape", "mkdir {path}");
    }
    for path in ["absolute/passwd", "relative/passwd", "in/up/etc/passwd", "/etc/passwd", "../x"] {
        assert_eq!(kind_of(&session.stat(path).await.unwrap_err()), "escape", "stat {path}");
        assert_eq!(kind_of(&session.remove(path, true).await.unwrap_err()), "escape", "remove {path}");
        assert_eq!(kind_of(&session.rename("in", path).await.unwrap_err()), "escape", "rename to {path}");
    }
    assert_eq!(kind_of(&session.read("loop1", 100).await.unwrap_err()), "file");
    assert_eq!(kind_of(&session.read("a\0b", 100).await.unwrap_err()), "invalid");
}

pub(crate) async fn links_that_stay_are_followed(bench: &Bench) {
    let sandbox = bench.sandbox().await;
    let session = &sandbox.session;
    let root = session.root();
    sandbox
        .out(&format!(
            "mkdir -p a/b; echo x > a/b/f; ln -s a/b rel; ln -s {root}/a abs; ln -s {root}/abs/b/f deep; \
             ln -s ../a/b/f a/up"
        ))
        .await;
    for path in ["rel/f", "abs/b/f", "deep", "a/up", "a/b/../../rel/f"] {
        assert_eq!(session.read(path, 100).await.unwrap(), "x\n", "{path}");
    }
    session.write("deep", "y".into(), WriteOptions::default()).await.unwrap();
    session.write("abs/b/new", "z".into(), WriteOptions::default()).await.unwrap();
    assert_eq!(sandbox.out("cat a/b/f a/b/new; readlink deep").await, format!("yz{root}/abs/b/f\n"));
}

pub(crate) async fn a_race_with_links_leads_nowhere_else(bench: &Bench) {
    let sandbox = bench.sandbox().await;
    let session = &sandbox.session;
    sandbox.out("mkdir real; echo mine > real/file; mkdir /tmp/other; echo secret > /tmp/other/file").await;
    // `name` leads to the workspace's own directory, to another one, nowhere, and so on, as fast as can be.
    let line = "ln -s /tmp/other away; ln -s real here; \
                while :; do mv away name; mv name away; mv here name; mv name here; done";
    let racing = session.spawn(mooring_sandbox::ExecRequest::shell(line)).await.unwrap();
    let (mut inside, mut refused) = (0, 0);
    for _ in 0..20_000 {
        match session.read("name/file", 100).await {
            Ok(data) => {
                assert_ne!(data, "secret\n");
                inside += 1;
            }
            Err(error) => refused += usize::from(kind_of(&error) == "escape"),
        }
        let _ = session.write("name/file", "mine".into(), WriteOptions::default()).await;
        let _ = session.write("name/new", "x".into(), WriteOptions::default()).await;
        let _ = session.remove("name/new", false).await;
        if inside > 20 && refused > 20 {
            break;
        }
    }
    racing.cancel().await.unwrap();
    assert!(inside > 0 && refused > 0, "no race took place: {inside} inside, {refused} refused");
    assert_eq!(sandbox.out("ls /tmp/other; cat /tmp/other/file").await, "file\nsecret\n");
}
