//! Rules of the protocol, each broken on purpose to see that the simulation notices.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutation {
    /// A command is started before the log is durable: a reboot forgets it.
    StartBeforeSync,
    /// It is reported that an Attempt was accepted before the log is durable.
    ReportBeforeSync,
    /// The operator acknowledges a Report before History holds it.
    AckBeforeHistory,
    /// An agent obeys a leader that was deposed.
    EpochIgnored,
    /// An agent drops an acknowledged result without waiting for Forget.
    DropOnAck,
    /// The operator lets agents forget before the Run is archived, and agents do so without an Ack.
    ForgetBeforeArchive,
    /// No tombstone is kept after Forget or an early Cancel.
    NoTombstone,
    /// A supervisor starts its command without taking the lock.
    LockIgnored,
    /// A supervisor does not check for `abandoned` once it has the lock.
    AbandonedIgnored,
    /// A new target list is dispatched before it is durable.
    DispatchBeforeFreeze,
    /// The operator writes status without comparing the version it read.
    StatusWithoutCompare,
    /// An agent never resends a Report.
    NoResend,
    /// A Session begins without an Inventory.
    NoInventory,
    /// An older write undoes a newer one in History.
    HistoryGoesBack,
    /// `starting` is not written before the command is started.
    NoStartingRecord,
    /// A command is started where another of the same Task still lives.
    BusyIgnored,
    /// A Run that is over shows its verdict while another is due.
    VerdictOfTheRunBefore,
    /// An operator that finds History empty does not know that it once had the Run.
    HistoryLossUnnoticed,
    /// A Task whose spec may run only once is released before History has its Runs.
    ReleaseBeforeHistory,
    /// The finalizer of such a Task is set beside its first commands, as that of any other.
    OnceHeldBesideDispatch,
    /// A command whose Task is gone is not cancelled.
    OrphansRun,
}

impl Mutation {
    pub const ALL: [Self; 21] = [
        Self::StartBeforeSync,
        Self::ReportBeforeSync,
        Self::AckBeforeHistory,
        Self::EpochIgnored,
        Self::DropOnAck,
        Self::ForgetBeforeArchive,
        Self::NoTombstone,
        Self::LockIgnored,
        Self::AbandonedIgnored,
        Self::DispatchBeforeFreeze,
        Self::StatusWithoutCompare,
        Self::NoResend,
        Self::NoInventory,
        Self::HistoryGoesBack,
        Self::NoStartingRecord,
        Self::BusyIgnored,
        Self::VerdictOfTheRunBefore,
        Self::HistoryLossUnnoticed,
        Self::ReleaseBeforeHistory,
        Self::OnceHeldBesideDispatch,
        Self::OrphansRun,
    ];
}
