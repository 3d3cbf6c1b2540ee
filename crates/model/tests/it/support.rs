//! What several tests need.

use futures::StreamExt as _;
use mooring_model::{ModelClient, ModelError, ModelEvent, ModelRequest, ModelResponse, Settings};

/// A request with nothing in it but its ordinal.
pub(crate) fn bare(ordinal: u64) -> ModelRequest<'static> {
    static SETTINGS: std::sync::LazyLock<Settings> = std::sync::LazyLock::new(Settings::default);
    ModelRequest { instructions: "", items: &[], tools: &[], settings: &SETTINGS, ordinal }
}

/// Everything that a call gives until it ends, and how it ended.
pub(crate) async fn call(
    model: &dyn ModelClient,
    request: ModelRequest<'_>,
) -> (Vec<ModelEvent>, Result<ModelResponse, ModelError>) {
    let mut stream = model.stream(request);
    let mut events = Vec::new();
    let mut outcome = None;
    while let Some(event) = stream.next().await {
        assert!(outcome.is_none(), "something came after the end: {event:?}");
        match event {
            Ok(ModelEvent::Completed(response)) => outcome = Some(Ok(*response)),
            Ok(event) => events.push(event),
            Err(error) => outcome = Some(Err(error)),
        }
    }
    (events, outcome.expect("a stream ends with an answer or an error"))
}
