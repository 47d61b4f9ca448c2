//! The configuration: defaults < file < environment < flags.
//!
//! `config/aula.yaml` holds every key with its default and is built into the binary; nothing else defines a default or the set
//! of keys. [`Config::load`] puts the layers on top of it and returns either a configuration whose values are all within
//! bounds, or every problem at once, each with the place it came from.
//!
//! | file | idea |
//! |---|---|
//! | `types.rs`, `servers.rs` | the typed values |
//! | `schema.rs` | the keys, read from the embedded file, and the nearest one to a misspelling |
//! | `tree.rs` | YAML as keys with line numbers |
//! | `layers.rs` | file, environment and flags as settings |
//! | `load.rs` | settings on top of each other, and the errors |
//! | `limits.rs`, `validate.rs` | bounds of single values; rules between values |
//! | `render.rs` | the configuration in force, as YAML and JSON |

mod bytes;
mod duration;
mod error;
mod kept_for;
mod layers;
mod limits;
mod load;
mod render;
mod schema;
mod servers;
mod tree;
mod types;
mod validate;

pub(crate) use duration::parse as parse_duration;
pub use error::{ConfigError, Problem, Source, Sources};
pub use layers::{Overrides, environment};
pub use load::Loaded;
pub(crate) use schema::nearest;
pub use servers::*;
pub use types::*;

/// The commented default file, as `aula config print --default` prints it.
pub const DEFAULT_FILE: &str = include_str!("../../config/aula.yaml");

/// The file that is read when none is named, in the working directory.
pub const FILE_NAME: &str = "aula.yaml";

/// The environment variable that names the file.
pub const FILE_VARIABLE: &str = "AULA_CONFIG";

/// The largest configuration file that is read, in bytes.
pub const MAX_FILE_BYTES: u64 = 1 << 20;
