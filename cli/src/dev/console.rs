//! What dev mode prints of each Run: that it begins, its output, how it ended. Read from the API like anybody would.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::client::{Client, Event, Events};
use crate::exit::Failure;
use crate::follow::{Followed, Look, Subject, Which, follow, summarize};
use crate::output::color::Paint;
use crate::output::format::note;
use crate::output::text::Text;
use crate::view::{Run, Standing, Task};

/// How long what is still to be printed may take at the end.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// The console.
#[derive(Debug)]
pub(super) struct Console {
    task: JoinHandle<()>,
    stop: CancellationToken,
}

/// Begins to print. Runs that are over already are not printed again.
pub(super) async fn start(client: &Client) -> Result<Console, Failure> {
    let mut printing = Printing {
        client: client.clone(),
        seen: HashMap::new(),
        refused: HashMap::new(),
        runs: JoinSet::new(),
    };
    let mut events = client.all_events().await?;
    while let Some(event) = events.next().await? {
        match event {
            Event::Task(value) => printing.look(&Task::of(&value), News::No),
            Event::Deleted(_) => {}
            Event::Synced => break,
        }
    }
    let stop = CancellationToken::new();
    let task = tokio::spawn(print(printing, events, stop.clone()));
    Ok(Console { task, stop })
}

impl Console {
    /// Prints what there still is, and ends.
    pub(super) async fn finish(self) {
        self.stop.cancel();
        // A panic in there was reported where it happened.
        let _ = self.task.await;
    }
}

async fn print(mut printing: Printing, mut events: Events, stop: CancellationToken) {
    loop {
        let next = tokio::select! {
            next = events.next() => next,
            () = stop.cancelled() => break,
        };
        match next {
            Ok(Some(Event::Task(value))) => printing.look(&Task::of(&value), News::Yes),
            Ok(Some(Event::Deleted(value))) => {
                note(Text::sentinel().then(Task::of(&value).full_name()).then(" deleted"));
            }
            Ok(Some(Event::Synced)) => {}
            // The stream ended: ask again. What was printed is not printed twice.
            Ok(None) | Err(_) => {
                tokio::time::sleep(Duration::from_millis(200)).await;
                if let Ok(fresh) = printing.client.all_events().await {
                    events = fresh;
                }
            }
        }
    }
    let all = async { while printing.runs.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(LAST_WORDS, all).await;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum News {
    Yes,
    No,
}

struct Printing {
    client: Client,
    /// The latest Run of each Task, by uid, that is printed or needs not be.
    seen: HashMap<String, u32>,
    /// Why a Task cannot be run, so that it is said once.
    refused: HashMap<String, String>,
    runs: JoinSet<()>,
}

impl Printing {
    fn look(&mut self, task: &Task, news: News) {
        let uid = &task.metadata.uid;
        if let Standing::Invalid(why) = task.standing()
            && self.refused.insert(uid.clone(), why.clone()).as_ref() != Some(&why)
        {
            note(Text::sentinel().then(format!("{} cannot be run: {why}", task.full_name())));
        }
        let Some(run) = &task.status.run else { return };
        if self.seen.get(uid).is_some_and(|seen| *seen >= run.number) {
            return;
        }
        self.seen.insert(uid.clone(), run.number);
        let is_over = run.verdict.is_some();
        if news == News::No && is_over {
            return;
        }
        announce(task, run);
        while self.runs.try_join_next().is_some() {}
        self.runs.spawn(one_run(self.client.clone(), task.clone(), run.number));
    }
}

fn announce(task: &Task, run: &Run) {
    let nodes = match run.target_count {
        1 => "1 node".to_owned(),
        count => format!("{count} nodes"),
    };
    let what = task.command().lines().next().unwrap_or("").to_owned();
    let text = format!(" run {} ({}) on {nodes}: {what}", run.number, run.trigger);
    note(Text::sentinel().painted(Paint::Strong, task.full_name()).then(text));
}

async fn one_run(client: Client, task: Task, number: u32) {
    let subject = Subject {
        client,
        namespace: task.metadata.namespace.clone(),
        name: task.metadata.name.clone(),
        which: Which::Number(number),
        only: BTreeSet::new(),
        look: Look { follow: true, ..Look::default() },
        prefixed: Some(true),
        origin: Some(task.metadata.name.clone()),
    };
    match follow(subject).await {
        Ok(Followed { run: None, .. }) => {}
        Ok(followed) => summarize(&followed),
        Err(failure) => note(Text::sentinel().then(format!("{}: {failure}", task.full_name()))),
    }
}
