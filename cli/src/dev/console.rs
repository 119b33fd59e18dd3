//! What dev mode prints of each Run: its start, its output and its result, read from the HTTP API.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::client::{Client, Event, Events};
use crate::exit::Failure;
use crate::follow::{FollowRequest, FollowedRun, LogOptions, RunSelector, follow, summarize};
use crate::output::color::Style;
use crate::output::counted;
use crate::output::format::note;
use crate::output::text::Text;
use crate::view::{Run, Standing, Task};

/// How long the remaining output may take at the end.
const FINISH_TIMEOUT: Duration = Duration::from_secs(3);

/// Pause before events are requested again after their stream ended.
const RECONNECT_PAUSE: Duration = Duration::from_millis(200);

/// The console.
#[derive(Debug)]
pub(super) struct Console {
    task: JoinHandle<()>,
    stop: CancellationToken,
}

/// Starts to print. Runs that have already ended are not printed again.
pub(super) async fn start(client: &Client) -> Result<Console, Failure> {
    let mut printer = RunPrinter {
        client: client.clone(),
        latest: HashMap::new(),
        rejected: HashMap::new(),
        runs: JoinSet::new(),
    };
    let mut events = client.all_events().await?;
    while let Some(event) = events.next().await? {
        match event {
            Event::Task(task) => printer.observe(&task, Delivery::Initial),
            Event::Deleted(_) => {}
            Event::Synced => break,
        }
    }
    let stop = CancellationToken::new();
    let task = tokio::spawn(print(printer, events, stop.clone()));
    Ok(Console { task, stop })
}

impl Console {
    /// Prints the remaining output and ends.
    pub(super) async fn finish(self) {
        self.stop.cancel();
        // A panic of the task has been reported already.
        let _ = self.task.await;
    }
}

async fn print(mut printer: RunPrinter, mut events: Events, stop: CancellationToken) {
    loop {
        let next = tokio::select! {
            next = events.next() => next,
            () = stop.cancelled() => break,
        };
        match next {
            Ok(Some(Event::Task(task))) => printer.observe(&task, Delivery::Update),
            Ok(Some(Event::Deleted(task))) => {
                note(Text::message().plain(task.full_name()).plain(" deleted"));
            }
            Ok(Some(Event::Synced)) => {}
            // The stream ended. Runs that were printed are not printed again.
            Ok(None) | Err(_) => {
                let reconnect = async {
                    tokio::time::sleep(RECONNECT_PAUSE).await;
                    printer.client.all_events().await
                };
                // An answer that never comes must not hold up the end of dev mode.
                match stop.run_until_cancelled(reconnect).await {
                    Some(Ok(reconnected)) => events = reconnected,
                    Some(Err(_)) => {}
                    None => break,
                }
            }
        }
    }
    let all = async { while printer.runs.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(FINISH_TIMEOUT, all).await;
}

/// How a Task arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Delivery {
    /// In the initial list.
    Initial,
    /// As a change.
    Update,
}

/// Prints Runs.
struct RunPrinter {
    client: Client,
    /// The latest Run of each Task, by uid, that was printed or had ended before.
    latest: HashMap<String, u32>,
    /// Why a Task cannot be run, by uid, so that it is reported once.
    rejected: HashMap<String, String>,
    runs: JoinSet<()>,
}

impl RunPrinter {
    /// Starts to print the Run of a Task, if it is a new one.
    fn observe(&mut self, task: &Task, delivery: Delivery) {
        let uid = &task.metadata.uid;
        if let Standing::Invalid(why) = task.standing()
            && self.rejected.insert(uid.clone(), why.clone()).as_ref() != Some(&why)
        {
            note(Text::message().plain(format!("{} cannot be run: {why}", task.full_name())));
        }
        let Some(run) = &task.status.run else { return };
        if self.latest.get(uid).is_some_and(|latest| *latest >= run.number) {
            return;
        }
        self.latest.insert(uid.clone(), run.number);
        let ended = run.verdict.is_some();
        if delivery == Delivery::Initial && ended {
            return;
        }
        announce(task, run);
        while self.runs.try_join_next().is_some() {}
        self.runs.spawn(print_run(self.client.clone(), task.clone(), run.number));
    }
}

fn announce(task: &Task, run: &Run) {
    let nodes = counted(run.target_count, "node");
    let command = task.command().lines().next().unwrap_or("").to_owned();
    let text = format!(" run {} ({}) on {nodes}: {command}", run.number, run.trigger);
    note(Text::message().styled(Style::Bold, task.full_name()).plain(text));
}

async fn print_run(client: Client, task: Task, number: u32) {
    let request = FollowRequest {
        client,
        namespace: task.metadata.namespace.clone(),
        name: task.metadata.name.clone(),
        run: RunSelector::Number(number),
        nodes: BTreeSet::new(),
        options: LogOptions { follow: true, ..LogOptions::default() },
        prefixed: Some(true),
        show_task: true,
        output_only: false,
    };
    match follow(request).await {
        Ok(FollowedRun { run: None, .. }) => {}
        Ok(followed) => summarize(&followed),
        Err(failure) => note(Text::message().plain(format!("{}: {failure}", task.full_name()))),
    }
}
