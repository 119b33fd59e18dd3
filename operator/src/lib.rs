//! placeholder

pub mod clock;
pub mod config;
pub mod history;
pub mod presence;
pub mod resource;
