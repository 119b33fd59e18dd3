//! Waiting for conditions, with a deadline and a description of the condition.

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// Polls until the condition holds, for at most `deadline`.
///
/// # Panics
/// When it does not hold in time; the message has the last error.
pub async fn until<T, E: Debug, F: Future<Output = Result<T, E>>>(
    what: &str,
    deadline: Duration,
    mut ask: impl FnMut() -> F,
) -> T {
    let begun = Instant::now();
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(last) if begun.elapsed() > deadline => {
                panic!("{what}: not within {deadline:?}; last: {last:?}")
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(25)).await,
        }
    }
}
