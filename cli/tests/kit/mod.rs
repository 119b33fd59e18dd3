//! A real `sentinel dev` for each test, on a port and in a directory of its own, and tools to drive it.

#![allow(dead_code, reason = "no test binary uses all of it")]
#![allow(missing_docs, unreachable_pub, reason = "for tests")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Deadline of every wait, long enough for a loaded machine. A test that passes never waits this long.
pub const TIMEOUT: Duration = Duration::from_mins(1);

/// A command that runs the real binary, without our environment variables.
pub fn sentinel() -> Command {
    without_settings(Command::new(env!("CARGO_BIN_EXE_sentinel")))
}

/// The same, which no signal is ignored for: under `nohup`, tests and what they start ignore SIGHUP.
pub fn sentinel_with_signals() -> Command {
    let mut command = Command::new("env");
    command.args(["--default-signal", env!("CARGO_BIN_EXE_sentinel")]);
    without_settings(command)
}

fn without_settings(mut command: Command) -> Command {
    for name in [
        "SENTINEL_SERVER",
        "SENTINEL_TOKEN_FILE",
        "SENTINEL_CERTIFICATE_AUTHORITY",
        "SENTINEL_NAMESPACE",
        "SENTINEL_LOG",
        "NO_COLOR",
        "KUBECONFIG",
        "KUBERNETES_SERVICE_HOST",
    ] {
        command.env_remove(name);
    }
    command
}

/// The output of a process so far.
#[derive(Debug, Clone, Default)]
pub struct ProcessOutput(Arc<(Mutex<String>, Condvar)>);

impl ProcessOutput {
    /// Reads a stream of a process in a thread.
    pub fn read(stream: impl Read + Send + 'static) -> Self {
        let output = Self::default();
        let writer = output.clone();
        std::thread::spawn(move || {
            let mut reader = BufReader::new(stream);
            let mut line = Vec::new();
            while reader.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                let (text, changed) = &*writer.0;
                text.lock().unwrap().push_str(&String::from_utf8_lossy(&line));
                changed.notify_all();
                line.clear();
            }
        });
        output
    }

    pub fn text(&self) -> String {
        self.0.0.lock().unwrap().clone()
    }

    /// Waits until the output contains this.
    pub fn wait_for(&self, expected: &str) -> String {
        let (text, changed) = &*self.0;
        let (text, timeout) = changed
            .wait_timeout_while(text.lock().unwrap(), TIMEOUT, |text| !text.contains(expected))
            .unwrap();
        assert!(!timeout.timed_out(), "{expected:?} is not in the output:\n{text}");
        text.clone()
    }
}

/// A running dev mode; it is stopped on drop.
pub struct Dev {
    child: Child,
    pub out: ProcessOutput,
    pub err: ProcessOutput,
    pub server: String,
    /// The file with the token, and the socket.
    pub token_file: PathBuf,
    pub socket: PathBuf,
    token: String,
    /// Where its command lines find the token, if it is not the usual directory.
    runtime: Option<PathBuf>,
    exited: bool,
}

impl Dev {
    /// Starts one with these arguments, and waits for its banner.
    pub fn start(arguments: &[&str]) -> Self {
        Self::start_as(sentinel(), arguments)
    }

    pub fn start_as(command: Command, arguments: &[&str]) -> Self {
        Self::start_on(command, "127.0.0.1:0", arguments)
    }

    /// Starts one that listens on this address.
    pub fn start_at(listen: &str, arguments: &[&str]) -> Self {
        Self::start_on(sentinel(), listen, arguments)
    }

    fn start_on(mut command: Command, listen: &str, arguments: &[&str]) -> Self {
        command.args(["dev", "--listen", listen]).args(arguments);
        let runtime = command.get_envs().find(|(name, _)| *name == "XDG_RUNTIME_DIR");
        let runtime = runtime.and_then(|(_, value)| value).map(PathBuf::from);
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let out = ProcessOutput::read(child.stdout.take().unwrap());
        let err = ProcessOutput::read(child.stderr.take().unwrap());
        let text = err.wait_for("Try, in another terminal:");
        let named = |label: &str| {
            let line = text.lines().find(|line| line.trim_start().starts_with(label)).unwrap();
            line.split_whitespace().nth(1).unwrap().to_owned()
        };
        let server = named("API ").trim_end_matches("/api/v1").to_owned();
        let (token_file, socket) = (PathBuf::from(named("Token ")), PathBuf::from(named("Socket ")));
        let token = std::fs::read_to_string(&token_file).unwrap().trim().to_owned();
        Self { child, out, err, server, token_file, socket, token, runtime, exited: false }
    }

    /// A command line against this dev mode.
    pub fn cli(&self, arguments: &[&str]) -> Command {
        let mut command = sentinel();
        command.env("SENTINEL_SERVER", &self.server).args(arguments).stdin(Stdio::null());
        if let Some(runtime) = &self.runtime {
            command.env("XDG_RUNTIME_DIR", runtime);
        }
        command
    }

    /// Runs a command line to its end.
    pub fn run(&self, arguments: &[&str]) -> CliOutput {
        CliOutput::of(arguments, &self.cli(arguments).output().unwrap())
    }

    /// Runs a command line to its end, with this as its standard input.
    pub fn run_with(&self, arguments: &[&str], input: &[u8]) -> CliOutput {
        let mut command = self.cli(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut pipe = child.stdin.take().unwrap();
        // It may exit without reading all of it.
        let _ = pipe.write_all(input);
        drop(pipe);
        CliOutput::of(arguments, &child.wait_with_output().unwrap())
    }

    /// Runs a command line until its output meets the condition.
    pub fn wait_until(&self, arguments: &[&str], condition: impl Fn(&CliOutput) -> bool) -> CliOutput {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let ran = self.run(arguments);
            if condition(&ran) {
                return ran;
            }
            assert!(Instant::now() < deadline, "the condition was never met; last output: {ran:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Sends a raw HTTP request with the token.
    pub fn request(&self, head: &str, body: &[u8]) -> Response {
        self.request_without_token(&format!("{}\nauthorization: Bearer {}", head.trim(), self.token), body)
    }

    /// Sends a raw HTTP request without the token.
    pub fn request_without_token(&self, head: &str, body: &[u8]) -> Response {
        let address = self.server.strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        let host = if head.to_lowercase().contains("\nhost:") {
            String::new()
        } else {
            format!("host: {address}\r\n")
        };
        let head = head.trim().replace("\r\n", "\n").replace('\n', "\r\n");
        let (first, rest) = head.split_once("\r\n").unwrap_or((&head, ""));
        let rest = if rest.is_empty() { String::new() } else { format!("{rest}\r\n") };
        let length = if rest.to_lowercase().contains("content-length") {
            String::new()
        } else {
            format!("content-length: {}\r\n", body.len())
        };
        let request = format!("{first} HTTP/1.1\r\n{host}{rest}{length}connection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        // The server may respond and close without reading the whole body.
        let _ = stream.write_all(body);
        let mut response = Vec::new();
        let _ = stream.read_to_end(&mut response);
        Response::parse(&response)
    }

    /// Sends a GET request with a streaming response; returns its raw text so far, with headers and chunk sizes.
    pub fn stream(&self, path: &str) -> ProcessOutput {
        let address = self.server.strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {}\r\nconnection: close\r\n\r\n",
            self.token
        )
        .unwrap();
        ProcessOutput::read(stream)
    }

    pub fn get(&self, path: &str) -> Response {
        self.request(&format!("GET {path}"), b"")
    }

    /// Stops its process: connections stay open, and nothing is answered.
    pub fn suspend(&self) {
        signal(&self.child, "STOP");
    }

    /// Continues its process.
    pub fn resume(&self) {
        signal(&self.child, "CONT");
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn interrupt(&self) {
        signal(&self.child, "INT");
    }

    pub fn signal(&self, name: &str) {
        signal(&self.child, name);
    }

    /// Waits until it has exited.
    pub fn wait(&mut self) -> ExitStatus {
        let status = wait(&mut self.child);
        self.exited = true;
        status
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        if self.exited {
            return;
        }
        self.resume();
        signal(&self.child, "INT");
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            if self.child.try_wait().is_ok_and(|status| status.is_some()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A process that is killed when the test ends.
pub struct KillOnDrop(pub Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Sends a raw HTTP request without a body over a Unix socket.
pub fn over_socket(socket: &Path, head: &str) -> Response {
    let mut stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
    write!(stream, "{head}connection: close\r\n\r\n").unwrap();
    let mut response = Vec::new();
    stream.read_to_end(&mut response).unwrap();
    Response::parse(&response)
}

/// Forwards another port to an address, as a tunnel does; returns its URL.
pub fn forward(to: &str) -> String {
    let (listener, to) = (std::net::TcpListener::bind("127.0.0.1:0").unwrap(), to.to_owned());
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for from in listener.incoming().flatten() {
            let to = TcpStream::connect(&to).unwrap();
            for (mut from, mut to) in [(from.try_clone().unwrap(), to.try_clone().unwrap()), (to, from)] {
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(std::net::Shutdown::Write);
                });
            }
        }
    });
    url
}

/// Sends a signal to a child process.
pub fn signal(child: &Child, name: &str) {
    Command::new("kill").args(["-s", name, &child.id().to_string()]).status().unwrap();
}

/// Waits until a child process has exited.
pub fn wait(child: &mut Child) -> ExitStatus {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(Instant::now() < deadline, "the process did not exit:\n{}", threads(child.id()));
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The threads of a process: name, where each waits in the kernel, and the system call with its arguments.
fn threads(pid: u32) -> String {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let read = |path: std::path::PathBuf| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let lines =
        tasks.map(|task| ["comm", "wchan", "syscall"].map(|file| read(task.path().join(file))).join("  "));
    lines.collect::<Vec<_>>().join("\n")
}

/// The result of a command.
#[derive(Debug)]
pub struct CliOutput {
    pub command: String,
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl CliOutput {
    pub fn of(arguments: &[&str], output: &Output) -> Self {
        Self {
            command: arguments.join(" "),
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Asserts the exit code.
    #[track_caller]
    pub fn exited(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        self
    }

    /// Asserts that standard output or standard error contains this.
    #[track_caller]
    pub fn printed(self, expected: &str) -> Self {
        assert!(
            self.out.contains(expected) || self.err.contains(expected),
            "{expected:?} is not in {self:?}"
        );
        self
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// An HTTP response.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Response {
    fn parse(bytes: &[u8]) -> Self {
        let split = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        let split = split.unwrap_or_else(|| panic!("no response: {:?}", String::from_utf8_lossy(bytes)));
        let head = String::from_utf8_lossy(&bytes[..split]).into_owned();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let raw = &bytes[split + 4..];
        let chunked = head.to_lowercase().contains("transfer-encoding: chunked");
        Self { status, body: if chunked { unchunk(raw) } else { raw.to_vec() }, head }
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// Asserts that this is an error with this status and reason, and these parts in its message.
    #[track_caller]
    pub fn is_error(&self, status: u16, reason: &str, parts: &[&str]) {
        assert_eq!(self.status, status, "{} {}", self.head, self.text());
        let body = self.json();
        assert_eq!(body["reason"], reason, "{body}");
        for part in parts {
            assert!(body["message"].as_str().unwrap().contains(part), "{part:?} is not in {body}");
        }
    }
}

fn unchunk(mut raw: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = raw.windows(2).position(|window| window == b"\r\n") {
        let length = std::str::from_utf8(&raw[..end]).unwrap();
        let length = usize::from_str_radix(length.trim(), 16).unwrap();
        if length == 0 || raw.len() < end + 2 + length {
            break;
        }
        body.extend_from_slice(&raw[end + 2..end + 2 + length]);
        raw = &raw[(end + 4 + length).min(raw.len())..];
    }
    body
}

/// A Task as YAML.
pub fn task(name: &str, run: &str) -> String {
    format!(
        "apiVersion: sentinelnode.dev/v1alpha1\nkind: Task\nmetadata: {{name: {name}}}\nspec:\n  targets: {{all: true}}\n  run: {run}\n"
    )
}

pub fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
}

/// Copies a program. Another process does: a child that another test forks while this one had the copy open for writing
/// would keep it open until its own exec, and the copy could not be run (`ETXTBSY`).
pub fn install(program: &Path, to: &Path) {
    let status = Command::new("install").args(["-m", "755"]).args([program, to]).status().unwrap();
    assert!(status.success());
}

/// Whether a `sleep` process has this argument.
pub fn is_running(argument: &str) -> bool {
    std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let cmdline = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let arguments: Vec<&[u8]> = cmdline.split(|byte| *byte == 0).collect();
        arguments.first() == Some(&&b"sleep"[..]) && arguments.contains(&argument.as_bytes())
    })
}

/// A Task in JSON.
pub fn body(name: &str, command: &[&str]) -> Vec<u8> {
    json!({
        "apiVersion": "sentinelnode.dev/v1alpha1",
        "kind": "Task",
        "metadata": {"name": name},
        "spec": {"targets": {"all": true}, "run": {"command": command}},
    })
    .to_string()
    .into_bytes()
}

/// A Task in JSON without some fields of its spec, and with others.
pub fn task_without(fields: &[&str], more: &[(&str, Value)]) -> Vec<u8> {
    let mut value: Value = serde_json::from_slice(&body("a", &["true"])).unwrap();
    let spec = value["spec"].as_object_mut().unwrap();
    for field in fields {
        spec.remove(*field);
    }
    for (field, given) in more {
        spec.insert((*field).to_owned(), given.clone());
    }
    value.to_string().into_bytes()
}

/// A server that responds to every request with this JSON; returns its URL.
pub fn serve_json(status: &'static str, body: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let head = format!(
                "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all(head.as_bytes());
            let _ = stream.write_all(body.as_bytes());
        }
    });
    format!("http://{address}")
}
