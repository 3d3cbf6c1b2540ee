//! A `SKILL.md` of the Agent Skills format: YAML between two `---` lines, then instructions in Markdown.
//!
//! Of the YAML only `name`, `description` and `compatibility` are used. `allowed-tools` is not read on purpose: a file of
//! the workspace widens nothing. `license`, `metadata` and what else there may be say nothing that a model needs.

use serde::Deserialize;

use crate::workspace::{head, one_line};

/// The largest front matter that the parser is given.
const FRONT_MATTER_BYTES: usize = 16 << 10;

/// The most opening brackets in it: the parser's time grows with the square of their depth.
const BRACKETS: usize = 256;

/// A skill's file, read and found to be in order.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SkillFile<'a> {
    /// On one line.
    pub(crate) description: String,
    /// On one line.
    pub(crate) compatibility: Option<String>,
    /// What comes after the front matter.
    pub(crate) body: &'a str,
}

#[derive(Debug, Deserialize)]
#[serde(expecting = "a mapping")]
struct FrontMatter {
    name: String,
    description: String,
    compatibility: Option<String>,
}

impl<'a> SkillFile<'a> {
    /// Reads the file of the skill that lies in the directory `name`, or says what is wrong with it.
    pub(crate) fn parse(name: &str, data: &'a [u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(data).map_err(|error| format!("it is not UTF-8: {error}"))?;
        let (yaml, body) = split(text)?;
        if yaml.matches(['[', '{']).count() > BRACKETS {
            return Err(format!("its front matter has more than {BRACKETS} brackets"));
        }
        let front_matter: FrontMatter = serde_yaml_ng::from_str(yaml).map_err(|error| {
            // The parser may quote the file.
            format!("its front matter is refused: {}", head(&one_line(&error.to_string()), 300).0)
        })?;
        let FrontMatter { name: own, description, compatibility } = front_matter;
        if own != name {
            return Err("its `name` is not the name of its directory".to_owned());
        }
        if !is_name(name) {
            return Err(
                "its `name` must be 1 to 64 lower-case letters, digits and single hyphens between them"
                    .to_owned(),
            );
        }
        Ok(Self {
            description: limited("description", &description, 1024)?,
            compatibility: compatibility.map(|text| limited("compatibility", &text, 500)).transpose()?,
            body,
        })
    }
}

/// Whether this can be the name of a skill. Such a name is safe in a path.
pub(crate) fn is_name(name: &str) -> bool {
    let is_word = |word: &str| {
        !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    name.len() <= 64 && name.split('-').all(is_word)
}

/// The front matter and what follows it.
fn split(text: &str) -> Result<(&str, &str), String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let missing = || "it does not begin with front matter between two `---` lines".to_owned();
    let mut lines = text.split_inclusive('\n');
    let first = lines.next().filter(|line| line.trim_end() == "---").ok_or_else(missing)?;
    let mut end = first.len();
    for line in lines {
        if line.trim_end() == "---" {
            return Ok((&text[first.len()..end], &text[end + line.len()..]));
        }
        end += line.len();
        if end > FRONT_MATTER_BYTES {
            return Err(format!("its front matter is larger than {FRONT_MATTER_BYTES} bytes"));
        }
    }
    Err(missing())
}

fn limited(field: &str, text: &str, limit: usize) -> Result<String, String> {
    let line = one_line(text);
    if line.is_empty() || text.trim().chars().count() > limit {
        return Err(format!("its `{field}` must have 1 to {limit} characters"));
    }
    Ok(line)
}
