//! A second wall around files: rights by place, kept by the kernel's Landlock.
//!
//! The mounts are the first wall: what is not mounted has no path. Should something get around them (a descriptor that
//! leads out, a flaw in path walking), it comes to files that are not below the sandbox's own root, and to these
//! nobody inside has any right. Within, the wall repeats what the mounts say: writing where it is wanted, devices made
//! nowhere. Signals and abstract sockets end at it, too.
//!
//! The one mechanism that a sandbox can do without: kernels before 5.19 lack it or would forbid renaming between
//! directories, and some are built or started without it. Whether it is there is recorded with the session.

use ::landlock::{
    ABI, Access as _, AccessFs, BitFlags, CompatLevel, Compatible as _, LandlockStatus, PathBeneath, PathFd,
    Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetError, Scope,
};

use super::refused;
use crate::wire::Failure;

/// The newest version whose rights are understood here. What a newer kernel can restrict beyond them is left alone.
const KNOWN: ABI = ABI::V7;

/// Puts this process and all that comes from it behind the wall, with everything below `/` readable and these places
/// writable. Tells what became of it.
pub(crate) fn enter(writable: &[&str]) -> Result<String, Failure> {
    // Version 2, since the first forbids what programs need.
    let needed = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V2));
    let Ok(ruleset) = needed else { return Ok("not in this kernel".into()) };
    match restrict(ruleset, writable) {
        Ok(LandlockStatus::Available { effective_abi, .. }) => {
            Ok(format!("on, ABI {}", (effective_abi as i32).min(KNOWN as i32)))
        }
        Ok(_) => Ok("not in this kernel".into()),
        Err(error) => Err(refused("landlock", std::io::Error::other(error))),
    }
}

fn restrict(ruleset: Ruleset, writable: &[&str]) -> Result<LandlockStatus, RulesetError> {
    let read: BitFlags<AccessFs> = AccessFs::Execute | AccessFs::ReadFile | AccessFs::ReadDir;
    let change = AccessFs::from_all(KNOWN) & !(AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::IoctlDev);
    let device = read | AccessFs::WriteFile | AccessFs::Truncate | AccessFs::IoctlDev;
    let mut ruleset = ruleset
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(KNOWN))?
        .scope(Scope::from_all(KNOWN))?
        .create()?;
    let places = writable.iter().map(|path| (*path, change));
    for (path, access) in
        [("/", read), ("/dev", device), ("/proc", read | AccessFs::WriteFile)].into_iter().chain(places)
    {
        // What is not there needs no right.
        let Ok(place) = PathFd::new(path) else { continue };
        ruleset = ruleset.add_rule(PathBeneath::new(place, access))?;
    }
    Ok(ruleset.restrict_self()?.landlock)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

    use rustix::fs::{CWD, Mode, OFlags, openat};

    use super::*;

    /// Landlock holds a thread, so a thread is what is tried.
    fn behind_the_wall<T: Send>(writable: &str, body: impl FnOnce() -> T + Send) -> Option<T> {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                rustix::thread::set_no_new_privs(true).unwrap();
                let state = enter(&[writable]).unwrap();
                state.starts_with("on").then(body)
            });
            inside.join().unwrap()
        })
    }

    #[test]
    fn it_holds_where_a_mount_would_not() {
        let folder = tempfile::tempdir().unwrap();
        let (inside, outside) = (folder.path().join("inside"), folder.path().join("outside"));
        fs::create_dir_all(inside.join("a")).unwrap();
        fs::create_dir(&outside).unwrap();
        // A descriptor that leads out: paths and mounts have no part in what it opens.
        let leak = openat(CWD, &outside, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let write = || {
            let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
            openat(&leak, "x", flags, Mode::from_raw_mode(0o600)).map(drop)
        };
        write().unwrap();
        let name = folder.path().display().to_string();
        let address =
            <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name.as_bytes()).unwrap();
        let _listener = UnixListener::bind_addr(&address).unwrap();
        UnixStream::connect_addr(&address).unwrap();
        let seen = behind_the_wall(inside.to_str().unwrap(), || {
            fs::write(inside.join("file"), "x").unwrap();
            fs::rename(inside.join("file"), inside.join("a/file")).unwrap();
            fs::write("/dev/null", "x").unwrap();
            (
                write().is_err(),
                fs::remove_file(outside.join("x")).is_err(),
                UnixStream::connect_addr(&address).is_err(),
            )
        });
        // A kernel without it has nothing to show.
        if let Some(seen) = seen {
            assert_eq!(seen, (true, true, true));
        }
    }
}
