//! What a server's result becomes for the model: text and images, no more than a megabyte.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mooring_capability::ToolStatus;
use mooring_model::{Content, FunctionOutput};
use rmcp::model::{CallToolResult, ContentBlock, ResourceContents};

/// How much of one result the model gets, in bytes.
const LIMIT: usize = 1024 * 1024;

/// The outcome of a call that the server answered.
pub(crate) fn convert(result: CallToolResult) -> (ToolStatus, FunctionOutput) {
    let mut room = LIMIT;
    let mut has_text = false;
    let mut parts = Vec::new();
    for block in result.content {
        let part = match block {
            ContentBlock::Image(image) => match image_url(&image.data, room) {
                Ok(image_url) => {
                    room -= image_url.len();
                    parts.push(Content::InputImage { image_url, detail: None });
                    continue;
                }
                Err(why) => format!("[an image ({}) was left out: {why}]", image.mime_type),
            },
            ContentBlock::Text(text) => {
                has_text = true;
                text.text
            }
            ContentBlock::Resource(resource) => match resource.resource {
                ResourceContents::TextResourceContents { uri, text, .. } => {
                    has_text = true;
                    format!("{uri}:\n{text}")
                }
                ResourceContents::BlobResourceContents { uri, mime_type, blob, .. } => {
                    let mime = mime_type.as_deref().unwrap_or("binary");
                    format!("[{uri} ({mime}, {} bytes) was left out: it is no text]", blob.len() / 4 * 3)
                }
                _ => "[a resource of a kind that is not known here was left out]".into(),
            },
            ContentBlock::ResourceLink(link) => {
                format!("[resource {}: {}]", link.name, link.uri)
            }
            ContentBlock::Audio(audio) => {
                format!("[audio ({}) was left out: it is no text]", audio.mime_type)
            }
            _ => "[content of a kind that is not known here was left out]".into(),
        };
        parts.push(Content::InputText { text: cut(part, &mut room) });
    }
    if let Some(structured) = result.structured_content.filter(|_| !has_text) {
        parts.push(Content::InputText { text: cut(structured.to_string(), &mut room) });
    }
    let status = if result.is_error == Some(true) { ToolStatus::Failed } else { ToolStatus::Completed };
    if parts.iter().any(|part| matches!(part, Content::InputImage { .. })) {
        return (status, FunctionOutput::Parts(parts));
    }
    let text = FunctionOutput::Parts(parts).text();
    (status, FunctionOutput::Text(if text.is_empty() { "(no content)".into() } else { text }))
}

/// A text with its middle cut out where it is longer than the room left, which shrinks by it.
fn cut(text: String, room: &mut usize) -> String {
    if text.len() <= *room {
        *room -= text.len();
        return text;
    }
    let head = text.floor_char_boundary(*room / 2);
    let tail = text.ceil_char_boundary(text.len() - *room / 2);
    *room = 0;
    let gone = tail - head;
    format!(
        "{}\n[… {gone} bytes were cut here: a result may have {LIMIT} …]\n{}",
        &text[..head],
        &text[tail..]
    )
}

/// The data URL of an image that models take. One that is none would spoil the conversation for good.
fn image_url(data: &str, room: usize) -> Result<String, &'static str> {
    if data.len() + "data:image/webp;base64,".len() > room {
        return Err("it is too big");
    }
    let bytes = STANDARD.decode(data).map_err(|_| "it is no base64")?;
    let kind = match bytes.as_slice() {
        [0x89, b'P', b'N', b'G', ..] => "png",
        [0xff, 0xd8, 0xff, ..] => "jpeg",
        [b'G', b'I', b'F', b'8', ..] => "gif",
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => "webp",
        _ => return Err("it is no PNG, JPEG, GIF or WebP"),
    };
    Ok(format!("data:image/{kind};base64,{data}"))
}
