//! The images, as a node gets them. Run by `just images-check`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "a test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::time::Duration;

use sentinel_tests::cluster::repository;
use sentinel_tests::images::{Image, Images, Profile, output, read_json};
use serde_json::Value;

const NAMES: [&str; 3] = ["sentinel-operator", "sentinel-node-agent", "sentinel-node-agent-tools"];

/// Bytes of an image, unpacked and as a registry has it, that docs/images.md promises of a release.
const LIMITS: [(&str, u64, u64); 3] = [
    ("sentinel-operator", 92_000_000, 36_500_000),
    ("sentinel-node-agent", 9_200_000, 4_200_000),
    ("sentinel-node-agent-tools", 11_500_000, 5_300_000),
];
/// How much larger an image for tests is at most: what is added to a program shows in both.
const DEV_FACTOR: u64 = 2;

fn images() -> &'static Images {
    static IMAGES: OnceLock<Images> = OnceLock::new();
    IMAGES.get_or_init(|| Images::make(&target().join("images")))
}

/// An image, unpacked once for all tests.
fn image(name: &str) -> &'static Image {
    static UNPACKED: [OnceLock<Image>; 3] = [const { OnceLock::new() }; 3];
    let at = NAMES.iter().position(|known| *known == name).unwrap();
    UNPACKED[at].get_or_init(|| images().unpack(name, &target().join("unpacked").join(name)))
}

fn target() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
}

fn workspace_version() -> String {
    output(
        Command::new("cargo")
            .args(["pkgid", "--locked", "--offline", "--package", "sentinel-operator"])
            .current_dir(repository()),
    )
    .trim()
    .rsplit_once(['@', '#'])
    .unwrap()
    .1
    .to_owned()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn succeeded(output: &Output) -> String {
    assert!(output.status.success(), "{}: {}", output.status, text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn the_dockerfile_states_the_versions_of_workspace_and_toolchain() {
    let dockerfile = fs::read_to_string(repository().join("Dockerfile")).unwrap();
    let toolchain = fs::read_to_string(repository().join("rust-toolchain.toml")).unwrap();
    let channel = toolchain.split('"').nth(1).unwrap();
    for line in [
        format!("ARG VERSION={}\n", workspace_version()),
        format!("ARG RUST_IMAGE=docker.io/library/rust:{channel}-slim-bookworm\n"),
        format!("ENV RUSTUP_TOOLCHAIN={channel}\n"),
    ] {
        assert!(dockerfile.contains(&line), "the Dockerfile has no line {line:?}");
    }
}

/// Copies the scripts that keep sources in the cache, and gives back the command that makes the copy of a tree in FOLDER.
fn snapshot(tree: &Path, copy: &Path) -> Command {
    for script in ["images/lib.sh", "tests/parts/lib.sh", "tests/parts/installing.sh"] {
        fs::create_dir_all(tree.join(script).parent().unwrap()).unwrap();
        fs::copy(repository().join(script), tree.join(script)).unwrap();
    }
    let mut command = Command::new("bash");
    command.args(["-euo", "pipefail", "-c", ". images/lib.sh && snapshot \"$1\"", "snapshot"]);
    command.arg(copy).current_dir(tree);
    command
}

fn names_in(folder: &Path) -> BTreeSet<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.collect()
}

fn files_of(folder: &Path) -> BTreeMap<String, String> {
    let found = output(Command::new("find").args([".", "-type", "f", "-printf", "%P\n"]).current_dir(folder));
    found.lines().map(|path| (path.to_owned(), text(&fs::read(folder.join(path)).unwrap()))).collect()
}

/// `cp --parents` failed on files outside folders after it had made a folder, so the images of a commit that brought a new one.
#[test]
fn a_copy_of_the_sources_takes_new_folders_beside_changed_files() {
    let folder = tempfile::tempdir().unwrap();
    let (tree, copy) = (folder.path().join("tree"), folder.path().join("copy"));
    for round in 0..2 {
        fs::remove_dir_all(tree.join("new-0/7")).ok();
        // The order is that of their digests, so there are enough of each.
        for number in 0..16 {
            let new_folder = tree.join(format!("new-{round}/{number}"));
            fs::create_dir_all(&new_folder).unwrap();
            fs::write(new_folder.join("file"), format!("{number}")).unwrap();
            fs::write(tree.join(format!("top {number}")), format!("{round} {number}")).unwrap();
        }
        fs::write(tree.join("the same"), "the same").unwrap();
        output(&mut snapshot(&tree, &copy));
        assert_eq!(files_of(&copy), files_of(&tree), "in round {round}");
    }
    let changed = |name: &str| fs::metadata(copy.join(name)).unwrap().modified().unwrap();
    assert!(changed("the same") < changed("top 0"), "what is equal keeps its time");
}

#[test]
#[ignore = "needs root, buildah and runc: just images-check"]
fn operator_and_agent_hold_their_programs_and_nothing_else() {
    let files = |programs: &[&str], name: &str| {
        let folder = |path: &str| ("drwxr-xr-x", path.to_owned());
        let mut expected: Vec<_> = [
            "bin",
            "usr",
            "usr/share",
            "usr/share/licenses",
            "usr/share/licenses/sentinel-node",
            "usr/share/sbom",
        ]
        .map(folder)
        .into();
        expected.extend(programs.iter().map(|program| ("-rwxr-xr-x", format!("bin/{program}"))));
        expected.push(("-rw-r--r--", "usr/share/licenses/sentinel-node/LICENSE".to_owned()));
        expected.push(("-rw-r--r--", format!("usr/share/sbom/{name}.cdx.json")));
        expected.into_iter().map(|(mode, path)| (path, mode.to_owned())).collect::<BTreeMap<_, _>>()
    };
    for (name, programs) in [(NAMES[0], &["operator", "sentinel"][..]), (NAMES[1], &["node-agent"])] {
        let image = image(name);
        let [layer] = &image.layers[..] else { panic!("{name} has {} layers", image.layers.len()) };
        let found: BTreeMap<_, _> =
            layer.iter().map(|entry| (entry.path.clone(), entry.mode.clone())).collect();
        assert_eq!(found, files(programs, name), "{name}");
        assert_eq!(layer.len(), found.len(), "{name} holds a path twice");
    }
}

#[test]
#[ignore = "needs root, buildah and runc: just images-check"]
fn the_image_with_tools_is_the_agents_with_busybox_and_two_users() {
    let agent = image("sentinel-node-agent");
    let tools = image("sentinel-node-agent-tools");
    assert_eq!(tools.layers[0], agent.layers[0], "a node has the agent's layer once");
    let added = &tools.layers[1];
    let links = added.iter().filter(|entry| entry.target.is_some());
    assert!(links.clone().all(|entry| entry.target.as_deref() == Some("/bin/busybox")));
    let commands: BTreeSet<_> = links.map(|entry| entry.path.as_str()).collect();
    for command in ["bin/sh", "bin/ls", "bin/ps", "usr/bin/awk", "usr/bin/env"] {
        assert!(commands.contains(command), "there is no {command} in {commands:?}");
    }
    let rest: BTreeMap<_, _> = added
        .iter()
        .filter(|entry| entry.target.is_none() && !entry.mode.starts_with("drwxr-xr-x"))
        .map(|entry| (entry.path.as_str(), entry.mode.as_str()))
        .collect();
    let expected = BTreeMap::from([
        ("bin/busybox", "-rwxr-xr-x"),
        ("etc/group", "-rw-r--r--"),
        ("etc/passwd", "-rw-r--r--"),
        ("root", "drwx------"),
        ("tmp", "drwxrwxrwt"),
        ("usr/share/sbom/sentinel-node-agent-tools.cdx.json", "-rw-r--r--"),
    ]);
    assert_eq!(rest, expected);
}

#[test]
#[ignore = "needs root, buildah and runc: just images-check"]
fn everything_in_an_image_is_roots_and_has_the_time_of_the_commit() {
    let commit = output(
        Command::new("git")
            .args(["log", "-1", "--format=%cd", "--date=format-local:%FT%TZ"])
            .env("TZ", "UTC")
            .current_dir(repository()),
    );
    for name in NAMES {
        let image = image(name);
        for entry in image.layers.iter().flatten() {
            assert_eq!(entry.owner, "0/0", "{name}: {entry:?}");
            assert_eq!(entry.time, commit.trim(), "{name}: {entry:?}");
        }
        assert_eq!(image.config["created"], commit.trim(), "{name}");
    }
}

#[test]
#[ignore = "needs root, buildah and runc: just images-check"]
fn the_configuration_names_user_program_and_origin() {
    let version = workspace_version();
    let commit = output(Command::new("git").args(["rev-parse", "HEAD"]).current_dir(repository()));
    for (name, tag, user, program) in [
        (NAMES[0], "sentinel-operator:V", "65532:65532", "/bin/operator"),
        (NAMES[1], "sentinel-node-agent:V", "0:0", "/bin/node-agent"),
        (NAMES[2], "sentinel-node-agent:V-tools", "0:0", "/bin/node-agent"),
    ] {
        let image = image(name);
        assert_eq!(image.name, format!("localhost/{}", tag.replace('V', &version)));
        let config = &image.config["config"];
        assert_eq!(config["User"], user, "{name}");
        // As a list: a string would want a shell.
        assert_eq!(config["Entrypoint"], serde_json::json!([program]), "{name}");
        assert_eq!(config["Cmd"], Value::Null, "{name}");
        assert_eq!(image.config["os"], "linux");
        assert_eq!(image.config["architecture"], images().arch);
        let labels = &config["Labels"];
        let label =
            |key: &str| labels[format!("org.opencontainers.image.{key}")].as_str().unwrap_or_default();
        assert_eq!(label("version"), version, "{name}");
        assert!(label("revision").starts_with(commit.trim()), "{name}: {labels}");
        for key in ["title", "description", "created", "source", "documentation", "licenses"] {
            assert!(!label(key).is_empty(), "{name} has no label {key}: {labels}");
        }
    }
}

#[test]
#[ignore = "needs root, buildah and runc: just images-check"]
fn images_assembled_twice_are_byte_for_byte_equal() {
    let folder = tempfile::tempdir().unwrap();
    let again = Images::make_again(folder.path());
    for name in NAMES {
        let (first, second) =
            (fs::read(images().archive(name)).unwrap(), fs::read(again.archive(name)).unwrap());
        assert!(first == second, "{name} differs");
    }
}

/// Built in another folder, by another cache; the operator of a release only, which takes as long as the first time.
#[test]
#[ignore = "needs root, buildah and runc: just images-check"]
fn programs_built_twice_are_byte_for_byte_equal() {
    let of_release: &[_] = if images().profile == Profile::Release { &["operator"] } else { &[] };
    let folder = tempfile::tempdir().unwrap();
    for image in [&["agent"], of_release].concat() {
        let (first, second) = (images().programs(image, None), images().programs(image, Some(folder.path())));
        assert_ne!(first, second);
        let names = names_in(&first);
        assert!(!names.is_empty() && names == names_in(&second), "{names:?}");
        for name in names {
            let (first, second) =
                (fs::read(first.join(&name)).unwrap(), fs::read(second.join(&name)).unwrap());
            assert!(first == second, "{name} differs");
        }
    }
}

#[test]
#[ignore = "needs root, buildah and runc: just images-check"]
fn no_program_holds_a_path_of_the_machine_that_built_it() {
    let home = std::env::var("HOME").unwrap();
    let cache = std::env::var("SENTINEL_CACHE").unwrap_or_else(|_| format!("{home}/.cache/sentinel-node"));
    let own = repository().display().to_string();
    let paths = [format!("{home}/.cargo"), format!("{home}/.rustup"), cache, own];
    for name in NAMES {
        let image = image(name);
        let mut grep = Command::new("grep");
        grep.args(["--recursive", "--text", "--only-matching", "--fixed-strings"])
            .arg(paths.join("\n"))
            .arg(&image.root);
        let found = grep.output().unwrap();
        assert_eq!(found.status.code(), Some(1), "{name}: {}{}", text(&found.stdout), text(&found.stderr));
    }
}

#[test]
#[ignore = "needs root, buildah and runc: just images-check"]
fn programs_start_as_the_images_user_in_a_read_only_root() {
    let version = workspace_version();
    let operator = image("sentinel-operator");
    assert!(succeeded(&operator.run(&["/bin/operator", "--help"], &[])).contains("--gateway-listen"));
    assert_eq!(
        succeeded(&operator.run(&["/bin/operator", "--version"], &[])).trim(),
        format!("operator {version}")
    );
    assert!(succeeded(&operator.run(&["/bin/sentinel", "version"], &[])).contains(&version));
    for name in ["sentinel-node-agent", "sentinel-node-agent-tools"] {
        let agent = image(name);
        assert_eq!(
            succeeded(&agent.run(&["/bin/node-agent", "--version"], &[])).trim(),
            format!("node-agent {version}")
        );
        // No agent has run here: its own answer, and not that of a program that cannot start.
        let health = agent.run(&["/bin/node-agent", "health"], &[]);
        let errors = text(&health.stderr);
        assert_eq!(health.status.code(), Some(1), "{errors}");
        assert!(errors.contains("has an agent run with this state directory?"), "{errors}");
    }
}

#[test]
#[ignore = "needs root, buildah and runc: just images-check"]
fn scripts_run_in_the_image_with_tools_only() {
    let tools = image("sentinel-node-agent-tools");
    let run = |arguments: &[&str]| tools.run(arguments, &[]);
    if images().is_native() {
        let script = "user=nobody; id -u $user; echo a b | awk '{ print $2 }'; touch /tmp/x 2>&1";
        let printed = text(&run(&["/bin/sh", "-c", script]).stdout);
        assert_eq!(printed, "65534\nb\ntouch: /tmp/x: Read-only file system\n");
    } else {
        assert_eq!(succeeded(&run(&["/bin/busybox", "sh", "-c", "echo $((6 * 7))"])), "42\n");
    }
}

/// Answers the two questions for the addresses of a name: its IPv4 address is 127.0.0.1, and it has no other. Returns the name.
fn answer_for_one_name(socket: &UdpSocket) -> String {
    let (mut packet, mut asked) = ([0; 512], BTreeSet::new());
    loop {
        let (length, peer) = socket.recv_from(&mut packet).expect("a question within 10 s");
        let end_of_name = 12 + packet[12..length].iter().position(|&byte| byte == 0).unwrap() + 1;
        let kind = [packet[end_of_name], packet[end_of_name + 1]];
        let is_ipv4 = kind == [0, 1];
        let mut answer = packet[..end_of_name + 4].to_vec();
        answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, u8::from(is_ipv4), 0, 0, 0, 0]);
        if is_ipv4 {
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 127, 0, 0, 1]);
        }
        socket.send_to(&answer, peer).unwrap();
        asked.insert(kind);
        if asked.len() == 2 {
            // The lengths of its labels stand where people write dots.
            return packet[13..end_of_name - 1]
                .iter()
                .map(|&byte| if byte < 32 { '.' } else { char::from(byte) })
                .collect();
        }
    }
}

/// Accepts one connection, and returns the beginning of what its client sends.
fn accept_one(listener: &TcpListener) -> String {
    let mut bytes = [0; 4096];
    let length = listener.accept().unwrap().0.read(&mut bytes).unwrap();
    text(&bytes[..length])
}

/// A static glibc reads the files that a kubelet writes, and needs no library of the system for names.
#[test]
#[ignore = "needs root, buildah and runc: just images-check"]
fn names_resolve_by_hosts_and_by_dns_with_nothing_else_in_the_image() {
    if !images().is_native() {
        println!("NOT RUN: an emulated program has the machine's own files");
        return;
    }
    let operator = image("sentinel-operator");
    let folder = tempfile::tempdir().unwrap();
    let (hosts, resolv) = (folder.path().join("hosts"), folder.path().join("resolv.conf"));
    let mounts: [(&Path, &str); 2] = [(&hosts, "/etc/hosts"), (&resolv, "/etc/resolv.conf")];
    let names = UdpSocket::bind("127.53.79.80:53").unwrap();
    names.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    fs::write(&hosts, "127.0.0.1 in-hosts.test\n").unwrap();
    fs::write(&resolv, "search ops.svc.cluster.test\nnameserver 127.53.79.80\noptions ndots:5\n").unwrap();
    for (name, asked) in [("in-hosts.test", None), ("redis", Some("redis.ops.svc.cluster.test"))] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = format!("http://{name}:{}", address.port());
        std::thread::scope(|scope| {
            let question = asked.map(|_| scope.spawn(|| answer_for_one_name(&names)));
            let request = scope.spawn(|| accept_one(&listener));
            let run = operator.run(&["/bin/sentinel", "--server", &server, "get", "tasks"], &mounts);
            // Ends the waiting for a program that has not come.
            TcpStream::connect(address).and_then(|mut stream| stream.write_all(b"end")).ok();
            let request = request.join().unwrap();
            assert!(request.contains(&format!("host: {name}:")), "{request}\n{}", text(&run.stderr));
            assert_eq!(question.map(|question| question.join().unwrap()).as_deref(), asked);
        });
    }
}

#[test]
#[ignore = "needs root, buildah and runc: just images-check"]
fn bills_of_materials_name_every_crate_of_the_programs() {
    let triple =
        if images().arch == "arm64" { "aarch64-unknown-linux-gnu" } else { "x86_64-unknown-linux-gnu" };
    for (name, packages) in
        [(NAMES[0], &["sentinel-operator", "sentinel"][..]), (NAMES[1], &["sentinel-node-agent"])]
    {
        let image = image(name);
        let bill = read_json(&image.root.join(format!("usr/share/sbom/{name}.cdx.json")));
        assert_eq!(bill["bomFormat"], "CycloneDX");
        let components = bill["components"].as_array().unwrap();
        let named: BTreeSet<String> = components
            .iter()
            .map(|part| format!("{} v{}", part["name"].as_str().unwrap(), part["version"].as_str().unwrap()))
            .collect();
        let mut tree = Command::new("cargo");
        tree.args([
            "tree",
            "--locked",
            "--offline",
            "--edges",
            "normal",
            "--prefix",
            "none",
            "--format",
            "{p}",
            "--target",
            triple,
        ]);
        for package in packages {
            tree.args(["--package", package]);
        }
        let linked: BTreeSet<String> = output(tree.current_dir(repository()))
            .lines()
            .filter(|line| !line.is_empty())
            .map(|line| line.split(" (").next().unwrap().to_owned())
            .collect();
        assert!(linked.len() > 50, "{linked:?}");
        let missing: Vec<_> = linked.difference(&named).collect();
        assert!(missing.is_empty(), "{name} does not name {missing:?}");
        for part in ["glibc", "libgcc", "Rust standard library"] {
            assert!(
                components.iter().any(|component| component["name"] == part),
                "{name} does not name {part}"
            );
        }
        for component in components {
            assert!(component["purl"].is_string() && component["licenses"].is_array(), "{component}");
        }
        assert!(!bill.to_string().contains(&repository().display().to_string()), "{name}");
    }
    let agent = image("sentinel-node-agent");
    let bill = fs::read_to_string(agent.root.join("usr/share/sbom/sentinel-node-agent.cdx.json")).unwrap();
    for absent in ["pkg:cargo/kube@", "pkg:cargo/mongodb@", "pkg:cargo/rusqlite@"] {
        assert!(!bill.contains(absent), "the agent's bill names {absent}");
    }
}

#[test]
#[ignore = "needs root, buildah and runc: just images-check"]
fn images_are_as_small_as_documented() {
    let factor = if images().profile == Profile::Release { 1 } else { DEV_FACTOR };
    for (name, unpacked_limit, compressed_limit) in LIMITS {
        let (unpacked, compressed) = images().sizes(name);
        println!("{name}: {unpacked} bytes, {compressed} compressed");
        assert!(
            unpacked <= unpacked_limit * factor,
            "{name} has {unpacked} bytes, more than {unpacked_limit} × {factor}"
        );
        let limit = compressed_limit * factor;
        assert!(compressed <= limit, "{name} has {compressed} bytes compressed, more than {limit}");
    }
}
