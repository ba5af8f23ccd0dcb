//! The command started, as if its caller had started it.
//!
//! std's `Command` leaks a blocked signal mask into the child, resets SIGPIPE, opens `/dev/null` on a closed descriptor and
//! cannot run a script without `#!`; so this is fork and execvpe. The process has one thread here. vfork(2) would take a tenth
//! of a millisecond less, but a child that borrows our memory is as large as we are, and the kernel would remember that as the
//! command's largest resident set for ever (`ru_maxrss`, getrusage(2)); and a child that is stopped would keep us waiting where
//! no signal reaches us.
#![allow(unsafe_code, reason = "fork, execvpe and environ have no safe form")]

use std::ffi::{CStr, CString, OsStr, OsString, c_char};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, poll};
use nix::unistd::{ForkResult, Pid, fork, getpgid, pipe2, setpgid};

use super::outcome::Outcome;
use super::signals::{Inherited, send, stop_ourselves};

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
/// How often we look whether the child has been stopped before it executes the command.
const STOPPED_POLL_MS: u8 = 20;
/// Descriptors that a process of our own keeps get numbers from here on.
const KEPT_FD_MIN: i32 = 200;

/// A running command.
#[derive(Debug)]
pub struct Child {
    /// Its process, and its process group if it leads one.
    pub pid: Pid,
    leads_group: bool,
}

impl Child {
    /// Whether it leads a process group of its own.
    pub fn leads_group(&self) -> bool {
        self.leads_group
    }

    /// Passes a signal on, to the whole group where the command leads one, and to the command if it has left it.
    ///
    /// # Errors
    /// What kill(2) says.
    pub fn signal(&self, number: i32) -> nix::Result<()> {
        let pid = self.pid.as_raw();
        if !self.leads_group {
            return send(pid, number);
        }
        let result = send(-pid, number);
        if getpgid(Some(self.pid)).is_ok_and(|group| group != self.pid) {
            return send(pid, number);
        }
        result
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
    pub keep_open: Option<BorrowedFd<'a>>,
    /// What becomes its stdout and stderr, if not the caller's.
    pub output: Option<[BorrowedFd<'a>; 2]>,
    /// What it gets if we are killed.
    pub parent_death_signal: Option<i32>,
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
    let parent = nix::unistd::getpid();
    let (mut reader, mut writer) = pipe2(OFlag::O_CLOEXEC)
        .map(|(reader, writer)| (File::from(reader), File::from(writer)))
        .map_err(SpawnError::Pipe)?;
    let passed_on = start.keep_open.and_then(pass_on);
    // SAFETY: this process has one thread, so the child finds every lock free and may do anything.
    let pid = match unsafe { fork() }.map_err(SpawnError::Fork)? {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            let errno = become_child(start, &image, parent);
            let _ = writer.write_all(&(errno as i32).to_ne_bytes());
            // SAFETY: it ends the process without running what belongs to the parent.
            unsafe { libc::_exit(i32::from(SpawnError::Exec(errno).outcome().exit_code())) }
        }
    };
    drop((writer, passed_on));
    if start.own_group {
        // Also done by the child, whoever comes first; EACCES where the command runs already.
        let _ = setpgid(pid, pid);
    }
    wait_for_exec(&reader, pid);
    let mut errno = [0; 4];
    if reader.read_exact(&mut errno).is_err() {
        // The pipe was closed by exec.
        return Ok(Child { pid, leads_group: start.own_group });
    }
    super::reap::forget(pid);
    Err(SpawnError::Exec(Errno::from_raw(i32::from_ne_bytes(errno))))
}

/// Waits until the pipe says that the command has been executed, or could not be. A key on the terminal may stop the child
/// before that, and us it should stop as well; whoever continues us continues it.
fn wait_for_exec(pipe: &File, child: Pid) {
    loop {
        let mut fds = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, STOPPED_POLL_MS) {
            Ok(0) | Err(Errno::EINTR) => {}
            // Where nothing can be polled, the pipe can be read all the same.
            Ok(_) | Err(_) => return,
        }
        if super::reap::has_stopped(child) {
            stop_ourselves();
            let _ = send(child.as_raw(), libc::SIGCONT);
        }
    }
}

/// The child's part: what the caller had set is set again, then it becomes the command. Returns why it could not.
fn become_child(start: &Start<'_>, image: &Image, parent: Pid) -> Errno {
    if start.own_group {
        // Also done by the parent, whoever comes first.
        let _ = setpgid(Pid::from_raw(0), Pid::from_raw(0));
    }
    if let Some([stdout, stderr]) = start.output {
        // SAFETY: numbers only; this process has its own table of descriptors.
        unsafe {
            libc::dup2(stdout.as_raw_fd(), libc::STDOUT_FILENO);
            libc::dup2(stderr.as_raw_fd(), libc::STDERR_FILENO);
        }
    }
    if let Some(number) = start.parent_death_signal {
        // SAFETY: numbers only. A parent that has gone before this call would never be noticed (prctl(2)).
        unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::c_long::from(number));
            if libc::getppid() != parent.as_raw() {
                libc::raise(number);
            }
        }
    }
    start.inherited.restore();
    image.execute()
}

/// Becomes the command, unsupervised: the last resort when there is no way to supervise it. Returns only if that fails too.
pub fn become_command(command: &[OsString]) -> SpawnError {
    SpawnError::Exec(Image::new(command, &[]).execute())
}

/// Starts a process of our own that has none of our descriptors but copies of these. It does `work` and goes. To be called
/// before there is a second thread.
///
/// # Errors
/// Why there is no process.
pub fn fork_apart(keep: &[BorrowedFd<'_>], work: impl FnOnce(Vec<File>)) -> nix::Result<Pid> {
    // Above all others, so that those can be closed; if there is no room, there is no process.
    let high = keep.iter().map(|fd| fcntl(*fd, FcntlArg::F_DUPFD_CLOEXEC(KEPT_FD_MIN)));
    // SAFETY: the kernel has just made these descriptors and nobody else knows them.
    let high =
        high.map(|fd| fd.map(|fd| unsafe { File::from_raw_fd(fd) })).collect::<nix::Result<Vec<_>>>()?;
    // SAFETY: this process has one thread, so the child finds every lock free and may do anything.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            close_all_but(&high);
            work(high);
            // SAFETY: it ends the process without running what belongs to the parent.
            unsafe { libc::_exit(0) }
        }
    }
}

/// Closes every descriptor but these, which lie above [`KEPT_FD_MIN`].
fn close_all_but(keep: &[File]) {
    let mut numbers: Vec<u32> = keep.iter().map(|file| file.as_raw_fd().cast_unsigned()).collect();
    numbers.sort_unstable();
    let mut first = 0;
    for end in numbers.into_iter().chain([u32::MAX]) {
        if first < end {
            // SAFETY: numbers only; what is closed belongs to the parent and is not used in this process.
            unsafe { libc::syscall(libc::SYS_close_range, first, end - 1, 0) };
        }
        first = end.saturating_add(1);
    }
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
pub fn pass_on(fd: BorrowedFd<'_>) -> Option<OwnedFd> {
    let copy =
        fcntl(fd, FcntlArg::F_DUPFD(PASSED_ON_FD_MIN)).or_else(|_| fcntl(fd, FcntlArg::F_DUPFD(3))).ok()?;
    debug_assert_ne!(copy, fd.as_raw_fd());
    // SAFETY: the kernel has just made this descriptor and nobody else knows it.
    Some(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// Arguments and environment in the form that exec takes.
struct Image {
    /// What the pointers point to.
    _strings: Vec<CString>,
    /// Ends with null, as the next.
    arguments: Vec<*const c_char>,
    environment: Vec<*const c_char>,
}

impl Image {
    fn new(command: &[OsString], variables: &[(&str, OsString)]) -> Self {
        let replaced = |entry: &CStr| {
            variables.iter().any(|(name, _)| {
                entry.to_bytes().strip_prefix(name.as_bytes()).is_some_and(|rest| rest.starts_with(b"="))
            })
        };
        let mut strings: Vec<CString> = command.iter().cloned().map(c_string).collect();
        strings.extend(variables.iter().map(|(name, value)| {
            let mut entry = OsString::from(name);
            entry.push("=");
            entry.push(value);
            c_string(entry)
        }));
        // The bytes of a CString stay where they are when the CString moves.
        let (arguments, added) = strings.split_at(command.len());
        let kept = inherited_environment().into_iter().filter(|entry| !replaced(entry)).map(CStr::as_ptr);
        let end = [std::ptr::null()];
        let arguments: Vec<_> = arguments.iter().map(|s| s.as_ptr()).chain(end).collect();
        let environment = kept.chain(added.iter().map(|s| s.as_ptr())).chain(end).collect();
        Self { _strings: strings, arguments, environment }
    }

    /// Runs the command in this process, found on PATH and handed to `/bin/sh` if it has no `#!`, as execvp(3) does.
    fn execute(&self) -> Errno {
        let (file, arguments) = (self.arguments[0], self.arguments.as_ptr());
        // SAFETY: both arrays hold pointers to NUL-terminated strings that outlive the call, and end with null.
        unsafe { libc::execvpe(file, arguments, self.environment.as_ptr()) };
        if Errno::last() == Errno::E2BIG {
            // Our variables are what is too much: without them the command has what its caller gave it.
            // SAFETY: as above; `environ` is the environment that this process was started with.
            unsafe { libc::execvpe(file, arguments, environ) };
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
