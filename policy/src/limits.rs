//! Within which limits a command may run.

use sentinel_protocol::request::ResourceLimits;
use sentinel_protocol::{duration, quantity};
use serde::Deserialize;

use crate::asked::Asked;
use crate::effect::Effect;
use crate::fit::Fit;
use crate::keyword::present;

/// Limits that a request must have. Those of processors, memory and processes must be set to at most this; those of open files and core
/// dumps may raise what the node has by default, so without them here a request may not set them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LimitsRule {
    /// `run.limits.cpu` must be set to at most this.
    #[serde(default, deserialize_with = "present")]
    pub cpu: Option<Cpu>,
    /// `run.limits.memory` must be set to at most this.
    #[serde(default, deserialize_with = "present")]
    pub memory: Option<Bytes>,
    /// `run.limits.pids` must be set to at most this.
    #[serde(default, deserialize_with = "present")]
    pub pids: Option<u32>,
    /// `run.limits.nofile` may be set to at most this.
    #[serde(default, deserialize_with = "present")]
    pub nofile: Option<u32>,
    /// `run.limits.core` may be set to at most this.
    #[serde(default, deserialize_with = "present")]
    pub core: Option<Bytes>,
}

/// A number of bytes, as in a Task: `256Mi`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Bytes(u64);

impl TryFrom<String> for Bytes {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        quantity::parse(&text)
            .map(Self)
            .ok_or_else(|| format!("{text:?} is not a number of bytes, such as \"256Mi\""))
    }
}

/// An amount of processors, as in a Task: `500m`, `2`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Cpu(u32);

impl TryFrom<String> for Cpu {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        quantity::parse_millis(&text).map(Self).ok_or_else(|| {
            format!("{text:?} is not an amount of processors, such as \"500m\" or \"2\", in quotes")
        })
    }
}

/// A duration, as in a Task: `1h30m`. Milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Duration(u64);

impl TryFrom<String> for Duration {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let millis = duration::parse_in_task(&text).filter(|millis| *millis > 0);
        millis.map(Self).ok_or_else(|| format!("{text:?} is not a duration, such as 5m or 1h30m"))
    }
}

pub(crate) fn fit_limits(rule: Option<&LimitsRule>, asked: &Asked<'_>, effect: Effect) -> Fit {
    if effect == Effect::Deny {
        return Fit::Fits;
    }
    let none = LimitsRule::default();
    let LimitsRule { cpu, memory, pids, nofile, core } = rule.unwrap_or(&none);
    let ResourceLimits { cpu_millis, memory: bytes, pids: processes, nofile: files, core: dump } =
        *asked.limits;
    let must = |field: &str, limit: Option<u64>, most: Option<u64>| match (limit, most) {
        (_, None) => None,
        (None, Some(most)) => Some(format!("run.limits.{field} must be set, to at most {most}")),
        (Some(limit), Some(most)) => {
            (limit > most).then(|| format!("run.limits.{field} is {limit}; the rule allows at most {most}"))
        }
    };
    let may = |field: &str, limit: Option<u64>, most: Option<u64>, default: u64| {
        let most = most.unwrap_or(default);
        let limit = limit.filter(|limit| *limit > most)?;
        Some(format!("run.limits.{field} is {limit}; the rule allows at most {most}"))
    };
    let wrong = must("cpu (thousandths)", cpu_millis.map(u64::from), cpu.map(|cpu| u64::from(cpu.0)))
        .or_else(|| must("memory (bytes)", bytes, memory.map(|bytes| bytes.0)))
        .or_else(|| must("pids", processes.map(u64::from), pids.map(u64::from)))
        .or_else(|| may("nofile", files.map(u64::from), nofile.map(u64::from), DEFAULT_NOFILE))
        .or_else(|| may("core (bytes)", dump, core.map(|bytes| bytes.0), 0));
    wrong.map_or(Fit::Fits, Fit::Differs)
}

/// Open files that a request may always ask for: the soft limit that it has without asking.
const DEFAULT_NOFILE: u64 = 1024;

pub(crate) fn fit_max_run(rule: Option<Duration>, asked: &Asked<'_>) -> Fit {
    let Some(Duration(most)) = rule else { return Fit::Fits };
    Fit::or_differs(asked.run_ms.is_some_and(|run| run <= most), || {
        let most = duration::format(std::time::Duration::from_millis(most));
        format!("timeouts.run or timeouts.total must be set, to at most {most}")
    })
}
