//! A stderr that is of no use.

use std::fs;
use std::io::Write as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::harness::{Process, job, temporary_directory};

#[test]
fn messages_that_nobody_takes_harm_nothing() {
    let calls: [(&[&str], i32); 5] = [
        (&["--no-push", "--label", "bad", "--", "sh", "-c", "exit 7"], 7),
        (&["--dry-run", "--", "sh", "-c", "exit 7"], 7),
        (&["--no-push", "--", "/nonexistent"], 127),
        (&["--no-push", "--", "sh", "-c", "echo bad line x > $JOBMON_METRICS; exit 7"], 7),
        (&["--push-url", "http://127.0.0.1:1", "--push-deadline", "200ms", "--", "sh", "-c", "exit 7"], 7),
    ];
    for (arguments, code) in calls {
        let directory = temporary_directory();
        let full = fs::File::options().write(true).open("/dev/full").expect("there");
        // A pipe that nobody reads and that has no room, and one whose reader has gone.
        let (unread, stuck) = nix::unistd::pipe().expect("a pipe");
        let room = nix::fcntl::fcntl(&stuck, nix::fcntl::FcntlArg::F_GETPIPE_SZ).expect("a size");
        let filler = vec![b'x'; usize::try_from(room).expect("positive")];
        fs::File::from(stuck.try_clone().expect("copied")).write_all(&filler).expect("room");
        let (reader, broken) = nix::unistd::pipe().expect("a pipe");
        drop(reader);
        for stderr in [Stdio::from(full), Stdio::from(stuck), Stdio::from(broken)] {
            let mut command = job(arguments).env("TMPDIR", directory.path()).command();
            let mut run = Process(command.stderr(stderr).stdout(Stdio::null()).spawn().expect("built"));
            let start = Instant::now();
            assert_eq!(run.end().code(), Some(code), "{arguments:?}");
            assert!(start.elapsed() < Duration::from_secs(8), "{arguments:?}");
            assert_eq!(fs::read_dir(directory.path()).expect("there").count(), 0, "{arguments:?}");
        }
        drop(unread);
    }
}
