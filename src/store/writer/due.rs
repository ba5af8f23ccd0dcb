//! What was promised falls due.

use std::sync::Arc;

use super::State;
use crate::grouping::GroupingKey;
use crate::store::Change;
use crate::store::group::Slot;
use crate::store::own::Face;
use crate::store::promises::{Due, Promises, SteadyNanos};

impl State {
    /// When something falls due next; perhaps nothing does, but nothing does before that.
    pub(in crate::store) fn next_due(&self) -> Option<SteadyNanos> {
        self.deadlines.next()
    }

    /// Lets happen what has fallen due, in up to so many groups, and returns what did.
    pub(in crate::store) fn let_fall_due(&mut self, now: SteadyNanos, groups_max: usize) -> Vec<Change> {
        let mut happened = Vec::new();
        for _ in 0..groups_max {
            let Some(slot) = self.deadlines.take(now) else { break };
            while let Some((at, due)) = self.promises(slot).and_then(|promises| promises.next(self.retention)) {
                if at > now {
                    self.deadlines.arm(slot, at);
                    break;
                }
                let key = self.snapshot.group(slot).key.clone();
                self.fall_due(&key, due);
                let key = GroupingKey::clone(&key);
                if due == Due::Forgotten {
                    happened.push(Change::Delete(vec![key]));
                    break;
                }
                happened.push(Change::Due { key, due });
            }
        }
        happened
    }

    /// Something falls due for a group, if there is one.
    pub(super) fn fall_due(&mut self, key: &GroupingKey, due: Due) {
        let Some(slot) = self.slots.get(key).copied() else { return };
        match due {
            Due::Overdue => self.change_group(slot, |group| {
                if let Some(promises) = &mut group.promises {
                    promises.is_overdue = true;
                }
            }),
            Due::Expired => self.expire(slot),
            Due::Forgotten => self.delete(key),
        }
    }

    /// The series of a group go; when it was pushed stays, and what it promised.
    fn expire(&mut self, slot: Slot) {
        let mut group = self.take_group(slot);
        let before = Face::of(&group);
        let old = self.take_out_replaced(slot, &mut group, |_| true);
        if let Some(promises) = &mut group.promises {
            promises.is_expired = true;
        }
        let after = Face::of(&group);
        self.snapshot.groups.set(slot as usize, Some(Arc::new(group)));
        self.snapshot.turn(slot, before, after);
        self.drop_empty(old.values());
        self.let_out(self.quarantine.touched_by(old.keys().map(|name| &**name)));
    }

    /// Sees to it that something falls due for a group when it does.
    pub(super) fn arm(&mut self, slot: Slot) {
        let next = self.promises(slot).and_then(|promises| promises.next(self.retention));
        if let Some((at, _)) = next {
            self.is_sooner |= self.deadlines.arm(slot, at);
        }
    }

    /// Whether something falls due now before all else that was to, since this was last asked.
    pub(in crate::store) fn has_sooner(&mut self) -> bool {
        std::mem::take(&mut self.is_sooner)
    }

    fn promises(&self, slot: Slot) -> Option<&Promises> {
        self.snapshot.groups.get(slot as usize)?.as_ref()?.promises.as_deref()
    }
}
