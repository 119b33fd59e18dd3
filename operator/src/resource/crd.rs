//! The two custom resource definitions.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::{Value, json};

use super::{TargetSlice, Task};

/// The definition of `tasks.sentinelnode.dev`.
///
/// # Errors
/// When the derived definition is invalid; a test holds that it is not.
pub fn task_crd() -> Result<CustomResourceDefinition, serde_json::Error> {
    let mut crd = serde_json::to_value(Task::crd())?;
    tidy(&mut crd);
    if let Some(schema) = crd.pointer_mut("/spec/versions/0/schema/openAPIV3Schema") {
        // Until the operator has observed a Task, tools that wait must read it as in progress.
        schema["properties"]["status"]["default"] = json!({"observedGeneration": -1});
    }
    serde_json::from_value(crd)
}

/// The definition of `targetslices.sentinelnode.dev`.
///
/// # Errors
/// As [`task_crd`].
pub fn target_slice_crd() -> Result<CustomResourceDefinition, serde_json::Error> {
    let mut crd = serde_json::to_value(TargetSlice::crd())?;
    tidy(&mut crd);
    serde_json::from_value(crd)
}

/// A definition as the YAML that is committed.
///
/// # Errors
/// When it cannot be written as YAML.
pub fn to_yaml(crd: &CustomResourceDefinition) -> Result<String, serde_saphyr::ser::Error> {
    let text = serde_saphyr::to_string(crd)?;
    Ok(format!("# Generated from operator/src/resource by `just generate`; do not edit.\n{text}"))
}

/// Removes what the derive adds needlessly: `nullable`, since optional fields are omitted (the API server drops a `null`
/// where none is allowed), and the line breaks of doc comments.
fn tidy(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.remove("nullable");
            if let Some(Value::String(description)) = object.get_mut("description") {
                *description = description.replace('\n', " ");
            }
            object.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}
