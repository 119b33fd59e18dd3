//! A real `sentinel dev` for a test: its own port, its own directory, ended at the end.

#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(missing_docs, unreachable_pub, reason = "for tests")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// How long anything may take on a loaded machine. Nothing waits this long when it works.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// The real binary.
pub fn sentinel() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sentinel"));
    for name in ["SENTINEL_SERVER", "SENTINEL_TOKEN_FILE", "SENTINEL_NAMESPACE", "SENTINEL_LOG", "NO_COLOR"] {
        command.env_remove(name);
    }
    command
}

/// Text that a process writes, as it comes.
#[derive(Debug, Clone, Default)]
pub struct Heard(Arc<(Mutex<String>, Condvar)>);

impl Heard {
    /// Of a stream of a process, from now on.
    pub fn of(stream: impl Read + Send + 'static) -> Self {
        Self::listen(stream)
    }

    fn listen(stream: impl Read + Send + 'static) -> Self {
        let heard = Self::default();
        let writer = heard.clone();
        std::thread::spawn(move || {
            let mut reader = BufReader::new(stream);
            let mut line = Vec::new();
            while reader.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                let (text, bell) = &*writer.0;
                text.lock().unwrap().push_str(&String::from_utf8_lossy(&line));
                bell.notify_all();
                line.clear();
            }
        });
        heard
    }

    pub fn text(&self) -> String {
        self.0.0.lock().unwrap().clone()
    }

    /// Waits until this has been written.
    pub fn wait_for(&self, expected: &str) -> String {
        let (text, bell) = &*self.0;
        let (text, timeout) =
            bell.wait_timeout_while(text.lock().unwrap(), PATIENCE, |text| !text.contains(expected)).unwrap();
        assert!(!timeout.timed_out(), "{expected:?} was not written; there is:\n{text}");
        text.clone()
    }
}

/// A dev mode that runs.
pub struct Dev {
    child: Child,
    pub out: Heard,
    pub err: Heard,
    pub server: String,
    /// The file with its token, and its socket.
    pub token_file: PathBuf,
    pub socket: PathBuf,
    token: String,
    ended: bool,
}

impl Dev {
    /// Starts one with these arguments, and waits until it says where it is.
    pub fn start(arguments: &[&str]) -> Self {
        Self::start_as(sentinel(), arguments)
    }

    pub fn start_as(command: Command, arguments: &[&str]) -> Self {
        Self::start_on(command, "127.0.0.1:0", arguments)
    }

    /// Starts one on this address.
    pub fn start_at(listen: &str, arguments: &[&str]) -> Self {
        Self::start_on(sentinel(), listen, arguments)
    }

    fn start_on(mut command: Command, listen: &str, arguments: &[&str]) -> Self {
        command.args(["dev", "--listen", listen]).args(arguments);
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let out = Heard::listen(child.stdout.take().unwrap());
        let err = Heard::listen(child.stderr.take().unwrap());
        let text = err.wait_for("Try, in another terminal:");
        let named = |label: &str| {
            let line = text.lines().find(|line| line.trim_start().starts_with(label)).unwrap();
            line.split_whitespace().nth(1).unwrap().to_owned()
        };
        let server = named("API ").trim_end_matches("/api/v1").to_owned();
        let (token_file, socket) = (PathBuf::from(named("Token ")), PathBuf::from(named("Socket ")));
        let token = std::fs::read_to_string(&token_file).unwrap().trim().to_owned();
        Self { child, out, err, server, token_file, socket, token, ended: false }
    }

    /// The command line, against this one.
    pub fn cli(&self, arguments: &[&str]) -> Command {
        let mut command = sentinel();
        command.env("SENTINEL_SERVER", &self.server).args(arguments).stdin(Stdio::null());
        command
    }

    /// Runs the command line to its end.
    pub fn run(&self, arguments: &[&str]) -> Ran {
        Ran::of(arguments, &self.cli(arguments).output().unwrap())
    }

    /// Runs the command line to its end, with this on a pipe as its standard input.
    pub fn run_with(&self, arguments: &[&str], input: &[u8]) -> Ran {
        let mut command = self.cli(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut pipe = child.stdin.take().unwrap();
        // It may end without having read all of it.
        let _ = pipe.write_all(input);
        drop(pipe);
        Ran::of(arguments, &child.wait_with_output().unwrap())
    }

    /// Waits until the answer of a command is so.
    pub fn until(&self, arguments: &[&str], so: impl Fn(&Ran) -> bool) -> Ran {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let ran = self.run(arguments);
            if so(&ran) {
                return ran;
            }
            assert!(Instant::now() < deadline, "it never came to that; last: {ran:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// A request made by hand, with the token: status, headers, body.
    pub fn request(&self, head: &str, body: &[u8]) -> Answer {
        self.stranger(&format!("{}\nauthorization: Bearer {}", head.trim(), self.token), body)
    }

    /// The same without the token.
    pub fn stranger(&self, head: &str, body: &[u8]) -> Answer {
        let address = self.server.strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
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
        // The server may answer, and close, before it has read all of it.
        let _ = stream.write_all(body);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        Answer::read(&answer)
    }

    /// A GET whose answer goes on: its text as it comes, headers and the lengths of its pieces among it.
    pub fn stream(&self, path: &str) -> Heard {
        let address = self.server.strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {}\r\nconnection: close\r\n\r\n",
            self.token
        )
        .unwrap();
        Heard::listen(stream)
    }

    pub fn get(&self, path: &str) -> Answer {
        self.request(&format!("GET {path}"), b"")
    }

    /// Its process stands still: connections stay open and nothing is answered.
    pub fn stop_answering(&self) {
        signal(&self.child, "STOP");
    }

    /// Its process goes on.
    pub fn answer_again(&self) {
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

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        let status = wait(&mut self.child);
        self.ended = true;
        status
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        self.answer_again();
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

/// A process that ends with the test.
pub struct Ending(pub Child);

impl Drop for Ending {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A request over a Unix socket: its head without the end, and no body.
pub fn over_socket(socket: &Path, head: &str) -> Answer {
    let mut stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
    write!(stream, "{head}connection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    Answer::read(&answer)
}

/// Another port of this machine that leads to an address, as a tunnel does; its URL.
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

/// Sends a signal to a process that this test started.
pub fn signal(child: &Child, name: &str) {
    Command::new("kill").args(["-s", name, &child.id().to_string()]).status().unwrap();
}

/// Waits for the end of a process, with a deadline.
pub fn wait(child: &mut Child) -> ExitStatus {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(Instant::now() < deadline, "the process does not end");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A command that has ended.
#[derive(Debug)]
pub struct Ran {
    pub command: String,
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    pub fn of(arguments: &[&str], output: &Output) -> Self {
        Self {
            command: arguments.join(" "),
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// It ended with this code.
    #[track_caller]
    pub fn ended(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        self
    }

    /// It said so.
    #[track_caller]
    pub fn said(self, expected: &str) -> Self {
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

/// The answer to a request.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    fn read(bytes: &[u8]) -> Self {
        let split = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        let split = split.unwrap_or_else(|| panic!("no answer: {:?}", String::from_utf8_lossy(bytes)));
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

    /// It is an error with this status and reason, whose message has these words in it.
    #[track_caller]
    pub fn refused(&self, status: u16, reason: &str, words: &[&str]) {
        assert_eq!(self.status, status, "{} {}", self.head, self.text());
        let body = self.json();
        assert_eq!(body["reason"], reason, "{body}");
        for word in words {
            assert!(body["message"].as_str().unwrap().contains(word), "{word:?} is not in {body}");
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

/// Whether a process has this among its arguments.
pub fn is_running(mark: &str) -> bool {
    std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let cmdline = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let arguments: Vec<&[u8]> = cmdline.split(|byte| *byte == 0).collect();
        arguments.first() == Some(&&b"sleep"[..]) && arguments.contains(&mark.as_bytes())
    })
}

/// A Task as the API takes it.
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

/// The same without some fields of its spec, and with others.
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

/// A server that answers every request with this JSON.
pub fn serving(status: &'static str, body: String) -> String {
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
