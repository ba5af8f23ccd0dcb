//! A process that takes over if we are killed: a command that goes on writing metrics must not hang on a FIFO that nobody
//! reads, and the FIFO must not be left behind.
//!
//! It is our child, so it costs a fork; it is made only when the run turns out to be a long one, and never where we are
//! process 1, whose end is the end of everything.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::{Pid, pipe2, setsid};

use super::reap;
use super::signals::send;
use super::spawn::{fork_apart, give_back_code};

/// The guard of a run. Dropping it ends it.
#[derive(Debug)]
pub struct Guard {
    /// `None` when it has ended by itself.
    pid: Option<Pid>,
    /// Closed by our end, whatever it is like.
    _life: File,
}

impl Guard {
    /// Starts it for a FIFO.
    ///
    /// # Errors
    /// Why there is none.
    pub fn start(fifo: &Path) -> io::Result<Self> {
        let (ends, life) = pipe2(OFlag::O_CLOEXEC)?;
        let reader = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(fifo)?;
        let pid = fork_apart([ends.as_fd(), reader.as_fd()], |ends, reader| take_over(ends, reader, fifo))?;
        Ok(Self { pid: Some(pid), _life: File::from(life) })
    }

    /// Its process.
    pub fn pid(&self) -> Option<Pid> {
        self.pid
    }

    /// It has ended, and its number may be that of another process now.
    pub fn is_gone(&mut self) {
        self.pid = None;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(pid) = self.pid {
            // Our unreaped child: it can be killed, and its number is its own.
            let _ = send(pid.as_raw(), libc::SIGKILL);
            reap::forget(pid);
        }
    }
}

/// What the guard does. All signals are blocked, as they were in us.
fn take_over(mut ends: &File, mut fifo: &File, path: &Path) {
    // Out of the group and session that a key or a kill may end.
    let _ = setsid();
    let _ = nix::sys::prctl::set_name(c"jobmon-guard");
    give_back_code();
    // Nothing is ever written there, so this is our supervisor's end.
    let _ = ends.read(&mut [0]);
    let flags = fcntl(fifo, FcntlArg::F_GETFL).map_or(OFlag::empty(), OFlag::from_bits_retain);
    let _ = fcntl(fifo, FcntlArg::F_SETFL(flags - OFlag::O_NONBLOCK));
    let mut unread = [0; 16 * 1024];
    // It ends when nobody has the FIFO open any more: the command and all it started.
    while fifo.read(&mut unread).is_ok_and(|n| n > 0) {}
    let _ = std::fs::remove_file(path);
    let _ = path.parent().map(std::fs::remove_dir);
}
