//! What to do when a server and its client do not accept each other. The errors of the clients name the cause in rustls's
//! and the servers' terms, but no file.

use super::files::CredentialFiles;
use super::store::Store;

/// Texts of servers for a user or a password that is wrong or missing.
const REFUSED_USER: [&str; 6] = [
    "WRONGPASS",
    "NOAUTH",
    "AuthenticationFailed",
    "uthentication failed",
    "SCRAM failure",
    "requires authentication",
];

impl CredentialFiles {
    /// What to do about a failure with this text; `None` when it is not about TLS or the user.
    pub fn advice(&self, failure: &str) -> Option<String> {
        let has = |any: &[&str]| any.iter().any(|part| failure.contains(part));
        Some(if has(&["UnknownIssuer"]) {
            self.unknown_issuer()
        } else if has(&["not valid for name"]) {
            format!("use a name of the server's certificate as the host of {}", self.named_url())
        } else if has(&["certificate expired", ": Expired", "certificate not valid yet", ": NotValidYet"]) {
            "renew the server's certificate, or correct the clock of this machine".to_owned()
        } else if has(&["fatal alert:"]) {
            self.refused_client()
        } else if has(&REFUSED_USER) {
            format!("the server refused the user and the password of {}: correct them", self.named_url())
        } else if has(&["NOPERM", "not authorized"]) {
            let rights = match self.store {
                Store::Mongodb => "the role readWrite on the database of --mongodb-database",
                Store::Redis => "the commands SET, MGET, SCAN and PING on the keys of --redis-prefix",
            };
            format!("the user of {} needs {rights}", self.named_url())
        } else {
            return None;
        })
    }

    fn named_url(&self) -> String {
        format!("the URL in {} (--{})", self.url.display(), self.store.url_flag())
    }

    fn unknown_issuer(&self) -> String {
        let flag = self.store.ca_flag();
        match &self.ca {
            Some(ca) => format!(
                "the server's certificate is not of a CA in {} (--{flag}): add the CA that signed it",
                ca.display()
            ),
            None => format!("the server's certificate is not of a public CA: give its CA by --{flag}"),
        }
    }

    fn refused_client(&self) -> String {
        let flag = self.store.certificate_flag();
        match &self.client {
            Some(client) => format!(
                "the server refused the client certificate in {} (--{flag}): it must be valid and of a CA that the server trusts",
                client.certificate.display()
            ),
            None => format!("the server requires a client certificate: give it by --{flag}"),
        }
    }
}
