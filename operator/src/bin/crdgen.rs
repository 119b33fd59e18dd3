//! Prints a custom resource definition: `crdgen task` or `crdgen targetslice`. See `just generate`.

use std::io::Write;

use sentinel_operator::resource::crd;

fn main() -> anyhow::Result<()> {
    let crd = match std::env::args().nth(1).as_deref() {
        Some("task") => crd::task_crd()?,
        Some("targetslice") => crd::target_slice_crd()?,
        other => anyhow::bail!("unknown resource {:?}: expected task or targetslice", other.unwrap_or("")),
    };
    std::io::stdout().write_all(crd::to_yaml(&crd)?.as_bytes())?;
    Ok(())
}
