//! How long to wait between attempts. Pure.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);

/// Doubling pauses, each shortened at random by up to a half, so that a thousand jobs do not come back at once.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub(super) fn new() -> Self {
        Self { next: FIRST }
    }

    /// The pause before the next attempt. `random` is from 0 to 1; `asked` is what the server asked for.
    pub(super) fn pause(&mut self, random: f64, asked: Option<Duration>) -> Duration {
        let pause = self.next.mul_f64(1.0 - random / 2.0);
        self.next = (self.next * 2).min(LONGEST);
        asked.unwrap_or_default().max(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_limit() {
        let mut backoff = Backoff::new();
        let pauses: Vec<_> = (0..8).map(|_| backoff.pause(0.0, None).as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(Backoff::new().pause(1.0, None).as_millis(), 50);
        assert_eq!(Backoff::new().pause(1.0, Some(Duration::from_secs(7))).as_secs(), 7);
    }
}
