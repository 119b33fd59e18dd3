//! Machines of a test's own: virtual ones with a kernel to themselves (`tests/vm`), and real nodes with a kubelet
//! (`tests/parts/nodes-up`), with our static agent on them.
//!
//! In reading order: [`build`] (the static agent), [`machine`] (a virtual machine), [`operator`] (an operator for it, in
//! the test's process), [`workload`] (commands that record their own starts), [`pods`] (agents as pods of real nodes).

pub mod build;
pub mod escape;
pub mod operator;
pub mod workload;
pub mod machine;
pub mod pods;
pub mod release;
