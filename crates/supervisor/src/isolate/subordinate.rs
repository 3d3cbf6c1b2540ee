//! More than one user for a caller who is not root: the range of numbers that the system's administrator gave them.
//!
//! `/etc/subuid` and `/etc/subgid` say who has which, and `newuidmap` and `newgidmap`, which are set-user-id root,
//! write the map after looking there. So a sandbox of an ordinary user can have the manifest's users, without anybody
//! being asked for root's rights. Where there is no range, or these programs are missing, users are refused by name.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::Pid;

use super::refused;
use crate::accounts::{AGENT_ID, FIRST_USER};
use crate::wire::Failure;

/// The numbers that are mapped from [`FIRST_USER`] on: the manifest's users, then its groups.
const COUNT: u32 = 4096;

/// Where the two programs are.
const FOLDERS: [&str; 3] = ["/usr/bin", "/bin", "/usr/local/bin"];

/// Whether this user's sandboxes can have more users than one; if not, why.
pub fn more_users() -> Result<(), String> {
    first_of("/etc/subuid")?;
    first_of("/etc/subgid")?;
    program("newuidmap")?;
    program("newgidmap").map(drop)
}

/// Writes the map of a child in a new user namespace: the caller is the default user, the range is the others.
pub(crate) fn write_map(child: Pid) -> Result<(), Failure> {
    let user = rustix::process::geteuid().as_raw();
    let group = rustix::process::getegid().as_raw();
    for (name, file, own) in [("newuidmap", "/etc/subuid", user), ("newgidmap", "/etc/subgid", group)] {
        let fail = |reason: String| refused("subordinate users", std::io::Error::other(reason));
        let start = first_of(file).map_err(fail)?;
        let numbers = [child.as_raw_nonzero().get() as u32, AGENT_ID, own, 1, FIRST_USER, start, COUNT];
        let mapped = Command::new(program(name).map_err(fail)?)
            .args(numbers.map(|number| number.to_string()))
            .env_clear()
            .stdin(Stdio::null())
            .output()
            .map_err(|error| fail(format!("{name}: {error}")))?;
        if !mapped.status.success() {
            let said = String::from_utf8_lossy(&mapped.stderr);
            return Err(fail(format!("{name}: {}", said.trim())));
        }
    }
    Ok(())
}

fn program(name: &str) -> Result<String, String> {
    let paths = FOLDERS.map(|folder| format!("{folder}/{name}"));
    let found = paths.into_iter().find(|path| Path::new(path).exists());
    found.ok_or_else(|| format!("{name} is missing; it is in the package uidmap or shadow-utils"))
}

/// Where this user's first range that is large enough begins.
fn first_of(file: &str) -> Result<u32, String> {
    let user = rustix::process::geteuid().as_raw();
    let ranges = fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
    let accounts = fs::read_to_string("/etc/passwd").unwrap_or_default();
    find(&ranges, &accounts, user).ok_or_else(|| {
        format!("{file} has no range of {COUNT} numbers for this user; `usermod --add-subuids` and `--add-subgids` give one")
    })
}

/// Lines of `NAME-or-NUMBER:START:COUNT`.
fn find(ranges: &str, accounts: &str, user: u32) -> Option<u32> {
    let number = user.to_string();
    let own = accounts.lines().find(|line| line.split(':').nth(2) == Some(&number));
    let name = own.and_then(|line| line.split(':').next()).unwrap_or(&number);
    ranges.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (who, start, count) = (fields.next()?, fields.next()?, fields.next()?);
        let (start, count) = (start.trim().parse::<u32>().ok()?, count.trim().parse::<u32>().ok()?);
        let enough = count >= COUNT && start.checked_add(COUNT).is_some() && start > 0;
        ((who == name || who == number) && enough).then_some(start)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_the_users_by_name_or_number_and_large_enough() {
        let accounts = "root:x:0:0::/:/bin/sh\nann:x:1001:1001::/:/bin/sh\n";
        let ranges = "bob:100000:65536\nann:7:12\nann:200000:65536\n1002:300000:4096\n1002:bad:1\n";
        assert_eq!(find(ranges, accounts, 1001), Some(200_000));
        assert_eq!(find(ranges, accounts, 1002), Some(300_000));
        assert_eq!(find(ranges, accounts, 1003), None);
        assert_eq!(
            find("ann:0:65536\nann:4294967290:65536\n", accounts, 1001),
            None,
            "root's, and past the end"
        );
    }
}
