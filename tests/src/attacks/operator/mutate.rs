//! Mutations of form: they know nothing of what a message means.

use serde_json::{Map, Value, json};

use super::policy::Policy;

/// Mutations of form, by name.
pub const FORM: &[&str] = &[
    "delete a field",
    "repeat a field",
    "another type",
    "a boundary number",
    "another word",
    "another Unicode form",
    "a long text",
    "a deep value",
    "exchange two values",
    "an unknown field",
    "flip a byte",
    "cut off",
    "insert bytes",
];

/// Takes one at random; of texts that a message may have, for any of its fields.
pub struct Mutator<'a> {
    /// Randomness.
    pub rng: &'a mut fastrand::Rng,
    /// The node's policy.
    pub policy: &'a Policy,
    /// An earlier `Start` that ran, for parts of it.
    pub earlier: Option<&'a Value>,
}

impl Mutator<'_> {
    pub(super) fn one<'b, T: ?Sized>(&mut self, of: &[&'b T]) -> &'b T {
        of[self.rng.usize(..of.len())]
    }

    /// Changes the form of a message, and returns its text, which need not be JSON any more.
    #[allow(clippy::too_many_lines, reason = "one arm for each kind")]
    pub fn form(&mut self, kind: &str, message: &Value) -> Vec<u8> {
        let mut message = message.clone();
        let mut places = Vec::new();
        collect(&message, String::new(), &mut places);
        let place = places[self.rng.usize(..places.len())].clone();
        let other = places[self.rng.usize(..places.len())].clone();
        let mut repeated = None;
        match kind {
            "delete a field" => drop(remove(&mut message, &place)),
            "another type" => *at(&mut message, &place) = self.any_value(),
            "a boundary number" => *at(&mut message, &place) = self.number(),
            "another word" => *at(&mut message, &place) = self.word().into(),
            "another Unicode form" => {
                let text = at(&mut message, &place).as_str().unwrap_or("/bin/sh").to_owned();
                *at(&mut message, &place) = self.unicode(&text).into();
            }
            "a long text" => *at(&mut message, &place) = "A".repeat(1 << self.rng.u32(8..17)).into(),
            "a deep value" => {
                let depth = self.rng.usize(100..400);
                *at(&mut message, &place) = (0..depth).fold(json!(1), |inner, _| json!([inner]));
            }
            "exchange two values" => {
                let (one, two) = (at(&mut message, &place).clone(), at(&mut message, &other).clone());
                *at(&mut message, &place) = two;
                if let Some(there) = message.pointer_mut(&other) {
                    *there = one;
                }
            }
            "an unknown field" => {
                let value = self.any_value();
                if let Value::Object(fields) = parent(&mut message, &place) {
                    fields.insert(
                        self.one(&["image", "hostPID", "runAsRoot", "policy", "force"]).to_owned(),
                        value,
                    );
                }
            }
            "repeat a field" => {
                let name = place.rsplit('/').next().unwrap_or_default().to_owned();
                let value = if self.rng.bool() { self.any_value() } else { self.word().into() };
                if let Value::Object(fields) = parent(&mut message, &place) {
                    // Sorted before or behind it, as the map of a JSON value is.
                    let mark = format!("{}@twice", if self.rng.bool() { "!" } else { "~" });
                    fields.insert(mark.clone(), value);
                    repeated = Some((mark, name));
                }
            }
            _ => {}
        }
        let mut text = message.to_string();
        if let Some((mark, name)) = repeated {
            text = text.replace(&mark, &name);
        }
        let mut bytes = text.into_bytes();
        let index = self.rng.usize(..bytes.len());
        match kind {
            "flip a byte" => bytes[index] ^= 1 << self.rng.u32(..8),
            "cut off" => bytes.truncate(index),
            "insert bytes" => {
                let inserted =
                    self.one(&["\0", "\\u0000", "\u{202e}", "\"", "{", "\\", "\u{feff}", "/../", " "]);
                bytes.splice(index..index, inserted.bytes());
            }
            _ => {}
        }
        bytes
    }

    pub(super) fn number(&mut self) -> Value {
        let numbers = [
            json!(0),
            json!(1),
            json!(-1),
            json!(255),
            json!(256),
            json!(65_536),
            json!(60_001),
            json!(u32::MAX),
            json!(1_u64 << 32),
            json!(1_u64 << 53),
            json!(i64::MAX),
            json!(u64::MAX),
            json!(i64::MIN),
            json!(0.5),
            json!(1e300),
            json!(1025),
        ];
        numbers[self.rng.usize(..numbers.len())].clone()
    }

    pub(super) fn word(&mut self) -> String {
        let program = self.policy.program("other");
        self.one(&[
            "Start",
            "Cancel",
            "Forget",
            "Host",
            "Container",
            "Privileged",
            "Baseline",
            "Keep",
            "End",
            "Any",
            "Anyone",
            "AnyCommand",
            "root",
            "0",
            "alice",
            "admins",
            "ops",
            "/bin/sh",
            "..",
            "true",
            "null",
            "",
            "Ended",
            &*program,
        ])
        .to_owned()
    }

    fn any_value(&mut self) -> Value {
        match self.rng.u8(..7) {
            0 => Value::Null,
            1 => true.into(),
            2 => json!([]),
            3 => json!({}),
            4 => json!([self.word(), self.number()]),
            5 => self.number(),
            _ => self.word().into(),
        }
    }

    fn unicode(&mut self, text: &str) -> String {
        match self.rng.u8(..7) {
            0 => text.chars().map(|char| if char == 'e' { '\u{435}' } else { char }).collect(),
            1 => format!("{text}\u{200b}"),
            2 => format!("\u{feff}{text}"),
            3 => text.to_uppercase(),
            4 => text
                .chars()
                .map(|char| {
                    char::from_u32(char as u32 + 0xfee0).filter(|_| char.is_ascii_lowercase()).unwrap_or(char)
                })
                .collect(),
            5 => format!("{text}\0x"),
            _ => format!("{text}\u{301}"),
        }
    }
}

/// The JSON pointers of all values but the whole.
fn collect(value: &Value, path: String, into: &mut Vec<String>) {
    if !path.is_empty() {
        into.push(path.clone());
    }
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                collect(value, format!("{path}/{name}"), into);
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                collect(value, format!("{path}/{index}"), into);
            }
        }
        _ => {}
    }
}

fn at<'a>(message: &'a mut Value, place: &str) -> &'a mut Value {
    message.pointer_mut(place).unwrap_or_else(|| unreachable!("it was collected"))
}

fn parent<'a>(message: &'a mut Value, place: &str) -> &'a mut Value {
    at(message, place.rsplit_once('/').map_or("", |(parent, _)| parent))
}

fn remove(message: &mut Value, place: &str) -> Option<Value> {
    let name = place.rsplit('/').next().unwrap_or_default().to_owned();
    match parent(message, place) {
        Value::Object(fields) => Map::remove(fields, &name),
        Value::Array(items) => Some(items.remove(name.parse().ok()?)),
        _ => None,
    }
}
