//! What the witnesses wrote down.

use std::collections::BTreeMap;
use std::path::Path;

/// What the witnesses of one Attempt wrote down.
#[derive(Debug, Clone, Default)]
pub struct Testimony {
    /// Process ids of those that started; one, if all is well.
    pub starts: Vec<u32>,
    /// Exit codes of those that came to their end.
    pub exits: Vec<u8>,
    /// Name of the Task.
    pub task: String,
}

/// The book by Attempt id.
pub type Book = BTreeMap<String, Testimony>;

/// Reads the book; a file that is not there yet is an empty one.
///
/// # Panics
/// On a line that no witness writes.
pub fn read(path: &Path) -> Book {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let mut book = Book::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["start", attempt, pid, task, _, _] => {
                let entry = book.entry(attempt.to_owned()).or_default();
                entry.starts.push(pid.parse().expect("a pid"));
                task.clone_into(&mut entry.task);
            }
            ["exit", attempt, _, code] => {
                book.entry(attempt.to_owned()).or_default().exits.push(code.parse().expect("a code"));
            }
            _ => panic!("no line of a witness: {line:?}"),
        }
    }
    book
}
