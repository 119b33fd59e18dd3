//! Whether this operator leads. A follower keeps its caches filled and decides nothing.

use sentinel_core::time::Now;
use sentinel_protocol::ids::Epoch;
use tokio::sync::watch;

/// The term of this operator as leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Term {
    /// Its epoch, which commands to agents carry.
    pub epoch: Epoch,
    /// When it began: silence of an agent is counted from here on.
    pub since: Now,
}

/// Whether this operator leads, as every reconcile reads it.
#[derive(Debug, Clone)]
pub struct Leadership(watch::Receiver<Option<Term>>);

/// The writing end of [`Leadership`].
#[derive(Debug)]
pub struct LeadershipSetter(watch::Sender<Option<Term>>);

impl Leadership {
    /// A follower, and the means to make it the leader.
    pub fn new() -> (LeadershipSetter, Self) {
        let (sender, receiver) = watch::channel(None);
        (LeadershipSetter(sender), Self(receiver))
    }

    /// A leader from the beginning, for an operator without an election.
    pub fn always(epoch: Epoch, since: Now) -> (LeadershipSetter, Self) {
        let (setter, leadership) = Self::new();
        setter.lead(epoch, since);
        (setter, leadership)
    }

    /// The current term; `None` while another operator leads, or none.
    pub fn term(&self) -> Option<Term> {
        *self.0.borrow()
    }

    /// Waits until this operator leads, perhaps forever.
    pub(super) async fn wait_until_leading(&mut self) {
        if self.0.wait_for(Option::is_some).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl LeadershipSetter {
    /// This operator leads, with this epoch. A higher epoch within one leadership keeps the beginning of its term.
    pub fn lead(&self, epoch: Epoch, now: Now) {
        self.0.send_modify(|term| {
            let since = term.map_or(now, |term| term.since);
            *term = Some(Term { epoch, since });
        });
    }
}
