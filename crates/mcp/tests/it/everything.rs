//! The reference server of npm over stdio: every kind of result, filters, deadlines and sizes.

use mooring_capability::ToolStatus;
use mooring_model::{Content, FunctionOutput};
use serde_json::json;

use crate::support::{all, call, connect_one, done, everything, failed, names, tool};

#[tokio::test]
async fn its_tools_are_listed_and_called() {
    let servers = connect_one(everything("")).await;
    let info: Vec<_> = servers.servers().collect();
    assert_eq!(info[0].protocol, "2025-11-25");
    assert_eq!(info[0].tools, all(&servers).len());
    insta::assert_snapshot!(names(&servers).join("\n"));
    insta::assert_json_snapshot!(tool(&servers, "s__get-sum").spec());

    assert_eq!(done(&servers, "s__echo", json!({"message": "ahoy"})).await, "Echo: ahoy");
    assert_eq!(done(&servers, "s__get-sum", json!({"a": 2, "b": 3})).await, "The sum of 2 and 3 is 5.");
    let structured = done(&servers, "s__get-structured-content", json!({"location": "New York"})).await;
    assert!(structured.contains("\"temperature\""), "{structured}");
    let resource = json!({"resourceType": "Text", "resourceId": 1});
    let resource = done(&servers, "s__get-resource-reference", resource).await;
    assert!(resource.contains("demo://resource/dynamic/text/1:\n"), "{resource}");
    let blob = json!({"resourceType": "Blob", "resourceId": 1});
    let blob = done(&servers, "s__get-resource-reference", blob).await;
    assert!(blob.contains("was left out: it is no text"), "{blob}");
    let links = done(&servers, "s__get-resource-links", json!({"count": 2})).await;
    assert!(links.contains("[resource "), "{links}");

    let image = call(&servers, "s__get-tiny-image", json!({})).await;
    assert_eq!(image.status, ToolStatus::Completed);
    let FunctionOutput::Parts(parts) = image.output else { panic!("{:?}", image.output) };
    let urls = parts.iter().filter_map(|part| match part {
        Content::InputImage { image_url, detail: None } => Some(image_url),
        _ => None,
    });
    let urls: Vec<_> = urls.collect();
    assert!(matches!(urls[..], [url] if url.starts_with("data:image/png;base64,iVBORw0KGgo")), "{urls:?}");

    let error = failed(&servers, "s__get-sum", json!({"a": "two"})).await;
    assert!(error.contains("expected number"), "{error}");
    servers.close().await;
}

#[tokio::test]
async fn a_filter_leaves_tools_out() {
    let servers =
        connect_one(everything("tools = { allow = ['get-*', 'echo'], deny = ['get-env', '*-resource-*'] }"))
            .await;
    insta::assert_snapshot!(names(&servers).join("\n"), @r#"
    s__echo
    s__get-annotated-message
    s__get-structured-content
    s__get-sum
    s__get-tiny-image
    "#);
}

#[tokio::test]
async fn a_call_over_its_deadline_fails_and_the_server_goes_on() {
    let servers = connect_one(everything("timeout_s = 1")).await;
    let long = json!({"duration": 600, "steps": 1});
    let text = failed(&servers, "s__trigger-long-running-operation", long).await;
    insta::assert_snapshot!(text, @"MCP server `s`, tool `trigger-long-running-operation`: it gave no answer within 1 s and was asked to stop the call. The call may have taken effect: find out before you repeat it.");
    assert_eq!(done(&servers, "s__echo", json!({"message": "still here"})).await, "Echo: still here");
}

#[tokio::test]
async fn a_huge_result_is_cut_in_its_middle() {
    let servers = connect_one(everything("")).await;
    let message = format!("start{}end", "é".repeat(1024 * 1024));
    let text = done(&servers, "s__echo", json!({"message": message})).await;
    assert!(text.starts_with("Echo: starté") && text.ends_with("éend"));
    let note = text.split_once("é\n[… ").unwrap().1.split_once(" …]\né").unwrap().0;
    assert_eq!(note, "1048592 bytes were cut here: a result may have 1048576");
    assert!(text.len() < 1024 * 1024 + 100);
}
