//! The node agent, and (re-executed) the supervisor of one Attempt.

use std::process::ExitCode;

use sentinel_node_agent::supervisor;

fn main() -> ExitCode {
    // Before any thread or runtime exists.
    if supervisor::is_requested() {
        return supervisor::main();
    }
    ExitCode::FAILURE
}
