//! Whether this operator leads. A follower keeps its caches filled and decides nothing.

use sentinel_core::time::Now;
use sentinel_protocol::ids::Epoch;
use tokio::sync::watch;

/// The lead, once this operator has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Led {
    /// Its epoch, which commands to agents carry.
    pub epoch: Epoch,
    /// When it was taken: before that nobody was heard of.
    pub since: Now,
}

/// Whether this operator leads, as every look reads it.
#[derive(Debug, Clone)]
pub struct Lead(watch::Receiver<Option<Led>>);

/// The one place that says so.
#[derive(Debug)]
pub struct LeadSetter(watch::Sender<Option<Led>>);

impl Lead {
    /// A lead that nobody has yet, and the means to take it.
    pub fn new() -> (LeadSetter, Self) {
        let (sender, receiver) = watch::channel(None);
        (LeadSetter(sender), Self(receiver))
    }

    /// A lead that is had from the beginning, for an operator without rivals.
    pub fn always(epoch: Epoch, since: Now) -> (LeadSetter, Self) {
        let (setter, lead) = Self::new();
        setter.take(epoch, since);
        (setter, lead)
    }

    /// The lead, if this operator has it.
    pub fn led(&self) -> Option<Led> {
        *self.0.borrow()
    }

    /// Waits until the lead is taken. Never done when it never is.
    pub(super) async fn taken(&mut self) {
        if self.0.wait_for(Option::is_some).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl LeadSetter {
    /// This operator leads, with this epoch. A higher epoch of the same lead keeps its beginning.
    pub fn take(&self, epoch: Epoch, now: Now) {
        self.0.send_modify(|led| {
            let since = led.map_or(now, |led| led.since);
            *led = Some(Led { epoch, since });
        });
    }
}
