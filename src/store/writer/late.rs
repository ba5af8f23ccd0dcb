//! Pushes that others of their groups have overtaken.

use super::{Judged, State};
use crate::store::Push;

/// What is left of a push.
pub(super) enum Left {
    /// None has overtaken it.
    All,
    /// Some of it, which was judged again.
    Some(Judged),
    /// The push has been made.
    Nothing,
}

impl State {
    /// Leaves of a push what others have not overtaken. Where that is nothing, the push is made.
    pub(super) fn give_way(&mut self, push: &mut Push) -> Left {
        let Some(slot) = self.slots.get(&push.key).copied() else { return Left::All };
        push.give_way(self.snapshot.group(slot));
        if !push.is_late {
            return Left::All;
        }
        if !push.families.is_empty() {
            // Seldom, and little.
            return Left::Some(push.judge(self.index.hash()));
        }
        self.change_group(slot, |group| group.take(push));
        Left::Nothing
    }
}
