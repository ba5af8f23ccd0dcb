//! The command started, as if its caller had started it.
//!
//! std's `Command` leaks a blocked signal mask into the child, resets SIGPIPE, opens `/dev/null` on a closed descriptor and
//! cannot run a script without `#!`; so this is clone and execvpe. The process has one thread here, and off a terminal the
//! child borrows its memory until it executes the command, as with vfork(2): to copy the tables of it would cost more than all
//! the rest.
#![allow(unsafe_code, reason = "clone, execvpe and environ have no safe form")]

use std::ffi::{CStr, CString, OsStr, OsString, c_char, c_int, c_void};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::{SigSet, Signal};
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
/// What the child needs of stack beside the arrays that execvpe(3) makes there.
const CHILD_STACK_BYTES: usize = 64 * 1024;

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
            Self::Exec(_) | Self::Fork(_) => Outcome::CannotExecute,
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

/// All that the child needs, made before it exists: it must not allocate.
struct ChildPlan<'a> {
    start: &'a Start<'a>,
    image: Image,
    parent: Pid,
    /// Where the child says why it could not be executed, if not in our memory.
    tell: Option<File>,
    /// Why it could not be executed.
    failure: Errno,
}

/// Starts the command; returns when it has been executed, or could not be. All signals are blocked meanwhile, so none is
/// lost between fork and exec: what comes in before the command runs is read, and passed on, afterwards.
///
/// # Errors
/// Why it did not start.
pub fn spawn(start: &Start<'_>) -> Result<Child, SpawnError> {
    let image = Image::new(start.command, start.variables);
    let passed_on = start.keep_open.and_then(pass_on);
    let plan =
        ChildPlan { start, image, parent: nix::unistd::getpid(), tell: None, failure: Errno::UnknownErrno };
    let result = if start.own_group { spawn_at_once(plan) } else { spawn_stoppable(plan) };
    drop(passed_on);
    result
}

/// The child borrows our memory, and we wait in the kernel until it has executed the command. Nobody can stop it meanwhile: it
/// is in a group of its own, which nobody knows yet.
fn spawn_at_once(mut plan: ChildPlan<'_>) -> Result<Child, SpawnError> {
    let leads_group = plan.start.own_group;
    let mut stack = Vec::<u8>::with_capacity(CHILD_STACK_BYTES + plan.image.stack_bytes());
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: this process has one thread, and CLONE_VFORK keeps it waiting until the child has executed the command or
    // ended; so the child has the memory for itself, and `plan` and the stack outlive it. The stack grows downwards from its
    // end, which is aligned here to 16 bytes as the ABI asks. No signal handler exists that could run in the child.
    let pid = unsafe {
        let end = stack.as_mut_ptr().add(stack.capacity());
        let top = end.sub(end as usize % 16);
        libc::clone(child_main, top.cast(), flags, (&raw mut plan).cast())
    };
    let pid = Errno::result(pid).map(Pid::from_raw).map_err(SpawnError::Fork)?;
    if plan.failure == Errno::UnknownErrno {
        return Ok(Child { pid, leads_group });
    }
    super::reap::forget(pid);
    Err(SpawnError::Exec(plan.failure))
}

/// On a terminal a key may stop the child, which shares our group, before it executes the command. So it has memory of its
/// own, and we wait where we see that, and stop as well: whoever waits for us continues both.
fn spawn_stoppable(mut plan: ChildPlan<'_>) -> Result<Child, SpawnError> {
    let (mut reader, writer) = pipe2(OFlag::O_CLOEXEC)
        .map(|(reader, writer)| (File::from(reader), File::from(writer)))
        .map_err(SpawnError::Fork)?;
    plan.tell = Some(writer);
    // SAFETY: this process has one thread, so the child finds every lock free and may do anything.
    let pid = match unsafe { fork() }.map_err(SpawnError::Fork)? {
        ForkResult::Child => Pid::from_raw(child_main((&raw mut plan).cast())),
        ForkResult::Parent { child } => child,
    };
    plan.tell = None;
    let mut errno = [0; 4];
    loop {
        let mut fds = [PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, STOPPED_POLL_MS).is_ok_and(|ready| ready > 0) {
            break;
        }
        if super::reap::has_stopped(pid) {
            stop_ourselves();
        }
    }
    if reader.read_exact(&mut errno).is_err() {
        // The pipe was closed by exec.
        return Ok(Child { pid, leads_group: false });
    }
    super::reap::forget(pid);
    Err(SpawnError::Exec(Errno::from_raw(i32::from_ne_bytes(errno))))
}

/// The child's part: what the caller had set is set again, then it becomes the command.
extern "C" fn child_main(plan: *mut c_void) -> c_int {
    // SAFETY: `spawn` passes its plan, which nobody else touches while this runs.
    let plan = unsafe { &mut *plan.cast::<ChildPlan<'_>>() };
    let start = plan.start;
    if start.own_group {
        // Nobody can have signalled the group before: our parent goes on only when the command runs.
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
            if libc::getppid() != plan.parent.as_raw() {
                libc::raise(number);
            }
        }
    }
    forget_stops();
    start.inherited.restore();
    plan.failure = plan.image.execute();
    if let Some(tell) = &mut plan.tell {
        let _ = tell.write_all(&(plan.failure as i32).to_ne_bytes());
    }
    // SAFETY: it ends the process without running what belongs to the parent.
    unsafe { libc::_exit(i32::from(SpawnError::Exec(plan.failure).outcome().exit_code())) }
}

/// Takes away a stop that came to us both while the child was in our group: stopped now, it would keep its parent waiting, who
/// could not continue it. The parent passes its own one on later.
fn forget_stops() {
    let stops = SigSet::from_iter([Signal::SIGTSTP, Signal::SIGTTIN, Signal::SIGTTOU]);
    let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: both pointers are to valid values, and null asks for nothing.
    while unsafe { libc::sigtimedwait(stops.as_ref(), std::ptr::null_mut(), &raw const at_once) } > 0 {}
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
    strings: Vec<CString>,
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
        Self { strings, arguments, environment }
    }

    /// What execvpe(3) puts on the stack: candidates for the path, and arguments for `/bin/sh`.
    fn stack_bytes(&self) -> usize {
        let path = std::env::var_os("PATH").map_or(0, |path| path.len());
        let file = self.strings.first().map_or(0, |file| file.as_bytes().len());
        self.arguments.len() * size_of::<*const c_char>() + 2 * (path + file)
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
