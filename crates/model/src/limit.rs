//! Limits of what is asked of a provider, shared by all runs of a process: calls at a time, requests and tokens a
//! minute.
//!
//! Calls wait here, in the order in which they came, so that they do not fail there. Tokens are counted when an answer
//! is whole, since nobody knows them before: calls under way at the same time may so go over the limit of tokens by
//! what they use, and a limit of calls at a time bounds that. This is no budget: nothing is ever used up.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::{StreamExt as _, stream};
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout};

use crate::{ModelClient, ModelError, ModelErrorKind, ModelEvent, ModelRequest, ModelResponse, ModelStream};

/// What a provider may be asked. `None` is no limit, and 0 lets nothing through.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RateLimits {
    /// The most calls at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrent: Option<usize>,
    /// The most requests in any minute, further tries included. A call begins below the limit; its own further tries
    /// do not wait, and those after it wait the longer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<u32>,
    /// The most tokens in any minute, read and produced: no call begins while the last minute's answers used as many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_minute: Option<u64>,
    /// How many seconds a call waits at most before it fails as rate limited.
    pub longest_wait_s: u64,
}

impl Default for RateLimits {
    fn default() -> Self {
        Self { concurrent: None, requests_per_minute: None, tokens_per_minute: None, longest_wait_s: 300 }
    }
}

/// Keeps the limits of one provider, or of whatever else shares them. Share it as an [`Arc`].
#[derive(Debug)]
pub struct Limiter {
    limits: RateLimits,
    /// Held by the call that is the next to begin. Tokio's mutex is fair: who came first is served first.
    turn: tokio::sync::Mutex<()>,
    slots: Option<Arc<Semaphore>>,
    windows: Mutex<Windows>,
}

impl Limiter {
    /// With nothing under way.
    pub fn new(limits: RateLimits) -> Self {
        let slots = limits.concurrent.map(|most| Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS))));
        let windows = Windows {
            requests: limits.requests_per_minute.map(|limit| Window::new(limit.into())),
            tokens: limits.tokens_per_minute.map(Window::new),
        };
        Self { limits, turn: tokio::sync::Mutex::new(()), slots, windows: Mutex::new(windows) }
    }

    /// Waits until a call may begin. What is given back is dropped at its end.
    async fn admit(&self, model: &str) -> Result<Option<OwnedSemaphorePermit>, ModelError> {
        let longest = Duration::from_secs(self.limits.longest_wait_s);
        let began = Instant::now();
        let admitted = timeout(longest, async {
            let _turn = self.turn.lock().await;
            let slot = match &self.slots {
                Some(slots) => Some(slots.clone().acquire_owned().await.ok()?),
                None => None,
            };
            loop {
                let wait = match self.windows().begin(Instant::now()) {
                    Ok(()) => return Some(slot),
                    Err(wait) => wait,
                };
                // Who would wait in vain fails at once, and lets those behind it try.
                if began.elapsed().saturating_add(wait) > longest {
                    return None;
                }
                sleep(wait).await;
            }
        });
        admitted.await.ok().flatten().ok_or_else(|| self.refusal(model))
    }

    fn refusal(&self, model: &str) -> ModelError {
        let RateLimits { concurrent, requests_per_minute, tokens_per_minute, longest_wait_s } = self.limits;
        let mut limits = Vec::new();
        limits.extend(concurrent.map(|most| format!("calls at a time: {most}")));
        limits.extend(requests_per_minute.map(|most| format!("requests a minute: {most}")));
        limits.extend(tokens_per_minute.map(|most| format!("tokens a minute: {most}")));
        let limits = limits.join(", ");
        let message = format!("no room within {longest_wait_s} seconds below the limits set here ({limits})");
        ModelError::new(ModelErrorKind::RateLimited, model, message)
            .hint("Run less at once, raise these limits, or allow a longer wait")
    }

    fn windows(&self) -> MutexGuard<'_, Windows> {
        self.windows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A model behind limits. Its calls wait for their turn when they are first polled; one that is dropped gives its
/// place back at once.
///
/// ```
/// use std::sync::Arc;
/// use mooring_model::{Limited, Limiter, ModelClient as _, RateLimits, ScriptModel};
///
/// let limits = RateLimits { concurrent: Some(8), requests_per_minute: Some(500), ..RateLimits::default() };
/// let at_one_provider = Arc::new(Limiter::new(limits));
/// let small = Limited::new(Arc::new(ScriptModel::from_responses("small", vec![])), at_one_provider.clone());
/// let large = Limited::new(Arc::new(ScriptModel::from_responses("large", vec![])), at_one_provider);
/// assert_eq!((small.name(), large.name()), ("small", "large"));
/// ```
#[derive(Debug)]
pub struct Limited {
    model: Arc<dyn ModelClient>,
    limiter: Arc<Limiter>,
}

impl Limited {
    /// Puts a model behind limits.
    pub fn new(model: Arc<dyn ModelClient>, limiter: Arc<Limiter>) -> Self {
        Self { model, limiter }
    }
}

impl ModelClient for Limited {
    fn name(&self) -> &str {
        self.model.name()
    }

    fn stream<'a>(&'a self, request: ModelRequest<'a>) -> ModelStream<'a> {
        let call = Call { limited: self, state: State::Wait(request) };
        Box::pin(stream::unfold(call, async |mut call| call.next().await.map(|event| (event, call))))
    }

    fn answered_by<'a>(&'a self, response: &'a ModelResponse) -> &'a str {
        self.model.answered_by(response)
    }
}

struct Call<'a> {
    limited: &'a Limited,
    state: State<'a>,
}

enum State<'a> {
    Wait(ModelRequest<'a>),
    Ask { stream: ModelStream<'a>, _slot: Option<OwnedSemaphorePermit> },
    Over,
}

impl Call<'_> {
    async fn next(&mut self) -> Option<Result<ModelEvent, ModelError>> {
        let Limited { model, limiter } = self.limited;
        if let State::Wait(request) = self.state {
            self.state = match limiter.admit(model.name()).await {
                Ok(slot) => State::Ask { stream: model.stream(request), _slot: slot },
                Err(error) => {
                    self.state = State::Over;
                    return Some(Err(error));
                }
            };
        }
        let State::Ask { stream, .. } = &mut self.state else { return None };
        let event = stream.next().await;
        match &event {
            Some(Ok(ModelEvent::Completed(response))) => {
                limiter.windows().used(Instant::now(), response.usage.total());
                self.state = State::Over;
            }
            Some(Ok(ModelEvent::Retrying { .. })) => limiter.windows().requested(Instant::now()),
            Some(Ok(_)) => {}
            Some(Err(_)) | None => self.state = State::Over,
        }
        event
    }
}

#[derive(Debug)]
struct Windows {
    requests: Option<Window>,
    tokens: Option<Window>,
}

impl Windows {
    /// Counts a request, or says how long to wait before that.
    fn begin(&mut self, now: Instant) -> Result<(), Duration> {
        let full = [&mut self.requests, &mut self.tokens].into_iter().flatten();
        match full.filter_map(|window| window.full_for(now)).max() {
            Some(wait) => Err(wait),
            None => {
                self.requested(now);
                Ok(())
            }
        }
    }

    fn requested(&mut self, now: Instant) {
        if let Some(window) = &mut self.requests {
            window.add(now, 1);
        }
    }

    fn used(&mut self, now: Instant, tokens: u64) {
        if let Some(window) = &mut self.tokens {
            window.add(now, tokens);
        }
    }
}

/// How long what happened counts.
const SPAN: Duration = Duration::from_mins(1);
/// What happens within this is remembered as one, which bounds what is remembered. It counts until the last of it
/// no longer does, so that the limit holds.
const GRAIN: Duration = Duration::from_millis(100);

/// What happened in the last minute.
#[derive(Debug)]
struct Window {
    limit: u64,
    entries: VecDeque<Entry>,
}

#[derive(Debug)]
struct Entry {
    since: Instant,
    until: Instant,
    amount: u64,
}

impl Window {
    fn new(limit: u64) -> Self {
        Self { limit, entries: VecDeque::new() }
    }

    fn add(&mut self, now: Instant, amount: u64) {
        let until = now + SPAN;
        match self.entries.back_mut() {
            Some(last) if now - last.since < GRAIN => {
                last.until = until;
                last.amount = last.amount.saturating_add(amount);
            }
            _ => {
                self.forget(now);
                self.entries.push_back(Entry { since: now, until, amount });
            }
        }
    }

    /// How long until there is room, or `None` where there is some.
    fn full_for(&mut self, now: Instant) -> Option<Duration> {
        self.forget(now);
        let mut left = self.entries.iter().fold(0_u64, |sum, entry| sum.saturating_add(entry.amount));
        if left < self.limit {
            return None;
        }
        for entry in &self.entries {
            left = left.saturating_sub(entry.amount);
            if left < self.limit {
                return Some(entry.until - now);
            }
        }
        Some(Duration::MAX)
    }

    fn forget(&mut self, now: Instant) {
        while self.entries.pop_front_if(|entry| entry.until <= now).is_some() {}
    }
}
