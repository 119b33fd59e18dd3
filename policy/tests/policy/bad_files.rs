//! What a policy may not be: each is refused as a whole, with what is wrong.

use std::fmt::Write as _;

use proptest::prelude::*;
use sentinel_policy::document::{MAX_BYTES, Policy};

use crate::kit::{RULE, rules};

/// A bad policy and a part of the error about it.
const BAD: &[(&str, &str)] = &[
    ("", "is empty"),
    ("# nothing\n---\n", "is empty"),
    ("rules: []", "missing field"),
    ("apiVersion: sentinelnode.dev/v2\nkind: NodePolicy\nrules: []", "unknown variant"),
    ("apiVersion: sentinelnode.dev/v1alpha1\nkind: Task\nrules: []", "unknown variant"),
    ("a: [", "unknown field `a`, expected one of apiVersion, kind, signers, rules at line 1, column 1"),
    ("- 1", "expected mapping start at line 1, column 1"),
    ("apiVersion: sentinelnode.dev/v1alpha1\nkind: NodePolicy\nrules: []\nextra: 1", "unknown field"),
    ("apiVersion: sentinelnode.dev/v1alpha1\nkind: NodePolicy\nrules: []\nrules: []", "duplicate"),
    (
        "apiVersion: sentinelnode.dev/v1alpha1\nkind: NodePolicy\nrules:\n",
        "expected sequence start at line 3, column 6",
    ),
];

/// A bad rule and a part of the error about it.
const BAD_RULES: &[(&str, &str)] = &[
    ("{effect: Deny}", "missing field `id`"),
    ("{id: a}", "missing field `effect`"),
    ("{id: A, effect: Deny}", "is not an id"),
    ("{id: '', effect: Deny}", "is not an id"),
    ("{id: -a, effect: Deny}", "is not an id"),
    ("{id: no-rule, effect: Deny}", "is reserved"),
    ("{id: kill-switch, effect: Deny}", "is reserved"),
    ("{id: a, effect: Permit}", "unknown variant"),
    ("{id: a, effect: Deny, user: [root]}", "unknown field"),
    ("{id: a, effect: Allow}", "must have `who`"),
    ("{id: a, effect: Allow, who: Anyone}", "must have `what`"),
    ("{id: a, effect: Allow, who: Anyone, what: AnyCommand}", "must have `users`"),
    ("{id: a, effect: Allow, who: Anyone, what: AnyCommand, users: Any}", "must have `environments`"),
    ("{id: a, effect: Deny, concurrent: 1}", "cannot have `concurrent`"),
    ("{id: a, effect: Deny, limits: {pids: 1}}", "cannot have `limits`"),
    ("{id: a, effect: Deny, who: {}}", "`who` is empty"),
    ("{id: a, effect: Deny, who: {users: []}}", "`users` is empty"),
    ("{id: a, effect: Deny, who: Everyone}", "Anyone"),
    ("{id: a, effect: Deny, who: {user: [x]}}", "unknown field"),
    ("{id: a, effect: Deny, what: Any}", "AnyCommand"),
    ("{id: a, effect: Deny, what: []}", "`what` is empty"),
    ("{id: a, effect: Deny, what: [{}]}", "neither `programs` nor `script`"),
    ("{id: a, effect: Deny, what: [{programs: []}]}", "`programs` is empty"),
    ("{id: a, effect: Deny, what: [{programs: [df]}]}", "is not an absolute path"),
    ("{id: a, effect: Deny, what: [{programs: [/usr/../bin/df]}]}", "is not an absolute path"),
    ("{id: a, effect: Deny, what: [{programs: [/usr//bin/df]}]}", "is not an absolute path"),
    ("{id: a, effect: Deny, what: [{programs: [/usr/bin/]}]}", "is not an absolute path"),
    ("{id: a, effect: Deny, what: [{programs: [/a], sha256: [abc]}]}", "is not a SHA-256"),
    ("{id: a, effect: Deny, what: [{programs: [/a], args: [{rest: x}, y]}]}", "nothing may follow `rest`"),
    ("{id: a, effect: Deny, what: [{programs: [/a], args: [{regex: x}]}]}", "unknown variant"),
    ("{id: a, effect: Deny, what: [{programs: [/a], args: [{glob: '***'}]}]}", "three `*`"),
    (
        "{id: a, effect: Deny, what: [{script: {interpreters: [], text: Any}}]}",
        "`script.interpreters` is empty",
    ),
    ("{id: a, effect: Deny, what: [{script: {interpreters: [/a]}}]}", "missing field `text`"),
    ("{id: a, effect: Deny, env: []}", "`env` is empty"),
    ("{id: a, effect: Deny, stdin: {sha256: []}}", "`stdin` is empty"),
    ("{id: a, effect: Deny, workingDirs: [{oneOf: []}]}", "`workingDirs` is empty"),
    ("{id: a, effect: Deny, what: [{programs: [/a], sha256: []}]}", "`what: sha256` is empty"),
    (
        "{id: a, effect: Deny, hours: {days: [], from: '08:00', to: '09:00', timeZone: UTC}}",
        "`hours.days` is empty",
    ),
    ("{id: a, effect: Deny, users: Root}", "AnyButRoot"),
    ("{id: a, effect: Deny, environments: [Pod]}", "unknown variant"),
    ("{id: a, effect: Deny, environments: []}", "`environments` is empty"),
    ("{id: a, effect: Deny, stdin: Some}", "`Any`, `Empty`"),
    ("{id: a, effect: Deny, hours: {from: '8:00', to: '09:00', timeZone: UTC}}", "is not a time of the day"),
    ("{id: a, effect: Deny, hours: {from: '08:00', to: '24:01', timeZone: UTC}}", "is not a time of the day"),
    ("{id: a, effect: Deny, hours: {from: '08:00', to: '08:00', timeZone: UTC}}", "begin when they end"),
    (
        "{id: a, effect: Deny, hours: {from: '08:00', to: '09:00', timeZone: Mars/Olympus}}",
        "is not a time zone",
    ),
    ("{id: a, effect: Deny, hours: {from: '08:00', to: '09:00'}}", "missing field `timeZone`"),
    (
        "{id: a, effect: Allow, who: Anyone, what: AnyCommand, users: Any, environments: [Host], concurrent: 0}",
        "nonzero",
    ),
    (
        "{id: a, effect: Allow, who: Anyone, what: AnyCommand, users: Any, environments: [Host], umask: '888'}",
        "is not a umask",
    ),
    (
        "{id: a, effect: Allow, who: Anyone, what: AnyCommand, users: Any, environments: [Host], maxRun: 0s}",
        "is not a duration",
    ),
    (
        "{id: a, effect: Allow, who: Anyone, what: AnyCommand, users: Any, environments: [Host], limits: {memory: lots}}",
        "is not a number of bytes",
    ),
];

#[test]
fn a_bad_policy_is_refused_with_what_is_wrong() {
    let rules = BAD_RULES.iter().map(|(rule, error)| (rules(&format!("- {rule}\n")), *error));
    let whole = BAD.iter().map(|(text, error)| ((*text).to_owned(), *error));
    for (text, expected) in whole.chain(rules) {
        let error = Policy::read(text.as_bytes()).expect_err(&text).to_string();
        assert!(error.contains(expected), "{text}\n{error}\nshould have {expected:?}");
    }
    assert!(
        Policy::read(&[0xff, 0xfe]).unwrap_err().to_string().contains("not valid UTF-8 at byte offset 0")
    );
    let long = format!("{RULE}#{}", "x".repeat(MAX_BYTES));
    assert!(Policy::read(long.as_bytes()).unwrap_err().to_string().contains("at most 262144"));
    let twice = rules_of(&["{id: a, effect: Deny}", "{id: b, effect: Deny}", "{id: a, effect: Deny}"]);
    assert!(
        Policy::read(twice.as_bytes())
            .unwrap_err()
            .to_string()
            .contains("rules 1 and 3 of the policy have the same id")
    );
    let many = rules_of(&(0..1001).map(|n| format!("{{id: r{n}, effect: Deny}}")).collect::<Vec<_>>());
    assert!(Policy::read(many.as_bytes()).unwrap_err().to_string().contains("1001 rules"));
}

fn rules_of<T: AsRef<str>>(items: &[T]) -> String {
    let items: Vec<String> = items.iter().map(|item| format!("- {}", item.as_ref())).collect();
    rules(&(items.join("\n") + "\n"))
}

/// A field that a template left empty lifted the restriction that it stood for.
#[test]
fn a_field_without_a_value_is_an_error() {
    let rule = "id: a, effect: Allow, who: {namespaces: [ops], users: [x], groups: [y]}, what: [{programs: [/a], resolvesTo: [/b], \
                sha256: [], args: [x]}], users: [u], groups: [g], environments: [Host], sandboxes: [Baseline], \
                env: [{name: A, value: b}], workingDirs: [/], umask: '022', stdin: Empty, leftovers: [End], \
                limits: {cpu: '1', memory: 1Mi, pids: 1, nofile: 1, core: 1Mi}, maxRun: 1m, concurrent: 1, \
                hours: {days: [Mon], from: '08:00', to: '09:00', timeZone: UTC}, signature: {by: [z], audience: p}";
    let fields = [
        "who",
        "namespaces",
        "users",
        "groups",
        "what",
        "programs",
        "resolvesTo",
        "sha256",
        "args",
        "environments",
        "sandboxes",
        "env",
        "value",
        "workingDirs",
        "umask",
        "stdin",
        "leftovers",
        "limits",
        "cpu",
        "memory",
        "pids",
        "nofile",
        "core",
        "maxRun",
        "concurrent",
        "hours",
        "days",
        "signature",
        "audience",
    ];
    for field in fields {
        for at in rule.match_indices(&format!("{field}: ")).map(|(at, _)| at + field.len() + 1) {
            // The value ends at the comma or the bracket of its own depth.
            let mut depth = 0_i32;
            let end = rule[at..].char_indices().find(|(_, char)| {
                depth += match char {
                    '{' | '[' => 1,
                    '}' | ']' => -1,
                    _ => 0,
                };
                depth < 0 || (depth == 0 && *char == ',')
            });
            let end = end.map_or(rule.len(), |(offset, _)| at + offset);
            for empty in ["", " null", " ~"] {
                let text = rules(&format!("- {{{}{empty}{}}}\n", &rule[..at], &rule[end..]));
                assert!(Policy::read(text.as_bytes()).is_err(), "{field} without a value:\n{text}");
            }
        }
    }
}

#[test]
fn aliases_cannot_make_a_small_file_large() {
    let mut text = String::from("a0: &a0 [x]\n");
    for level in 1..40 {
        let items = vec![format!("*a{}", level - 1); 10].join(",");
        let _ = writeln!(text, "a{level}: &a{level} [{items}]");
    }
    assert!(Policy::read(text.as_bytes()).is_err());
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        let _ = Policy::read(&bytes);
    }
}

/// A refusal has this text, and the person who reads it may not read the file.
#[test]
fn a_field_without_a_value_is_named_once_and_in_plain_words() {
    for (rule, field) in [
        ("{id: a, effect: Deny, users: }", "users"),
        ("{id: a, effect: Deny, what: [{programs: ~}]}", "programs"),
        ("{id: a, effect: Deny, who: null}", "who"),
    ] {
        let text = rules(&format!("- {rule}\n"));
        let error = Policy::read(text.as_bytes()).unwrap_err();
        let expected = format!("the field `{field}` has no value; write one, or leave the field out");
        assert!(error.to_string().starts_with(&format!("{expected} at line 4, column ")), "{error}");
        assert!(error.with_excerpt().contains(&expected) && error.with_excerpt().contains(rule), "{error:?}");
    }
}
