//! From a call to a running command: its program, variables, directory, user and streams.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use mooring_sandbox::CommandLine;
use rustix::fs::{Mode, OFlags};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::pty::OpenptFlags;

use crate::config::Level;
use crate::exec;
use crate::log::Log;
use crate::process::{Process, Stdin, set_size};
use crate::sys::{self, Launch};
use crate::wire::{Failure, Input, Spawn};
use crate::world::World;

/// Where programs are looked up unless the manifest or the call says otherwise.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The most output that may be kept for one command.
const OUTPUT_LIMIT: u64 = 256 << 20;

/// Starts a command, whose files may grow to `file_size`. That its program runs is known when its reaper says so.
pub(crate) fn spawn(
    world: &World,
    call: &Spawn,
    input: Vec<u8>,
    file_size: Option<u64>,
    now: Instant,
) -> Result<Process, Failure> {
    let command = describe(&call.command);
    let fail = |reason: String| Failure::Start { command: command.clone(), reason };
    let user = world.accounts.user(call.user.as_deref()).ok_or_else(|| {
        fail(format!("no user '{}': declare it in the manifest", call.user.as_deref().unwrap_or_default()))
    })?;
    let env = environment(world, call, &user.name);
    let argv = arguments(world, &call.command).map_err(fail)?;
    let programs = programs(&argv[0], env.get("PATH").map_or("", String::as_str));
    if programs.is_empty() {
        return Err(fail("the program has no name, or PATH is empty".into()));
    }
    let cwd = match call.cwd.as_deref() {
        None => world.root.clone(),
        Some(path) if path.starts_with('/') => path.into(),
        Some(path) => format!("{}/{path}", world.root),
    };
    if let Some(name) = env.keys().find(|name| name.is_empty() || name.contains('=')) {
        return Err(fail(format!("'{name}' is no name for a variable")));
    }
    let env = env.into_iter().map(|(name, value)| format!("{name}={value}"));
    let system = |what: &'static str| {
        let command = command.clone();
        move |errno: rustix::io::Errno| Failure::Start {
            command,
            reason: format!("{what}: {}", std::io::Error::from(errno)),
        }
    };
    let streams = Streams::open(call).map_err(system("its standard streams"))?;
    let (status, status_end) = pipe_with(PipeFlags::CLOEXEC).map_err(system("a pipe"))?;
    // This side's ends only: a pipe's ends are apart in this.
    for fd in [&status].into_iter().chain(&streams.stdin).chain(&streams.stdout).chain(&streams.stderr) {
        rustix::io::ioctl_fionbio(fd, true).map_err(system("its standard streams"))?;
    }
    let launch = Launch {
        programs: c_strings(programs).map_err(fail)?,
        argv: c_strings(argv).map_err(fail)?,
        env: c_strings(env).map_err(fail)?,
        cwd: c_string(cwd).map_err(fail)?,
        stdio: streams.inside,
        terminal: call.tty.is_some(),
        identity: world.many_users.then(|| (user.id, user.id, user.groups.clone())),
        confined: world.level != Level::None,
        file_size,
    };
    let reaper = match sys::fork() {
        Ok(Some(pid)) => pid,
        Ok(None) => exec::reaper(launch, &status_end),
        Err(error) => {
            let hint = match error.raw_os_error() {
                Some(libc::EAGAIN) => "; the sandbox's limit on processes is reached",
                _ => "",
            };
            return Err(fail(format!("the new process: {error}{hint}")));
        }
    };
    let limit = call.output_limit.min(OUTPUT_LIMIT) as usize;
    let mut process = Process::new(command.clone(), reaper, limit, now);
    if call.paced {
        process.log = Log::unread(limit);
    }
    process.disk_limited = file_size.is_some();
    process.kills_before = world.killed_by_memory();
    process.deadline = call.timeout_ms.map(|limit| now + Duration::from_millis(limit));
    process.stdout = streams.stdout;
    process.stderr = streams.stderr;
    process.status = Some(status);
    if let Some(fd) = streams.stdin {
        let (terminal, queue) = (call.tty.is_some(), VecDeque::from(input));
        process.stdin = Some(Stdin { fd, terminal, queue, last: false });
        match call.stdin {
            Input::Bytes => process.close_stdin(),
            Input::Null | Input::Open => {}
        }
    }
    Ok(process)
}

/// A command's streams: what it gets, and the other ends.
struct Streams {
    inside: [OwnedFd; 3],
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
}

impl Streams {
    fn open(call: &Spawn) -> Result<Self, rustix::io::Errno> {
        if let Some(size) = call.tty {
            let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
            let outside = rustix::pty::openpt(flags)?;
            rustix::pty::unlockpt(&outside)?;
            set_size(&outside, size)?;
            // By the descriptor, not by a path that somebody could put something else at.
            let inside = rustix::pty::ioctl_tiocgptpeer(&outside, flags)?;
            let copies = [copy(&inside)?, copy(&inside)?, inside];
            return Ok(Self {
                inside: copies,
                stdin: Some(copy(&outside)?),
                stdout: Some(outside),
                stderr: None,
            });
        }
        let (stdin, stdin_inside) = if call.stdin == Input::Null {
            let null = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
            (None, null)
        } else {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
            (Some(write), read)
        };
        let (stdout, stdout_inside) = pipe_with(PipeFlags::CLOEXEC)?;
        let (stderr, stderr_inside) = pipe_with(PipeFlags::CLOEXEC)?;
        Ok(Self {
            inside: [stdin_inside, stdout_inside, stderr_inside],
            stdin,
            stdout: Some(stdout),
            stderr: Some(stderr),
        })
    }
}

fn copy(fd: &OwnedFd) -> Result<OwnedFd, rustix::io::Errno> {
    rustix::io::fcntl_dupfd_cloexec(fd, 3)
}

fn environment(world: &World, call: &Spawn, user: &str) -> BTreeMap<String, String> {
    let shell = world.shell.to_owned();
    let mut env: BTreeMap<String, String> = [
        ("PATH", PATH.to_owned()),
        ("HOME", world.root.clone()),
        ("USER", user.to_owned()),
        ("LOGNAME", user.to_owned()),
        ("SHELL", shell),
        ("LANG", "C.UTF-8".to_owned()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect();
    if call.tty.is_some() {
        env.insert("TERM".into(), "xterm-256color".into());
    }
    env.extend(world.environment.clone());
    env.extend(call.env.clone());
    env
}

fn arguments(world: &World, command: &CommandLine) -> Result<Vec<String>, String> {
    match command {
        CommandLine::Argv(argv) if argv.is_empty() => Err("no program was given".into()),
        CommandLine::Argv(argv) => Ok(argv.clone()),
        CommandLine::Shell { line, shell, login } => {
            let shell = shell.clone().unwrap_or_else(|| world.shell.into());
            Ok(vec![shell, if *login { "-lc" } else { "-c" }.into(), line.clone()])
        }
    }
}

/// The paths at which a program may be, as `execvp` has them.
fn programs(name: &str, path: &str) -> Vec<String> {
    if name.is_empty() {
        return Vec::new();
    }
    if name.contains('/') {
        return vec![name.into()];
    }
    path.split(':').filter(|folder| !folder.is_empty()).map(|folder| format!("{folder}/{name}")).collect()
}

fn c_strings(strings: impl IntoIterator<Item = String>) -> Result<Vec<CString>, String> {
    strings.into_iter().map(c_string).collect()
}

fn c_string(string: String) -> Result<CString, String> {
    CString::new(string).map_err(|_| "a NUL byte in an argument, a variable or the directory".into())
}

/// The command as an error tells it: one line, not too long.
fn describe(command: &CommandLine) -> String {
    let whole = match command {
        CommandLine::Argv(argv) => argv.join(" "),
        CommandLine::Shell { line, .. } => line.clone(),
    };
    let line = whole.lines().next().unwrap_or_default();
    let mut short: String = line.chars().take(120).collect();
    if short.len() < whole.len() {
        short.push('…');
    }
    short
}
