"""Pushes every kind of metric with prometheus_client; called with the gateway's URL and what to do."""
import sys
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary, Info, Enum
from prometheus_client import push_to_gateway, pushadd_to_gateway, delete_from_gateway, instance_ip_grouping_key
url, step = sys.argv[1], sys.argv[2]
registry = CollectorRegistry()
if step == "push":
    Gauge("temperature", "How warm it is.", ["room"], registry=registry).labels("kitchen\n\"").set(21.5)
    Counter("items", "How many.", registry=registry).inc(3)
    Histogram("latency", "How long.", buckets=[0.1, 1], registry=registry).observe(0.5)
    Summary("size", "How large.", registry=registry).observe(7)
    Info("build", "What it is.", registry=registry).info({"version": "1"})
    Enum("state", "How it is.", states=["up", "down"], registry=registry).state("down")
    push_to_gateway(url, job="py", grouping_key={"path": "/a/b"}, registry=registry)
elif step == "add":
    Gauge("more", "What comes later.", registry=registry).set(1)
    pushadd_to_gateway(url, job="py", grouping_key={"path": "/a/b"}, registry=registry)
elif step == "replace":
    Gauge("only", "What is left.", registry=registry).set(1)
    push_to_gateway(url, job="py", grouping_key={"path": "/a/b"}, registry=registry)
elif step == "delete":
    delete_from_gateway(url, job="py", grouping_key={"path": "/a/b"})
