//! kstatus's generic rules and what a Task's status may claim, as an oracle for every status ever written.
//!
//! Source: `checkGenericProperties` and `checkReadyCondition` in
//! <https://github.com/kubernetes-sigs/cli-utils/tree/master/pkg/kstatus/status>. Helm, Argo CD and Flux decide by these
//! rules or by a subset of them.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "shared by test files that each use a part")]

/// What kstatus concludes about an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kstatus {
    Terminating,
    InProgress,
    Failed,
    Current,
}

/// What the oracle reads of an object: its conditions as pairs of type and status, in their order.
#[derive(Debug, Clone)]
pub struct Shown<'a> {
    pub conditions: Vec<(&'a str, &'a str)>,
    pub generation: i64,
    pub observed_generation: i64,
    pub deleting: bool,
}

impl Shown<'_> {
    pub fn kstatus(&self) -> Kstatus {
        if self.deleting {
            return Kstatus::Terminating;
        }
        if self.generation != self.observed_generation {
            return Kstatus::InProgress;
        }
        for condition in &self.conditions {
            match condition {
                ("Reconciling", "True") => return Kstatus::InProgress,
                ("Stalled", "True") => return Kstatus::Failed,
                _ => {}
            }
        }
        match self.conditions.iter().find(|(kind, _)| *kind == "Ready") {
            Some((_, "True")) | None => Kstatus::Current,
            Some(_) => Kstatus::InProgress,
        }
    }

    pub fn is(&self, kind: &str, status: &str) -> bool {
        self.conditions.contains(&(kind, status))
    }

    /// Whether it claims that a Run of the generation it speaks about has ended, and how: `Some(true)` is a success.
    /// An error where two readers of the same status would conclude different things.
    pub fn claim(&self) -> Result<Option<bool>, String> {
        let (complete, failed) = (self.is("Complete", "True"), self.is("Failed", "True"));
        let rejected = self.is("Accepted", "False");
        let ready = self.conditions.iter().find(|(kind, _)| *kind == "Ready").map(|(_, status)| *status);
        let reconciling = self.is("Reconciling", "True");
        let stalled = self.is("Stalled", "True");
        let settled = Self { generation: 1, observed_generation: 1, deleting: false, ..self.clone() };
        let expected = match (complete, failed || rejected) {
            (true, true) => return Err(format!("both Complete and Failed: {:?}", self.conditions)),
            (true, false) => (Some("True"), false, false, Kstatus::Current),
            (false, true) => (Some("False"), false, true, Kstatus::Failed),
            (false, false) => (Some("Unknown"), true, false, Kstatus::InProgress),
        };
        let shown = (ready, reconciling, stalled, settled.kstatus());
        if shown != expected {
            return Err(format!("(Ready, Reconciling, Stalled, kstatus) is {shown:?}, not {expected:?}"));
        }
        Ok(if rejected { None } else { (complete || failed).then_some(complete) })
    }
}
