//! What is outside: things that nothing in a sandbox may reach, and that notice when it does.

use std::io::ErrorKind;
use std::net::{IpAddr, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use fs_err as fs;
use tempfile::TempDir;

use crate::front::Front;
use crate::knocks::Knocks;
use crate::way_out::Names;

/// A file with a secret in a directory that anybody may write to; servers of each kind; a process.
#[derive(Debug)]
pub struct Outside {
    folder: TempDir,
    secret: String,
    tcp: Knocks,
    udp: UdpSocket,
    socket: UnixListener,
    hidden: UnixListener,
    process: Mutex<Child>,
    /// The server that an allow-list names.
    pub(crate) allowed: Front,
    /// What looks names up for the way out.
    pub(crate) names: Arc<Names>,
}

impl Outside {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let secret = unique("secret");
        fs::write(folder.path().join("secret"), &secret).unwrap();
        let socket = UnixListener::bind(folder.path().join("socket")).unwrap();
        fs::set_permissions(folder.path().join("socket"), std::fs::Permissions::from_mode(0o777)).unwrap();
        let hidden = SocketAddr::from_abstract_name(&secret).unwrap();
        let hidden = UnixListener::bind_addr(&hidden).unwrap();
        let tcp = Knocks::start();
        let udp = UdpSocket::bind("0.0.0.0:0").unwrap();
        udp.set_nonblocking(true).unwrap();
        socket.set_nonblocking(true).unwrap();
        hidden.set_nonblocking(true).unwrap();
        let process = Command::new("sleep")
            .arg("600")
            .env("MOORING_TEST_SECRET", &secret)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let allowed = Front::start(tcp.port());
        let process = Mutex::new(process);
        Self { folder, secret, tcp, udp, socket, hidden, process, allowed, names: Arc::default() }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn secret_file(&self) -> PathBuf {
        self.folder.path().join("secret")
    }

    /// The port at which nothing may arrive.
    pub(crate) fn port(&self) -> u16 {
        self.tcp.port()
    }

    pub(crate) fn secret(&self) -> &str {
        &self.secret
    }

    /// What an attempt is told, as variables.
    pub(crate) fn variables(&self) -> Vec<(&'static str, String)> {
        let path = |path: PathBuf| path.display().to_string();
        let addresses: Vec<String> = addresses().iter().map(ToString::to_string).collect();
        vec![
            ("OUTSIDE", path(self.folder.path().to_owned())),
            ("SECRET_FILE", path(self.secret_file())),
            ("SOCKET", path(self.folder.path().join("socket"))),
            ("ABSTRACT", self.secret.clone()),
            ("PORT", self.port().to_string()),
            ("ALLOWED_PORT", self.allowed.port().to_string()),
            ("UDP_PORT", self.udp.local_addr().unwrap().port().to_string()),
            ("ADDRESSES", addresses.join(" ")),
            ("HOST_PID", self.process.lock().unwrap_or_else(PoisonError::into_inner).id().to_string()),
        ]
    }

    /// What has been noticed since the last look.
    pub(crate) fn noticed(&self) -> Vec<String> {
        let mut seen = Vec::new();
        for entry in fs::read_dir(self.folder.path()).unwrap() {
            let name = entry.unwrap().file_name();
            if name != "secret" && name != "socket" {
                seen.push(format!("a file appeared outside: {}", name.display()));
            }
        }
        if fs::read_to_string(self.secret_file()).unwrap_or_default() != self.secret {
            seen.push("a file outside was changed".to_owned());
        }
        let nothing = |kind| kind == ErrorKind::WouldBlock;
        if self.tcp.noticed() {
            seen.push("a TCP connection arrived".to_owned());
        }
        if !matches!(self.udp.recv(&mut [0; 2048]), Err(error) if nothing(error.kind())) {
            seen.push("a datagram arrived".to_owned());
        }
        if !matches!(self.socket.accept(), Err(error) if nothing(error.kind())) {
            seen.push("a connection to a socket file arrived".to_owned());
        }
        if !matches!(self.hidden.accept(), Err(error) if nothing(error.kind())) {
            seen.push("a connection to an abstract socket arrived".to_owned());
        }
        seen.extend(self.allowed.noticed());
        if let Some(status) = self.process.lock().unwrap_or_else(PoisonError::into_inner).try_wait().unwrap()
        {
            seen.push(format!("a process outside ended: {status}"));
        }
        seen
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        // It may have ended already, which is what one attempt wants.
        let _ = process.kill();
        let _ = process.wait();
    }
}

/// Addresses at which this host is reached from itself.
fn addresses() -> Vec<IpAddr> {
    let mut addresses = vec![IpAddr::from([127, 0, 0, 1])];
    // The one that it would go out with; nothing is sent.
    let own = UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
        socket.connect("192.0.2.1:9")?;
        socket.local_addr()
    });
    addresses.extend(own.map(|address| address.ip()).ok());
    // Where a container engine's bridge usually is.
    addresses.push(IpAddr::from([172, 17, 0, 1]));
    addresses
}

/// A word that nothing else on this machine contains.
pub(crate) fn unique(start: &str) -> String {
    use std::hash::{BuildHasher as _, RandomState};
    format!("{start}{:016x}", RandomState::new().hash_one(std::process::id()))
}
