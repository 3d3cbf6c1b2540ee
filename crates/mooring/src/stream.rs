//! A run as it goes, event by event.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::Stream;
use mooring_capability::BoxFuture;
use mooring_harness::{Finished, HarnessError, Live, Observer};
use mooring_journal::{Record, RunId};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_util::sync::CancellationToken;

use crate::{Agent, Error, Run, Runtime};

/// What a stream of a run gives.
#[derive(Debug, Clone)]
pub enum RunEvent {
    /// Something happens that is not recorded: more of the model's answer, output of a tool as it comes.
    Live(Live),
    /// An event was recorded, of the run or of one of its sub-agents'.
    Recorded(Box<Record>),
    /// The run is over, or waits for a person. This comes last.
    Ended(Box<Run>),
}

/// A run as it goes. It goes on while the stream is read: whoever reads slowly holds it up, and nothing piles up.
///
/// A stream that is dropped before its end leaves the run as a crash would: [`Run::resume`] goes on with it.
pub struct RunStream {
    runtime: Runtime,
    agent: Agent,
    run: RunId,
    cancel: CancellationToken,
    events: UnboundedReceiver<RunEvent>,
    driving: Option<BoxFuture<'static, Result<Finished, HarnessError>>>,
    result: Option<Result<Finished, HarnessError>>,
}

impl std::fmt::Debug for RunStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunStream").field("run", &self.run).finish_non_exhaustive()
    }
}

/// Hands on what it sees. The channel has no bound, but holds no more than one step of the driver gives: the stream
/// empties it before it lets the driver go on.
struct Sender(UnboundedSender<RunEvent>);

impl Observer for Sender {
    fn recorded(&self, record: &Record) {
        // A stream that nobody reads any more is no error.
        self.0.send(RunEvent::Recorded(Box::new(record.clone()))).ok();
    }

    fn live(&self, live: Live) {
        self.0.send(RunEvent::Live(live)).ok();
    }
}

impl RunStream {
    pub(crate) fn new(
        runtime: &Runtime,
        agent: &Agent,
        run: RunId,
        drive: impl FnOnce(
            Arc<dyn Observer>,
            CancellationToken,
        ) -> BoxFuture<'static, Result<Finished, HarnessError>>,
    ) -> Self {
        let (sender, events) = unbounded_channel();
        let cancel = CancellationToken::new();
        let driving = drive(Arc::new(Sender(sender)), cancel.clone());
        Self {
            runtime: runtime.clone(),
            agent: agent.clone(),
            run,
            cancel,
            events,
            driving: Some(driving),
            result: None,
        }
    }

    /// The run.
    pub fn id(&self) -> &RunId {
        &self.run
    }

    /// Cancels the run when it is cancelled. The stream goes on to the run's end, which is then soon.
    pub fn cancel_token(&self) -> CancellationToken {
        self.cancel.clone()
    }

    /// Reads the stream to its end.
    ///
    /// # Errors
    /// Those of the driver.
    pub async fn finish(mut self) -> Result<Run, Error> {
        let Some(driving) = self.driving.take() else {
            let result =
                self.result.take().unwrap_or_else(|| Err(HarnessError::Empty { run: self.run.clone() }));
            return Ok(Run::new(self.runtime, self.agent, result?));
        };
        self.events.close();
        Ok(Run::new(self.runtime, self.agent, driving.await?))
    }
}

impl Stream for RunStream {
    type Item = Result<RunEvent, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if let Poll::Ready(Some(event)) = this.events.poll_recv(context) {
            return Poll::Ready(Some(Ok(event)));
        }
        if let Some(driving) = &mut this.driving
            && let Poll::Ready(result) = driving.as_mut().poll(context)
        {
            this.driving = None;
            this.result = Some(result);
        }
        if let Poll::Ready(Some(event)) = this.events.poll_recv(context) {
            return Poll::Ready(Some(Ok(event)));
        }
        if this.driving.is_some() {
            return Poll::Pending;
        }
        Poll::Ready(this.result.take().map(|result| {
            let run = Run::new(this.runtime.clone(), this.agent.clone(), result?);
            Ok(RunEvent::Ended(Box::new(run)))
        }))
    }
}
