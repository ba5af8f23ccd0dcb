//! What a command leaves behind, where we are its reaper: `PR_SET_CHILD_SUBREAPER` in prctl(2), or process 1.

use std::collections::HashSet;
use std::fs;

use nix::unistd::Pid;

use super::signals::send;

/// Processes that have become our children.
#[derive(Debug, Default)]
pub struct Orphans {
    /// Those that were asked to end.
    asked: HashSet<i32>,
}

impl Orphans {
    /// Makes us the one that orphans come to. Where the kernel does not know that, they go elsewhere.
    pub fn adopt() {
        let _ = nix::sys::prctl::set_child_subreaper(true);
    }

    /// Whether there are any but this one.
    pub fn are_there(except: Option<Pid>) -> bool {
        children().iter().any(|pid| Some(*pid) != except.map(Pid::as_raw))
    }

    /// Sends a signal to each but this one; none is asked twice to end. They are our children and only we reap them, so
    /// their numbers are theirs. What they have started comes to us when they have gone.
    pub fn signal(&mut self, number: i32, except: Option<Pid>) {
        for pid in children().into_iter().filter(|pid| Some(*pid) != except.map(Pid::as_raw)) {
            if number == libc::SIGKILL || self.asked.insert(pid) {
                // It may have ended, or have become another user's.
                let _ = send(pid, number);
                if number != libc::SIGKILL {
                    let _ = send(pid, libc::SIGCONT);
                }
            }
        }
    }

    /// A process has been reaped, and its number may be that of another one now.
    pub fn forget(&mut self, pid: Pid) {
        self.asked.remove(&pid.as_raw());
    }
}

/// Our children, of all threads (proc(5), `/proc/[pid]/task/[tid]/children`); where the kernel has no such list, by their
/// parents.
fn children() -> Vec<i32> {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let lists: Option<Vec<String>> =
        tasks.map(|task| fs::read_to_string(task.path().join("children")).ok()).collect();
    match lists {
        Some(lists) => {
            lists.iter().flat_map(|list| list.split_whitespace()).filter_map(|pid| pid.parse().ok()).collect()
        }
        None => children_by_parent(),
    }
}

fn children_by_parent() -> Vec<i32> {
    let ours = std::process::id().to_string();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let is_ours = |stat: &str| {
        // The name may hold anything, blanks and brackets too.
        stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)) == Some(&ours)
    };
    processes
        .filter_map(|process| process.file_name().to_str()?.parse().ok())
        .filter(|pid: &i32| fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| is_ours(&stat)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "a test may start processes the ordinary way")]
    fn children_are_found_both_ways() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().expect("there");
        let pid = i32::try_from(child.id()).expect("a number");
        assert!(children().contains(&pid) && children_by_parent().contains(&pid));
        child.kill().expect("ours");
        child.wait().expect("ours");
    }
}
