//! Manifests from other forms, and back.

use mooring_manifest::convert::{
    Converted, HarborTask, Project, from_devcontainer, from_harbor, from_managed_agents, to_managed_agents,
};
use mooring_manifest::{Format, Manifest};
use proptest::prelude::*;
use serde_json::{Value, json};

/// What a manifest says beyond its defaults, and what was left out.
fn told(converted: &Converted<Manifest>) -> String {
    let usual = Manifest::default().to_value();
    let mut value = converted.value.to_value();
    value.as_object_mut().unwrap().retain(|key, value| usual.get(key) != Some(value));
    let left_out: Vec<String> = converted.left_out.iter().map(ToString::to_string).collect();
    format!("{value:#}\n---\n{}", left_out.join("\n"))
}

fn project() -> Project {
    Project { name: "shop".into(), src: ".".into(), config: ".devcontainer".into() }
}

#[test]
fn a_dev_container_becomes_a_manifest() {
    let text = r#"{
        // JSON with comments.
        "$schema": "https://example.com/schema",
        "name": "Shop",
        "build": { "dockerfile": "Dockerfile", "context": "..", "args": { "VARIANT": "3.14", "N": 1 }, "target": "dev",
                   "cacheFrom": "x" },
        "features": { "ghcr.io/devcontainers/features/node:1": {} },
        "containerEnv": { "MODE": "test", "HERE": "${containerWorkspaceFolder}/src" },
        "remoteEnv": { "TOKEN": "${localEnv:TOKEN}", "NONE": null },
        "forwardPorts": [3000, "db:5432", 3000],
        "onCreateCommand": "make deps",
        "postCreateCommand": { "a": ["pip", "install", "-r", "my requirements.txt"], "b": "npm ci" },
        "postStartCommand": "make serve",
        "initializeCommand": "docker pull x",
        "hostRequirements": { "cpus": 4, "memory": "8gb", "storage": "32gb", "gpu": true },
        "mounts": ["source=/var/run/docker.sock,target=/var/run/docker.sock,type=bind"],
        "privileged": true,
        "remoteUser": "vscode",
        "customizations": { "vscode": { "extensions": ["rust-lang.rust-analyzer"] } },
        "made-up": [],
    }"#;
    let converted = from_devcontainer(text, &project()).unwrap();
    converted.value.validate().unwrap();
    insta::assert_snapshot!(told(&converted));
    let text = r#"{ "image": "python:3.14", "workspaceFolder": "/srv/app" }"#;
    let converted = from_devcontainer(text, &project()).unwrap();
    converted.value.validate().unwrap();
    insta::assert_snapshot!(told(&converted));
}

#[test]
fn a_harbor_task_becomes_a_manifest() {
    let config = r#"
        schema_version = "1.4"
        artifacts = ["report.md", { source = "/logs/x" }, "/app/out"]
        [task]
        name = "acme/fix"
        [metadata]
        difficulty = "easy"
        [verifier]
        timeout_sec = 120
        [agent]
        timeout_sec = 900.5
        user = "dev"
        [environment]
        build_timeout_sec = 600
        cpus = 2
        memory_mb = 2048
        storage_mb = 10240
        gpus = 1
        os = "linux"
        network_mode = "allowlist"
        allowed_hosts = ["pypi.org", "*.pythonhosted.org", "192.0.2.0/24"]
        [environment.env]
        MODE = "test"
        KEY = "${OPENAI_API_KEY}"
        [[environment.mcp_servers]]
        name = "m"
        url = "http://localhost"
        [solution.env]
        A = "b"
    "#;
    let names = ["instruction.md", "tests", "solution", "environment/data.csv", "notes.md"];
    let task = HarborTask {
        config: config.into(),
        environment: "environment".into(),
        dockerfile: Some("FROM ubuntu\nWORKDIR /old\nworkdir \"/app\"\nRUN true\n".into()),
        others: names.map(str::to_owned).into(),
    };
    let converted = from_harbor(&task).unwrap();
    converted.value.validate().unwrap();
    insta::assert_snapshot!(told(&converted));

    let old = "version = \"1.0\"\n[environment]\ndocker_image = \"x/y:1\"\nmemory = \"2G\"\nallow_internet = false\n";
    let converted = from_harbor(&HarborTask { config: old.into(), ..HarborTask::default() }).unwrap();
    converted.value.validate().unwrap();
    insta::assert_snapshot!(told(&converted));
}

#[test]
fn a_managed_agents_environment_becomes_a_manifest() {
    let text = "
name: data
description: For data work.
metadata: {team: a}
config:
  type: cloud
  networking:
    type: limited
    allowed_hosts: [api.example.com, '*.example.org', 10.0.0.1]
    allow_mcp_servers: true
  packages: {pip: ['pandas==2.2.0', numpy], apt: [ffmpeg], npm: []}
";
    let converted = from_managed_agents(text, Format::Yaml).unwrap();
    converted.value.validate().unwrap();
    insta::assert_snapshot!(told(&converted));
    let open = r#"{"type": "cloud", "networking": {"type": "unrestricted"}}"#;
    insta::assert_snapshot!(told(&from_managed_agents(open, Format::Json).unwrap()));
    for wrong in
        ["[]", "{}", r#"{"config": {"type": "moon"}}"#, r#"{"type": "cloud", "networking": {"type": "x"}}"#]
    {
        assert!(from_managed_agents(wrong, Format::Json).is_err(), "{wrong}");
    }
}

#[test]
fn what_an_environment_has_no_place_for_is_named() {
    let manifest = Manifest::from_yaml(
        "
root: /srv
entries: {a: {type: file, content: ''}, b: {type: dir}}
environment: {value: {MODE: test}}
users: [{name: dev}]
x-mooring:
  resources: {memory: 1GiB}
  network: {allow: [pypi.org, {host: example.com, paths: [/v1/*]}]}
  setup: [pip install pandas, make, {run: pip install x, cwd: a}, pip install -e .]
  ports: [80]
  outputs: [report.md]
",
    )
    .unwrap();
    let converted = to_managed_agents(&manifest, "work");
    let left_out: Vec<String> = converted.left_out.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(format!("{:#}\n---\n{}", converted.value, left_out.join("\n")));
}

pub(crate) fn environment() -> impl Strategy<Value = Value> {
    let hosts = proptest::collection::btree_set("(\\*\\.)?[a-z]{1,5}\\.[a-z]{1,5}\\.(com|org)", 1..4);
    let limited = (hosts, any::<bool>()).prop_map(|(hosts, managers)| {
        json!({ "type": "limited", "allowed_hosts": hosts, "allow_package_managers": managers,
                "allow_mcp_servers": false })
    });
    let networking = prop_oneof![Just(json!({ "type": "unrestricted" })), limited];
    let names = proptest::collection::vec("[a-z][a-z0-9.=@/-]{0,8}", 1..4);
    let managers = prop_oneof![Just("apt"), Just("cargo"), Just("gem"), Just("go"), Just("npm"), Just("pip")];
    let packages = proptest::collection::btree_map(managers, names, 0..4);
    (networking, packages).prop_map(|(networking, packages)| {
        let mut config = json!({ "type": "cloud", "networking": networking });
        if !packages.is_empty() && networking["allow_package_managers"] != false {
            config["packages"] = json!(packages);
        }
        json!({ "name": "n", "config": config })
    })
}

proptest! {
    #[test]
    fn an_environment_comes_back_as_it_was(environment in environment()) {
        let manifest = from_managed_agents(&environment.to_string(), Format::Json).unwrap();
        let back = to_managed_agents(&manifest.value, "n");
        prop_assert_eq!(back.value, environment);
        prop_assert_eq!(back.left_out, []);
        manifest.value.validate().unwrap();
    }

    #[test]
    fn no_text_makes_a_conversion_panic(text in "[\\[\\]{}:,\"a-z0-9/* \n.$=-]{0,60}") {
        let _ = from_devcontainer(&text, &project());
        let _ = from_harbor(&HarborTask { config: text.clone(), ..HarborTask::default() });
        for format in [Format::Json, Format::Yaml] {
            let _ = from_managed_agents(&text, format);
        }
    }
}

#[test]
fn deep_nesting_is_refused() {
    assert!(from_devcontainer(&"[".repeat(100_000), &project()).is_err());
}
