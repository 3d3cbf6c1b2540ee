//! A chain of models: where one fails in a way that the next need not share, the next one answers.
//!
//! Each model tries again by itself first. What was shown of a failed answer is void, and is said to be so with a
//! [`ModelEvent::Retrying`]. A conversation may so go on with another provider: each wire client leaves out the
//! reasoning of others. What every provider would refuse (a malformed request, a conversation that is too long) ends
//! the call at once. This is no balancer: the first model that is fit is asked, in the order of the chain.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::{StreamExt as _, stream};
use tokio::time::Instant;

use crate::{ModelClient, ModelError, ModelErrorKind, ModelEvent, ModelRequest, ModelResponse, ModelStream};

/// How long a model rests after its first failure.
const FIRST_REST: Duration = Duration::from_secs(30);
/// How long it rests at most.
const LONGEST_REST: Duration = Duration::from_mins(10);

/// Models of which each answers where those before it fail.
///
/// A model that failed rests, for 30 seconds and then twice as long each time up to ten minutes: meanwhile it is asked
/// only after all others failed. The rest is the same for all calls that share this value.
#[derive(Debug)]
pub struct Route {
    name: String,
    members: Vec<Member>,
}

impl Route {
    /// A chain of these models, the first of them first.
    ///
    /// # Errors
    /// [`ModelErrorKind::InvalidRequest`] where there is no model.
    pub fn new(models: Vec<Arc<dyn ModelClient>>) -> Result<Self, ModelError> {
        if models.is_empty() {
            let message = "the list of models is empty";
            return Err(ModelError::new(ModelErrorKind::InvalidRequest, "model", message)
                .hint("Name at least one model"));
        }
        let name = models.iter().map(|model| model.name()).collect::<Vec<_>>().join(", then ");
        let members = models.into_iter().map(|client| Member { client, health: Mutex::default() }).collect();
        Ok(Self { name, members })
    }

    /// The models in the order in which a call made now asks them.
    fn order(&self) -> VecDeque<&Member> {
        let now = Instant::now();
        let (fit, resting): (Vec<_>, Vec<_>) = self.members.iter().partition(|member| member.is_fit(now));
        fit.into_iter().chain(resting).collect()
    }
}

impl ModelClient for Route {
    /// `openai/a, then anthropic/b`.
    fn name(&self) -> &str {
        &self.name
    }

    /// [`ModelResponse::model`] is the name of the model of the chain that answered, as it was asked for.
    fn stream<'a>(&'a self, request: ModelRequest<'a>) -> ModelStream<'a> {
        let mut left = self.order();
        let asking = left.pop_front().map(|member| Asking::begin(member, request));
        let call = Call { route: self, request, left, asking, tries: 0, failures: Vec::new() };
        Box::pin(stream::unfold(call, async |mut call| call.next().await.map(|event| (event, call))))
    }

    fn answered_by<'a>(&'a self, response: &'a ModelResponse) -> &'a str {
        &response.model
    }
}

/// One model of the chain.
#[derive(Debug)]
struct Member {
    client: Arc<dyn ModelClient>,
    health: Mutex<Health>,
}

#[derive(Debug, Default)]
struct Health {
    /// How often it failed since it last answered.
    failures: u32,
    failed_at: Option<Instant>,
    rests_until: Option<Instant>,
}

impl Member {
    fn is_fit(&self, now: Instant) -> bool {
        self.health().rests_until.is_none_or(|until| until <= now)
    }

    fn answered(&self) {
        *self.health() = Health::default();
    }

    fn failed(&self, asked_at: Instant, error: &ModelError) {
        let now = Instant::now();
        let mut health = self.health();
        // Calls made side by side meet the same failure, which counts once.
        if health.failed_at.is_some_and(|failed_at| failed_at >= asked_at) {
            return;
        }
        let rest = FIRST_REST.saturating_mul(1 << health.failures.min(16));
        let rest = rest.max(error.retry_after.unwrap_or_default()).min(LONGEST_REST);
        health.failures = health.failures.saturating_add(1);
        health.failed_at = Some(now);
        health.rests_until = Some(now + rest);
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One call on its way, over all of its models.
struct Call<'a> {
    route: &'a Route,
    request: ModelRequest<'a>,
    /// Who is asked after the one that is asked now.
    left: VecDeque<&'a Member>,
    asking: Option<Asking<'a>>,
    /// The tries of the models that failed.
    tries: u32,
    failures: Vec<ModelError>,
}

/// The model that is asked now.
struct Asking<'a> {
    member: &'a Member,
    stream: ModelStream<'a>,
    asked_at: Instant,
    /// Which of its tries this is, from 1.
    attempt: u32,
    /// Whether something of the answer came in this try.
    begun: bool,
}

impl<'a> Asking<'a> {
    fn begin(member: &'a Member, request: ModelRequest<'a>) -> Self {
        Self {
            member,
            stream: member.client.stream(request),
            asked_at: Instant::now(),
            attempt: 1,
            begun: false,
        }
    }
}

impl Call<'_> {
    async fn next(&mut self) -> Option<Result<ModelEvent, ModelError>> {
        let asking = self.asking.as_mut()?;
        match asking.stream.next().await {
            Some(Ok(ModelEvent::Completed(mut response))) => {
                asking.member.answered();
                let name = asking.member.client.answered_by(&response).to_owned();
                response.model = name;
                self.asking = None;
                Some(Ok(ModelEvent::Completed(response)))
            }
            Some(Ok(ModelEvent::Retrying { attempt, after, reason, begun })) => {
                asking.attempt = attempt;
                asking.begun = false;
                Some(Ok(ModelEvent::Retrying { attempt: self.tries + attempt, after, reason, begun }))
            }
            Some(Ok(event)) => {
                asking.begun = true;
                Some(Ok(event))
            }
            Some(Err(error)) => Some(self.go_on(error)),
            None => {
                let message = "the answer ended before it was whole";
                let error = ModelError::new(ModelErrorKind::Protocol, asking.member.client.name(), message);
                Some(self.go_on(error))
            }
        }
    }

    /// Turns to the next model, or ends the call.
    fn go_on(&mut self, error: ModelError) -> Result<ModelEvent, ModelError> {
        let passes = may_succeed_elsewhere(&error);
        let next = if passes { self.left.pop_front() } else { None };
        let mut reason = error.message.clone();
        let mut begun = error.kind == ModelErrorKind::Timeout;
        // The failed call ends here, before the next begins: it may hold one of few places at its provider.
        if let Some(failed) = self.asking.take() {
            // What cannot be carried there is not that model's failure.
            if passes && error.kind != ModelErrorKind::Unsupported {
                failed.member.failed(failed.asked_at, &error);
            }
            self.tries += failed.attempt;
            begun |= failed.begun;
            if let Some(next) = next {
                reason =
                    format!("{} gives way to {}: {reason}", failed.member.client.name(), next.client.name());
            }
        }
        self.failures.push(error);
        let Some(next) = next else {
            return Err(all_failed(&self.route.name, std::mem::take(&mut self.failures)));
        };
        self.asking = Some(Asking::begin(next, self.request));
        Ok(ModelEvent::Retrying { attempt: self.tries + 1, after: Duration::ZERO, reason, begun })
    }
}

/// Whether another provider may answer where this one failed.
fn may_succeed_elsewhere(error: &ModelError) -> bool {
    match error.kind {
        ModelErrorKind::Authentication
        | ModelErrorKind::RateLimited
        | ModelErrorKind::QuotaExceeded
        | ModelErrorKind::Unsupported
        | ModelErrorKind::Provider
        | ModelErrorKind::Network
        | ModelErrorKind::Timeout
        | ModelErrorKind::Protocol => true,
        // A long conversation is for the caller to shorten: a smaller part of it may suit the first model.
        ModelErrorKind::ContextTooLong | ModelErrorKind::InvalidRequest | ModelErrorKind::Script => false,
    }
}

/// The error of a chain. Its kind is that of the failure that ended it, or else of one that may pass: a call that
/// failed with a rate limit and a missing key may be made again.
fn all_failed(name: &str, mut failures: Vec<ModelError>) -> ModelError {
    let told: Vec<_> = failures.iter().map(ToString::to_string).collect();
    let ended = failures.iter().position(|failure| !may_succeed_elsewhere(failure));
    let telling = ended.or_else(|| failures.iter().position(ModelError::retryable)).unwrap_or(0);
    let mut error = failures.swap_remove(telling);
    // One failure speaks for itself.
    if told.len() > 1 {
        name.clone_into(&mut error.model);
        error.message = format!("no model of the chain answered: {}", told.join("; "));
        error.hint = None;
    }
    error
}
