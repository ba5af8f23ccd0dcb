//! What was recorded is taken in again.

use std::borrow::Cow;
use std::sync::Arc;

use super::late::Remaining;
use super::{Judged, State};
use crate::store::journal::record::{Exposed, StoredGroup};
use crate::store::{Push, PushMode, Rules, Verdict};

impl State {
    /// Makes a push that was answered for before the gateway ended: it is taken again, whatever limits there are now, and
    /// kept aside as far as something contradicts it now.
    pub(in crate::store) fn push_again(&mut self, push: &mut Push, judged: Option<&Judged>) -> Verdict {
        if self.update(push) {
            return Ok(());
        }
        let rules = self.rules;
        self.rules = Rules { groups_max: usize::MAX, quarantine: true, ..rules };
        let verdict = self.push_recorded(push, judged, rules.quarantine);
        self.rules = rules;
        verdict
    }

    fn push_recorded(&mut self, push: &mut Push, judged: Option<&Judged>, is_quarantine: bool) -> Verdict {
        let mut judged = judged.map_or_else(|| Cow::Owned(push.judge(self.hash())), Cow::Borrowed);
        if push.mode == PushMode::ReplaceMetrics {
            match self.patch(push, &judged) {
                Ok(None) => return Ok(()),
                Ok(Some(completed)) => judged = Cow::Owned(completed),
                Err(fault) => return self.refuse(push, fault),
            }
        } else {
            match self.give_way(push) {
                Remaining::All => {}
                Remaining::Some(remaining) => judged = Cow::Owned(remaining),
                Remaining::Nothing => return Ok(()),
            }
        }
        match &*judged {
            // Where contradictions are kept aside, what is exposed is found out as it was then.
            Ok(series) if !is_quarantine && self.judge(push, series).is_ok() => self.apply(push, series),
            _ => self.push_families(push, &Ok(Vec::new())),
        }
    }

    /// Takes in a group of a snapshot, and leaves what it does not need. It was judged when it was pushed, but for what the
    /// gateway itself exposes, which may be another version's now.
    /// Returns false where it cannot be beside another one.
    pub(in crate::store) fn restore(&mut self, stored: &mut StoredGroup) -> bool {
        self.sequence = self.sequence.max(stored.group.sequence);
        let Ok(slot) = self.add_group(stored.group.clone()) else { return false };
        self.arm(slot);
        let mut group = self.take_group(slot);
        group.families.reserve_exact(stored.families.len());
        self.failed_groups += usize::from(!group.has_succeeded());
        for (family, said_at, exposed) in &mut stored.families {
            if self.index.names_of_store().contains(&family.name) {
                // It was not the store's own when it was pushed.
                continue;
            }
            match exposed {
                Exposed::Yes(series) if self.index.fits_beside_own(family, &group.key) => {
                    group.families.push(self.put_in(slot, &group, family, series, *said_at));
                }
                Exposed::Yes(_) | Exposed::No => {
                    group.families.push(self.put_aside(&group, family, *said_at).0);
                }
            }
        }
        group.families.sort_by(|a, b| a.head.name.cmp(&b.head.name));
        self.snapshot.groups.set(slot as usize, Some(Arc::new(group)));
        true
    }

    /// Exposes what is aside and can be exposed.
    pub(in crate::store) fn judge_aside(&mut self) {
        self.let_out(self.quarantine.all());
    }

    /// Forgets everything.
    pub(in crate::store) fn clear(&mut self) {
        self.wipe();
        self.sequence = 0;
    }
}
