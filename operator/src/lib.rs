//! placeholder

pub mod clock;
pub mod cluster;
pub mod controller;
pub mod history;
pub mod presence;
pub mod resource;
