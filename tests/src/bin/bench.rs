//! Figures of this build beside the limits of this machine; see `docs/benchmarks.md`.

use std::process::ExitCode;

fn main() -> ExitCode {
    sentinel_tests::bench::main()
}
