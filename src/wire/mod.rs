//! What clients and the server say to each other.

mod error_code;

pub use error_code::ErrorCode;
