//! A supervisor that is spoken to badly.

use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use std::time::Duration;

use mooring_supervisor::{
    Config, Decoder, Frame, Hello, Level, Limits, Setup, Task, encode, wire::GENERATION,
};

use crate::setup::SOON;

fn start(first: &[u8]) -> (Child, UnixStream) {
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    ours.set_read_timeout(Some(SOON)).unwrap();
    let child = mooring_supervisor::command()
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    ours.write_all(first).unwrap();
    (child, ours)
}

fn hello(stream: &mut UnixStream) -> Hello {
    let mut decoder = Decoder::default();
    let mut buffer = [0; 4096];
    loop {
        if let Some(Frame { header, .. }) = decoder.next_frame().unwrap() {
            return header;
        }
        let count = match stream.read(&mut buffer) {
            // Another test's child has ended.
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            read => read.unwrap(),
        };
        assert!(count > 0, "it ended without a word");
        decoder.push(&buffer[..count]);
    }
}

/// Its exit, which must come soon and be one.
fn ends(mut child: Child) -> i32 {
    for _ in 0..2000 {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code().unwrap_or_else(|| panic!("it crashed: {status}"));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    panic!("it did not end");
}

fn setup(workspace: &std::path::Path) -> Config {
    let setup = Setup {
        session: "hostile".into(),
        level: Level::Namespaces,
        workspace: workspace.into(),
        layers: Vec::new(),
        private: true,
        root: "/workspace".into(),
        users: Vec::new(),
        groups: Vec::new(),
        environment: std::collections::BTreeMap::new(),
        grants: Vec::new(),
        limits: Limits::default(),
        linger: None,
        mounts: Vec::new(),
    };
    Config { generation: GENERATION, task: Task::Start(Box::new(setup)) }
}

#[test]
fn what_is_no_configuration_ends_it() {
    for first in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 64], &[255; 64], &[2, 0, 0, 0, 0, 0, 0, 0, b'{', b'}']]
    {
        let (child, stream) = start(first);
        assert_eq!(ends(child), 1, "{first:?}");
        drop(stream);
    }
    let (child, stream) = start(&[1, 0]);
    drop(stream);
    assert_eq!(ends(child), 1, "nothing but a closed socket");
}

#[test]
fn another_generation_is_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config { generation: GENERATION + 1, ..setup(folder.path()) };
    let (child, mut stream) = start(&encode(&config, 0).unwrap());
    let told = format!("{:?}", hello(&mut stream));
    assert!(told.contains(&format!("the client speaks generation {}", GENERATION + 1)), "{told}");
    assert_eq!(ends(child), 1);
}

#[test]
fn nonsense_after_a_good_start_ends_the_sandbox() {
    for nonsense in [&[255; 64][..], &[4, 0, 0, 0, 0, 0, 0, 0, b'n', b'u', b'l', b'l']] {
        let folder = tempfile::tempdir().unwrap();
        let (child, mut stream) = start(&encode(&setup(folder.path()), 0).unwrap());
        assert!(matches!(hello(&mut stream), Hello::Ready(_)));
        stream.write_all(nonsense).unwrap();
        assert_eq!(ends(child), 1, "{nonsense:?}");
    }
}
