//! Receiving and sending by plain system calls: those of the C library are cancellation points, which cost a twentieth of
//! a `get`.

use rustix::net::{RecvFlags, SendFlags};
use std::io;
use std::os::fd::AsFd;

/// Receives the bytes that have arrived, as far as the buffer has room.
#[inline]
pub(super) fn receive(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    let (count, _) = rustix::net::recv(socket, buffer, RecvFlags::empty())?;
    Ok(count)
}

/// Sends as much as there is room for.
#[inline]
pub(super) fn send(socket: impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    Ok(rustix::net::send(socket, bytes, SendFlags::NOSIGNAL)?)
}
