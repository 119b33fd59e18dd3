//! Wake-ups of other tasks that wait until a reconcile has sent its messages.
//!
//! Each may wake another thread, and it may take the processor from the one that is about to send a `Start`.

use std::cell::RefCell;

type Work = Box<dyn FnOnce() + Send>;

thread_local! {
    /// What the poll that runs on this thread has put off; `None` where nothing is put off.
    static PUT_OFF: RefCell<Option<Vec<Work>>> = const { RefCell::new(None) };
}

/// Does this once the reconcile that runs on this thread has ended or waits; at once where none runs.
pub(crate) fn later(work: impl FnOnce() + Send + 'static) {
    let now = PUT_OFF.with_borrow_mut(|put_off| match put_off {
        Some(put_off) => {
            put_off.push(Box::new(work));
            None
        }
        None => Some(work),
    });
    if let Some(work) = now {
        work();
    }
}

/// Does now what was put off so far.
pub(crate) fn catch_up() {
    drop(PutOff(PUT_OFF.with_borrow_mut(|put_off| put_off.as_mut().map(std::mem::take)).unwrap_or_default()));
}

/// What was put off; it is done when this is dropped.
#[derive(Default)]
pub(crate) struct PutOff(Vec<Work>);

impl PutOff {
    /// Whether nothing was put off.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds what was put off later.
    pub(crate) fn append(&mut self, mut later: Self) {
        self.0.append(&mut later.0);
    }
}

impl Drop for PutOff {
    fn drop(&mut self) {
        for work in self.0.drain(..) {
            work();
        }
    }
}

/// Calls this, and returns what it put off. If it panics, that is done at once.
pub(crate) fn putting_off<T>(call: impl FnOnce() -> T) -> (T, PutOff) {
    let mut scope = Scope { outer: PUT_OFF.replace(Some(Vec::new())), is_open: true };
    let result = call();
    (result, scope.close())
}

struct Scope {
    outer: Option<Vec<Work>>,
    is_open: bool,
}

impl Scope {
    fn close(&mut self) -> PutOff {
        self.is_open = false;
        PutOff(PUT_OFF.replace(self.outer.take()).unwrap_or_default())
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        if self.is_open {
            drop(self.close());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Where each piece of work notes its name.
    fn notes() -> (Arc<Mutex<Vec<&'static str>>>, impl Fn(&'static str)) {
        let notes = Arc::new(Mutex::new(Vec::new()));
        let noted = notes.clone();
        let note_later = move |name| {
            let notes = noted.clone();
            later(move || notes.lock().unwrap().push(name));
        };
        (notes, note_later)
    }

    #[test]
    fn what_is_put_off_is_done_in_order_when_its_owner_is_dropped() {
        let (notes, note_later) = notes();
        note_later("at once");
        assert_eq!(*notes.lock().unwrap(), ["at once"]);
        let ((), put_off) = putting_off(|| {
            note_later("first");
            catch_up();
            let ((), inner) = putting_off(|| note_later("inner"));
            drop(inner);
            note_later("second");
            note_later("third");
            assert_eq!(*notes.lock().unwrap(), ["at once", "first", "inner"]);
        });
        assert_eq!(notes.lock().unwrap().len(), 3);
        drop(put_off);
        assert_eq!(notes.lock().unwrap()[3..], ["second", "third"]);
    }

    #[test]
    fn a_panic_loses_nothing_that_was_put_off() {
        let (notes, note_later) = notes();
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            putting_off(|| {
                note_later("put off");
                panic!("on purpose");
            })
        }));
        assert!(panicked.is_err());
        assert_eq!(*notes.lock().unwrap(), ["put off"]);
        note_later("at once");
        assert_eq!(notes.lock().unwrap().len(), 2, "nothing is put off any more");
    }
}
