//! What lies in the workspace for the harness to stumble over.

use std::path::Path;
use std::time::{Duration, Instant};

use mooring_manifest::Manifest;
use mooring_sandbox::{Plan, materialise};
use serde_json::json;
use tar::{EntryType, Header};

use crate::{Finding, Ground, careless, files};

pub(crate) async fn leads_a_write_out_by_a_link(ground: &Ground) -> Finding {
    let program = "
os.symlink(E['OUTSIDE'], 'out')
os.mkdir('deep')
os.symlink('../out', 'deep/out')
os.symlink('/proc/self/root' + E['OUTSIDE'], 'magic')
os.symlink(E['OUTSIDE'] + '/planted-by-name', 'name')
";
    ground.inside(program).await?;
    for path in ["out/planted", "deep/out/planted-deep", "magic/planted-magic", "name"] {
        ground.write(path, "x").await;
        if ground.careless {
            // The one that looks first is for the attempt below.
            let _ = std::fs::write(ground.host_path(path), "x");
        }
    }
    Ok(Vec::new())
}

pub(crate) async fn leads_a_read_out_by_a_link(ground: &Ground) -> Finding {
    let program = "
os.symlink(E['SECRET_FILE'], 'file')
os.symlink(E['OUTSIDE'], 'folder')
";
    ground.inside(program).await?;
    let mut got = Vec::new();
    for path in ["file", "folder/secret"] {
        if ground.file(path).await.contains(ground.outside.secret()) {
            got.push(format!("the secret by {path}"));
        }
    }
    Ok(got)
}

/// The directory that was looked at is a link by the time it is used.
pub(crate) async fn leads_a_write_out_by_a_link_put_there_in_time(ground: &Ground) -> Finding {
    let program = "
x86()
os.mkdir('d')
os.symlink(E['OUTSIDE'], 'l')
print('ready', flush=True)
end = time.time() + 20
while time.time() < end and not os.path.lexists('stop'):
    for _ in range(2000): call(316, -100, b'd', -100, b'l', 2)
";
    let process = ground.session().spawn(ground.request(program)).await.unwrap();
    process.output(mooring_sandbox::Cursor(0), 100, Duration::from_secs(20)).await.unwrap();
    let began = Instant::now();
    let planted = ground.outside.folder().join("planted");
    let mut writes = 0;
    while (began.elapsed() < Duration::from_secs(3)
        || (ground.careless && began.elapsed() < Duration::from_secs(15)))
        && !planted.exists()
    {
        ground.write("d/planted", "x").await;
        writes += 1;
    }
    assert!(writes > 100 || planted.exists(), "{writes} writes are no race");
    process.release().await.unwrap();
    Ok(Vec::new())
}

pub(crate) async fn names_a_place_outside_in_an_archive(ground: &Ground) -> Finding {
    let outside = ground.outside.folder().display().to_string();
    let up = "../".repeat(12);
    let single = |name: &str| vec![(name.to_owned(), EntryType::Regular, String::new(), 0o644)];
    let through = |link: &str, target: &str| {
        vec![
            (link.to_owned(), EntryType::Symlink, target.to_owned(), 0o777),
            (format!("{link}/planted-{link}"), EntryType::Regular, String::new(), 0o644),
        ]
    };
    let archives = [
        single(&format!("{outside}/planted-absolute")),
        single(&format!("{up}{}/planted-up", outside.trim_start_matches('/'))),
        through("link", &outside),
        through("far", &format!("{up}{}", outside.trim_start_matches('/'))),
        vec![("hard".to_owned(), EntryType::Link, ground.outside.secret_file().display().to_string(), 0o644)],
    ];
    for members in archives {
        ground.unpack(archive(&members)).await;
    }
    let linked = ground.file("hard").await.contains(ground.outside.secret());
    Ok(if linked { vec!["a second name for the secret".to_owned()] } else { Vec::new() })
}

pub(crate) async fn brings_rights_and_devices_in_an_archive(ground: &Ground) -> Finding {
    for member in [
        ("raised".to_owned(), EntryType::Regular, String::new(), 0o4755),
        ("device".to_owned(), EntryType::Char, String::new(), 0o666),
    ] {
        ground.unpack(archive(&[member])).await;
    }
    let found = ground
        .inside("if os.path.lexists('device') and stat.S_ISCHR(os.lstat('device').st_mode): escaped('a device')\n\
                 if os.path.lexists('raised') and os.lstat('raised').st_mode & 0o6000: escaped('a set-user-id file')")
        .await?;
    let on_disk = ground.sandbox.workspace.as_deref().map(files::set_id_below).unwrap_or_default();
    Ok([found, on_disk].concat())
}

/// A kilobyte that is a tebibyte once unpacked.
pub(crate) async fn unpacks_to_more_than_there_is(ground: &Ground) -> Finding {
    let folder = tempfile::tempdir().unwrap();
    let bomb = folder.path().join("bomb");
    fs_err::File::create(&bomb).unwrap().set_len(1 << 40).unwrap();
    let packed = std::process::Command::new("tar")
        .args(["--create", "--sparse", "--file=-", "bomb"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(packed.status.success() && packed.stdout.len() < 1 << 20, "no bomb was made");
    ground.unpack(packed.stdout).await;
    ground
        .inside("if os.path.lexists('bomb') and os.lstat('bomb').st_size >= 1 << 40: escaped('a tebibyte')")
        .await
}

/// A repository's own configuration names programs, for whoever runs git in it.
pub(crate) async fn has_git_run_a_program(ground: &Ground) -> Finding {
    let program = "
import shutil, subprocess
if not shutil.which('git'): not_here('the sandbox has no git')
def git(*arguments): subprocess.run(['git', '-c', 'user.name=a', '-c', 'user.email=a@a', *arguments], cwd='r', check=True, capture_output=True)
os.mkdir('r')
git('init', '--quiet')
open('r/f', 'w').write('x')
open('r/.gitattributes', 'w').write('* filter=evil diff=evil\\n')
git('add', '.')
git('commit', '--quiet', '-m', 'x')
evil = 'touch ' + E['OUTSIDE'] + '/planted-by-'
for name in ('core.fsmonitor', 'core.sshCommand', 'core.pager', 'core.editor', 'uploadpack.packObjectsHook', 'filter.evil.smudge',
             'filter.evil.clean', 'diff.evil.textconv', 'diff.external', 'credential.helper', 'core.gitProxy'):
    git('config', name, ('!' if name == 'credential.helper' else '') + evil + name.replace('.', '-') + '; true')
os.makedirs('r/.git/hooks', exist_ok=True)
for name in ('post-checkout', 'post-index-change', 'reference-transaction', 'pre-commit', 'post-merge', 'pre-receive', 'fsmonitor-watchman'):
    path = 'r/.git/hooks/' + name
    open(path, 'w').write('#!/bin/sh\\n' + evil + name + '\\n')
    os.chmod(path, 0o755)
os.utime('r/f', (1, 1))
";
    ground.inside(program).await?;
    // What its author's own git has set off inside is not the question.
    for entry in fs_err::read_dir(ground.outside.folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("planted")) {
            fs_err::remove_file(path).unwrap();
        }
    }
    if ground.careless {
        careless::look_at_repository(&ground.host_path("r"));
        return Ok(Vec::new());
    }
    let Some(workspace) = &ground.sandbox.workspace else {
        return Err("its files are not on this host".to_owned());
    };
    stage_repository(ground, workspace).await;
    Ok(Vec::new())
}

/// Has the harness read the repository, as it does for an entry of a manifest. Whether that works is not the question.
async fn stage_repository(ground: &Ground, workspace: &Path) {
    let entry = json!({
        "type": "git_repo", "host": format!("file://{}", workspace.display()), "repo": "r", "ref": "HEAD",
    });
    let manifest: Manifest = serde_json::from_value(
        json!({ "version": 1, "root": ground.session().root(), "entries": { "copy": entry } }),
    )
    .unwrap();
    let client = &ground.sandbox.client;
    let plan = Plan::new(&manifest, workspace, &client.support(), client.backend_id());
    if let Ok(plan) = plan {
        let _ = materialise(&plan, ground.session().as_ref()).await;
    }
}

/// A tar stream. Names go in as they are: that is the attempt.
fn archive(members: &[(String, EntryType, String, u32)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, kind, target, mode) in members {
        let content: &[u8] = if *kind == EntryType::Regular { b"planted" } else { b"" };
        let mut header = Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_size(content.len() as u64);
        header.set_mode(*mode);
        header.set_mtime(0);
        if *kind == EntryType::Char {
            header.set_device_major(1).unwrap();
            header.set_device_minor(5).unwrap();
        }
        let gnu = header.as_gnu_mut().unwrap();
        gnu.name[..name.len()].copy_from_slice(name.as_bytes());
        gnu.linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_cksum();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}
