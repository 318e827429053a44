//! What people see of the server.

pub mod page;
