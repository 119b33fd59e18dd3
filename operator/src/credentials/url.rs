//! The URL of a store: its form, and whether it asks for TLS. What else it holds is read by the store's own client.

use std::path::Path;

use super::error::CredentialError;
use super::store::Store;

/// How the URL asks to connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// With TLS.
    Tls,
    /// Without TLS, by an explicit option of the URL.
    PlainByRequest,
    /// Without TLS, since the URL does not mention it.
    Plain,
}

/// Options of a MongoDB URL that are refused, in lower case and as they are written, and what to do instead.
const REFUSED: [(&str, &str, &str); 4] = [
    ("tlscafile", "tlsCAFile", "use --mongodb-tls-ca-file, whose file is read again when it changes"),
    (
        "tlscertificatekeyfile",
        "tlsCertificateKeyFile",
        "use --mongodb-tls-cert-key-file, whose file is read again when it changes",
    ),
    ("tlsinsecure", "tlsInsecure", ANY_MONGODB),
    ("tlsallowinvalidcertificates", "tlsAllowInvalidCertificates", ANY_MONGODB),
];

const ANY_MONGODB: &str =
    "it would trust any server; give the CA of the server's certificate by --mongodb-tls-ca-file";
const ANY_REDIS: &str =
    "it would trust any server; give the CA of the server's certificate by --redis-tls-ca-file";

/// Checks the text of a file.
pub(super) fn check(store: Store, path: &Path, text: &str) -> Result<String, CredentialError> {
    let url = text.trim();
    let wrong = |found: String| CredentialError::Content {
        flag: store.url_flag(),
        path: path.to_owned(),
        expected: store.expected_url(),
        found,
    };
    if url.is_empty() {
        return Err(wrong("it is empty".to_owned()));
    }
    if url.lines().count() > 1 {
        return Err(wrong("it has more than one line".to_owned()));
    }
    let Some(rest) = store.schemes().iter().find_map(|scheme| url.strip_prefix(scheme)) else {
        // A scheme is not a secret; anything else may be one.
        let scheme = url.split_once("://").map(|(scheme, _)| scheme).filter(|scheme| {
            scheme.len() <= 16
                && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
        });
        return Err(wrong(match scheme {
            Some(scheme) => format!("its scheme is {scheme}://"),
            None => "it has no scheme".to_owned(),
        }));
    };
    if rest.is_empty() || rest.starts_with('/') {
        return Err(wrong("it names no host".to_owned()));
    }
    if let Some((option, instead)) = refused_option(store, url) {
        return Err(CredentialError::UrlOption { store, path: path.to_owned(), option, instead });
    }
    Ok(url.to_owned())
}

/// An option that is refused, and what to do instead.
fn refused_option(store: Store, url: &str) -> Option<(&'static str, &'static str)> {
    match store {
        Store::Redis => url.ends_with("#insecure").then_some(("#insecure", ANY_REDIS)),
        Store::Mongodb => {
            let given = |name: &str| options(url).any(|(key, _)| key == name);
            REFUSED.into_iter().find(|(key, ..)| given(key)).map(|(_, option, instead)| (option, instead))
        }
    }
}

/// How a URL asks to connect.
pub(super) fn transport(store: Store, url: &str) -> Transport {
    match store {
        Store::Redis if url.starts_with("rediss://") => Transport::Tls,
        Store::Redis => Transport::Plain,
        Store::Mongodb => {
            let asked = options(url).filter(|(key, _)| key == "tls" || key == "ssl").last();
            match asked {
                Some((_, "true")) => Transport::Tls,
                Some(_) => Transport::PlainByRequest,
                None if url.starts_with("mongodb+srv://") => Transport::Tls,
                None => Transport::Plain,
            }
        }
    }
}

/// The options of a MongoDB URL. Their names are not case-sensitive.
fn options(url: &str) -> impl Iterator<Item = (String, &str)> {
    let options = url.rsplit_once('?').map_or("", |(_, options)| options);
    options.split('&').filter_map(|pair| pair.split_once('=')).map(|(key, value)| (key.to_lowercase(), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_asks_for_tls_as_its_client_reads_it() {
        for (url, expected) in [
            ("mongodb://db/", Transport::Plain),
            ("mongodb://user:p@db:1,db:2/admin?tls=true&w=1", Transport::Tls),
            ("mongodb://db/?SSL=true", Transport::Tls),
            ("mongodb://db/?tls=false", Transport::PlainByRequest),
            ("mongodb+srv://db/", Transport::Tls),
            ("mongodb+srv://db/?tls=false", Transport::PlainByRequest),
        ] {
            assert_eq!(transport(Store::Mongodb, url), expected, "{url}");
        }
        assert_eq!(transport(Store::Redis, "redis://db/"), Transport::Plain);
        assert_eq!(transport(Store::Redis, "rediss://db/"), Transport::Tls);
    }

    #[test]
    fn options_that_trust_any_server_or_name_files_are_refused() {
        let path = Path::new("/secret/url");
        for (option, instead) in [
            ("tlsCAFile=/x", "--mongodb-tls-ca-file"),
            ("tlscertificatekeyfile=/x", "--mongodb-tls-cert-key-file"),
            ("tlsInsecure=true", "it would trust any server"),
            ("tlsAllowInvalidCertificates=true", "it would trust any server"),
        ] {
            let url = format!("mongodb://user:hunter2@db/?tls=true&{option}");
            let error = check(Store::Mongodb, path, &url).unwrap_err().to_string();
            assert!(error.contains("/secret/url") && error.contains(instead), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
        let error = check(Store::Redis, path, "rediss://u:hunter2@db/#insecure").unwrap_err().to_string();
        assert!(error.contains("#insecure: it would trust any server"), "{error}");
    }
}
