//! Examines requests on a thread of its own. A file system of another machine may not answer for minutes, and the agent's thread has
//! other commands to see to.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{RecvTimeoutError, SendError, SyncSender, sync_channel};
use std::time::Duration;

use sentinel_core::agent::FileIdentity;
use sentinel_policy::document::Policy;
use sentinel_protocol::request::{Program, RunRequest};
use sentinel_protocol::to_agent::Start;

use super::digests::Digests;
use crate::supervisor::{Compared, Examined, HostNamespaces, OpenContent, examine};

/// How long a request may take. The digest of the largest program is computed in that time on a disk that reads 50 MiB in a second.
const WITHIN: Duration = Duration::from_secs(5);

/// Threads that may wait for file systems that do not answer. While there are as many, nothing is examined.
const MOST_STUCK: usize = 4;

type Examine = Arc<dyn Fn(&Start, &Policy) -> Examined + Send + Sync>;

/// The thread, which is replaced by another while it waits for a file system.
pub(super) struct Examiner {
    examine: Examine,
    within: Duration,
    thread: Option<SyncSender<Job>>,
    stuck: Arc<AtomicUsize>,
}

struct Job {
    start: Start,
    policy: Arc<Policy>,
    answer: SyncSender<Examined>,
}

impl fmt::Debug for Examiner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Examiner").field("stuck", &self.stuck).finish_non_exhaustive()
    }
}

impl Examiner {
    /// For commands in the namespaces of this host.
    pub(super) fn new(host: HostNamespaces) -> Self {
        let digests = Digests::default();
        let examine = move |start: &Start, policy: &Policy| examined(start, host, policy, &digests);
        Self::with(Arc::new(examine), WITHIN)
    }

    fn with(examine: Examine, within: Duration) -> Self {
        Self { examine, within, thread: None, stuck: Arc::default() }
    }

    /// Examines a request.
    ///
    /// # Errors
    /// Why it could not be examined in time.
    pub(super) fn examine(&mut self, start: &Start, policy: &Arc<Policy>) -> Result<Examined, String> {
        let what = places(&start.request);
        let stuck = self.stuck.load(Relaxed);
        if stuck >= MOST_STUCK {
            return Err(format!(
                "{what} were not examined: {stuck} earlier requests still wait for a file system of this node that does not answer"
            ));
        }
        let (answer, answered) = sync_channel(1);
        let job = Job { start: start.clone(), policy: policy.clone(), answer };
        let thread = self
            .hand_over(job)
            .map_err(|error| format!("{what} were not examined: no thread can be started: {error}"))?;
        match answered.recv_timeout(self.within) {
            Ok(examined) => {
                self.thread = Some(thread);
                Ok(examined)
            }
            Err(RecvTimeoutError::Disconnected) => Err(format!(
                "{what} were not examined: the thread that does that has panicked; its message is in the agent's log"
            )),
            Err(RecvTimeoutError::Timeout) => Err(format!(
                "{what} could not be examined within {} s: a file system that they are on does not answer; run the command again \
                 when it does",
                self.within.as_secs()
            )),
        }
    }

    /// Hands over a request to the thread, or to a new one. It is kept only once it has answered.
    fn hand_over(&mut self, job: Job) -> io::Result<SyncSender<Job>> {
        self.stuck.fetch_add(1, Relaxed);
        let job = match self.thread.take() {
            None => job,
            Some(thread) => match thread.send(job) {
                Ok(()) => return Ok(thread),
                // It has panicked.
                Err(SendError(job)) => job,
            },
        };
        let (jobs, queue) = sync_channel::<Job>(1);
        let (examine, stuck) = (self.examine.clone(), self.stuck.clone());
        let begun = std::thread::Builder::new().name("examiner".to_owned()).spawn(move || {
            for Job { start, policy, answer } in queue {
                let counted = Counted(&stuck);
                let examined = examine(&start, &policy);
                drop(counted);
                // Nothing waits for an answer that is late.
                let _ = answer.send(examined);
            }
        });
        let sent = begun.and_then(|_| jobs.send(job).map_err(io::Error::other));
        if sent.is_err() {
            self.stuck.fetch_sub(1, Relaxed);
        }
        sent.map(|()| jobs)
    }
}

/// Examines a request for what this policy decides by.
pub fn examined(start: &Start, host: HostNamespaces, policy: &Policy, digests: &Digests) -> Examined {
    let mut digest = |identity: &FileIdentity, open: OpenContent<'_>| {
        policy.asks_for_digests(&identity.path).then(|| digests.of(identity, open))
    };
    let denied: Vec<&str> = policy.denied_paths().collect();
    examine(start, host, &mut Compared { digest: &mut digest, names: &denied })
}

/// Takes off one request that is being examined.
struct Counted<'a>(&'a AtomicUsize);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// What is examined of a request, for people.
fn places(request: &RunRequest) -> String {
    let program = match &request.program {
        Program::Command(argv) => argv.first().map_or("", String::as_str),
        Program::Script { interpreter, .. } => interpreter,
    };
    format!("the program {program:?} and the working directory {:?}", request.working_dir)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use sentinel_policy::asked::NodeFacts;
    use sentinel_protocol::to_agent::ToAgent;

    use super::*;

    fn policy() -> Arc<Policy> {
        let text = "apiVersion: sentinelnode.dev/v1alpha1\nkind: NodePolicy\nrules: []\n";
        Arc::new(Policy::read(text.as_bytes()).unwrap())
    }

    fn start(working_dir: &str) -> Start {
        let golden = include_str!("../../../protocol/tests/golden/v1/start-command.json");
        let ToAgent::Start(mut start) = serde_json::from_str(golden).unwrap() else { panic!("{golden}") };
        start.request.working_dir = working_dir.to_owned();
        *start
    }

    fn examined(start: &Start) -> Examined {
        let unknown = || start.request.working_dir.clone();
        let facts = NodeFacts {
            name: None,
            program: Err(unknown()),
            working_dir: Ok(unknown()),
            identity: Err(unknown()),
        };
        Examined { facts, program: None, directory: None }
    }

    /// A file system that does not answer needs a server that does not: what hangs here is the examination of `/net`.
    #[test]
    fn a_file_system_that_does_not_answer_is_not_waited_for() {
        let (release, released) = sync_channel::<()>(MOST_STUCK);
        let released = Mutex::new(released);
        let examine = move |start: &Start, _: &Policy| {
            if start.request.working_dir == "/net" {
                let _ = released.lock().unwrap().recv();
            }
            assert_ne!(start.request.working_dir, "/panic");
            examined(start)
        };
        let mut examiner = Examiner::with(Arc::new(examine), Duration::from_secs(1));
        let mut ask = |directory: &str| {
            let found = examiner.examine(&start(directory), &policy());
            found.map(|found| found.facts.working_dir.unwrap())
        };
        for _ in 0..MOST_STUCK {
            assert_eq!(ask("/").unwrap(), "/");
            let why = ask("/net").unwrap_err();
            assert!(
                why.contains("\"/net\" could not be examined within") && why.contains("does not answer"),
                "{why}"
            );
        }
        assert!(ask("/").unwrap_err().contains("4 earlier requests still wait"));
        // It answers again: what was too late counts for nothing, and all is examined as before.
        for _ in 0..MOST_STUCK {
            release.send(()).unwrap();
        }
        while let Err(why) = ask("/") {
            assert!(why.contains("still wait"), "{why}");
        }
        assert!(ask("/panic").unwrap_err().contains("panicked"));
        assert_eq!(ask("/").unwrap(), "/");
    }
}
