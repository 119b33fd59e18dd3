//! Certificate authorities and certificates for tests over TLS, made by `openssl`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};

/// A certificate authority that signs itself.
#[derive(Debug, Clone)]
pub struct Ca {
    /// Its certificate, PEM.
    pub certificate: PathBuf,
    key: PathBuf,
}

/// The files of a server certificate.
#[derive(Debug, Clone)]
pub struct ServerCertificate {
    /// The certificate, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
}

/// A key, and what an authority needs to certify it.
struct Requested {
    request: PathBuf,
    extensions: PathBuf,
    issued: ServerCertificate,
}

impl Ca {
    /// A new authority with its files in this directory.
    pub fn new(directory: &Path, name: &str) -> Self {
        let ca = Self {
            certificate: directory.join(format!("{name}.crt")),
            key: directory.join(format!("{name}.key")),
        };
        let arguments = ["req", "-x509", "-days", "2", "-subj", &format!("/CN={name}")];
        let extensions =
            ["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign"];
        openssl(
            &[&arguments[..], &NEW_KEY, &extensions].concat(),
            &[("-keyout", &ca.key), ("-out", &ca.certificate)],
        );
        ca
    }

    /// A certificate for this DNS name, for servers and clients; its files are called `name`.
    pub fn issue(&self, directory: &Path, name: &str, dns_name: &str) -> ServerCertificate {
        let requested = Self::request(directory, name, dns_name);
        let serial = format!("0x{}", uuid::Uuid::new_v4().simple());
        openssl(
            &["x509", "-req", "-days", "2", "-set_serial", &serial],
            &[
                ("-in", &requested.request),
                ("-CA", &self.certificate),
                ("-CAkey", &self.key),
                ("-extfile", &requested.extensions),
                ("-out", &requested.issued.certificate),
            ],
        );
        requested.issued
    }

    /// The same, but it expired years ago.
    pub fn issue_expired(&self, directory: &Path, name: &str, dns_name: &str) -> ServerCertificate {
        let requested = Self::request(directory, name, dns_name);
        // Only `openssl ca` takes a date in the past, and it keeps books.
        let (database, config) =
            (directory.join(format!("{name}.db")), directory.join(format!("{name}.cnf")));
        std::fs::write(&database, "").expect("a written file");
        let rules = format!("database={}\nrand_serial=yes\npolicy=names\n", database.display());
        let text = format!("[ca]\ndefault_ca=this\n[this]\n{rules}[names]\ncommonName=supplied\n");
        std::fs::write(&config, text).expect("a written file");
        let dates = ["-startdate", "20200101000000Z", "-enddate", "20200201000000Z"];
        openssl(
            &[&["ca", "-batch", "-notext", "-md", "sha256"][..], &dates].concat(),
            &[
                ("-config", &config),
                ("-in", &requested.request),
                ("-cert", &self.certificate),
                ("-keyfile", &self.key),
                ("-extfile", &requested.extensions),
                ("-outdir", &directory.to_owned()),
                ("-out", &requested.issued.certificate),
            ],
        );
        requested.issued
    }

    fn request(directory: &Path, name: &str, dns_name: &str) -> Requested {
        let path = |extension: &str| directory.join(format!("{name}.{extension}"));
        let (request, extensions) = (path("csr"), path("ext"));
        let issued = ServerCertificate { certificate: path("crt"), key: path("key") };
        let subject = format!("/CN={dns_name}");
        let arguments = ["req", "-new", "-subj", subject.as_str()];
        openssl(&[&arguments[..], &NEW_KEY].concat(), &[("-keyout", &issued.key), ("-out", &request)]);
        let text = format!("subjectAltName=DNS:{dns_name}\nextendedKeyUsage=serverAuth,clientAuth\n");
        std::fs::write(&extensions, text).expect("a written file");
        Requested { request, extensions, issued }
    }
}

impl ServerCertificate {
    /// Replaces these files by those of another certificate, each by a rename as an editor or a mount does it.
    pub fn replace_with(&self, other: &Self) {
        for (from, to) in [(&other.certificate, &self.certificate), (&other.key, &self.key)] {
            let fresh = to.with_extension("new");
            std::fs::copy(from, &fresh).expect("a copy");
            std::fs::rename(&fresh, to).expect("a renamed file");
        }
    }

    /// The certificate's bytes.
    pub fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(&self.certificate).expect("a certificate")
    }
}

/// The certificate that the server on a loopback port presents for `dns_name`, verified against `ca`.
///
/// # Errors
/// Why there is no TLS connection.
pub async fn presented(port: u16, dns_name: &str, ca: &Ca) -> Result<CertificateDer<'static>, String> {
    let (name, ca) = (dns_name.to_owned(), ca.certificate.clone());
    let handshake = move || -> Result<CertificateDer<'static>, String> {
        let mut roots = rustls::RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_file(ca).map_err(|error| error.to_string())?)
            .map_err(|e| e.to_string())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(name).map_err(|error| error.to_string())?;
        let mut client =
            rustls::ClientConnection::new(Arc::new(config), name).map_err(|error| error.to_string())?;
        let mut tcp = std::net::TcpStream::connect(("127.0.0.1", port)).map_err(|error| error.to_string())?;
        tcp.set_read_timeout(Some(Duration::from_secs(5))).map_err(|error| error.to_string())?;
        while client.is_handshaking() {
            client.complete_io(&mut tcp).map_err(|error| error.to_string())?;
        }
        let chain = client.peer_certificates().unwrap_or_default();
        chain.first().map(|found| found.clone().into_owned()).ok_or_else(|| "no certificate".to_owned())
    };
    tokio::task::spawn_blocking(handshake).await.expect("the handshake does not panic")
}

/// A new private key without a passphrase.
const NEW_KEY: [&str; 5] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];

fn openssl(arguments: &[&str], files: &[(&str, &PathBuf)]) {
    let mut command = Command::new("openssl");
    command.args(arguments);
    for (flag, file) in files {
        command.arg(flag).arg(file);
    }
    let output = command.output().expect("openssl starts");
    assert!(output.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}
