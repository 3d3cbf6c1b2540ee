//! `moor sandbox cp`: files in and out, as one stream, with the modes and times that they have.
//!
//! What comes out was written by something untrusted: it is unpacked like every archive, and nothing of it lands
//! outside of the place that was named.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use mooring_archive::{ArchiveError, Limits, Member, MemberKind, Meta, Writer, pack, read, unpack};
use mooring_sandbox::{FileKind, SandboxError, SandboxSession};
use tokio_util::io::SyncIoBridge;

use super::record::Found;
use crate::args::sandbox::CpArgs;
use crate::command_error::CommandError;
use crate::home::{Home, absolute};

/// How much of the stream is held between its two ends.
const BUFFER: usize = 512 << 10;

pub(crate) async fn cp(args: &CpArgs) -> Result<ExitCode, CommandError> {
    let home = Home::find()?;
    match (inside(&args.from), inside(&args.to)) {
        (None, Some((sandbox, path))) => {
            let session = Found::find(&home, sandbox).await?.start(&home).await?;
            put(session.as_ref(), &absolute(Path::new(&args.from))?, path).await?;
        }
        (Some((sandbox, path)), None) => {
            let session = Found::find(&home, sandbox).await?.start(&home).await?;
            get(session, path, &absolute(Path::new(&args.to))?, Links::All).await?;
        }
        _ => {
            return Err(CommandError::input(
                "one of the two must be in a sandbox, as SANDBOX:PATH, and the other one here",
            ));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// `SANDBOX:PATH`. A path here that holds a colon is written with a slash before it: `./a:b`.
fn inside(text: &str) -> Option<(&str, &str)> {
    let (sandbox, path) = text.split_once(':')?;
    (!sandbox.is_empty() && !sandbox.contains('/')).then_some((sandbox, path))
}

async fn put(session: &dyn SandboxSession, from: &Path, to: &str) -> Result<(), CommandError> {
    let name = |path: &Path| path.file_name().map(OsStr::to_owned);
    let into = if to.is_empty() { "." } else { to };
    let is_directory = match session.stat(into).await {
        Ok(stat) => stat.kind == FileKind::Directory,
        Err(SandboxError::NotFound { .. }) => false,
        Err(error) => return Err(error.into()),
    };
    // Into a directory that exists under its own name, else as what was named.
    let (below, as_name) = if is_directory {
        let from = fs_err::canonicalize(from)?;
        (into.to_owned(), name(&from))
    } else {
        let to = Path::new(into);
        let below = to.parent().filter(|parent| !parent.as_os_str().is_empty());
        (below.map_or(".".into(), |below| below.to_string_lossy().into_owned()), name(to))
    };
    let Some(as_name) = as_name else {
        return Err(CommandError::input(format!("'{into}' names no file to make")));
    };
    session.mkdir(&below, true).await?;
    let (input, output) = tokio::io::duplex(BUFFER);
    let (from, input) = (from.to_owned(), SyncIoBridge::new(input));
    let packing = tokio::task::spawn_blocking(move || pack_as(&from, Path::new(&as_name), input));
    let (packed, unpacked) = tokio::join!(packing, session.unpack(&below, Box::pin(output)));
    match (joined(packed)?, unpacked) {
        // The reader stopped; why is the reader's to say.
        (Err(ArchiveError::Stream { .. }) | Ok(()), unpacked) => Ok(unpacked?),
        (Err(error), _) => Err(SandboxError::of_archive(error).into()),
    }
}

/// A file or a directory as a tar stream in which it has this name.
fn pack_as(from: &Path, name: &Path, out: impl Write) -> Result<(), ArchiveError> {
    use std::os::unix::fs::MetadataExt as _;
    let failed = |error| ArchiveError::File { operation: "read", path: from.to_owned(), source: error };
    let mut writer = Writer::new(out);
    let metadata = std::fs::metadata(from).map_err(failed)?;
    let meta = Meta {
        mode: metadata.mode() & 0o7777,
        mtime: u64::try_from(metadata.mtime()).unwrap_or(0),
        nanos: if metadata.mtime() < 0 { 0 } else { metadata.mtime_nsec() as u32 },
        ..Meta::default()
    };
    if !metadata.is_dir() {
        let mut file = std::fs::File::open(from).map_err(failed)?;
        writer.file(name, meta, metadata.len(), &mut file)?;
        return writer.finish().map(drop);
    }
    writer.directory(name, meta)?;
    // Packed apart, and its members put below the name.
    let (mut packed, pipe) = std::io::pipe().map_err(failed)?;
    std::thread::scope(|scope| {
        let packing = scope.spawn(move || pack(from, pipe, &[], &|_, _| ("", "")));
        let read = read(&mut packed, &Limits::default(), &mut |member, content| {
            copy(&mut writer, member, &name.join(&member.path), content, |target| Some(name.join(target)))
        });
        drop(packed);
        let packed = packing.join().map_err(|_| failed(std::io::Error::other("packing ended early")))?;
        match (packed, read) {
            (Err(error), Err(ArchiveError::Stream { operation: "read", .. })) => Err(error),
            (_, read) => read.map(drop),
        }
    })?;
    writer.finish().map(drop)
}

/// Which symbolic links are copied out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Links {
    /// All, as they are: none is followed.
    All,
    /// Those that lead to something in what is copied; others are refused.
    Inside,
}

impl Links {
    /// `link` is the place of one in what is copied.
    fn check(self, link: &Path, target: &Path) -> Result<(), ArchiveError> {
        let mut above = link.components().count().saturating_sub(1);
        let mut named = false;
        let inside = !link.as_os_str().is_empty()
            && target.components().all(|part| match part {
                Component::Normal(_) => {
                    named = true;
                    true
                }
                Component::CurDir => true,
                // After a name, which may be a link itself, nobody knows how deep it is.
                Component::ParentDir if !named && above > 0 => {
                    above -= 1;
                    true
                }
                _ => false,
            });
        if self == Self::All || inside {
            return Ok(());
        }
        let member = link.display().to_string();
        let reason = format!("it is a symbolic link to {}, outside of what is copied", target.display());
        Err(ArchiveError::Refused { member, reason })
    }
}

/// Copies what is at `from` in a workspace to `to` on this host.
pub(crate) async fn get(
    session: Arc<dyn SandboxSession>,
    from: &str,
    to: &Path,
    links: Links,
) -> Result<(), CommandError> {
    let root = Path::new(session.root());
    let whole = root.join(from);
    let Ok(below) = whole.strip_prefix(root) else {
        return Err(CommandError::input(format!("'{from}' is outside of the workspace {}", root.display())));
    };
    let below: PathBuf =
        below.components().filter(|part| matches!(part, std::path::Component::Normal(_))).collect();
    // Known to exist before anything is made here.
    session.stat(if below.as_os_str().is_empty() { "." } else { from }).await?;
    let (place, name) = if to.is_dir() {
        (to.to_owned(), below.file_name().map_or_else(PathBuf::new, PathBuf::from))
    } else {
        match (to.parent(), to.file_name()) {
            (Some(parent), Some(name)) => (parent.to_owned(), PathBuf::from(name)),
            _ => return Err(CommandError::input(format!("'{}' names no file to make", to.display()))),
        }
    };
    let (input, output) = tokio::io::duplex(BUFFER);
    let output = SyncIoBridge::new(output);
    let writing = tokio::task::spawn_blocking(move || unpack_as(&place, &below, &name, links, output));
    let (persisted, written) = tokio::join!(session.persist(Box::pin(input), &[]), writing);
    match (joined(written)?, persisted) {
        (Err(ArchiveError::Stream { .. }), Err(error)) => Err(error.into()),
        (Err(error), _) => Err(SandboxError::of_archive(error).into()),
        (Ok(()), persisted) => Ok(persisted?),
    }
}

/// Unpacks what is at `below` in a stream into `place`, under another name.
fn unpack_as(
    place: &Path,
    below: &Path,
    name: &Path,
    links: Links,
    stream: impl Read + Send,
) -> Result<(), ArchiveError> {
    let failed = |error| ArchiveError::File { operation: "unpack", path: place.to_owned(), source: error };
    let (chosen, pipe) = std::io::pipe().map_err(failed)?;
    std::thread::scope(|scope| {
        let choosing = scope.spawn(move || {
            let mut writer = Writer::new(pipe);
            let moved = |path: &Path| {
                let rest = path.strip_prefix(below).ok()?;
                // Joined with nothing, a name would end in a slash and be a directory's.
                Some(if rest.as_os_str().is_empty() { name.to_owned() } else { name.join(rest) })
            };
            read(stream, &Limits::default(), &mut |member, content| {
                let Some(path) = moved(&member.path) else { return Ok(()) };
                if let (MemberKind::Symlink(target), Ok(link)) =
                    (&member.kind, member.path.strip_prefix(below))
                {
                    links.check(link, Path::new(target))?;
                }
                copy(&mut writer, member, &path, content, moved)
            })?;
            writer.finish().map(drop)
        });
        let unpacked = unpack(place, chosen, &Limits::default(), &|_, _| None);
        let chosen = choosing.join().map_err(|_| failed(std::io::Error::other("reading ended early")))?;
        match (chosen, unpacked) {
            // Whoever stopped first says why.
            (Err(ArchiveError::Stream { operation: "write", .. }), Err(error)) | (Err(error), _) => {
                Err(error)
            }
            (Ok(()), unpacked) => unpacked.map(drop),
        }
    })
}

/// Copies a member to another path. `moved` gives the new path of what a hard link names.
fn copy<W: Write>(
    writer: &mut Writer<W>,
    member: &Member,
    path: &Path,
    content: &mut dyn Read,
    moved: impl Fn(&Path) -> Option<PathBuf>,
) -> Result<(), ArchiveError> {
    let meta = Meta { mode: member.mode, mtime: member.mtime, nanos: member.nanos, ..Meta::default() };
    match &member.kind {
        MemberKind::Directory => writer.directory(path, meta),
        MemberKind::File { size, .. } => writer.file(path, meta, *size, content),
        MemberKind::Symlink(target) => writer.symlink(path, meta, Path::new(target)),
        MemberKind::Fifo => writer.fifo(path, meta),
        MemberKind::HardLink(target) => match moved(target) {
            Some(target) => writer.hard_link(path, meta, &target),
            None => Err(ArchiveError::Refused {
                member: member.path.display().to_string(),
                reason: format!(
                    "it is another name of {}, which is not copied along; copy a directory that holds both",
                    target.display()
                ),
            }),
        },
    }
}

fn joined<T>(done: Result<T, tokio::task::JoinError>) -> Result<T, CommandError> {
    done.map_err(|error| CommandError::failed(format!("copying was interrupted: {error}")))
}
