//! Bytes from outside that mean no good: each refused in the right way, cheaply, while others are served.

mod frames;
mod http_side;
mod values;
mod watch;
