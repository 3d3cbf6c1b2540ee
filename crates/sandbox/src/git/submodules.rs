//! Submodules, one level after the other. A repository names the addresses of its submodules itself, so each is
//! looked at before it is fetched: a repository of another host is an entry of its own in a manifest, or nothing.

use std::path::{Path, PathBuf};

use mooring_manifest::RelPath;

use super::{GitSource, MAX_OUTPUT, Reach};
use crate::BoxFuture;

/// How deep submodules may be nested.
const MAX_DEPTH: usize = 8;

impl GitSource {
    /// Fetches the submodules of a clone and what is below them.
    pub(super) async fn submodules(&self, work: &Path) -> Result<(), String> {
        let work = tokio::fs::canonicalize(work).await.map_err(|error| error.to_string())?;
        self.level(work, 0).await
    }

    fn level(&self, work: PathBuf, nested: usize) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            let file = work.join(".gitmodules");
            match tokio::fs::symlink_metadata(&file).await {
                Err(_) => return Ok(()),
                Ok(found) if !found.is_file() => return Err("its .gitmodules is no file".to_owned()),
                Ok(_) if nested == MAX_DEPTH => {
                    return Err(format!("its submodules are nested more than {MAX_DEPTH} levels deep"));
                }
                Ok(_) => {}
            }
            // It writes down the addresses, with those that are relative made whole.
            self.git(&work, &["submodule", "--quiet", "init"]).await?;
            for (name, url) in self.settings(&work, &["--local"], "url").await? {
                if !self.reach.includes(&url) {
                    return Err(format!(
                        "its submodule '{name}' is at {url}, which is {}; add it to the manifest as an entry of its \
                         own",
                        self.reach.outside()
                    ));
                }
            }
            let depth = self.depth();
            let update = ["submodule", "--quiet", "update", "--checkout"].into_iter().chain(depth.as_deref());
            self.git(&work, &update.collect::<Vec<_>>()).await?;
            for (name, path) in self.settings(&work, &["--file", ".gitmodules"], "path").await? {
                let odd =
                    || format!("its submodule '{name}' has the path '{path}', which leaves the repository");
                let below = work.join(RelPath::parse(&path).map_err(|_| odd())?);
                // One that is described and not there is none.
                let Ok(real) = tokio::fs::canonicalize(&below).await else { continue };
                if real != below {
                    return Err(odd());
                }
                if tokio::fs::symlink_metadata(real.join(".git")).await.is_ok() {
                    self.level(real, nested + 1).await?;
                }
            }
            Ok(())
        })
    }

    /// A setting of every submodule, by its name.
    async fn settings(&self, work: &Path, from: &[&str], key: &str) -> Result<Vec<(String, String)>, String> {
        let pattern = format!("^submodule\\..*\\.{key}$");
        let arguments = [&["config"], from, &["--null", "--get-regexp", &pattern]].concat();
        let listed = match self.git(work, &arguments).await {
            Ok(listed) => listed,
            // Git's way to say that there is none.
            Err(said) if said.contains("exit status: 1") => String::new(),
            Err(said) => return Err(said),
        };
        if listed.len() as u64 >= MAX_OUTPUT {
            return Err("it has too many submodules".to_owned());
        }
        let settings = listed.split('\0').filter_map(|setting| setting.split_once('\n'));
        Ok(settings
            .map(|(name, value)| {
                let name = name.strip_prefix("submodule.").unwrap_or(name);
                (name.strip_suffix(&format!(".{key}")).unwrap_or(name).to_owned(), value.to_owned())
            })
            .collect())
    }
}

impl Reach {
    fn includes(&self, url: &str) -> bool {
        match self {
            // Byte by byte: another spelling of the same host is refused, which costs a message and no secret.
            Self::Host(beginning) => url.starts_with(beginning.as_str()),
            Self::Below(base) => {
                let path = url.strip_prefix("file://").unwrap_or(url).replace("%25", "%");
                Path::new(&path).is_absolute()
                    && fs_err::canonicalize(&path).is_ok_and(|real| real.starts_with(base))
            }
        }
    }

    fn outside(&self) -> String {
        match self {
            Self::Host(_) => "another host".to_owned(),
            Self::Below(base) => format!("outside of {}", base.display()),
        }
    }
}
