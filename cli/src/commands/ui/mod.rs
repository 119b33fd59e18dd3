//! `ui`: opens the web page, signed in.
//!
//! The token is in the fragment of the link, which a browser never sends. It is in no argument of a process, which other
//! users can see, but in a private file that leads the browser on. The link names the address whose listener was found
//! to be this user's or root's, so that the page that reads the token is not another user's.
//!
//! The page of a cluster, or of a server over TLS, is served by this program itself ([`proxy`]), until Ctrl-C.

mod proxy;

use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use sentinel_api::client::dev_socket;
use sentinel_api::client::peer::{effective_uid, listeners};
use sentinel_api::client::transport::Transport;
use tokio::process::Command;

use crate::args::UiArgs;
use crate::client::{Client, Server, page_link};
use crate::connection::Connection;
use crate::exit::{ExitResult, Failure, OK};
use crate::interrupt::{Interruptible, Interrupts};
use crate::output::format::{note, print};

/// How long the file with the link stays for a browser that is slow to start.
const LINK_LIFETIME: Duration = Duration::from_secs(30);

/// How long to wait for an error of the program that opens the browser; some run as long as the browser.
const OPENER_TIMEOUT: Duration = Duration::from_secs(5);

/// A link to the page.
struct Link {
    /// Address of the page, without the token.
    page: String,
    token: Option<Token>,
}

struct Token {
    text: String,
    /// The file of the dev mode that it is from.
    of_dev_mode: Option<PathBuf>,
}

impl Link {
    /// With the token.
    fn whole(&self) -> String {
        match &self.token {
            Some(token) => page_link(&self.page, &token.text),
            None => self.page.clone(),
        }
    }
}

pub(super) fn execute<'a>(connection: &'a Connection, args: &'a UiArgs) -> LocalBoxFuture<'a, ExitResult> {
    executed(connection, args).boxed_local()
}

async fn executed(connection: &Connection, args: &UiArgs) -> ExitResult {
    let client = &connection.client;
    if let Some((_, server)) = &connection.cluster {
        return served_here(client, Arc::clone(server) as _, args).await;
    }
    // The browser need not trust its certificate, and does not get the token.
    if matches!(client.server(), Server::Https { .. }) {
        return served_here(client, client.transport(), args).await;
    }
    // Refuses a server that is not ours, before any link leads there; and a wrong token.
    client.get("/api/v1/tasks?limit=1").await?;
    let link = find(client).await?;
    let opener = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    if args.print {
        print(&format!("{}\n", link.whole()))?;
    } else if !has_display() {
        note("There is no display here. Open this link in a browser:");
        print(&format!("{}\n", link.whole()))?;
    } else {
        open(opener, &link).await?;
    }
    Ok(OK)
}

/// Serves the page of a server until Ctrl-C.
async fn served_here(client: &Client, server: Arc<dyn Transport>, args: &UiArgs) -> ExitResult {
    // A server that does not answer is reported here, and not in a browser. The page shows what a user may not see.
    match client.get("/api/v1/tasks?limit=1").await {
        Err(error) if error.status() != Some(StatusCode::FORBIDDEN.as_u16()) => return Err(error.into()),
        _ => {}
    }
    let mut interrupts = Interrupts::listen()?;
    let proxy = proxy::Proxy::bind(args.port, server).await?;
    let token = Token { text: proxy.token().to_owned(), of_dev_mode: None };
    let link = Link { page: proxy.page(), token: Some(token) };
    note(&format!("Serving {} with your credentials for {}; Ctrl-C ends it.", link.page, client.server()));
    let shown = async {
        if args.print || !has_display() {
            print(&format!("{}\n", link.whole()))?;
        } else {
            open(if cfg!(target_os = "macos") { "open" } else { "xdg-open" }, &link).await?;
        }
        std::future::pending::<Result<(), Failure>>().await
    };
    let served = async {
        tokio::select! {
            never = proxy.serve() => match never {},
            shown = shown => shown,
        }
    };
    match interrupts.until(served).await {
        Interruptible::Done(ended) => ended.map(|()| OK),
        Interruptible::Interrupted => Ok(OK),
    }
}

async fn find(client: &Client) -> Result<Link, Failure> {
    let Server::Http { base, host, port } = client.server() else {
        return Err(Failure::usage("a browser cannot open a Unix socket")
            .hint("Name the address that the server prints: --server http://127.0.0.1:PORT"));
    };
    let given = client.token().map(|text| Token { text: text.to_owned(), of_dev_mode: None });
    if !client.server().is_local() {
        return Ok(Link { page: format!("{base}/"), token: given });
    }
    let token = match given {
        Some(token) => Some(token),
        None => dev_token(*port)?,
    };
    let address = own_listener(host, *port).await?;
    Ok(Link { page: format!("http://{address}/"), token })
}

/// The token of this user's dev mode on that port, if one runs.
fn dev_token(port: u16) -> Result<Option<Token>, Failure> {
    let Some(file) = dev_socket::token_file_of(port) else { return Ok(None) };
    let text = std::fs::read_to_string(&file)
        .map_err(|error| Failure::new(format!("failed to read {}: {error}", file.display())))?;
    Ok(Some(Token { text: text.trim().to_owned(), of_dev_mode: Some(file) }))
}

/// The first address of the host at which only this user and root listen.
async fn own_listener(host: &str, port: u16) -> Result<SocketAddr, Failure> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let addresses = tokio::net::lookup_host((host, port))
        .await
        .map_err(|error| Failure::new(format!("failed to resolve {host}: {error}")))?;
    let is_own = |address: &SocketAddr| {
        let owners = listeners(*address);
        !owners.is_empty() && owners.iter().all(|uid| *uid == 0 || *uid == effective_uid())
    };
    addresses.into_iter().find(is_own).ok_or_else(|| {
        Failure::new(format!("no server of yours or of root listens at {host}:{port}"))
            .hint("Name the address that the server prints: --server http://127.0.0.1:PORT")
    })
}

fn has_display() -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    cfg!(target_os = "macos") || is_set("DISPLAY") || is_set("WAYLAND_DISPLAY")
}

async fn open(opener: &str, link: &Link) -> Result<(), Failure> {
    let Some(token) = &link.token else {
        run(opener, link.page.as_ref()).await?;
        note(&format!("Opened {}", link.page));
        return Ok(());
    };
    let unwritten =
        |error: std::io::Error| Failure::new(format!("failed to write the file with the link: {error}"));
    // It has the lifetime of the dev mode, which removes it together with the token.
    if let Some(token_file) = &token.of_dev_mode {
        let file = token_file.with_extension("html");
        write_private(&file, &redirect(&link.whole())).map_err(unwritten)?;
        run(opener, &file).await?;
        note(&format!("Opened {}", link.page));
        return Ok(());
    }
    let directory = dev_socket::private_directory().map_err(unwritten)?;
    // Removed however this ends.
    let file = LinkFile(directory.join(format!("link-{}.html", std::process::id())));
    let file = &file.0;
    // From here on Ctrl-C must not leave the file behind.
    let mut interrupts = Interrupts::listen()?;
    write_private(file, &redirect(&link.whole())).map_err(unwritten)?;
    let opening = async {
        run(opener, file).await?;
        let seconds = LINK_LIFETIME.as_secs();
        note(&format!(
            "Opened {}. Waiting {seconds} s for the browser to read the link; Ctrl-C ends this.",
            link.page
        ));
        tokio::time::sleep(LINK_LIFETIME).await;
        Ok(())
    };
    match interrupts.until(opening).await {
        Interruptible::Done(opened) => opened,
        Interruptible::Interrupted => Ok(()),
    }
}

/// The file with a link.
struct LinkFile(PathBuf);

impl Drop for LinkFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            note(&format!("failed to remove {}: {error}", self.0.display()));
        }
    }
}

/// Writes a file that only this user can read, in a directory that only this user can enter.
fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = std::fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}

/// A page that leads to the link and leaves no entry in the browser's history.
fn redirect(link: &str) -> String {
    // A fragment is escaped; an address is a host and a port.
    let link = link.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;");
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Sentinel Node</title>\
         <meta name=\"referrer\" content=\"no-referrer\"><meta http-equiv=\"refresh\" content=\"0; url={link}\">\
         </head><body><a href=\"{link}\">Sentinel Node</a></body></html>\n"
    )
}

/// Runs the program that opens what the argument names.
async fn run(opener: &str, argument: &Path) -> Result<(), Failure> {
    let failed = |why: String| {
        Failure::new(format!("failed to open a browser: {why}"))
            .hint("Print the link instead: sentinel ui --print")
    };
    let mut command = Command::new(opener);
    command.arg(argument).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|error| failed(format!("{opener}: {error}")))?;
    match tokio::time::timeout(OPENER_TIMEOUT, child.wait()).await {
        Ok(Ok(status)) if !status.success() => Err(failed(format!("{opener}: {status}"))),
        Ok(Err(error)) => Err(failed(format!("{opener}: {error}"))),
        // It is the browser.
        Ok(Ok(_)) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_cannot_leave_the_fragment() {
        let link = page_link("http://127.0.0.1:7980/", "a\"><b&c=d");
        assert_eq!(link, "http://127.0.0.1:7980/#token=a%22%3E%3Cb%26c%3Dd");
        assert_eq!(redirect(&link).matches(&link).count(), 2);
    }

    #[test]
    fn the_file_with_the_link_is_private_and_replaces_an_earlier_one() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("link.html");
        let target = directory.path().join("target");
        std::os::unix::fs::symlink(&target, &path).unwrap();
        write_private(&path, "one").unwrap();
        write_private(&path, "two").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two");
        assert_eq!(path.symlink_metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!target.exists());
    }
}
