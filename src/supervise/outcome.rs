//! How a run ended, and the one table of exit codes.

/// jobmon was called wrongly; nothing ran.
pub const EXIT_USAGE: u8 = 125;
/// The command was found but cannot be executed.
pub const EXIT_CANNOT_EXECUTE: u8 = 126;
/// The command was not found.
pub const EXIT_NOT_FOUND: u8 = 127;
/// Added to the number of the signal that killed the command, as shells do.
pub const EXIT_SIGNAL_BASE: u8 = 128;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It ended by itself.
    Exited(u8),
    /// A signal killed it.
    Killed(u8),
    /// It was there but could not be executed, or there was no process for it.
    CannotExecute,
    /// It was not there.
    NotFound,
}

impl Outcome {
    /// The code that jobmon exits with.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Exited(code) => code,
            Self::Killed(signal) => EXIT_SIGNAL_BASE.saturating_add(signal),
            Self::CannotExecute => EXIT_CANNOT_EXECUTE,
            Self::NotFound => EXIT_NOT_FOUND,
        }
    }

    /// Whether the run counts as a success.
    pub fn is_success(self) -> bool {
        self == Self::Exited(0)
    }

    /// The signal that killed the command, 0 if none did.
    pub fn term_signal(self) -> u8 {
        match self {
            Self::Killed(signal) => signal,
            Self::Exited(_) | Self::CannotExecute | Self::NotFound => 0,
        }
    }

    /// How often the command was started.
    pub fn attempts(self) -> u8 {
        match self {
            Self::Exited(_) | Self::Killed(_) => 1,
            Self::CannotExecute | Self::NotFound => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_of_the_documentation() {
        for (outcome, code, success) in [
            (Outcome::Exited(0), 0, true),
            (Outcome::Exited(7), 7, false),
            (Outcome::Exited(255), 255, false),
            (Outcome::Killed(9), 137, false),
            (Outcome::Killed(64), 192, false),
            (Outcome::CannotExecute, 126, false),
            (Outcome::NotFound, 127, false),
        ] {
            assert_eq!((outcome.exit_code(), outcome.is_success()), (code, success));
        }
    }
}
