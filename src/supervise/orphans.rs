//! What a command leaves behind, where we are its reaper: `PR_SET_CHILD_SUBREAPER` in prctl(2), or process 1.

use std::collections::HashSet;
use std::fs;

use nix::unistd::Pid;

use super::reap;
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
        if can_be_listed() {
            children(std::process::id().cast_signed()).iter().any(|pid| Some(*pid) != except.map(Pid::as_raw))
        } else {
            reap::has_children()
        }
    }

    /// Sends a signal to each but this one; none is asked twice to end. They are our children and only we reap them, so
    /// their numbers are theirs. What they have started comes to us when they have gone.
    pub fn signal(&mut self, number: i32, except: Option<Pid>) {
        let ours = std::process::id().cast_signed();
        if ours == 1 && !can_be_listed() {
            // Everybody but us (kill(2)).
            let _ = send(-1, number);
        }
        for pid in children(ours).into_iter().filter(|pid| Some(*pid) != except.map(Pid::as_raw)) {
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

/// Whether there is a procfs, and it is that of our PID namespace.
pub fn can_be_listed() -> bool {
    let itself = fs::read_link("/proc/self").ok();
    itself.is_some_and(|pid| pid.to_str() == Some(&std::process::id().to_string()))
}

/// Sends a signal to what a process of ours has started, and what that has started, and so on. One of them may end at this
/// moment, and its number be given away: as good as nobody is that quick.
pub fn signal_descendants(of: Pid, number: i32) {
    let mut found = children(of.as_raw());
    let mut next = 0;
    while next < found.len() {
        found.extend(children(found[next]));
        next += 1;
    }
    for pid in found {
        let _ = send(pid, number);
    }
}

/// The children of a process, of all its threads (proc(5), `/proc/[pid]/task/[tid]/children`); where the kernel has no such
/// list, by their parents; none where they cannot be listed.
fn children(of: i32) -> Vec<i32> {
    if !can_be_listed() {
        return Vec::new();
    }
    let tasks = fs::read_dir(format!("/proc/{of}/task")).into_iter().flatten().flatten();
    let lists: Option<Vec<String>> =
        tasks.map(|task| fs::read_to_string(task.path().join("children")).ok()).collect();
    match lists {
        Some(lists) => {
            lists.iter().flat_map(|list| list.split_whitespace()).filter_map(|pid| pid.parse().ok()).collect()
        }
        None => children_by_parent(of),
    }
}

fn children_by_parent(of: i32) -> Vec<i32> {
    let of = of.to_string();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let is_child = |stat: &str| {
        // The name may hold anything, blanks and brackets too.
        stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)) == Some(&of)
    };
    processes
        .filter_map(|process| process.file_name().to_str()?.parse().ok())
        .filter(|pid: &i32| fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| is_child(&stat)))
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
        let ours = std::process::id().cast_signed();
        assert!(children(ours).contains(&pid) && children_by_parent(ours).contains(&pid));
        child.kill().expect("ours");
        child.wait().expect("ours");
    }
}
