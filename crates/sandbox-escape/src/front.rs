//! A server that a sandbox may reach, and that serves more than it should: another site by another name, a redirect to an
//! address of this host, and a tunnel to wherever it is asked for.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long a connection may say nothing before it is done.
const QUIET: Duration = Duration::from_secs(5);

/// The name that it is reached by.
const NAME: &str = "allowed.test";

#[derive(Debug)]
pub(crate) struct Front {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Front {
    /// `elsewhere` is the port of this host that it sends its clients to.
    pub(crate) fn start(elsewhere: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let hearing = Arc::clone(&heard);
        std::thread::spawn(move || {
            // Lasts as long as the test's process.
            for stream in listener.incoming().flatten() {
                let hearing = Arc::clone(&hearing);
                std::thread::spawn(move || serve(stream, elsewhere, &hearing));
            }
        });
        Self { address, heard }
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// What arrived that was meant for somebody else, or for nobody by name.
    pub(crate) fn noticed(&self) -> Vec<String> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn serve(mut stream: TcpStream, elsewhere: u16, heard: &Mutex<Vec<String>>) {
    let _ = stream.set_read_timeout(Some(QUIET));
    let mut first = vec![0; 16 << 10];
    let count = stream.read(&mut first).unwrap_or(0);
    first.truncate(count);
    let text = String::from_utf8_lossy(&first).into_owned();
    let note = |what: &str| heard.lock().unwrap_or_else(PoisonError::into_inner).push(what.to_owned());
    if text.contains("hidden") {
        note("another name arrived at the allowed server");
    } else if first.first() == Some(&0x16) && !text.contains(NAME) {
        note("a handshake without a name arrived at the allowed server");
    }
    if text.starts_with("CONNECT ") {
        let target = text.split(' ').nth(1).unwrap_or_default();
        // Whoever listens there notices.
        drop(TcpStream::connect(target));
    }
    let answer = if text.contains("/redirect") {
        format!(
            "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:{elsewhere}/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )
    } else {
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok".to_owned()
    };
    let _ = stream.write_all(answer.as_bytes());
    let _ = stream.shutdown(Shutdown::Write);
    let _ = stream.read_to_end(&mut Vec::new());
}
