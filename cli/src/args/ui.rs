//! The arguments of `ui`.

use clap::Args;

const EXAMPLES: &str = "\
Examples:
  # The page of your own dev mode
  sentinel ui

  # Of a cluster, on a port of this machine, with the credentials of the kubeconfig, until Ctrl-C
  sentinel ui --context prod

  # Of a server over TLS, in the same way
  sentinel --server https://sentinel.example.com --token-file token ui

  # Of another server, through a forwarded port
  ssh -L 7990:127.0.0.1:7980 HOST
  sentinel --server http://127.0.0.1:7990 --token-file token ui

The browser gets the link from a file that only you can read, because other users see the arguments of processes. A browser
that cannot read it (in a snap or a flatpak) needs the printed link: --print.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct UiArgs {
    /// Print the link, with the token in it, instead of opening a browser.
    #[arg(long)]
    pub(crate) print: bool,

    /// The port of 127.0.0.1 for the page of a cluster or of a server over TLS; 0 is any free one.
    #[arg(long, default_value = "0", value_name = "PORT")]
    pub(crate) port: u16,
}
