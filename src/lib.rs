//! corecached
pub mod clock;
pub mod command;
pub mod config;
pub mod counters;
pub mod hash;
pub mod net;
pub mod protocol;
pub mod server;
pub mod store;
pub mod worker;
