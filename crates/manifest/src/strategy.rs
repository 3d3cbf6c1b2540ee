//! How storage is mounted, and which way fits which provider.

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Provider;
use crate::path::{has_drive, posix};

/// Who mounts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum MountStrategy {
    /// A helper inside the sandbox.
    InContainer {
        /// Which helper.
        pattern: Pattern,
    },
    /// A Docker volume.
    DockerVolume {
        /// The volume driver.
        driver: String,
        /// Its options.
        #[serde(default)]
        driver_options: IndexMap<String, String>,
    },
    /// Modal itself.
    ModalCloudBucket {
        /// The secret in Modal.
        #[serde(default)]
        secret_name: Option<String>,
        /// The environment that the secret is in.
        #[serde(default)]
        secret_environment_name: Option<String>,
    },
    /// Cloudflare itself.
    CloudflareBucketMount {},
    /// E2B, with a helper inside the sandbox.
    E2bCloudBucket {
        /// Which helper.
        #[serde(default)]
        pattern: Pattern,
    },
    /// Daytona, with a helper inside the sandbox.
    DaytonaCloudBucket {
        /// Which helper.
        #[serde(default)]
        pattern: Pattern,
    },
    /// Runloop, with a helper inside the sandbox.
    RunloopCloudBucket {
        /// Which helper.
        #[serde(default)]
        pattern: Pattern,
    },
    /// Blaxel itself, a bucket.
    BlaxelCloudBucket {},
    /// Blaxel itself, a drive.
    BlaxelDrive {},
    /// Vercel itself.
    VercelCloudBucket {},
}

/// A helper that mounts from inside the sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Pattern {
    /// `rclone`.
    Rclone(Rclone),
    /// `mount-s3`.
    Mountpoint(Mountpoint),
    /// `blobfuse2`.
    Fuse(Fuse),
    /// `mount -t s3files`.
    S3Files {
        /// Its options.
        #[serde(default)]
        options: S3FilesOptions,
    },
}

impl Default for Pattern {
    fn default() -> Self {
        Self::Rclone(Rclone::default())
    }
}

/// How rclone mounts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RcloneMode {
    /// FUSE.
    #[default]
    Fuse,
    /// An NFS server in the sandbox.
    Nfs,
}

/// `rclone`'s options.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct Rclone {
    /// How it mounts.
    #[serde(default)]
    pub mode: RcloneMode,
    /// The remote's name in its configuration.
    #[serde(default)]
    pub remote_name: Option<String>,
    /// More arguments.
    #[serde(default)]
    pub extra_args: Vec<String>,
    /// Where the NFS server listens.
    #[serde(default)]
    pub nfs_addr: Option<String>,
    /// How the NFS server is mounted.
    #[serde(default)]
    pub nfs_mount_options: Option<Vec<String>>,
    /// The configuration file.
    #[serde(default)]
    pub config_file_path: Option<String>,
}

/// `mount-s3`'s options.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct Mountpoint {
    /// Its options.
    #[serde(default)]
    pub options: MountpointOptions,
}

/// `mount-s3`'s options.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MountpointOptions {
    /// Only keys that begin with this.
    #[serde(default)]
    pub prefix: Option<String>,
    /// The region.
    #[serde(default)]
    pub region: Option<String>,
    /// The endpoint.
    #[serde(default)]
    pub endpoint_url: Option<String>,
}

/// What blobfuse2 caches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CacheType {
    /// Blocks.
    #[default]
    BlockCache,
    /// Whole files.
    FileCache,
}

/// `blobfuse2`'s options, in its own words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[expect(missing_docs, reason = "blobfuse2's own names")]
#[schemars(inline)]
pub struct Fuse {
    pub allow_other: bool,
    pub log_type: String,
    pub log_level: String,
    pub cache_type: CacheType,
    pub cache_path: Option<String>,
    pub cache_size_mb: Option<i64>,
    pub block_cache_block_size_mb: i64,
    pub block_cache_disk_timeout_sec: i64,
    pub file_cache_timeout_sec: i64,
    pub file_cache_max_size_mb: Option<i64>,
    pub attr_cache_timeout_sec: Option<i64>,
    pub entry_cache_timeout_sec: Option<i64>,
    pub negative_entry_cache_timeout_sec: Option<i64>,
}

impl Default for Fuse {
    fn default() -> Self {
        Self {
            allow_other: true,
            log_type: "syslog".to_owned(),
            log_level: "log_debug".to_owned(),
            cache_type: CacheType::default(),
            cache_path: None,
            cache_size_mb: None,
            block_cache_block_size_mb: 16,
            block_cache_disk_timeout_sec: 3600,
            file_cache_timeout_sec: 120,
            file_cache_max_size_mb: None,
            attr_cache_timeout_sec: None,
            entry_cache_timeout_sec: None,
            negative_entry_cache_timeout_sec: None,
        }
    }
}

/// The options of `mount -t s3files`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[expect(missing_docs, reason = "s3files' own names")]
pub struct S3FilesOptions {
    pub mount_target_ip: Option<String>,
    pub access_point: Option<String>,
    pub region: Option<String>,
    pub extra_options: IndexMap<String, Option<String>>,
}

/// Whose account a Box folder is seen from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BoxSubType {
    /// A user's.
    #[default]
    User,
    /// An enterprise's.
    Enterprise,
}

impl Pattern {
    /// The wire form's `type`.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Rclone(_) => "rclone",
            Self::Mountpoint(_) => "mountpoint",
            Self::Fuse(_) => "fuse",
            Self::S3Files { .. } => "s3files",
        }
    }
}

impl MountStrategy {
    /// The helper, where one mounts from inside the sandbox.
    pub fn pattern(&self) -> Option<&Pattern> {
        match self {
            Self::InContainer { pattern }
            | Self::E2bCloudBucket { pattern }
            | Self::DaytonaCloudBucket { pattern }
            | Self::RunloopCloudBucket { pattern } => Some(pattern),
            _ => None,
        }
    }

    /// Normalises paths and checks what the SDK's model checks when a mount is built: which helper and which volume
    /// driver fit which provider. The field and what is wrong with it are returned.
    pub(crate) fn settle(&mut self, provider: &Provider) -> Result<(), (&'static str, String)> {
        let kind = provider.type_name();
        let (patterns, drivers): (&[&str], &[&str]) = match provider {
            Provider::S3(_) | Provider::Gcs(_) => (&["rclone", "mountpoint"], &["mountpoint", "rclone"]),
            Provider::R2(_) | Provider::Box(_) => (&["rclone"], &["rclone"]),
            Provider::AzureBlob(_) => (&["rclone", "fuse"], &["rclone"]),
            Provider::S3Files(_) => (&["s3files"], &[]),
            Provider::BlaxelDrive(_) => (&[], &[]),
        };
        let fits = |names: &[&str]| if names.is_empty() { "none fits".to_owned() } else { names.join(", ") };
        match self {
            Self::DockerVolume { driver, .. } if !drivers.contains(&driver.as_str()) => {
                let message = format!("the volume driver '{driver}' does not fit {kind}: {}", fits(drivers));
                return Err(("mount_strategy.driver", message));
            }
            Self::InContainer { pattern }
            | Self::E2bCloudBucket { pattern }
            | Self::DaytonaCloudBucket { pattern }
            | Self::RunloopCloudBucket { pattern } => {
                let name = pattern.type_name();
                if !patterns.contains(&name) {
                    let message = format!("the pattern '{name}' does not fit {kind}: {}", fits(patterns));
                    return Err(("mount_strategy.pattern", message));
                }
                return pattern.settle();
            }
            _ => {}
        }
        Ok(())
    }
}

impl Pattern {
    fn settle(&mut self) -> Result<(), (&'static str, String)> {
        match self {
            Self::Fuse(Fuse { cache_path: Some(path), .. }) => {
                if path.starts_with(['/', '\\'])
                    || has_drive(path)
                    || path.split(['/', '\\']).any(|name| name == "..")
                {
                    let message = format!("the cache path must be relative to the workspace root: {path}");
                    return Err(("mount_strategy.pattern.cache_path", message));
                }
                *path = posix(path);
            }
            Self::Rclone(Rclone { config_file_path: Some(path), .. }) => *path = posix(path),
            _ => {}
        }
        Ok(())
    }
}
