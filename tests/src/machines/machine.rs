//! A virtual machine that a test owns.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::{Child, Command};

use crate::cluster::repository;

/// A virtual machine on a disk that outlives its power.
pub struct Machine {
    directory: PathBuf,
    programs: Vec<PathBuf>,
    qemu: Option<Child>,
}

impl Machine {
    /// The machine of this directory, off. Its `/bin` will have these static programs.
    ///
    /// # Panics
    /// When what machines need cannot be installed.
    pub fn new(directory: impl Into<PathBuf>, programs: &[PathBuf]) -> Self {
        let install = std::process::Command::new(repository().join("tests/vm/install")).output();
        let install = install.expect("bash starts");
        assert!(install.status.success(), "{}", String::from_utf8_lossy(&install.stderr));
        let directory = directory.into();
        std::fs::create_dir_all(&directory).expect("a directory");
        // Copies, so that no build meanwhile gives a later boot another version.
        let copy = |program: &PathBuf| {
            let copy = directory.join(program.file_name().expect("a file"));
            std::fs::copy(program, &copy).expect("a copy");
            copy
        };
        let programs = programs.iter().map(copy).collect();
        Self { directory, programs, qemu: None }
    }

    /// Switches it on; its shell runs the script once it is up.
    pub fn boot(&mut self, script: &str) {
        assert!(self.qemu.is_none(), "the machine is on already");
        let file = self.directory.join("script");
        std::fs::write(&file, script).expect("a written script");
        let qemu = Command::new(vm("boot"))
            .arg("--script")
            .arg(file)
            .arg(&self.directory)
            .args(&self.programs)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn();
        self.qemu = Some(qemu.expect("bash starts"));
    }

    /// Cuts its power: what is not on its disk by now is lost.
    pub async fn cut(&mut self) {
        if let Some(mut qemu) = self.qemu.take() {
            qemu.kill().await.expect("qemu was killed");
        }
    }

    /// Runs a command by its shell, once it is up.
    ///
    /// # Errors
    /// What it printed, and its exit code, when that is not 0.
    pub async fn run(&self, command: &str) -> Result<String, String> {
        let output = Command::new(vm("run")).arg(&self.directory).arg(command).output().await;
        let output = output.expect("bash starts");
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(printed);
        }
        Err(format!("{}: {printed}{}", output.status, String::from_utf8_lossy(&output.stderr)))
    }

    /// The end of what it wrote to its console, over all boots.
    pub fn console(&self) -> String {
        let text = std::fs::read(self.directory.join("console.log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("--- console of {}\n{}", self.directory.display(), self.console());
        }
    }
}

fn vm(command: &str) -> PathBuf {
    repository().join(Path::new("tests/vm")).join(command)
}
