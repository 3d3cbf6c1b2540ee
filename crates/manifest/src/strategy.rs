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
    /// The wire form's `type`.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::InContainer { .. } => "in_container",
            Self::DockerVolume { .. } => "docker_volume",
            Self::ModalCloudBucket { .. } => "modal_cloud_bucket",
            Self::CloudflareBucketMount {} => "cloudflare_bucket_mount",
            Self::E2bCloudBucket { .. } => "e2b_cloud_bucket",
            Self::DaytonaCloudBucket { .. } => "daytona_cloud_bucket",
            Self::RunloopCloudBucket { .. } => "runloop_cloud_bucket",
            Self::BlaxelCloudBucket {} => "blaxel_cloud_bucket",
            Self::BlaxelDrive {} => "blaxel_drive",
            Self::VercelCloudBucket {} => "vercel_cloud_bucket",
        }
    }

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

    /// Whether what mounts runs inside of the sandbox, where commands can read its credentials.
    pub fn is_inside(&self) -> bool {
        match self {
            Self::InContainer { .. }
            | Self::E2bCloudBucket { .. }
            | Self::DaytonaCloudBucket { .. }
            | Self::RunloopCloudBucket { .. }
            | Self::BlaxelCloudBucket {}
            | Self::VercelCloudBucket {} => true,
            Self::DockerVolume { .. }
            | Self::ModalCloudBucket { .. }
            | Self::CloudflareBucketMount {}
            | Self::BlaxelDrive {} => false,
        }
    }

    /// Normalises paths and checks what the SDK's model checks when a mount is built: which helper, which volume
    /// driver and which service fit which provider. The field and what is wrong with it are returned.
    pub(crate) fn settle(&mut self, provider: &Provider) -> Result<(), Misfit> {
        let kind = provider.type_name();
        let (patterns, drivers): (&[&str], &[&str]) = match provider {
            Provider::S3(_) | Provider::Gcs(_) => (&["rclone", "mountpoint"], &["mountpoint", "rclone"]),
            Provider::R2(_) | Provider::Box(_) => (&["rclone"], &["rclone"]),
            Provider::AzureBlob(_) => (&["rclone", "fuse"], &["rclone"]),
            Provider::S3Files(_) => (&["s3files"], &[]),
            Provider::BlaxelDrive(_) => (&[], &[]),
        };
        let fits = |names: &[&str]| if names.is_empty() { "none fits".to_owned() } else { names.join(", ") };
        let check = |patterns: &[&str], pattern: &mut Pattern| {
            let name = pattern.type_name();
            if !patterns.contains(&name) {
                let message = format!("the pattern '{name}' does not fit {kind}: {}", fits(patterns));
                return Err(("mount_strategy.pattern", message));
            }
            pattern.settle()
        };
        match self {
            Self::DockerVolume { driver, .. } if !drivers.contains(&driver.as_str()) => {
                let message = format!("the volume driver '{driver}' does not fit {kind}: {}", fits(drivers));
                Err(("mount_strategy.driver", message))
            }
            Self::DockerVolume { .. } => Ok(()),
            Self::InContainer { pattern } => check(patterns, pattern),
            // These services bring rclone, and no other helper.
            Self::E2bCloudBucket { pattern }
            | Self::DaytonaCloudBucket { pattern }
            | Self::RunloopCloudBucket { pattern } => {
                check(if patterns.contains(&"rclone") { &["rclone"] } else { &[] }, pattern)
            }
            Self::BlaxelDrive {} if matches!(provider, Provider::BlaxelDrive(_)) => Ok(()),
            Self::BlaxelDrive {} => Err(misfit("blaxel_drive", kind)),
            Self::BlaxelCloudBucket {} => bucket("blaxel_cloud_bucket", provider, true),
            Self::CloudflareBucketMount {} => match provider {
                Provider::S3(s3) if s3.session_token.is_some() => {
                    Err(("session_token", "cloudflare_bucket_mount takes no session token".to_owned()))
                }
                _ => bucket("cloudflare_bucket_mount", provider, false),
            },
            Self::ModalCloudBucket { secret_name, secret_environment_name } => {
                modal(provider, secret_name.as_deref(), secret_environment_name.as_deref())
            }
            Self::VercelCloudBucket {} if matches!(provider, Provider::S3(_)) => Ok(()),
            Self::VercelCloudBucket {} => Err(misfit("vercel_cloud_bucket", kind)),
        }
    }
}

/// A field, and why it does not fit.
type Misfit = (&'static str, String);

fn misfit(strategy: &str, kind: &str) -> Misfit {
    ("mount_strategy.type", format!("{strategy} does not fit {kind}"))
}

/// What services that mount buckets ask of the bucket's provider. `anonymous`: GCS without a pair of keys.
fn bucket(strategy: &str, provider: &Provider, anonymous: bool) -> Result<(), Misfit> {
    let (id, first, second) = match provider {
        // Blaxel leaves it to S3 what half a pair is worth.
        Provider::S3(_) if anonymous => return Ok(()),
        Provider::S3(s3) => ("access_key_id", &s3.access_key_id, &s3.secret_access_key),
        Provider::R2(r2) => ("access_key_id", &r2.access_key_id, &r2.secret_access_key),
        Provider::Gcs(gcs) if anonymous || gcs.access_id.is_some() && gcs.secret_access_key.is_some() => {
            return Ok(());
        }
        Provider::Gcs(_) => {
            return Err((
                "access_id",
                format!("{strategy} needs access_id and secret_access_key for gcs_mount"),
            ));
        }
        other => return Err(misfit(strategy, other.type_name())),
    };
    if first.is_some() == second.is_some() {
        Ok(())
    } else {
        Err((id, format!("{strategy} needs both {id} and secret_access_key, or neither")))
    }
}

fn modal(provider: &Provider, secret: Option<&str>, environment: Option<&str>) -> Result<(), Misfit> {
    let (name, place) = ("mount_strategy.secret_name", "mount_strategy.secret_environment_name");
    match (secret, environment) {
        (Some(""), _) => return Err((name, "it must not be empty".to_owned())),
        (_, Some("")) => return Err((place, "it must not be empty".to_owned())),
        (None, Some(_)) => return Err((place, "it needs a secret_name".to_owned())),
        _ => {}
    }
    let inline = match provider {
        Provider::S3(s3) => {
            [&s3.access_key_id, &s3.secret_access_key, &s3.session_token].iter().any(|key| key.is_some())
        }
        Provider::R2(r2) => {
            bucket("modal_cloud_bucket", provider, false)?;
            r2.access_key_id.is_some()
        }
        Provider::Gcs(gcs) => {
            bucket("modal_cloud_bucket", provider, secret.is_some())?;
            gcs.access_id.is_some() && gcs.secret_access_key.is_some()
        }
        other => return Err(misfit("modal_cloud_bucket", other.type_name())),
    };
    if inline && secret.is_some() {
        return Err((name, "credentials stand in the mount already; leave one of them out".to_owned()));
    }
    Ok(())
}

impl Pattern {
    fn settle(&mut self) -> Result<(), Misfit> {
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
