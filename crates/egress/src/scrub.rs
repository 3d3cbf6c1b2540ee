//! Takes secrets out of what comes back. A server that echoes its request (and error pages do) must not tell the sandbox
//! the value that it was never given.
//!
//! The stream is searched across its chunks: what could be the beginning of a secret is held back until it is known,
//! and nothing else is, so that a stream of events is not delayed. Found are the value itself, its form in JSON and in
//! URLs, and its form inside of base64 at each of the three alignments, which is how basic authentication carries it.

use std::fmt::Write as _;

use aho_corasick::{AhoCorasick, MatchKind};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use bytes::{Bytes, BytesMut};

/// What is searched for, and what stands in its place.
#[derive(Debug)]
pub(crate) struct Scrubber {
    search: AhoCorasick,
    needles: Vec<Vec<u8>>,
    replacements: Vec<Vec<u8>>,
    longest: usize,
}

impl Scrubber {
    /// For pairs of secret and placeholder. `None` where there is nothing to search for.
    pub(crate) fn new(pairs: &[(&str, &str)]) -> Result<Option<Self>, aho_corasick::BuildError> {
        let mut needles: Vec<Vec<u8>> = Vec::new();
        let mut replacements = Vec::new();
        let mut add = |needle: Vec<u8>, replacement: Vec<u8>| {
            if !needle.is_empty() && !needles.contains(&needle) {
                needles.push(needle);
                replacements.push(replacement);
            }
        };
        for (value, placeholder) in pairs {
            let json = value.replace('\\', "\\\\").replace('"', "\\\"");
            let json_with_slashes = json.replace('/', "\\/");
            for form in [(*value).to_owned(), json, json_with_slashes, url_form(value)] {
                add(form.into_bytes(), placeholder.as_bytes().to_vec());
            }
            for core in base64_cores(value.as_bytes()) {
                let stars = vec![b'*'; core.len()];
                add(core, stars);
            }
        }
        if needles.is_empty() {
            return Ok(None);
        }
        let search = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(&needles)?;
        let longest = needles.iter().map(Vec::len).max().unwrap_or_default();
        Ok(Some(Self { search, needles, replacements, longest }))
    }

    /// Replaces in one piece of text, and says whether there was anything to replace.
    pub(crate) fn whole(&self, text: &[u8]) -> Option<Vec<u8>> {
        self.search.is_match(text).then(|| self.search.replace_all_bytes(text, &self.replacements))
    }

    /// Takes what came, together with what was held back, and gives what may go on. `last` holds nothing back.
    pub(crate) fn push(&self, held: &mut BytesMut, chunk: &[u8], last: bool) -> Bytes {
        held.extend_from_slice(chunk);
        let mut out = BytesMut::with_capacity(held.len());
        let mut done = 0;
        loop {
            let rest = held.get(done..).unwrap_or_default();
            // A match that begins before the first possible beginning of a longer one is final.
            let open = if last { rest.len() } else { self.first_open(rest) };
            match self.search.find(rest) {
                Some(found) if found.start() < open => {
                    out.extend_from_slice(rest.get(..found.start()).unwrap_or_default());
                    out.extend_from_slice(
                        self.replacements.get(found.pattern().as_usize()).map_or(&[], Vec::as_slice),
                    );
                    done += found.end();
                }
                _ => {
                    out.extend_from_slice(rest.get(..open).unwrap_or_default());
                    done += open;
                    break;
                }
            }
        }
        let kept = held.split_off(done);
        *held = kept;
        out.freeze()
    }

    /// The first place from which the text to its end is the beginning of a needle, and not all of it.
    fn first_open(&self, text: &[u8]) -> usize {
        let first = text.len().saturating_sub(self.longest - 1);
        (first..text.len())
            .find(|&at| {
                let tail = text.get(at..).unwrap_or_default();
                self.needles.iter().any(|needle| needle.len() > tail.len() && needle.starts_with(tail))
            })
            .unwrap_or(text.len())
    }
}

/// As a URL shows it, percent-encoded.
fn url_form(value: &str) -> String {
    let mut form = String::new();
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            form.push(char::from(byte));
        } else {
            let _ = write!(form, "%{byte:02X}");
        }
    }
    form
}

/// The characters of base64 text that depend on the value alone, for each place where it can begin.
fn base64_cores(value: &[u8]) -> Vec<Vec<u8>> {
    let mut cores = Vec::new();
    for before in 0..3_usize {
        let mut bytes = vec![0; before];
        bytes.extend_from_slice(value);
        // A character holds six bits: those that the bytes before and after the value share are not the value's alone.
        let first = (before * 8).div_ceil(6);
        let end = bytes.len() * 8 / 6;
        for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
            let text = engine.encode(&bytes).into_bytes();
            cores.extend(text.get(first..end).map(<[u8]>::to_vec));
        }
    }
    cores
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scrubber() -> Scrubber {
        // One is the beginning of another, one overlaps with itself.
        let pairs = [("abcabcab", "<1>"), ("abcabcabcd", "<2>"), ("q\"/uote+d", "<3>")];
        Scrubber::new(&pairs).unwrap().unwrap()
    }

    fn in_chunks(scrubber: &Scrubber, chunks: &[Vec<u8>]) -> Vec<u8> {
        let mut held = BytesMut::new();
        let mut out = Vec::new();
        for chunk in chunks {
            out.extend_from_slice(&scrubber.push(&mut held, chunk, false));
            assert!(held.len() < scrubber.longest);
        }
        out.extend_from_slice(&scrubber.push(&mut held, &[], true));
        out
    }

    #[test]
    fn every_form_of_a_secret_is_found() {
        let value = "q\"/uote+d";
        let scrubber = Scrubber::new(&[(value, "<>")]).unwrap().unwrap();
        let json = r#"q\"/uote+d q\"\/uote+d q%22%2Fuote%2Bd"#;
        let text = format!("{value} {json}");
        assert_eq!(scrubber.whole(text.as_bytes()).unwrap(), b"<> <> <> <>");
        for before in ["", "u", "us", "use", "user:"] {
            for after in ["", "x", "xy", "xyz"] {
                let text = STANDARD_NO_PAD.encode(format!("{before}{value}{after}"));
                let clean = scrubber.whole(text.as_bytes()).unwrap();
                let left = String::from_utf8(clean).unwrap().replace('*', "");
                // Besides what comes before and after, at most the two characters that are shared with these.
                assert!(left.len() <= (before.len() + after.len()) * 4 / 3 + 4, "{text} {left}");
            }
        }
        assert_eq!(scrubber.whole(b"nothing of the kind"), None);
    }

    #[test]
    fn what_cannot_be_a_secret_is_not_held_back() {
        let scrubber = scrubber();
        let mut held = BytesMut::new();
        assert_eq!(scrubber.push(&mut held, b"data: x\n\n", false), "data: x\n\n");
        assert_eq!(scrubber.push(&mut held, b"data: abcab", false), "data: ");
        assert_eq!(scrubber.push(&mut held, b"\n\n", false), "abcab\n\n");
        assert_eq!(scrubber.push(&mut held, b"abcabcab", false), "");
        assert_eq!(scrubber.push(&mut held, b"\n", false), "<1>\n");
        assert!(held.is_empty());
    }

    proptest! {
        #[test]
        fn chunks_make_no_difference(
            pieces in prop::collection::vec(
                prop_oneof![Just("abc".to_owned()), Just("abcabcabcd".to_owned()), Just("q\\\"/uote+d".to_owned()), "[abcdq\"/]{0,4}"],
                0..12,
            ),
            cuts in prop::collection::vec(0_usize..60, 0..10),
        ) {
            let text = pieces.concat().into_bytes();
            let scrubber = scrubber();
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let chunks: Vec<_> = cuts.windows(2).map(|cut| text[cut[0]..cut[1]].to_vec()).collect();
            let expected = scrubber.whole(&text).unwrap_or_else(|| text.clone());
            prop_assert_eq!(in_chunks(&scrubber, &chunks), expected);
        }
    }
}
