//! Servers over TLS at `localhost`, by an authority that the test makes.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use crate::moor::Moor;

/// A server that says its port first, and then what it was asked, one line each. It ends with the test.
pub(crate) struct TlsServer {
    process: Child,
    pub(crate) lines: BufReader<ChildStdout>,
    pub(crate) port: u16,
}

impl TlsServer {
    /// Starts Python with what `arguments` makes of a file that holds certificate and key. The authority is in
    /// `authority.pem`.
    pub(crate) fn start(moor: &Moor, arguments: impl FnOnce(&mut Command, &Path)) -> Self {
        let (authority_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.distinguished_name.push(DnType::CommonName, "the test's authority");
        moor.write("authority.pem", &authority.self_signed(&authority_key).unwrap().pem());
        let issuer = Issuer::new(authority, authority_key);
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
        let both = moor.write("server.pem", &(certificate.pem() + &key.serialize_pem()));
        let mut command = Command::new("/usr/bin/python3");
        arguments(&mut command, Path::new(&both));
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap());
        let mut port = String::new();
        lines.read_line(&mut port).unwrap();
        Self { process, lines, port: port.trim().parse().unwrap() }
    }

    /// What was asked of it until now.
    pub(crate) fn asked(mut self) -> String {
        self.process.kill().unwrap();
        let mut text = String::new();
        self.lines.read_to_string(&mut text).unwrap();
        text
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}
