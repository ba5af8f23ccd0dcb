//! What both faces say of a run: how it ended, in the words in which pushes tell it and the gateway counts it.

use serde::{Deserialize, Serialize};

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunOutcome {
    /// Well.
    Success,
    /// With an exit code that is no success.
    Failure,
    /// Its time was up.
    Timeout,
    /// A signal ended it.
    Signal,
    /// The kernel killed it for want of memory.
    Oom,
    /// It did not begin, because another run was going on.
    Skipped,
}

impl RunOutcome {
    /// How many there are.
    pub const COUNT: u32 = 6;
    /// All, in the order in which they are exposed.
    pub const ALL: [Self; Self::COUNT as usize] =
        [Self::Failure, Self::Oom, Self::Signal, Self::Skipped, Self::Success, Self::Timeout];

    /// The value of the label `outcome`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Timeout => "timeout",
            Self::Signal => "signal",
            Self::Oom => "oom",
            Self::Skipped => "skipped",
        }
    }

    /// The outcome of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.name() == name)
    }

    /// Its place in [`Self::ALL`].
    pub fn place(self) -> usize {
        Self::ALL.iter().position(|outcome| *outcome == self).expect("all are there")
    }
}
