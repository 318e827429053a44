//! Sockets: bytes in, bytes out. Knows neither words nor items.

pub mod listener;
pub mod stream;

pub mod certificates;
pub mod tls;
