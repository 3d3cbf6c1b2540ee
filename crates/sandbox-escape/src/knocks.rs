//! A server that nobody may reach: it counts who did, and lets go of them at once.

use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

#[derive(Debug)]
pub(crate) struct Knocks {
    port: u16,
    count: Arc<AtomicUsize>,
}

impl Knocks {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let count = Arc::new(AtomicUsize::new(0));
        let counting = Arc::clone(&count);
        std::thread::spawn(move || {
            // Lasts as long as the test's process.
            for stream in listener.incoming() {
                counting.fetch_add(1, Ordering::SeqCst);
                drop(stream);
            }
        });
        Self { port, count }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Whether somebody came since the last look.
    pub(crate) fn noticed(&self) -> bool {
        // Whoever came before this one has been counted when it is let go.
        let own = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, self.port)));
        let _ = own.unwrap().read(&mut [0]);
        self.count.swap(0, Ordering::SeqCst) > 1
    }
}
