//! `logs --grep`: lines that match an expression, found by the server.

use sentinel_api::client::SearchQuery;
use sentinel_api::view::SearchLineView;
use sentinel_protocol::log::Stream;
use unicode_width::UnicodeWidthStr;

use crate::client::Client;
use crate::exit::{ExitResult, FAILED, Failure, OK};
use crate::output::color::Style;
use crate::output::format::print;
use crate::output::padded;
use crate::output::text::Text;

/// An Execution that is searched: its path, and the name that its lines are prefixed with.
pub(super) struct Searched {
    pub(super) path: String,
    pub(super) prefix: Option<String>,
    pub(super) attempt: Option<u32>,
}

/// Prints the matching lines of each; the exit code is that of grep: 1 without any.
pub(super) async fn execute(
    client: &Client,
    searched: &[Searched],
    pattern: &str,
    stream: Option<Stream>,
) -> ExitResult {
    let prefixes = || searched.iter().filter_map(|one| one.prefix.as_deref());
    let width = prefixes().map(UnicodeWidthStr::width).max().unwrap_or(0);
    let mut has_hit = false;
    for one in searched {
        has_hit |= search(client, one, pattern, stream, width).await?;
    }
    Ok(if has_hit { OK } else { FAILED })
}

/// Whether there was a hit.
async fn search(
    client: &Client,
    searched: &Searched,
    pattern: &str,
    stream: Option<Stream>,
    width: usize,
) -> Result<bool, Failure> {
    let mut has_hit = false;
    let mut from = 0;
    loop {
        let wanted = SearchQuery { pattern, from, stream, attempt: searched.attempt };
        let begun = from;
        let mut search = client.search(&searched.path, wanted).await?;
        loop {
            match search.next().await? {
                Some(SearchLineView::Hit { text: [before, matched, behind], .. }) => {
                    has_hit = true;
                    let mut line = Text::new();
                    if let Some(prefix) = &searched.prefix {
                        let name = padded(prefix, width);
                        line = line
                            .styled(Style::node(prefix), name)
                            .plain(" ")
                            .styled(Style::Dim, "|")
                            .plain(" ");
                    }
                    print(line.plain(before).styled(Style::Error, matched).plain(behind).plain("\n"))?;
                }
                Some(SearchLineView::Progress { position, .. }) => from = position,
                Some(SearchLineView::End { complete: true, .. }) => return Ok(has_hit),
                Some(SearchLineView::End { position, .. }) => {
                    from = position;
                    break;
                }
                // Continued, unless it comes no further.
                None if from > begun => break,
                None => return Err(Failure::new("the search broke off; the server may be restarting")),
            }
        }
    }
}
