//! What holds for every input.

use mooring_manifest::extension::{HostName, HostPattern};
use mooring_manifest::{
    Entry, EntryKind, EnvVar, Format, GitRepo, Group, LocalDir, LocalFile, Manifest, Owner, RelPath, User,
};
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};

fn kind() -> impl Strategy<Value = Entry> {
    let leaf = prop_oneof![
        any::<String>().prop_map(Entry::file),
        "[a-z]{1,4}(/[a-z]{1,4}){0,2}".prop_map(|src| Entry::new(EntryKind::LocalFile(LocalFile { src }))),
        proptest::option::of("[a-z]{1,4}").prop_map(|src| Entry::new(EntryKind::LocalDir(LocalDir { src }))),
        (any::<String>(), any::<String>(), any::<String>(), any::<Option<String>>()).prop_map(
            |(host, repo, reference, subpath)| Entry::new(EntryKind::GitRepo(GitRepo {
                host,
                repo,
                reference,
                subpath
            }))
        ),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| vec((any::<String>(), inner), 0..4).prop_map(Entry::dir))
}

fn entry() -> impl Strategy<Value = Entry> {
    let group = proptest::option::of(prop_oneof![
        any::<String>().prop_map(|name| Owner::User(User { name })),
        any::<String>().prop_map(|name| Owner::Group(Group { name, users: vec![User { name: "u".into() }] })),
    ]);
    (kind(), any::<Option<String>>(), any::<bool>(), group, any::<(i64, i64, i64)>()).prop_map(
        |(mut entry, description, ephemeral, group, (owner, of_group, other))| {
            entry.description = description;
            entry.ephemeral = ephemeral;
            entry.group = group;
            entry.permissions.owner = owner;
            entry.permissions.group = of_group;
            entry.permissions.other = other;
            entry
        },
    )
}

pub(crate) fn manifest() -> impl Strategy<Value = Manifest> {
    (any::<String>(), vec((any::<String>(), entry()), 0..5), vec((any::<String>(), any::<String>()), 0..4))
        .prop_map(|(root, entries, variables)| {
            let mut manifest =
                Manifest { root, entries: entries.into_iter().collect(), ..Manifest::default() };
            for (name, value) in variables {
                manifest.environment.value.insert(name, EnvVar::Plain(value));
            }
            manifest
        })
}

/// What may stand below `x-mooring`, nearly always right.
fn additions() -> impl Strategy<Value = Value> {
    let size = prop_oneof![
        (1..u64::from(u32::MAX)).prop_map(Value::from),
        "[1-9][0-9]{0,3} ?([KMGT]iB|[kMG]B|B)?".prop_map(Value::from)
    ];
    let time =
        prop_oneof![(1..100_000_u64).prop_map(Value::from), "[1-9][0-9]{0,3}[smhd]".prop_map(Value::from)];
    let cpu = prop_oneof![
        (1..64_u32).prop_map(Value::from),
        (1..64_000_u32).prop_map(|cpu| json!(f64::from(cpu) / 1000.0))
    ];
    let resources = (cpu, size.clone(), 1..999_u64, size, time.clone()).prop_map(|(cpu, memory, pids, disk, wall_clock)| {
        json!({ "cpu": cpu, "memory": memory, "pids": pids, "disk": disk, "wall_clock": wall_clock })
    });
    let host = "(\\*\\.)?[a-zA-Z][a-z0-9]{0,4}(\\.[a-z][a-z0-9-]{0,3}z){1,2}";
    let rule = prop_oneof![
        host.prop_map(Value::from),
        (host, vec(1..=u16::MAX, 0..3), vec("[a-zA-Z]{1,6}", 0..3), vec("/[a-z/%0-9]{0,8}\\*?", 0..3))
            .prop_map(|(host, ports, methods, paths)| {
                json!({ "host": host, "ports": ports, "methods": methods, "paths": paths })
            }),
    ];
    let network = prop_oneof![
        Just(json!("deny")),
        Just(json!("unrestricted")),
        vec(rule, 0..4).prop_map(|rules| json!({ "allow": rules })),
    ];
    let setup = vec(
        prop_oneof![
            any::<String>().prop_map(Value::from),
            (any::<String>(), "[a-z./]{0,6}", time)
                .prop_map(|(run, cwd, timeout)| json!({ "run": run, "cwd": cwd, "timeout": timeout })),
        ],
        0..3,
    );
    let git = ("[a-z/.]{0,6}", prop_oneof![Just(json!("full")), (1..9_u32).prop_map(Value::from)], any::<(bool, bool)>())
        .prop_map(|(path, depth, (submodules, lfs))| json!({ path: { "depth": depth, "submodules": submodules, "lfs": lfs } }));
    let others =
        (vec(any::<u16>(), 0..3), setup, git, "[a-z:/.@-]{0,8}", vec("[a-z/.]{0,6}", 0..3), "[A-Z_]{0,5}");
    (resources, network, others).prop_map(|(resources, network, (ports, setup, git, image, outputs, env))| {
        json!({
            "resources": resources, "network": network, "ports": ports, "setup": setup, "git": git, "image": image,
            "outputs": outputs, "secrets": { "s": { "env": env, "inject": [{ "host": "a.b" }] } },
        })
    })
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        // Nearly a manifest.
        vec(
            prop_oneof![
                Just("{"),
                Just("}"),
                Just("["),
                Just("]"),
                Just(":"),
                Just(","),
                Just("\n"),
                Just("  "),
                Just("="),
                Just("\"entries\""),
                Just("entries"),
                Just("\"type\""),
                Just("\"file\""),
                Just("type"),
                Just("dir"),
                Just("children"),
                Just("\"environment\""),
                Just("\"value\""),
                Just("1"),
                Just("null"),
                Just("&a "),
                Just("*a"),
                Just("- "),
                Just("!t "),
            ],
            0..40
        )
        .prop_map(|parts| parts.concat()),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let keys = prop_oneof![
        Just("entries"),
        Just("type"),
        Just("children"),
        Just("environment"),
        Just("value"),
        Just("users"),
        Just("groups"),
        Just("name"),
        Just("permissions"),
        Just("mount_strategy"),
        Just("pattern"),
        Just("content"),
        Just("extra_path_grants"),
        Just("path"),
        Just("x-mooring"),
        Just("../x"),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[/.a-z\\\\:]{0,6}".prop_map(Value::from),
        Just(Value::from("file")),
        Just(Value::from("dir")),
        Just(Value::from("s3_mount")),
    ];
    leaf.prop_recursive(6, 48, 6, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec((keys.clone(), inner), 0..6).prop_map(|members| {
                Value::Object(members.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
            }),
        ]
    })
}

proptest! {
    #[test]
    fn reading_what_was_written_changes_nothing(manifest in manifest()) {
        let json = manifest.to_json();
        let read = Manifest::from_json(&json).unwrap();
        prop_assert_eq!(&read, &manifest);
        prop_assert_eq!(read.digest(), manifest.digest());
        prop_assert_eq!(read.to_json(), json);
    }

    #[test]
    fn additions_are_kept_and_written_in_one_form(additions in additions()) {
        let value = json!({ "entries": { "a": { "type": "git_repo", "repo": "a/b", "ref": "c" } }, "x-mooring": additions });
        let read = Manifest::from_value(&value);
        // Most of them can be read; this fails where too few can.
        prop_assume!(read.is_ok());
        let manifest = read.unwrap();
        let _ = manifest.validate();
        let again = Manifest::from_value(&manifest.to_value()).unwrap();
        prop_assert_eq!(&again, &manifest);
        prop_assert_eq!(again.to_json(), manifest.to_json());
        let yaml = serde_yaml_ng::to_string(&value).unwrap();
        prop_assert_eq!(Manifest::from_yaml(&yaml).unwrap(), manifest);
    }

    #[test]
    fn a_host_matches_nothing_beyond_its_pattern(pattern in "(\\*\\.)?[a-c]{1,2}\\.[a-c]{1,2}", host in "[a-c.]{1,9}") {
        let (Ok(pattern), Ok(host)) = (HostPattern::parse(&pattern), HostName::parse(&host)) else { return Ok(()) };
        let labels = |text: &str| text.split('.').map(str::to_owned).collect::<Vec<_>>();
        let (wanted, found) = (labels(pattern.to_string().trim_start_matches("*.")), labels(host.as_str()));
        let expected = match pattern {
            HostPattern::Exact(_) => found == wanted,
            HostPattern::Below(_) => found.len() > wanted.len() && found.ends_with(&wanted),
        };
        prop_assert_eq!(pattern.matches(&host), expected);
    }

    #[test]
    fn no_text_makes_reading_panic(text in text()) {
        for format in [Format::Json, Format::Yaml, Format::Toml] {
            if let Ok(manifest) = Manifest::read(&text, format) {
                let _ = (manifest.validate(), manifest.describe(3), manifest.digest());
            }
        }
    }

    #[test]
    fn no_value_makes_reading_panic_and_what_is_read_is_stable(value in value()) {
        if let Ok(manifest) = Manifest::from_value(&value) {
            let _ = (manifest.validate(), manifest.describe(3));
            let again = Manifest::from_value(&manifest.to_value()).unwrap();
            prop_assert_eq!(again.ignored.clone(), []);
            prop_assert_eq!(again.to_value(), manifest.to_value());
        }
    }

    #[test]
    fn a_relative_path_never_leads_out(text in "[./\\\\:a\0 ~]{0,12}") {
        if let Ok(path) = RelPath::parse(&text) {
            let mut depth = 0;
            for name in path.names() {
                prop_assert!(!matches!(name, "" | "." | ".."));
                depth += 1;
            }
            prop_assert!(depth > 0 && !path.as_str().starts_with('/'));
            prop_assert_eq!(RelPath::parse(path.as_str()), Ok(path.clone()));
        }
    }
}
