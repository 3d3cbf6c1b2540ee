//! The wire form as a JSON Schema, for editors and for whoever writes manifests with another program.
//!
//! The fields come from the types themselves; how they are put together is written here, because an entry's fields
//! depend on its type.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::{
    AzureBlob, BlaxelDrive, Box, Extension, File, Gcs, GitRepo, Group, LocalDir, LocalFile, Manifest,
    MountCommon, Owner, PathGrant, Permissions, R2, S3, S3Files, User,
};

impl Manifest {
    /// The JSON Schema (draft 2020-12) of the wire form. It refuses unknown keys, as [`Manifest::validate`] does.
    pub fn schema() -> Value {
        let mut generator = SchemaSettings::draft2020_12().into_generator();
        let entries = json!({
            "type": "object",
            "description": "What is in the directory. A name may be a path, with '/' between its names.",
            "propertyNames": { "minLength": 1, "pattern": "^[^/\\\\\\u0000][^\\\\\\u0000]*$" },
            "additionalProperties": { "$ref": "#/$defs/Entry" },
        });
        let defaults = Manifest::default();
        let grants = generator.subschema_for::<Vec<PathGrant>>();
        let users = generator.subschema_for::<Vec<User>>();
        let groups = generator.subschema_for::<Vec<Group>>();
        let value = json!({
            "type": "object",
            "additionalProperties": false,
            "properties": { "type": { "const": "str" }, "value": { "type": "string" } },
            "required": ["value"],
        });
        let described = json!({
            "type": "object",
            "additionalProperties": false,
            "properties": {
                "description": { "type": ["string", "null"], "description": "What it is for." },
                "ephemeral": { "type": "boolean", "description": "Whether a snapshot leaves it out." },
                "value": value,
            },
            "required": ["value"],
        });
        let variable = json!({ "oneOf": [{ "type": "string" }, value, described] });
        let extension = generator.subschema_for::<Extension>();
        let entry = entry(&mut generator, &entries);
        let mut definitions = generator.take_definitions(true);
        for definition in definitions.values_mut() {
            close(definition);
        }
        definitions.insert("Entry".to_owned(), entry);
        json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": "Manifest",
            "description": "A portable description of a workspace, version 1.",
            "type": "object",
            "additionalProperties": false,
            "properties": {
                "version": { "const": Manifest::VERSION, "default": Manifest::VERSION },
                "root": {
                    "type": "string",
                    "pattern": "^/",
                    "default": defaults.root,
                    "description": "Absolute path of the workspace inside the sandbox.",
                },
                "entries": entries,
                "environment": {
                    "type": "object",
                    "additionalProperties": false,
                    "description": "Variables for every command.",
                    "properties": { "value": {
                        "type": "object",
                        "propertyNames": { "pattern": "^[^=\\u0000]+$" },
                        "additionalProperties": variable,
                    } },
                },
                "users": users,
                "groups": groups,
                "extra_path_grants": grants,
                "remote_mount_command_allowlist": {
                    "type": "array",
                    "items": { "type": "string" },
                    "default": defaults.remote_mount_command_allowlist,
                    "description": "Commands that a model is told to use on mounts. Nothing enforces it.",
                },
                "x-mooring": extension,
            },
            "$defs": definitions,
        })
    }
}

/// One alternative for each type of entry.
fn entry(generator: &mut SchemaGenerator, entries: &Value) -> Value {
    let permissions = generator.subschema_for::<Permissions>();
    let group = generator.subschema_for::<Option<Owner>>();
    let dir = json!({ "type": "object", "properties": { "children": entries } });
    let common = own::<MountCommon>(generator);
    let alternatives: Vec<(&str, Vec<Schema>)> = vec![
        ("dir", vec![Schema::try_from(dir).unwrap_or_default()]),
        ("file", vec![own::<File>(generator)]),
        ("local_file", vec![own::<LocalFile>(generator)]),
        ("local_dir", vec![own::<LocalDir>(generator)]),
        ("git_repo", vec![own::<GitRepo>(generator)]),
        ("s3_mount", vec![common.clone(), own::<S3>(generator)]),
        ("gcs_mount", vec![common.clone(), own::<Gcs>(generator)]),
        ("r2_mount", vec![common.clone(), own::<R2>(generator)]),
        ("azure_blob_mount", vec![common.clone(), own::<AzureBlob>(generator)]),
        ("box_mount", vec![common.clone(), own::<Box>(generator)]),
        ("s3_files_mount", vec![common.clone(), own::<S3Files>(generator)]),
        ("blaxel_drive_mount", vec![common, own::<BlaxelDrive>(generator)]),
    ];
    let alternatives: Vec<Value> = alternatives
        .into_iter()
        .map(|(name, parts)| {
            let mut properties: Map<String, Value> = Map::new();
            let mut required = vec![json!("type")];
            properties.insert("type".to_owned(), json!({ "const": name }));
            let base = json!({
                "description": { "type": ["string", "null"], "description": "What it is for; shown to the model." },
                "ephemeral": { "type": "boolean", "description": "Whether a snapshot leaves it out." },
                "group": group,
                "is_dir": { "type": "boolean", "description": "Follows from the type." },
                "permissions": permissions,
            });
            if let Value::Object(base) = base {
                properties.extend(base);
            }
            for part in parts {
                if let Some(Value::Object(own)) = part.get("properties") {
                    properties.extend(own.clone());
                }
                if let Some(Value::Array(own)) = part.get("required") {
                    required.extend(own.iter().cloned());
                }
            }
            json!({
                "title": name,
                "type": "object",
                "additionalProperties": false,
                "properties": properties,
                "required": required,
            })
        })
        .collect();
    json!({ "oneOf": alternatives })
}

fn own<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    T::json_schema(generator)
}

/// Refuses unknown keys in an object and in the alternatives of a choice.
fn close(schema: &mut Value) {
    let Value::Object(map) = schema else { return };
    if map.contains_key("properties") && !map.contains_key("additionalProperties") {
        map.insert("additionalProperties".to_owned(), json!(false));
    }
    for key in ["oneOf", "anyOf"] {
        if let Some(Value::Array(alternatives)) = map.get_mut(key) {
            alternatives.iter_mut().for_each(close);
        }
    }
}
