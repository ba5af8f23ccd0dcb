//! How a run ended, and the one table of exit codes.

use crate::config::SuccessCodes;

/// The command succeeded, but its report could not be delivered, and that counts.
pub const EXIT_NOT_DELIVERED: u8 = 121;
/// The command's time was up.
pub const EXIT_TIMED_OUT: u8 = 124;
/// jobmon was called wrongly; nothing ran.
pub const EXIT_USAGE: u8 = 125;
/// The command was found but cannot be executed.
pub const EXIT_CANNOT_EXECUTE: u8 = 126;
/// The command was not found.
pub const EXIT_NOT_FOUND: u8 = 127;
/// Added to the number of the signal that killed the command, as shells do.
pub const EXIT_SIGNAL_BASE: u8 = 128;

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The command ended by itself.
    Exited(u8),
    /// A signal killed it.
    Killed(u8),
    /// It was ended because its time was up; by this signal, or 0 if it went by itself then.
    TimedOut(u8),
    /// It was there but could not be executed, or there was no process for it.
    CannotExecute,
    /// It was not there.
    NotFound,
    /// This signal ended the run while no command ran.
    Cancelled(u8),
    /// Another run was going on.
    Skipped,
}

impl Outcome {
    /// The code that jobmon exits with.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Exited(code) => code,
            Self::Killed(signal) | Self::Cancelled(signal) => EXIT_SIGNAL_BASE.saturating_add(signal),
            Self::TimedOut(_) => EXIT_TIMED_OUT,
            Self::CannotExecute => EXIT_CANNOT_EXECUTE,
            Self::NotFound => EXIT_NOT_FOUND,
            Self::Skipped => 0,
        }
    }

    /// Whether the run counts as a success.
    pub fn is_success(self, codes: &SuccessCodes) -> bool {
        match self {
            Self::Exited(_) | Self::Killed(_) => codes.contains(self.exit_code()),
            Self::TimedOut(_) | Self::CannotExecute | Self::NotFound | Self::Cancelled(_) | Self::Skipped => {
                false
            }
        }
    }

    /// The signal that killed the command, 0 if none did.
    pub fn term_signal(self) -> u8 {
        match self {
            Self::Killed(signal) | Self::TimedOut(signal) => signal,
            Self::Exited(_) | Self::CannotExecute | Self::NotFound | Self::Cancelled(_) | Self::Skipped => 0,
        }
    }

    /// The same end of a command whose time was up.
    pub fn timed_out(self) -> Self {
        Self::TimedOut(self.term_signal())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_of_the_documentation() {
        let codes = SuccessCodes(vec![0..=0, 3..=3, 143..=143]);
        for (outcome, code, success) in [
            (Outcome::Exited(0), 0, true),
            (Outcome::Exited(3), 3, true),
            (Outcome::Exited(7), 7, false),
            (Outcome::Exited(255), 255, false),
            (Outcome::Killed(9), 137, false),
            (Outcome::Killed(15), 143, true),
            (Outcome::Killed(64), 192, false),
            (Outcome::Exited(0).timed_out(), 124, false),
            (Outcome::CannotExecute, 126, false),
            (Outcome::NotFound, 127, false),
            (Outcome::Cancelled(15), 143, false),
            (Outcome::Skipped, 0, false),
        ] {
            assert_eq!((outcome.exit_code(), outcome.is_success(&codes)), (code, success), "{outcome:?}");
        }
        assert_eq!(Outcome::Killed(9).timed_out().term_signal(), 9);
    }
}
