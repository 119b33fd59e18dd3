//! Reads what the recorders wrote.

use std::collections::BTreeMap;
use std::path::Path;

/// What the recorders of one Attempt wrote.
#[derive(Debug, Clone, Default)]
pub struct Recorded {
    /// Process ids of those that started; exactly one is correct.
    pub starts: Vec<u32>,
    /// Exit codes of those that came to their end.
    pub exits: Vec<u8>,
    /// Name of the Task.
    pub task: String,
}

/// All recordings by Attempt id.
pub type Recording = BTreeMap<String, Recorded>;

/// Reads the file; a missing one is empty.
///
/// # Panics
/// On a line that a recorder does not write.
pub fn read(path: &Path) -> Recording {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let mut recording = Recording::new();
    for line in text.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        match fields[..] {
            ["start", attempt, pid, task, _, _] => {
                let entry = recording.entry(attempt.to_owned()).or_default();
                entry.starts.push(pid.parse().expect("a pid"));
                task.clone_into(&mut entry.task);
            }
            ["exit", attempt, _, code] => {
                recording.entry(attempt.to_owned()).or_default().exits.push(code.parse().expect("a code"));
            }
            _ => panic!("not a line of a recorder: {line:?}"),
        }
    }
    recording
}
