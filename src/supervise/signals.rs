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
use nix::unistd::{getpid, getppid, getsid};

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
    /// Whether our caller ignores it, as nohup(1) does.
    pub is_ignored: bool,
}

/// Signals that a terminal sends to its whole foreground group.
const TERMINAL: [i32; 8] = [
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTSTP,
    libc::SIGTTIN,
    libc::SIGTTOU,
    libc::SIGWINCH,
    libc::SIGHUP,
    libc::SIGCONT,
];

impl Signal {
    /// Whether a terminal sends it to everybody in the group.
    pub fn is_a_terminals(self) -> bool {
        TERMINAL.contains(&self.number)
    }

    /// Whether it asks to stop.
    pub fn stops(self) -> bool {
        !self.is_ignored && [libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU].contains(&self.number)
    }

    /// Whether it may ask to end.
    pub fn asks_to_end(self) -> bool {
        self.origin != Origin::Ourselves
            && !self.is_ignored
            && [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT].contains(&self.number)
    }

    /// Whether it can mean nothing else; a hangup may be a wish to read a configuration again, a quit to tell what goes on.
    pub fn ends_for_good(self) -> bool {
        self.asks_to_end() && [libc::SIGTERM, libc::SIGINT].contains(&self.number)
    }
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
    /// Those of [`MEANT_FOR_US`] that the caller ignores.
    ignored: [Option<i32>; MEANT_FOR_US.len()],
}

/// Signals that mean something to us, too, unless our caller ignores them. Blocked, they come in all the same.
const MEANT_FOR_US: [i32; 7] =
    [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU];

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
        let ignored = MEANT_FOR_US.map(|number| is_ignored(number).then_some(number));
        let sigchld_ignored = is_ignored(libc::SIGCHLD);
        if sigchld_ignored {
            // Else children vanish without a status (waitpid(2)).
            set_sigchld(libc::SIG_DFL);
        }
        let inherited = Inherited { mask, sigchld_ignored, ignored };
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
                Ok(info) => return info.map(|info| self.signal(&info)),
                Err(Errno::EINTR) => {}
                Err(_) => return None,
            }
        }
    }

    fn signal(&self, info: &siginfo) -> Signal {
        let origin = if info.ssi_code == libc::SI_KERNEL {
            Origin::Kernel
        } else if info.ssi_pid == std::process::id() {
            Origin::Ourselves
        } else {
            Origin::Process
        };
        let number = info.ssi_signo.cast_signed();
        Signal { number, origin, is_ignored: self.inherited.ignored.contains(&Some(number)) }
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

/// Whether the caller ignores a signal; of SIGCHLD, whether children vanish without a status.
fn is_ignored(number: i32) -> bool {
    let mut old = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: `old` is writable and as large as the kernel's answer; a null new action only asks.
    let old = unsafe {
        libc::sigaction(number, std::ptr::null(), old.as_mut_ptr());
        old.assume_init()
    };
    old.sa_sigaction == libc::SIG_IGN || (number == libc::SIGCHLD && old.sa_flags & libc::SA_NOCLDWAIT != 0)
}

fn set_sigchld(disposition: libc::sighandler_t) {
    // SAFETY: the disposition is SIG_DFL or SIG_IGN, so no code is ever called.
    unsafe { libc::signal(libc::SIGCHLD, disposition) };
}

/// Sends a signal to a process, or, with a negative number, to a group (kill(2)). Whoever calls this knows that the process
/// has not been reaped, so its number cannot stand for another one.
///
/// # Errors
/// Such as EPERM, where the command has become another user.
pub fn send(target: i32, number: i32) -> nix::Result<()> {
    // SAFETY: kill takes numbers and touches no memory of ours.
    Errno::result(unsafe { libc::kill(target, number) }).map(drop)
}

/// Whether nobody in this session watches our process group, so that the kernel stops none of it for a key (setpgid(2)).
pub fn is_group_orphaned() -> bool {
    let session = |pid| getsid(pid).ok();
    session(Some(getppid())) != session(None) || getsid(None).is_ok_and(|leader| leader == getpid())
}

/// Stops this process as Ctrl-Z does; returns when it is continued.
pub fn stop_ourselves() {
    // It sends SIGSTOP, which cannot be blocked.
    let _ = signal_hook::low_level::emulate_default_handler(signal_hook::consts::SIGTSTP);
}
