//! System calls on sockets and epoll sets: one function each, errors as [`io::Error`].
//!
//! `unsafe` is here and in [`uring`](super::uring) only. Every block is one system call on
//! descriptors and buffers that the caller owns or borrows for the call.

#![allow(unsafe_code)]

use std::io::{self, IoSlice};
use std::net::{IpAddr, Shutdown};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use socket2::{SockAddr, SockRef};

use super::Outcome;

pub(super) fn epoll() -> io::Result<OwnedFd> {
    // SAFETY: no memory is passed; the new descriptor is owned by nobody else.
    unsafe { Ok(OwnedFd::from_raw_fd(check(libc::epoll_create1(libc::EPOLL_CLOEXEC))?)) }
}

pub(super) fn eventfd() -> io::Result<OwnedFd> {
    let flags = libc::EFD_CLOEXEC | libc::EFD_NONBLOCK;
    // SAFETY: no memory is passed; the new descriptor is owned by nobody else.
    unsafe { Ok(OwnedFd::from_raw_fd(check(libc::eventfd(0, flags))?)) }
}

/// Waits for events, at most `timeout_ms`, -1: without end. How many there are; a signal
/// ends the wait without any.
pub(super) fn wait(epoll: &OwnedFd, events: &mut [libc::epoll_event], timeout_ms: i32) -> io::Result<usize> {
    let most = events.len() as i32;
    // SAFETY: the kernel writes at most `most` entries into `events`, which is borrowed
    // exclusively for the call.
    let count = unsafe { libc::epoll_wait(epoll.as_raw_fd(), events.as_mut_ptr(), most, timeout_ms) };
    match check(count) {
        Ok(count) => Ok(count as usize),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
        Err(error) => Err(error),
    }
}

pub(super) fn watch(epoll: &OwnedFd, fd: RawFd, what: i32, token: u64) -> io::Result<()> {
    control(epoll, libc::EPOLL_CTL_ADD, fd, what, token)
}

pub(super) fn rewatch(epoll: &OwnedFd, fd: RawFd, what: i32, token: u64) -> io::Result<()> {
    control(epoll, libc::EPOLL_CTL_MOD, fd, what, token)
}

fn control(epoll: &OwnedFd, operation: i32, fd: RawFd, what: i32, token: u64) -> io::Result<()> {
    let mut event = libc::epoll_event { events: what as u32, u64: token };
    // SAFETY: `event` is read during the call only; both descriptors are open.
    let result = unsafe { libc::epoll_ctl(epoll.as_raw_fd(), operation, fd, &raw mut event) };
    check(result).map(|_| ())
}

/// A peer that says nothing is accepted after a second and has its handshake time from then.
pub(super) fn defer_accept(listener: &OwnedFd) -> io::Result<()> {
    let seconds: libc::c_int = 1;
    // SAFETY: the kernel reads `size_of::<c_int>()` bytes of `seconds`; `listener` is open.
    let result = unsafe {
        libc::setsockopt(
            listener.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_DEFER_ACCEPT,
            (&raw const seconds).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    check(result).map(|_| ())
}

pub(super) fn unwatch(epoll: &OwnedFd, fd: RawFd) -> io::Result<()> {
    // SAFETY: a removal reads no event; both descriptors are open.
    let result = unsafe { libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_DEL, fd, std::ptr::null_mut()) };
    check(result).map(|_| ())
}

pub(super) fn accept(listener: RawFd) -> io::Result<(OwnedFd, Option<IpAddr>)> {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: `try_init` gives storage for any address and its length, which the kernel
    // fills and shortens; `listener` is open.
    let (fd, addr) = unsafe {
        SockAddr::try_init(|storage, length| check(libc::accept4(listener, storage.cast(), length, flags)))?
    };
    // SAFETY: the new descriptor is owned by nobody else.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    Ok((fd, addr.as_socket().map(|addr| addr.ip().to_canonical())))
}

/// Receives without waiting; 0 is the end of the stream.
pub(super) fn receive(fd: RawFd, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the kernel writes at most `buffer.len()` bytes into it, borrowed exclusively for
    // the call; `fd` is open.
    let count = unsafe { libc::recv(fd, buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_DONTWAIT) };
    check(count).map(|count| count as usize)
}

/// Sends all parts: in one system call, unless they are more than one takes.
pub(super) fn send(fd: RawFd, parts: &[IoSlice<'_>]) -> Outcome {
    let mut sent = 0;
    for parts in parts.chunks(PARTS) {
        match send_once(fd, parts) {
            Outcome::All => sent += parts.iter().map(|part| part.len()).sum::<usize>(),
            Outcome::Part(count) => return Outcome::Part(sent + count),
            Outcome::Gone => return Outcome::Gone,
        }
    }
    Outcome::All
}

fn send_once(fd: RawFd, parts: &[IoSlice<'_>]) -> Outcome {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    let whole: usize = parts.iter().map(|part| part.len()).sum();
    loop {
        let count = match parts {
            // SAFETY: the kernel reads `part.len()` bytes that `part` borrows; `fd` is open.
            [part] => unsafe { libc::send(fd, part.as_ptr().cast(), part.len(), flags) },
            _ => {
                // SAFETY: all zero is a valid `msghdr`: no address, no parts, no control data.
                let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
                message.msg_iov = parts.as_ptr().cast_mut().cast();
                message.msg_iovlen = parts.len() as _;
                // SAFETY: `IoSlice` has the layout of `iovec`; the kernel reads the parts
                // and the bytes they borrow, and writes neither; `fd` is open.
                unsafe { libc::sendmsg(fd, &raw const message, flags) }
            }
        };
        return match check(count) {
            Ok(count) if count as usize == whole => Outcome::All,
            Ok(count) => Outcome::Part(count as usize),
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => Outcome::Part(0),
                io::ErrorKind::Interrupted => continue,
                _ => Outcome::Gone,
            },
        };
    }
}

/// Tells a peer for whom there is no place so. What it sent already is read first: a close
/// with unread bytes would be a reset that overtakes the answer.
pub(super) fn refuse(fd: &OwnedFd) {
    let _ = send(fd.as_raw_fd(), &[IoSlice::new(REFUSAL)]);
    let socket = SockRef::from(fd);
    let _ = socket.shutdown(Shutdown::Write);
    let mut sink = [std::mem::MaybeUninit::uninit(); 4096];
    for _ in 0..4 {
        if !matches!(socket.recv(&mut sink), Ok(count) if count > 0) {
            return;
        }
    }
}

/// -1 is the error of the last call.
fn check<T: Copy + PartialEq + From<i8>>(result: T) -> io::Result<T> {
    if result == T::from(-1) { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Parts that sendmsg(2) takes (`UIO_MAXIOV`).
const PARTS: usize = 1_024;
const REFUSAL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nConnection: close\r\n\
Content-Type: application/json\r\nContent-Length: 58\r\n\r\n\
{\"id\":\"UNAVAILABLE\",\"message\":\"no place, try again later\"}";
