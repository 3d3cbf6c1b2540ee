//! Archives that no honest writer makes: nothing of them lands outside of the workspace.

use tar::{EntryType, Header};

use crate::archives::{file, reader, tar};
use crate::bench::{Bench, Sandbox};
use crate::files::kind_of;

/// Members as they are given, however wrong.
#[derive(Default)]
struct Raw(Vec<u8>);

impl Raw {
    fn member(mut self, kind: EntryType, name: &str, target: &str, content: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o6755);
        header.set_mtime(1_000_000_000);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(content.len() as u64);
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, name: &str) -> Self {
        self.member(EntryType::Regular, name, "", b"evil")
    }

    fn link(self, name: &str, target: &str) -> Self {
        self.member(EntryType::Symlink, name, target, b"")
    }

    fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

/// What there is outside of the workspace that one could write to.
async fn outside(sandbox: &Sandbox) -> String {
    sandbox.out("ls -A /tmp; ls -A /etc | wc -l; cat /etc/passwd; ls -A .. | sort").await
}

pub(crate) async fn no_member_leaves_the_workspace(bench: &Bench) {
    let sandbox = bench.sandbox().await;
    sandbox.out("ln -s /tmp out").await;
    let before = outside(&sandbox).await;
    for name in ["out/file", "../file", "/tmp/file"] {
        let archive = reader(tar(|writer| file(writer, name, "")));
        let refused = sandbox.session.unpack(".", archive).await.unwrap_err();
        assert_eq!(kind_of(&refused), "archive", "{name}: {refused}");
    }
    assert_eq!(outside(&sandbox).await, before);
}

pub(crate) async fn links_in_an_archive_lead_nowhere(bench: &Bench) {
    let sandbox = bench.sandbox().await;
    let before = outside(&sandbox).await;
    for (what, archive) in [
        ("absolute link", Raw::default().link("a", "/tmp").file("a/x")),
        ("relative link", Raw::default().link("b", "../../tmp").file("b/x")),
        ("link to a link", Raw::default().link("c", "/tmp").link("d", "c").file("d/x")),
        ("link through /proc", Raw::default().link("e", "/proc/self/root").file("e/tmp/x")),
        ("hard link outside", Raw::default().member(EntryType::Link, "f", "/etc/passwd", b"").file("f")),
        ("hard link upwards", Raw::default().member(EntryType::Link, "g", "../etc/passwd", b"")),
        (
            "hard link to a link",
            Raw::default().link("h", "/etc/passwd").member(EntryType::Link, "i", "h", b"").file("i"),
        ),
    ] {
        let refused = sandbox.session.unpack(".", reader(archive.end())).await.unwrap_err();
        assert_eq!(kind_of(&refused), "archive", "{what}: {refused}");
    }
    assert_eq!(outside(&sandbox).await, before);
}

pub(crate) async fn a_workspace_holds_no_devices_and_gains_no_rights(bench: &Bench) {
    let sandbox = bench.sandbox().await;
    for kind in [EntryType::Char, EntryType::Block] {
        let archive = Raw::default().member(kind, "d", "", b"").end();
        let refused = sandbox.session.unpack(".", reader(archive)).await.unwrap_err();
        assert_eq!(kind_of(&refused), "archive", "{kind:?}: {refused}");
    }
    sandbox.session.unpack(".", reader(Raw::default().file("tool").end())).await.unwrap();
    assert_eq!(sandbox.out("stat -c '%a %U' tool").await, "755 agent\n", "no set-user-id file of root's");
}

pub(crate) async fn a_restored_archive_is_confined_too(bench: &Bench) {
    let sandbox = bench.sandbox().await;
    sandbox.out("echo kept > kept").await;
    let before = outside(&sandbox).await;
    for archive in [Raw::default().link("a", "/tmp").file("a/x"), Raw::default().file("../x")] {
        let refused = sandbox.session.restore(reader(archive.end())).await.unwrap_err();
        assert_eq!(kind_of(&refused), "archive", "{refused}");
    }
    assert_eq!(outside(&sandbox).await, before);
    assert_eq!(sandbox.out("ls -A; cat kept").await, "kept\nkept\n");
}
