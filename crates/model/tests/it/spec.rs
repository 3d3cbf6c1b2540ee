//! Names of models, and what a client needs.

use mooring_model::{ModelErrorKind, ModelOptions, ModelSpec, PROVIDERS, Secret, connect};

#[test]
fn every_form_is_read_and_written_back() {
    for text in ["openai/gpt-5", "anthropic/claude-sonnet-4-5", "chat/org/model:7b", "script:a/b:c.jsonl"] {
        let spec = ModelSpec::parse(text).unwrap();
        assert_eq!(spec.to_string(), text);
        assert!(PROVIDERS.contains(spec.provider()));
        assert_eq!(ModelSpec::parse(&spec.to_string()).unwrap(), spec);
    }
}

#[test]
fn what_is_no_model_is_refused_with_the_known_forms() {
    let cases = ["", "gpt-5", "opneai/gpt-5", "openai/", "script:", "OpenAI/gpt-5"];
    let said = cases.iter().map(|text| {
        let error = ModelSpec::parse(text).unwrap_err();
        assert_eq!(error.kind, ModelErrorKind::InvalidRequest);
        format!("{error}\n")
    });
    insta::assert_snapshot!(said.collect::<String>());
}

#[test]
fn what_a_client_lacks_is_named_with_the_way_to_give_it() {
    let empty_key = ModelOptions { api_key: Some(Secret::new(" \n")), ..ModelOptions::default() };
    let cases = [
        ("openai/gpt-5", ModelOptions::default(), ModelErrorKind::Authentication),
        ("anthropic/claude", empty_key, ModelErrorKind::Authentication),
        ("chat/llama", ModelOptions::default(), ModelErrorKind::InvalidRequest),
    ];
    let said = cases.into_iter().map(|(model, options, kind)| {
        let error = connect(&ModelSpec::parse(model).unwrap(), &options).unwrap_err();
        assert_eq!(error.kind, kind);
        format!("{error}\n")
    });
    insta::assert_snapshot!(said.collect::<String>());
}

#[test]
fn a_key_is_never_shown() {
    let options = ModelOptions { api_key: Some(Secret::new(" sk-very-secret\n")), ..ModelOptions::default() };
    assert_eq!(options.api_key.as_ref().unwrap().expose(), "sk-very-secret");
    assert!(!format!("{options:?}").contains("secret"), "{options:?}");
}
