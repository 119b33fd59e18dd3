//! A proxy that has authenticated its client, and names it in headers.
//!
//! Two kinds exist: the front proxy of the API server, which forwards requests for the aggregated API (the *request header*
//! authentication of Kubernetes: <https://kubernetes.io/docs/tasks/extend-kubernetes/configure-aggregation-layer/>), and a
//! proxy that an administrator trusts for the page, such as one that signs people in. Its headers count only on a connection
//! whose client certificate is signed by its CA and carries one of its names; any client could send them.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName};
use sentinel_api::path::unescape;

use super::error::AuthError;
use super::principal::Principal;
use crate::server::ClientCertificate;

/// Most groups, and most values of further attributes, that are read from headers.
const MAX_VALUES: usize = 256;

/// Which client certificates are the proxy's, and where it names its client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyRules {
    /// Common names of the proxy's certificate; empty for every certificate of its CA.
    pub names: Vec<String>,
    /// Headers with the user name; the first one present counts.
    pub user: Vec<HeaderName>,
    /// Headers with a group each.
    pub groups: Vec<HeaderName>,
    /// What separates several groups in one header; without it a header has one, whatever is in its name.
    pub separator: Option<char>,
    /// Prefixes of headers with further attributes: the rest of the name is the key, escaped as %XX.
    pub extra: Vec<String>,
    /// Headers with the uid; the first one present counts.
    pub uid: Vec<HeaderName>,
}

impl ProxyRules {
    /// Whom the proxy names.
    ///
    /// # Errors
    /// [`AuthError::Missing`] when the connection is not the proxy's or no user is named, [`AuthError::Malformed`] when the
    /// headers cannot be read.
    pub fn principal(
        &self,
        headers: &HeaderMap,
        certificate: Option<&ClientCertificate>,
    ) -> Result<Principal, AuthError> {
        let certificate = certificate.ok_or(AuthError::Missing)?;
        if !self.is_proxy(certificate) {
            let name = certificate.common_name.as_deref().unwrap_or_default();
            return Err(AuthError::Invalid(format!("the client certificate {name:?} is not the proxy's")));
        }
        let name = first(headers, &self.user)?.filter(|name| !name.is_empty()).ok_or(AuthError::Missing)?;
        Ok(Principal {
            name: name.to_owned(),
            uid: first(headers, &self.uid)?.filter(|uid| !uid.is_empty()).map(str::to_owned),
            groups: self.groups(headers)?,
            extra: self.extra(headers)?,
        })
    }

    /// Whether a certificate, whose chain is verified already, is the proxy's.
    pub fn is_proxy(&self, certificate: &ClientCertificate) -> bool {
        let name = certificate.common_name.as_deref();
        self.names.is_empty() || self.names.iter().any(|allowed| Some(allowed.as_str()) == name)
    }

    /// Whether these headers name a client.
    pub fn is_used(&self, headers: &HeaderMap) -> bool {
        self.user.iter().any(|name| headers.contains_key(name))
    }

    fn groups(&self, headers: &HeaderMap) -> Result<Vec<String>, AuthError> {
        let mut groups = Vec::new();
        for value in self.groups.iter().flat_map(|name| headers.get_all(name)) {
            let value = text(value)?;
            let several = self.separator.map(|separator| value.split(separator).map(str::trim));
            let names: Vec<&str> = several.map_or_else(|| vec![value], Iterator::collect);
            if groups.len() + names.len() > MAX_VALUES {
                return Err(AuthError::Malformed("it names too many groups"));
            }
            groups.extend(names.into_iter().filter(|name| !name.is_empty()).map(str::to_owned));
        }
        Ok(groups)
    }

    fn extra(&self, headers: &HeaderMap) -> Result<BTreeMap<String, Vec<String>>, AuthError> {
        let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (count, (name, value)) in headers.iter().enumerate() {
            let Some(key) = self.extra.iter().find_map(|prefix| name.as_str().strip_prefix(prefix.as_str()))
            else {
                continue;
            };
            if count >= MAX_VALUES {
                return Err(AuthError::Malformed("it has too many headers"));
            }
            let key = unescape(key).ok_or(AuthError::Malformed("a header's name has an invalid escape"))?;
            extra.entry(key).or_default().push(text(value)?.to_owned());
        }
        Ok(extra)
    }
}

/// The value of the first of these headers that is present; a second value of one is an error, since it is unclear whose it is.
fn first<'a>(headers: &'a HeaderMap, names: &[HeaderName]) -> Result<Option<&'a str>, AuthError> {
    for name in names {
        let mut values = headers.get_all(name).iter();
        let Some(value) = values.next() else { continue };
        if values.next().is_some() {
            return Err(AuthError::Malformed("the proxy's header with the user occurs more than once"));
        }
        return text(value).map(Some);
    }
    Ok(None)
}

fn text(value: &http::HeaderValue) -> Result<&str, AuthError> {
    std::str::from_utf8(value.as_bytes()).map_err(|_| AuthError::Malformed("the proxy's header is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> ProxyRules {
        let header = HeaderName::from_static;
        ProxyRules {
            names: vec!["front-proxy".to_owned()],
            user: vec![header("x-remote-user")],
            groups: vec![header("x-remote-group")],
            separator: None,
            extra: vec!["x-remote-extra-".to_owned()],
            uid: vec![header("x-remote-uid")],
        }
    }

    fn certificate(name: &str) -> ClientCertificate {
        ClientCertificate { common_name: Some(name.to_owned()) }
    }

    fn headers(of: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in of {
            map.append(*name, value.parse().unwrap());
        }
        map
    }

    #[test]
    fn the_proxys_headers_name_the_client() {
        let given = headers(&[
            ("x-remote-user", "jane"),
            ("x-remote-group", "ops"),
            ("x-remote-group", "system:authenticated"),
            ("x-remote-extra-example.com%2fscope", "a"),
            ("x-remote-extra-example.com%2fscope", "b"),
            ("x-remote-uid", "u-1"),
        ]);
        let jane = rules().principal(&given, Some(&certificate("front-proxy"))).unwrap();
        assert_eq!((jane.name.as_str(), jane.uid.as_deref()), ("jane", Some("u-1")));
        assert_eq!(jane.groups, ["ops", "system:authenticated"]);
        assert_eq!(jane.extra["example.com/scope"], ["a", "b"]);
    }

    #[test]
    fn one_header_has_several_groups_only_where_a_separator_is_configured() {
        let given =
            headers(&[("x-remote-user", "jane"), ("x-remote-group", "a, b,,c"), ("x-remote-group", "d")]);
        let groups =
            |rules: ProxyRules| rules.principal(&given, Some(&certificate("front-proxy"))).unwrap().groups;
        assert_eq!(groups(rules()), ["a, b,,c", "d"]);
        assert_eq!(groups(ProxyRules { separator: Some(','), ..rules() }), ["a", "b", "c", "d"]);
        let many = headers(&[("x-remote-user", "jane"), ("x-remote-group", &",".repeat(MAX_VALUES))]);
        let rules = ProxyRules { separator: Some(','), ..rules() };
        let refused = rules.principal(&many, Some(&certificate("front-proxy"))).unwrap_err();
        assert_eq!(refused.category(), "Malformed");
    }

    #[test]
    fn headers_of_other_clients_do_not_count() {
        let given = headers(&[("x-remote-user", "admin"), ("x-remote-group", "system:masters")]);
        let refused = |certificate: Option<&ClientCertificate>| {
            rules().principal(&given, certificate).unwrap_err().category()
        };
        assert_eq!(refused(None), "Missing");
        assert_eq!(refused(Some(&certificate("node-1"))), "Invalid");
        assert_eq!(refused(Some(&ClientCertificate { common_name: None })), "Invalid");
    }

    #[test]
    fn a_request_that_names_no_client_or_two_is_nobodys() {
        let proxy = certificate("front-proxy");
        let refused = |of: &[(&'static str, &str)]| {
            rules().principal(&headers(of), Some(&proxy)).unwrap_err().category()
        };
        assert_eq!(refused(&[]), "Missing");
        assert_eq!(refused(&[("x-remote-group", "system:masters")]), "Missing");
        assert_eq!(refused(&[("x-remote-user", "")]), "Missing");
        assert_eq!(refused(&[("x-remote-user", "a"), ("x-remote-user", "b")]), "Malformed");
    }
}
