//! Keys and certificates: P-256, which every client of ours and the API server take.

use std::net::IpAddr;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};
use x509_parser::pem::parse_x509_pem;

use crate::expiry::{Seconds, Validity};

/// How much earlier than now a certificate begins: clocks of clients may be behind.
const BACKDATED: Seconds = 300;

/// A certificate and its key, PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Issued {
    /// The certificate.
    pub certificate: String,
    /// Its private key.
    pub key: String,
}

impl std::fmt::Debug for Issued {
    /// Never the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Issued(…)")
    }
}

/// A certificate could not be made.
#[derive(Debug, thiserror::Error)]
#[error("failed to make {what}")]
pub struct IssueError {
    what: &'static str,
    #[source]
    source: rcgen::Error,
}

impl IssueError {
    /// The kind of error, one of a fixed set.
    pub fn category(&self) -> &'static str {
        "Issue"
    }

    /// Never: what it is made of has to change.
    pub fn is_retryable(&self) -> bool {
        false
    }
}

/// Makes an authority.
///
/// # Errors
/// [`IssueError`] when the library refuses.
pub fn authority(now: Seconds, lifetime: Duration) -> Result<Issued, IssueError> {
    let make = || {
        let key = KeyPair::generate()?;
        let mut params = params(Vec::new(), "sentinel-node authority", now, lifetime)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?;
        Ok(Issued { certificate: certificate.pem(), key: key.serialize_pem() })
    };
    make().map_err(|source| IssueError { what: "an authority", source })
}

/// Makes the certificate of a server with these DNS names, signed by an authority.
///
/// # Errors
/// [`IssueError`] when a name or the authority cannot be used.
pub fn server(
    names: &[String],
    now: Seconds,
    lifetime: Duration,
    authority: &Issued,
) -> Result<Issued, IssueError> {
    let make = || {
        let issuer = Issuer::from_ca_cert_pem(&authority.certificate, KeyPair::from_pem(&authority.key)?)?;
        let key = KeyPair::generate()?;
        let mut params = params(names.to_vec(), "sentinel-node operator", now, lifetime)?;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.signed_by(&key, &issuer)?;
        Ok(Issued { certificate: certificate.pem(), key: key.serialize_pem() })
    };
    make().map_err(|source| IssueError { what: "the certificate of the listeners", source })
}

fn params(
    names: Vec<String>,
    common_name: &str,
    now: Seconds,
    lifetime: Duration,
) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    let epoch = date_time_ymd(1970, 1, 1);
    let begins = epoch + Duration::from_secs(u64::try_from(now - BACKDATED).unwrap_or(0));
    params.not_before = begins;
    params.not_after = begins + lifetime;
    Ok(params)
}

/// What a certificate states about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// When it is valid.
    pub validity: Validity,
    /// Its DNS names and IP addresses, sorted.
    pub names: Vec<String>,
}

/// Reads a certificate; `None` when it cannot be read.
pub fn describe(pem: &str) -> Option<Described> {
    let (_, pem) = parse_x509_pem(pem.as_bytes()).ok()?;
    let certificate = pem.parse_x509().ok()?;
    let validity = certificate.validity();
    let alternative = certificate.subject_alternative_name().ok().flatten();
    let mut names: Vec<String> = alternative
        .iter()
        .flat_map(|extension| &extension.value.general_names)
        .filter_map(|name| match name {
            x509_parser::extensions::GeneralName::DNSName(name) => Some((*name).to_owned()),
            x509_parser::extensions::GeneralName::IPAddress(bytes) => address(bytes),
            _ => None,
        })
        .collect();
    names.sort_unstable();
    let (not_before, not_after) = (validity.not_before.timestamp(), validity.not_after.timestamp());
    Some(Described { validity: Validity { not_before, not_after }, names })
}

/// An address as it is in a certificate: its 4 or 16 bytes.
fn address(bytes: &[u8]) -> Option<String> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).map(|address| address.to_string()).ok()
}

/// Names as [`describe`] finds them again: sorted, each once, and addresses in their usual form.
pub fn canonical(names: &[String]) -> Vec<String> {
    let usual =
        |name: &String| name.parse::<IpAddr>().map_or_else(|_| name.clone(), |address| address.to_string());
    let mut names: Vec<String> = names.iter().map(usual).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Whether an authority has signed a certificate.
pub fn is_signed_by(certificate: &str, authority: &str) -> bool {
    let check = || {
        let (_, pem) = parse_x509_pem(certificate.as_bytes()).ok()?;
        let (_, of_authority) = parse_x509_pem(authority.as_bytes()).ok()?;
        let (certificate, authority) = (pem.parse_x509().ok()?, of_authority.parse_x509().ok()?);
        certificate.verify_signature(Some(authority.public_key())).ok()
    };
    check().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Seconds = 1_800_000_000;
    const DAY: Duration = Duration::from_hours(24);

    /// Addresses were once not found again, so that a new certificate was made at every check.
    #[test]
    fn the_addresses_of_a_certificate_are_found_again() {
        let authority = authority(NOW, 30 * DAY).unwrap();
        let names = canonical(&["b.svc", "192.0.2.1", "2001:DB8::0:1", "192.0.2.1"].map(str::to_owned));
        let server = server(&names, NOW, DAY, &authority).unwrap();
        assert_eq!(describe(&server.certificate).unwrap().names, names);
        assert_eq!(names, ["192.0.2.1", "2001:db8::1", "b.svc"]);
    }

    #[test]
    fn a_server_certificate_has_its_names_and_is_of_its_authority() {
        let (one, other) = (authority(NOW, 30 * DAY).unwrap(), authority(NOW, 30 * DAY).unwrap());
        let names = ["b.ns.svc".to_owned(), "a.ns.svc".to_owned()];
        let server = server(&names, NOW, DAY, &one).unwrap();
        let described = describe(&server.certificate).unwrap();
        assert_eq!(described.names, ["a.ns.svc", "b.ns.svc"]);
        let begins = NOW - BACKDATED;
        assert_eq!(described.validity, Validity { not_before: begins, not_after: begins + 86_400 });
        assert!(is_signed_by(&server.certificate, &one.certificate));
        assert!(!is_signed_by(&server.certificate, &other.certificate));
        assert!(describe("no certificate").is_none());
    }

    #[test]
    fn a_key_is_never_shown() {
        let made = authority(NOW, DAY).unwrap();
        assert!(!format!("{made:?}").contains("PRIVATE"));
    }
}
