//! The run's time: what is in flight when it is up is interrupted, not only what would come next.
//!
//! The machine has no clock. The driver watches the time and records that it is up, and the run then ends the way a
//! cancelled one does: calls are answered, the sandbox stops, and what the run had so far is its output.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mooring_journal::Event;
use mooring_journal::event::{CancelRequested, DeadlinePassed};
use tokio_util::task::AbortOnDropHandle;

use super::{Driver, elapsed_ms};
use crate::budget::Resource;
use crate::{HarnessError, Status};

/// Ends a driver's work when the run's time is up, unless it is dropped first.
#[derive(Debug)]
pub(super) struct Alarm {
    resource: Resource,
    rang: Arc<AtomicBool>,
    _waiting: Option<AbortOnDropHandle<()>>,
}

impl Driver<'_> {
    /// Sets the alarm for the next step, after what happened.
    pub(super) fn set_alarm(&mut self) {
        if self.alarm.as_ref().is_some_and(|alarm| alarm.rang.load(Ordering::Acquire)) {
            return;
        }
        self.alarm = None;
        let Some((left, resource)) = self.state.time_left() else { return };
        if self.state.status != Status::Running {
            return;
        }
        // What passed since the last event is not in the machine's sum.
        let left = left.saturating_sub(self.last_event_ms.map_or(0, |at| elapsed_ms(at, self.now())));
        let rang = Arc::new(AtomicBool::new(left == 0));
        if left == 0 {
            self.cancel.cancel();
            self.alarm = Some(Alarm { resource, rang, _waiting: None });
            return;
        }
        let (cancel, ring) = (self.cancel.clone(), Arc::clone(&rang));
        let waiting = AbortOnDropHandle::new(tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(left)).await;
            // A run that is being cancelled is not out of time as well.
            if !cancel.is_cancelled() {
                ring.store(true, Ordering::Release);
                cancel.cancel();
            }
        }));
        self.alarm = Some(Alarm { resource, rang, _waiting: Some(waiting) });
    }

    /// Records why the driver's work is to end, once it is.
    pub(super) fn record_end(&mut self) -> Result<(), HarnessError> {
        if !self.cancel.is_cancelled() || self.state.status != Status::Running || self.state.ending() {
            return Ok(());
        }
        let over = self.alarm.as_ref().filter(|alarm| alarm.rang.load(Ordering::Acquire));
        self.push(match over {
            Some(alarm) => Event::DeadlinePassed(DeadlinePassed { limit: alarm.resource.limit().into() }),
            None => Event::CancelRequested(CancelRequested { by: "user".into() }),
        })
    }
}
