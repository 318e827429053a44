//! Descriptors that go from process to process in the messages of Unix sockets (`SCM_RIGHTS`).

use nix::sys::socket::{ControlMessage, MsgFlags};
use rustix::cmsg_space;
use rustix::io::retry_on_intr;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;

/// The most descriptors in one message. The kernel allows some 250.
pub const DESCRIPTORS_MAX: usize = 64;

/// Sends a message that carries descriptors. The sender keeps its own. It never raises SIGPIPE.
///
/// # Errors
/// `WouldBlock` when the socket has no room and does not wait; `InvalidInput` for more than [`DESCRIPTORS_MAX`]; those of
/// the system.
pub fn send(socket: impl AsFd, message: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    if descriptors.len() > DESCRIPTORS_MAX {
        return Err(io::Error::new(ErrorKind::InvalidInput, "too many descriptors for a message"));
    }
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        let has_room = control.push(SendAncillaryMessage::ScmRights(descriptors));
        debug_assert!(has_room, "the space is for as many");
    }
    retry_on_intr(|| rustix::net::sendmsg(&socket, &[IoSlice::new(message)], &mut control, SendFlags::NOSIGNAL))?;
    Ok(())
}

/// Receives the next message of at most `most` bytes, and the descriptors that it carries. They close on exec. An empty
/// message without descriptors is the end of a connection.
///
/// # Errors
/// `WouldBlock` when no message waits and the socket does not wait; `InvalidData` for a message that is longer or carries
/// more than [`DESCRIPTORS_MAX`] descriptors; those of the system.
pub fn receive(socket: impl AsFd, most: usize) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut message = vec![0; most];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = retry_on_intr(|| {
        rustix::net::recvmsg(&socket, &mut [IoSliceMut::new(&mut message)], &mut control, RecvFlags::CMSG_CLOEXEC)
    })?;
    let mut descriptors = Vec::new();
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(some) = part {
            descriptors.extend(some);
        }
    }
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::Error::new(ErrorKind::InvalidData, "a message that is too long"));
    }
    message.truncate(received.bytes);
    Ok((message, descriptors))
}

/// Takes over the descriptors with these numbers, which the process was started with. Nothing else in the process may use the
/// numbers. The descriptors get other numbers, and close on exec.
///
/// # Errors
/// When one of them is not open; those of the system.
pub fn adopt(numbers: Range<RawFd>) -> io::Result<Vec<OwnedFd>> {
    if numbers.is_empty() {
        return Ok(Vec::new());
    }
    // A number becomes a descriptor that somebody owns by being sent: the receiver owns what it gets.
    let (here, there) = UnixDatagram::pair()?;
    for number in [here.as_raw_fd(), there.as_raw_fd()] {
        // The system gives away the lowest number that is free.
        if numbers.contains(&number) {
            return Err(io::Error::new(ErrorKind::NotFound, format!("descriptor {number} is not open")));
        }
    }
    let adopt = |number| {
        let rights = [ControlMessage::ScmRights(&[number])];
        nix::sys::socket::sendmsg::<()>(here.as_raw_fd(), &[IoSlice::new(b"x")], &rights, MsgFlags::empty(), None)?;
        let descriptor = receive(&there, 1)?.1.pop().ok_or(ErrorKind::InvalidData)?;
        nix::unistd::close(number)?;
        Ok(descriptor)
    };
    numbers.map(adopt).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{Read, Seek, Write};
    use std::os::fd::IntoRawFd;

    #[test]
    fn descriptors_arrive_with_their_message() {
        let (here, there) = UnixDatagram::pair().expect("a pair of sockets");
        let (pipe, mut into_pipe) = io::pipe().expect("a pipe");
        send(&here, b"two", &[pipe.as_fd(), pipe.as_fd()]).expect("there is room");
        send(&here, b"none", &[]).expect("there is room");
        drop(pipe);
        into_pipe.write_all(b"abcd").expect("the message holds the other end");
        let (message, descriptors) = receive(&there, 10).expect("a message waits");
        assert_eq!((&message[..], descriptors.len()), (&b"two"[..], 2));
        for (descriptor, expected) in descriptors.into_iter().zip([b"ab", b"cd"]) {
            let mut bytes = [0; 2];
            File::from(descriptor).read_exact(&mut bytes).expect("it is the pipe");
            assert_eq!(&bytes, expected);
        }
        let (message, descriptors) = receive(&there, 10).expect("a message waits");
        assert_eq!((&message[..], descriptors.len()), (&b"none"[..], 0));
    }

    #[test]
    fn what_is_too_long_is_refused() {
        let (here, there) = UnixDatagram::pair().expect("a pair of sockets");
        send(&here, b"four", &[]).expect("there is room");
        assert_eq!(receive(&there, 3).expect_err("it is too long").kind(), ErrorKind::InvalidData);
        let many = vec![here.as_fd(); DESCRIPTORS_MAX + 1];
        assert_eq!(send(&here, b"x", &many).expect_err("too many").kind(), ErrorKind::InvalidInput);
        send(&here, b"x", &many[1..]).expect("as many as there may be");
        assert_eq!(receive(&there, 3).expect("a message").1.len(), DESCRIPTORS_MAX);
    }

    #[test]
    fn numbers_become_descriptors() {
        let mut file = temporary_file();
        file.write_all(b"text").expect("a temporary file");
        file.rewind().expect("a temporary file");
        let number = file.into_raw_fd();
        let [file] = adopt(number..number + 1).expect("it is open").try_into().expect("one");
        let mut text = String::new();
        File::from(file).read_to_string(&mut text).expect("a file");
        assert_eq!(text, "text");
        assert!(adopt(1 << 20..(1 << 20) + 1).is_err(), "there is no such descriptor");
        assert!(adopt(3..3).expect("nothing is to be done").is_empty());
    }

    fn temporary_file() -> File {
        let path = std::env::temp_dir().join(format!("corecached-rights-{}", std::process::id()));
        let file = File::options().create_new(true).read(true).write(true).open(&path).expect("a temporary file");
        std::fs::remove_file(path).expect("it was made");
        file
    }
}
