//! Sockets: bytes in, bytes out. Knows neither words nor items.

pub mod listener;
pub mod network;
mod peer;
pub mod queues;
pub mod seats;
#[cfg(test)]
pub mod simulated;
mod socket;
pub mod stream;
pub mod udp;

pub mod certificates;
mod keys;
mod pem;
pub mod tls;
mod verifier;
