//! Processes: others', too many, too large, too long.

use std::time::Duration;

use crate::{Finding, Ground, careless};

pub(crate) async fn ends_a_process_of_the_host(ground: &Ground) -> Finding {
    let program = "
tries(os.kill, int(E['HOST_PID']), signal.SIGKILL)
tries(os.kill, -1, 0)
";
    let got = ground.inside(program).await;
    // Its end takes a moment to be known.
    tokio::time::sleep(Duration::from_millis(100)).await;
    got
}

pub(crate) async fn reads_the_variables_of_a_process_of_the_host(ground: &Ground) -> Finding {
    let program = "
for pid in filter(str.isdigit, os.listdir('/proc')):
    if b'MOORING_TEST_SECRET=' in (tries(lambda: open('/proc/%s/environ' % pid, 'rb').read()) or b''): escaped('process', pid)
";
    ground.inside(program).await
}

pub(crate) async fn starts_more_processes_than_it_may(ground: &Ground) -> Finding {
    if !ground.sandbox.limits_processes && !ground.is_open() {
        return Err("this backend cannot limit processes here".to_owned());
    }
    let program = "
children = []
try:
    for _ in range(400):
        pid = os.fork()
        if pid == 0:
            time.sleep(60)
            os._exit(0)
        children.append(pid)
except OSError: pass
if len(children) == 400: escaped('400 processes')
for pid in children: os.kill(pid, signal.SIGKILL)
for pid in children: os.waitpid(pid, 0)
";
    ground.inside(program).await
}

pub(crate) async fn takes_more_memory_than_it_may(ground: &Ground) -> Finding {
    if !ground.sandbox.limits_memory && !ground.is_open() {
        return Err("this backend cannot limit memory here".to_owned());
    }
    let program = "
pid = os.fork()
if pid == 0:
    much = b'x' * (256 << 20)
    os._exit(7)
if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7: escaped('256 MiB')
";
    ground.inside(program).await
}

/// Into a session of its own, deaf to signals, away from whoever waits for it.
pub(crate) async fn outlives_its_deadline(ground: &Ground) -> Finding {
    let program = "
import os, signal, time
if os.fork() == 0:
    os.setsid()
    if os.fork(): os._exit(0)
    for number in range(1, 65):
        try: signal.signal(number, signal.SIG_IGN)
        except (OSError, ValueError): pass
    end = time.time() + 12
    while time.time() < end and not os.path.exists('stop'):
        open('beat', 'a').write('.')
        time.sleep(0.02)
    os._exit(0)
time.sleep(60)
";
    let argv = ["python3", "-c", program].map(str::to_owned);
    let deadline = Duration::from_secs(3);
    if ground.careless {
        careless::run_for(&ground.host_path("."), &argv, deadline).await;
    } else {
        let request = mooring_sandbox::ExecRequest::argv(argv).timeout(deadline);
        ground.session().exec(request).await.unwrap();
    }
    let mut beats = Vec::new();
    for _ in 0..2 {
        beats.push(ground.file("beat").await);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    // What outlived it must not outlive the attempt.
    ground.write("stop", "").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!beats[0].is_empty() || !beats[1].is_empty(), "the attempt never ran");
    Ok(if beats[0] == beats[1] { Vec::new() } else { vec!["it still runs".to_owned()] })
}
