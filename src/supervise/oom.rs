//! Whether the kernel killed a process of our cgroup for want of memory.
//!
//! The kernel counts such kills, in `memory.events` (cgroup v2, Documentation/admin-guide/cgroup-v2.rst) or in
//! `memory.oom_control` (v1). A count that grew while the command ran, and a command that was killed, are one story.

use std::fs;
use std::path::{Path, PathBuf};

/// A counter of kills.
#[derive(Debug)]
pub struct OomKills {
    file: PathBuf,
    at_start: u64,
}

impl OomKills {
    /// Notes how many there were up to now. `None` where nobody counts.
    pub fn watch() -> Option<Self> {
        let cgroups = fs::read_to_string("/proc/self/cgroup").ok()?;
        let candidates = files(&cgroups);
        candidates.into_iter().find_map(|file| count(&file).map(|at_start| Self { file, at_start }))
    }

    /// Whether there have been more since.
    pub fn happened(&self) -> bool {
        count(&self.file).is_some_and(|now| now > self.at_start)
    }
}

/// The files that may count, the most specific first. In a container the root of the mount is our cgroup, whatever its path
/// outside is called (`cgroup_namespaces(7)`).
fn files(cgroups: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in cgroups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let (mounts, name) = if controllers.is_empty() {
            (&["/sys/fs/cgroup", "/sys/fs/cgroup/unified"][..], "memory.events")
        } else if controllers.split(',').any(|controller| controller == "memory") {
            (&["/sys/fs/cgroup/memory"][..], "memory.oom_control")
        } else {
            continue;
        };
        for mount in mounts {
            let mount = Path::new(mount);
            files.push(mount.join(path.trim_start_matches('/')).join(name));
            files.push(mount.join(name));
        }
    }
    files
}

fn count(file: &Path) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_looked_for() {
        let paths = |text| files(text).iter().map(|path| path.display().to_string()).collect::<Vec<_>>();
        assert_eq!(
            paths("0::/kubepods/x\n"),
            [
                "/sys/fs/cgroup/kubepods/x/memory.events",
                "/sys/fs/cgroup/memory.events",
                "/sys/fs/cgroup/unified/kubepods/x/memory.events",
                "/sys/fs/cgroup/unified/memory.events",
            ]
        );
        assert_eq!(
            paths("9:name=systemd:/\n4:cpu,memory:/a:b\nnonsense\n"),
            ["/sys/fs/cgroup/memory/a:b/memory.oom_control", "/sys/fs/cgroup/memory/memory.oom_control"]
        );
    }
}
