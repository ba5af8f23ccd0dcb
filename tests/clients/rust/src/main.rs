//! Pushes every kind of metric with the `prometheus` crate, as protobuf; called with the gateway's URL and what to do.

use std::collections::HashMap;

use prometheus::{
    GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntGauge, Opts, Registry, push_add_collector,
    push_metrics,
};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (url, step) = (arguments.next().expect("a URL"), arguments.next().expect("a step"));
    let grouping = || HashMap::from([("path".to_owned(), "x".to_owned())]);
    let push = |registry: &Registry| push_metrics("rust", grouping(), &url, registry.gather(), None);
    let registry = Registry::new();
    let result = match step.as_str() {
        "push" => {
            let temperature =
                GaugeVec::new(Opts::new("temperature", "How warm it is."), &["room"]).expect("valid");
            temperature.with_label_values(&["kitchen\n\""]).set(21.5);
            let items = IntCounter::new("items_total", "How many.").expect("valid");
            items.inc_by(3);
            let options = HistogramOpts::new("latency", "How long.").buckets(vec![0.1, 1.0]);
            let latency = HistogramVec::new(options, &["path_of"]).expect("valid");
            latency.with_label_values(&["/a\"b"]).observe(0.5);
            registry.register(Box::new(temperature)).expect("new");
            registry.register(Box::new(items)).expect("new");
            registry.register(Box::new(latency)).expect("new");
            push(&registry)
        }
        "add" => {
            let more = IntGauge::new("more", "What comes later.").expect("valid");
            more.set(1);
            push_add_collector("rust", grouping(), &url, vec![Box::new(more)], None)
        }
        "replace" => {
            let only = IntGauge::new("only", "What is left.").expect("valid");
            only.set(1);
            registry.register(Box::new(only)).expect("new");
            push(&registry)
        }
        // The crate cannot delete; an empty push leaves the group with nothing in it.
        _ => push(&registry),
    };
    result.expect("pushed");
}
