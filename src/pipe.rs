//! Pipes and sockets that must not hold us: waiting for them and writing to them, each with a limit.
//!
//! In: descriptors that do not block. Out: whether they are ready, whether all was written. Must not: wait for longer than was said.

use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;

/// Lets no reading or writing of it block.
pub fn unblock(fd: BorrowedFd) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(fd)?;
    Ok(rustix::fs::fcntl_setfl(fd, flags | OFlags::NONBLOCK)?)
}

/// Waits until one of these is ready or the time is over; whether one is.
pub fn wait(of: &mut [PollFd], time: Duration) -> bool {
    let timeout = Timespec { tv_sec: time.as_secs() as i64, tv_nsec: i64::from(time.subsec_nanos()) };
    matches!(poll(of, Some(&timeout)), Ok(n) if n > 0)
}

/// Waits until it can be read.
pub fn wait_to_read(of: &impl AsFd, time: Duration) -> bool {
    wait(&mut [PollFd::new(of, PollFlags::IN)], time)
}

/// Writes all of it within this time. `look` is called at least every `every` meanwhile and may end it.
///
/// # Errors
/// What the system said, `TimedOut`, or what `look` said.
pub fn write_all<E: From<io::Error>>(
    to: &mut (impl Write + AsFd),
    mut rest: &[u8],
    within: Duration,
    every: Duration,
    mut look: impl FnMut() -> Result<(), E>,
) -> Result<(), E> {
    let deadline = Instant::now() + within;
    while !rest.is_empty() {
        match to.write(rest) {
            Ok(n) => rest = &rest[n..],
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(io::Error::from(ErrorKind::TimedOut).into());
                }
                wait(&mut [PollFd::new(to, PollFlags::OUT)], left.min(every));
                look()?;
            }
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}
