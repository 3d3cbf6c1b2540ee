//! What tokens cost: a table of prices that users fill, and sums that are exact.
//!
//! No prices come with it. They change without notice and differ by contract, and a wrong one is worse than none: a
//! model that the table does not know has no cost, and not a cost of zero. All sums are of whole millionths of a
//! millionth of a dollar, which every price with up to six decimals for a million tokens comes to for one token. So
//! nothing is ever rounded: what two calls cost is the cost of their tokens together.

use std::collections::BTreeMap;
use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign};

use serde::de::{self, Deserializer, Visitor};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};

use crate::Usage;

/// Prices by model. The default is empty.
///
/// A key is a model's name as it is asked for, in which `*` stands for any characters, or none. Where several match,
/// the longest key counts; of keys of one length the one with the fewest `*`, and of these the last in their order.
///
/// ```
/// use mooring_model::{Prices, Usage};
///
/// let prices: Prices = serde_json::from_str(
///     r#"{"chat/*": {"input": 0, "output": 0},
///         "chat/large-*": {"input": 0.25, "cached_input": "0.025", "output": 2}}"#,
/// )?;
/// let usage = Usage { input_tokens: 1_000, cached_input_tokens: 400, output_tokens: 10, ..Usage::default() };
/// // 600 × $0.25 + 400 × $0.025 + 10 × $2, a million each
/// assert_eq!(prices.cost("chat/large-2", &usage).unwrap().to_string(), "$0.00018");
/// assert_eq!(prices.cost("openai/gpt-5", &usage), None);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Prices(BTreeMap<String, Price>);

impl Prices {
    /// The price of this model, if the table knows it.
    pub fn find(&self, model: &str) -> Option<&Price> {
        let stars = |pattern: &str| pattern.matches('*').count();
        let matching = self.0.iter().filter(|(pattern, _)| matches(pattern, model));
        let found =
            matching.max_by_key(|(pattern, _)| (pattern.chars().count(), usize::MAX - stars(pattern)));
        found.map(|(_, price)| price)
    }

    /// The prices of these models alone, each under its name; those that the table does not know are left out.
    pub fn of<'a>(&self, models: impl IntoIterator<Item = &'a str>) -> Self {
        let known = |model: &str| Some((model.to_owned(), *self.find(model)?));
        models.into_iter().filter_map(known).collect()
    }

    /// What these tokens of this model cost; `None` where the table does not know the model.
    pub fn cost(&self, model: &str, usage: &Usage) -> Option<Cost> {
        self.find(model).map(|price| price.cost(usage))
    }
}

impl FromIterator<(String, Price)> for Prices {
    /// Of equal keys the last counts: a user's own table goes last.
    fn from_iter<T: IntoIterator<Item = (String, Price)>>(entries: T) -> Self {
        Self(entries.into_iter().collect())
    }
}

impl IntoIterator for Prices {
    type Item = (String, Price);
    type IntoIter = std::collections::btree_map::IntoIter<String, Price>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// The price of a model in dollars for a million tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// Of tokens read.
    pub input: Rate,
    /// Of tokens read from the provider's cache; where it is left out, that of others read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached_input: Option<Rate>,
    /// Of tokens read and written to the provider's cache; where it is left out, that of others read. Name it where
    /// the provider takes more for them, or the sum will be too low.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_write: Option<Rate>,
    /// Of tokens produced, reasoning included.
    pub output: Rate,
}

impl Price {
    /// The most that reading so many tokens can cost, whatever becomes of the provider's cache.
    pub fn most_for_input(&self, tokens: u64) -> Cost {
        let dearest = [Some(self.input), self.cached_input, self.cache_write].into_iter().flatten().max();
        Cost(u128::from(tokens) * u128::from(dearest.unwrap_or_default().0))
    }

    /// How many tokens can be produced for so much; `None` where they cost nothing.
    pub fn output_for(&self, cost: Cost) -> Option<u64> {
        let tokens = cost.0.checked_div(u128::from(self.output.0))?;
        Some(u64::try_from(tokens).unwrap_or(u64::MAX))
    }

    /// What these tokens cost. Exact; and additive, unless a provider counts more tokens for its cache than in all.
    pub fn cost(&self, usage: &Usage) -> Cost {
        let Usage { input_tokens, cached_input_tokens, cache_write_tokens, output_tokens, .. } = *usage;
        let plain = input_tokens.saturating_sub(cached_input_tokens).saturating_sub(cache_write_tokens);
        [
            (plain, self.input),
            (cached_input_tokens, self.cached_input.unwrap_or(self.input)),
            (cache_write_tokens, self.cache_write.unwrap_or(self.input)),
            (output_tokens, self.output),
        ]
        .into_iter()
        .map(|(tokens, rate)| Cost(u128::from(tokens) * u128::from(rate.0)))
        .sum()
    }
}

/// Dollars for a million tokens, with up to six decimals. Read from a number or a string.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(u64);

impl Rate {
    const DECIMALS: usize = 6;

    /// From `3`, `0.075`.
    ///
    /// # Errors
    /// Where the text is no such number, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let millionths = parse_decimal(text, Self::DECIMALS)?;
        u64::try_from(millionths).map(Self).map_err(|_| format!("the price {text} is too large"))
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "${}", decimal(self.0.into(), Self::DECIMALS))
    }
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&decimal(self.0.into(), Self::DECIMALS))
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Decimal).and_then(|text| Self::parse(&text).map_err(de::Error::custom))
    }
}

/// A sum of dollars, exact to twelve decimals. Written as a string (`"0.00018"`), read from one or from a number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cost(u128);

impl Cost {
    const DECIMALS: usize = 12;

    /// From `5`, `0.00018`.
    ///
    /// # Errors
    /// Where the text is no such number, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        parse_decimal(text, Self::DECIMALS).map(Self)
    }

    /// The number alone: `0.00018`.
    pub fn amount(self) -> String {
        decimal(self.0, Self::DECIMALS)
    }

    /// This as whole millionths of a millionth of a dollar.
    pub fn units(self) -> u128 {
        self.0
    }

    /// So many millionths of a millionth of a dollar.
    pub fn from_units(units: u128) -> Self {
        Self(units)
    }

    /// What is left of this after another; nothing where that is more.
    pub fn less(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl Add for Cost {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl AddAssign for Cost {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sum for Cost {
    fn sum<I: Iterator<Item = Self>>(costs: I) -> Self {
        costs.fold(Self::default(), Add::add)
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "${}", decimal(self.0, Self::DECIMALS))
    }
}

impl Serialize for Cost {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&decimal(self.0, Self::DECIMALS))
    }
}

impl<'de> Deserialize<'de> for Cost {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Decimal).and_then(|text| Self::parse(&text).map_err(de::Error::custom))
    }
}

/// Reads a number as the text that somebody wrote.
struct Decimal;

impl Visitor<'_> for Decimal {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an amount of dollars, such as 0.25 or \"0.25\"")
    }

    fn visit_str<E>(self, text: &str) -> Result<String, E> {
        Ok(text.to_owned())
    }

    fn visit_u64<E>(self, number: u64) -> Result<String, E> {
        Ok(number.to_string())
    }

    fn visit_i64<E>(self, number: i64) -> Result<String, E> {
        Ok(number.to_string())
    }

    /// The shortest decimal that is this number to a computer: what was written, up to 15 digits.
    fn visit_f64<E>(self, number: f64) -> Result<String, E> {
        Ok(number.to_string())
    }
}

/// A decimal number as whole units of its last place.
fn parse_decimal(text: &str, places: usize) -> Result<u128, String> {
    let malformed = || format!("'{text}' is no amount of dollars. Write it as 3 or 0.25");
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return Err(malformed());
    }
    let fraction = fraction.trim_end_matches('0');
    if fraction.len() > places {
        return Err(format!("'{text}' has more than {places} decimals"));
    }
    format!("{whole}{fraction:0<places$}").parse().map_err(|_| format!("'{text}' is too large"))
}

/// The shortest text of such a number.
fn decimal(units: u128, places: usize) -> String {
    let digits = format!("{units:0>width$}", width = places + 1);
    let (whole, fraction) = digits.split_at(digits.len() - places);
    match fraction.trim_end_matches('0') {
        "" => whole.to_owned(),
        fraction => format!("{whole}.{fraction}"),
    }
}

/// Whether a name fits a pattern in which `*` stands for any characters.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut left) = name.strip_prefix(first) else { return false };
    // The earliest place of each part leaves the most to the parts after it; the last is held to the end.
    let mut parts: Vec<_> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        let Some(at) = left.find(part) else { return false };
        left = &left[at + part.len()..];
    }
    left.ends_with(last)
}
