//! The tool `view_image`: shows the model an image of the workspace.
//!
//! Name, parameter, limit, types and texts are the OpenAI Agents SDK's. The image goes as it is, without resizing.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mooring_model::{Content, FunctionOutput, ToolKind, ToolSpec};
use mooring_sandbox::SandboxError;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::path::relative;
use crate::{BoxFuture, Effect, Tool, ToolContext, ToolInput, ToolResult, arguments};

/// The largest image that is shown: 10 MiB, which the texts call 10MB.
const LIMIT: u64 = 10 << 20;

/// How far into a file the start of an SVG is looked for.
const SVG_SNIFF: usize = 2048;

/// The tool.
#[derive(Debug)]
pub(crate) struct ViewImage;

#[derive(Debug, Deserialize)]
struct Arguments {
    path: String,
}

impl Tool for ViewImage {
    fn spec(&self) -> ToolSpec {
        let parameters = json!({
            "properties": {
                "path": {
                    "description": "The image file, relative to the workspace.",
                    "minLength": 1,
                    "title": "Path",
                    "type": "string",
                },
            },
            "required": ["path"],
            "title": "ViewImageArgs",
            "type": "object",
        });
        ToolSpec {
            name: "view_image".to_owned(),
            description: "Shows you an image file of the workspace.".to_owned(),
            kind: ToolKind::Function { parameters, strict: false },
        }
    }

    fn effect(&self) -> Effect {
        Effect::Pure
    }

    fn call<'a>(
        &'a self,
        context: &'a ToolContext,
        input: &'a ToolInput,
        _prepared: &'a Value,
    ) -> BoxFuture<'a, ToolResult> {
        Box::pin(async move {
            let Arguments { path } = match arguments(input) {
                Ok(arguments) => arguments,
                Err(refusal) => return refusal,
            };
            let Ok(path) = relative(context.session.root(), &path) else { return invalid_path() };
            view(context, &path).await
        })
    }
}

async fn view(context: &ToolContext, path: &str) -> ToolResult {
    let image = match context.session.read(path, LIMIT).await {
        Ok(image) => image,
        Err(SandboxError::NotFound { .. }) => {
            return ToolResult::failed(format!("image path `{path}` was not found"));
        }
        Err(SandboxError::PathEscape { .. }) => return invalid_path(),
        Err(error) => {
            let too_large = context.session.stat(path).await.is_ok_and(|stat| stat.size > LIMIT);
            let reason = if too_large {
                format!(
                    "image path `{path}` exceeded the allowed size of 10MB; resize or compress the image and try again"
                )
            } else {
                format!("unable to read image at `{path}`: {error}")
            };
            return ToolResult { session_lost: error.session_lost(), ..ToolResult::failed(reason) };
        }
    };
    let Some(media_type) = media_type(path, &image) else {
        return ToolResult::failed(format!("image path `{path}` is not a supported image file"));
    };
    let image_url = format!("data:{media_type};base64,{}", STANDARD.encode(&image));
    ToolResult {
        output: FunctionOutput::Parts(vec![Content::InputImage { image_url, detail: None }]),
        details: json!({ "path": path, "media_type": media_type, "bytes": image.len() }),
        ..ToolResult::text("")
    }
}

/// The type by the first bytes; for SVG also by the name.
fn media_type(path: &str, data: &[u8]) -> Option<&'static str> {
    let starts = |magic: &[u8]| data.starts_with(magic);
    if starts(b"\x89PNG\r\n\x1a\n") {
        return Some("image/png");
    } else if starts(b"\xff\xd8\xff") {
        return Some("image/jpeg");
    } else if starts(b"GIF87a") || starts(b"GIF89a") {
        return Some("image/gif");
    } else if starts(b"RIFF") && data.get(8..12) == Some(b"WEBP") {
        return Some("image/webp");
    } else if starts(b"BM") {
        return Some("image/bmp");
    } else if starts(b"II*\0") || starts(b"MM\0*") {
        return Some("image/tiff");
    }
    let head = data[..data.len().min(SVG_SNIFF)].trim_ascii_start().to_ascii_lowercase();
    let is_xml = || head.starts_with(b"<?xml") && head.windows(4).any(|bytes| bytes == b"<svg");
    let extension = path.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase());
    let is_named = matches!(extension.as_deref(), Some("svg" | "svgz"));
    (head.starts_with(b"<svg") || is_xml() || is_named).then_some("image/svg+xml")
}

fn invalid_path() -> ToolResult {
    ToolResult::failed("Invalid path. Use a path within the workspace or an explicitly granted path.")
}
