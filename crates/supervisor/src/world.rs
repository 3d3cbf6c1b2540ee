//! What stays the same for all calls of a session: the root, the accounts, the variables.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::OwnedFd;

use crate::accounts::Accounts;
use crate::config::Level;

pub(crate) struct World {
    pub(crate) level: Level,
    /// The workspace's path, as commands see it.
    pub(crate) root: String,
    /// The same, opened.
    pub(crate) root_fd: OwnedFd,
    pub(crate) accounts: Accounts,
    /// Whether commands can run as another user: not where a single one is mapped.
    pub(crate) many_users: bool,
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) shell: &'static str,
    /// The memory cgroup's file that counts kills.
    pub(crate) kills: Option<File>,
    /// What is served from outside, relative to the root. The supervisor never waits for it.
    pub(crate) mounts: Vec<String>,
}

impl World {
    /// How many processes the memory limit has killed so far.
    pub(crate) fn killed_by_memory(&self) -> u64 {
        use std::os::unix::fs::FileExt as _;
        let Some(file) = &self.kills else { return 0 };
        let mut buffer = [0; 512];
        let count = file.read_at(&mut buffer, 0).unwrap_or(0);
        let text = String::from_utf8_lossy(&buffer[..count]);
        let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        line.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
    }
}

/// The shell that the system has.
pub(crate) fn find_shell() -> &'static str {
    let shells = ["/bin/bash", "/usr/bin/bash", "/usr/local/bin/bash"];
    shells.into_iter().find(|shell| std::fs::exists(shell).unwrap_or(false)).unwrap_or("/bin/sh")
}
