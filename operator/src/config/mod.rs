//! Flags and environment variables, read once. Nothing else in the operator reads either.
//!
//! The URLs of the stores are neither: both are visible in `ps` and in a pod's description. They are read from files, such
//! as a mounted Secret, and again when these change: [`crate::credentials`].

mod admission_flags;
mod audit_flags;
mod error;
mod flags;
mod secret_file;
mod store_flags;
mod transport_flags;
mod validated;
mod values;

pub use self::error::ConfigError;
pub use self::flags::{Cli, EXIT_CONFIG, EXIT_FAILURE, Flags, Verb};
pub use self::transport_flags::MetricsAuth;
pub use self::validated::Config;
pub use self::values::{
    Admission, ApiAuth, Certificate, GeneratedCertificate, LeaseName, PublishedAuthorities, Redis,
    ServiceAccount, Storage, TlsFiles, TrustedProxy, any_loopback_port, parse_duration,
};

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::Parser as _;

    use super::*;
    use crate::http::guard::Secret;

    fn config(flags: &[&str]) -> Result<Config, String> {
        let cli =
            Cli::try_parse_from(std::iter::once(&"operator").chain(flags)).map_err(|e| e.to_string())?;
        cli.flags.into_config().map_err(|error| error.to_string())
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn the_command_line_definition_is_valid() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn storage_requires_its_directory_or_file() {
        let error = config(&["--storage", "embedded"]).unwrap_err();
        assert_eq!(error, "--data-dir is missing: --storage embedded needs it");
        let error = config(&[]).unwrap_err();
        assert_eq!(error, "--mongodb-url-file is missing: --storage mongodb needs it");
    }

    #[test]
    fn nothing_is_served_beyond_loopback_without_authentication_and_encryption() {
        let with = |flags: &[&str]| {
            config(&[&["--storage", "embedded", "--data-dir", "/x"], flags].concat()).map(drop)
        };
        let outside = "--api-listen=0.0.0.0:80";
        let error = with(&[outside]).unwrap_err();
        assert!(error.contains("--api-listen 0.0.0.0:80 is not a loopback address"), "{error}");
        let error = with(&[outside, "--api-auth=kubernetes"]).unwrap_err();
        assert!(error.contains("without a certificate"), "{error}");
        let tls = "--tls-cert-file=/c --tls-key-file=/k";
        let tls: Vec<&str> = tls.split(' ').collect();
        assert_eq!(with(&[&[outside, "--api-auth=kubernetes"], tls.as_slice()].concat()), Ok(()));
        let error = with(&[&[outside], tls.as_slice()].concat()).unwrap_err();
        assert!(error.contains("--api-listen 0.0.0.0:80 is not a loopback address"), "{error}");
        for listener in ["--gateway-listen=0.0.0.0:81", "--metrics-listen=0.0.0.0:82"] {
            let error = with(&[listener]).unwrap_err();
            assert!(error.contains("without a certificate"), "{listener}: {error}");
            assert_eq!(with(&[listener, "--allow-plaintext"]), Ok(()), "{listener}");
        }
        let error = with(&["--aggregated-listen=127.0.0.1:83"]).unwrap_err();
        assert!(error.contains("--aggregated-listen") && error.contains("--tls-cert-file"), "{error}");
    }

    #[test]
    fn rejects_invalid_namespaces() {
        for bad in ["a/b", "..", "A", "a.b", "?x", ""] {
            let flags = ["--storage", "embedded", "--data-dir", "/x", "--watch-namespace", bad];
            let error = config(&flags).unwrap_err();
            assert!(error.contains("at most 63 lower-case letters"), "{bad:?}: {error}");
        }
    }

    #[test]
    fn reads_the_api_token_from_a_file_without_showing_it() {
        let with =
            |path: &str| config(&["--storage", "embedded", "--data-dir", "/x", "--api-token-file", path]);
        let good = file("0123456789abcdef-s3cret\n");
        let config = with(good.path().to_str().unwrap()).unwrap();
        assert_eq!(config.api_auth, ApiAuth::Token(Secret::of("0123456789abcdef-s3cret")));
        assert!(!format!("{config:?}").contains("s3cret"));
        for bad in ["", "short", "two words and more", &"x".repeat(100_000)] {
            let error = with(file(bad).path().to_str().unwrap()).unwrap_err();
            assert!(error.contains("--api-token-file"), "{bad:?}: {error}");
        }
    }

    #[test]
    fn rejects_two_listeners_on_one_address() {
        let flags = ["--storage", "embedded", "--data-dir", "/x", "--metrics-listen", "127.0.0.1:7980"];
        assert_eq!(config(&flags).unwrap_err(), "--api-listen and --metrics-listen are both 127.0.0.1:7980");
    }

    #[test]
    fn reads_a_url_from_a_file_without_showing_it() {
        let good = file("mongodb://user:secret@db/\n");
        let path = good.path().to_str().unwrap();
        let config = config(&["--mongodb-url-file", path]).unwrap();
        assert!(
            matches!(&config.storage, Storage::Mongodb { credentials, .. } if credentials.url() == "mongodb://user:secret@db/")
        );
        assert!(!format!("{config:?}").contains("secret"));
    }

    #[test]
    fn rejects_invalid_url_without_echoing_it() {
        let cases = [
            ("", "it is empty"),
            ("hunter2", "it has no scheme"),
            ("http://db/secret", "its scheme is http://"),
            ("mongodb://", "it names no host"),
            ("mongodb://a\nmongodb://b", "it has more than one line"),
        ];
        for (text, expected) in cases {
            let file = file(text);
            let error = config(&["--mongodb-url-file", file.path().to_str().unwrap()]).unwrap_err();
            assert!(error.contains(expected), "{text:?}: {error}");
            assert!(!error.contains("secret") && !error.contains("hunter2"), "{error}");
        }
        let error = config(&["--mongodb-url-file", "/nowhere/url"]).unwrap_err();
        assert!(error.contains("failed to read the file of --mongodb-url-file, /nowhere/url"), "{error}");
    }

    #[test]
    fn durations_need_units() {
        assert_eq!(parse_duration("1h30m").unwrap(), Duration::from_mins(90));
        assert_eq!(parse_duration("250ms").unwrap(), Duration::from_millis(250));
        for bad in
            ["", "5", "5 minutes", "-1s", "1s1m", "1s1s", "99999999999999999999d", "999999999999999d", "s"]
        {
            assert!(parse_duration(bad).is_err(), "{bad:?} was accepted");
        }
    }
}
