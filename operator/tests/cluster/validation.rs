//! Every bad Task is refused with the field, the value and what is allowed, and equally by the validator and by the rules
//! of the definition, which kube-cel evaluates here and an API server in `refusals`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::bad_tasks::{self, AtApply};
use crate::battery;
use sentinel_operator::resource::{Task, crd, manifest, schema, validate};
use serde_json::Value;

#[test]
fn bad_tasks_are_refused_with_field_value_and_allowed() {
    let mut wrong = Vec::new();
    for bad in bad_tasks::all() {
        match manifest::read(&bad_tasks::manifest(bad.name, &bad.spec)) {
            Ok(_) => wrong.push(format!("{}: accepted", bad.name)),
            Err(error) if !error.to_string().contains(bad.ours) => {
                let error: String = error.to_string().chars().take(600).collect();
                wrong.push(format!("{}: {error}\n    wanted: {}", bad.name, bad.ours));
            }
            Err(_) => {}
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn value(bad: &bad_tasks::Bad) -> Value {
    serde_saphyr::from_str(&bad_tasks::manifest(bad.name, &bad.spec)).unwrap()
}

/// The validator must not depend on the schema: a Task may have been stored without one.
#[test]
fn validation_alone_refuses_every_decodable_bad_task() {
    let mut wrong = Vec::new();
    for bad in bad_tasks::all() {
        // What does not decode (a number in place of a string) cannot get this far.
        let Ok(mut task) = serde_json::from_value::<Task>(value(&bad)) else { continue };
        task.metadata.uid = Some("u".into());
        let unknown_field = bad.ours.contains("is an unknown field");
        if validate::validate(&task).is_ok() && !unknown_field {
            wrong.push(bad.name);
        }
    }
    assert!(wrong.is_empty(), "accepted: {wrong:?}");
}

/// The lines of the validator on which a problem is raised, as `file:line`.
fn rules() -> BTreeSet<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/resource/validate");
    let mut rules = BTreeSet::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let file = path.file_name().unwrap().to_string_lossy().into_owned();
        for (index, line) in std::fs::read_to_string(&path).unwrap().lines().enumerate() {
            let raises = ["problems.value(", "problems.field(", "problems.json("];
            if raises.iter().any(|call| line.contains(call)) {
                rules.insert(format!("{file}:{}", index + 1));
            }
        }
    }
    assert!(rules.len() > 30, "{}", rules.len());
    rules
}

/// Rules that no spec can break: name and uid come from the API server, and the mark from the watch.
const NOT_OF_THE_SPEC: [&str; 3] =
    ["\"metadata.name\"", "\"metadata.uid\"", "must be one that this operator can read"];

#[test]
fn every_rule_of_the_validator_is_broken_by_a_bad_task() {
    let mut unbroken = rules();
    for bad in bad_tasks::all() {
        let Ok(task) = serde_json::from_value::<Task>(value(&bad)) else { continue };
        for at in validate::broken_rules(&task) {
            let file = Path::new(at.file()).file_name().unwrap().to_string_lossy();
            unbroken.remove(&format!("{file}:{}", at.line()));
        }
    }
    let source = |rule: &str| {
        let (file, line) = rule.split_once(':').unwrap();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/resource/validate");
        let text = std::fs::read_to_string(folder.join(file)).unwrap();
        text.lines().nth(line.parse::<usize>().unwrap() - 1).unwrap().trim().to_owned()
    };
    let unbroken: Vec<String> = unbroken
        .into_iter()
        .map(|rule| format!("{rule}: {}", source(&rule)))
        .filter(|rule| !NOT_OF_THE_SPEC.iter().any(|other| rule.contains(other)))
        .collect();
    assert!(unbroken.is_empty(), "add a Task to bad_tasks that breaks each of these rules: {unbroken:#?}");
}

/// What an API server accepts and only the status refuses later. A new one needs a reason.
#[test]
fn only_undescribable_rules_are_left_to_the_status() {
    let taken: Vec<(&str, &str)> = bad_tasks::all()
        .into_iter()
        .filter_map(|bad| match bad.at_apply {
            AtApply::Taken { because } => Some((bad.name, because)),
            AtApply::Refused(_) => None,
        })
        .collect();
    let names: Vec<&str> = taken.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["many-listed-and-excluded", "command-of-bytes", "larger-than-a-frame"]);
    assert!(taken.iter().all(|(_, because)| because.len() > 20));
}

/// The rules of the definition, evaluated.
struct Definition {
    spec: kube_cel::CompiledSchema,
    /// Those of each part of the spec: a regular expression is compiled wherever it is used.
    parts: BTreeMap<String, kube_cel::CompiledSchema>,
    validator: kube_cel::Validator,
}

/// Int-or-string fields: kube-cel does not distinguish the two, so their rules are left to `refusals`.
const OF_TWO_TYPES: [&str; 2] = ["spec.rollout.maxConcurrent", "spec.run.limits.cpu"];

impl Definition {
    fn new() -> Self {
        let crd = serde_json::to_value(crd::task_crd().unwrap()).unwrap();
        let mut spec = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"].clone();
        for field in OF_TWO_TYPES {
            let pointer = field.replace("spec", "").replace('.', "/properties/");
            let rules = spec.pointer_mut(&pointer).unwrap().as_object_mut().unwrap();
            rules.remove("x-kubernetes-validations").unwrap();
        }
        let parts = spec["properties"].as_object().unwrap().iter();
        let parts = parts.map(|(name, part)| (name.clone(), kube_cel::compile_schema(part))).collect();
        Self { spec: kube_cel::compile_schema(&spec), parts, validator: kube_cel::Validator::new() }
    }

    /// The messages of the rules, all or those of the part that a pointer is in.
    fn problems(&self, spec: &Value, pointer: &str) -> Option<String> {
        let part = pointer.split(['/', ' ']).nth(2).unwrap_or_default();
        let judged = match self.parts.get(part) {
            Some(rules) => self.validator.validate_compiled(rules, spec.get(part)?, None),
            None => self.validator.validate_compiled(&self.spec, spec, None),
        };
        judged.err().map(|errors| errors.to_string())
    }
}

/// Whether the validator and the rules of the definition agree on a Task whose structure is right; `None` when it is not.
fn disagreement(definition: &Definition, task: Value, changed: &str) -> Option<String> {
    let whole = schema::complete(task).ok()?;
    let rules = definition.problems(&whole["spec"], changed);
    let mut problems = validate::check(&serde_json::from_value(whole).ok()?).err().unwrap_or_default();
    problems.retain(|problem| !OF_TWO_TYPES.contains(&problem.field.as_str()));
    match (rules, problems.first()) {
        (Some(rules), None) => Some(format!("only the definition: {rules}")),
        (None, Some(problem)) => Some(format!("only the validator: {problem}")),
        _ => None,
    }
}

#[test]
fn the_validator_and_the_definition_refuse_the_same() {
    let definition = Definition::new();
    // A sample, as this is slow; `refusals` sends what dev mode accepts to an API server.
    let odd: Vec<_> = battery::all().into_iter().step_by(5).collect();
    let count = odd.len();
    let mut wrong: Vec<String> = odd
        .into_iter()
        .filter_map(|odd| {
            let changed = odd.what.trim_start_matches("no ");
            Some(format!("{}: {}", odd.what, disagreement(&definition, odd.task, changed)?))
        })
        .collect();
    for bad in bad_tasks::all().iter().filter(|bad| bad.theirs().is_some()) {
        wrong.extend(
            disagreement(&definition, value(bad), "").map(|message| format!("{}: {message}", bad.name)),
        );
    }
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
}
