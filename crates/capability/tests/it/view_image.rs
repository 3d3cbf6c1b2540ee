//! The tool `view_image`: what is an image, and what the model reads where there is none.

use std::sync::Arc;

use bytes::Bytes;
use mooring_capability::{ToolInput, ToolStatus};
use mooring_model::{Content, FunctionOutput};
use serde_json::json;

use crate::memory_session::{MemorySession, Node, run, text};

fn file(data: &[u8]) -> Node {
    Node::File { data: Bytes::copy_from_slice(data), mode: 0o644 }
}

#[tokio::test]
async fn images_are_known_by_their_first_bytes() {
    let images: [(&'static str, &[u8], &str); 11] = [
        ("png", b"\x89PNG\r\n\x1a\nrest", "image/png"),
        ("jpeg", b"\xff\xd8\xff\xe0", "image/jpeg"),
        ("gif", b"GIF89a", "image/gif"),
        ("old.gif", b"GIF87a", "image/gif"),
        ("webp", b"RIFF\0\0\0\0WEBP", "image/webp"),
        ("bmp", b"BM....", "image/bmp"),
        ("tiff", b"II*\0", "image/tiff"),
        ("big.tiff", b"MM\0*", "image/tiff"),
        ("svg", b"  <SVG>", "image/svg+xml"),
        ("xml", b"<?xml version='1.0'?>\n<svg/>", "image/svg+xml"),
        ("named.SVGZ", b"\x1f\x8b", "image/svg+xml"),
    ];
    for (name, data, media_type) in images {
        let session = Arc::new(MemorySession::with([(name, file(data))]));
        let (_, result) = run(&session, "view_image", ToolInput::Json(json!({ "path": name }))).await;
        let FunctionOutput::Parts(parts) = &result.output else { panic!("{name}: {result:?}") };
        let [Content::InputImage { image_url, detail: None }] = parts.as_slice() else { panic!("{name}") };
        assert!(image_url.starts_with(&format!("data:{media_type};base64,")), "{name}: {image_url}");
        assert_eq!(result.details, json!({ "path": name, "media_type": media_type, "bytes": data.len() }));
    }
}

#[tokio::test]
async fn the_data_url_holds_the_file_as_it_is() {
    let session = Arc::new(MemorySession::with([("d/a.gif", file(b"GIF89a\xff"))]));
    let input = ToolInput::Json(json!({ "path": "/ws/x/../d/a.gif" }));
    let (_, result) = run(&session, "view_image", input).await;
    let image_url = "data:image/gif;base64,R0lGODlh/w==".to_owned();
    assert_eq!(result.output, FunctionOutput::Parts(vec![Content::InputImage { image_url, detail: None }]));
}

#[tokio::test]
async fn what_is_no_image_is_said_in_the_sdks_words() {
    let session = Arc::new(MemorySession::with([
        ("text.txt", text("hello")),
        ("empty.png", text("")),
        ("page.xml", text("<?xml version='1.0'?><html/>")),
        ("large.png", file(&vec![b'x'; (10 << 20) + 1])),
        ("link.png", Node::Link("/etc/x.png".into())),
        ("dir", Node::Directory),
    ]));
    let inputs = [
        json!({ "path": "text.txt" }),
        json!({ "path": "empty.png" }),
        json!({ "path": "page.xml" }),
        json!({ "path": "large.png" }),
        json!({ "path": "link.png" }),
        json!({ "path": "dir" }),
        json!({ "path": "./missing.png" }),
        json!({ "path": "../x.png" }),
        json!({ "path": "" }),
        json!({ "path": 7 }),
        json!({}),
        json!([]),
    ];
    let mut report = Vec::new();
    for input in inputs {
        let (_, result) = run(&session, "view_image", ToolInput::Json(input.clone())).await;
        assert_eq!(result.status, ToolStatus::Failed, "{input}");
        report.push(format!("{input}\n    {}", result.output.text()));
    }
    insta::assert_snapshot!(report.join("\n"));
}
