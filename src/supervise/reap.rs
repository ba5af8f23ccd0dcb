//! The only waiter in the program.
#![allow(
    unsafe_code,
    reason = "wait4(2), which gives a child's status and usage in one, has no safe wrapper"
)]

use std::mem::MaybeUninit;

use nix::errno::Errno;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;

use super::outcome::Outcome;

/// What has become of a process.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Change {
    /// It has ended, is gone now, and used this.
    Ended(Outcome, Usage),
    /// It has been stopped.
    Stopped,
}

/// What a process, and those it waited for, used (getrusage(2)).
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Usage {
    /// Seconds on a processor in user mode.
    pub cpu_user_seconds: f64,
    /// Seconds on a processor in the kernel.
    pub cpu_system_seconds: f64,
    /// The largest resident set of any of them, in bytes.
    pub max_resident_bytes: f64,
    /// Page faults that needed a disk.
    pub major_page_faults: f64,
    /// Page faults that did not.
    pub minor_page_faults: f64,
    /// Context switches because it waited.
    pub voluntary_context_switches: f64,
    /// Context switches because its time was up.
    pub involuntary_context_switches: f64,
    /// Bytes read from block devices.
    pub block_read_bytes: f64,
    /// Bytes written to block devices.
    pub block_written_bytes: f64,
}

impl std::ops::AddAssign for Usage {
    /// Of two, one after the other.
    fn add_assign(&mut self, other: Self) {
        self.cpu_user_seconds += other.cpu_user_seconds;
        self.cpu_system_seconds += other.cpu_system_seconds;
        self.max_resident_bytes = self.max_resident_bytes.max(other.max_resident_bytes);
        self.major_page_faults += other.major_page_faults;
        self.minor_page_faults += other.minor_page_faults;
        self.voluntary_context_switches += other.voluntary_context_switches;
        self.involuntary_context_switches += other.involuntary_context_switches;
        self.block_read_bytes += other.block_read_bytes;
        self.block_written_bytes += other.block_written_bytes;
    }
}

/// `ru_inblock` and `ru_oublock` count blocks of this size on Linux.
const BLOCK_BYTES: f64 = 512.0;

/// Reaps one process that has ended or tells of one that has stopped: our child, or an orphan where we are its reaper. `None`
/// if there is none now. SIGCHLD is sent once for several, so this is called until it is `None`.
pub fn reap() -> Option<(Pid, Change)> {
    loop {
        let mut status = 0;
        let mut usage = MaybeUninit::<libc::rusage>::zeroed();
        // SAFETY: both pointers are to memory of ours of the right type; zeros are a valid rusage.
        let (pid, usage) = unsafe {
            let pid = libc::wait4(-1, &raw mut status, libc::WNOHANG | libc::WUNTRACED, usage.as_mut_ptr());
            (pid, usage.assume_init())
        };
        match pid {
            pid if pid > 0 => {
                let change = outcome(status).map(|outcome| Change::Ended(outcome, Usage::from(&usage)));
                return Some((Pid::from_raw(pid), change.unwrap_or(Change::Stopped)));
            }
            -1 if Errno::last() == Errno::EINTR => {}
            _ => return None,
        }
    }
}

/// Whether there is a child that nobody has waited for.
pub fn has_children() -> bool {
    let flags = WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT | WaitPidFlag::WEXITED;
    waitid(Id::All, flags) != Err(Errno::ECHILD)
}

/// Whether a child has been stopped since this was asked last.
pub fn has_stopped(pid: Pid) -> bool {
    let stopped = waitid(Id::Pid(pid), WaitPidFlag::WNOHANG | WaitPidFlag::WSTOPPED);
    matches!(stopped, Ok(WaitStatus::Stopped(..)))
}

/// Waits for a child that is about to end and that nobody asks about.
pub fn forget(pid: Pid) {
    while waitpid(pid, None::<WaitPidFlag>) == Err(Errno::EINTR) {}
}

fn outcome(status: i32) -> Option<Outcome> {
    if libc::WIFEXITED(status) {
        u8::try_from(libc::WEXITSTATUS(status)).ok().map(Outcome::Exited)
    } else if libc::WIFSIGNALED(status) {
        u8::try_from(libc::WTERMSIG(status)).ok().map(Outcome::Killed)
    } else {
        None
    }
}

impl From<&libc::rusage> for Usage {
    fn from(usage: &libc::rusage) -> Self {
        let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
        Self {
            cpu_user_seconds: seconds(usage.ru_utime),
            cpu_system_seconds: seconds(usage.ru_stime),
            max_resident_bytes: usage.ru_maxrss as f64 * 1024.0,
            major_page_faults: usage.ru_majflt as f64,
            minor_page_faults: usage.ru_minflt as f64,
            voluntary_context_switches: usage.ru_nvcsw as f64,
            involuntary_context_switches: usage.ru_nivcsw as f64,
            block_read_bytes: usage.ru_inblock as f64 * BLOCK_BYTES,
            block_written_bytes: usage.ru_oublock as f64 * BLOCK_BYTES,
        }
    }
}
