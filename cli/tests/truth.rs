//! `wait` returns the verdict of the latest request, even right after an earlier one.

#[cfg(test)]
mod kit;

use kit::{Dev, task, write};

/// Once, the status between two Runs had the verdict of the first and the generation of the second.
#[test]
fn wait_returns_the_verdict_of_the_latest_edit() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("task.yaml");
    let dev = Dev::start(&[]);
    let apply = |name: &str, code: u8| {
        let gate = directory.path().join(name);
        let script = format!("while [ ! -e {} ]; do sleep 0.02; done; exit {code}", gate.display());
        write(&file, &task(name, &format!("{{command: [sh, -c, {script:?}], sandbox: Privileged}}")));
        dev.run(&["apply", "-f", file.to_str().unwrap()]).exited(0);
    };
    for (n, (first, second)) in [(0, 4), (4, 0)].into_iter().cycle().take(20).enumerate() {
        let name = format!("edited-{n}");
        apply(&name, first);
        dev.wait_until(&["get", "task", &name, "-o", "json"], |ran| {
            ran.json()["status"]["phase"] == "Running"
        });
        apply(&name, second);
        // Now the first Run ends, and the second starts.
        write(&directory.path().join(&name), "");
        dev.run(&["wait", &name, "--timeout", "60s"]).exited(i32::from(second != 0));
    }
}

/// A rerun does not change the generation: once, the old status counted until the operator started the new Run.
#[test]
fn wait_after_rerun_returns_the_verdict_of_the_new_run() {
    let directory = tempfile::tempdir().unwrap();
    let (file, count) = (directory.path().join("task.yaml"), directory.path().join("count"));
    let dev = Dev::start(&[]);
    // Every other Run fails.
    let script = format!("n=$(($(cat {0}) + 1)); echo $n > {0}; exit $((n % 2))", count.display());
    write(&count, "0");
    write(&file, &task("again", &format!("{{command: [sh, -c, {script:?}], sandbox: Privileged}}")));
    dev.run(&["apply", "-f", file.to_str().unwrap()]).exited(0);
    dev.run(&["wait", "again", "--timeout", "60s"]).exited(1);
    for n in 2..42 {
        dev.run(&["rerun", "again"]).exited(0);
        let shown = dev.run(&["get", "task", "again", "-o", "json"]).exited(0).json();
        let number = shown["status"]["run"]["number"].as_i64();
        let over = shown["status"]["run"]["finishedAt"].is_string();
        let phase = shown["status"]["phase"].as_str().unwrap();
        let claims = ["Succeeded", "Failed"].contains(&phase);
        assert!(!claims || (number == Some(n) && over), "run {n} was requested: {}", shown["status"]);
        dev.run(&["wait", "again", "--timeout", "60s"]).exited(i32::from(n % 2 != 0));
    }
}
