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
