//! How long to wait before another try.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822;
use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};

use crate::ModelError;

const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);
/// A provider that asks for more than this is not waited for: a person should know.
const LONGEST_ASKED: Duration = Duration::from_mins(2);

/// Decides on further tries. One for each client; its jitter differs from call to call.
pub(crate) struct Retry {
    tries: u32,
    jitter: AtomicU64,
}

impl Retry {
    pub(crate) fn new(tries: u32, seed: u64) -> Self {
        Self { tries: tries.max(1), jitter: AtomicU64::new(seed) }
    }

    /// How long to wait after this failure of the `attempt`th try, from 1; or the error that ends the call.
    pub(crate) fn after(
        &self,
        attempt: u32,
        mut error: ModelError,
    ) -> Result<(Duration, ModelError), ModelError> {
        if !error.retryable() {
            return Err(error);
        }
        if let Some(asked) = error.retry_after.filter(|asked| *asked > LONGEST_ASKED) {
            return Err(
                error.hint(format!("The provider asks to wait {} seconds; try again then", asked.as_secs()))
            );
        }
        if attempt >= self.tries {
            if attempt > 1 {
                error.message = format!("{} (tried {attempt} times)", error.message);
            }
            return Err(error);
        }
        let wait = error.retry_after.unwrap_or_else(|| backoff(attempt, self.random()));
        Ok((wait, error))
    }

    /// The next of a series (SplitMix64), as a fraction of one.
    fn random(&self) -> f64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.jitter.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Doubles with each try up to the longest; between half of that and all of it.
fn backoff(attempt: u32, random: f64) -> Duration {
    let full = FIRST.saturating_mul(1 << attempt.saturating_sub(1).min(16)).min(LONGEST);
    full.mul_f64(0.5 + random / 2.0)
}

/// How long the provider asks to wait: `retry-after-ms`, or `retry-after` as seconds or as a date.
pub(crate) fn asked(headers: &HeaderMap) -> Option<Duration> {
    let text = |value: &reqwest::header::HeaderValue| value.to_str().ok().map(str::trim).map(str::to_owned);
    let number =
        |value: String| value.parse::<f64>().ok().filter(|number| number.is_finite() && *number >= 0.0);
    if let Some(milliseconds) = headers.get("retry-after-ms").and_then(text).and_then(number) {
        return Duration::try_from_secs_f64(milliseconds / 1000.0).ok();
    }
    let asked = headers.get(RETRY_AFTER).and_then(text)?;
    if let Some(seconds) = number(asked.clone()) {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let until = rfc2822::parse(&asked).ok()?.timestamp();
    // By the server's clock, where it says what that is.
    let now = headers.get(DATE).and_then(text).and_then(|date| rfc2822::parse(&date).ok());
    let now = now.map_or_else(Timestamp::now, |date| date.timestamp());
    Some(Duration::try_from(until.duration_since(now)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ModelErrorKind;

    fn failed(kind: ModelErrorKind, asked: Option<u64>) -> ModelError {
        let mut error = ModelError::new(kind, "m", "failed");
        error.retry_after = asked.map(Duration::from_secs);
        error
    }

    #[test]
    fn waits_grow_to_a_cap_and_differ_from_call_to_call() {
        let retry = Retry::new(40, 7);
        let waits: Vec<_> = (1..40)
            .map(|attempt| retry.after(attempt, failed(ModelErrorKind::Provider, None)).unwrap().0)
            .collect();
        for (index, wait) in waits.iter().enumerate() {
            let full = FIRST.saturating_mul(1 << index.min(16)).min(LONGEST);
            assert!(*wait >= full / 2 && *wait <= full, "{index}: {wait:?}");
        }
        assert!(waits[10..].windows(2).all(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn only_what_may_mend_is_tried_again_and_only_so_often() {
        use ModelErrorKind as Kind;
        let retry = Retry::new(3, 0);
        let again = |kind, attempt| retry.after(attempt, failed(kind, None)).is_ok();
        for kind in [Kind::RateLimited, Kind::Provider, Kind::Network, Kind::Timeout, Kind::Protocol] {
            assert_eq!([again(kind, 1), again(kind, 2), again(kind, 3)], [true, true, false], "{kind:?}");
        }
        for kind in [
            Kind::Authentication,
            Kind::QuotaExceeded,
            Kind::ContextTooLong,
            Kind::InvalidRequest,
            Kind::Unsupported,
            Kind::Script,
        ] {
            assert!(!again(kind, 1), "{kind:?}");
        }
        let last = retry.after(3, failed(Kind::Network, None)).unwrap_err();
        assert_eq!(last.to_string(), "m: failed (tried 3 times)");
    }

    #[test]
    fn the_providers_wish_is_obeyed_up_to_two_minutes() {
        let retry = Retry::new(3, 0);
        assert_eq!(
            retry.after(1, failed(ModelErrorKind::RateLimited, Some(120))).unwrap().0,
            Duration::from_mins(2)
        );
        let refused = retry.after(1, failed(ModelErrorKind::RateLimited, Some(121))).unwrap_err();
        assert_eq!(refused.to_string(), "m: failed. The provider asks to wait 121 seconds; try again then");
    }

    #[test]
    fn every_form_of_the_wish_is_read() {
        let asked = |pairs: &[(&'static str, &str)]| {
            asked(
                &pairs
                    .iter()
                    .map(|(name, value)| ((*name).parse().unwrap(), value.parse().unwrap()))
                    .collect(),
            )
        };
        let date = ("date", "Wed, 21 Oct 2015 07:28:00 GMT");
        assert_eq!(asked(&[("retry-after", "7")]), Some(Duration::from_secs(7)));
        assert_eq!(asked(&[("retry-after", "0.5")]), Some(Duration::from_millis(500)));
        assert_eq!(asked(&[("retry-after", "7"), ("retry-after-ms", "20")]), Some(Duration::from_millis(20)));
        assert_eq!(
            asked(&[date, ("retry-after", "Wed, 21 Oct 2015 07:28:42 GMT")]),
            Some(Duration::from_secs(42))
        );
        assert_eq!(asked(&[date, ("retry-after", "Wed, 21 Oct 2015 07:27:00 GMT")]), Some(Duration::ZERO));
        assert_eq!(asked(&[("retry-after", "Wed, 21 Oct 2015 07:28:42 GMT")]), Some(Duration::ZERO));
        for nonsense in ["soon", "-3", "NaN", "inf", "1e300"] {
            assert_eq!(asked(&[("retry-after", nonsense)]), None, "{nonsense}");
        }
        assert_eq!(asked(&[]), None);
    }
}
