//! The start of a sandbox, outside of it: reads what is wanted, makes it, waits for its end and tidies up.
//!
//! The process that was started stays outside as the *monitor*; its child becomes the first process inside and
//! serves. The child has the socket, the monitor has not, so nothing but the harness keeps the sandbox alive: when
//! the harness is gone the child ends, the kernel ends everything with it, and the monitor removes the groups.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Resource, Rlimit, Signal, WaitOptions};

use crate::accounts::{AGENT_ID, Accounts};
use crate::clients::{Clients, Door};
use crate::config::{Config, Hello, Level, Ready, Setup, Task};
use crate::container;
use crate::disk;
use crate::frame::{Decoder, encode};
use crate::isolate::cgroup::Groups;
use crate::isolate::{self, identity, mounts, refused, storage};
use crate::kill::{Processes, kill_all};
use crate::linger::Lingering;
use crate::link::Link;
use crate::paths;
use crate::probe;
use crate::serve::{Server, child_signals};
use crate::sys;
use crate::wire::{Failure, GENERATION};
use crate::world::{World, find_shell};

/// The most open files of a command, and of the supervisor: 1,000 terminals need a few thousand.
const OPEN_FILES: u64 = 65_536;

/// The namespaces of a sandbox.
const NAMESPACES: i32 = libc::CLONE_NEWUSER
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS;

/// The whole life of a process that was started as the supervisor. `door` is where it finds its socket; `None`: at
/// standard input. Gives its exit code.
pub(crate) fn main(door: Option<&str>) -> i32 {
    match start(door) {
        Ok(code) => code,
        Err(error) => {
            // Captured by the client, for the case that the socket did not work.
            let _ = writeln!(io::stderr(), "moor-supervisor: {error}");
            1
        }
    }
}

fn start(door: Option<&str>) -> io::Result<i32> {
    sys::reset_signals();
    rustix::process::umask(Mode::from_raw_mode(0o022));
    // A Ctrl-C at the harness's terminal is the harness's to handle.
    let _ = rustix::process::setsid();
    // Where it was started is nobody's to keep busy.
    rustix::process::chdir("/")?;
    let socket = match door {
        None => rustix::io::fcntl_dupfd_cloexec(io::stdin(), 3)?,
        Some(path) => container::knock(path)?,
    };
    // Where mounts' devices go out, if there are any.
    let outlet = rustix::io::fcntl_dupfd_cloexec(io::stdout(), 3)?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&null)?;
    let mut decoder = Decoder::default();
    let config: Config = first_frame(&socket, &mut decoder)?;
    if config.generation != GENERATION {
        let reason =
            format!("the client speaks generation {}, this supervisor {GENERATION}", config.generation);
        say(&socket, &Hello::Failed(Failure::Invalid { reason }))?;
        return Ok(1);
    }
    let setup = match config.task {
        Task::Start(setup) => setup,
        Task::Discard { folder } => {
            say(&socket, &discard(&folder))?;
            return Ok(0);
        }
        Task::Probe { state_dir } => {
            say(&socket, &Hello::Checks(probe::checks(&state_dir)))?;
            return Ok(0);
        }
    };
    if !setup.mounts.is_empty() && setup.level == Level::None {
        let reason = "mounts need a sandbox with its own file system";
        say(&socket, &Hello::Failed(Failure::Invalid { reason: reason.into() }))?;
        return Ok(1);
    }
    if (setup.level == Level::Container) != door.is_some() {
        let reason = "a supervisor is in a container, and told so, or neither";
        say(&socket, &Hello::Failed(Failure::Invalid { reason: reason.into() }))?;
        return Ok(1);
    }
    let lingering = match setup.linger.as_ref().map(|linger| Lingering::make(&linger.folder)).transpose() {
        Ok(lingering) => lingering,
        Err(failure) => {
            say(&socket, &Hello::Failed(failure))?;
            return Ok(1);
        }
    };
    let ended = prepare_and_supervise(&setup, lingering.as_ref(), socket, outlet, decoder);
    if let Some(lingering) = &lingering {
        lingering.close();
    }
    ended
}

/// What a session's groups are named by. Its id alone would not do: another state directory may have the same.
fn group_name(setup: &Setup) -> String {
    let mut hasher = DefaultHasher::new();
    setup.workspace.hash(&mut hasher);
    format!("{}-{:08x}", setup.session, hasher.finish() as u32)
}

fn prepare_and_supervise(
    setup: &Setup,
    lingering: Option<&Lingering>,
    socket: OwnedFd,
    outlet: OwnedFd,
    decoder: Decoder,
) -> io::Result<i32> {
    let mut groups = match Groups::make(
        &group_name(setup),
        &setup.limits,
        setup.level == Level::Namespaces && !identity::is_root(),
    ) {
        Ok(groups) => groups,
        Err(failure) => {
            say(&socket, &Hello::Failed(failure))?;
            return Ok(1);
        }
    };
    let ended = supervise(setup, &mut groups, lingering, socket, outlet, decoder);
    groups.remove();
    ended
}

/// Starts the inner process and waits for its end.
fn supervise(
    setup: &Setup,
    groups: &mut Groups,
    lingering: Option<&Lingering>,
    socket: OwnedFd,
    outlet: OwnedFd,
    decoder: Decoder,
) -> io::Result<i32> {
    let isolated = setup.level == Level::Namespaces;
    let workspace = if isolated && identity::is_root() {
        let mapped = if setup.layers.is_empty() {
            identity::mapped_workspace(&setup.workspace, setup.private).map(|(tree, how)| (vec![tree], how))
        } else {
            let layers = identity::mapped_layers(&setup.workspace, &setup.layers);
            layers.map(|layers| (layers, "overlay of idmapped mounts"))
        };
        match mapped {
            Ok(workspace) => Some(workspace),
            Err(failure) => {
                say(&socket, &Hello::Failed(failure))?;
                return Ok(1);
            }
        }
    } else {
        None
    };
    // An ordinary user's are opened inside, with the rights that one has there.
    let opened = if workspace.is_some() { &setup.grants[..] } else { &[] };
    let granted = match isolate::grants::trees(opened, true) {
        Ok(granted) => granted,
        Err(failure) => {
            say(&socket, &Hello::Failed(failure))?;
            return Ok(1);
        }
    };
    if !isolated {
        // Without a pid namespace this catches what is left when the supervisor itself is killed.
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    }
    let (go, give_go) = pipe_with(PipeFlags::CLOEXEC)?;
    let namespaces = if isolated { NAMESPACES } else { 0 };
    let child = match sys::clone_process(namespaces) {
        Ok(Some(child)) => child,
        Ok(None) => {
            drop(give_go);
            let inner = Inner { setup, workspace, granted, groups, lingering, outlet };
            let result = inner.run(&go, &socket, decoder);
            sys::exit_now(match result {
                Ok(()) => 0,
                Err(failure) => {
                    let _ = say(&socket, &Hello::Failed(failure));
                    1
                }
            });
        }
        Err(error) => {
            say(&socket, &Hello::Failed(refused("user namespace", error)))?;
            return Ok(1);
        }
    };
    let mapped = if isolated { identity::write_map(child, has_users(setup)) } else { Ok(()) };
    match mapped.and_then(|()| groups.add(child)) {
        Ok(()) => {
            rustix::io::write(&give_go, b"!")?;
        }
        Err(failure) => {
            let _ = rustix::process::kill_process(child, Signal::KILL);
            say(&socket, &Hello::Failed(failure))?;
        }
    }
    drop((socket, outlet, go, workspace, granted));
    let code = wait_for(child)?;
    // Only now: its end tells the child that this process is gone.
    drop(give_go);
    if !isolated {
        kill_rest()?;
    }
    Ok(code)
}

/// Whether there is anybody but the default user.
fn has_users(setup: &Setup) -> bool {
    !setup.users.is_empty() || !setup.groups.is_empty()
}

fn wait_for(child: Pid) -> io::Result<i32> {
    loop {
        match rustix::process::waitpid(Some(child), WaitOptions::empty()) {
            Ok(Some((_, status))) => return Ok(status.exit_status().unwrap_or(1)),
            Ok(None) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Ends whatever a dead supervisor without a pid namespace left.
fn kill_rest() -> io::Result<()> {
    for _ in 0..1000 {
        let left = Processes::look()?.below(rustix::process::getpid());
        if left.is_empty() {
            return Ok(());
        }
        kill_all(&left);
        while let Ok(Some(_)) = rustix::process::wait(WaitOptions::NOHANG) {}
        std::thread::sleep(Duration::from_millis(1));
    }
    Err(io::Error::other("some processes cannot be killed"))
}

/// The first process inside.
struct Inner<'a> {
    setup: &'a Setup,
    /// Its layers, and how its files are shown. `None`: an ordinary user's.
    workspace: Option<(Vec<OwnedFd>, &'static str)>,
    /// The mounts of its grants, with a workspace that has layers here.
    granted: Vec<OwnedFd>,
    groups: &'a mut Groups,
    lingering: Option<&'a Lingering>,
    /// Where mounts' devices go.
    outlet: OwnedFd,
}

impl Inner<'_> {
    fn run(self, go: &OwnedFd, socket: &OwnedFd, decoder: Decoder) -> Result<(), Failure> {
        let fail = |what: &'static str| move |error: io::Error| refused(what, error);
        let mut byte = [0];
        if rustix::io::read(go, &mut byte).map_err(|errno| refused("start", errno))? == 0 {
            // The monitor gave up, and has said why.
            sys::exit_now(1)
        }
        let shell = find_shell();
        let mut accounts = Accounts::new(&self.setup.root, shell, &self.setup.users, &self.setup.groups)?;
        if self.setup.level == Level::Container && !self.setup.private {
            accounts.set_agent(container::owner(&self.setup.workspace)?);
        }
        limit_files().map_err(fail("open file limit"))?;
        if self.groups.process_limit.is_some() {
            let count = self.groups.process_limit;
            rustix::process::setrlimit(Resource::Nproc, Rlimit { current: count, maximum: count })
                .map_err(|errno| refused("RLIMIT_NPROC", errno))?;
        }
        let isolated = self.setup.level == Level::Namespaces;
        if !isolated {
            // Orphans come here, as they do to the first process of a pid namespace.
            let own = rustix::process::getpid();
            rustix::process::set_child_subreaper(Some(own)).map_err(|errno| refused("subreaper", errno))?;
        }
        let contained = self.setup.level == Level::Container;
        let mut mechanisms = match self.setup.level {
            Level::Namespaces => self.isolate(&accounts)?,
            Level::Container => {
                self.groups.kills = container::kills();
                container::enter(self.setup, &accounts)?
            }
            Level::None => self.not_isolated(),
        };
        if let Some(bytes) = self.setup.limits.disk_bytes {
            let how = format!("measured every {} ms at most, {bytes}", disk::INTERVAL.as_millis());
            mechanisms.insert("disk".into(), how);
        }
        follow_parent(go).map_err(fail("PR_SET_PDEATHSIG"))?;
        let root =
            if isolated { self.setup.root.clone() } else { self.setup.workspace.display().to_string() };
        let ready = Ready { generation: GENERATION, mechanisms, limits: self.setup.limits };
        // A root caller's sandbox has them all, whether the manifest names any or not.
        let many_users = contained || (isolated && (self.workspace.is_some() || has_users(self.setup)));
        let serve = || -> io::Result<()> {
            let world = World {
                level: self.setup.level,
                root_fd: paths::open_root(&root)?,
                root,
                accounts,
                many_users,
                environment: self.setup.environment.clone(),
                shell: find_shell(),
                kills: self.groups.kills.take(),
                mounts: self.setup.mounts.iter().map(|point| point.path.clone()).collect(),
            };
            let signals = child_signals()?;
            let socket = rustix::io::fcntl_dupfd_cloexec(socket, 3)?;
            rustix::io::ioctl_fionbio(&socket, true)?;
            let door = match (self.lingering, &self.setup.linger) {
                (Some(lingering), Some(linger)) => Some(Door {
                    listener: rustix::io::fcntl_dupfd_cloexec(&lingering.listener, 3)?,
                    grace: Duration::from_millis(linger.grace_ms),
                }),
                _ => None,
            };
            let clients = Clients::new(Link::new(socket, decoder), door, ready)?;
            Server::new(world, clients, signals, &self.setup.limits)?.run()
        };
        serve().map_err(fail("supervisor"))
    }

    /// Puts this process into its own world. The order matters: each step needs rights that a later one gives up.
    fn isolate(&self, accounts: &Accounts) -> Result<std::collections::BTreeMap<String, String>, Failure> {
        let root = self.workspace.is_some();
        let devices = storage::open(&self.setup.mounts)?;
        identity::become_inside().map_err(|errno| refused("user namespace", errno))?;
        // Now, so that the groups that it was just put into are its root.
        sys::unshare_cgroup().map_err(|errno| refused("cgroup namespace", errno))?;
        rustix::system::sethostname(b"sandbox").map_err(|errno| refused("uts namespace", errno))?;
        sys::loopback_up().map_err(|error| refused("network namespace", error))?;
        let own;
        let (workspace, files) = match &self.workspace {
            Some((layers, how)) => (layers, *how),
            None if self.setup.layers.is_empty() => {
                own = vec![identity::plain_workspace(&self.setup.workspace)?];
                (&own, "owned by the caller")
            }
            None => {
                own = identity::plain_layers(&self.setup.workspace, &self.setup.layers)?;
                (&own, "overlay, owned by the caller")
            }
        };
        let own;
        let grants = &self.setup.grants;
        let granted = if root {
            &self.granted
        } else {
            own = isolate::grants::trees(grants, false)?;
            &own
        };
        mounts::enter(&self.setup.root, workspace, (grants, granted), accounts)?;
        let agent = nix::unistd::Uid::from_raw(AGENT_ID);
        nix::unistd::setfsgid(nix::unistd::Gid::from_raw(AGENT_ID));
        nix::unistd::setfsuid(agent);
        storage::enter(&self.setup.root, &self.setup.mounts, devices, &self.outlet)?;
        isolate::drop_rights()?;
        let writable = grants.iter().filter(|grant| grant.writable).map(|grant| grant.path.as_str());
        let writable: Vec<&str> =
            [&self.setup.root, "/tmp", "/run", "/dev/shm"].into_iter().chain(writable).collect();
        let landlock = isolate::landlock::enter(&writable)?;
        let mut mechanisms = self.groups.mechanisms.clone();
        for grant in grants {
            let how = if grant.writable { "writable" } else { "read-only" };
            mechanisms.insert(format!("grant {}", grant.path), format!("{how}, {}", grant.source.display()));
        }
        let user = match (root, has_users(self.setup)) {
            (true, _) => "mapped range, not root outside",
            (false, true) => "the caller as 1000, others of its subordinate range",
            (false, false) => "the caller alone, as 1000",
        };
        for (name, state) in [
            ("user", user),
            ("mount", "own root, system read-only"),
            ("pid", "own"),
            ("network", "none but loopback"),
            ("ipc", "own"),
            ("uts", "own"),
            ("cgroup", "own"),
            ("seccomp", "on"),
            ("no_new_privs", "on"),
            ("capabilities", "none"),
            ("workspace", files),
            ("landlock", &landlock),
        ] {
            mechanisms.insert(name.into(), state.into());
        }
        Ok(mechanisms)
    }

    fn not_isolated(&self) -> std::collections::BTreeMap<String, String> {
        let mut mechanisms = self.groups.mechanisms.clone();
        for name in ["user", "mount", "pid", "network", "ipc", "uts", "seccomp"] {
            mechanisms.insert(name.into(), "the host's".into());
        }
        mechanisms
    }
}

/// Removes what several users of an ordinary caller's sandbox left: outside, the caller is a stranger to some of it.
fn discard(folder: &std::path::Path) -> Hello {
    let fail = |reason: String| {
        Hello::Failed(Failure::File {
            path: folder.display().to_string(),
            reason: format!("cannot remove: {reason}"),
        })
    };
    let removed = probe::attempt(libc::CLONE_NEWUSER, true, || match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    });
    removed.map_or_else(|error| fail(error.to_string()), |()| Hello::Done)
}

/// From here on the monitor's death is this process's too. A change of user would have undone it, so it comes last;
/// and it may have come too late.
fn follow_parent(go: &OwnedFd) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    rustix::io::ioctl_fionbio(go, true)?;
    match rustix::io::read(go, &mut [0]) {
        Err(Errno::AGAIN) => Ok(()),
        _ => Err(io::Error::other("the monitor has ended")),
    }
}

fn limit_files() -> io::Result<()> {
    let hard = rustix::process::getrlimit(Resource::Nofile).maximum.unwrap_or(OPEN_FILES).min(OPEN_FILES);
    let files = Rlimit { current: Some(hard), maximum: Some(hard) };
    rustix::process::setrlimit(Resource::Nofile, files)?;
    rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    Ok(())
}

fn first_frame(socket: &OwnedFd, decoder: &mut Decoder) -> io::Result<Config> {
    let mut buffer = [0; 16 << 10];
    loop {
        if let Some(frame) = decoder.next_frame().map_err(io::Error::other)? {
            return Ok(frame.header);
        }
        match rustix::io::read(socket, &mut buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => decoder.push(&buffer[..count]),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Says something while the socket still blocks.
fn say(socket: &OwnedFd, hello: &Hello) -> io::Result<()> {
    let bytes = encode(hello, 0).map_err(io::Error::other)?;
    let mut left = &bytes[..];
    while !left.is_empty() {
        left = &left[rustix::io::write(socket, left)?..];
    }
    Ok(())
}
