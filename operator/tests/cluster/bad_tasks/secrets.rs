//! Tasks whose references to Secrets must be refused.

use super::run::run;
use super::{Bad, bad};

pub(super) fn of_secrets() -> Vec<Bad> {
    vec![
        bad(
            "value-and-secret",
            run("{command: [a], env: [{name: A, value: b, valueFrom: {secretKeyRef: {name: s, key: k}}}]}"),
            "spec.run.env[0].valueFrom must not be set together with value",
            "spec.run.env must have at most one of value and valueFrom for each variable",
        ),
        bad(
            "path-from-a-secret",
            run("{command: [a], env: [{name: PATH, valueFrom: {secretKeyRef: {name: s, key: k}}}]}"),
            "spec.run.env[0].valueFrom must not be set for PATH",
            "spec.run.env must not have PATH from a Secret",
        ),
        bad(
            "secret-without-key",
            run("{command: [a], env: [{name: A, valueFrom: {secretKeyRef: {name: s}}}]}"),
            "spec.run.env[0].valueFrom.secretKeyRef.key is required",
            "spec.run.env[0].valueFrom.secretKeyRef.key",
        ),
        bad(
            "secret-of-no-name",
            run("{command: [a], env: [{name: A, valueFrom: {secretKeyRef: {name: S_1, key: k}}}]}"),
            "spec.run.env[0].valueFrom.secretKeyRef.name is \"S_1\"; it must be the name of a Secret",
            "secretKeyRef.name must be the name of a Secret",
        ),
        bad(
            "secret-of-another-key",
            run("{command: [a], stdinFrom: {secretKeyRef: {name: s, key: a/b}}}"),
            "spec.run.stdinFrom.secretKeyRef.key is \"a/b\"; it must be a key of a Secret",
            "secretKeyRef.key must be a key of a Secret",
        ),
        bad(
            "stdin-and-secret",
            run("{command: [a], stdin: b, stdinFrom: {secretKeyRef: {name: s, key: k}}}"),
            "spec.run.stdinFrom must not be set together with stdin",
            "spec.run must have at most one of stdin and stdinFrom",
        ),
        bad(
            "secret-in-a-core-dump",
            run("{command: [a], limits: {core: 1Mi}, stdinFrom: {secretKeyRef: {name: s, key: k}}}"),
            "spec.run.limits.core is \"1Mi\"; it must be 0 where spec.run uses a Secret",
            "spec.run.limits.core must be 0 where spec.run uses a Secret",
        ),
    ]
}
