//! corecached
pub mod clock;
pub mod hash;
pub mod protocol;
pub mod store;
