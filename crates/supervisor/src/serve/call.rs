//! What is done about each call.

use std::time::{Duration, Instant};

use mooring_sandbox::Outcome;
use rustix::io::Errno;

use super::Server;
use crate::channels;
use crate::files;
use crate::jobs::Task;
use crate::process::Waiter;
use crate::wire::{Call, Failure, Reply};

/// The most bytes in one answer to a reader.
const MAX_OUTPUT: u64 = 1 << 20;
/// The longest that a reader may wait.
const MAX_WAIT: Duration = Duration::from_hours(1);

impl Server {
    /// Does a call. `None`: it is answered later.
    pub(super) fn call(
        &mut self,
        id: u64,
        call: Call,
        payload: Vec<u8>,
    ) -> Result<Option<(Reply, Vec<u8>)>, Failure> {
        let now = Instant::now();
        let done = || Ok(Some((Reply::Done, Vec::new())));
        match call {
            Call::Spawn(call) => {
                if let Some(disk) = &mut self.disk
                    && !disk.is_known(now)
                {
                    disk.waiting.push((id, call, payload));
                    return Ok(None);
                }
                self.start_process(id, &call, payload, now)?;
                Ok(None)
            }
            Call::Output { process, after, max_bytes, wait_ms } => {
                let waiter = Waiter {
                    request: id,
                    after,
                    max: max_bytes.clamp(1, MAX_OUTPUT) as usize,
                    until: now + Duration::from_millis(wait_ms).min(MAX_WAIT),
                };
                let number = process;
                let process = self.process(number)?;
                // Answered by `advance`, before the loop waits.
                process.waiters.push(waiter);
                if process.was_read(after, now) {
                    let listened = self.watch_output(number);
                    listened.map_err(|errno| Failure::Invalid { reason: format!("its output: {errno}") })?;
                }
                Ok(None)
            }
            Call::WriteStdin { process } => {
                self.process(process)?.write(&payload)?;
                self.watch_stdin(process).and_then(|()| done())
            }
            Call::CloseStdin { process } => {
                self.process(process)?.close_stdin();
                self.watch_stdin(process).and_then(|()| done())
            }
            Call::Resize { process, size } => self.process(process)?.resize(size).and_then(|()| done()),
            Call::Signal { process, signal } => match self.process(process)?.signal(signal) {
                Ok(()) | Err(Errno::SRCH) => done(),
                Err(errno) => Err(Failure::Invalid { reason: format!("signal {signal}: {errno}") }),
            },
            Call::Cancel { process } => {
                let process = self.process(process)?;
                process.stop(Outcome::Cancelled, now);
                process.stop_requests.push(id);
                Ok(None)
            }
            Call::Release { process } => {
                let Some(process) = self.processes.get_mut(&process) else { return done() };
                process.kill(now);
                process.released = true;
                process.stop_requests.push(id);
                Ok(None)
            }
            Call::Read { path, max_bytes } => {
                let data = files::read(&self.world, &path, max_bytes)?;
                Ok(Some((Reply::Done, data)))
            }
            Call::Write { path, options } => {
                if let Some(disk) = &mut self.disk {
                    disk.take(payload.len())?;
                }
                files::write(&self.world, &path, &payload, &options).and_then(|()| done())
            }
            Call::Rename { from, to } => files::rename(&self.world, &from, &to).and_then(|()| done()),
            Call::List { path } => {
                let files = files::list(&self.world, &path)?;
                Ok(Some((Reply::Files { files }, Vec::new())))
            }
            Call::Mkdir { path, parents } => files::mkdir(&self.world, &path, parents).and_then(|()| done()),
            Call::Remove { path, recursive: false } => {
                files::remove(&self.world, &path).and_then(|()| done())
            }
            Call::Remove { path, recursive: true } => {
                let number = self.start_job(id, &Task::Remove(path))?;
                // It cannot have ended: reaping is the loop's.
                self.job(number)?.finish(id);
                Ok(None)
            }
            Call::Stat { paths } => {
                let files =
                    paths.iter().map(|path| files::stat(&self.world, path)).collect::<Result<_, _>>()?;
                Ok(Some((Reply::Files { files }, Vec::new())))
            }
            Call::Unpack { path } => self.answer_job(id, &Task::Unpack(path)),
            Call::Restore => self.answer_job(id, &Task::Restore),
            Call::Persist { without } => self.answer_job(id, &Task::Persist(without)),
            Call::Feed { job } => {
                if let Some(disk) = &mut self.disk {
                    let mut found = self.jobs.get_mut(&job).filter(|found| found.child.is_some());
                    let room = match found {
                        Some(ref mut found) if found.anew => {
                            found.fed += payload.len() as u64;
                            disk.take_anew(found.fed)
                        }
                        _ => disk.take(payload.len()),
                    };
                    if let (Some(found), Err(failure)) = (found, room) {
                        // It takes back what it can.
                        found.give_up();
                        return Err(failure);
                    }
                }
                let answer = self.job(job)?.feed(id, payload);
                self.job_reply(job, answer)
            }
            Call::Pull { job } => {
                let answer = self.job(job)?.pull(id);
                self.job_reply(job, answer)
            }
            Call::Abort { job } => {
                let Some(found) = self.jobs.get_mut(&job) else { return done() };
                let answer = found.abort(id);
                self.job_reply(job, answer)
            }
            Call::End => {
                self.ending = true;
                done()
            }
            Call::Find { process } => {
                self.process(process)?;
                Ok(Some((Reply::Started { process }, Vec::new())))
            }
            Call::Connect { port } => own(self.channels.connect(&self.epoll, id, port)?),
            Call::Listen { port } => self.channels.listen(id, port).map(|reply| Some((reply, Vec::new()))),
            Call::Accept { listener } => {
                let answers = self.channels.accept(&self.epoll, id, listener)?;
                self.answer_all(answers);
                Ok(None)
            }
            Call::Receive { channel } => own(self.channels.receive(&self.epoll, id, channel)?),
            Call::Transmit { channel } => own(self.channels.transmit(&self.epoll, id, channel, payload)?),
            Call::Hangup { channel } => {
                let answers = self.channels.hang_up(channel);
                self.answer_all(answers);
                done()
            }
        }
    }
}

/// The answer to the call that is being done, where it is due at once.
fn own(answer: Option<channels::Answer>) -> Result<Option<(Reply, Vec<u8>)>, Failure> {
    answer.map(|(_, answer)| answer).transpose()
}
