//! What the model sees of a server's tools, and what is known of their effects.

use mooring_capability::Effect;
use mooring_mcp::McpServers;
use serde_json::json;

use crate::support::{all, call, connect, connect_one, done, fake, names, refused, tool};

fn effects(servers: &McpServers) -> [Effect; 3] {
    ["s__meta", "s__reader", "s__repeater"].map(|name| tool(servers, name).effect())
}

#[tokio::test]
async fn names_that_clash_or_do_not_fit_get_a_hash_and_lead_to_their_tools() {
    let servers = connect_one(fake(&[], "tools.allow = ['a?b', 'a.b', 'a_b', 'nnn*']")).await;
    insta::assert_snapshot!(names(&servers).join("\n"), @r#"
    s__a_b_2e7336dc
    s__a_b
    s__nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn_feed930b
    "#);
    assert_eq!(done(&servers, "s__a_b", json!({})).await, "called a_b");
    assert_eq!(done(&servers, "s__a_b_2e7336dc", json!({})).await, "called a.b");
}

#[tokio::test]
async fn a_server_with_two_tools_of_one_name_is_refused_unless_they_are_filtered_out() {
    insta::assert_snapshot!(refused(fake(&["--twice"], "")).await, @r#"
    MCP server `s`: its list of tools cannot be used: it has two tools for the name `s__meta`
    Leave tools out with `tools.deny`, or tell the server's makers.
    "#);
    let servers = connect_one(fake(&["--twice"], "tools.deny = ['meta']")).await;
    assert!(!names(&servers).contains(&"s__meta".to_owned()));
}

#[tokio::test]
async fn a_list_without_an_end_is_refused() {
    insta::assert_snapshot!(refused(fake(&["--endless"], "")).await, @r#"
    MCP server `s`: its list of tools cannot be used: it has more than 512 tools or 64 pages
    Leave tools out with `tools.deny`, or tell the server's makers.
    "#);
}

#[tokio::test]
async fn a_server_whose_name_could_clash_with_another_is_refused() {
    let bad = ["", "a__b", "a_", "a b", &"a".repeat(33)].map(str::to_owned);
    for name in &bad {
        let (servers, failures) = connect([(name.as_str(), fake(&[], ""))]).await;
        assert!(all(&servers).is_empty());
        assert_eq!(failures.len(), 1, "{name}");
    }
}

#[tokio::test]
async fn an_effect_is_what_the_user_says_then_what_a_trusted_server_says() {
    use Effect::{AtMostOnce, Compensatable, Idempotent, Pure};
    let servers = connect_one(fake(&[], "")).await;
    assert_eq!(effects(&servers), [AtMostOnce, AtMostOnce, AtMostOnce]);
    let servers = connect_one(fake(&[], "trust_annotations = true")).await;
    assert_eq!(effects(&servers), [AtMostOnce, Pure, Idempotent]);
    let said = "effect = { meta = 'pure', 're*' = 'compensatable', reader = 'at_most_once' }";
    let servers = connect_one(fake(&[], &format!("trust_annotations = true\n{said}"))).await;
    assert_eq!(effects(&servers), [Pure, AtMostOnce, Compensatable]);
}

#[tokio::test]
async fn the_stable_key_goes_along() {
    let servers = connect_one(fake(&[], "")).await;
    let meta: serde_json::Value = serde_json::from_str(&done(&servers, "s__meta", json!({})).await).unwrap();
    assert_eq!(meta["io.mooring/key"], "run-1/call-1");
}

#[tokio::test]
async fn a_server_that_asks_us_gets_a_clear_no() {
    let servers = connect_one(fake(&[], "")).await;
    let answers: serde_json::Value =
        serde_json::from_str(&done(&servers, "s__ask", json!({})).await).unwrap();
    insta::assert_json_snapshot!(answers, @r#"
    {
      "elicitation": {
        "result": {
          "action": "decline"
        }
      },
      "sampling": {
        "error": {
          "code": -32601,
          "message": "sampling/createMessage"
        }
      }
    }
    "#);
}

#[tokio::test]
async fn a_schema_that_providers_refuse_goes_into_the_description() {
    let servers = connect_one(fake(&[], "")).await;
    insta::assert_json_snapshot!(tool(&servers, "s__either").spec(), @r#"
    {
      "name": "s__either",
      "description": "Takes one of two.\nThe arguments must also satisfy {\"oneOf\":[{\"required\":[\"a\"]},{\"required\":[\"b\"]}]}",
      "kind": {
        "type": "function",
        "parameters": {
          "type": "object",
          "properties": {
            "a": {},
            "b": {}
          }
        },
        "strict": false
      }
    }
    "#);
}

#[tokio::test]
async fn a_stateless_server_gets_the_key_with_each_call_and_its_question_is_put() {
    let servers = connect_one(fake(&["--modern"], "")).await;
    assert_eq!(servers.servers().next().unwrap().protocol, "2026-07-28");
    let meta: serde_json::Value = serde_json::from_str(&done(&servers, "s__meta", json!({})).await).unwrap();
    insta::assert_json_snapshot!(meta, { r#"["io.modelcontextprotocol/clientInfo"].version"# => "VERSION" }, @r#"
    {
      "io.mooring/key": "run-1/call-1",
      "io.modelcontextprotocol/protocolVersion": "2026-07-28",
      "io.modelcontextprotocol/clientInfo": {
        "name": "mooring",
        "version": "VERSION"
      },
      "io.modelcontextprotocol/clientCapabilities": {
        "elicitation": {
          "form": {},
          "url": {}
        }
      },
      "progressToken": 1
    }
    "#);
    let question = call(&servers, "s__input", json!({})).await.question.unwrap();
    assert_eq!(question.message, "s, tool input, asks: Who are you?");
    assert_eq!(question.state, json!({"ids": ["who"], "state": "here"}));
}
