//! Every bad Task is refused in our own words: the field, the value, what is allowed.

use crate::bad_input;
use sentinel_operator::resource::{Task, manifest, validate};

#[test]
fn every_bad_task_is_refused_naming_field_value_and_what_is_allowed() {
    let mut wrong = Vec::new();
    for bad in bad_input::all() {
        match manifest::read(&bad_input::manifest(bad.name, &bad.spec)) {
            Ok(_) => wrong.push(format!("{}: accepted", bad.name)),
            Err(error) if !error.to_string().contains(bad.ours) => {
                wrong.push(format!("{}: {error}\n    wanted: {}", bad.name, bad.ours));
            }
            Err(_) => {}
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What the schema refuses as well must not depend on it: a Task may come from where no schema was.
#[test]
fn what_can_be_read_at_all_is_refused_by_validation_alone() {
    let mut wrong = Vec::new();
    for bad in bad_input::all() {
        let value: serde_json::Value =
            serde_saphyr::from_str(&bad_input::manifest(bad.name, &bad.spec)).unwrap();
        // What is no Task for the types (a number where a text must be) cannot get this far.
        let Ok(mut task) = serde_json::from_value::<Task>(value) else { continue };
        task.metadata.uid = Some("u".into());
        let unknown_field = bad.ours.contains("is no field");
        if validate::validate(&task).is_ok() && !unknown_field {
            wrong.push(bad.name);
        }
    }
    assert!(wrong.is_empty(), "accepted: {wrong:?}");
}
