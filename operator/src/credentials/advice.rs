//! What to do when a server and its client do not accept each other. The errors of the clients name the cause in rustls's
//! and the servers' terms, but no file.

use super::files::CredentialFiles;

impl CredentialFiles {
    /// What to do about a failure with this text; `None` when it is not about TLS or the user.
    pub fn advice(&self, failure: &str) -> Option<String> {
        let store = self.store;
        let has = |any: &[&str]| any.iter().any(|part| failure.contains(part));
        let url = format!("the URL in {} (--{})", self.url.display(), store.url_flag());
        Some(if has(&["UnknownIssuer"]) {
            match &self.ca {
                Some(ca) => format!(
                    "the server's certificate is not of a CA in {} (--{}): add the CA that signed it",
                    ca.display(),
                    store.ca_flag()
                ),
                None => format!(
                    "the server's certificate is not of a public CA: give its CA by --{}",
                    store.ca_flag()
                ),
            }
        } else if has(&["not valid for name"]) {
            format!("use a name of the server's certificate as the host of {url}")
        } else if has(&["certificate expired", ": Expired", "certificate not valid yet", ": NotValidYet"]) {
            "renew the server's certificate, or correct the clock of this machine".to_owned()
        } else if has(&["fatal alert: CertificateRequired"]) {
            format!("the server requires a client certificate: give it by --{}", store.certificate_flag())
        } else if has(&["fatal alert:"]) {
            match &self.client {
                Some(client) => format!(
                    "the server refused the client certificate in {} (--{}): it must be valid and of a CA that the server trusts",
                    client.certificate.display(),
                    store.certificate_flag()
                ),
                None => {
                    format!(
                        "the server may require a client certificate: give it by --{}",
                        store.certificate_flag()
                    )
                }
            }
        } else if has(&[
            "WRONGPASS",
            "NOAUTH",
            "AuthenticationFailed",
            "uthentication failed",
            "SCRAM failure",
        ]) {
            format!("the server refused the user and the password of {url}: correct them")
        } else if has(&["NOPERM"]) {
            format!(
                "the user of {url} needs the commands SET, MGET, SCAN and PING on the keys of --redis-prefix"
            )
        } else {
            return None;
        })
    }
}
