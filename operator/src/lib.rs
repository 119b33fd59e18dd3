//! placeholder

pub mod clock;
pub mod history;
pub mod presence;
