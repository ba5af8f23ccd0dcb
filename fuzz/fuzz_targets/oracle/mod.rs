//! What must hold of every push that is accepted.

use jobmon::exposition::check;
use jobmon::exposition::labels::Escaping;
use jobmon::exposition::series::{self, SeriesHash};
use jobmon::exposition::{
    Format, Head, Labels, Limits, MetricFamily, Syntax, Validation, protobuf, text,
};

/// Checks families as the store does; those that pass are rendered in every way, and what was rendered is read again, with
/// as many metrics, and passes again.
pub fn what_is_accepted_is_read_again(mut families: Vec<MetricFamily>) {
    let grouping = Labels::from_pairs([("job", "x"), ("z", "")]);
    families.iter_mut().for_each(|family| series::strip(family, &grouping));
    if check::alone(&families, &grouping, &SeriesHash::default()).is_err() {
        return;
    }
    for metric in families.iter_mut().flat_map(|family| &mut family.metrics) {
        metric.labels = Labels::from_pairs(series::completed(metric.labels.iter(), &grouping));
    }
    families.retain(|family| !family.metrics.is_empty());
    for escaping in [Escaping::AllowUtf8, Escaping::Underscores, Escaping::Dots, Escaping::Values] {
        for syntax in [Syntax::Text, Syntax::OpenMetrics, Syntax::ProtobufText, Syntax::ProtobufCompact] {
            let exposition = rendered(&families, Format { syntax, escaping });
            assert!(std::str::from_utf8(&exposition).is_ok());
            if syntax == Syntax::Text {
                let read = text::parse(&exposition, Validation::Utf8).expect("what is rendered is read");
                assert_same(&families, &read, escaping);
            }
        }
        let messages = rendered(&families, Format { syntax: Syntax::ProtobufDelimited, escaping });
        let read = protobuf::decode(&messages, &Limits::NONE).expect("what is rendered is read");
        assert_same(&families, &read, escaping);
    }
}

fn rendered(families: &[MetricFamily], format: Format) -> Vec<u8> {
    let mut out = Vec::new();
    for family in families {
        format.encode(&mut out, Head::of(family), family.metrics.iter());
    }
    format.finish(&mut out);
    out
}

fn assert_same(families: &[MetricFamily], read: &[MetricFamily], escaping: Escaping) {
    let sizes = |families: &[MetricFamily]| families.iter().map(|family| family.metrics.len()).collect::<Vec<_>>();
    assert_eq!(sizes(families), sizes(read));
    for metric in read.iter().flat_map(|family| &family.metrics) {
        let names: std::collections::HashSet<_> = metric.labels.iter().map(|(name, _)| name).collect();
        assert!(names.len() == metric.labels.len() && !names.contains("__name__"));
    }
    // An escaped name may begin with `__`, which nobody may push.
    if escaping == Escaping::AllowUtf8 {
        let none = Labels::default();
        check::alone(read, &none, &SeriesHash::default()).expect("what is rendered is accepted");
    }
}
