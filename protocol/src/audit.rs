//! The head of a chain of audit records, as operator and agents send it to each other: each keeps the heads of others in its own
//! chain, so that what is cut from one is missed by another. The records are in the crate `sentinel-audit`.

use serde::{Deserialize, Serialize};

use crate::ids::{ChainId, Sha256Hex};
use crate::text;

/// The last record of a chain that is durable.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditHead {
    /// The chain.
    pub chain: ChainId,
    /// The number of the record in its chain, from 1.
    #[serde(deserialize_with = "text::count")]
    pub seq: u64,
    /// The record's hash, which covers all records before.
    pub hash: Sha256Hex,
}
