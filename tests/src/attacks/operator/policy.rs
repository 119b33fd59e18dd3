//! The policy of an attacked node, and the oracle: what it allows, written a second time, as plainly as possible, about what was
//! started and not about what was asked.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use nix::unistd::User;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use ssh_key::private::{Ed25519Keypair, KeypairData};
use ssh_key::{HashAlg, LineEnding, PrivateKey};

use super::witness::Witness;

/// Standard input of `feed`.
pub const FEED: &str = "42\n";

/// How often a node may start what is signed.
pub const RUNS: u32 = 2;

/// The namespace of signatures of Tasks; that of the product.
const SIGNED_FOR: &str = "sentinelnode.dev/task";

/// Ids that a refusal by the policy can have.
pub const RULES: &[&str] = &["no-rule", "never-hourly", "not-mallory", "signed"];

/// The policy of one node.
#[derive(Debug, Clone)]
pub struct Policy {
    dir: PathBuf,
    shell: PathBuf,
    node: String,
    /// The user that commands may have.
    pub user: String,
    uid: u32,
    gid: u32,
}

/// What a harness has asked for, as far as the oracle cannot see it in a witness.
#[derive(Debug, Default)]
pub struct Asked {
    /// Attempts of a `Start` that the `who`, `maxRun`, `limits` and `leftovers` of the rule of this program fit.
    pub fitting: BTreeSet<(String, &'static str)>,
    /// Statements that alice has signed for this node.
    pub signed: BTreeSet<String>,
}

impl Policy {
    /// That of a node with these files.
    ///
    /// # Errors
    /// When the user has no entry.
    pub fn new(dir: &Path, node: &str, user: &str) -> Result<Self> {
        let entry = User::from_name(user)?.with_context(|| format!("user {user} does not exist"))?;
        let shell = Path::new("/bin/sh").canonicalize()?;
        let (uid, gid) = (entry.uid.as_raw(), entry.gid.as_raw());
        Ok(Self { dir: dir.to_owned(), shell, node: node.to_owned(), user: user.to_owned(), uid, gid })
    }

    /// The file.
    pub fn text(&self) -> String {
        let bin = self.dir.join("bin").display().to_string();
        let shell = self.shell.display();
        let (user, feed, script) = (&self.user, sha256(FEED), sha256(&self.script()));
        let key = key("alice", 7).public_key().to_openssh().unwrap_or_default();
        let how = format!("users: [{user}], environments: [Container]");
        format!(
            "apiVersion: sentinelnode.dev/v1alpha1
kind: NodePolicy
signers: [{{name: alice, key: '{key}'}}]
rules:
- {{id: never-hourly, effect: Deny, what: [{{programs: ['{bin}/report'], args: [hourly, {{rest: {{glob: '**'}}}}]}}]}}
- {{id: not-mallory, effect: Deny, who: {{users: [mallory]}}}}
- {{id: report, effect: Allow, who: {{namespaces: [ops], users: [alice, bob], groups: [admins]}},
   what: [{{programs: ['{bin}/report'], args: [{{oneOf: [daily, weekly]}}, {{glob: 'host-*'}}]}}], {how},
   env: [{{name: LEVEL, value: {{oneOf: [low, high]}}}}, {{name: TOKEN}}], maxRun: 1m}}
- {{id: feed, effect: Allow, who: Anyone, what: [{{programs: ['{bin}/feed']}}], {how}, stdin: {{sha256: [{feed}]}}}}
- {{id: script, effect: Allow, who: {{namespaces: [ops]}}, {how},
   what: [{{script: {{interpreters: [/bin/sh, {shell}], text: {{sha256: [{script}]}}}}}}]}}
- {{id: signed, effect: Allow, who: Anyone, what: [{{programs: ['{bin}/signed'], args: Any}}], {how}, signature: {{by: [alice]}}}}
"
        )
    }

    /// One that allows all that is asked for.
    pub fn everything() -> String {
        "apiVersion: sentinelnode.dev/v1alpha1
kind: NodePolicy
rules:
- {id: all, effect: Allow, who: Anyone, what: AnyCommand, users: Any, groups: Any, environments: [Container, Host],
   sandboxes: [Restricted, Baseline, Privileged], env: [{name: {glob: '**'}}], workingDirs: [{glob: '**'}], umask: '000',
   stdin: Any, leftovers: [End, Keep], limits: {nofile: 1000000, core: 1Ti}}
"
        .to_owned()
    }

    /// A program of the node.
    pub fn program(&self, name: &str) -> String {
        self.dir.join("bin").join(name).display().to_string()
    }

    /// The script that is allowed.
    pub fn script(&self) -> String {
        format!("exec {} fixed\n", self.program("scripted"))
    }

    /// Whether what was started is what the policy allows.
    ///
    /// # Errors
    /// In what it differs.
    pub fn allows(&self, seen: &Witness, asked: &Asked) -> Result<&'static str, String> {
        let expect = |what: &str, is: bool| if is { Ok(()) } else { Err(format!("{what}: {seen:?}")) };
        expect("too long", !seen.is_shortened)?;
        expect("the user", (seen.uid, seen.gid) == (self.uid, self.gid))?;
        expect("the groups", self.uid == 0 || !seen.groups.contains(&0))?;
        expect("the working directory", seen.cwd == Path::new("/"))?;
        expect("the umask", seen.umask & 0o022 == 0o022)?;
        expect("open files", seen.limits[0] <= 1024)?;
        // With a limit of 1 byte there is none.
        expect("core dumps", seen.limits[1] <= 1)?;
        let status = |name: &str| seen.status.get(name).map_or("", String::as_str);
        expect("the sandbox", status("NoNewPrivs") == "1" && status("Seccomp") == "2")?;
        expect("capabilities", u64::from_str_radix(status("CapEff"), 16) == Ok(0))?;
        expect("the directory", seen.exe.parent() == Some(&self.dir.join("bin")))?;
        let arguments: Vec<&str> = seen.argv.iter().skip(1).map(String::as_str).collect();
        let (rule, variables): (_, &[&str]) = match (seen.name(), &arguments[..]) {
            ("report", ["daily" | "weekly", host]) if is_host(host) => ("report", &["LEVEL", "TOKEN"]),
            ("feed", []) => ("feed", &[]),
            ("scripted", ["fixed"]) => ("script", &[]),
            ("signed", [id]) if asked.signed.contains(*id) => ("signed", &[]),
            _ => return Err(format!("the arguments: {seen:?}")),
        };
        expect("standard input", seen.stdin == if rule == "feed" { FEED } else { "" })?;
        self.variables(seen, variables)?;
        expect("who asked", asked.fitting.contains(&(seen.attempt().to_owned(), rule)))?;
        Ok(rule)
    }

    fn variables(&self, seen: &Witness, further: &[&str]) -> Result<(), String> {
        const OWN: &[&str] = &[
            "HOME",
            "USER",
            "LOGNAME",
            "SHELL",
            "LANG",
            "SENTINEL_TASK",
            "SENTINEL_RUN",
            "SENTINEL_ATTEMPT",
        ];
        // Set by a shell itself.
        const OF_A_SHELL: &[&str] = &["PWD", "OLDPWD", "SHLVL", "_"];
        for (name, value) in &seen.env {
            let fits = match name.as_str() {
                "PATH" => value == "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "SENTINEL_NODE" => *value == self.node,
                "SENTINEL_NAMESPACE" => value == "ops" || seen.name() == "feed" || seen.name() == "signed",
                "TRACEPARENT" | "TRACESTATE" => value.len() <= 512 && value.is_ascii(),
                "LEVEL" => further.contains(&"LEVEL") && (value == "low" || value == "high"),
                // A value of a Secret is sealed for one Attempt.
                "TOKEN" if value.starts_with("secret-") => *value == secret(seen.attempt()),
                "TOKEN" => further.contains(&"TOKEN"),
                other => OWN.contains(&other) || (seen.name() == "scripted" && OF_A_SHELL.contains(&other)),
            };
            if !fits {
                return Err(format!("the variable {name}={value}: {seen:?}"));
            }
        }
        Ok(())
    }

    /// The rules whose other parts a `Start` fits, as it is written.
    pub fn fitting(&self, start: &Value) -> Vec<&'static str> {
        let request = &start["request"];
        let is_in_ops = start["task"]["namespace"] == "ops";
        let is_harmless =
            start["attempt"].as_str().is_some_and(|id| id.split('/').nth(2) == Some(&self.node))
                && request["environment"] == "Container"
                && matches!(request["sandbox"].as_str(), None | Some("Restricted"))
                && matches!(request["leftovers"].as_str(), None | Some("End"))
                && start["deadlines"]["graceMs"].as_u64().is_some_and(|grace| grace <= 3_600_000);
        let people = [&start["requestedBy"]["author"], &start["requestedBy"]["rerun"]];
        let may_report = |who: &Value| {
            let has_group =
                who["groups"].as_array().is_some_and(|groups| groups.iter().any(|group| group == "admins"));
            (who["user"] == "alice" || who["user"] == "bob") && has_group
        };
        let is_mallory = people.iter().any(|who| who["user"] == "mallory") || start["requestedBy"].is_null();
        let is_short = ["runMs", "totalMs"]
            .iter()
            .any(|name| start["deadlines"][*name].as_u64().is_some_and(|ms| ms <= 60_000));
        let may = |rule: &str| match rule {
            "report" => {
                is_in_ops
                    && is_short
                    && may_report(people[0])
                    && (people[1].is_null() || may_report(people[1]))
            }
            "script" => is_in_ops,
            _ => true,
        };
        // It is not known who asked where nothing is stated, and then the rule against mallory matches.
        let rules = ["report", "feed", "script", "signed"].into_iter();
        rules.filter(|rule| is_harmless && !is_mallory && may(rule)).collect()
    }
}

/// What the glob `host-*` of an `Allow` rule matches.
fn is_host(text: &str) -> bool {
    text.starts_with("host-") && text.chars().all(|char| char != '/' && !char.is_control())
}

/// The value of the Secret of an Attempt.
pub fn secret(attempt: &str) -> String {
    format!("secret-of-{attempt}")
}

/// A statement about a request, signed by a key.
///
/// # Errors
/// When it cannot be signed.
pub fn sign(statement: &Value, signer: &str, seed: u8) -> Result<Value> {
    let statement = statement.to_string();
    let signature =
        key(signer, seed).sign(SIGNED_FOR, HashAlg::Sha512, statement.as_bytes())?.to_pem(LineEnding::LF)?;
    Ok(serde_json::json!({"statement": statement, "signature": signature}))
}

fn key(name: &str, seed: u8) -> PrivateKey {
    PrivateKey::new(KeypairData::Ed25519(Ed25519Keypair::from_seed(&[seed; 32])), name)
        .expect("a key of a seed")
}

fn sha256(text: &str) -> String {
    format!("{:x}", Sha256::digest(text))
}

/// How often each is in the list.
pub fn counts<T: Ord>(list: impl IntoIterator<Item = T>) -> BTreeMap<T, usize> {
    let mut counts = BTreeMap::new();
    for one in list {
        *counts.entry(one).or_default() += 1;
    }
    counts
}
