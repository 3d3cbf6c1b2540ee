//! The table of prices: which entry counts, what is read, and sums without any rounding.

use mooring_model::{Cost, Price, Prices, Rate, Usage};
use proptest::prelude::*;
use serde::Deserialize;

/// As in a configuration file.
#[derive(Debug, Deserialize)]
struct Config {
    prices: Prices,
}

fn read(text: &str) -> Prices {
    toml::from_str::<Config>(text).unwrap().prices
}

/// A price by which one can tell the entry.
fn price(input: u64) -> Price {
    let rate = |number: u64| Rate::parse(&number.to_string()).unwrap();
    Price { input: rate(input), cached_input: None, cache_write: None, output: rate(0) }
}

fn cost(text: &str) -> Cost {
    Cost::parse(text).unwrap()
}

#[test]
fn each_kind_of_token_has_its_price() {
    let prices = read(
        "[prices.\"anthropic/claude-*\"]\ninput = 3\ncached_input = 0.30\ncache_write = \"3.75\"\noutput = 15.0\n\
         [prices.\"openai/mini\"]\ninput = 0.15\noutput = 0.6",
    );
    let usage = Usage {
        input_tokens: 10_000,
        cached_input_tokens: 7_000,
        cache_write_tokens: 1_000,
        output_tokens: 500,
        reasoning_tokens: 400,
    };
    // 2,000 × 3 + 7,000 × 0.3 + 1,000 × 3.75 + 500 × 15 millionths; reasoning is part of the output.
    assert_eq!(prices.cost("anthropic/claude-x", &usage), Some(cost("0.01935")));
    // Where the cache has no price of its own, its tokens cost what others cost.
    assert_eq!(prices.cost("openai/mini", &usage), Some(cost("0.0018")));
    assert_eq!(prices.cost("anthropic/claude-x", &Usage::default()), Some(Cost::default()));
}

#[test]
fn what_the_table_does_not_know_has_no_cost() {
    let usage = Usage { input_tokens: 1, ..Usage::default() };
    assert_eq!(Prices::default().cost("openai/gpt-5", &usage), None);
    let prices = read("[prices.\"openai/gpt-5\"]\ninput = 1\noutput = 1");
    for unknown in ["openai/gpt-5-mini", "xopenai/gpt-5", "gpt-5", "OpenAI/gpt-5", ""] {
        assert_eq!(prices.cost(unknown, &usage), None, "{unknown}");
    }
    // Nothing to pay is a price like others.
    let free = Prices::from_iter([("chat/*".to_owned(), price(0))]);
    assert_eq!(free.cost("chat/llama", &usage), Some(Cost::default()));
}

#[test]
fn the_longest_pattern_that_matches_counts() {
    let patterns = [
        "*",
        "openai/*",
        "openai/*-mini",
        "openai/gpt-5*",
        "openai/gpt-5",
        "openai/gpt-?",
        "*/q*3*",
        "a*a",
        "a*b*c",
    ];
    let table = patterns.iter().zip(0..).map(|(pattern, number)| ((*pattern).to_owned(), price(number)));
    let prices: Prices = table.collect();
    for (model, pattern) in [
        ("openai/gpt-5", "openai/gpt-5*"),
        ("openai/gpt-5-nano", "openai/gpt-5*"),
        ("openai/gpt-4-mini", "openai/*-mini"),
        ("openai/gpt-?", "openai/gpt-?"),
        ("openai/gpt-4", "openai/*"),
        ("chat/qwen/qwen3-8b", "*/q*3*"),
        ("chat/qwen/qwen-8b", "*"),
        ("aa", "a*a"),
        // One letter is not both ends.
        ("a", "*"),
        ("a-b-b-c", "a*b*c"),
        ("a-c-b", "*"),
        ("ä", "*"),
        ("", "*"),
    ] {
        let number = patterns.iter().position(|known| *known == pattern).unwrap();
        assert_eq!(prices.find(model), Some(&price(number as u64)), "{model}");
    }
}

#[test]
fn of_patterns_of_one_length_the_one_with_fewer_stars_counts() {
    let prices = Prices::from_iter([("a**".to_owned(), price(1)), ("a*c".to_owned(), price(2))]);
    assert_eq!(prices.find("abc"), Some(&price(2)));
    let one_each = Prices::from_iter([("ab*".to_owned(), price(1)), ("a*c".to_owned(), price(2))]);
    assert_eq!(one_each.find("abc"), Some(&price(1)));
}

#[test]
fn what_is_no_price_is_refused() {
    let cases = [
        "input = -1\noutput = 1",
        "input = 0.0000001\noutput = 1",
        "input = 1e300\noutput = 1",
        "input = nan\noutput = 1",
        "input = inf\noutput = 1",
        "input = \"3 $\"\noutput = 1",
        "input = \"\"\noutput = 1",
        "input = \".5\"\noutput = 1",
        "input = true\noutput = 1",
        "input = 1",
        "input = 1\noutput = 1\nreasoning = 1",
    ];
    let said = cases.iter().map(|case| {
        let error = toml::from_str::<Price>(case).unwrap_err();
        format!("{}\n  {}\n", case.replace('\n', ", "), error.message().trim())
    });
    insta::assert_snapshot!(said.collect::<String>());
}

#[test]
fn costs_are_written_exactly() {
    for (text, shown) in [
        ("0", "$0"),
        ("0.000000000001", "$0.000000000001"),
        ("12.50", "$12.5"),
        ("007", "$7"),
        ("1000000", "$1000000"),
    ] {
        assert_eq!(cost(text).to_string(), shown);
        let written = serde_json::to_string(&cost(text)).unwrap();
        assert_eq!(written, format!("\"{}\"", &shown[1..]));
        assert_eq!(serde_json::from_str::<Cost>(&written).unwrap(), cost(text));
    }
    assert_eq!(serde_json::from_str::<Cost>("2.5").unwrap(), cost("2.5"));
    assert_eq!(cost("1.5").less(cost("0.2")), cost("1.3"));
    assert_eq!(cost("0.2").less(cost("1.5")), Cost::default());
}

fn usage() -> impl Strategy<Value = Usage> {
    const MANY: u64 = 1 << 40;
    (0..MANY, 0..MANY, 0..MANY, 0..MANY).prop_map(|(plain, cached, written, output)| Usage {
        input_tokens: plain + cached + written,
        cached_input_tokens: cached,
        cache_write_tokens: written,
        output_tokens: output,
        reasoning_tokens: 0,
    })
}

/// Any rate, as text and in millionths.
fn rate() -> impl Strategy<Value = (Rate, u128)> {
    let whole_and_fraction = (0..100_000_u64, 0..1_000_000_u64);
    whole_and_fraction.prop_map(|(whole, fraction)| {
        let text = format!("{whole}.{fraction:06}");
        (Rate::parse(&text).unwrap(), u128::from(whole * 1_000_000 + fraction))
    })
}

proptest! {
    /// What calls cost one by one is what their tokens cost together, to the last of twelve decimals.
    #[test]
    fn the_cost_of_a_sum_is_the_sum_of_costs(
        calls in prop::collection::vec(usage(), 0..20),
        rates in [rate(), rate(), rate(), rate()],
    ) {
        let [(input, i), (cached, c), (write, w), (output, o)] = rates;
        let price = Price { input, cached_input: Some(cached), cache_write: Some(write), output };
        let prices = Prices::from_iter([("m".to_owned(), price)]);
        let mut together = Usage::default();
        for call in &calls {
            together.add(call);
        }
        let one_by_one: Cost = calls.iter().map(|call| prices.cost("m", call).unwrap()).sum();
        prop_assert_eq!(Some(one_by_one), prices.cost("m", &together));
        // The same by hand.
        let plain = together.input_tokens - together.cached_input_tokens - together.cache_write_tokens;
        let units = u128::from(plain) * i
            + u128::from(together.cached_input_tokens) * c
            + u128::from(together.cache_write_tokens) * w
            + u128::from(together.output_tokens) * o;
        let by_hand = format!("{}.{:012}", units / 1_000_000_000_000, units % 1_000_000_000_000);
        prop_assert_eq!(one_by_one, cost(&by_hand));
    }

    /// A number in a file is read as it was written there.
    #[test]
    fn a_number_is_read_as_it_is_written(whole in 0..100_000_u64, fraction in 0..1_000_000_u64) {
        let text = format!("{whole}.{fraction:06}");
        let table = |input: &str| toml::from_str::<Price>(&format!("input = {input}\noutput = 0")).unwrap();
        let read = table(&text);
        prop_assert_eq!(read.input, Rate::parse(&text).unwrap());
        prop_assert_eq!(table(&format!("'{text}'")), read);
        prop_assert_eq!(toml::from_str::<Price>(&toml::to_string(&read).unwrap()).unwrap(), read);
        let json = serde_json::from_str::<Price>(&format!("{{\"input\": {text}, \"output\": 0}}")).unwrap();
        prop_assert_eq!(json, read);
    }

    /// Whatever somebody writes for a price or a name is read or refused.
    #[test]
    fn no_text_is_too_odd(text in "\\PC{0,40}", pattern in "[ab*ä/]{0,12}", name in "[abä/]{0,12}") {
        if let Ok(rate) = Rate::parse(&text) {
            prop_assert_eq!(Rate::parse(&rate.to_string()[1..]).unwrap(), rate);
        }
        let prices = Prices::from_iter([(pattern.clone(), price(1))]);
        prop_assert_eq!(prices.find(&name).is_some(), fits(&pattern, &name), "{} {}", pattern, name);
    }
}

/// The plainest reading of a pattern.
fn fits(pattern: &str, name: &str) -> bool {
    let (mut pattern_rest, mut name_rest) = (pattern.chars(), name.chars());
    match pattern_rest.next() {
        None => name.is_empty(),
        Some('*') => {
            let rest = pattern_rest.as_str();
            name.char_indices().any(|(at, _)| fits(rest, &name[at..])) || fits(rest, "")
        }
        Some(letter) => name_rest.next() == Some(letter) && fits(pattern_rest.as_str(), name_rest.as_str()),
    }
}

#[test]
fn what_a_call_can_cost_at_most_is_known_before_it_is_made() {
    let table: Prices = serde_json::from_str(
        r#"{"a/*": {"input": 1, "cached_input": 0.1, "cache_write": 1.25, "output": 4}, "b/*": {"input": 1, "output": 0}}"#,
    )
    .unwrap();
    let own = table.of(["a/one", "b/two", "c/three"]);
    let price = own.find("a/one").unwrap();
    assert_eq!(price.most_for_input(1_000_000).to_string(), "$1.25");
    let most = Cost::parse("0.00001").unwrap();
    assert_eq!((price.output_for(most), own.find("b/two").unwrap().output_for(most)), (Some(2), None));
    assert_eq!(
        (own.find("a/other"), own.find("c/three")),
        (None, None),
        "only these, and only what is known"
    );
}
