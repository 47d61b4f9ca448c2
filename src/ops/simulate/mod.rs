//! `aula simulate-clients`: a capacity probe that also proves the promises.

pub mod crowd;
pub mod engine;
pub mod measured;
pub mod meter;
pub mod orders;
pub mod plan;
pub mod report;
pub mod scenario;
