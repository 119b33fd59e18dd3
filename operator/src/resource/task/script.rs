//! `spec.run.script`: a script and its interpreter.

#![expect(unreachable_pub, reason = "KubeSchema repeats each type in a place of its own")]

use kube::KubeSchema;
use sentinel_protocol::limits::MAX_COMMAND_BYTES;
use serde::{Deserialize, Serialize};

use crate::resource::rules;

/// A script and its interpreter.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!self.text.startsWith('\\ufeff')").message("spec.run.script.text must not begin with a byte-order mark; save it as UTF-8 without one").field_path(".text"))]
#[x_kube(validation = Rule::new("!self.text.contains('\\r\\n') && !(self.text.contains('\\r') && !self.text.contains('\\n'))").message("spec.run.script.text has lines that end with CR LF or CR; save it with LF, for example with: dos2unix FILE, or mac2unix FILE").field_path(".text"))]
#[x_kube(validation = Rule::new("has(self.interpreter) || !self.text.matches('^\\\\s+#!')").message("spec.run.script.text has a #! line after blank space; make it the very first line, or set spec.run.script.interpreter").field_path(".text"))]
#[x_kube(validation = Rule::new("has(self.interpreter) || !self.text.startsWith('#!') || (self.text.matches('^#![ \\\\t]*[^ \\\\t\\\\n]') && !self.text.matches('^#![^\\\\n]{254}'))").message("spec.run.script.text has a #! line that names no program or is longer than 255 bytes; correct it, or set spec.run.script.interpreter").field_path(".text"))]
#[x_kube(validation = Rule::new("!has(self.interpreter) || !self.interpreter.matches('\\\\s')").message("spec.run.script.interpreter takes no arguments; omit it and write them in the first line of the text, such as #!/bin/bash -eu").field_path(".interpreter"))]
pub struct Script {
    /// The interpreter: a path, or a name that is searched in PATH, without arguments. By default the first line of the
    /// text names it (`#!/usr/bin/python3 -u`, with at most one argument, as in the kernel), or else it is /bin/sh.
    /// Example: `/usr/bin/python3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096), transform = rules::no_zero_byte("spec.run.script.interpreter"))]
    #[schemars(transform = rules::max_bytes("spec.run.script.interpreter", 4096))]
    pub interpreter: Option<String>,

    /// The text of the script. Example: `"set -e\nuname -a\n"`.
    #[schemars(length(min = 1, max = 131_072), transform = rules::no_zero_byte("spec.run.script.text"))]
    #[schemars(transform = rules::max_bytes("spec.run.script.text", MAX_COMMAND_BYTES))]
    pub text: String,
}
