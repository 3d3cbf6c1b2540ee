//! A client for each kind of storage. It reads no environment and uses no identity of this machine: what opens the
//! storage is what the manifest names, or nothing.

use std::collections::BTreeMap;
use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mooring_egress::{Host, Operator, SecretValue};
use mooring_manifest::{AzureBlob, Gcs, Provider, R2, S3};
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::client::{ClientOptions, HttpClient, HttpConnector};
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path;
use object_store::{BackoffConfig, ObjectStore, RetryConfig};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// How long a connection may take, and how long nothing may come on one.
const CONNECT: Duration = Duration::from_secs(5);
const QUIET: Duration = Duration::from_secs(15);
/// How long a request is tried again.
const RETRY: Duration = Duration::from_secs(20);

/// Storage and the part of it that is mounted.
#[derive(Debug)]
pub(crate) struct Connected {
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) prefix: Path,
}

type Credentials = BTreeMap<String, SecretValue>;

/// Makes a client, and looks whether its address is one that may be connected to.
pub(crate) async fn connect(
    provider: &Provider,
    credentials: &Credentials,
    operator: &Arc<Operator>,
) -> Result<Connected, String> {
    let network = Guarded { operator: Arc::clone(operator) };
    match provider {
        Provider::S3(s3) => of_s3(s3, credentials, network).await,
        Provider::R2(r2) => of_r2(r2, credentials, network).await,
        Provider::Gcs(gcs) => of_gcs(gcs, credentials, network).await,
        Provider::AzureBlob(azure) => of_azure(azure, credentials, network).await,
        Provider::Box(_) | Provider::S3Files(_) | Provider::BlaxelDrive(_) => {
            Err("this kind of storage is not served; S3, R2, Google Cloud Storage and Azure Blob are".into())
        }
    }
}

async fn of_s3(s3: &S3, credentials: &Credentials, network: Guarded) -> Result<Connected, String> {
    let keys = pair(credentials, "access_key_id", "secret_access_key")?;
    let token = credentials.get("session_token").map(SecretValue::expose);
    let bucket =
        Bucket { name: &s3.bucket, region: s3.region.as_deref(), endpoint: s3.endpoint_url.as_deref() };
    Ok(Connected {
        store: amazon(bucket, keys, token, network).await?,
        prefix: prefix(s3.prefix.as_deref())?,
    })
}

async fn of_r2(r2: &R2, credentials: &Credentials, network: Guarded) -> Result<Connected, String> {
    let keys = pair(credentials, "access_key_id", "secret_access_key")?;
    let own = format!("https://{}.r2.cloudflarestorage.com", r2.account_id);
    let endpoint = r2.custom_domain.as_deref().unwrap_or(&own);
    let bucket = Bucket { name: &r2.bucket, region: Some("auto"), endpoint: Some(endpoint) };
    Ok(Connected { store: amazon(bucket, keys, None, network).await?, prefix: Path::default() })
}

async fn of_gcs(gcs: &Gcs, credentials: &Credentials, network: Guarded) -> Result<Connected, String> {
    if credentials.contains_key("service_account_file") {
        let text = "a file of this machine is not read; give its content as service_account_credentials";
        return Err(text.into());
    }
    let prefix = prefix(gcs.prefix.as_deref())?;
    if let Some(keys) = pair(credentials, "access_id", "secret_access_key")? {
        // Keys of that kind are for the interface that is like S3's.
        let endpoint = gcs.endpoint_url.as_deref().unwrap_or("https://storage.googleapis.com");
        let region = gcs.region.as_deref().or(Some("auto"));
        let bucket = Bucket { name: &gcs.bucket, region, endpoint: Some(endpoint) };
        return Ok(Connected { store: amazon(bucket, Some(keys), None, network).await?, prefix });
    }
    let endpoint = gcs.endpoint_url.as_deref();
    network.check(endpoint.unwrap_or("https://storage.googleapis.com")).await?;
    let mut builder = GoogleCloudStorageBuilder::new()
        .with_bucket_name(&gcs.bucket)
        .with_client_options(options())
        .with_retry(retry())
        .with_http_connector(network);
    if let Some(endpoint) = endpoint {
        builder = builder.with_base_url(endpoint.trim_end_matches('/'));
    }
    builder = match (credentials.get("access_token"), credentials.get("service_account_credentials")) {
        (Some(token), _) => builder.with_bearer_token(token.expose()),
        (None, Some(account)) => builder.with_service_account_key(account.expose()),
        (None, None) => builder.with_skip_signature(true),
    };
    Ok(Connected { store: Arc::new(builder.build().map_err(|error| told(&error))?), prefix })
}

async fn of_azure(
    azure: &AzureBlob,
    credentials: &Credentials,
    network: Guarded,
) -> Result<Connected, String> {
    if credentials.contains_key("identity_client_id") || azure.identity_client_id.is_some() {
        let text =
            "an identity of this machine is not used; give an account_key, or none for a public container";
        return Err(text.into());
    }
    let own = format!("https://{}.blob.core.windows.net", azure.account);
    let endpoint = azure.endpoint.as_deref().unwrap_or(&own).trim_end_matches('/');
    network.check(endpoint).await?;
    let builder = MicrosoftAzureBuilder::new()
        .with_account(&azure.account)
        .with_container_name(&azure.container)
        .with_endpoint(endpoint.to_owned())
        .with_client_options(options())
        .with_retry(retry())
        .with_http_connector(network);
    let builder = match credentials.get("account_key") {
        Some(key) => builder.with_access_key(key.expose()),
        None => builder.with_skip_signature(true),
    };
    let store = Arc::new(builder.build().map_err(|error| told(&error))?);
    Ok(Connected { store, prefix: Path::default() })
}

/// A bucket that is asked as Amazon's are.
struct Bucket<'a> {
    name: &'a str,
    region: Option<&'a str>,
    endpoint: Option<&'a str>,
}

async fn amazon(
    bucket: Bucket<'_>,
    keys: Option<(&str, &str)>,
    token: Option<&str>,
    network: Guarded,
) -> Result<Arc<dyn ObjectStore>, String> {
    let region = bucket.region.unwrap_or("us-east-1");
    let own = format!("https://s3.{region}.amazonaws.com");
    let endpoint = bucket.endpoint.unwrap_or(&own).trim_end_matches('/');
    network.check(endpoint).await?;
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(bucket.name)
        .with_region(region)
        .with_endpoint(endpoint)
        .with_virtual_hosted_style_request(false)
        .with_client_options(options())
        .with_retry(retry())
        .with_http_connector(network);
    builder = match keys {
        Some((id, secret)) => builder.with_access_key_id(id).with_secret_access_key(secret),
        None => builder.with_skip_signature(true),
    };
    if let Some(token) = token {
        builder = builder.with_token(token);
    }
    Ok(Arc::new(builder.build().map_err(|error| told(&error))?))
}

/// Two credentials of which one alone is a mistake.
fn pair<'a>(
    credentials: &'a Credentials,
    first: &str,
    second: &str,
) -> Result<Option<(&'a str, &'a str)>, String> {
    match (credentials.get(first), credentials.get(second)) {
        (Some(one), Some(two)) => Ok(Some((one.expose(), two.expose()))),
        (None, None) => Ok(None),
        (Some(_), None) => Err(format!("there is {first} without {second}")),
        (None, Some(_)) => Err(format!("there is {second} without {first}")),
    }
}

fn prefix(text: Option<&str>) -> Result<Path, String> {
    let text = text.unwrap_or_default().trim_matches('/');
    Path::parse(text).map_err(|error| format!("its prefix '{text}' is no part of a name: {error}"))
}

fn options() -> ClientOptions {
    ClientOptions::new().with_allow_http(true)
}

fn retry() -> RetryConfig {
    let backoff = BackoffConfig { max_backoff: Duration::from_secs(2), ..BackoffConfig::default() };
    RetryConfig { backoff, max_retries: 3, retry_timeout: RETRY }
}

/// An error with what led to it, each part once.
pub(crate) fn told(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = cause.source();
    }
    text
}

/// Connects only to where the operator lets a manifest lead.
#[derive(Debug, Clone)]
struct Guarded {
    operator: Arc<Operator>,
}

impl Guarded {
    /// Whether an endpoint can be connected to. Addresses are never looked up by [`Resolve`], and errors of that come late.
    async fn check(&self, endpoint: &str) -> Result<(), String> {
        let url = reqwest::Url::parse(endpoint).map_err(|error| format!("{endpoint} is no URL: {error}"))?;
        let host = url.host_str().ok_or_else(|| format!("{endpoint} names no host"))?;
        let host = Host::parse(host).map_err(|error| error.to_string())?;
        self.operator.addresses(&host).await.map(drop).map_err(|error| error.to_string())
    }
}

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        let operator = Arc::clone(&self.operator);
        Box::pin(async move {
            let host = Host::parse(name.as_str())?;
            let addresses = operator.addresses(&host).await?;
            let addresses: Addrs = Box::new(addresses.into_iter().map(|address| SocketAddr::new(address, 0)));
            Ok(addresses)
        })
    }
}

impl HttpConnector for Guarded {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        let failed =
            |source: reqwest::Error| object_store::Error::Generic { store: "HTTP", source: Box::new(source) };
        let mut builder = reqwest::Client::builder()
            .dns_resolver(Arc::new(self.clone()))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT)
            .read_timeout(QUIET);
        for root in
            reqwest::Certificate::from_pem_bundle(self.operator.extra_roots.as_bytes()).map_err(failed)?
        {
            builder = builder.add_root_certificate(root);
        }
        Ok(HttpClient::new(builder.build().map_err(failed)?))
    }
}
