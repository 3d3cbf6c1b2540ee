//! A supervisor in a container: the engine has isolated it, so it serves, and takes away what commands do not need.
//!
//! The image may be any: another libc than ours, an older one, none at all. So the program brings what it was linked
//! to along: its loader and its libraries are mounted beside it, at a place of its own, and the container's first
//! process is that loader. Nothing of the image is needed to run the supervisor, and nothing of it is read before
//! the rights are dropped, but for its accounts.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::accounts::Accounts;
use crate::config::Setup;
use crate::entry;
use crate::isolate::{self, refused};
use crate::wire::Failure;

/// A file that a supervisor in a container consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Where it is on this host.
    pub source: PathBuf,
    /// Where it must be in the container.
    pub target: String,
}

/// Where the parts lie in a container.
const HOME: &str = "/.mooring";

/// The files that the running program needs to be a supervisor in any container, and the command that starts it
/// there.
///
/// # Errors
/// Where the program was replaced since it was started, or has no loader.
pub fn parts() -> io::Result<(Vec<Part>, Vec<String>)> {
    entry::keep();
    let program = fs::read_link("/proc/self/exe")?;
    if !program.exists() {
        let text = "the running program was replaced or removed; start it again";
        return Err(io::Error::new(io::ErrorKind::NotFound, format!("{}: {text}", program.display())));
    }
    let mut parts = vec![Part { source: program, target: format!("{HOME}/program") }];
    let mut loader = false;
    for library in libraries(&fs::read_to_string("/proc/self/maps")?) {
        let name = library.file_name().unwrap_or_default().to_string_lossy();
        let target = if name.starts_with("ld-linux") || name.starts_with("ld64") {
            loader = true;
            format!("{HOME}/loader")
        } else {
            format!("{HOME}/lib/{name}")
        };
        parts.push(Part { source: library, target });
    }
    if !loader {
        return Err(io::Error::other(
            "the running program has no loader, which a container would start it with",
        ));
    }
    let command = ["loader", "--argv0", entry::NAME_INSIDE, "--library-path", "lib", "program"];
    let absolute = |word: &str| match word {
        "loader" | "lib" | "program" => format!("{HOME}/{word}"),
        other => other.to_owned(),
    };
    Ok((parts, command.map(absolute).to_vec()))
}

/// The shared libraries in a process's memory map, each once.
fn libraries(maps: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    for line in maps.lines() {
        let Some(start) = line.find('/') else { continue };
        let path = Path::new(&line[start..]);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let library = name.ends_with(".so") || name.contains(".so.");
        if library && !found.iter().any(|known| known == path) {
            found.push(path.to_owned());
        }
    }
    found
}

/// The socket to the harness.
pub(crate) fn knock(door: &str) -> io::Result<OwnedFd> {
    UnixStream::connect(door).map(OwnedFd::from)
}

/// Whom a caller's workspace belongs to: the default user's number.
pub(crate) fn owner(workspace: &Path) -> Result<u32, Failure> {
    let owner = fs::metadata(workspace).map_err(|error| refused("workspace", error))?.uid();
    if owner == 0 {
        let reason = "the workspace belongs to root, and nobody in a container's sandbox is root: give the directory to \
                      an ordinary user, or leave it out";
        return Err(Failure::Invalid { reason: reason.into() });
    }
    Ok(owner)
}

/// Counts the kills by the container's memory limit, where the engine shows it.
pub(crate) fn kills() -> Option<File> {
    let files = ["/sys/fs/cgroup/memory/memory.oom_control", "/sys/fs/cgroup/memory.events"];
    files.into_iter().find_map(|path| File::open(path).ok())
}

/// Makes the accounts and the workspace what they are in every sandbox, and gives up the rights for that.
pub(crate) fn enter(setup: &Setup, accounts: &Accounts) -> Result<BTreeMap<String, String>, Failure> {
    let agent = accounts.user(None).map_or(0, |agent| agent.id);
    if setup.private {
        chown(&setup.workspace, Some(agent), Some(agent)).map_err(|error| refused("workspace", error))?;
    }
    let named = add_accounts(Path::new("/etc"), accounts)?;
    nix::unistd::setfsgid(nix::unistd::Gid::from_raw(agent));
    nix::unistd::setfsuid(nix::unistd::Uid::from_raw(agent));
    isolate::drop_rights()?;
    let known = [("capabilities", "none"), ("no_new_privs", "on"), ("seccomp", "on"), ("accounts", named)];
    Ok(known.into_iter().map(|(name, state)| (name.to_owned(), state.to_owned())).collect())
}

/// Puts the sandbox's accounts before the image's own.
fn add_accounts(etc: &Path, accounts: &Accounts) -> Result<&'static str, Failure> {
    let add = |name: &str, ours: &str| -> io::Result<()> {
        let path = etc.join(name);
        let theirs = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            other => other?,
        };
        fs::create_dir_all(etc)?;
        fs::write(&path, merge(ours, &theirs))
    };
    let read_only = |error: &io::Error| error.raw_os_error() == Some(Errno::ROFS.raw_os_error());
    match add("passwd", &accounts.passwd()).and_then(|()| add("group", &accounts.group_file())) {
        Ok(()) => Ok("in /etc/passwd"),
        Err(error) if read_only(&error) => Ok("numbers only: the image is read-only"),
        Err(error) => Err(refused("accounts", error)),
    }
}

/// Our lines, then those of theirs whose name is not ours.
fn merge(ours: &str, theirs: &str) -> String {
    let name = |line: &str| line.split(':').next().unwrap_or_default().to_owned();
    let taken: Vec<String> = ours.lines().map(name).collect();
    let mut merged = ours.to_owned();
    for line in theirs.lines().filter(|line| !line.trim().is_empty() && !taken.contains(&name(line))) {
        merged.push_str(line);
        merged.push('\n');
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sandboxs_accounts_come_first_and_the_images_stay() {
        let image = "root:x:0:0:root:/root:/bin/bash\nagent:x:7:7::/:/bin/false\nnode:x:1000:1000::/home/node:/bin/sh";
        assert_eq!(
            merge("root:x:0:0:root:/:/usr/sbin/nologin\nagent:x:1000:1000::/workspace:/bin/sh\n", image),
            "root:x:0:0:root:/:/usr/sbin/nologin\nagent:x:1000:1000::/workspace:/bin/sh\n\
             node:x:1000:1000::/home/node:/bin/sh\n"
        );
    }

    #[test]
    fn accounts_are_written_where_there_are_none() {
        let folder = tempfile::tempdir().unwrap();
        let etc = folder.path().join("etc");
        let accounts = Accounts::new("/workspace", "/bin/sh", &[], &[]).unwrap();
        assert_eq!(add_accounts(&etc, &accounts).unwrap(), "in /etc/passwd");
        assert_eq!(fs::read_to_string(etc.join("passwd")).unwrap(), accounts.passwd());
        assert_eq!(fs::read_to_string(etc.join("group")).unwrap(), accounts.group_file());
    }

    #[test]
    fn a_program_knows_its_own_parts() {
        let maps = "55d0-55d1 r-xp 00000000 fe:00 1 /usr/bin/with space\n\
                    7f00-7f01 r--p 00000000 fe:00 2 /lib/x86_64-linux-gnu/libc.so.6\n\
                    7f01-7f02 r-xp 00001000 fe:00 2 /lib/x86_64-linux-gnu/libc.so.6\n\
                    7f02-7f03 rw-p 00000000 00:00 0 [stack]\n\
                    7f03-7f04 r-xp 00000000 fe:00 3 /lib/my libs/libx.so\n";
        let expected = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib/my libs/libx.so"].map(PathBuf::from);
        assert_eq!(libraries(maps), expected);
        let (parts, command) = parts().unwrap();
        assert!(
            parts.iter().any(|part| part.target == "/.mooring/loader" && part.source.exists()),
            "{parts:?}"
        );
        assert_eq!(command[0], "/.mooring/loader");
    }
}
