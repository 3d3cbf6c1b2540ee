//! Users and groups inside a sandbox: their numbers, memberships, and the files that tell programs about them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::wire::Failure;

/// The default user's name, number and group.
pub(crate) const AGENT: &str = "agent";
pub(crate) const AGENT_ID: u32 = 1000;

/// The numbers of the manifest's users and groups start here.
pub(crate) const FIRST_USER: u32 = 2000;
pub(crate) const FIRST_GROUP: u32 = 3000;

/// All accounts of a sandbox.
#[derive(Debug, Clone)]
pub(crate) struct Accounts {
    home: String,
    shell: &'static str,
    users: Vec<Account>,
    groups: Vec<(String, u32, Vec<String>)>,
}

/// Whom a command runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) name: String,
    /// User and primary group: every user has a group of its own.
    pub(crate) id: u32,
    /// Supplementary groups.
    pub(crate) groups: Vec<u32>,
}

impl Accounts {
    /// Numbers users and groups in the order given, so that the same manifest has the same numbers everywhere.
    pub(crate) fn new(
        home: &str,
        shell: &'static str,
        users: &[String],
        groups: &[(String, Vec<String>)],
    ) -> Result<Self, Failure> {
        let mut names: Vec<&String> = Vec::new();
        for name in users.iter().chain(groups.iter().flat_map(|(_, members)| members)) {
            check_name("user", name)?;
            if name != AGENT && !names.contains(&name) {
                names.push(name);
            }
        }
        let mut numbered = vec![Account { name: AGENT.into(), id: AGENT_ID, groups: Vec::new() }];
        for (name, id) in names.into_iter().zip(FIRST_USER..FIRST_GROUP) {
            numbered.push(Account { name: name.clone(), id, groups: Vec::new() });
        }
        let mut accounts = Self { home: home.into(), shell, users: numbered, groups: Vec::new() };
        for ((name, members), id) in groups.iter().zip(FIRST_GROUP..) {
            check_name("group", name)?;
            // A group named like a user is that user's own group.
            let id = accounts.user(Some(name)).map_or(id, |user| user.id);
            for user in &mut accounts.users {
                if members.contains(&user.name) && user.id != id && !user.groups.contains(&id) {
                    user.groups.push(id);
                }
            }
            accounts.groups.push((name.clone(), id, members.clone()));
        }
        Ok(accounts)
    }

    /// Gives the default user another number.
    pub(crate) fn set_agent(&mut self, id: u32) {
        if let Some(agent) = self.users.first_mut() {
            agent.id = id;
        }
    }

    /// An account by name; `None`: the default user.
    pub(crate) fn user(&self, name: Option<&str>) -> Option<&Account> {
        let name = name.unwrap_or(AGENT);
        self.users.iter().find(|user| user.name == name)
    }

    /// A group's number by name.
    pub(crate) fn group(&self, name: &str) -> Option<u32> {
        let named = self.groups.iter().find(|(group, ..)| group == name).map(|(_, id, _)| *id);
        named.or_else(|| self.user(Some(name)).map(|user| user.id))
    }

    /// A user's and a group's names by their numbers; empty for whoever is not known here.
    pub(crate) fn names(&self, user: u32, group: u32) -> (&str, &str) {
        let by_id = |id| self.users.iter().find(|user| user.id == id).map(|user| &user.name);
        let group_name = self.groups.iter().find(|(_, id, _)| *id == group).map(|(name, ..)| name);
        (by_id(user).map_or("", String::as_str), group_name.or(by_id(group)).map_or("", String::as_str))
    }

    /// The same for what leaves the sandbox: empty for the default user too, whoever that is elsewhere.
    pub(crate) fn kept_names(&self, user: u32, group: u32) -> (&str, &str) {
        let kept = |name| if name == AGENT { "" } else { name };
        let (user, group) = self.names(user, group);
        (kept(user), kept(group))
    }

    /// The names of everybody but the default user, and of the groups, by number.
    pub(crate) fn by_number(&self) -> (BTreeMap<u32, String>, BTreeMap<u32, String>) {
        let named = |user: &Account| (user.id, user.name.clone());
        let users: BTreeMap<u32, String> =
            self.users.iter().filter(|user| user.id != AGENT_ID).map(named).collect();
        let own = self.groups.iter().filter(|(_, id, _)| *id != AGENT_ID);
        let mut groups = users.clone();
        groups.extend(own.map(|(name, id, _)| (*id, name.clone())));
        (users, groups)
    }

    /// Whether there is anyone but the default user.
    pub(crate) fn has_more(&self) -> bool {
        self.users.len() > 1 || !self.groups.is_empty()
    }

    /// `/etc/passwd`.
    pub(crate) fn passwd(&self) -> String {
        let mut text = String::from("root:x:0:0:root:/:/usr/sbin/nologin\n");
        for Account { name, id, .. } in &self.users {
            let _ = writeln!(text, "{name}:x:{id}:{id}::{}:{}", self.home, self.shell);
        }
        text + "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
    }

    /// `/etc/group`.
    pub(crate) fn group_file(&self) -> String {
        let mut text = String::from("root:x:0:\ntty:x:5:\n");
        for Account { name, id, .. } in &self.users {
            let members = self.groups.iter().find(|(group, ..)| group == name).map(|(.., members)| members);
            let _ = writeln!(text, "{name}:x:{id}:{}", members.map(|all| all.join(",")).unwrap_or_default());
        }
        for (name, id, members) in &self.groups {
            if *id >= FIRST_GROUP {
                let _ = writeln!(text, "{name}:x:{id}:{}", members.join(","));
            }
        }
        text + "nogroup:x:65534:\n"
    }
}

/// What `useradd` accepts. A name ends up in a colon-separated file.
fn check_name(kind: &str, name: &str) -> Result<(), Failure> {
    let first = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
    let rest = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-');
    let taken = ["root", "nobody", "nogroup", "tty"].contains(&name);
    if first && rest && name.len() <= 32 && !taken {
        return Ok(());
    }
    let reason = if taken {
        format!("{kind} '{name}' is the system's own; use another name")
    } else {
        format!("{kind} name '{name}' must be 1 to 32 of a-z, 0-9, '_' and '-', a letter or '_' first")
    };
    Err(Failure::Invalid { reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_the_manifest_and_a_group_named_like_a_user_is_that_users() {
        let accounts = Accounts::new(
            "/workspace",
            "/bin/sh",
            &["zoe".into(), "abe".into()],
            &[("dev".into(), vec!["abe".into(), "kim".into()]), ("zoe".into(), vec!["kim".into()])],
        )
        .unwrap();
        assert_eq!(
            accounts.passwd(),
            "root:x:0:0:root:/:/usr/sbin/nologin\n\
             agent:x:1000:1000::/workspace:/bin/sh\n\
             zoe:x:2000:2000::/workspace:/bin/sh\n\
             abe:x:2001:2001::/workspace:/bin/sh\n\
             kim:x:2002:2002::/workspace:/bin/sh\n\
             nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
        );
        assert_eq!(
            accounts.group_file(),
            "root:x:0:\ntty:x:5:\nagent:x:1000:\nzoe:x:2000:kim\nabe:x:2001:\nkim:x:2002:\n\
             dev:x:3000:abe,kim\nnogroup:x:65534:\n"
        );
        assert_eq!(accounts.user(Some("kim")).unwrap().groups, [3000, 2000]);
        assert_eq!(accounts.group("zoe"), Some(2000));
    }

    #[test]
    fn the_default_user_has_no_name_elsewhere_whatever_its_number_is_here() {
        let mut accounts =
            Accounts::new("/w", "/bin/sh", &["zoe".into()], &[("dev".into(), Vec::new())]).unwrap();
        for own in [AGENT_ID, 2345] {
            accounts.set_agent(own);
            assert_eq!(accounts.names(own, own), ("agent", "agent"));
            assert_eq!(accounts.kept_names(own, own), ("", ""));
            assert_eq!(accounts.kept_names(2000, 3000), ("zoe", "dev"));
            assert_eq!(accounts.names(7, 7), ("", ""));
        }
    }

    #[test]
    fn a_name_cannot_write_a_line_of_its_own() {
        for name in ["root", "a:b", "x\ny", "", "Upper", "1st"] {
            let refused = Accounts::new("/w", "/bin/sh", &[name.into()], &[]);
            assert!(matches!(refused, Err(Failure::Invalid { .. })), "{name:?} was accepted");
        }
    }
}
