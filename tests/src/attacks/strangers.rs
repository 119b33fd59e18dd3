//! Another user of the machine, and pages in a browser: neither gets anything from a dev mode that is not theirs.

use std::process::Stdio;

use anyhow::Result;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde_json::json;

use super::Attack;
use super::kit::{MIB, Row, Size, Victim, request};

/// See the module.
pub const ATTACK: Attack = Attack {
    name: "strangers",
    group: "local",
    about: "another user at the port and the socket of a dev mode, and pages of other sites and ports",
    run,
};

/// A user without files or processes (`nobody`).
const OTHER_USER: u32 = 65_534;

fn run(size: Size) -> BoxFuture<'static, Result<Vec<Row>>> {
    async move {
        let dev = Victim::dev(&[]).await?;
        let operator = Victim::operator(&[]).await?;
        let rows = vec![
            another_user(&dev, size).await?,
            pages(&dev, "dev mode").await?,
            pages(&operator, "operator").await?,
        ];
        operator.close().await;
        dev.close().await;
        Ok(rows)
    }
    .boxed()
}

/// Asks as another user, with what that user can have: the port, the path of the socket, guesses of the token.
async fn another_user(dev: &Victim, size: Size) -> Result<Row> {
    let sampler = dev.watch();
    let base = format!("http://{}", dev.api);
    let task = json!({
        "apiVersion": "sentinelnode.dev/v1alpha1", "kind": "Task", "metadata": {"name": "stolen"},
        "spec": {"targets": {"all": true}, "run": {"command": ["id"]}},
    })
    .to_string();
    let mut tries: Vec<Vec<String>> = Vec::new();
    let arguments =
        |arguments: &[&str]| arguments.iter().map(|argument| (*argument).to_owned()).collect::<Vec<_>>();
    let tasks = format!("{base}/api/v1/tasks");
    let post = arguments(&["-X", "POST", "-H", "content-type: application/json", "-d", &task]);
    tries.push([arguments(&[&tasks]), post.clone()].concat());
    tries.push(arguments(&["-X", "DELETE", &format!("{tasks}/default/stolen")]));
    tries.push(arguments(&[&format!("{base}/metrics")]));
    if let Some(socket) = &dev.socket {
        let through =
            arguments(&["--unix-socket", &socket.display().to_string(), "http://localhost/api/v1/tasks"]);
        tries.push([through, post].concat());
    }
    for guess in 0..size.pick(10, 100) {
        tries.push(arguments(&["-H", &format!("authorization: Bearer {guess:043}"), &tasks]));
    }
    let (count, mut accepted) = (tries.len(), 0);
    for arguments in tries {
        let mut curl = tokio::process::Command::new("curl");
        curl.args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "20"]).args(arguments);
        curl.uid(OTHER_USER).gid(OTHER_USER).current_dir("/").stdin(Stdio::null());
        let code = String::from_utf8_lossy(&curl.output().await?.stdout).into_owned();
        accepted += usize::from(code.starts_with('2'));
    }
    let mut faults = Vec::new();
    if dev.ask("GET", "/api/v1/tasks/default/stolen", None).await?.0 != 404 {
        faults.push("another user has created a Task".to_owned());
    }
    Ok(Row {
        attack: ATTACK.name,
        tried: format!("{count} requests of user {OTHER_USER} to dev mode: port, socket, guessed tokens"),
        accepted,
        refused: count - accepted,
        may_accept: 0,
        memory: sampler.finish(),
        bound: 16 * MIB,
        faults,
    })
}

/// What a page of another site or port can have a browser send. The owner's credentials go along, as though the browser
/// had them.
async fn pages(victim: &Victim, api_of: &str) -> Result<Row> {
    let sampler = victim.watch();
    let (at, credentials) = (victim.api, victim.credentials());
    let ours = format!("host: {at}\r\n{credentials}");
    let json = "content-type: application/json\r\n";
    let heads = [
        format!("POST /api/v1/tasks HTTP/1.1\r\n{ours}origin: http://localhost:3000\r\n{json}"),
        format!("POST /api/v1/tasks/default/a/rerun HTTP/1.1\r\n{ours}origin: http://127.0.0.1:1\r\n"),
        format!("POST /api/v1/tasks/default/a/rerun HTTP/1.1\r\n{ours}origin: null\r\n"),
        format!(
            "POST /api/v1/tasks/default/a/rerun HTTP/1.1\r\n{ours}origin: http://{at}\r\norigin: http://evil.test\r\n"
        ),
        format!("GET /api/v1/tasks HTTP/1.1\r\n{ours}sec-fetch-site: same-site\r\n"),
        format!("GET /api/v1/tasks HTTP/1.1\r\nhost: evil.test\r\n{credentials}"),
        format!("GET /api/v1/tasks HTTP/1.1\r\n{ours}host: evil.test\r\n"),
        format!("GET http://evil.test/api/v1/tasks HTTP/1.1\r\n{ours}"),
        // A form: no Origin in an old browser, no header of its own, and no token.
        format!("POST /api/v1/tasks/default/a/rerun HTTP/1.1\r\nhost: {at}\r\ncontent-type: text/plain\r\n"),
    ];
    let mut faults = Vec::new();
    for head in &heads {
        let (status, _) = request(at, &format!("{head}content-length: 0\r\n\r\n"), b"").await?;
        if ![400, 401, 403, 421].contains(&status) {
            faults.push(format!("{status} for {:?}", head.replace(&credentials, "")));
        }
    }
    let accepted = faults.len();
    Ok(Row {
        attack: ATTACK.name,
        tried: format!(
            "{} requests as pages of other sites and ports have them sent, to {api_of}",
            heads.len()
        ),
        accepted,
        refused: heads.len() - accepted,
        may_accept: 0,
        memory: sampler.finish(),
        bound: 16 * MIB,
        faults,
    })
}
