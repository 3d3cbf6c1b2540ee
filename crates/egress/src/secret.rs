//! Secrets that a sandbox uses without having them. It gets a phantom: a random token, worthless anywhere else. The
//! proxy puts the value in its place in a request to exactly the host, method and path that the secret is bound to, and
//! nowhere else: a phantom that turns up elsewhere is refused, since somebody tries to carry it out, or misunderstood.

use std::collections::BTreeMap;
use std::fmt;

use aho_corasick::AhoCorasick;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Uri};
use mooring_manifest::extension::{HostName, PathPattern};

use crate::host::{Host, Target};
use crate::policy::PolicyError;
use crate::record::Refusal;
use crate::scrub::Scrubber;

/// Shortest value that can be told from chance in a response.
const SHORTEST: usize = 8;
/// Longest value.
const LONGEST: usize = 8 * 1024;

/// A secret's value. Its `Debug` form shows nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretValue(String);

impl SecretValue {
    /// Wraps a value.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value, for whoever sends it where it belongs.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretValue(..)")
    }
}

/// Where one secret may be put in. The same secret may have several bindings, under one name and with one value.
#[derive(Debug, Clone)]
pub struct SecretBinding {
    /// What the secret is called; the only thing about it that is ever recorded.
    pub name: String,
    /// Its value.
    pub value: SecretValue,
    /// The host: one, by name.
    pub host: HostName,
    /// The port; HTTPS is spoken there.
    pub port: u16,
    /// The methods; empty for all.
    pub methods: Vec<Method>,
    /// The paths; empty for all.
    pub paths: Vec<PathPattern>,
    /// The header that carries it. In `authorization`, the user and password of basic authentication are looked into.
    pub header: HeaderName,
}

impl SecretBinding {
    /// Binds a secret to a host's HTTPS port, every method and path, in the `authorization` header.
    pub fn new(name: impl Into<String>, value: SecretValue, host: HostName) -> Self {
        Self {
            name: name.into(),
            value,
            host,
            port: 443,
            methods: Vec::new(),
            paths: Vec::new(),
            header: AUTHORIZATION,
        }
    }

    pub(crate) fn target(&self) -> Target {
        Target { host: Host::Name(self.host.clone()), port: self.port }
    }

    pub(crate) fn validate(&self) -> Result<(), &'static str> {
        let value = &self.value.0;
        if value.len() < SHORTEST || value.len() > LONGEST {
            return Err("its value must have 8 to 8192 bytes");
        }
        if !value.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') {
            return Err(
                "its value must be printable ASCII, since it goes into a header (is there a line break at its end?)",
            );
        }
        Ok(())
    }

    fn meets(&self, target: &Target, method: &Method, path: &str, header: &HeaderName) -> bool {
        self.target() == *target
            && self.header == *header
            && (self.methods.is_empty() || self.methods.contains(method))
            && (self.paths.is_empty() || self.paths.iter().any(|pattern| pattern.matches(path)))
    }
}

/// The secrets of a session with their phantoms.
#[derive(Debug)]
pub(crate) struct Vault {
    bindings: Vec<SecretBinding>,
    /// One for each name: name, value, phantom.
    tokens: Vec<(String, SecretValue, String)>,
    /// Finds phantoms; absent where there are no secrets.
    search: Option<AhoCorasick>,
    /// Takes values out of responses; absent where there are no secrets.
    pub(crate) scrubber: Option<Scrubber>,
}

impl Vault {
    /// With these phantoms. Bindings have been validated.
    pub(crate) fn new(
        bindings: Vec<SecretBinding>,
        phantoms: &BTreeMap<String, String>,
    ) -> Result<Self, PolicyError> {
        let mut tokens: Vec<(String, SecretValue, String)> = Vec::new();
        for binding in &bindings {
            match tokens.iter().find(|(name, ..)| *name == binding.name) {
                Some((_, value, _)) if *value != binding.value => {
                    let secret = binding.name.clone();
                    return Err(PolicyError::SecretValue { secret, why: "two bindings give it two values" });
                }
                Some(_) => {}
                None => {
                    let phantom = phantoms.get(&binding.name);
                    let phantom = phantom.ok_or_else(|| {
                        PolicyError::Setup(format!("nothing stands for the secret '{}'", binding.name))
                    })?;
                    tokens.push((binding.name.clone(), binding.value.clone(), phantom.clone()));
                }
            }
        }
        let setup = |error: aho_corasick::BuildError| PolicyError::Setup(error.to_string());
        let phantoms: Vec<&str> = tokens.iter().map(|(_, _, phantom)| phantom.as_str()).collect();
        let search =
            (!phantoms.is_empty()).then(|| AhoCorasick::new(&phantoms)).transpose().map_err(setup)?;
        let pairs: Vec<_> =
            tokens.iter().map(|(_, value, phantom)| (value.0.as_str(), phantom.as_str())).collect();
        let scrubber = Scrubber::new(&pairs).map_err(setup)?;
        Ok(Self { bindings, tokens, search, scrubber })
    }

    /// Names and phantoms.
    pub(crate) fn phantoms(&self) -> impl Iterator<Item = (&str, &str)> {
        self.tokens.iter().map(|(name, _, phantom)| (name.as_str(), phantom.as_str()))
    }

    /// The name of a secret whose phantom is in the bytes.
    pub(crate) fn find(&self, bytes: &[u8]) -> Option<&str> {
        let found = self.search.as_ref()?.find(bytes)?;
        self.tokens.get(found.pattern().as_usize()).map(|(name, ..)| name.as_str())
    }

    /// How many bytes of one piece must be searched again with the next; `None` where there is nothing to search for.
    pub(crate) fn overlap(&self) -> Option<usize> {
        self.tokens.iter().map(|(_, _, phantom)| phantom.len() - 1).max()
    }

    /// Puts values in the place of phantoms, and says which secrets those were. Refused: a phantom in any place that
    /// its secret is not bound to.
    pub(crate) fn inject(
        &self,
        target: &Target,
        method: &Method,
        uri: &Uri,
        headers: &mut HeaderMap,
        secure: bool,
    ) -> Result<Vec<String>, Refusal> {
        let mut used = Vec::new();
        if self.search.is_none() {
            return Ok(used);
        }
        if let Some(secret) = uri.path_and_query().and_then(|text| self.find(text.as_str().as_bytes())) {
            return Err(Refusal::Misplaced { secret: secret.into(), place: "the address of the request" });
        }
        for (header, value) in headers.iter_mut() {
            let basic = if *header == AUTHORIZATION { basic_credentials(value) } else { None };
            let text = basic.as_deref().unwrap_or(value.as_bytes());
            let Some(secret) = self.find(text) else { continue };
            if !secure {
                return Err(Refusal::Misplaced {
                    secret: secret.into(),
                    place: "a request that is not encrypted",
                });
            }
            let mut text = text.to_vec();
            // Every phantom in the header must be bound here, or none is put in.
            for (name, value, phantom) in &self.tokens {
                if contains(&text, phantom.as_bytes()) {
                    let meets = |binding: &SecretBinding| {
                        binding.name == *name && binding.meets(target, method, uri.path(), header)
                    };
                    if !self.bindings.iter().any(meets) {
                        return Err(Refusal::Misplaced {
                            secret: name.clone(),
                            place: "a request it is not bound to",
                        });
                    }
                    text = replace(&text, phantom.as_bytes(), value.0.as_bytes());
                    used.push(name.clone());
                }
            }
            if basic.is_some() {
                text = format!("Basic {}", STANDARD.encode(&text)).into_bytes();
            }
            let mut filled = HeaderValue::from_bytes(&text)
                .map_err(|_| Refusal::Malformed("a header that cannot be sent on".into()))?;
            filled.set_sensitive(true);
            *value = filled;
        }
        Ok(used)
    }
}

/// User and password, where the header carries them.
fn basic_credentials(value: &HeaderValue) -> Option<Vec<u8>> {
    let (scheme, encoded) = value.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    STANDARD.decode(encoded.trim()).ok()
}

fn contains(text: &[u8], wanted: &[u8]) -> bool {
    text.windows(wanted.len()).any(|window| window == wanted)
}

fn replace(text: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + new.len());
    let mut rest = text;
    while let Some(at) = rest.windows(old.len()).position(|window| window == old) {
        let (before, after) = rest.split_at(at);
        out.extend_from_slice(before);
        out.extend_from_slice(new);
        rest = after.get(old.len()..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
    out
}

/// What stands for a secret in a sandbox.
pub(crate) fn new_phantom(value: &SecretValue) -> Result<String, PolicyError> {
    Ok(format!("{}{}", prefix(&value.0), random_token()?))
}

/// What a phantom begins with: as the value does, where that is the mark of a kind of token, since clients check it.
fn prefix(value: &str) -> &'static str {
    const MARKS: [&str; 15] = [
        "sk-ant-",
        "sk-",
        "ghp_",
        "gho_",
        "ghs_",
        "ghu_",
        "github_pat_",
        "glpat-",
        "hf_",
        "npm_",
        "pypi-",
        "xoxb-",
        "xoxp-",
        "xapp-",
        "dapi",
    ];
    MARKS.into_iter().find(|mark| value.starts_with(mark)).unwrap_or("phantom_")
}

/// 40 letters and digits: about 238 bits.
fn random_token() -> Result<String, PolicyError> {
    const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let mut token = String::new();
    while token.len() < 40 {
        let mut bytes = [0; 64];
        getrandom::fill(&mut bytes).map_err(|error| PolicyError::Setup(error.to_string()))?;
        // Bytes beyond the last multiple of 62 are left out, so that every letter is as likely.
        let letters =
            bytes.iter().filter(|byte| **byte < 248).filter_map(|byte| ALPHABET.get(usize::from(*byte % 62)));
        token.extend(letters.map(|letter| char::from(*letter)).take(40 - token.len()));
    }
    Ok(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phantom_looks_like_what_it_stands_for_and_is_never_the_same() {
        let phantom = |value: &str| new_phantom(&SecretValue::new(value)).unwrap();
        assert!(phantom("ghp_0123456789").starts_with("ghp_"));
        assert!(phantom("sk-ant-api03-0123456789").starts_with("sk-ant-"));
        assert!(phantom("correct-horse-battery").starts_with("phantom_"));
        assert_ne!(phantom("ghp_0123456789"), phantom("ghp_0123456789"));
        assert_eq!(phantom("ghp_0123456789").len(), 44);
    }
}
