//! `aula simulate-clients`: a capacity probe that also proves the promises.

pub mod engine;
pub mod measured;
