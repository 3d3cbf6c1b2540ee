//! What private repositories are fetched with. A manifest names a secret; its value is the operator's, and is used
//! before there is a sandbox.

use std::collections::BTreeMap;
use std::fmt;

use mooring_manifest::Manifest;

use crate::SandboxError;

/// The user that goes with a token, for whom the usual hosts do not ask.
const TOKEN_USER: &str = "x-access-token";

/// The most bytes of a value: it goes to git in one piece.
const LONGEST: usize = 2048;

/// A user and a password, for HTTP's basic authentication. Its `Debug` form shows nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    user: String,
    password: String,
}

/// Credentials by the names of their secrets.
pub type Credentials = BTreeMap<String, Credential>;

impl Credential {
    /// Reads `USER:PASSWORD`, or a token alone.
    ///
    /// # Errors
    /// What is wrong with it, without showing it.
    pub fn parse(value: &str) -> Result<Self, &'static str> {
        let (user, password) = value.split_once(':').unwrap_or((TOKEN_USER, value));
        if user.is_empty() || password.is_empty() {
            return Err("it must be a token, or USER:PASSWORD");
        }
        if value.len() > LONGEST {
            return Err("it must have at most 2048 bytes");
        }
        if value.contains(char::is_control) {
            return Err("it holds a control character (is there a line break at its end?)");
        }
        Ok(Self { user: user.to_owned(), password: password.to_owned() })
    }

    /// The credentials that a manifest's repositories are fetched with, as far as `value` knows them. What is missing is
    /// refused when the manifest is planned.
    ///
    /// # Errors
    /// [`SandboxError::Invalid`] for a value that is no credential.
    pub fn all_of(
        manifest: &Manifest,
        value: impl Fn(&str) -> Option<String>,
    ) -> Result<Credentials, SandboxError> {
        let named = manifest.extension.git.values().filter_map(|options| options.credentials.as_ref());
        let mut found = Credentials::new();
        for name in named {
            let Some(value) = value(name) else { continue };
            let credential = Self::parse(&value).map_err(|reason| SandboxError::Invalid {
                reason: format!("the secret '{name}' is no credential for git: {reason}"),
            })?;
            found.insert(name.clone(), credential);
        }
        Ok(found)
    }

    /// As git's credential helpers say it.
    pub(crate) fn told(&self) -> String {
        format!("username={}\npassword={}\n", self.user, self.password)
    }

    /// A text without the password, should somebody have put it there.
    pub(crate) fn scrub(&self, text: &str) -> String {
        text.replace(&self.password, "***")
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_a_user_of_its_own() {
        let token = Credential::parse("ghp_0123456789").unwrap();
        assert_eq!(token.told(), "username=x-access-token\npassword=ghp_0123456789\n");
        let pair = Credential::parse("ann:pass:word").unwrap();
        assert_eq!(pair.told(), "username=ann\npassword=pass:word\n");
        assert_eq!(format!("{pair:?}"), "Credential(..)");
        for bad in ["", "ann:", ":word", "token\n", &"x".repeat(2049)] {
            Credential::parse(bad).unwrap_err();
        }
    }
}
