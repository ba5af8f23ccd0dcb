//! The command started, as if its caller had started it.
//!
//! std's `Command` leaks a blocked signal mask into the child, resets SIGPIPE, opens `/dev/null` on a closed descriptor and
//! cannot run a script without `#!`; so this is fork and execvpe. The process has one thread here.
#![allow(unsafe_code, reason = "fork, execvpe and environ have no safe form")]

use std::ffi::{CStr, CString, OsStr, OsString, c_char};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::{ForkResult, Pid, fork, pipe2, setpgid};

use super::outcome::Outcome;
use super::signals::{Inherited, send};

unsafe extern "C" {
    /// environ(7)
    static environ: *const *const c_char;
    /// The first byte of the program's image, by the linker.
    static __executable_start: u8;
    /// The first byte after its code (end(3)).
    static etext: u8;
}

/// Descriptors that are passed on beside the caller's get a number from here on, out of the way of scripts.
const PASSED_ON_FD_MIN: i32 = 100;

/// A running command.
#[derive(Debug)]
pub struct Child {
    /// Its process, and its process group if it leads one.
    pub pid: Pid,
    leads_group: bool,
}

impl Child {
    /// Passes a signal on, to the whole group where the command leads one.
    ///
    /// # Errors
    /// What kill(2) says.
    pub fn signal(&self, number: i32) -> nix::Result<()> {
        send(self.pid, self.leads_group, number)
    }
}

/// Why a command did not start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SpawnError {
    /// There are no descriptors to supervise it with; it can be run all the same, see [`become_command`].
    #[error("{}", .0.desc())]
    Pipe(Errno),
    /// There is no process for it.
    #[error("no process can be started: {}", .0.desc())]
    Fork(Errno),
    /// It cannot be executed.
    #[error("{}", .0.desc())]
    Exec(Errno),
}

impl SpawnError {
    /// How the run ended, then.
    pub fn outcome(self) -> Outcome {
        match self {
            Self::Exec(Errno::ENOENT) => Outcome::NotFound,
            Self::Exec(_) | Self::Fork(_) | Self::Pipe(_) => Outcome::CannotExecute,
        }
    }
}

/// What a command is started with.
#[derive(Debug)]
pub struct Start<'a> {
    /// The command and its arguments.
    pub command: &'a [OsString],
    /// Variables that are added to the caller's, or replace them.
    pub variables: &'a [(&'a str, OsString)],
    /// Whether the command gets a process group of its own.
    pub own_group: bool,
    /// A descriptor that the command keeps open.
    pub keep_open: Option<&'a OwnedFd>,
    /// What the caller had set for signals.
    pub inherited: Inherited,
}

/// Starts the command; returns when it has been executed, or could not be. All signals are blocked meanwhile, so none is
/// lost between fork and exec: what comes in before the command runs is read, and passed on, afterwards.
///
/// # Errors
/// Why it did not start.
pub fn spawn(start: &Start<'_>) -> Result<Child, SpawnError> {
    let image = Image::new(start.command, start.variables);
    let (mut reader, mut writer) = pipe2(OFlag::O_CLOEXEC)
        .map(|(reader, writer)| (File::from(reader), File::from(writer)))
        .map_err(SpawnError::Pipe)?;
    let passed_on = start.keep_open.and_then(pass_on);
    // SAFETY: this process has one thread, so the child finds every lock free and may do anything.
    match unsafe { fork() }.map_err(SpawnError::Fork)? {
        ForkResult::Child => {
            if start.own_group {
                // Also done by the parent, whoever comes first.
                let _ = setpgid(Pid::from_raw(0), Pid::from_raw(0));
            }
            start.inherited.restore();
            let errno = image.execute();
            let _ = writer.write_all(&(errno as i32).to_ne_bytes());
            // SAFETY: it ends the process without running what belongs to the parent.
            unsafe { libc::_exit(i32::from(SpawnError::Exec(errno).outcome().exit_code())) }
        }
        ForkResult::Parent { child } => {
            drop((writer, passed_on));
            if start.own_group {
                // Fails with EACCES where the command runs already: the child has done it then.
                let _ = setpgid(child, child);
            }
            let mut errno = [0; 4];
            if reader.read_exact(&mut errno).is_err() {
                // The pipe was closed by exec.
                return Ok(Child { pid: child, leads_group: start.own_group });
            }
            super::reap::forget(child);
            Err(SpawnError::Exec(Errno::from_raw(i32::from_ne_bytes(errno))))
        }
    }
}

/// Becomes the command, unsupervised: the last resort when there is no way to supervise it. Returns only if that fails too.
pub fn become_command(command: &[OsString]) -> SpawnError {
    SpawnError::Exec(Image::new(command, &[]).execute())
}

/// Gives back the pages of code that were needed up to here. What goes on then is a wait, and needs few of them; the others
/// are read again from the page cache when they are called for. So what is resident while a command runs is what is in use.
pub fn give_back_code() {
    let (start, end) = (&raw const __executable_start, &raw const etext);
    let length = (end as usize).saturating_sub(start as usize);
    // SAFETY: the linker places nothing but constants and code between the two, mapped from the program's file and never
    // written, so a page that goes comes back as it was (madvise(2)); no reference is made from either symbol.
    unsafe { libc::madvise(start.cast_mut().cast(), length, libc::MADV_DONTNEED) };
}

/// A copy of a descriptor that survives exec.
fn pass_on(fd: &OwnedFd) -> Option<OwnedFd> {
    use std::os::fd::FromRawFd as _;
    let copy =
        fcntl(fd, FcntlArg::F_DUPFD(PASSED_ON_FD_MIN)).or_else(|_| fcntl(fd, FcntlArg::F_DUPFD(3))).ok()?;
    debug_assert_ne!(copy, fd.as_raw_fd());
    // SAFETY: the kernel has just made this descriptor and nobody else knows it.
    Some(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// Arguments and environment in the form that exec takes, made before the fork.
struct Image {
    arguments: Vec<CString>,
    environment: Vec<CString>,
}

impl Image {
    fn new(command: &[OsString], variables: &[(&str, OsString)]) -> Self {
        let replaced = |entry: &CStr| {
            variables.iter().any(|(name, _)| {
                entry.to_bytes().strip_prefix(name.as_bytes()).is_some_and(|rest| rest.starts_with(b"="))
            })
        };
        let mut environment: Vec<CString> = inherited_environment()
            .into_iter()
            .filter(|entry| !replaced(entry))
            .map(CStr::to_owned)
            .collect();
        environment.extend(variables.iter().map(|(name, value)| {
            let mut entry = OsString::from(name);
            entry.push("=");
            entry.push(value);
            c_string(entry)
        }));
        Self { arguments: command.iter().cloned().map(c_string).collect(), environment }
    }

    /// Runs the command in this process, found on PATH and handed to `/bin/sh` if it has no `#!`, as execvp(3) does.
    fn execute(&self) -> Errno {
        let pointers = |strings: &[CString]| {
            strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect::<Vec<_>>()
        };
        let (arguments, environment) = (pointers(&self.arguments), pointers(&self.environment));
        // SAFETY: both arrays hold pointers to NUL-terminated strings that outlive the call, and end with null.
        unsafe { libc::execvpe(arguments[0], arguments.as_ptr(), environment.as_ptr()) };
        if Errno::last() == Errno::E2BIG {
            // Our variables are what is too much: without them the command has what its caller gave it.
            // SAFETY: as above; `environ` is the environment that this process was started with.
            unsafe { libc::execvpe(arguments[0], arguments.as_ptr(), environ) };
        }
        Errno::last()
    }
}

/// Every entry as the caller made it, also those that std would leave out.
fn inherited_environment() -> Vec<&'static CStr> {
    let mut entries = Vec::new();
    // SAFETY: nobody changes the environment in this program, so `environ` is a null-terminated array of NUL-terminated
    // strings that live as long as the process, or null.
    unsafe {
        let mut next = environ;
        while !next.is_null() && !(*next).is_null() {
            entries.push(CStr::from_ptr(*next));
            next = next.add(1);
        }
    }
    entries
}

/// Arguments and variables come from C strings, so they have no NUL inside; what has is cut there, as C would.
fn c_string(text: OsString) -> CString {
    let mut bytes = text.into_vec();
    if let Some(nul) = bytes.iter().position(|b| *b == 0) {
        bytes.truncate(nul);
    }
    CString::new(bytes).unwrap_or_default()
}

/// How a command is named in messages.
pub fn display(command: &OsStr) -> String {
    String::from_utf8_lossy(command.as_bytes()).into_owned()
}
