//! The operator's commands: one file each, with its `Args` and its `run`.

pub mod config;
