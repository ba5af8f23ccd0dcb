//! A snapshot as one exposition, in pieces: those that have not changed are the same bytes as last time.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::group::exposition_order;
use super::segments::{FamilySegments, Renderer, Segment};
use super::snapshot::Snapshot;
use crate::exposition::{Checksum, Compression, Format, Head, Metric, MetricFamily};

/// What was put together is sent when it has grown to this.
const PIECE_BYTES_MAX: usize = 64 * 1024;

/// Everything: families by name; `own` families stand beside pushed ones of the same name, with their own help.
pub fn expose(
    snapshot: &Snapshot,
    own: &[MetricFamily],
    format: Format,
    compression: Compression,
) -> Vec<Bytes> {
    let mut out = Pieces::new(format, compression);
    let mut own: BTreeMap<&str, &MetricFamily> = own.iter().map(|family| (&*family.name, family)).collect();
    for (name, exposed) in snapshot.exposed().filter(|(_, exposed)| !exposed.is_empty()) {
        let later = own.split_off(name);
        own.into_values().for_each(|family| out.own(format, family));
        own = later;
        match own.remove(name) {
            Some(family) => out.merged(snapshot, exposed, format, family),
            None => out.family(snapshot, exposed, format),
        }
    }
    own.into_values().for_each(|family| out.own(format, family));
    format.finish(&mut out.small);
    out.finish()
}

struct Pieces {
    renderer: Renderer,
    sent: Vec<Bytes>,
    /// Of all that is sent.
    checksum: Checksum,
    /// What is too small to be sent by itself, not compressed yet.
    small: Vec<u8>,
}

impl Pieces {
    fn new(format: Format, compression: Compression) -> Self {
        let sent = vec![Bytes::from_static(compression.begin())];
        Self {
            renderer: Renderer::new(format, compression),
            sent,
            checksum: Checksum::default(),
            small: Vec::new(),
        }
    }

    fn family(&mut self, snapshot: &Snapshot, exposed: &FamilySegments, format: Format) {
        let Some(head) = exposed.exposed_head() else { return };
        let renderer = &mut self.renderer;
        let render = |segment| (segment, exposed.rendered(segment, snapshot, renderer));
        let segments: Vec<(&Segment, _)> = exposed.segments().iter().map(render).collect();
        let metrics_bytes = segments.iter().map(|(_, rendered)| rendered.checksum.plain_bytes).sum();
        format.open(&mut self.small, head, metrics_bytes);
        for (segment, rendered) in segments {
            if segment.is_small() {
                self.small.extend_from_slice(&rendered.bytes);
                self.send_small_if_large();
            } else {
                self.send_small();
                self.send(rendered.bytes, rendered.checksum);
            }
        }
        format.close(&mut self.small, head);
    }

    fn own(&mut self, format: Format, family: &MetricFamily) {
        if !family.metrics.is_empty() {
            let mut metrics: Vec<&Metric> = family.metrics.iter().collect();
            metrics.sort_by(|a, b| exposition_order(a.labels.iter(), b.labels.iter()));
            format.encode(&mut self.small, Head::of(family), metrics.into_iter());
            self.send_small_if_large();
        }
    }

    /// A family that is pushed and the gateway's own as well.
    fn merged(&mut self, snapshot: &Snapshot, exposed: &FamilySegments, format: Format, own: &MetricFamily) {
        let mut metrics = own.metrics.clone();
        for segment in exposed.segments() {
            exposed.for_each(segment, snapshot, |metric| metrics.push(metric));
        }
        self.own(format, &MetricFamily { metrics, ..own.clone() });
    }

    fn send_small_if_large(&mut self) {
        if self.small.len() >= PIECE_BYTES_MAX {
            self.send_small();
        }
    }

    fn send_small(&mut self) {
        if !self.small.is_empty() {
            let (bytes, checksum) = self.renderer.compressor.compress(&self.small);
            let bytes = Bytes::copy_from_slice(bytes);
            self.small.clear();
            self.send(bytes, checksum);
        }
    }

    fn send(&mut self, bytes: Bytes, checksum: Checksum) {
        self.sent.push(bytes);
        self.checksum.append(checksum);
    }

    fn finish(mut self) -> Vec<Bytes> {
        self.send_small();
        let compression = self.renderer.compressor.compression();
        self.sent.push(compression.end(self.checksum).into());
        self.sent
    }
}
