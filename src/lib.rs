//! corecached
pub mod protocol;
