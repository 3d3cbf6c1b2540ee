//! Sandboxes by hand with a way out: what their manifest allows, for as long as a command is attached.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::moor::{Moor, Ran};
use crate::network::{SERVER, VALUE};
use crate::tls::TlsServer;

/// A sandbox `one` whose manifest allows a server here and binds a secret to it. It goes with the value.
pub(crate) struct Networked {
    pub(crate) moor: Moor,
    pub(crate) server: TlsServer,
}

impl Networked {
    /// Without the sandbox.
    pub(crate) fn new(setup: &str) -> Self {
        let moor = Moor::new();
        let server = TlsServer::start(&moor, |command, both| {
            command.args(["-c", SERVER]).arg(both);
        });
        let port = server.port;
        moor.write(
            "m.yaml",
            &format!(
                "version: 1\nx-mooring:\n  network: {{allow: [{{host: localhost, ports: [{port}]}}]}}\n  secrets: \
                 {{api-key: {{env: API_KEY, inject: [{{host: localhost, port: {port}}}]}}}}\n{setup}"
            ),
        );
        moor.write("home/config.toml", "[network]\nprivate = [\"localhost\"]\n");
        Self { moor, server }
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = self.moor.command(args);
        command.env("MOOR_SECRET_API_KEY", VALUE).env("SSL_CERT_FILE", self.moor.path("authority.pem"));
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        self.command(args).output().unwrap().into()
    }

    pub(crate) fn exec(&self, line: &str) -> Ran {
        self.run(&["sandbox", "exec", "one", "--", "sh", "-c", line])
    }

    /// A command that asks the server.
    pub(crate) fn ask(&self) -> String {
        // `localhost` is what the test has a name for; a program would not use the proxy for it by itself.
        let port = self.server.port;
        format!(
            "curl -sS --max-time 20 --noproxy '' -H \"Authorization: Bearer $API_KEY\" https://localhost:{port}/v1"
        )
    }

    fn allowed(&self, rest: &str) -> String {
        format!("network allowed localhost:{}{rest}, with api-key\n", self.server.port)
    }

    fn start(&self, line: &str) -> Child {
        let mut command = self.command(&["sandbox", "exec", "one", "--", "sh", "-c", line]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    fn copied_out(&self, name: &str) -> String {
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            self.run(&["sandbox", "cp", &format!("one:{name}"), name]);
            match fs_err::read_to_string(self.moor.path(name)) {
                Ok(text) if text.ends_with('\n') => return text,
                _ => assert!(Instant::now() < end, "{name} did not come"),
            }
        }
    }
}

impl Drop for Networked {
    fn drop(&mut self) {
        for sandbox in self.moor.run(&["sandbox", "list", "--json"]).json() {
            self.moor.run(&["sandbox", "rm", sandbox["id"].as_str().unwrap()]);
        }
    }
}

#[test]
fn its_set_up_and_its_commands_reach_what_the_manifest_allows_with_a_secret_that_they_do_not_have() {
    let ask =
        "curl -sS --noproxy '' -H \"Authorization: Bearer $API_KEY\" https://localhost:PORT/v1 > set-up";
    let net = Networked::new("");
    let manifest = fs_err::read_to_string(net.moor.path("m.yaml")).unwrap();
    let ask = ask.replace("PORT", &net.server.port.to_string());
    net.moor.write("m.yaml", &format!("{manifest}  setup:\n    - {}\n", serde_json::json!(ask)));
    let made = net.run(&["sandbox", "create", "--name", "one", "--manifest", "m.yaml"]);
    assert_eq!((made.code, made.out.as_str(), made.err), (Some(0), "one\n", net.allowed("")));

    let ran =
        net.exec(&format!("cat set-up; {0}; {0}; curl -sS https://evil.test/ https://evil.test/", net.ask()));
    let lines: Vec<&str> = ran.out.lines().collect();
    assert!(lines.len() == 3 && lines[0].starts_with("got Bearer phantom_"), "{}", ran.out);
    // The same phantom in every command: what wrote it down can use it still.
    assert_eq!(lines, [lines[0]; 3]);
    let told: Vec<&str> = ran.err.lines().filter(|line| line.starts_with("network ")).collect();
    assert_eq!(
        told,
        [
            net.allowed(" 2 times").trim_end(),
            "network refused evil.test:443 2 times: evil.test is not on this sandbox's network allow-list",
        ]
    );
    // A fork has the same policy, and names of its own for the secret.
    let forked = net.run(&["sandbox", "fork", "one", "--name", "two"]);
    assert_eq!((forked.code, forked.err.as_str()), (Some(0), ""));
    let ran = net.run(&["sandbox", "exec", "two", "--", "sh", "-c", &net.ask()]);
    assert!(ran.out.starts_with("got Bearer phantom_") && ran.out.trim_end() != lines[0], "{ran:?}");
    assert_eq!(net.exec(&net.ask()).out.trim_end(), lines[0]);
    let found = Command::new("grep").args(["-rqaF", VALUE]).arg(net.moor.home()).status().unwrap();
    assert!(!found.success(), "the value is in the state directory");
    // What it knows its proxy by is for this user alone, and goes with it.
    let kept = net.moor.path("home/sessions/one.egress");
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs_err::metadata(&kept).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(net.run(&["sandbox", "rm", "one"]).code, Some(0));
    assert!(!kept.exists());
}

#[test]
fn two_attached_commands_both_have_a_way_out_and_what_is_left_has_one_while_any_is_attached() {
    let net = Networked::new("");
    assert_eq!(net.run(&["sandbox", "create", "--name", "one", "--manifest", "m.yaml"]).code, Some(0));
    let wait = "touch up; until [ -e go ]; do sleep 0.05; done";
    let first = net.start(&format!("{wait}; {}", net.ask()));
    let ran = net.exec(&format!("until [ -e up ]; do sleep 0.05; done; {}", net.ask()));
    assert!(ran.out.starts_with("got Bearer phantom_"), "{ran:?}");
    assert_eq!(net.exec("touch go").code, Some(0));
    let first = Ran::from(first.wait_with_output().unwrap());
    assert_eq!((first.out, first.err), (ran.out.clone(), net.allowed("")));

    // Left in the background, by a command that has ended.
    let left = format!(
        "(until [ -e alone ]; do sleep 0.05; done; {ask} || echo none > none; until [ -e again ]; do sleep 0.05; done; \
         {ask} > answer) > /dev/null 2>&1 &",
        ask = net.ask()
    );
    assert_eq!(net.exec(&left).code, Some(0));
    // Copying attaches no way out.
    net.moor.write("alone", "");
    assert_eq!(net.run(&["sandbox", "cp", "alone", "one:"]).code, Some(0));
    assert_eq!(net.copied_out("none"), "none\n");
    let answer = net.exec("touch again; until [ -s answer ]; do sleep 0.05; done; cat answer");
    assert_eq!((answer.out, answer.err), (ran.out, net.allowed("")));
}

#[test]
fn a_shell_has_the_way_out_and_tells_of_it_when_it_has_ended() {
    let net = Networked::new("");
    assert_eq!(net.run(&["sandbox", "create", "--name", "one", "--manifest", "m.yaml"]).code, Some(0));
    net.moor.write("typed", &format!("{} > answer\nexit\n", net.ask()));
    let line = format!("script -qec '{} sandbox shell one' /dev/null", env!("CARGO_BIN_EXE_moor"));
    let mut command = net.command(&[]);
    let environment: Vec<_> =
        command.get_envs().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned()))).collect();
    command = Command::new("sh");
    command.args(["-c", &format!("(sleep 1; cat typed; sleep 3) | {line}")]);
    command.current_dir(net.moor.dir.path()).env_clear().envs(environment).env("TERM", "xterm");
    let seen = Ran::from(command.output().unwrap());
    assert!(seen.out.contains(net.allowed("").trim_end()), "{seen:?}");
    assert!(net.exec("cat answer").out.starts_with("got Bearer phantom_"));
}

#[test]
fn a_secret_that_is_not_configured_is_told_and_its_files_are_reached_all_the_same() {
    let net = Networked::new("");
    assert_eq!(net.run(&["sandbox", "create", "--name", "one", "--manifest", "m.yaml"]).code, Some(0));
    let refused = net.moor.run(&["sandbox", "exec", "one", "true"]);
    assert_eq!(refused.code, Some(2), "{}", refused.err);
    assert!(refused.err.contains("names the secret 'api-key', and it is not configured"), "{}", refused.err);
    let made = net.moor.run(&["sandbox", "create", "--name", "two", "--manifest", "m.yaml"]);
    assert!(made.err.contains("names the secret 'api-key', and it is not configured"), "{}", made.err);
    assert!(!net.moor.path("home/sandboxes/two").exists());
    assert_eq!(net.moor.run(&["sandbox", "diff", "one"]).code, Some(0));
    net.moor.write("a", "a\n");
    assert_eq!(net.moor.run(&["sandbox", "cp", "a", "one:"]).code, Some(0));
}
