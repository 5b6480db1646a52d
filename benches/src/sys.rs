//! The kernel, as far as the standard library does not reach: epoll, a periodic timer, the
//! core a thread runs on and its priority there, accept4(2), send(2) and its io_uring batch.
//!
//! The only file of the crate with `unsafe`. Every block is one system call on descriptors
//! and buffers that are borrowed for the call.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use io_uring::{IoUring, opcode, squeue, types};

/// An epoll set. Tokens are the caller's.
pub struct Epoll {
    set: OwnedFd,
    events: Box<[libc::epoll_event]>,
}

/// How a descriptor is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Bytes to read, or the end; told again as long as it is so.
    Read,
    /// The end of a connect, then bytes to read or the end; told once, when it becomes so.
    /// Saves a call per connection and a second look at each of them per round.
    ConnectThenRead,
}

impl Epoll {
    /// An empty set that answers at most `events` at once.
    ///
    /// # Errors
    /// No descriptor left.
    pub fn new(events: usize) -> io::Result<Self> {
        // SAFETY: no memory is passed; the new descriptor is owned by nobody else.
        let set = unsafe { OwnedFd::from_raw_fd(check(libc::epoll_create1(libc::EPOLL_CLOEXEC))?) };
        let none = libc::epoll_event { events: 0, u64: 0 };
        Ok(Self { set, events: vec![none; events].into_boxed_slice() })
    }

    /// Watches `fd`, which leaves the set when it closes.
    ///
    /// # Errors
    /// `fd` is in the set already, or the kernel has no memory.
    pub fn add(&self, fd: BorrowedFd<'_>, interest: Interest, token: u64) -> io::Result<()> {
        let flags = match interest {
            Interest::Read => libc::EPOLLIN | libc::EPOLLRDHUP,
            Interest::ConnectThenRead => libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLOUT | libc::EPOLLET,
        };
        let mut event = libc::epoll_event { events: flags as u32, u64: token };
        let (set, fd) = (self.set.as_raw_fd(), fd.as_raw_fd());
        // SAFETY: `event` is read during the call only; both descriptors are open.
        check(unsafe { libc::epoll_ctl(set, libc::EPOLL_CTL_ADD, fd, &raw mut event) }).map(drop)
    }

    /// Waits at most `timeout` (`None`: without limit) and answers how many descriptors are ready.
    ///
    /// # Errors
    /// Never for a set that is open.
    pub fn wait(&mut self, timeout: Option<Duration>) -> io::Result<usize> {
        let ms = timeout.map_or(-1, |time| i32::try_from(time.as_millis()).unwrap_or(i32::MAX));
        let room = i32::try_from(self.events.len()).unwrap_or(i32::MAX);
        // SAFETY: the kernel writes at most `events.len()` entries into `events`, which is
        // borrowed exclusively for the call.
        let count = unsafe { libc::epoll_wait(self.set.as_raw_fd(), self.events.as_mut_ptr(), room, ms) };
        match check(count) {
            Ok(count) => Ok(count as usize),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Token of the `index`-th descriptor that the last wait found ready.
    pub fn token(&self, index: usize) -> u64 {
        self.events[index].u64
    }
}

/// A timer that becomes readable every `period`. Each reading takes eight bytes: how often
/// it went off since the last one.
///
/// # Errors
/// No descriptor left.
pub fn ticker(period: Duration) -> io::Result<OwnedFd> {
    let flags = libc::TFD_NONBLOCK | libc::TFD_CLOEXEC;
    // SAFETY: no memory is passed; the new descriptor is owned by nobody else.
    let timer = unsafe { OwnedFd::from_raw_fd(check(libc::timerfd_create(libc::CLOCK_MONOTONIC, flags))?) };
    let span = libc::timespec {
        tv_sec: period.as_secs() as libc::time_t,
        tv_nsec: libc::c_long::from(period.subsec_nanos()),
    };
    let spec = libc::itimerspec { it_interval: span, it_value: span };
    // SAFETY: `spec` is read during the call only, and no old value is asked for.
    check(unsafe { libc::timerfd_settime(timer.as_raw_fd(), 0, &raw const spec, std::ptr::null_mut()) })?;
    Ok(timer)
}

/// Cores the calling thread may run on, in ascending order.
///
/// # Errors
/// Never on a running thread.
pub fn cores() -> io::Result<Vec<usize>> {
    // SAFETY: all zero is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes at most the size of `set`, which is borrowed exclusively.
    check(unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) })?;
    // SAFETY: the macro reads a bit below CPU_SETSIZE of a set that is initialised.
    Ok((0..libc::CPU_SETSIZE as usize).filter(|core| unsafe { libc::CPU_ISSET(*core, &set) }).collect())
}

/// Pins the calling thread, and the threads and processes it starts from now on.
///
/// # Errors
/// None of the cores may be used.
pub fn pin(cores: &[usize]) -> io::Result<()> {
    // SAFETY: all zero is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for core in cores.iter().filter(|core| **core < libc::CPU_SETSIZE as usize) {
        // SAFETY: the index is below CPU_SETSIZE.
        unsafe { libc::CPU_SET(*core, &mut set) };
    }
    // SAFETY: `set` is read during the call only.
    check(unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) }).map(drop)
}

/// Lets the calling process run before others on its core, as far as that is allowed;
/// answers how far.
pub fn prefer() -> String {
    let real_time = libc::sched_param { sched_priority: 1 };
    // SAFETY: `real_time` is read during the call only.
    if check(unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const real_time) }).is_ok() {
        return "real time".to_owned();
    }
    // SAFETY: no memory is passed.
    match check(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) }) {
        Ok(_) => format!("nice {NICE}"),
        Err(_) => "no priority".to_owned(),
    }
}

/// Takes a peer from a listener, non-blocking, in one system call.
///
/// # Errors
/// `WouldBlock` when nobody waits; no descriptor left.
pub fn accept(listener: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    let (nobody, fd) = (std::ptr::null_mut(), listener.as_raw_fd());
    // SAFETY: no address is asked for; `listener` is open.
    let fd = check(unsafe { libc::accept4(fd, nobody, std::ptr::null_mut(), flags) })?;
    // SAFETY: the new descriptor is owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Peers of this listener are to be accepted when their first bytes are there, or after a
/// second (`TCP_DEFER_ACCEPT`, tcp(7)).
///
/// # Errors
/// Not a TCP socket.
pub fn defer_accept(listener: BorrowedFd<'_>) -> io::Result<()> {
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
    check(result).map(drop)
}

/// One non-blocking send(2).
///
/// # Errors
/// `WouldBlock` when the socket is full, anything else when the peer is gone.
pub fn send(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the kernel reads `bytes.len()` bytes that are borrowed; `fd` is open.
    let count = unsafe { libc::send(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) };
    check(count).map(|count| count as usize)
}

/// A ring that only sends, a batch per system call.
pub struct SendRing {
    ring: IoUring,
    batch: usize,
}

impl SendRing {
    /// A ring for `batch` sends at once, at most 4,096.
    ///
    /// # Errors
    /// io_uring is refused on this machine.
    pub fn new(batch: usize) -> io::Result<Self> {
        let entries = u32::try_from(batch.next_power_of_two()).unwrap_or(u32::MAX);
        // One submitter and nobody who polls: the kernel may skip its locks and its wakes.
        let ring = IoUring::builder().setup_single_issuer().setup_coop_taskrun().build(entries)?;
        Ok(Self { ring, batch })
    }

    /// Sends `bytes` to every descriptor, in batches; answers how many did not take all of it.
    ///
    /// # Errors
    /// The ring is broken as a whole.
    pub fn send_all(&mut self, fds: &[RawFd], bytes: &[u8]) -> io::Result<usize> {
        // WAITALL, because without it a short send would count as success and post nothing.
        let flags = libc::MSG_DONTWAIT | libc::MSG_WAITALL | libc::MSG_NOSIGNAL;
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        let mut failed = 0;
        for batch in fds.chunks(self.batch) {
            for fd in batch {
                let send = opcode::Send::new(types::Fd(*fd), bytes.as_ptr(), length)
                    .flags(flags)
                    .build()
                    .flags(squeue::Flags::SKIP_SUCCESS);
                // SAFETY: `bytes` is borrowed until `submit` has returned, and a send that
                // must not wait has ended by then.
                unsafe { self.ring.submission().push(&send) }.map_err(io::Error::other)?;
            }
            self.ring.submit()?;
            failed += self.ring.completion().count();
        }
        Ok(failed)
    }
}

/// The most urgent value.
const NICE: i32 = -20;

/// -1 is the error of the last call.
fn check<T: Copy + PartialEq + From<i8>>(result: T) -> io::Result<T> {
    if result == T::from(-1) { Err(io::Error::last_os_error()) } else { Ok(result) }
}
