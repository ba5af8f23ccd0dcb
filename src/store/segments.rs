//! Families over all groups, ready to be sent: in segments, each of which is rendered and compressed once and again only
//! after something in it has changed.
//!
//! A segment holds the groups of a range of slots, so finding the one that a push touches takes no look at any other group.
//! Within a segment metrics have the order of client_golang; segments follow one another in the order of slots, which is
//! about that in which groups came to be.

use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use imbl::OrdMap;
use smallvec::SmallVec;

use super::group::{Place, Slot, StoredHead, exposition_order};
use super::own::Own;
use super::snapshot::Snapshot;
use crate::exposition::series::completed;
use crate::exposition::{Checksum, Compression, Compressor, Format, Metric, MetricFamily, MetricType};

/// About how many bytes of text a segment has at most, unless a single group has more.
const SEGMENT_BYTES_MAX: usize = if cfg!(test) { 4096 } else { 96 * 1024 };
/// Two neighbours that have no more than this become one.
const MERGED_BYTES_MAX: usize = SEGMENT_BYTES_MAX / 2;
/// Smaller pieces are put together, and compressed together.
const PIECE_BYTES_MIN: usize = 16 * 1024;
/// How many renderings of a segment are kept.
const RENDERINGS_MAX: usize = 4;

/// Where the metrics of a family come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// They were pushed.
    Pushed,
    /// The store itself makes them.
    Own(Own),
}

/// A family over all groups that have it.
#[derive(Debug, Clone)]
pub(super) struct FamilySegments {
    pub(super) name: Arc<str>,
    pub(super) kind: MetricType,
    pub(super) source: Source,
    /// Every head that a group has, with the number of such groups. The first one counts.
    heads: OrdMap<Arc<StoredHead>, usize>,
    /// By the slots that they hold.
    segments: Vec<Segment>,
}

/// The groups of a range of slots.
#[derive(Debug, Clone)]
pub(super) struct Segment {
    /// The first of the slots, to be found by.
    first: Slot,
    /// In order, and never none.
    slots: Arc<Vec<Slot>>,
    /// About how many bytes of text they have.
    bytes: usize,
    /// The order of the metrics, as long as no metric comes or goes.
    order: Arc<OnceLock<Box<[Entry]>>>,
    /// What it looks like, as long as nothing changes.
    renderings: Arc<Renderings>,
}

/// A metric: its group, and its place in the group's family.
type Entry = (Slot, u32);

/// A segment in some formats.
#[derive(Debug, Default)]
struct Renderings(Mutex<Vec<((Format, Compression), Rendering)>>);

type Rendering = Arc<OnceLock<Rendered>>;

/// Renders one segment after the other, in the same room.
pub(super) struct Renderer {
    format: Format,
    pub(super) compressor: Compressor,
    plain: Vec<u8>,
}

impl Renderer {
    pub(super) fn new(format: Format, compression: Compression) -> Self {
        Self { format, compressor: Compressor::new(compression), plain: Vec::new() }
    }
}

/// A rendered segment.
#[derive(Debug, Clone)]
pub(super) struct Rendered {
    /// The metrics, compressed where that is asked for.
    pub(super) bytes: Bytes,
    /// Their size before that, and what tells whether they are whole.
    pub(super) checksum: Checksum,
}

impl Renderings {
    fn of(&self, format: Format, compression: Compression) -> Rendering {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = (format, compression);
        if let Some((_, rendering)) = kept.iter().find(|(of, _)| *of == wanted) {
            return rendering.clone();
        }
        if kept.len() >= RENDERINGS_MAX {
            kept.remove(0);
        }
        let rendering = Rendering::default();
        kept.push((wanted, rendering.clone()));
        rendering
    }
}

/// Makes something unknown again. Readers of older snapshots keep what they have.
fn forget<T: Default>(shared: &mut Arc<T>) {
    match Arc::get_mut(shared) {
        Some(own) => *own = T::default(),
        None => *shared = Arc::default(),
    }
}

impl Segment {
    fn new(slots: Vec<Slot>, bytes: usize) -> Self {
        let first = slots[0];
        Self { first, slots: Arc::new(slots), bytes, order: Arc::default(), renderings: Arc::default() }
    }

    /// Its slots, and the bytes that it takes itself to have.
    #[cfg(test)]
    pub(super) fn account(&self) -> (&[Slot], usize) {
        (&self.slots, self.bytes)
    }

    /// Whether it is too small to be sent, and compressed, by itself.
    pub(super) fn is_small(&self) -> bool {
        self.bytes < PIECE_BYTES_MIN
    }

    fn reshaped(&mut self) {
        self.first = self.slots[0];
        forget(&mut self.order);
        forget(&mut self.renderings);
    }
}

impl FamilySegments {
    pub(super) fn new(name: Arc<str>, kind: MetricType, source: Source) -> Self {
        Self { name, kind, source, heads: OrdMap::new(), segments: Vec::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    pub(super) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The head that all groups' metrics are exposed under.
    pub(super) fn head(&self) -> Option<&StoredHead> {
        self.heads.get_min().map(|(head, _)| &**head)
    }

    /// The head for one more group's family.
    pub(super) fn adopt(&mut self, family: &MetricFamily, number: u32) -> Arc<StoredHead> {
        if let Some((head, groups)) = self.heads.get_min().filter(|(head, _)| head.is_of(family)) {
            let (head, groups) = (head.clone(), groups + 1);
            self.heads.insert(head.clone(), groups);
            return head;
        }
        let head = Arc::new(StoredHead::new(family, self.name.clone(), Place::Exposed(number)));
        self.share(&head)
    }

    /// Counts one group more with a head, and returns the one like it that others have.
    pub(super) fn share(&mut self, head: &Arc<StoredHead>) -> Arc<StoredHead> {
        let known = self.heads.get_key_value(head).map(|(known, groups)| (known.clone(), *groups));
        let (head, groups) = known.unwrap_or_else(|| (head.clone(), 0));
        self.heads.insert(head.clone(), groups + 1);
        head
    }

    /// Counts one group less with this head.
    pub(super) fn give_back(&mut self, head: &Arc<StoredHead>) {
        match self.heads.get_mut(head) {
            Some(groups) if *groups > 1 => *groups -= 1,
            _ => drop(self.heads.remove(head)),
        }
    }

    /// The segment that has the slot or, where none has, that it belongs into.
    fn at(&self, slot: Slot) -> usize {
        self.segments.partition_point(|segment| segment.first <= slot).saturating_sub(1)
    }

    /// Values of a group have changed, and nothing else.
    pub(super) fn touch(&mut self, slot: Slot) {
        let at = self.at(slot);
        forget(&mut self.segments[at].renderings);
    }

    /// Takes in a group's metrics, which have about so many bytes of text; `bytes_of` tells it of any group in here.
    pub(super) fn insert(&mut self, slot: Slot, bytes: usize, bytes_of: impl Fn(Slot) -> usize) {
        // New groups mostly come last; then no segment need be cut.
        let fits = |last: &Segment| {
            last.slots.last().is_some_and(|last| *last >= slot) || last.bytes + bytes <= SEGMENT_BYTES_MAX
        };
        if !self.segments.last().is_some_and(fits) {
            self.segments.push(Segment::new(vec![slot], bytes));
            return;
        }
        let at = self.at(slot);
        let segment = &mut self.segments[at];
        if let Err(place) = segment.slots.binary_search(&slot) {
            Arc::make_mut(&mut segment.slots).insert(place, slot);
        }
        segment.bytes += bytes;
        segment.reshaped();
        self.split(at, &bytes_of);
    }

    /// Cuts a segment that has become too large into two, where there are two groups.
    fn split(&mut self, at: usize, bytes_of: &impl Fn(Slot) -> usize) {
        let segment = &self.segments[at];
        if segment.bytes <= SEGMENT_BYTES_MAX || segment.slots.len() < 2 {
            return;
        }
        let mut left_bytes = 0;
        let grown = |slot: &Slot| {
            left_bytes += bytes_of(*slot);
            left_bytes > segment.bytes / 2
        };
        let middle = segment.slots.iter().position(grown).unwrap_or_default();
        let middle = middle.clamp(1, segment.slots.len() - 1);
        let (left, right) = segment.slots.split_at(middle);
        let part =
            |slots: &[Slot]| Segment::new(slots.to_vec(), slots.iter().map(|slot| bytes_of(*slot)).sum());
        let (left, right) = (part(left), part(right));
        self.segments.splice(at..=at, [left, right]);
    }

    /// Takes out a group's metrics.
    pub(super) fn remove(&mut self, slot: Slot, bytes: usize) {
        let at = self.at(slot);
        let Some(segment) = self.segments.get_mut(at) else { return };
        let Ok(place) = segment.slots.binary_search(&slot) else { return };
        if segment.slots.len() == 1 {
            self.segments.remove(at);
            return;
        }
        Arc::make_mut(&mut segment.slots).remove(place);
        segment.bytes = segment.bytes.saturating_sub(bytes);
        segment.reshaped();
        self.merge(at.saturating_sub(1)..at + 1);
    }

    /// Makes one of each two neighbours that have become small.
    fn merge(&mut self, firsts: Range<usize>) {
        for left in firsts.rev() {
            let Some([one, other]) = self.segments.get(left..left + 2) else { continue };
            let bytes = one.bytes + other.bytes;
            if bytes <= MERGED_BYTES_MAX {
                let slots = [&one.slots[..], &other.slots[..]].concat();
                self.segments.splice(left..left + 2, [Segment::new(slots, bytes)]);
            }
        }
    }

    /// Calls `each` with every metric of a segment, in order.
    pub(super) fn for_each(&self, segment: &Segment, snapshot: &Snapshot, mut each: impl FnMut(Metric)) {
        let order = segment.order.get_or_init(|| self.order(segment, snapshot));
        let mut place = 0;
        for (slot, at) in order {
            let group = snapshot.group(*slot);
            each(match self.source {
                Source::Pushed => {
                    let family =
                        group.family_near(&self.name, &mut place).expect("it was there for the order");
                    family.metrics[*at as usize].to_metric(self.kind, &group.key)
                }
                Source::Own(own) => own.metric(group, *at),
            });
        }
    }

    fn order<'s>(&self, segment: &Segment, snapshot: &'s Snapshot) -> Box<[Entry]> {
        // The labels of all metrics one after the other, and where each one's are.
        let mut pairs: Vec<(&str, &str)> = Vec::new();
        let mut all: Vec<(Range<usize>, Entry)> = Vec::new();
        let mut place = 0;
        for slot in segment.slots.iter() {
            let group = snapshot.group(*slot);
            let mut add = |labels: SmallVec<[(&'s str, &'s str); 8]>, at| {
                let begin = pairs.len();
                pairs.extend(labels);
                all.push((begin..pairs.len(), (*slot, at)));
            };
            let grouping = group.key.labels();
            match self.source {
                Source::Own(own) => {
                    (0..own.metrics()).for_each(|at| add(completed(own.label(at).into_iter(), grouping), at));
                }
                Source::Pushed => {
                    let metrics = group.family_near(&self.name, &mut place).map(|family| &family.metrics[..]);
                    let metrics = metrics.into_iter().flatten().zip(0..);
                    metrics.for_each(|(metric, at)| add(completed(metric.own_labels(), grouping), at));
                }
            }
        }
        let labels = |range: &Range<usize>| pairs[range.clone()].iter().copied();
        all.sort_by(|(a, _), (b, _)| exposition_order(labels(a), labels(b)));
        all.into_iter().map(|(_, entry)| entry).collect()
    }

    /// A segment's metrics in a format, and compressed unless it is small. Costs nothing where they have been rendered before
    /// and have not changed since.
    pub(super) fn rendered(
        &self,
        segment: &Segment,
        snapshot: &Snapshot,
        renderer: &mut Renderer,
    ) -> Rendered {
        let Some(head) = self.exposed_head() else {
            return Rendered { bytes: Bytes::new(), checksum: Checksum::default() };
        };
        let Renderer { format, compressor, plain } = renderer;
        let (format, compression) = (*format, compressor.compression());
        let compression = if segment.is_small() { Compression::Identity } else { compression };
        let render = || {
            plain.clear();
            self.for_each(segment, snapshot, |metric| format.metric(plain, head, &metric));
            let (bytes, checksum) = match compression {
                Compression::Identity => (&plain[..], Checksum::of_plain(plain)),
                _ => compressor.compress(plain),
            };
            // A copy of the right size: what is kept for long should leave no holes around it.
            Rendered { bytes: Bytes::copy_from_slice(bytes), checksum }
        };
        segment.renderings.of(format, compression).get_or_init(render).clone()
    }
}
