//! The SDK's own manifests: what it writes, what it refuses, and what it lets pass.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use mooring_manifest::Manifest;
use serde_json::Value;

fn corpus(below: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(below)
}

fn value(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// Name without ending, and text.
fn files(below: &str) -> BTreeMap<String, String> {
    let files = fs::read_dir(corpus(below)).unwrap().map(|entry| entry.unwrap().path());
    let files: BTreeMap<_, _> = files
        .map(|path| {
            (path.file_stem().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(&path).unwrap())
        })
        .collect();
    assert!(files.len() > 30, "the corpus is here");
    files
}

#[test]
fn what_the_sdk_writes_is_read_and_written_again_in_the_same_order() {
    for (name, text) in files("valid") {
        let manifest = Manifest::from_json(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        let written: Value = serde_json::from_str(&text).unwrap();
        // The map keeps the order of keys, so this compares that too.
        assert_eq!(manifest.to_json(), written.to_string(), "{name}");
        assert_eq!(manifest.ignored, [], "{name}");
        let value = serde_json::to_value(&manifest).unwrap();
        assert_eq!(serde_json::from_value::<Manifest>(value).unwrap(), manifest, "{name}");
    }
}

#[test]
fn digests_equal_the_sdks() {
    let index = value(&corpus("index.json"));
    for listed in index["valid"].as_array().unwrap() {
        let path = corpus(listed["file"].as_str().unwrap());
        let manifest = Manifest::from_json(&fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(
            manifest.digest(),
            listed["sha256_sorted_compact"].as_str().unwrap(),
            "{}",
            path.display()
        );
    }
}

/// The SDK writes these and we do not use them, on purpose.
#[test]
fn what_the_sdk_writes_and_we_refuse_to_use() {
    let mut refused = String::new();
    for (name, text) in files("valid") {
        if let Err(problems) = Manifest::from_json(&text).unwrap().validate() {
            for problem in problems {
                writeln!(refused, "{name}: {problem}").unwrap();
            }
        }
    }
    insta::assert_snapshot!(refused);
}

#[test]
fn what_the_sdk_lets_pass_is_read_the_same_and_mostly_refused_by_validation() {
    let mut verdicts = String::new();
    for case in value(&corpus("input_leniency.json")).as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        match Manifest::from_value(&case["input"]) {
            Ok(manifest) => {
                assert_eq!(manifest.to_value(), case["dump"], "{name}");
                let verdict = match manifest.validate() {
                    Ok(()) => "used".to_owned(),
                    Err(problems) => problems.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | "),
                };
                writeln!(verdicts, "{name}: {verdict}").unwrap();
            }
            Err(error) => {
                assert_eq!(case["accepted"], false, "{name}: {error}");
                writeln!(verdicts, "{name}: {error}").unwrap();
            }
        }
    }
    insta::assert_snapshot!(verdicts);
}

/// These are refused when a run is planned, by `mooring-sandbox`: they ask for what a backend lacks, or name host
/// files that are not there.
const AT_PLAN: [&str; 12] = [
    "47_box_without_token",
    "52_docker_volume_on_unix_local",
    "53_host_path_on_unix_local",
    "54_users_on_unix_local",
    "55_groups_on_unix_local",
    "62_local_dir_outside_base",
    "63_local_file_outside_base",
    "64_local_dir_missing",
    "65_local_dir_contains_symlink",
    "66_local_file_is_symlink",
    "69_runconfig_dict_with_grants",
    "70_runconfig_dict_with_local_dir",
];

#[test]
fn what_the_sdk_refuses_is_refused_with_the_place_and_the_next_step() {
    let mut table = String::new();
    for (name, text) in files("invalid") {
        let verdict = match Manifest::from_json(&text) {
            Err(error) => format!("read: {error}"),
            Ok(manifest) => match manifest.validate() {
                Err(problems) => {
                    let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
                    format!("validate: {}", problems.join(" | "))
                }
                Ok(()) => {
                    assert!(AT_PLAN.contains(&name.as_str()), "{name} is refused nowhere");
                    "plan".to_owned()
                }
            },
        };
        writeln!(table, "{name}: {verdict}").unwrap();
    }
    insta::assert_snapshot!(table);
}
