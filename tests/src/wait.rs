//! Waiting for conditions, with a deadline and a word about what was waited for.

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// Asks until the answer is there, for at most `deadline`.
///
/// # Panics
/// When it is not there in time; the message has the last answer.
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
