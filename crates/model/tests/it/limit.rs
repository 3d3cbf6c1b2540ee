//! Limits that calls share: how many run, who is next, and what happens to those that wait too long or go away.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::join_all;
use mooring_model::{
    Limited, Limiter, ModelClient as _, ModelErrorKind, ModelEvent, ModelOptions, ModelSpec, RateLimits,
    connect,
};
use mooring_testkit::{Reply, Server};
use proptest::prelude::*;
use tokio::time::{Instant, advance, sleep, timeout};

use crate::support::{Fake, answer, bare, call, options};

const SECOND: Duration = Duration::from_secs(1);

fn limited(model: &Arc<Fake>, limits: &RateLimits) -> Limited {
    Limited::new(model.clone(), Arc::new(Limiter::new(limits.clone())))
}

fn at_a_time(concurrent: usize) -> RateLimits {
    RateLimits { concurrent: Some(concurrent), ..RateLimits::default() }
}

/// When each of so many calls at once ended, in seconds.
async fn ends(model: &Limited, calls: u64) -> Vec<u64> {
    let start = Instant::now();
    join_all((0..calls).map(|ordinal| async move {
        call(model, bare(ordinal)).await.1.unwrap();
        start.elapsed().as_secs()
    }))
    .await
}

#[tokio::test(start_paused = true)]
async fn no_more_calls_at_a_time_than_allowed() {
    let model = Fake::new("m", SECOND * 10, []);
    assert_eq!(ends(&limited(&model, &at_a_time(2)), 5).await, [10, 10, 20, 20, 30]);
    assert_eq!((model.most(), model.began()), (2, vec![0, 1, 2, 3, 4]));
}

#[tokio::test(start_paused = true)]
async fn no_more_requests_in_any_minute_than_allowed() {
    let model = Fake::new("m", SECOND, []);
    let limits = RateLimits { requests_per_minute: Some(2), ..RateLimits::default() };
    assert_eq!(ends(&limited(&model, &limits), 5).await, [1, 1, 61, 61, 121]);
}

/// Tokens count when they are known, and until a minute after that.
#[tokio::test(start_paused = true)]
async fn no_call_begins_while_the_last_minute_used_all_tokens() {
    let model = Fake::new("m", SECOND, [60, 60, 10, 10].map(|tokens| Ok(answer("m", tokens))));
    let limits = RateLimits { tokens_per_minute: Some(100), ..RateLimits::default() };
    let model = limited(&model, &limits);
    let start = Instant::now();
    let mut began = Vec::new();
    for ordinal in 0..4 {
        call(&model, bare(ordinal)).await.1.unwrap();
        began.push(start.elapsed().as_secs() - 1);
    }
    // 60 and 60 are over the limit; the first 60 are forgotten a minute after their answer.
    assert_eq!(began, [0, 1, 61, 62]);
}

/// The retries of a call are requests too: they do not wait, and others wait for them.
#[tokio::test]
async fn further_tries_count_as_requests() {
    let text =
        std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/chat/openai-text.sse")).unwrap();
    let busy = || Reply::new(503).header("retry-after-ms", "1");
    let server = Server::start([busy(), busy(), Reply::stream(text)]).await.unwrap();
    let limits = RateLimits { requests_per_minute: Some(3), longest_wait_s: 0, ..RateLimits::default() };
    let limiter = Some(Arc::new(Limiter::new(limits)));
    let options = ModelOptions { limiter, ..options(&server.url()) };
    let model = connect(&ModelSpec::parse("chat/m").unwrap(), &options).unwrap();
    call(&*model, bare(0)).await.1.unwrap();
    let error = call(&*model, bare(1)).await.1.unwrap_err();
    assert_eq!((error.kind, server.requests().len()), (ModelErrorKind::RateLimited, 3));
}

#[tokio::test(start_paused = true)]
async fn models_of_one_provider_share_its_limits() {
    let limiter = Arc::new(Limiter::new(at_a_time(1)));
    let (small, large) = (Fake::new("small", SECOND, []), Fake::new("large", SECOND, []));
    let [one, two] = [&small, &large].map(|model| Limited::new(model.clone(), limiter.clone()));
    assert_eq!([one.name(), two.name()], ["small", "large"]);
    let (one, two) = tokio::join!(ends(&one, 2), ends(&two, 2));
    assert_eq!((one, two), (vec![1, 2], vec![3, 4]));
}

#[tokio::test(start_paused = true)]
async fn who_waits_too_long_fails_as_rate_limited() {
    let model = Fake::new("m", SECOND * 10, []);
    let limits = RateLimits {
        concurrent: Some(1),
        requests_per_minute: Some(2),
        tokens_per_minute: Some(1000),
        longest_wait_s: 15,
    };
    let model = limited(&model, &limits);
    let start = Instant::now();
    let calls = join_all((0..4).map(|ordinal| {
        let model = &model;
        async move { (call(model, bare(ordinal)).await.1.map(drop), start.elapsed().as_secs()) }
    }));
    let said: Vec<_> = calls
        .await
        .into_iter()
        .map(|(outcome, at)| match outcome {
            Ok(()) => format!("{at} s: answered"),
            Err(error) => format!("{at} s: {}: {error}", error.kind.as_str()),
        })
        .collect();
    insta::assert_snapshot!(said.join("\n"));
    // The places of those who failed are free again.
    advance(SECOND * 60).await;
    call(&model, bare(4)).await.1.unwrap();
}

/// A limit of nothing lets nothing through, and is no missing limit.
#[tokio::test(start_paused = true)]
async fn a_limit_of_zero_refuses() {
    let zero = RateLimits { longest_wait_s: 5, ..RateLimits::default() };
    for limits in [
        RateLimits { concurrent: Some(0), ..zero.clone() },
        RateLimits { requests_per_minute: Some(0), ..zero.clone() },
        RateLimits { tokens_per_minute: Some(0), ..zero.clone() },
    ] {
        let model = Fake::new("m", SECOND, []);
        let error = call(&limited(&model, &limits), bare(0)).await.1.unwrap_err();
        assert_eq!((error.kind, model.began()), (ModelErrorKind::RateLimited, vec![]), "{limits:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_goes_away_gives_the_place_back() {
    let model = Fake::new("m", SECOND * 10, []);
    let limited = limited(&model, &at_a_time(1));
    let start = Instant::now();
    // The first goes away while it is answered, the second while it waits.
    let gone = async { timeout(SECOND * 3, call(&limited, bare(0))).await.is_err() };
    let waits = async { timeout(SECOND * 2, call(&limited, bare(1))).await.is_err() };
    let third = async {
        call(&limited, bare(2)).await.1.unwrap();
        start.elapsed()
    };
    assert_eq!(tokio::join!(gone, waits, third), (true, true, SECOND * 13));
    assert_eq!(model.began(), [0, 2]);
}

/// An answer that is whole is over, even where its stream is kept.
#[tokio::test(start_paused = true)]
async fn a_whole_answer_holds_no_place() {
    let model = Fake::new("m", SECOND, []);
    let limited = limited(&model, &at_a_time(1));
    let mut kept = limited.stream(bare(0));
    assert!(matches!(kept.next().await, Some(Ok(ModelEvent::Completed(_)))));
    call(&limited, bare(1)).await.1.unwrap();
    assert!(kept.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_failed_call_holds_no_place() {
    let model = Fake::new("m", SECOND, []);
    model.fail(ModelErrorKind::Network);
    let limited = limited(&model, &at_a_time(1));
    let mut kept = limited.stream(bare(0));
    assert!(kept.next().await.unwrap().is_err());
    call(&limited, bare(1)).await.1.unwrap();
}

#[test]
fn limits_are_read_strictly() {
    let read = |text: &str| toml::from_str::<RateLimits>(text);
    assert_eq!(read("").unwrap(), RateLimits::default());
    let limits = RateLimits { concurrent: Some(4), tokens_per_minute: Some(90_000), ..RateLimits::default() };
    assert_eq!(read("concurrent = 4\ntokens_per_minute = 90_000").unwrap(), limits);
    assert_eq!(read(&toml::to_string(&limits).unwrap()).unwrap(), limits);
    for wrong in ["concurrency = 4", "concurrent = -1", "requests_per_minute = \"many\""] {
        assert!(read(wrong).is_err(), "{wrong}");
    }
}

/// A call that comes at a time and may go away after another, in tenths of a second.
#[derive(Debug, Clone)]
struct Caller {
    comes: u64,
    goes_after: Option<u64>,
}

fn callers() -> impl Strategy<Value = Vec<Caller>> {
    let caller = (0..100_u64, prop::option::of(0..80_u64));
    prop::collection::vec(caller.prop_map(|(comes, goes_after)| Caller { comes, goes_after }), 1..40)
}

fn limits() -> impl Strategy<Value = RateLimits> {
    let limit = |range| prop::option::of(range);
    (limit(1..5_u64), limit(1..30), limit(1..200)).prop_map(|(concurrent, requests, tokens)| RateLimits {
        concurrent: concurrent.map(|most| most as usize),
        requests_per_minute: requests.map(|most| most as u32),
        tokens_per_minute: tokens,
        longest_wait_s: 10_000,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whoever comes, goes and waits: the limits hold, calls begin in the order in which they came, all that stay are
    /// answered, and nothing is left behind.
    #[test]
    fn the_limits_hold_and_the_order_is_kept(mut callers in callers(), limits in limits()) {
        callers.sort_by_key(|caller| caller.comes);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let tenth = SECOND / 10;
            let outcomes = (0..callers.len()).map(|_| Ok(answer("m", 20)));
            let model = Fake::new("m", tenth * 15, outcomes);
            let limited = limited(&model, &limits);
            let runs = callers.iter().enumerate().map(|(ordinal, caller)| {
                let (limited, caller) = (&limited, caller.clone());
                async move {
                    // A millisecond apart, so that there is an order.
                    sleep(tenth * caller.comes as u32 + Duration::from_millis(ordinal as u64)).await;
                    let call = call(limited, bare(ordinal as u64));
                    match caller.goes_after {
                        Some(after) => timeout(tenth * after as u32, call).await.is_err(),
                        None => call.await.1.is_err(),
                    }
                }
            });
            let lost = join_all(runs).await;
            for (caller, lost) in callers.iter().zip(lost) {
                prop_assert!(caller.goes_after.is_some() || !lost);
            }
            let began = model.began();
            prop_assert!(began.is_sorted(), "{began:?}");
            if let Some(most) = limits.concurrent {
                prop_assert!(model.most() <= most);
            }
            let (begun, answered) = model.times();
            for at in &begun {
                let recent = |time: &&Instant| **time <= *at && *at - **time < SECOND * 60;
                if let Some(most) = limits.requests_per_minute {
                    prop_assert!(begun.iter().filter(recent).count() <= most as usize);
                }
                if let Some(most) = limits.tokens_per_minute {
                    // Of what happens at the same instant nobody knows what was first.
                    let known = answered.iter().filter(recent).filter(|time| *time < at).count();
                    prop_assert!((known as u64) * 20 < most);
                }
            }
            prop_assert_eq!(model.under_way(), 0);
            // All places are free again.
            advance(SECOND * 61).await;
            let again = Instant::now();
            call(&limited, bare(99)).await.1.unwrap();
            prop_assert_eq!(again.elapsed(), tenth * 15);
            Ok(())
        })?;
    }
}
