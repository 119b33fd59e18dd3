//! Which requests of people are recorded: the first of the same caller to the same path, once a minute.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

/// A request that is repeated is recorded at most this often.
const EVERY: Duration = Duration::from_mins(1);

/// Requests that are remembered. Beyond, all are forgotten, and the next ones recorded.
const MAX_REMEMBERED: usize = 10_000;

/// The caller, the path, and the status of the answer if it was denied.
type Key = (Option<String>, String, Option<u16>);

/// What was recorded within the last minute.
#[derive(Debug, Default)]
pub(super) struct Accesses(HashMap<Key, Instant>);

impl Accesses {
    /// Whether this request is to be recorded.
    pub(super) fn take(&mut self, user: Option<&str>, path: &str, denied: Option<u16>) -> bool {
        let now = Instant::now();
        let key = (user.map(str::to_owned), path.to_owned(), denied);
        let is_recent = |at: &Instant| now.saturating_duration_since(*at) < EVERY;
        if self.0.get(&key).is_some_and(is_recent) {
            return false;
        }
        if self.0.len() >= MAX_REMEMBERED {
            self.0.retain(|_, at| is_recent(at));
            if self.0.len() >= MAX_REMEMBERED {
                self.0.clear();
            }
        }
        self.0.insert(key, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_repeated_request_is_recorded_once_a_minute() {
        let mut accesses = Accesses::default();
        assert!(accesses.take(Some("alice"), "/a", None));
        assert!(!accesses.take(Some("alice"), "/a", None));
        assert!(accesses.take(Some("bob"), "/a", None) && accesses.take(None, "/a", None));
        assert!(accesses.take(Some("alice"), "/b", None) && accesses.take(Some("alice"), "/a", Some(403)));
        tokio::time::advance(EVERY).await;
        assert!(accesses.take(Some("alice"), "/a", None));
        for n in 0..MAX_REMEMBERED {
            assert!(accesses.take(None, &n.to_string(), Some(401)));
        }
        assert!(accesses.0.len() <= MAX_REMEMBERED);
    }
}
