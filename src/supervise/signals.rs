//! The signals that are taken, and how they are passed on.
//!
//! Everything that can be caught is blocked and read from a signalfd. No handler is ever installed, so nothing has to be
//! undone for the command: a handler on a signal inherited as ignored would make it default there. Blocked, SIGPIPE and
//! SIGXFSZ are failed writes instead of deaths, and SIGTTOU does not stop us when a message goes to the terminal
//! (signal(7), `tty_ioctl(4)`).
#![allow(
    unsafe_code,
    reason = "kill(2) with real-time signals and the disposition of SIGCHLD have no safe wrapper"
)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, Signal as Known, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd, siginfo};
use nix::unistd::Pid;

/// Signals that tell of a fault of our own and must end us at once.
const FAULTS: [Known; 7] = [
    Known::SIGSEGV,
    Known::SIGBUS,
    Known::SIGFPE,
    Known::SIGILL,
    Known::SIGABRT,
    Known::SIGTRAP,
    Known::SIGSYS,
];

/// A signal that came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signal {
    /// Its number.
    pub number: i32,
    /// Who sent it.
    pub origin: Origin,
}

/// Who sent a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The kernel: a key on the terminal, a limit.
    Kernel,
    /// This process itself, such as SIGPIPE from its own write.
    Ourselves,
    /// Some process.
    Process,
}

/// The signals of this process, taken for as long as it lives.
#[derive(Debug)]
pub struct Signals {
    fd: SignalFd,
    inherited: Inherited,
}

/// What the caller had set, which the command gets back.
#[derive(Debug, Clone, Copy)]
pub struct Inherited {
    mask: SigSet,
    sigchld_ignored: bool,
}

impl Signals {
    /// Blocks the signals and opens the descriptor that they are read from.
    ///
    /// # Errors
    /// Why there is no descriptor; the caller's mask is in force again then.
    pub fn take() -> io::Result<Self> {
        let mut set = SigSet::all();
        FAULTS.into_iter().for_each(|fault| set.remove(fault));
        let mut mask = SigSet::empty();
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), Some(&mut mask))?;
        let inherited = Inherited { mask, sigchld_ignored: stop_ignoring_sigchld() };
        match SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC) {
            Ok(fd) => Ok(Self { fd, inherited }),
            Err(error) => {
                inherited.restore();
                Err(error.into())
            }
        }
    }

    /// The next signal that has come in, if any.
    pub fn next(&self) -> Option<Signal> {
        loop {
            match self.fd.read_signal() {
                Ok(info) => return info.map(|info| signal(&info)),
                Err(Errno::EINTR) => {}
                Err(_) => return None,
            }
        }
    }

    /// What the caller had set.
    pub fn inherited(&self) -> Inherited {
        self.inherited
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn signal(info: &siginfo) -> Signal {
    let origin = if info.ssi_code == libc::SI_KERNEL {
        Origin::Kernel
    } else if info.ssi_pid == std::process::id() {
        Origin::Ourselves
    } else {
        Origin::Process
    };
    Signal { number: info.ssi_signo.cast_signed(), origin }
}

impl Inherited {
    /// Sets dispositions and mask as the caller had them, in this order: what is pending is delivered when the mask falls.
    pub fn restore(&self) {
        if self.sigchld_ignored {
            set_sigchld(libc::SIG_IGN);
        }
        // The arguments are valid, so it cannot fail (sigprocmask(2)).
        let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.mask), None);
    }
}

/// With SIGCHLD ignored, children vanish without a status (waitpid(2)). Tells whether it was ignored.
fn stop_ignoring_sigchld() -> bool {
    let mut old = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: `old` is writable and as large as the kernel's answer; a null new action only asks.
    let old = unsafe {
        libc::sigaction(libc::SIGCHLD, std::ptr::null(), old.as_mut_ptr());
        old.assume_init()
    };
    let ignored = old.sa_sigaction == libc::SIG_IGN || old.sa_flags & libc::SA_NOCLDWAIT != 0;
    if ignored {
        set_sigchld(libc::SIG_DFL);
    }
    ignored
}

fn set_sigchld(disposition: libc::sighandler_t) {
    // SAFETY: the disposition is SIG_DFL or SIG_IGN, so no code is ever called.
    unsafe { libc::signal(libc::SIGCHLD, disposition) };
}

/// Sends a signal to a process, or to its group. Whoever calls this knows that the process has not been reaped, so its
/// number cannot stand for another one.
///
/// # Errors
/// Such as EPERM, where the command has become another user.
pub fn send(pid: Pid, whole_group: bool, number: i32) -> nix::Result<()> {
    let target = if whole_group { -pid.as_raw() } else { pid.as_raw() };
    // SAFETY: kill takes numbers and touches no memory of ours.
    Errno::result(unsafe { libc::kill(target, number) }).map(drop)
}

/// Stops this process as Ctrl-Z does; returns when it is continued.
pub fn stop_ourselves() {
    // It sends SIGSTOP, which cannot be blocked.
    let _ = signal_hook::low_level::emulate_default_handler(signal_hook::consts::SIGTSTP);
}
