//! The web page of a real dev mode, and how a person gets there.

#![allow(clippy::unwrap_used, reason = "a test")]

#[cfg(test)]
mod kit;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use kit::{CliOutput, Dev, ProcessOutput, Response, sentinel};

fn header(response: &Response, name: &str) -> Option<String> {
    let lines = response.head.lines().filter_map(|line| line.split_once(':'));
    let mut values =
        lines.filter(|(has, _)| has.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned());
    values.next()
}

/// Names of the assets in the page.
fn assets(html: &str) -> Vec<String> {
    html.split('"').filter(|part| part.starts_with("assets/")).map(|part| format!("/{part}")).collect()
}

#[test]
fn the_page_is_at_each_of_its_addresses_and_needs_no_token() {
    let dev = Dev::start(&[]);
    for path in
        ["/", "/tasks", "/tasks/ops/a/runs/3/log?node=web-[1-3]&x=%zz", "/fleet", "/history", "/login"]
    {
        let page = dev.request_without_token(&format!("GET {path}"), b"");
        assert_eq!(page.status, 200, "{path}");
        assert!(page.text().contains("<base href=\"/\">"), "{path}: {}", page.text());
        assert_eq!(header(&page, "content-type").unwrap(), "text/html; charset=utf-8");
        assert_eq!(header(&page, "cache-control").unwrap(), "no-cache");
        assert!(
            header(&page, "content-security-policy").unwrap().contains("default-src 'self'"),
            "{}",
            page.head
        );
        assert_eq!(header(&page, "referrer-policy").unwrap(), "no-referrer");
        assert_eq!(header(&page, "x-content-type-options").unwrap(), "nosniff");
    }
    let tag = header(&dev.request_without_token("GET /", b""), "etag").unwrap();
    let again = dev.request_without_token(&format!("GET /\nif-none-match: {tag}"), b"");
    assert_eq!((again.status, again.text()), (304, String::new()));
    dev.request_without_token("POST /tasks", b"").is_error(405, "MethodNotAllowed", &["GET"]);
    let socket = kit::over_socket(&dev.socket, "GET /tasks HTTP/1.1\r\nhost: localhost\r\n");
    assert_eq!(socket.status, 200);
}

#[test]
fn what_the_page_loads_is_kept_forever_and_sent_compressed() {
    let dev = Dev::start(&[]);
    let html = dev.request_without_token("GET /", b"").text();
    let paths = assets(&html);
    assert!(paths.len() > 3, "{html}");
    for path in &paths {
        let plain = dev.request_without_token(&format!("GET {path}"), b"");
        assert_eq!((plain.status, header(&plain, "content-encoding")), (200, None), "{path}");
        assert_eq!(header(&plain, "cache-control").unwrap(), "public, max-age=31536000, immutable");
        assert_eq!(header(&plain, "vary").unwrap(), "accept-encoding");
        assert_eq!(header(&plain, "x-content-type-options").unwrap(), "nosniff");
        let packed = dev.request_without_token(&format!("GET {path}\naccept-encoding: gzip, br"), b"");
        assert_eq!(header(&packed, "content-encoding").unwrap(), "gzip", "{path}");
        assert_eq!(header(&packed, "content-length").unwrap(), packed.body.len().to_string());
        assert_ne!(header(&packed, "etag"), header(&plain, "etag"));
        let head = dev.request_without_token(&format!("HEAD {path}\naccept-encoding: gzip"), b"");
        assert_eq!((head.status, head.body.len()), (200, 0));
        assert_eq!(header(&head, "content-length"), header(&packed, "content-length"));
        let tag = header(&packed, "etag").unwrap();
        let again = dev.request_without_token(&format!("GET {path}\nif-none-match: {tag}"), b"");
        assert_eq!((again.status, again.body.len()), (304, 0), "{path}");
    }
    dev.request_without_token("GET /assets/main.js", b"").is_error(404, "NotFound", &["reload"]);
    dev.request_without_token("GET /assets/..%2fmain.js", b"").is_error(400, "InvalidPath", &[]);
}

#[test]
fn unknown_paths_are_a_page_for_people_and_json_for_programs() {
    let dev = Dev::start(&[]);
    let of_person = dev.request_without_token("GET /task/x\naccept: text/html,*/*;q=0.8", b"");
    assert_eq!(of_person.status, 404);
    assert!(of_person.text().contains("<base href"), "{}", of_person.text());
    dev.request("GET /task/x", b"").is_error(404, "UnknownPath", &["/task/x"]);
    dev.request("GET /api/v2/tasks\naccept: text/html", b"").is_error(404, "UnknownPath", &[]);
}

#[test]
fn links_of_other_sites_lead_to_the_page_and_not_to_the_api() {
    let dev = Dev::start(&[]);
    let link = "sec-fetch-site: cross-site\nsec-fetch-mode: navigate\nsec-fetch-dest: document";
    assert_eq!(dev.request_without_token(&format!("GET /tasks\n{link}"), b"").status, 200);
    dev.request(&format!("GET /api/v1/tasks\n{link}"), b"").is_error(403, "ForeignOrigin", &[]);
    let framed = "sec-fetch-site: cross-site\nsec-fetch-mode: navigate\nsec-fetch-dest: iframe";
    dev.request_without_token(&format!("GET /tasks\n{framed}"), b"").is_error(403, "ForeignOrigin", &[]);
    dev.request_without_token("GET /tasks\nhost: evil.test", b"").is_error(421, "ForeignHost", &[]);
}

#[test]
fn the_log_of_dev_mode_has_no_token() {
    let dev = Dev::start(&[]);
    let token = std::fs::read_to_string(&dev.token_file).unwrap();
    let text = dev.err.text();
    assert!(text.contains(&format!("Page   {}/\n", dev.server)), "{text}");
    assert!(!text.contains(token.trim()), "{text}");
}

/// A folder with an `xdg-open` that copies its arguments, and the file that they name, to `opened`.
fn fake_opener(folder: &Path) {
    let script = format!(
        "#!/bin/sh\nprintf '%s\\n' \"$@\" >{0}/arguments\n[ ! -e \"$1\" ] || cp -p \"$1\" {0}/file\ntouch {0}/done\n",
        folder.display()
    );
    let text = folder.join("xdg-open.sh");
    std::fs::write(&text, script).unwrap();
    kit::install(&text, &folder.join("xdg-open"));
}

fn path_with(folder: &Path) -> String {
    format!("{}:{}", folder.display(), std::env::var("PATH").unwrap())
}

#[test]
fn ui_opens_the_page_without_the_token_in_an_argument() {
    let mut dev = Dev::start(&[]);
    let token = std::fs::read_to_string(&dev.token_file).unwrap().trim().to_owned();
    let folder = tempfile::tempdir().unwrap();
    fake_opener(folder.path());
    let mut command = dev.cli(&["ui"]);
    command.env("PATH", path_with(folder.path())).env("DISPLAY", ":9").env_remove("WAYLAND_DISPLAY");
    CliOutput::of(&["ui"], &command.output().unwrap()).exited(0).printed(&format!("Opened {}/", dev.server));
    let arguments = std::fs::read_to_string(folder.path().join("arguments")).unwrap();
    assert!(!arguments.contains(&token), "{arguments}");
    let opened = Path::new(arguments.trim());
    assert_eq!(opened.parent(), dev.token_file.parent());
    let copy = folder.path().join("file");
    assert_eq!(copy.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let html = std::fs::read_to_string(copy).unwrap();
    assert!(html.contains(&format!("url={}/#token={token}\"", dev.server)), "{html}");
    // It is removed together with the token.
    assert!(opened.exists());
    dev.interrupt();
    assert!(dev.wait().success());
    assert!(!opened.exists());
}

#[test]
fn ui_prints_the_link_on_request_and_where_there_is_no_display() {
    let dev = Dev::start(&[]);
    let token = std::fs::read_to_string(&dev.token_file).unwrap().trim().to_owned();
    let link = format!("{}/#token={token}\n", dev.server);
    assert_eq!(dev.run(&["ui", "--print"]).exited(0).out, link);
    let mut command = dev.cli(&["ui"]);
    let without = CliOutput::of(
        &["ui"],
        &command.env_remove("DISPLAY").env_remove("WAYLAND_DISPLAY").output().unwrap(),
    );
    assert_eq!(without.exited(0).out, link);
}

#[test]
fn ui_takes_the_token_of_another_server_from_a_file_and_removes_the_link() {
    let dev = Dev::start(&[]);
    let token = std::fs::read_to_string(&dev.token_file).unwrap().trim().to_owned();
    let folder = tempfile::tempdir().unwrap();
    fake_opener(folder.path());
    let tunnel = kit::forward(dev.server.strip_prefix("http://").unwrap());
    let file = dev.token_file.to_str().unwrap();
    let printed = dev.run(&["--server", &tunnel, "--token-file", file, "ui", "--print"]).exited(0);
    assert_eq!(printed.out, format!("{tunnel}/#token={token}\n"));
    let mut command = sentinel();
    command.args(["--server", &tunnel, "--token-file", file, "ui"]).env("PATH", path_with(folder.path()));
    command.env("DISPLAY", ":9").stderr(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    ProcessOutput::read(child.stderr.take().unwrap()).wait_for("Ctrl-C ends this");
    let opened = std::fs::read_to_string(folder.path().join("arguments")).unwrap();
    assert!(!opened.contains(&token), "{opened}");
    assert!(
        std::fs::read_to_string(folder.path().join("file")).unwrap().contains(&format!("#token={token}\""))
    );
    assert!(Path::new(opened.trim()).exists());
    kit::signal(&child, "INT");
    assert!(kit::wait(&mut child).success());
    assert!(!Path::new(opened.trim()).exists());
}

#[test]
fn ui_refuses_a_wrong_token_a_socket_and_a_server_that_is_not_up() {
    let dev = Dev::start(&[]);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "wrong-token").unwrap();
    let tunnel = kit::forward(dev.server.strip_prefix("http://").unwrap());
    let wrong = file.path().to_str().unwrap();
    dev.run(&["--server", &tunnel, "--token-file", wrong, "ui", "--print"])
        .exited(1)
        .printed("failed to authenticate");
    let socket = format!("unix:{}", dev.socket.display());
    dev.run(&["--server", &socket, "ui", "--print"]).exited(2).printed("a browser cannot open a Unix socket");
    dev.run(&["--server", "http://127.0.0.1:1", "ui", "--print"]).exited(1).printed("sentinel dev");
}
