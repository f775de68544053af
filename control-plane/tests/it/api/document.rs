//! The OpenAPI document says what there is.

use super::{ask, get};
use crate::node::Node;
use serde_json::Value;
use std::collections::BTreeSet;

#[test]
fn it_has_exactly_the_methods_of_every_path() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let node = Node::up(home, &[]);
    let answer = get(home, "/openapi.json");
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    let document = answer.json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"), "{}", document["openapi"]);
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.len() > 15, "{}", paths.len());
    for (path, operations) in paths {
        let documented: BTreeSet<String> =
            operations.as_object().unwrap().keys().map(|method| method.to_uppercase()).collect();
        // The router names the methods that it has where one is asked for that it has not.
        let answer = ask(home, &format!("OPTIONS {}", path.replace(['{', '}'], "")), &[], b"");
        assert_eq!(answer.status, 405, "{path}: {}", answer.body);
        let allowed = answer.header("allow").unwrap().to_uppercase();
        let allowed: BTreeSet<String> =
            allowed.split(',').map(str::to_owned).filter(|method| method != "HEAD").collect();
        assert_eq!(documented, allowed, "{path}");
        for operation in operations.as_object().unwrap().values() {
            assert_eq!(operation["responses"]["default"]["$ref"], "#/components/responses/Problem", "{path}");
            assert!(operation["summary"].is_string(), "{path} has a summary");
        }
    }
    assert_references_lead_somewhere(&document, &document);
    node.end();
}

fn assert_references_lead_somewhere(document: &Value, part: &Value) {
    match part {
        Value::Object(fields) => {
            if let Some(reference) = fields.get("$ref").and_then(Value::as_str) {
                assert!(document.pointer(reference.strip_prefix('#').unwrap()).is_some(), "{reference}");
            }
            fields.values().for_each(|part| assert_references_lead_somewhere(document, part));
        }
        Value::Array(parts) => parts.iter().for_each(|part| assert_references_lead_somewhere(document, part)),
        _ => {}
    }
}
