//! The keys in the schema, and values of the wrong type.

use super::*;
use crate::config::doc_table::Row;
use crate::msgpack::Value;
use crate::msgpack::tests::encode;
use nomad_proto::hclspec::Spec;
use nomad_proto::hclspec::spec::Block as Kind;

fn decode(entries: &[(&str, Value)]) -> (TaskKeys, Vec<String>) {
    let map = entries.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    let mut bytes = Vec::new();
    encode(&Value::Map(map), &mut bytes);
    let mut problems = Vec::new();
    let keys = TaskKeys::decode(&bytes, &mut problems);
    (keys, problems.iter().map(Problem::to_string).collect())
}

#[test]
fn the_older_drivers_defaults_hold() {
    let (keys, problems) = decode(&[("image", "debian".into()), ("command", Value::Nil)]);
    assert!(problems.is_empty(), "{problems:?}");
    assert!(keys.boots() && keys.user_namespacing && keys.network_veth);
    assert!(!keys.process_two && !keys.ephemeral && keys.command.is_empty());
}

/// Name, type and whether it is required, and the default's text.
fn form(spec: &Spec) -> (String, String, bool, Option<String>) {
    match spec.block.as_ref().unwrap() {
        Kind::Attr(attr) => (attr.name.clone(), attr.r#type.clone(), attr.required, None),
        Kind::BlockValue(block) => (block.name.clone(), "block".to_owned(), false, None),
        Kind::BlockList(list) => (list.name.clone(), "blocks".to_owned(), false, None),
        Kind::Default(default) => {
            let (name, kind, required, _) = form(default.primary.as_ref().unwrap());
            let Some(Kind::Literal(literal)) = &default.default.as_ref().unwrap().block else {
                panic!("{name}");
            };
            (name, kind, required, Some(literal.value.clone()))
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_schema_holds_every_key_with_its_type() {
    let Some(Kind::Object(object)) = TaskKeys::spec().block else { panic!("not an object") };
    let own = |name: &str, kind: &str, required, default: Option<&str>| {
        (name.to_owned(), kind.to_owned(), required, default.map(str::to_owned))
    };
    for (name, kind, required, default) in [
        ("image", "string", true, None),
        ("boot", "bool", false, None),
        ("command", "list(string)", false, None),
        ("environment", "list(map(string))", false, None),
        ("bind", "list(map(string))", false, None),
        ("bind_read_only", "list(map(string))", false, None),
        ("port_map", "list(map(number))", false, None),
        ("ports", "list(string)", false, None),
        ("image_download", "block", false, None),
        ("mount", "blocks", false, None),
        ("network_veth", "bool", false, Some("true")),
        ("ephemeral_mode", "string", false, Some("\"auto\"")),
        ("oom_score_adj", "number", false, Some("0")),
    ] {
        let found = form(&object.attributes[name]);
        assert_eq!(found, own(name, kind, required, default));
    }
    for (key, spec) in &object.attributes {
        assert_eq!(&form(spec).0, key);
    }
    let Some(Kind::BlockList(mount)) = &object.attributes["mount"].block else { panic!() };
    let Some(Kind::Object(nested)) = &mount.nested.as_ref().unwrap().block else { panic!() };
    assert_eq!(form(&nested.attributes["type"]), own("type", "string", false, Some("\"bind\"")));
}

#[test]
fn all_wrong_types_come_at_once() {
    let (_, problems) =
        decode(&[("boot", "maybe".into()), ("imgae", "x".into()), ("command", "sh".into())]);
    assert_eq!(problems.len(), 4, "{problems:?}");
}

#[test]
fn no_bytes_lack_the_image() {
    let mut problems = Vec::new();
    TaskKeys::decode(b"", &mut problems);
    assert_eq!(problems, [Problem::new("image", "is required")]);
}

#[test]
fn later_keys_are_refused() {
    let map = |name: &str, value| Value::Map(vec![(name.to_owned(), value)]);
    let cases = [
        ("image_download", map("url", "https://example.org/x.tar".into())),
        ("use_image_config", false.into()),
        ("root_hash", "00".into()),
        ("root_hash_signature", "/x".into()),
        ("verity_data", "/x".into()),
        ("entrypoint", Value::List(vec!["x".into()])),
        ("args", Value::List(vec!["x".into()])),
        ("prefetch", true.into()),
        ("wait_for_address", "no".into()),
    ];
    assert_eq!(Row::unsupported::<TaskKeys>(), cases.each_ref().map(|(key, _)| *key));
    for (key, value) in cases {
        let (_, problems) = decode(&[("image", "debian".into()), (key, value)]);
        let [problem] = problems.as_slice() else { panic!("{key}: {problems:?}") };
        let said = problem.starts_with(key) && problem.contains("cannot do it yet: ");
        assert!(said && problem.ends_with("(remove the key)"), "{problem}");
    }
    // Their defaults, written down, change nothing.
    for (key, value) in [
        ("wait_for_address", Value::from("auto")),
        ("prefetch", false.into()),
        ("root_hash", "".into()),
    ] {
        let (_, problems) = decode(&[("image", "debian".into()), (key, value)]);
        assert!(problems.is_empty(), "{key}: {problems:?}");
    }
}

#[test]
fn passwords_are_in_no_message() {
    let auth = Value::Map(vec![("password".to_owned(), "canary".into())]);
    let download = Value::Map(vec![("url".to_owned(), "x".into()), ("auth".to_owned(), auth)]);
    let (keys, problems) = decode(&[("image", "x".into()), ("image_download", download)]);
    assert!(!problems.is_empty() && !format!("{keys:?}{problems:?}").contains("canary"));
}
