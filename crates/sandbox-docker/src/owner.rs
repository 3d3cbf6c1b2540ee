//! Who started a container: what tells whether anybody is left whom it serves.

use std::collections::HashMap;

/// The label that every container and volume of ours has, with the session's id.
pub(crate) const SESSION: &str = "dev.mooring.session";
const OWNER: &str = "dev.mooring.owner";
const HOST: &str = "dev.mooring.host";

/// A process, so that it cannot be mistaken for a later one of the same number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owner {
    /// `number:moment of its start`.
    process: String,
    /// `boot of the kernel:namespace of process numbers:host's name`.
    host: String,
}

/// What is known about an owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    /// It is this process.
    Myself,
    /// It runs.
    Lives,
    /// It does not.
    Dead,
    /// It is on another machine, or in a container of its own: it cannot be seen from here.
    Elsewhere,
}

impl Owner {
    /// This process.
    pub(crate) fn this() -> std::io::Result<Self> {
        let number = std::process::id();
        let start =
            start_of(number).ok_or_else(|| std::io::Error::other("/proc/self/stat cannot be read"))?;
        Ok(Self { process: format!("{number}:{start}"), host: host()? })
    }

    /// What a container is labelled with.
    pub(crate) fn labels(&self, session: &str) -> HashMap<String, String> {
        let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        HashMap::from([label(SESSION, session), label(OWNER, &self.process), label(HOST, &self.host)])
    }

    /// What is known about the owner of a container with these labels. `self` is this process.
    pub(crate) fn judge(&self, labels: &HashMap<String, String>) -> Known {
        let (Some(process), Some(host)) = (labels.get(OWNER), labels.get(HOST)) else {
            return Known::Elsewhere;
        };
        if *host != self.host {
            // The same machine, booted since: nothing of before runs.
            let [(own_boot, _, own_name), (boot, _, name)] = [&self.host, host].map(|host| parts(host));
            return if own_name == name && own_boot != boot { Known::Dead } else { Known::Elsewhere };
        }
        if *process == self.process {
            return Known::Myself;
        }
        let lives = process.split_once(':').is_some_and(|(number, start)| {
            number.parse().ok().and_then(start_of).is_some_and(|found| found.to_string() == start)
        });
        if lives { Known::Lives } else { Known::Dead }
    }
}

fn parts(host: &str) -> (&str, &str, &str) {
    let mut parts = host.splitn(3, ' ');
    let mut next = || parts.next().unwrap_or_default();
    (next(), next(), next())
}

fn host() -> std::io::Result<String> {
    let boot = fs_err::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let namespace = fs_err::read_link("/proc/self/ns/pid")?;
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    Ok(format!("{} {} {name}", boot.trim(), namespace.display()))
}

/// When a process was started, in ticks since the boot.
fn start_of(process: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name, in brackets, may hold anything.
    stat.rsplit(')').next()?.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(process: &str, host: &str) -> HashMap<String, String> {
        Owner { process: process.into(), host: host.into() }.labels("s")
    }

    #[test]
    fn an_owner_is_told_from_a_later_process_of_its_number() {
        let own = Owner::this().unwrap();
        assert_eq!(own.judge(&own.labels("s")), Known::Myself);
        let parent = rustix::process::getppid().unwrap().as_raw_nonzero().get() as u32;
        let start = start_of(parent).unwrap();
        assert_eq!(own.judge(&labels(&format!("{parent}:{start}"), &own.host)), Known::Lives);
        assert_eq!(own.judge(&labels(&format!("{parent}:{}", start + 1), &own.host)), Known::Dead);
        assert_eq!(own.judge(&labels("4194999:1", &own.host)), Known::Dead);
        assert_eq!(own.judge(&labels("nonsense", &own.host)), Known::Dead);
    }

    #[test]
    fn who_cannot_be_seen_is_not_called_dead() {
        let own = Owner::this().unwrap();
        let (boot, namespace, name) = parts(&own.host);
        let elsewhere = |host: String| own.judge(&labels("1:1", &host));
        assert_eq!(elsewhere(format!("{boot} pid:[1] {name}")), Known::Elsewhere, "another container");
        assert_eq!(elsewhere(format!("another-boot {namespace} other-host")), Known::Elsewhere);
        assert_eq!(elsewhere(format!("an-earlier-boot {namespace} {name}")), Known::Dead);
        assert_eq!(own.judge(&HashMap::new()), Known::Elsewhere);
    }
}
