//! The images as `scripts/images` makes them: what is in them, and their programs in containers.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use crate::cluster::repository;

/// How the images are built: for release, or for tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// As they are released.
    Release,
    /// Built in a third of the time; larger and slower.
    Dev,
}

/// Images in the form of docker-archives.
#[derive(Debug)]
pub struct Images {
    /// How they are built: `SENTINEL_IMAGES_PROFILE`, dev unless set.
    pub profile: Profile,
    /// For which processors: `SENTINEL_IMAGES_ARCH`, those of this machine unless set.
    pub arch: String,
    directory: PathBuf,
    /// What the script printed: a line for each image.
    printed: String,
}

/// An entry of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Type and permissions as `ls` writes them.
    pub mode: String,
    /// Numbers of its user and group.
    pub owner: String,
    /// Its time of change, in UTC.
    pub time: String,
    /// Its path, without a slash at the ends.
    pub path: String,
    /// Where a link points to.
    pub target: Option<String>,
}

/// One image, unpacked.
#[derive(Debug)]
pub struct Image {
    /// The name and tag that it is loaded by.
    pub name: String,
    /// Its configuration: user, entry point, labels.
    pub config: Value,
    /// What its layers hold, from the lowest.
    pub layers: Vec<Vec<Entry>>,
    /// Its root folder.
    pub root: PathBuf,
    arch: String,
}

impl Images {
    /// Makes them, unless the cache has them.
    ///
    /// # Panics
    /// When that fails.
    pub fn make(directory: &Path) -> Self {
        Self::make_with(directory, &[])
    }

    /// Assembles them again from the programs, whatever the cache has.
    pub fn make_again(directory: &Path) -> Self {
        Self::make_with(directory, &["--again"])
    }

    fn make_with(directory: &Path, options: &[&str]) -> Self {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let profile = variable("SENTINEL_IMAGES_PROFILE").unwrap_or_else(|| "dev".to_owned());
        let arch = variable("SENTINEL_IMAGES_ARCH").filter(|arch| arch != "native");
        let arch = arch.unwrap_or_else(|| native_arch().to_owned());
        let mut script = Command::new(repository().join("scripts/images"));
        let printed =
            output(script.arg(directory).args(["--profile", &profile, "--arch", &arch]).args(options));
        let profile = if profile == "release" { Profile::Release } else { Profile::Dev };
        Self { profile, arch, directory: directory.to_owned(), printed }
    }

    /// The folder with the programs of an image (`agent` or `operator`), from another cache than the usual one if it is given.
    ///
    /// # Panics
    /// When they do not build.
    pub fn programs(&self, image: &str, cache: Option<&Path>) -> PathBuf {
        let mut script = Command::new(repository().join("images/programs"));
        let profile = if self.profile == Profile::Release { "release" } else { "dev" };
        script.args(["--profile", profile, "--arch", &self.arch, image]);
        if let Some(cache) = cache {
            script.env("SENTINEL_CACHE", cache);
        }
        output(&mut script).trim().into()
    }

    /// Whether they are for this machine's processor.
    pub fn is_native(&self) -> bool {
        self.arch == native_arch()
    }

    /// The archive of an image.
    pub fn archive(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.tar"))
    }

    /// Bytes of an image, unpacked, and compressed as the script prints it.
    pub fn sizes(&self, name: &str) -> (u64, u64) {
        let archive = self.archive(name);
        let line = self.printed.lines().find(|line| line.starts_with(&format!("{}\t", archive.display())));
        let line = line.unwrap_or_else(|| panic!("no {name} in:\n{}", self.printed));
        let compressed = line.strip_suffix(" compressed").and_then(|line| line.rsplit(' ').next());
        let compressed = compressed.and_then(|number| number.parse().ok());
        (
            fs::metadata(&archive).expect("an archive").len(),
            compressed.unwrap_or_else(|| panic!("no compressed size in {line}")),
        )
    }

    /// Unpacks an image into a folder, which is emptied before.
    pub fn unpack(&self, name: &str, folder: &Path) -> Image {
        if folder.exists() {
            fs::remove_dir_all(folder).expect("removed");
        }
        let archive = folder.join("archive");
        let root = folder.join("rootfs");
        fs::create_dir_all(&archive).expect("a folder");
        fs::create_dir_all(&root).expect("a folder");
        output(tar().args(["--extract", "--file"]).arg(self.archive(name)).arg("--directory").arg(&archive));
        let manifest = read_json(&archive.join("manifest.json"));
        let manifest = &manifest[0];
        let text = |value: &Value| value.as_str().expect("a string").to_owned();
        let layers = manifest["Layers"].as_array().expect("layers").iter().map(|layer| {
            let layer = archive.join(text(layer));
            let mut unpack = tar();
            output(
                unpack
                    .args(["--extract", "--preserve-permissions", "--file"])
                    .arg(&layer)
                    .arg("--directory")
                    .arg(&root),
            );
            entries(&layer)
        });
        Image {
            layers: layers.collect(),
            name: text(&manifest["RepoTags"][0]),
            config: read_json(&archive.join(text(&manifest["Config"]))),
            root,
            arch: self.arch.clone(),
        }
    }
}

impl Image {
    /// Its user and group.
    pub fn user(&self) -> (u32, u32) {
        let user = self.config["config"]["User"].as_str().expect("a user");
        let (user, group) = user.split_once(':').expect("a user and a group");
        (user.parse().expect("a number"), group.parse().expect("a number"))
    }

    /// Runs a program of it as the image's user, with a read-only root, no capabilities and the machine's network. Files
    /// of this machine are mounted as a kubelet does: `(file, path in the container)`.
    ///
    /// That of another processor runs in emulation, and then not in a container.
    pub fn run(&self, arguments: &[&str], mounts: &[(&Path, &str)]) -> Output {
        if self.arch != native_arch() {
            return self.emulate(arguments);
        }
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let id = format!("sentinel-images-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let bundle = self.root.parent().expect("a parent").join(&id);
        fs::create_dir(&bundle).expect("a folder");
        output(Command::new("runc").args(["spec", "--bundle"]).arg(&bundle));
        let mut spec = read_json(&bundle.join("config.json"));
        let (uid, gid) = self.user();
        spec["root"] = json!({"path": self.root, "readonly": true});
        spec["process"]["terminal"] = json!(false);
        spec["process"]["args"] = json!(arguments);
        spec["process"]["env"] = self.config["config"]["Env"].clone();
        spec["process"]["user"] = json!({"uid": uid, "gid": gid});
        spec["process"]["capabilities"] = json!({});
        let namespaces = spec["linux"]["namespaces"].as_array_mut().expect("namespaces");
        namespaces.retain(|namespace| namespace["type"] != "network");
        let all = spec["mounts"].as_array_mut().expect("mounts");
        for (source, destination) in mounts {
            all.push(json!({"source": source, "destination": destination, "type": "bind", "options": ["bind", "ro"]}));
        }
        fs::write(bundle.join("config.json"), spec.to_string()).expect("written");
        Command::new("runc").args(["run", "--bundle"]).arg(&bundle).arg(&id).output().expect("runc starts")
    }

    fn emulate(&self, arguments: &[&str]) -> Output {
        let (uid, gid) = self.user();
        let processor = if self.arch == "arm64" { "aarch64" } else { "x86_64" };
        Command::new("setpriv")
            .args([format!("--reuid={uid}"), format!("--regid={gid}"), "--clear-groups".to_owned()])
            .arg(format!("qemu-{processor}-static"))
            .arg(self.root.join(arguments[0].trim_start_matches('/')))
            .args(&arguments[1..])
            .output()
            .expect("setpriv starts")
    }
}

fn native_arch() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

fn tar() -> Command {
    let mut tar = Command::new("tar");
    tar.arg("--numeric-owner");
    tar
}

fn entries(layer: &Path) -> Vec<Entry> {
    let list = output(tar().args(["--list", "--verbose", "--utc", "--full-time", "--file"]).arg(layer));
    list.lines().map(entry).collect()
}

/// A line of tar: mode, owner, size, date, time, path and perhaps a target.
fn entry(line: &str) -> Entry {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [mode, owner, _, date, time, path, link @ ..] = &fields[..] else { panic!("a line of tar: {line}") };
    Entry {
        mode: (*mode).to_owned(),
        owner: (*owner).to_owned(),
        time: format!("{date}T{time}Z"),
        path: path.trim_end_matches('/').to_owned(),
        target: link.get(1).map(|target| (*target).to_owned()),
    }
}

/// Reads a file that holds JSON.
pub fn read_json(path: &Path) -> Value {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What a command prints on standard output.
pub fn output(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{errors}", output.status);
    String::from_utf8(output.stdout).expect("text")
}
