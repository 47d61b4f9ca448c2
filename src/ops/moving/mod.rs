//! Taking what is stored elsewhere: `aula export` and `aula import` (any deployment, as text), `aula backup` and
//! `aula restore` (an embedded one, as its file).

pub mod backup;
pub mod export;
mod files;
pub mod import;
mod manifest;
mod record;
pub mod restore;
mod unfinished;
mod workplace;
