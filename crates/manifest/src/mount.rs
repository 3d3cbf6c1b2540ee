//! Storage that is mounted into the workspace: the providers and what each needs.
//!
//! Mounts are read, checked and written here; whether a backend can mount is asked when a run is planned.

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::MountStrategy;
use crate::strategy::BoxSubType;

/// A mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mount {
    /// What every mount has.
    #[serde(flatten)]
    pub common: MountCommon,
    /// What is mounted.
    #[serde(flatten)]
    pub provider: Provider,
}

/// What every mount has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MountCommon {
    /// Where, relative to the root or absolute. `None`: at the entry's own path.
    #[serde(default)]
    pub mount_path: Option<String>,
    /// Whether nothing may be written there.
    #[serde(default = "yes")]
    pub read_only: bool,
    /// How.
    pub mount_strategy: MountStrategy,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Provider {
    /// An S3 bucket.
    S3(S3),
    /// A Google Cloud Storage bucket.
    Gcs(Gcs),
    /// A Cloudflare R2 bucket.
    R2(R2),
    /// An Azure Blob container.
    AzureBlob(AzureBlob),
    /// A Box folder.
    Box(Box),
    /// An S3 Files file system.
    S3Files(S3Files),
    /// A Blaxel drive.
    BlaxelDrive(BlaxelDrive),
}

macro_rules! provider {
    ($(#[$doc:meta])* $name:ident { $($(#[$field:meta])* $key:ident: $kind:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        #[expect(missing_docs, reason = "the provider's own names")]
        pub struct $name { $($(#[$field])* pub $key: $kind),* }
    };
}

provider! {
    /// An S3 bucket.
    S3 {
        bucket: String,
        #[serde(default)] access_key_id: Option<String>,
        #[serde(default)] secret_access_key: Option<String>,
        #[serde(default)] session_token: Option<String>,
        #[serde(default)] prefix: Option<String>,
        #[serde(default)] region: Option<String>,
        #[serde(default)] endpoint_url: Option<String>,
        #[serde(default = "aws")] s3_provider: String,
    }
}

provider! {
    /// A Google Cloud Storage bucket.
    Gcs {
        bucket: String,
        #[serde(default)] access_id: Option<String>,
        #[serde(default)] secret_access_key: Option<String>,
        #[serde(default)] prefix: Option<String>,
        #[serde(default)] region: Option<String>,
        #[serde(default)] endpoint_url: Option<String>,
        #[serde(default)] service_account_file: Option<String>,
        #[serde(default)] service_account_credentials: Option<String>,
        #[serde(default)] access_token: Option<String>,
    }
}

provider! {
    /// A Cloudflare R2 bucket.
    R2 {
        bucket: String,
        account_id: String,
        #[serde(default)] access_key_id: Option<String>,
        #[serde(default)] secret_access_key: Option<String>,
        #[serde(default)] custom_domain: Option<String>,
    }
}

provider! {
    /// An Azure Blob container.
    AzureBlob {
        account: String,
        container: String,
        #[serde(default)] endpoint: Option<String>,
        #[serde(default)] identity_client_id: Option<String>,
        #[serde(default)] account_key: Option<String>,
    }
}

provider! {
    /// A Box folder.
    Box {
        #[serde(default)] path: Option<String>,
        #[serde(default)] client_id: Option<String>,
        #[serde(default)] client_secret: Option<String>,
        #[serde(default)] access_token: Option<String>,
        #[serde(default)] token: Option<String>,
        #[serde(default)] box_config_file: Option<String>,
        #[serde(default)] config_credentials: Option<String>,
        #[serde(default)] box_sub_type: BoxSubType,
        #[serde(default)] root_folder_id: Option<String>,
        #[serde(default)] impersonate: Option<String>,
        #[serde(default)] owned_by: Option<String>,
    }
}

provider! {
    /// An S3 Files file system.
    S3Files {
        file_system_id: String,
        #[serde(default)] subpath: Option<String>,
        #[serde(default)] mount_target_ip: Option<String>,
        #[serde(default)] access_point: Option<String>,
        #[serde(default)] region: Option<String>,
        #[serde(default)] extra_options: IndexMap<String, Option<String>>,
    }
}

provider! {
    /// A Blaxel drive.
    BlaxelDrive {
        drive_name: String,
        #[serde(default)] drive_mount_path: String,
        #[serde(default = "slash")] drive_path: String,
        #[serde(default)] drive_read_only: bool,
    }
}

fn yes() -> bool {
    true
}

fn aws() -> String {
    "AWS".to_owned()
}

fn slash() -> String {
    "/".to_owned()
}

impl Provider {
    /// The wire form's `type`.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::S3(_) => "s3_mount",
            Self::Gcs(_) => "gcs_mount",
            Self::R2(_) => "r2_mount",
            Self::AzureBlob(_) => "azure_blob_mount",
            Self::Box(_) => "box_mount",
            Self::S3Files(_) => "s3_files_mount",
            Self::BlaxelDrive(_) => "blaxel_drive_mount",
        }
    }

    /// The fields that a secret can be put in from outside.
    pub fn credential_fields(&self) -> &'static [&'static str] {
        match self {
            Self::S3(_) => &["access_key_id", "secret_access_key", "session_token"],
            Self::R2(_) => &["access_key_id", "secret_access_key"],
            Self::Gcs(_) => {
                &["access_id", "secret_access_key", "service_account_credentials", "access_token"]
            }
            Self::AzureBlob(_) => &["account_key"],
            Self::Box(_) | Self::S3Files(_) | Self::BlaxelDrive(_) => &[],
        }
    }

    /// A field that holds a secret here, in the manifest itself. Ids of keys are none.
    pub fn literal_secret(&self) -> Option<&'static str> {
        let harmless = |field: &str| {
            matches!(
                field,
                "access_key_id"
                    | "access_id"
                    | "identity_client_id"
                    | "service_account_file"
                    | "box_config_file"
            )
        };
        let mut fields = self.credentials().into_iter();
        fields.find(|(field, value)| value.is_some() && !harmless(field)).map(|(field, _)| field)
    }

    /// The fields that hold a credential or say where one is, and their values.
    pub(crate) fn credentials(&self) -> Vec<(&'static str, Option<&str>)> {
        match self {
            Self::S3(s3) => vec![
                ("access_key_id", s3.access_key_id.as_deref()),
                ("secret_access_key", s3.secret_access_key.as_deref()),
                ("session_token", s3.session_token.as_deref()),
            ],
            Self::Gcs(gcs) => vec![
                ("access_id", gcs.access_id.as_deref()),
                ("secret_access_key", gcs.secret_access_key.as_deref()),
                ("service_account_file", gcs.service_account_file.as_deref()),
                ("service_account_credentials", gcs.service_account_credentials.as_deref()),
                ("access_token", gcs.access_token.as_deref()),
            ],
            Self::R2(r2) => vec![
                ("access_key_id", r2.access_key_id.as_deref()),
                ("secret_access_key", r2.secret_access_key.as_deref()),
            ],
            Self::AzureBlob(azure) => vec![
                ("identity_client_id", azure.identity_client_id.as_deref()),
                ("account_key", azure.account_key.as_deref()),
            ],
            Self::Box(folder) => vec![
                ("client_secret", folder.client_secret.as_deref()),
                ("access_token", folder.access_token.as_deref()),
                ("token", folder.token.as_deref()),
                ("box_config_file", folder.box_config_file.as_deref()),
                ("config_credentials", folder.config_credentials.as_deref()),
            ],
            Self::S3Files(_) | Self::BlaxelDrive(_) => Vec::new(),
        }
    }
}
