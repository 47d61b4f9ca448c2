//! Who isn't in a channel learns nothing of it, and rights that are taken back are gone.

mod outsiders;
mod removed;
mod revoked;
