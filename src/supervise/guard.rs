//! A process that takes over if we are killed: a command that goes on writing metrics, or output that we keep, must neither hang
//! nor die because nobody reads, and the FIFO must not be left behind.
//!
//! It is our child, so it costs a fork; it is made only when the run turns out to be a long one, and never where we are
//! process 1, whose end is the end of everything.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
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
    /// Starts it for a FIFO, if there is one, and for pipes that we read.
    ///
    /// # Errors
    /// Why there is none.
    pub fn start(fifo: Option<&Path>, pipes: &[BorrowedFd<'_>]) -> io::Result<Self> {
        let (ends, life) = pipe2(OFlag::O_CLOEXEC)?;
        // Opened for reading only, so that it comes to an end when nobody has it open for writing.
        let open = |path| File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path);
        let reader = fifo.map(open).transpose()?;
        let mut kept = vec![ends.as_fd()];
        kept.extend(reader.as_ref().map(AsFd::as_fd));
        kept.extend(pipes);
        let pid = fork_apart(&kept, |files| take_over(files, fifo))?;
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

/// What the guard does. All signals are blocked, as they were in us; no file blocks.
fn take_over(mut files: Vec<File>, fifo: Option<&Path>) {
    // Out of the group and session that a key or a kill may end.
    let _ = setsid();
    let _ = nix::sys::prctl::set_name(c"jobmon-guard");
    give_back_code();
    // Nothing is ever written to the first one, so this is our supervisor's end.
    let mut ends = files.remove(0);
    let _ = ends.read(&mut [0]);
    // A file ends when nobody has it open any more: the command and all it started.
    while !files.is_empty() {
        let mut fds: Vec<_> = files.iter().map(|file| PollFd::new(file.as_fd(), PollFlags::POLLIN)).collect();
        let _ = poll(&mut fds, PollTimeout::NONE);
        files.retain_mut(goes_on);
    }
    if let Some(path) = fifo {
        let _ = std::fs::remove_file(path);
        let _ = path.parent().map(std::fs::remove_dir);
    }
}

/// Reads what is there; tells whether there may be more.
fn goes_on(file: &mut File) -> bool {
    match file.read(&mut [0; 16 * 1024]) {
        Ok(0) => false,
        Ok(_) => true,
        Err(error) => [io::ErrorKind::WouldBlock, io::ErrorKind::Interrupted].contains(&error.kind()),
    }
}
