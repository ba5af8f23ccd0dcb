//! Which process a number stands for, also after it has ended and the number has been given to another one.

use std::fmt;
use std::fs;
use std::str::FromStr;

use nix::unistd::Pid;

/// A process of this machine, told from all others before and after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessId {
    pid: i32,
    /// Clock ticks between the machine's start and its own (proc(5), `/proc/[pid]/stat`, field 22).
    started_ticks: u64,
    /// The machine's start (random(4)).
    boot_id: String,
}

impl ProcessId {
    /// The process that has this number now. `None` where there is none, or no procfs to ask.
    pub fn of(pid: Pid) -> Option<Self> {
        if !super::orphans::can_be_listed() {
            return None;
        }
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned();
        Some(Self { pid: pid.as_raw(), started_ticks: started_ticks(pid.as_raw())?, boot_id })
    }

    /// Whether it runs.
    pub fn is_alive(&self) -> bool {
        Self::of(Pid::from_raw(self.pid)).is_some_and(|now| now == *self)
    }
}

/// `None` if it has ended, also if nobody has reaped it yet.
fn started_ticks(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    if ["Z", "X"].contains(&fields.next()?) {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

impl fmt::Display for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.pid, self.started_ticks, self.boot_id)
    }
}

/// Reads what `Display` wrote.
impl FromStr for ProcessId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut words = text.split(' ');
        let mut next = || words.next().ok_or(());
        let pid = next()?.parse().map_err(drop)?;
        let started_ticks = next()?.parse().map_err(drop)?;
        Ok(Self { pid, started_ticks, boot_id: next()?.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_again() {
        let ours = ProcessId::of(nix::unistd::getpid()).expect("procfs");
        assert!(ours.is_alive());
        assert_eq!(ours.to_string().parse(), Ok(ours.clone()));
        let another = ProcessId { started_ticks: ours.started_ticks + 1, ..ours };
        assert!(!another.is_alive());
        assert_eq!("x".parse::<ProcessId>(), Err(()));
    }
}
