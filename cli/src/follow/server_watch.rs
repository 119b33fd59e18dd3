//! Reports within seconds that the server does not answer, and that it answers again, while something is followed.

use std::time::Duration;

use crate::client::Client;
use crate::exit::{Failure, USAGE};
use crate::output::color::Style;
use crate::output::format::note;
use crate::output::text::Text;

/// Interval between probes of the server.
const PROBE_INTERVAL: Duration = Duration::from_secs(2);

/// How long the answer to a probe may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// How long followers try to reach a server that does not answer.
pub(super) const RECONNECT_TIMEOUT: Duration = Duration::from_mins(5);

/// How long the server may refuse what it has allowed before, or answer 404: after a restart it may not know all yet.
const REFUSED_TIMEOUT: Duration = Duration::from_secs(10);

/// Whether trying again is of no use. `has_answered` is whether the server has answered before, `elapsed` for how long it has
/// not.
pub(super) fn is_final(failure: &Failure, has_answered: bool, elapsed: Duration) -> bool {
    let is_late = elapsed > REFUSED_TIMEOUT;
    failure.code == USAGE
        || (failure.is_not_found() && is_late)
        || (failure.is_lasting && (!has_answered || is_late))
        || elapsed > RECONNECT_TIMEOUT
}

/// Does the work, and meanwhile reports on standard error when the server stops answering and when it is back.
pub(crate) async fn with_server_watch<T>(client: &Client, work: impl Future<Output = T>) -> T {
    let report = |state: Result<(), String>| match state {
        Err(why) => note(
            Text::new()
                .styled(Style::Warning, "sentinel:")
                .plain(format!(" {why}. Commands continue without it; waiting for it to come back.")),
        ),
        Ok(()) => note(Text::message().plain("the server answers again")),
    };
    let name = client.server().to_string();
    tokio::select! {
        done = work => done,
        never = watch(&name, || client.ping(), report) => match never {},
    }
}

/// Probes the server forever; reports each change between answering and not answering, with the reason.
async fn watch<E: std::fmt::Display, P: Future<Output = Result<(), E>>>(
    server: &str,
    probe: impl Fn() -> P,
    mut report: impl FnMut(Result<(), String>),
) -> std::convert::Infallible {
    let mut answered = true;
    loop {
        tokio::time::sleep(PROBE_INTERVAL).await;
        let state = match tokio::time::timeout(PROBE_TIMEOUT, probe()).await {
            Ok(result) => result.map_err(|error| error.to_string()),
            Err(_) => Err(format!("{server} has not answered for {} s", PROBE_TIMEOUT.as_secs())),
        };
        if state.is_ok() != answered {
            answered = state.is_ok();
            report(state);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use tokio::time::Instant;

    use super::*;

    #[test]
    fn a_refusal_is_final_unless_it_was_allowed_a_moment_ago() {
        let mut refused = Failure::new("no");
        refused.status = Some(403);
        let (now, late) = (Duration::ZERO, REFUSED_TIMEOUT + Duration::from_secs(1));
        assert!(is_final(&refused, false, now) && is_final(&refused, true, late));
        assert!(!is_final(&refused, true, now));
        let mut missing = Failure::new("no");
        (missing.status, missing.is_lasting) = (Some(404), false);
        assert!(!is_final(&missing, false, now) && is_final(&missing, true, late));
        let mut broken = Failure::new("no");
        broken.is_lasting = false;
        assert!(!is_final(&broken, false, late) && is_final(&broken, true, RECONNECT_TIMEOUT * 2));
    }

    #[tokio::test(start_paused = true)]
    async fn reports_a_silent_server_within_five_seconds_and_once() {
        let start = Instant::now();
        let answers = Cell::new(true);
        let probe = || async {
            if !answers.get() {
                std::future::pending::<()>().await;
            }
            Ok::<(), String>(())
        };
        let reports = RefCell::new(Vec::new());
        let watch = watch("http://a", probe, |state| reports.borrow_mut().push((start.elapsed(), state)));
        let script = async {
            tokio::time::sleep(Duration::from_secs(9)).await;
            assert!(reports.borrow().is_empty());
            answers.set(false);
            tokio::time::sleep(Duration::from_secs(20)).await;
            answers.set(true);
            tokio::time::sleep(Duration::from_secs(20)).await;
        };
        tokio::select! {
            never = watch => match never {},
            () = script => {}
        }
        let reports = reports.into_inner();
        let silent = Err("http://a has not answered for 3 s".to_owned());
        assert_eq!(reports.len(), 2, "{reports:?}");
        assert_eq!(reports[0].1, silent);
        assert!(reports[0].0 <= Duration::from_secs(9) + PROBE_INTERVAL + PROBE_TIMEOUT, "{reports:?}");
        assert_eq!(reports[1].1, Ok(()));
        assert!(reports[1].0 <= Duration::from_secs(29) + PROBE_INTERVAL + PROBE_TIMEOUT, "{reports:?}");
    }
}
