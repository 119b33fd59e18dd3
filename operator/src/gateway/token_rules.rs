//! The rules that a token must satisfy to be an agent's.

use std::time::Duration;

use crate::identity::rates::Rates;

/// The rules that a token must satisfy to be an agent's, and how often unknown ones are reviewed.
#[derive(Debug, Clone)]
pub struct TokenRules {
    /// The audience that it must be for.
    pub audience: String,
    /// The service account that it must belong to, as `<namespace>:<name>`.
    pub service_account: String,
    /// How long a review by the API server is cached.
    pub believe: Duration,
    /// Timeout of a review.
    pub timeout: Duration,
    /// The rate of reviews of unknown tokens.
    pub rates: Rates,
}

impl TokenRules {
    /// The audience that the chart and the documentation use.
    pub const DEFAULT_AUDIENCE: &'static str = "sentinel-operator";

    /// The rules for agents of this service account.
    pub fn new(namespace: &str, service_account: &str) -> Self {
        Self {
            audience: Self::DEFAULT_AUDIENCE.to_owned(),
            service_account: format!("{namespace}:{service_account}"),
            believe: Duration::from_secs(5),
            timeout: Duration::from_secs(5),
            rates: Rates::default(),
        }
    }
}
