//! A ring that only sends: one system call for a whole batch of sends.
//!
//! ```text
//!  jobs ─▶ [ SEND | SEND | SEND | … ] ─ enter ─▶ kernel sends each, in order, at once
//!          one entry a connection       ◀─ only what did not go out whole is posted
//! ```
//! It is a `send(2)` loop without the loop's system calls. `MSG_DONTWAIT` makes the kernel
//! work an entry off inside `enter`, or give it up there: nothing is under way afterwards,
//! so payloads are only borrowed and no descriptor number outlives the call.
//! `IOSQE_CQE_SKIP_SUCCESS` keeps whole sends silent; `MSG_WAITALL` makes a short one count
//! as a failure, which posts its byte count. Without it a short send would be a silent loss.
//! Kernels differ in exactly these rules, so [`SendRing::new`] proves each of them on a pair
//! of sockets before any peer depends on it.

#![allow(unsafe_code)]

use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use io_uring::{IoUring, opcode, squeue, types};
use socket2::SockRef;

use super::Outcome;

/// The ring of one shard.
pub struct SendRing {
    /// `None` after it failed as a whole.
    ring: Option<IoUring>,
    batches: u64,
}

/// The ring failed as a whole: it is gone, and jobs from `done` on were not sent.
pub(super) struct Broken {
    pub(super) error: io::Error,
    /// Jobs that were sent, or reported.
    pub(super) done: usize,
}

impl SendRing {
    /// A ring whose kernel was seen to keep the rules above.
    ///
    /// # Errors
    /// io_uring is refused, memory for the ring cannot be locked, or the kernel is too old
    /// (before 5.19). Sending without a ring always works.
    pub fn new() -> io::Result<Self> {
        // Entries behind a failed one are worked off too.
        let ring = IoUring::builder().setup_submit_all().build(ENTRIES as u32)?;
        let mut ring = Self { ring: Some(ring), batches: 0 };
        ring.prove()?;
        ring.batches = 0;
        Ok(ring)
    }

    /// Batches that were submitted.
    pub fn batches(&self) -> u64 {
        self.batches
    }

    /// Sends all `jobs` without waiting: an index below 2^32, an open socket, its bytes. What
    /// did not go out whole is appended to `failures` under its index, in any order.
    pub(super) fn send<'a>(
        &mut self,
        jobs: impl Iterator<Item = (usize, RawFd, &'a [u8])>,
        failures: &mut Vec<(usize, Outcome)>,
    ) -> Result<(), Broken> {
        let mut done = 0;
        let mut queued = 0;
        let mut jobs = jobs.peekable();
        while let Some((index, fd, bytes)) = jobs.next() {
            let Some(ring) = &mut self.ring else {
                return Err(Broken { error: io::ErrorKind::BrokenPipe.into(), done });
            };
            let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            let entry = opcode::Send::new(types::Fd(fd), bytes.as_ptr(), length)
                .flags(libc::MSG_DONTWAIT | libc::MSG_WAITALL | libc::MSG_NOSIGNAL)
                .build()
                .flags(squeue::Flags::SKIP_SUCCESS)
                .user_data((index as u64) << 32 | u64::from(length));
            // SAFETY: the entry names `bytes`, borrowed for longer than this call. Before it
            // returns the entry is submitted, and MSG_DONTWAIT completes it inside `enter`;
            // or the ring is dropped with it, never submitted.
            if unsafe { ring.submission().push(&entry) }.is_err() {
                unreachable!("the queue is submitted when it is full");
            }
            queued += 1;
            if queued == ENTRIES || jobs.peek().is_none() {
                match submit(ring, queued, failures) {
                    Ok(()) => done += std::mem::take(&mut queued),
                    Err((error, submitted)) => {
                        self.ring = None;
                        return Err(Broken { error, done: done + submitted });
                    }
                }
                self.batches += 1;
            }
        }
        Ok(())
    }

    /// Sends over a pair of sockets: whole, short, to a full one, to a dead one.
    fn prove(&mut self) -> io::Result<()> {
        let (near, mut far) = UnixStream::pair()?;
        near.set_nonblocking(true)?;
        far.set_nonblocking(true)?;
        SockRef::from(&near).set_send_buffer_size(4_096)?;
        let much = vec![0; 1 << 20];
        let fd = near.as_raw_fd();
        let whole = self.prove_send(fd, &much[..1])?.is_none();
        let Some(Outcome::Part(sent @ 1..)) = self.prove_send(fd, &much)? else {
            return Err(unfit("a short send is not reported"));
        };
        let full = self.prove_send(fd, &much[..1])? == Some(Outcome::Part(0));
        let mut received = 0;
        let mut sink = [0; 4_096];
        while let Ok(count @ 1..) = far.read(&mut sink) {
            received += count;
        }
        drop(far);
        let gone = self.prove_send(fd, &much[..1])? == Some(Outcome::Gone);
        if whole && full && gone && received == 1 + sent {
            return Ok(());
        }
        Err(unfit("sends are not worked off at once"))
    }

    fn prove_send(&mut self, fd: RawFd, bytes: &[u8]) -> io::Result<Option<Outcome>> {
        let mut failures = Vec::new();
        self.send(std::iter::once((7, fd, bytes)), &mut failures).map_err(|broken| broken.error)?;
        match failures[..] {
            [] => Ok(None),
            [(7, outcome)] => Ok(Some(outcome)),
            _ => Err(unfit("one send, several outcomes")),
        }
    }
}

/// Submits everything that is queued and takes what was posted. On an error: how many were
/// submitted.
fn submit(
    ring: &mut IoUring,
    queued: usize,
    failures: &mut Vec<(usize, Outcome)>,
) -> Result<(), (io::Error, usize)> {
    let mut submitted = 0;
    let mut tries = 0;
    let result = loop {
        match ring.submit() {
            Ok(count) => {
                submitted += count;
                tries = if count > 0 { 0 } else { tries + 1 };
            }
            // The kernel had no memory for a request, or a signal came: the rest goes again.
            Err(error) => match error.raw_os_error() {
                Some(libc::EINTR | libc::EAGAIN | libc::EBUSY) if tries < TRIES => tries += 1,
                _ => break Err(error),
            },
        }
        if submitted >= queued {
            break Ok(());
        }
        if tries >= TRIES {
            break Err(io::ErrorKind::OutOfMemory.into());
        }
    };
    for posted in ring.completion() {
        let (index, length) = (posted.user_data() >> 32, posted.user_data() as u32);
        let outcome = match posted.result() {
            count if count >= 0 && count as u32 == length => continue,
            count if count >= 0 => Outcome::Part(count as usize),
            error if error == -libc::EAGAIN => Outcome::Part(0),
            _ => Outcome::Gone,
        };
        failures.push((index as usize, outcome));
    }
    result.map_err(|error| (error, submitted))
}

/// Probes whether the kernel lets this process use io_uring.
///
/// # Errors
/// What `io_uring_setup(2)` said: `ENOSYS`, `EPERM` or `EACCES` where it is refused.
pub fn probe_uring() -> io::Result<()> {
    // `struct io_uring_params` is 120 bytes; all zero asks for defaults.
    let mut params = [0u64; 15];
    // SAFETY: `params` is as large and as aligned as the kernel's structure and borrowed
    // exclusively for the call.
    let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 4u32, params.as_mut_ptr()) };
    if fd == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the new descriptor is owned by nobody else.
    drop(unsafe { OwnedFd::from_raw_fd(fd as RawFd) });
    Ok(())
}

fn unfit(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, format!("the kernel's io_uring is too old: {why}"))
}

/// Sends of one submission.
const ENTRIES: usize = 256;
/// Submissions without progress before the ring is given up.
const TRIES: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn ring() -> Option<SendRing> {
        match probe_uring() {
            Ok(()) => Some(SendRing::new().unwrap()),
            Err(error) => {
                eprintln!("not run: io_uring is refused ({error})");
                None
            }
        }
    }

    #[test]
    fn more_jobs_than_entries_go_out_whole_and_only_failures_are_told() {
        let Some(mut ring) = ring() else { return };
        let pairs: Vec<_> = (0..ENTRIES + 10).map(|_| UnixStream::pair().unwrap()).collect();
        for (near, far) in &pairs {
            near.set_nonblocking(true).unwrap();
            far.set_nonblocking(true).unwrap();
        }
        let payload: Vec<u8> = (0..=255).collect();
        // Two peers are gone, in the first and in the second submission.
        let dead = [3, ENTRIES + 4];
        let mut far: Vec<Option<UnixStream>> = Vec::new();
        let mut near = Vec::new();
        for (index, (one, other)) in pairs.into_iter().enumerate() {
            near.push(one);
            far.push((!dead.contains(&index)).then_some(other));
        }
        let mut failures = Vec::new();
        let jobs = near.iter().enumerate().map(|(index, socket)| {
            let bytes = &payload[..1 + index % 256];
            (index, socket.as_raw_fd(), bytes)
        });
        assert!(ring.send(jobs, &mut failures).is_ok());
        failures.sort_unstable_by_key(|(index, _)| *index);
        assert_eq!(failures, dead.map(|index| (index, Outcome::Gone)));
        assert_eq!(ring.batches(), 2);
        for (index, socket) in far.iter_mut().enumerate() {
            let Some(socket) = socket else { continue };
            let mut got = [0; 512];
            let count = socket.read(&mut got).unwrap();
            assert_eq!(got[..count], payload[..1 + index % 256], "{index}");
        }
    }

    /// A buffer smaller than the message: every byte is either sent and reported, or not.
    #[test]
    fn what_is_reported_as_sent_is_what_arrives() {
        let Some(mut ring) = ring() else { return };
        let message: Vec<u8> = (0..200_000u32).map(|at| at as u8).collect();
        for buffer in [2_048, 8_192, 65_536] {
            let (near, mut far) = UnixStream::pair().unwrap();
            near.set_nonblocking(true).unwrap();
            far.set_nonblocking(true).unwrap();
            SockRef::from(&near).set_send_buffer_size(buffer).unwrap();
            let (mut sent, mut got) = (0, Vec::new());
            while sent < message.len() {
                let mut failures = Vec::new();
                let job = (0, near.as_raw_fd(), &message[sent..]);
                assert!(ring.send(std::iter::once(job), &mut failures).is_ok());
                match failures[..] {
                    [] => sent = message.len(),
                    [(0, Outcome::Part(count))] => sent += count,
                    _ => panic!("{failures:?}"),
                }
                let mut sink = [0; 3_000];
                let count = far.read(&mut sink).unwrap();
                got.extend_from_slice(&sink[..count]);
            }
            far.set_nonblocking(false).unwrap();
            drop(near);
            far.read_to_end(&mut got).unwrap();
            assert!(got == message, "buffer of {buffer}");
        }
    }
}
