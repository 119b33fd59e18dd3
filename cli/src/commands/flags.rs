//! The flags that a suggested command needs.

use crate::client::Client;

/// The flags with which another command finds the same Task: namespace and server, unless they are the defaults.
pub(super) fn context_flags(client: &Client, namespace: &str) -> String {
    let mut flags = String::new();
    if namespace != "default" {
        flags.push_str(" -n ");
        flags.push_str(namespace);
    }
    flags.push_str(&client.server().flags());
    flags
}
