//! A model, by its name or as a client.

use std::sync::Arc;

use mooring_model::{ModelClient, ModelError, ModelOptions, ModelSpec, ScriptModel, Secret, connect};

/// A model that an agent asks: by its name, such as `openai/NAME`, `anthropic/NAME`, `chat/NAME` or `script:FILE`, or as
/// a client that the program made itself.
///
/// ```
/// use mooring::{Agent, Model};
///
/// // Once in a program, for models that are asked over the network.
/// rustls::crypto::ring::default_provider().install_default().ok();
/// let served_here = Model::new("chat/llama").base_url("http://127.0.0.1:8000/v1");
/// Agent::builder("local").model(served_here).build()?;
///
/// let error = Agent::builder("hosted").model("openai/gpt-5").build().unwrap_err();
/// assert!(error.to_string().contains("no API key"));
/// Agent::builder("hosted").model(Model::new("openai/gpt-5").key("sk-…")).build()?;
/// # Ok::<(), mooring::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Model(Kind);

#[derive(Debug, Clone)]
enum Kind {
    Named { name: String, options: Box<ModelOptions> },
    Client(Arc<dyn ModelClient>),
}

impl Model {
    /// A model by its name.
    pub fn new(name: impl Into<String>) -> Self {
        Self(Kind::Named { name: name.into(), options: Box::default() })
    }

    /// A client that the program made itself.
    pub fn client(client: Arc<dyn ModelClient>) -> Self {
        Self(Kind::Client(client))
    }

    /// With this key. It goes to the model's address and nowhere else; no journal and no error shows it.
    pub fn key(self, key: impl Into<String>) -> Self {
        let key = Secret::new(key.into());
        self.options(|options| options.api_key = Some(key))
    }

    /// At this address instead of the provider's usual one.
    pub fn base_url(self, url: impl Into<String>) -> Self {
        let url = url.into();
        self.options(|options| options.base_url = Some(url))
    }

    /// With other options: timeouts, retries, limits, a proxy. A client that the program made itself has none.
    pub fn options(mut self, change: impl FnOnce(&mut ModelOptions)) -> Self {
        if let Kind::Named { options, .. } = &mut self.0 {
            change(options);
        }
        self
    }

    /// The client, and the name and address that the journal records.
    #[expect(clippy::type_complexity, reason = "one caller takes it apart at once")]
    pub(crate) fn connect(&self) -> Result<(Arc<dyn ModelClient>, String, Option<String>), ModelError> {
        match &self.0 {
            Kind::Client(client) => Ok((Arc::clone(client), client.name().to_owned(), None)),
            Kind::Named { name, options } => {
                let client = connect(&ModelSpec::parse(name)?, options)?;
                Ok((client, name.clone(), options.base_url.clone()))
            }
        }
    }
}

impl From<&str> for Model {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

impl From<String> for Model {
    fn from(name: String) -> Self {
        Self::new(name)
    }
}

impl From<ScriptModel> for Model {
    fn from(script: ScriptModel) -> Self {
        Self::client(Arc::new(script))
    }
}

impl From<Arc<dyn ModelClient>> for Model {
    fn from(client: Arc<dyn ModelClient>) -> Self {
        Self::client(client)
    }
}
