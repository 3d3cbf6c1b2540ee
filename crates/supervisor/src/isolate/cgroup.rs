//! Limits on what one sandbox uses, by control groups: version 2 where it has the controllers, else version 1.
//!
//! A limit that was asked for is enforced or refused. Nothing is made where none was asked for.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Pid;

use crate::config::Limits;
use crate::wire::Failure;

/// The time slice that a share of processors is measured in, in microseconds.
const PERIOD: u64 = 100_000;

/// One controller that a limit needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Controller {
    Memory,
    Pids,
    Cpu,
}

impl Controller {
    pub(crate) const ALL: [Self; 3] = [Self::Memory, Self::Pids, Self::Cpu];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Pids => "pids",
            Self::Cpu => "cpu",
        }
    }

    fn limit(self, limits: &Limits) -> Option<Vec<(&'static str, &'static str, String)>> {
        let quota = |cpus: f64| (cpus * PERIOD as f64).round().max(1000.0) as u64;
        match self {
            // Version 1 and version 2 file, and the value for each that differs.
            Self::Memory => limits
                .memory_bytes
                .map(|bytes| vec![("memory.limit_in_bytes", "memory.max", bytes.to_string())]),
            Self::Pids => limits.pids.map(|count| vec![("pids.max", "pids.max", count.to_string())]),
            Self::Cpu => limits.cpus.map(|cpus| {
                vec![
                    ("cpu.cfs_period_us", "", PERIOD.to_string()),
                    ("cpu.cfs_quota_us", "", quota(cpus).to_string()),
                    ("", "cpu.max", format!("{} {PERIOD}", quota(cpus))),
                ]
            }),
        }
    }
}

/// Where a controller's groups can be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) version: u8,
    /// The directory to make a group in, best first.
    pub(crate) parents: Vec<PathBuf>,
}

/// A sandbox's groups.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    folders: Vec<PathBuf>,
    /// Counts kills by the memory limit.
    pub(crate) kills: Option<File>,
    /// A limit on processes that is enforced without a group (see [`limit_without_group`]).
    pub(crate) process_limit: Option<u64>,
    /// What to tell of it.
    pub(crate) mechanisms: BTreeMap<String, String>,
}

impl Groups {
    /// Makes groups with these limits, empty as yet. `own_namespace`: the processes will be the only ones of their
    /// user in their user namespace.
    pub(crate) fn make(session: &str, limits: &Limits, own_namespace: bool) -> Result<Self, Failure> {
        let mut groups = Self::default();
        let mut layout = None;
        for controller in Controller::ALL {
            let name = controller.name();
            let Some(files) = controller.limit(limits) else {
                groups.mechanisms.insert(name.into(), "unlimited".into());
                continue;
            };
            // Looked up where a limit needs it, and once.
            let layout = layout.get_or_insert_with(Layout::of_this_process);
            let made = layout.as_ref().map_err(ToString::to_string).and_then(|layout| {
                let place = layout.place(controller).ok_or("this system has no such controller")?;
                groups.make_one(controller, &place, session, &files).map_err(|error| error.to_string())
            });
            if let (Err(_), Some(count), true) =
                (&made, limits.pids, own_namespace && controller == Controller::Pids)
                && limit_without_group()
            {
                groups.process_limit = Some(count);
                groups.mechanisms.insert(name.into(), format!("RLIMIT_NPROC, {count}"));
                continue;
            }
            if let Err(reason) = made {
                groups.remove();
                return Err(Failure::Isolation {
                    primitive: format!("cgroup {name} controller"),
                    reason,
                    hint: "run as root, have the group delegated (systemd: `Delegate=yes`; else `chown -R` \
                           a directory of that hierarchy to this user and start in it), or leave out this limit"
                        .into(),
                });
            }
        }
        Ok(groups)
    }

    fn make_one(
        &mut self,
        controller: Controller,
        place: &Place,
        session: &str,
        files: &[(&str, &str, String)],
    ) -> io::Result<()> {
        let mut last = io::Error::other("no group can be made here");
        for parent in &place.parents {
            match make_folder(parent, controller, place.version, session) {
                Ok(folder) => {
                    if !self.folders.contains(&folder) {
                        self.folders.push(folder.clone());
                    }
                    for (old, new, value) in files {
                        let file = if place.version == 1 { old } else { new };
                        if !file.is_empty() {
                            let path = folder.join(file);
                            fs::write(&path, value).map_err(|error| at(&path, &error))?;
                        }
                    }
                    if controller == Controller::Memory {
                        self.prepare_memory(&folder, place.version)?;
                    }
                    let value = files.last().map_or("", |(.., value)| value.as_str());
                    let text = format!("cgroup v{}, {value}", place.version);
                    self.mechanisms.insert(controller.name().into(), text);
                    return Ok(());
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn prepare_memory(&mut self, folder: &Path, version: u8) -> io::Result<()> {
        let file = if version == 1 { "memory.oom_control" } else { "memory.events" };
        self.kills = Some(File::open(folder.join(file))?);
        // Swap would let a sandbox use more than its limit. Both files exist only where swap is accounted.
        let (swap, value) = if version == 1 {
            let limit = fs::read_to_string(folder.join("memory.limit_in_bytes"))?;
            (folder.join("memory.memsw.limit_in_bytes"), limit)
        } else {
            (folder.join("memory.swap.max"), "0".into())
        };
        if swap.exists() { fs::write(&swap, value.trim()).map_err(|error| at(&swap, &error)) } else { Ok(()) }
    }

    /// Puts a process into the groups, and with it all that it starts.
    pub(crate) fn add(&self, process: Pid) -> Result<(), Failure> {
        for folder in &self.folders {
            let file = folder.join("cgroup.procs");
            fs::write(&file, process.as_raw_nonzero().to_string())
                .map_err(|error| super::refused("cgroup", at(&file, &error)))?;
        }
        Ok(())
    }

    /// Removes the groups. Their processes have ended, but the kernel may not have noticed yet.
    pub(crate) fn remove(&mut self) {
        for folder in std::mem::take(&mut self.folders) {
            for _ in 0..200 {
                match fs::remove_dir(&folder) {
                    Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                        std::thread::sleep(Duration::from_millis(5));
                    }
                    // An empty group that stays is used again by the session's next start.
                    _ => break,
                }
            }
        }
    }
}

/// Whether `RLIMIT_NPROC` counts by user namespace. Before Linux 5.14 it counted all processes of the user outside,
/// so that it limited a sandbox by what else its user did.
fn limit_without_group() -> bool {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(5), Some(14))
}

/// Makes a group below `parent`, with the controller switched on in it.
pub(crate) fn make_folder(
    parent: &Path,
    controller: Controller,
    version: u8,
    session: &str,
) -> io::Result<PathBuf> {
    let folder = parent.join(format!("mooring-{session}"));
    match fs::create_dir(&folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(at(&folder, &error)),
        _ => {}
    }
    if version == 2 {
        let enabled = fs::read_to_string(folder.join("cgroup.controllers"))?;
        if !enabled.split_whitespace().any(|name| name == controller.name()) {
            let control = parent.join("cgroup.subtree_control");
            if let Err(error) = fs::write(&control, format!("+{}", controller.name())) {
                let _ = fs::remove_dir(&folder);
                return Err(at(&control, &error));
            }
        }
    }
    Ok(folder)
}

fn at(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Which hierarchies are mounted where, and where in each this process is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Mount points: controllers (none for version 2) and path.
    mounts: Vec<(Vec<String>, PathBuf)>,
    /// This process's groups, the same way.
    own: Vec<(Vec<String>, String)>,
    /// Controllers of version 2, at its root.
    unified: Vec<String>,
}

impl Layout {
    pub(crate) fn of_this_process() -> io::Result<Self> {
        let mut layout =
            Self::parse(&fs::read_to_string("/proc/self/mounts")?, &fs::read_to_string("/proc/self/cgroup")?);
        if let Some((_, root)) = layout.mounts.iter().find(|(controllers, _)| controllers.is_empty()) {
            let available = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
            layout.unified = available.split_whitespace().map(str::to_owned).collect();
        }
        Ok(layout)
    }

    fn parse(mounts: &str, own: &str) -> Self {
        let mounts = mounts.lines().filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (path, kind, options) = (fields.next()?, fields.next()?, fields.next()?);
            let controllers = match kind {
                "cgroup2" => Vec::new(),
                "cgroup" => options.split(',').map(str::to_owned).collect(),
                _ => return None,
            };
            Some((controllers, PathBuf::from(path)))
        });
        let own = own.lines().filter_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, path) = (fields.next()?, fields.next()?);
            let controllers = controllers.split(',').filter(|name| !name.is_empty()).map(str::to_owned);
            Some((controllers.collect(), path.to_owned()))
        });
        Self { mounts: mounts.collect(), own: own.collect(), unified: Vec::new() }
    }

    /// Where a controller's groups can be made. Version 2 first.
    pub(crate) fn place(&self, controller: Controller) -> Option<Place> {
        let name = controller.name();
        let version = if self.unified.iter().any(|unified| unified == name) { 2 } else { 1 };
        let is_it = |controllers: &[String]| {
            if version == 2 { controllers.is_empty() } else { controllers.iter().any(|other| other == name) }
        };
        let (_, mount) = self.mounts.iter().find(|(controllers, _)| is_it(controllers))?;
        let own = self.own.iter().find(|(controllers, _)| is_it(controllers)).map_or("/", |(_, path)| path);
        let own = mount.join(own.trim_start_matches('/'));
        let mut parents = vec![own.clone()];
        if version == 2 {
            // A group with processes in it cannot have limited children, so beside it comes first.
            if let Some(beside) = own.parent().filter(|beside| beside.starts_with(mount)) {
                parents.insert(0, beside.to_owned());
            }
        }
        // In a container the path may be the host's, and not visible here.
        parents.retain(|parent| parent.is_dir());
        if !parents.contains(mount) {
            parents.push(mount.clone());
        }
        Some(Place { version, parents })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_1_where_version_2_has_no_controllers() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().display().to_string();
        for path in ["memory/a/b", "unified"] {
            fs::create_dir_all(folder.path().join(path)).unwrap();
        }
        let mounts = format!(
            "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup {root}/memory cgroup rw,relatime,memory 0 0\n\
             cgroup {root}/cpu cgroup rw,cpu,cpuacct 0 0\ncgroup2 {root}/unified cgroup2 rw 0 0\n"
        );
        let mut layout = Layout::parse(&mounts, "4:memory:/a/b\n1:cpu,cpuacct:/gone\n0::/x\n");
        let at = |path: &str| folder.path().join(path);
        assert_eq!(
            layout.place(Controller::Memory),
            Some(Place { version: 1, parents: vec![at("memory/a/b"), at("memory")] })
        );
        assert_eq!(layout.place(Controller::Cpu), Some(Place { version: 1, parents: vec![at("cpu")] }));
        assert_eq!(layout.place(Controller::Pids), None);

        layout.unified = vec!["memory".into()];
        fs::create_dir_all(at("unified/x")).unwrap();
        assert_eq!(
            layout.place(Controller::Memory),
            Some(Place { version: 2, parents: vec![at("unified"), at("unified/x")] })
        );
    }
}
