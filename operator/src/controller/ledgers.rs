//! What is known of every Run: one book per Task, with the ledger of its current Run and those not settled yet.
//!
//! The gateway tells it what agents say, the archive what History holds, and the controller what it did. Whatever is
//! news wakes the Task. Every lock here is held for a moment only and never across an await.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use kube::ResourceExt;
use kube::runtime::reflector::Store;
use sentinel_core::reconcile::ledger::{Applied, MAX_ATTEMPTS, Origin, RunLedger, RunStage};
use sentinel_core::reconcile::orphan::{self, Owner};
use sentinel_core::reconcile::retry::Retry;
use sentinel_core::reconcile::rollout::HistoryLookup;
use sentinel_core::reconcile::run::{RunState, Trigger};
use sentinel_core::time::Monotonic;
use sentinel_protocol::ids::{AttemptId, NodeName, RunNumber, SessionId, SpecHash, TaskRef, TaskUid};
use sentinel_protocol::request::RunRequest;
use sentinel_protocol::time::UnixMillis;
use sentinel_protocol::to_operator::{Refused, Report, Stage};

use super::wake::Wake;
use crate::gateway::Standing;
use crate::resource::Task;

/// What does not change about a Run, for those who dispatch and archive it.
#[derive(Debug, Clone, PartialEq)]
pub struct RunFacts {
    /// Where people find its Task.
    pub task: TaskRef,
    /// Which Task.
    pub uid: TaskUid,
    /// Its number.
    pub run: RunNumber,
    /// Digest of the spec it carries out.
    pub spec_hash: SpecHash,
    /// When it began, by the operator's clock.
    pub started_at: UnixMillis,
    /// Its command, for people.
    pub command: String,
    /// Why it began.
    pub trigger: Trigger,
    /// After what an Execution of it is tried again.
    pub retry: Retry,
    /// What it runs. `None` when this operator took the Run over after its spec had changed: then nothing of it can
    /// be started any more, which is also what such a Run wants.
    pub request: Option<RunRequest>,
}

/// The books of all Tasks. Cloning it gives the same books.
#[derive(Debug, Clone)]
pub struct Ledgers(Arc<Shelf>);

#[derive(Debug)]
struct Shelf {
    books: RwLock<HashMap<TaskUid, Arc<Book>>>,
    wake: Wake,
    listed: AtomicBool,
}

/// What is known of the Runs of one Task.
#[derive(Debug)]
pub struct Book {
    task: TaskRef,
    pages: Mutex<Pages>,
}

/// What a [`Book`] holds.
#[derive(Debug, Default)]
pub struct Pages {
    /// The recorded Run.
    pub current: Option<Page>,
    /// Earlier Runs that are not settled yet: not all archived, or not all forgotten.
    pub retired: Vec<Page>,
}

/// What is known of one Run.
#[derive(Debug, Clone)]
pub struct Page {
    /// Its Executions.
    pub ledger: RunLedger,
    /// What does not change about it.
    pub facts: Arc<RunFacts>,
    /// Its frozen target list, in order.
    pub targets: Arc<Vec<NodeName>>,
    /// Whether History has been asked about it.
    pub recall: HistoryLookup,
    /// Whether anything is left to do for it, as far as was seen at the last look.
    pub settled: bool,
    /// What was handed to the archiver, and when; it is handed over again only after a while.
    pub handed: Handed,
}

/// What was handed to the archiver, and when.
#[derive(Debug, Clone, Default)]
pub struct Handed {
    /// Conclusions.
    pub conclusions: HashMap<AttemptId, Monotonic>,
    /// The record of the Run.
    pub run: Option<(RunState, Monotonic)>,
}

impl Page {
    /// Whether the Run may wait for something of this node.
    fn concerns(&self, node: &NodeName) -> bool {
        !self.settled && self.targets.binary_search(node).is_ok()
    }

    /// Whether the node is in its frozen target list.
    fn is_target(&self, node: &NodeName) -> bool {
        self.targets.binary_search(node).is_ok()
    }

    /// The page of a Run of which nothing is known yet.
    pub fn new(facts: RunFacts, targets: Arc<Vec<NodeName>>, origin: Origin, recall: HistoryLookup) -> Self {
        let ledger = RunLedger::new(facts.uid.clone(), facts.run, facts.spec_hash.clone(), origin);
        Self { ledger, facts: Arc::new(facts), targets, recall, settled: false, handed: Handed::default() }
    }
}

impl Book {
    /// Where people find the Task.
    pub fn task(&self) -> &TaskRef {
        &self.task
    }

    /// Its pages, for a moment.
    pub fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pages {
    /// All pages, the current one first.
    pub fn all(&self) -> impl Iterator<Item = &Page> {
        self.current.iter().chain(&self.retired)
    }

    /// All pages, to be written on.
    pub fn all_mut(&mut self) -> impl Iterator<Item = &mut Page> {
        self.current.iter_mut().chain(&mut self.retired)
    }

    /// The page of a Run.
    pub fn page(&self, run: RunNumber) -> Option<&Page> {
        self.all().find(|page| page.facts.run == run)
    }

    /// The page of a Run, or that of the current one, to be written on.
    pub fn page_of(&mut self, run: Option<RunNumber>) -> Option<&mut Page> {
        match run {
            Some(run) => self.page_mut(run),
            None => self.current.as_mut(),
        }
    }

    /// The page of a Run, to be written on.
    pub fn page_mut(&mut self, run: RunNumber) -> Option<&mut Page> {
        self.all_mut().find(|page| page.facts.run == run)
    }
}

impl Ledgers {
    /// No books yet; news wakes Tasks through `wake`.
    pub fn new(wake: Wake) -> Self {
        Self(Arc::new(Shelf { books: RwLock::default(), wake, listed: AtomicBool::new(false) }))
    }

    /// An agent says what one of its Attempts is. `None` when no ledger is open for its Run: it may be a stray (see
    /// [`Ledgers::owner`]), and is asked for again when the ledger is opened.
    pub fn report(&self, report: &Report) -> Option<Applied> {
        self.write(&report.attempt.task, report.attempt.run, |page| {
            let foreign = report.spec_hash == page.facts.spec_hash && !page.is_target(&report.attempt.node);
            let told = if foreign { Applied::NeverDispatched } else { page.ledger.apply_report(report) };
            // Who reports an Attempt of a settled Run has not heard that it may forget it.
            let news = if page.settled { News::Yes } else { news(told) };
            (told, news)
        })
    }

    /// Whether an Attempt that an agent names can have been started: on a frozen target, under a number that was in use.
    pub fn standing(&self, attempt: &AttemptId, spec_hash: Option<&SpecHash>) -> Standing {
        if attempt.attempt > MAX_ATTEMPTS {
            return Standing::Unstarted;
        }
        let Some(book) = self.book(&attempt.task) else { return Standing::Unknown };
        let pages = book.pages();
        let Some(page) = pages.page(attempt.run) else {
            let current = pages.current.as_ref().map(|page| page.facts.run);
            let credible = current.is_none_or(|current| orphan::is_credible(attempt.run, current));
            return if credible { Standing::Unknown } else { Standing::Unstarted };
        };
        // Of another spec under the same number, in a restored cluster, neither targets nor Attempts are known.
        let other_spec = spec_hash.is_some_and(|hash| *hash != page.facts.spec_hash);
        let started =
            page.ledger.may_have_started(&attempt.node, attempt.attempt) && page.is_target(&attempt.node);
        if other_spec || started { Standing::Started } else { Standing::Unstarted }
    }

    /// An agent declined a `Start`. `None` when no ledger is open for its Run.
    pub fn refused(&self, refused: &Refused, at: UnixMillis) -> Option<Applied> {
        self.write(&refused.attempt.task, refused.attempt.run, |page| {
            let foreign = !page.is_target(&refused.attempt.node);
            let told =
                if foreign { Applied::NeverDispatched } else { page.ledger.apply_refusal(refused, at) };
            (told, news(told))
        })
    }

    /// An agent has said all that it owns: `reports`, of any Task, over a Session that is live. To be called once an
    /// Inventory is complete, before the Session counts as live in [`super::fleet::Fleet::agent`].
    pub fn inventory(&self, node: &NodeName, session: &SessionId, reports: &[Report]) {
        let mut owned: HashMap<&TaskUid, Vec<AttemptId>> = HashMap::new();
        for report in reports {
            self.report(report);
            owned.entry(&report.attempt.task).or_default().push(report.attempt.clone());
        }
        for (uid, book) in self.all() {
            let owned = owned.get(&uid).map_or(&[][..], Vec::as_slice);
            let mut pages = book.pages();
            let mut concerned = !owned.is_empty();
            for page in pages.all_mut() {
                page.ledger.apply_inventory(node, session, owned);
                concerned |= page.concerns(node);
            }
            drop(pages);
            if concerned {
                self.0.wake.task(&book.task);
            }
        }
    }

    /// History holds this Attempt up to this stage.
    pub fn archived(&self, attempt: &AttemptId, stage: Stage) {
        self.write(&attempt.task, attempt.run, |page| {
            let told = page.ledger.note_archived(attempt, stage);
            ((), news(told))
        });
    }

    /// History holds the record of this Run up to this stage.
    pub fn archived_run(&self, task: &TaskUid, run: RunNumber, stage: RunStage) {
        self.write(task, run, |page| {
            let before = page.ledger.run_archived();
            page.ledger.note_run_archived(stage);
            ((), if before < Some(stage) { News::Yes } else { News::No })
        });
    }

    /// Something about this node's agent has changed: it came, went, or is heard of again. Wakes the Tasks that may
    /// wait for it.
    pub fn agent_changed(&self, node: &NodeName) {
        self.wake_where(|pages| pages.all().any(|page| page.concerns(node)));
    }

    /// Nodes have come, gone or changed their labels. Wakes the Tasks of which anything is left to do.
    pub fn nodes_changed(&self) {
        self.wake_where(|pages| pages.all().any(|page| !page.settled));
    }

    fn wake_where(&self, concerned: impl Fn(&Pages) -> bool) {
        for (_, book) in self.all() {
            if concerned(&book.pages()) {
                self.0.wake.task(&book.task);
            }
        }
    }

    /// What does not change about the Run of an Attempt; `None` when no ledger is open for it.
    pub fn facts(&self, task: &TaskUid, run: RunNumber) -> Option<Arc<RunFacts>> {
        let book = self.book(task)?;
        let pages = book.pages();
        pages.page(run).map(|page| page.facts.clone())
    }

    /// Whether this operator began that Run itself.
    pub fn began(&self, task: &TaskUid, run: RunNumber) -> bool {
        let Some(book) = self.book(task) else { return false };
        let pages = book.pages();
        pages.page(run).is_some_and(|page| page.ledger.origin() == Origin::Begun)
    }

    /// All Tasks have been listed: from now on one that is not in the cache is gone.
    ///
    /// The cache itself is not asked, as its `wait_until_ready` wakes one of those who wait and forgets the others.
    pub fn note_listed(&self) {
        self.0.listed.store(true, Ordering::Release);
    }

    /// Whether all Tasks have been listed.
    pub fn are_listed(&self) -> bool {
        self.0.listed.load(Ordering::Acquire)
    }

    /// Whose an Attempt without a ledger is. `None` when nobody can say yet: the Tasks are not all known, or its Task
    /// was not looked at.
    pub fn owner(&self, task: &TaskUid, tasks: &Store<Task>) -> Option<Owner> {
        if let Some(book) = self.book(task) {
            return book.pages().current.as_ref().map(|page| Owner::AtRun(page.facts.run));
        }
        let exists = tasks.find(|found| found.uid().as_deref() == Some(task.as_str())).is_some();
        (self.are_listed() && !exists).then_some(Owner::Gone)
    }

    /// The book of a Task, a new one if there is none.
    pub fn open(&self, uid: &TaskUid, task: &TaskRef) -> Arc<Book> {
        if let Some(book) = self.book(uid) {
            return book;
        }
        let mut books = self.0.books.write().unwrap_or_else(PoisonError::into_inner);
        let fresh = || Arc::new(Book { task: task.clone(), pages: Mutex::default() });
        books.entry(uid.clone()).or_insert_with(fresh).clone()
    }

    /// The Task of this book must be looked at.
    pub fn wake(&self, book: &Book) {
        self.0.wake.task(&book.task);
    }

    /// Closes the books of Tasks that are not among `tasks` any more. What their agents still own is stray then.
    pub fn close_all_but(&self, exists: impl Fn(&TaskUid, &TaskRef) -> bool) {
        let mut books = self.0.books.write().unwrap_or_else(PoisonError::into_inner);
        books.retain(|uid, book| exists(uid, &book.task));
    }

    /// Number of open books.
    pub fn len(&self) -> usize {
        self.0.books.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether no book is open.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn book(&self, uid: &TaskUid) -> Option<Arc<Book>> {
        self.0.books.read().unwrap_or_else(PoisonError::into_inner).get(uid).cloned()
    }

    pub(super) fn all(&self) -> Vec<(TaskUid, Arc<Book>)> {
        let books = self.0.books.read().unwrap_or_else(PoisonError::into_inner);
        books.iter().map(|(uid, book)| (uid.clone(), book.clone())).collect()
    }

    fn write<T>(
        &self,
        task: &TaskUid,
        run: RunNumber,
        change: impl FnOnce(&mut Page) -> (T, News),
    ) -> Option<T> {
        let book = self.book(task)?;
        let (answer, news) = change(book.pages().page_mut(run)?);
        if news == News::Yes {
            self.0.wake.task(&book.task);
        }
        Some(answer)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum News {
    Yes,
    No,
}

fn news(told: Applied) -> News {
    if told == Applied::Changed { News::Yes } else { News::No }
}

#[cfg(test)]
mod tests {
    use sentinel_protocol::to_operator::{ReportedState, Running};

    use super::*;

    #[test]
    fn only_attempts_of_frozen_targets_that_were_started_can_be_reported() {
        let ledgers = Ledgers::new(Wake::default());
        let task = TaskRef::new("ops", "job").unwrap();
        let uid = TaskUid::new("u").unwrap();
        let spec_hash = SpecHash::new("a".repeat(64)).unwrap();
        let other = SpecHash::new("b".repeat(64)).unwrap();
        let facts = RunFacts {
            task: task.clone(),
            uid: uid.clone(),
            run: RunNumber(7),
            spec_hash: spec_hash.clone(),
            started_at: UnixMillis(1),
            command: "true".to_owned(),
            trigger: Trigger::SpecChange,
            retry: Retry::never(),
            request: None,
        };
        let targets = Arc::new(vec![NodeName::new("n").unwrap()]);
        let book = ledgers.open(&uid, &task);
        book.pages().current = Some(Page::new(facts, targets, Origin::Begun, HistoryLookup::Done));
        let standing = |id: &str, hash: &SpecHash| ledgers.standing(&id.parse().unwrap(), Some(hash));
        assert_eq!(standing("u/7/n/1", &spec_hash), Standing::Started);
        assert_eq!(standing("u/7/n/2", &spec_hash), Standing::Unstarted, "attempt 2 of one with no retry");
        assert_eq!(standing("u/7/m/1", &spec_hash), Standing::Unstarted, "a node that is no target");
        assert_eq!(standing("u/7/n/2", &other), Standing::Started, "another future of a restored cluster");
        assert_eq!(standing("u/7/n/22", &other), Standing::Unstarted);
        assert_eq!(standing("u/6/n/1", &spec_hash), Standing::Unknown, "an earlier run");
        assert_eq!(standing("u/4294967295/n/1", &spec_hash), Standing::Unstarted, "the last run there is");
        assert_eq!(standing("v/1/n/1", &spec_hash), Standing::Unknown);
        assert_eq!(standing("v/1/n/22", &spec_hash), Standing::Unstarted);
        let report = Report {
            attempt: "u/7/m/1".parse().unwrap(),
            spec_hash,
            state: ReportedState::Running(Running { started_at: UnixMillis(1), pid: 1 }),
        };
        assert_eq!(ledgers.report(&report), Some(Applied::NeverDispatched));
        assert_eq!(book.pages().current.as_ref().map(|page| page.ledger.executions().count()), Some(0));
    }
}
