//! Recorded streams, cut anywhere: what comes of them must not depend on how the network delivers them. This needs
//! the decoders themselves, since a socket would join the pieces again.

use std::path::Path;

use crate::anthropic::Anthropic;
use crate::chat::Chat;
use crate::responses::Responses;
use crate::sse::SseParser;
use crate::wire::{Protocol, decode};
use crate::{ModelEvent, ModelRequest, ModelResponse, Settings, ToolKind, ToolSpec};

fn read<'a>(
    protocol: &dyn Protocol,
    chunks: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<ModelEvent>, Option<ModelResponse>) {
    let tools = [ToolSpec {
        name: "apply_patch".into(),
        description: String::new(),
        kind: ToolKind::Custom { syntax: "lark".into(), definition: String::new() },
    }];
    let settings = Settings::default();
    let request =
        ModelRequest { instructions: "", items: &[], tools: &tools, settings: &settings, ordinal: 3 };
    let mut decoder = protocol.decoder(&request);
    let (mut sse, mut shown) = (SseParser::new(1 << 20), Vec::new());
    for chunk in chunks {
        if let Some(response) = decode(chunk, &mut sse, &mut *decoder, &mut shown).unwrap() {
            return (shown, Some(response));
        }
    }
    let response = decoder.end();
    (shown, response)
}

fn same_at_every_cut(protocol: &dyn Protocol, folder: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(folder);
    let mut files = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        let whole = read(protocol, [bytes.as_slice()]);
        assert!(whole.1.is_some(), "{} gives no response", path.display());
        // Pieces of one byte cut everywhere at once; the others cut everywhere in turn.
        for size in 1..=96 {
            assert_eq!(read(protocol, bytes.chunks(size)), whole, "{} in pieces of {size}", path.display());
        }
        files += 1;
    }
    assert!(files > 0);
}

#[test]
fn responses_streams_read_the_same_at_every_cut() {
    same_at_every_cut(&Responses { model: "m".into() }, "responses");
}

#[test]
fn chat_streams_read_the_same_at_every_cut() {
    same_at_every_cut(&Chat { model: "m".into(), at_openai: false }, "chat");
}

#[test]
fn anthropic_streams_read_the_same_at_every_cut() {
    same_at_every_cut(&Anthropic { model: "m".into() }, "anthropic");
}
