//! `logs -o json`: lines of output as JSON, those of several nodes by time.

use crate::client::{Client, LineSource, LogQuery};
use crate::exit::{ExitResult, Failure, OK};
use crate::follow::{FollowedLines, LogOptions, follow_lines, print_lines, with_server_watch};

/// Prints the lines of a Run.
pub(super) async fn of_run(client: &Client, source: LineSource<'_>, options: LogOptions) -> ExitResult {
    if !options.follow {
        print_lines(client.run_lines(&source, options.since).await?).await?;
        return Ok(OK);
    }
    let after = match options.since {
        Some(since) => Some(client.run_lines_since(&source, since).await?),
        None => None,
    };
    followed(client, FollowedLines::Run(source), after).await
}

/// Prints the lines of the Execution at a path: of its latest Attempt without a number.
pub(super) async fn of_execution(
    client: &Client,
    path: &str,
    attempt: Option<u32>,
    options: LogOptions,
) -> ExitResult {
    let wanted = LogQuery {
        follow: false,
        from: options.from,
        stream: options.stream,
        attempt,
        tail: options.tail,
        since: options.since,
    };
    let mut log = client.log_lines(&format!("{path}/log"), wanted).await?;
    if !options.follow {
        print_lines(log).await?;
        return Ok(OK);
    }
    let Some(attempt) = log.attempt.take() else {
        return Err(Failure::new(format!("{} named no Attempt in its answer about {path}", client.server()))
            .hint("Is the server of another release than this program? See: sentinel version"));
    };
    let after = log.begins_at.map(|position| position.to_string());
    drop(log);
    followed(client, FollowedLines::Attempt { path, attempt, stream: options.stream }, after).await
}

async fn followed(client: &Client, lines: FollowedLines<'_>, after: Option<String>) -> ExitResult {
    with_server_watch(client, Box::pin(follow_lines(client, &lines, after))).await?;
    Ok(OK)
}
