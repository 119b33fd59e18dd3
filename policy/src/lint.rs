//! What a policy allows implicitly.

use std::fmt;

use sentinel_protocol::request::Sandbox;

use crate::document::Policy;
use crate::effect::Effect;
use crate::identity::Users;
use crate::pattern::{Arguments, Glob, Pattern};
use crate::rule::{Rule, RuleId};
use crate::shadow::covers;
use crate::surroundings::{Stdin, Variable};
use crate::what::{AbsolutePath, Runnable, ScriptText, What};
use crate::who::Who;

/// Something that a policy allows implicitly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The rule.
    pub rule: RuleId,
    /// What it allows, or what about it has no effect.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.message)
    }
}

/// Programs that run what their arguments, their standard input or their files name. Versions at the end of a name, as in
/// `python3.12`, are left out. A list like this is never complete: programs that open an editor or a pager are missing, for example.
const RUN_OTHERS: &[&str] = &[
    "Rscript",
    "ansible",
    "ansible-playbook",
    "apk",
    "apt",
    "apt-get",
    "aptitude",
    "ash",
    "at",
    "awk",
    "bash",
    "batch",
    "bpftrace",
    "bun",
    "bunx",
    "busybox",
    "bwrap",
    "capsh",
    "cargo",
    "catchsegv",
    "cgexec",
    "chef-client",
    "choom",
    "chpst",
    "chroot",
    "chrt",
    "cmake",
    "cpan",
    "cpio",
    "crictl",
    "cron",
    "crontab",
    "csh",
    "ctr",
    "dash",
    "dbus-run-session",
    "dc",
    "deno",
    "dnf",
    "doas",
    "docker",
    "dpkg",
    "dumb-init",
    "eatmydata",
    "ed",
    "emacs",
    "entr",
    "env",
    "envdir",
    "ex",
    "expect",
    "fakeroot",
    "faketime",
    "find",
    "firejail",
    "fish",
    "flatpak",
    "flock",
    "ftp",
    "gawk",
    "gdb",
    "gem",
    "git",
    "go",
    "gosu",
    "gradle",
    "guile",
    "helm",
    "i386",
    "incus",
    "ionice",
    "ip",
    "java",
    "jshell",
    "julia",
    "kexec",
    "ksh",
    "kubectl",
    "ld.so",
    "less",
    "lftp",
    "linux32",
    "linux64",
    "logrotate",
    "ltrace",
    "lua",
    "luajit",
    "lxc",
    "lxc-attach",
    "lxc-execute",
    "m4",
    "machinectl",
    "make",
    "man",
    "mawk",
    "mksh",
    "more",
    "mysql",
    "nano",
    "nawk",
    "nerdctl",
    "newgrp",
    "nice",
    "ninja",
    "nmap",
    "node",
    "nodejs",
    "nohup",
    "npm",
    "npx",
    "nsenter",
    "numactl",
    "nvim",
    "openssl",
    "osqueryi",
    "pacman",
    "parallel",
    "pax",
    "perf",
    "perl",
    "php",
    "pip",
    "pipx",
    "pkexec",
    "pnpm",
    "podman",
    "prlimit",
    "proot",
    "proxychains",
    "psql",
    "puppet",
    "pwsh",
    "python",
    "rake",
    "rbash",
    "rlwrap",
    "rpm",
    "rscript",
    "rsh",
    "rsync",
    "ruby",
    "run-parts",
    "runc",
    "runuser",
    "rvim",
    "s6-setuidgid",
    "salt-call",
    "scp",
    "screen",
    "script",
    "sed",
    "setarch",
    "setpriv",
    "setsid",
    "setuidgid",
    "sftp",
    "sg",
    "sh",
    "snap",
    "socat",
    "softlimit",
    "sort",
    "split",
    "sqlite",
    "ssh",
    "ssh-agent",
    "ssh-keygen",
    "sshpass",
    "start-stop-daemon",
    "stdbuf",
    "strace",
    "su",
    "su-exec",
    "sudo",
    "systemctl",
    "systemd-inhibit",
    "systemd-nspawn",
    "systemd-run",
    "tar",
    "taskset",
    "tclsh",
    "tcpdump",
    "tcsh",
    "time",
    "timeout",
    "tini",
    "tmux",
    "torsocks",
    "toybox",
    "tsx",
    "unbuffer",
    "unshare",
    "uv",
    "uvx",
    "vi",
    "view",
    "vim",
    "virsh",
    "watch",
    "x86_64",
    "xargs",
    "xvfb-run",
    "yarn",
    "yum",
    "zip",
    "zsh",
    "zypper",
];

/// Programs that write files, or change whose they are: as root, any command, a moment later.
const WRITE_FILES: &[&str] = &[
    "chattr", "chmod", "chown", "chpasswd", "cp", "curl", "dd", "debugfs", "fdisk", "gpasswd", "groupadd",
    "groupmod", "install", "ln", "losetup", "mkfs", "mknod", "mount", "mv", "nc", "ncat", "passwd", "patch",
    "rename", "rm", "setcap", "setfacl", "shred", "sysctl", "tee", "touch", "truncate", "umount", "uniq",
    "unlink", "unzip", "useradd", "usermod", "visudo", "wget", "xxd",
];

/// Variables by which a program or its dynamic loader is made to run something else, by how they begin.
const VARIABLES_THAT_RUN: &[&str] = &[
    "BASH_ENV",
    "BASH_FUNC_",
    "CLASSPATH",
    "EDITOR",
    "ENV",
    "GCONV_PATH",
    "GIT_",
    "IFS",
    "JAVA_TOOL_OPTIONS",
    "LD_",
    "LESSOPEN",
    "MANPAGER",
    "NODE_OPTIONS",
    "NODE_PATH",
    "PAGER",
    "PATH",
    "PERL5",
    "PERLLIB",
    "PHPRC",
    "PROMPT_COMMAND",
    "PS4",
    "PYTHON",
    "RUBY",
    "SHELL",
    "VISUAL",
    "ZDOTDIR",
];

/// Directories in which others than root can usually write.
const SHARED_DIRECTORIES: &[&str] = &["/tmp/", "/var/tmp/", "/dev/shm/", "/home/"];

impl Policy {
    /// What the policy allows implicitly, in the order of its rules.
    pub fn lint(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (index, rule) in self.rules().iter().enumerate() {
            let mut messages = of_rule(rule);
            if let Some(before) = self.rules()[..index].iter().find(|before| covers(before, rule)) {
                messages.push(format!(
                    "is never reached: rule {} matches every request that it matches",
                    before.id
                ));
            }
            findings.extend(messages.into_iter().map(|message| Finding { rule: rule.id.clone(), message }));
        }
        findings
    }
}

fn of_rule(rule: &Rule) -> Vec<String> {
    let mut messages = Vec::new();
    for (part, pattern) in rule.patterns() {
        match pattern {
            Pattern::Glob(glob) if glob.is_everything() || is_all_of(part, glob.as_str()) => {
                messages.push(format!("`{part}` has a glob that matches everything: {:?}", glob.as_str()));
            }
            Pattern::Exact(text) if text.contains('*') => {
                messages.push(format!("`{part}` has the text {text:?}, in which `*` is a star; for a wildcard write {{glob: {text:?}}}"));
            }
            _ => {}
        }
    }
    if rule.effect == Effect::Allow {
        what(rule, &mut messages);
        surroundings(rule, &mut messages);
    }
    who(rule, &mut messages);
    messages
}

/// Whether a glob matches all that there is for this part: a namespace or a name has no `/`, and a directory begins with one.
fn is_all_of(part: &str, glob: &str) -> bool {
    matches!((part, glob), ("who", "*") | ("workingDirs", "/**"))
}

fn what(rule: &Rule, messages: &mut Vec<String>) {
    match &rule.what {
        Some(What::AnyCommand) => messages.push("allows any command".to_owned()),
        Some(What::OneOf(runnables)) => {
            let takes_stdin = matches!(rule.stdin, Some(Stdin::Any));
            let is_root = !matches!(rule.users, Some(Users::AnyButRoot)) && may_be_root(rule);
            for runnable in runnables {
                messages.extend(runnable_findings(runnable, takes_stdin, is_root));
            }
        }
        None => {}
    }
}

fn runnable_findings(runnable: &Runnable, takes_stdin: bool, is_root: bool) -> Vec<String> {
    let mut messages = Vec::new();
    let programs = runnable.programs.iter().flatten();
    let interpreters = runnable.script.iter().flat_map(|script| &script.interpreters);
    for path in programs.clone().chain(interpreters) {
        if SHARED_DIRECTORIES.iter().any(|directory| path.as_str().starts_with(directory)) {
            messages.push(format!("{path} is where others than root usually can write; the agent refuses a program that they can replace"));
        }
    }
    if let Some(script) = &runnable.script
        && script.text == ScriptText::Any
    {
        messages.push("allows any script: that is any command".to_owned());
    }
    let is_open = arguments_are_open(runnable.args.as_ref());
    for path in programs {
        let names = names_of(path);
        let is_one_of = |programs: &[&str]| names.iter().any(|name| programs.contains(name));
        if is_one_of(RUN_OTHERS) || names.iter().any(|name| is_loader(name)) {
            if is_open {
                messages.push(format!(
                    "allows any command: {path} runs what its arguments name, and they are not written out"
                ));
            } else if takes_stdin {
                messages.push(format!(
                    "allows any command if {path} runs what it reads from standard input, which is `Any`"
                ));
            }
        }
        if is_one_of(WRITE_FILES) && is_open && is_root {
            messages.push(format!("allows any command: {path} can replace files of the node as root, and its arguments are not written out"));
        }
    }
    messages
}

/// The file's name, and the same without a version and what follows it, as in `perl5.36-x86_64-linux-gnu`.
fn names_of(path: &AbsolutePath) -> [&str; 2] {
    let name = path.as_str().rsplit('/').next().unwrap_or_default();
    let digits = name.find(|char: char| char.is_ascii_digit()).unwrap_or(name.len());
    [name, name[..digits].trim_end_matches(['.', '-'])]
}

/// Whether it is a dynamic loader by its name, such as `ld-linux-x86-64.so`, which runs what its first argument names.
///
/// Source: ld.so(8).
fn is_loader(name: &str) -> bool {
    name.starts_with("ld") && name.contains(".so")
}

fn arguments_are_open(args: Option<&Arguments>) -> bool {
    match args {
        None => false,
        Some(Arguments::Any) => true,
        Some(Arguments::List(list)) => list.rest.is_some() || list.each.iter().any(Pattern::is_open),
    }
}

fn may_be_root(rule: &Rule) -> bool {
    match &rule.users {
        Some(Users::Named(names)) => names.iter().any(|name| name == "root" || name == "0"),
        Some(Users::AnyButRoot) => false,
        Some(Users::Any) | None => true,
    }
}

fn surroundings(rule: &Rule, messages: &mut Vec<String>) {
    for variable in rule.env.iter().flatten() {
        if let Some(runs) = VARIABLES_THAT_RUN.iter().find(|runs| may_be_named(variable, runs)) {
            let more = if runs.ends_with('_') { "…" } else { "" };
            messages.push(format!(
                "`env` allows {runs}{more}, by which most programs can be made to run any command"
            ));
        }
    }
    if rule.sandboxes.as_ref().is_some_and(|sandboxes| sandboxes.contains(&Sandbox::Privileged)) {
        messages.push(
            "allows commands without a sandbox (Privileged): they may do all that the agent may".to_owned(),
        );
    }
}

/// Whether a variable's name may begin like this, and its value is not written out.
fn may_be_named(variable: &Variable, begins: &str) -> bool {
    if variable.value.as_ref().is_some_and(|value| !value.is_open()) {
        return false;
    }
    let begins_so = |name: &str| {
        if begins.ends_with('_') { name.starts_with(begins) } else { name == begins || longer(name, begins) }
    };
    match &variable.name {
        Pattern::Exact(name) => begins_so(name),
        Pattern::OneOf(names) => names.iter().any(|name| begins_so(name)),
        Pattern::Glob(glob) => glob_may_match(glob, begins),
    }
}

/// Families that share a beginning, such as `PYTHONPATH`.
fn longer(name: &str, begins: &str) -> bool {
    matches!(begins, "PERL5" | "PYTHON" | "RUBY") && name.starts_with(begins)
}

fn glob_may_match(glob: &Glob, begins: &str) -> bool {
    let fixed = glob.as_str().split(['*', '?']).next().unwrap_or_default();
    if fixed.len() <= begins.len() {
        begins.starts_with(fixed)
    } else {
        fixed.starts_with(begins) && (begins.ends_with('_') || longer(fixed, begins))
    }
}

/// People are known by the admission webhook and the operator.
fn who(rule: &Rule, messages: &mut Vec<String>) {
    let Some(Who::Named(named)) = &rule.who else { return };
    if named.users.is_none() && named.groups.is_none() {
        return;
    }
    if rule.effect == Effect::Deny {
        messages.push("`who` names people, and without the admission webhook it is not known who asked: then it refuses everyone".to_owned());
        return;
    }
    messages.push("`who` names people, and without the admission webhook it is not known who asked: then it allows nothing".to_owned());
    if rule.signature.is_none() {
        messages.push("`who` names people: a node knows them from the operator alone, so an operator in the wrong hands passes it".to_owned());
    }
}
