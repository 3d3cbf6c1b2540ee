//! The skills of a workspace (Agent Skills format): which ones there are, and reading one.
//!
//! The index is lazy: a model gets names and descriptions at the start, and a skill's instructions when it asks for
//! them with `load_skill`, as the file is then. A skill is content of the workspace that nobody has vetted. It grants
//! nothing, and a malformed one is left out with its reason.

use bytes::Bytes;
use mooring_sandbox::{FileKind, SandboxError, SandboxSession};

use crate::skill_file::{SkillFile, is_name};
use crate::workspace::kind;

/// Where skills lie, each with the directories on the way there.
const PLACES: [(&str, &[&str]); 2] =
    [("skills", &["skills"]), (".agents/skills", &[".agents", ".agents/skills"])];

/// In so many directories a skill is looked for, both places together.
const SKILLS: usize = 64;

/// The largest `SKILL.md`.
const FILE_BYTES: u64 = 256 << 10;

/// The skills of a workspace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SkillIndex {
    /// In order of their names.
    pub skills: Vec<Skill>,
    /// What looked like a skill and was left out.
    pub problems: Vec<SkillProblem>,
}

/// A skill that can be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skill {
    /// At most 64 lower-case letters, digits and hyphens.
    pub name: String,
    /// What it does and when to use it, at most 1,024 characters on one line, in the skill's own words.
    pub description: String,
    /// Its `SKILL.md`, relative to the workspace root.
    pub path: String,
}

/// What looked like a skill and was left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SkillProblem {
    /// The file or directory, relative to the workspace root. As the workspace names it: escape it before printing.
    pub path: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Why a skill was not read.
#[derive(Debug)]
pub(crate) enum SkillError {
    /// The directory has no `SKILL.md`.
    Missing,
    /// It cannot be used.
    Refused(SkillProblem),
    /// The session is lost.
    Lost(SandboxError),
}

impl From<SandboxError> for SkillError {
    fn from(error: SandboxError) -> Self {
        Self::Lost(error)
    }
}

impl SkillIndex {
    /// Looks for skills in `skills/*/SKILL.md` and `.agents/skills/*/SKILL.md`, in at most 64 directories and with at
    /// most 256 KiB each. Links are not followed. Where both places have a name, both are left out, since it is not clear
    /// which one is meant.
    ///
    /// # Errors
    /// Only where the session is lost.
    pub async fn read(session: &dyn SandboxSession) -> Result<Self, SandboxError> {
        let mut index = Self::default();
        let mut candidates = Vec::new();
        for (place, way) in PLACES {
            match directories(session, place, way).await {
                Ok(names) => candidates.extend(names.into_iter().map(|name| (place, name))),
                Err(SkillError::Missing) => {}
                Err(SkillError::Refused(problem)) => index.problems.push(problem),
                Err(SkillError::Lost(error)) => return Err(error),
            }
        }
        if let Some((place, name)) = candidates.get(SKILLS) {
            index.problems.push(SkillProblem {
                path: format!("{place}/{name}"),
                reason: format!("it and all after it are left out: a workspace may have {SKILLS} skills"),
            });
        }
        let mut found = Vec::new();
        for (place, name) in candidates.into_iter().take(SKILLS) {
            let path = format!("{place}/{name}/SKILL.md");
            let skill = read_skill(session, place, &name).await.and_then(|data| {
                let file = parse(&path, &name, &data)?;
                Ok(Skill { name: name.clone(), description: file.description, path: path.clone() })
            });
            if !matches!(skill, Err(SkillError::Missing)) {
                found.push(name);
            }
            match skill {
                Ok(skill) => index.skills.push(skill),
                Err(SkillError::Missing) => {}
                Err(SkillError::Refused(problem)) => index.problems.push(problem),
                Err(SkillError::Lost(error)) => return Err(error),
            }
        }
        index.leave_out_duplicates(&found);
        Ok(index)
    }

    /// `found` are the names of all that looked like a skill, usable or not.
    fn leave_out_duplicates(&mut self, found: &[String]) {
        self.skills.sort_by(|a, b| (&a.name, &a.path).cmp(&(&b.name, &b.path)));
        let is_double = |skill: &mut Skill| found.iter().filter(|name| **name == skill.name).count() > 1;
        self.problems.extend(self.skills.extract_if(.., is_double).map(|skill| SkillProblem {
            path: skill.path,
            reason: format!("another skill is named `{}` too: rename one of them", skill.name),
        }));
    }
}

/// The places of the workspace that have a skill of this name.
pub(crate) async fn find(
    session: &dyn SandboxSession,
    name: &str,
) -> Result<Vec<&'static str>, SandboxError> {
    let mut places = Vec::new();
    if !is_name(name) {
        return Ok(places);
    }
    for (place, way) in PLACES {
        let found = kind(session, &format!("{place}/{name}/SKILL.md")).await?.is_some();
        if found && is_open(session, way).await? {
            places.push(place);
        }
    }
    Ok(places)
}

/// A skill's file as it is.
pub(crate) async fn read_skill(
    session: &dyn SandboxSession,
    place: &str,
    name: &str,
) -> Result<Bytes, SkillError> {
    let directory = format!("{place}/{name}");
    let path = format!("{directory}/SKILL.md");
    for (path, expected) in [(&directory, FileKind::Directory), (&path, FileKind::File)] {
        match kind(session, path).await? {
            Some(kind) if kind == expected => {}
            Some(FileKind::Symlink) => return Err(refused(path, "it is a symbolic link".to_owned())),
            _ => return Err(SkillError::Missing),
        }
    }
    session.read(&path, FILE_BYTES).await.map_err(|error| {
        if error.session_lost() {
            SkillError::Lost(error)
        } else {
            refused(&path, format!("it cannot be read, or is larger than {FILE_BYTES} bytes"))
        }
    })
}

/// What a skill's file says.
pub(crate) fn parse<'a>(path: &str, name: &str, data: &'a [u8]) -> Result<SkillFile<'a>, SkillError> {
    SkillFile::parse(name, data).map_err(|reason| refused(path, reason))
}

/// The names of the directories in a place, and of the links, which are refused later.
async fn directories(
    session: &dyn SandboxSession,
    place: &str,
    way: &[&str],
) -> Result<Vec<String>, SkillError> {
    for path in way {
        match kind(session, path).await? {
            Some(FileKind::Directory) => {}
            Some(FileKind::Symlink) => return Err(refused(path, "it is a symbolic link".to_owned())),
            _ => return Err(SkillError::Missing),
        }
    }
    let entries = session.list(place).await.map_err(|error| {
        if error.session_lost() {
            SkillError::Lost(error)
        } else {
            refused(place, "it cannot be listed".to_owned())
        }
    })?;
    let may_be_skill = |kind| matches!(kind, FileKind::Directory | FileKind::Symlink);
    Ok(entries.into_iter().filter(|entry| may_be_skill(entry.kind)).map(|entry| entry.name).collect())
}

/// Whether no link is on the way to a place.
async fn is_open(session: &dyn SandboxSession, way: &[&str]) -> Result<bool, SandboxError> {
    for path in way {
        if kind(session, path).await? != Some(FileKind::Directory) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn refused(path: &str, reason: String) -> SkillError {
    SkillError::Refused(SkillProblem { path: path.to_owned(), reason })
}
