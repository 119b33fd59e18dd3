//! Validation rules of a Task in CEL, for what its structure does not enforce.
//!
//! Each has a message with the field and what is allowed; a `pattern` would print its regular expression.
//! [`super::validate`] has the same rules in Rust. `tests/cluster` offers the same invalid Tasks to both, and to a real API
//! server.
//!
//! An API server bounds the cost of rules: <https://kubernetes.io/docs/reference/using-api/cel/#resource-constraints>.

use kube::core::{Rule, validate};
use schemars::Schema;

/// A duration as Kubernetes writes it: hours, minutes, seconds and milliseconds, in this order. The digits are bounded, so
/// that the sum cannot overflow. The second pattern excludes the empty string, which the first one matches.
const IS_DURATION: &str =
    "self.matches('^([0-9]{1,5}h)?([0-9]{1,5}m)?([0-9]{1,6}s)?([0-9]{1,8}ms)?$') && self.matches('^[0-9]')";

/// An amount of bytes: a number with an optional decimal (k, M, G, T) or binary (Ki, Mi, Gi, Ti) suffix.
const IS_AMOUNT: &str = "self.matches('^[0-9]{1,12}(k|M|G|T|Ki|Mi|Gi|Ti)?$')";

/// As in [`sentinel_protocol::ids::NodeName`].
const IS_SUBDOMAIN: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";

/// Largest number of pairs of a listed and an excluded name that CEL compares: the cost of a rule is bounded at its
/// evaluation, too.
const MAX_PAIRS: usize = 250_000;

fn add(schema: &mut Schema, rule: Rule) {
    // Strings always have a JSON form; a test holds that each rule is in the definition.
    let _ = validate(schema, rule);
}

fn rule(text: String, message: String) -> impl FnMut(&mut Schema) {
    move |schema| add(schema, Rule::new(text.clone()).message(message.as_str()))
}

/// The same rule, for each item of a list.
pub(super) fn each(mut rule: impl FnMut(&mut Schema)) -> impl FnMut(&mut Schema) {
    move |schema| {
        let Some(items) = schema.get_mut("items") else { return };
        if let Ok(mut item) = Schema::try_from(items.clone()) {
            rule(&mut item);
            *items = item.to_value();
        }
    }
}

/// A duration from `least` to `most`; `hint` ends the message.
pub(super) fn duration(field: &str, least: &str, most: &str, hint: &str) -> impl FnMut(&mut Schema) + use<> {
    rule(
        format!(
            "{IS_DURATION} && duration(self) >= duration('{least}') && duration(self) <= duration('{most}')"
        ),
        format!("{field} must be a duration of {least} to {most}, such as 5m, 1h30m or 500ms{hint}"),
    )
}

/// An amount of bytes from `least` to `most`.
pub(super) fn amount(field: &str, least: &str, most: &str) -> impl FnMut(&mut Schema) + use<> {
    let compare = |sign: &str, bound: &str| format!("quantity(self).compareTo(quantity('{bound}')) {sign} 0");
    rule(
        format!("{IS_AMOUNT} && {} && {}", compare(">=", least), compare("<=", most)),
        format!("{field} must be an amount of {least} to {most} bytes, such as 64Mi or 1G"),
    )
}

/// The name of a node.
pub(super) fn node_name(field: &str) -> impl FnMut(&mut Schema) + use<> {
    rule(
        format!("self.matches('{IS_SUBDOMAIN}')"),
        format!(
            "{field} must be names of nodes: lower-case letters, digits, '-' and '.', each part beginning and ending with a letter or digit"
        ),
    )
}

/// The name of a Secret.
pub(super) fn secret_name(field: &str) -> impl FnMut(&mut Schema) + use<> {
    rule(format!("self.matches('{IS_SUBDOMAIN}')"), format!("{field} must be {SECRET_NAME}"))
}

/// The key of a Secret.
pub(super) fn secret_key(field: &str) -> impl FnMut(&mut Schema) + use<> {
    rule("self.matches('^[-._a-zA-Z0-9]+$')".to_owned(), format!("{field} must be {SECRET_KEY}"))
}

/// What the name of a Secret must be.
pub(super) const SECRET_NAME: &str = "the name of a Secret: at most 253 lower-case letters, digits, '-' and '.', each part beginning and ending with a letter or digit";

/// What the key of a Secret must be.
pub(super) const SECRET_KEY: &str = "a key of a Secret: 1 to 253 letters, digits, '-', '_' and '.'";

/// A label key.
pub(super) fn label_key(field: &str) -> impl FnMut(&mut Schema) + use<> {
    rule("!format.qualifiedName().validate(self).hasValue()".to_owned(), label_keys(field))
}

/// The message about an invalid label key.
pub(super) fn label_keys(field: &str) -> String {
    format!("{field} must be a label key, such as pool or topology.kubernetes.io/zone")
}

/// A map whose keys are label keys.
pub(super) fn label_keyed(field: &str) -> Rule {
    Rule::new("self.all(key, !format.qualifiedName().validate(key).hasValue())")
        .message(format!("each key of {}", label_keys(field)).as_str())
}

/// A label value.
pub(super) fn label_value(field: &str) -> impl FnMut(&mut Schema) + use<> {
    rule(
        "!format.labelValue().validate(self).hasValue()".to_owned(),
        format!(
            "{field} must be a label value: at most 63 letters, digits, '-', '_' and '.', beginning and ending with a letter or digit"
        ),
    )
}

/// A string without a zero byte.
pub(super) fn no_zero_byte(field: &str) -> impl FnMut(&mut Schema) + use<> {
    rule(
        r"!self.contains('\u0000')".to_owned(),
        format!("{field} must not contain a zero byte, which the kernel cannot pass on"),
    )
}

/// A string of at most this many bytes; `maxLength` counts characters.
pub(super) fn max_bytes(field: &str, most: usize) -> impl FnMut(&mut Schema) + use<> {
    rule(format!("size(bytes(self)) <= {most}"), format!("{field} must be at most {most} bytes"))
}

/// An absolute path.
pub(super) fn absolute_path(field: &str) -> impl FnMut(&mut Schema) + use<> {
    rule("self.startsWith('/')".to_owned(), format!("{field} must be an absolute path, such as /tmp"))
}

/// A user or group, by name or number. 4294967295 is -1 in the kernel, which means no change.
pub(super) fn identity(field: &str) -> impl FnMut(&mut Schema) + use<> {
    rule(
        r"self.matches('^[A-Za-z_][A-Za-z0-9_.@-]*[$]?$') || (self.matches('^[0-9]{1,10}$') && int(self) <= 4294967294)"
            .to_owned(),
        format!("{field} must be a name, or a number from 0 to 4294967294"),
    )
}

/// A file mode creation mask.
pub(super) fn umask(field: &str) -> impl FnMut(&mut Schema) + use<> {
    rule(
        "self.matches('^0?[0-7]{3}$')".to_owned(),
        format!("{field} must be three octal digits in quotes, such as \"022\""),
    )
}

/// The name of an environment variable.
pub(super) fn env_name(field: &str) -> impl FnMut(&mut Schema) + use<> {
    rule(
        "self.matches('^[-._A-Za-z][-._A-Za-z0-9]*$')".to_owned(),
        format!("{field} must be 1 to 256 letters, digits, '_', '-' and '.', not beginning with a digit"),
    )
}

/// The size of all environment variables together.
pub(super) fn env_bytes(field: &str, most: usize) -> impl FnMut(&mut Schema) + use<> {
    rule(
        format!("self.map(item, size(bytes(item.name)) + size(bytes(item.value))).sum() <= {most}"),
        format!("{field} must be at most {most} bytes in total, names and values"),
    )
}

/// A number, or a percentage from 1% to 100%. The range of the number is in the schema.
pub(super) fn count_or_percentage(field: &str, most: i32) -> Rule {
    Rule::new("type(self) == int || string(self).matches('^([1-9][0-9]?|100)%$')").message(
        format!("{field} must be a number from 1 to {most}, or a percentage from 1% to 100%").as_str(),
    )
}

/// An amount of CPU: thousandths with `m`, or whole CPUs. The range of a number is in the schema.
pub(super) fn cpu(field: &str) -> Rule {
    Rule::new(
        "type(self) == int || (string(self).matches('^([1-9][0-9]{0,6}m|[1-9][0-9]{0,3})$') \
         && quantity(string(self)).compareTo(quantity('10m')) >= 0 \
         && quantity(string(self)).compareTo(quantity('1024')) <= 0)",
    )
    .message(
        format!("{field} must be 10m to 1024: thousandths of a CPU, such as 500m, or whole CPUs, such as 2")
            .as_str(),
    )
}

/// No node is both listed and excluded, within [`MAX_PAIRS`].
pub(super) fn listed_or_excluded() -> Rule {
    Rule::new(format!(
        "!has(self.nodeNames) || !has(self.exclude.nodeNames) || \
         size(self.nodeNames) * size(self.exclude.nodeNames) > {MAX_PAIRS} || \
         !self.nodeNames.exists(name, name in self.exclude.nodeNames)"
    ))
    .message("spec.targets.nodeNames must not have a name that is also in spec.targets.exclude.nodeNames")
    .field_path(".nodeNames")
}

/// The first delay is not longer than the longest. Invalid durations are refused by the rules of the two fields.
pub(super) fn delays_grow() -> Rule {
    let is_duration = |field: &str| IS_DURATION.replace("self.", &format!("self.{field}."));
    Rule::new(format!(
        "!({} && {}) || duration(self.initial) <= duration(self.max)",
        is_duration("initial"),
        is_duration("max")
    ))
    .message("spec.retry.backoff.initial must be at most spec.retry.backoff.max")
    .field_path(".initial")
}
