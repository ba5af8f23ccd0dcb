//! Pushes that others of their groups have overtaken.

use super::{Judged, State};
use crate::store::Push;

/// What remains of a push to be made.
pub(super) enum Remaining {
    /// None has overtaken it.
    All,
    /// Some of it, which was judged again.
    Some(Judged),
    /// What it tells of runs, and that has been noted.
    Nothing,
}

impl State {
    /// Takes out of a push what others have overtaken.
    pub(super) fn give_way(&mut self, push: &mut Push) -> Remaining {
        let Some(slot) = self.slots.get(&push.key).copied() else { return Remaining::All };
        let group = self.snapshot.group(slot);
        if !push.is_late_for(group) {
            return Remaining::All;
        }
        push.give_way(group);
        if !push.families.is_empty() {
            // Seldom, and little.
            return Remaining::Some(push.judge(self.index.hash()));
        }
        self.change_group(slot, |group| group.take(push));
        Remaining::Nothing
    }
}
