//! The definitions in `crds/` are generated from the types, and every field of them has a description.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "it is a test"
)]

use std::path::Path;

use sentinel_operator::resource::crd;
use serde_json::Value;

fn committed(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crds").join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn committed_definitions_are_current() {
    for (file, crd) in [("task.yaml", crd::task_crd()), ("targetslice.yaml", crd::target_slice_crd())] {
        let generated = crd::to_yaml(&crd.unwrap()).unwrap();
        assert!(committed(file) == generated, "crds/{file} is stale: run `just generate` and commit it");
    }
}

/// Walks over every property; `visit` gets its path and schema.
fn walk(schema: &Value, path: &str, visit: &mut impl FnMut(&str, &Value)) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        visit(&path, property);
        walk(property, &path, visit);
        walk(&property["items"], &path, visit);
    }
}

fn schemas() -> Vec<Value> {
    [crd::task_crd().unwrap(), crd::target_slice_crd().unwrap()]
        .into_iter()
        .map(|crd| {
            serde_json::to_value(crd).unwrap()["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
        })
        .collect()
}

#[test]
fn every_field_has_a_description_with_an_example() {
    let mut missing = Vec::new();
    for schema in schemas() {
        walk(&schema, "", &mut |path, property| {
            let description = property["description"].as_str().unwrap_or_default();
            // Conditions have the descriptions of Kubernetes.
            let is_ours = !path.starts_with(".status.conditions.");
            if description.is_empty() || (is_ours && !description.contains("xample: `")) {
                missing.push(path.to_owned());
            }
        });
    }
    missing.retain(|path| path != ".spec" && path != ".status");
    assert!(missing.is_empty(), "without a description or an example: {missing:#?}");
}

#[test]
fn optional_fields_of_the_spec_have_a_default_or_a_meaning_when_absent() {
    const ABSENT_MEANS_SOMETHING: [&str; 24] = [
        ".spec.ttlAfterFinished",
        ".spec.targets.nodeSelector",
        ".spec.targets.nodeSelector.matchLabels",
        ".spec.targets.nodeSelector.matchExpressions",
        ".spec.targets.nodeSelector.matchExpressions.values",
        ".spec.targets.nodeNames",
        ".spec.targets.exclude.nodeNames",
        ".spec.run.command",
        ".spec.run.script",
        ".spec.run.user",
        ".spec.run.group",
        ".spec.run.env.valueFrom",
        ".spec.run.stdinFrom",
        ".spec.run.sandbox",
        ".spec.run.readOnlyRootFilesystem",
        ".spec.run.limits.cpu",
        ".spec.run.limits.memory",
        ".spec.run.limits.pids",
        ".spec.run.limits.nofile",
        ".spec.run.limits.core",
        ".spec.run.script.interpreter",
        ".spec.timeouts.run",
        ".spec.timeouts.idle",
        ".spec.timeouts.total",
    ];
    let task = &schemas()[0];
    let mut required = Vec::new();
    let mut note = |path: &str, schema: &Value| {
        required.extend(
            schema["required"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|name| format!("{path}.{}", name.as_str().unwrap())),
        );
        let items = schema["items"]["required"].as_array().into_iter().flatten();
        required.extend(items.map(|name| format!("{path}.{}", name.as_str().unwrap())));
    };
    walk(task, "", &mut note);
    walk(task, "", &mut |path, property| {
        if path.starts_with(".spec.") && property.get("default").is_none() {
            let explained =
                ABSENT_MEANS_SOMETHING.contains(&path) || required.iter().any(|name| name == path);
            assert!(explained, "{path} has no default");
        }
    });
}

#[test]
fn every_string_list_and_number_of_the_spec_is_bounded() {
    walk(&schemas()[0], "", &mut |path, property| {
        if !path.starts_with(".spec") {
            return;
        }
        let bound = match property["type"].as_str() {
            Some("string") if property.get("enum").is_none() => "maxLength",
            Some("array") => "maxItems",
            Some("integer") => "maximum",
            _ => return,
        };
        assert!(property.get(bound).is_some(), "{path} has no {bound}");
        let items = &property["items"];
        if items["type"] == "string" && items.get("enum").is_none() {
            assert!(items.get("maxLength").is_some(), "items of {path} have no maxLength");
        }
    });
}

#[test]
fn no_unsigned_format_is_used() {
    for schema in schemas() {
        assert!(!schema.to_string().contains("\"uint"), "an unsigned format is in the schema");
    }
}

#[test]
fn unobserved_task_has_generation_minus_one() {
    assert_eq!(
        schemas()[0]["properties"]["status"]["default"],
        serde_json::json!({"observedGeneration": -1})
    );
}

/// For a `pattern` that does not match, an API server prints the regular expression; a rule has a message.
#[test]
fn spec_is_validated_by_rules_with_messages_and_not_by_patterns() {
    let mut patterns = Vec::new();
    let mut without_sentence = Vec::new();
    walk(&schemas()[0]["properties"]["spec"], ".spec", &mut |path, property| {
        for schema in [property, &property["items"], &property["additionalProperties"]] {
            if schema.get("pattern").is_some() {
                patterns.push(path.to_owned());
            }
            for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
                let sentence = rule["message"].as_str().unwrap_or_default();
                if !sentence.contains("spec.") || sentence.contains('^') {
                    without_sentence.push(format!("{path}: {rule}"));
                }
            }
        }
    });
    // A rule for each of 1024 arguments of 128 KiB would cost more than an API server allows.
    assert_eq!(patterns, [".spec.run.command"], "add a rule in operator/src/resource/rules.rs");
    assert!(without_sentence.is_empty(), "without field and allowed values: {without_sentence:#?}");
}
