// Pushes every kind of metric with prom-client; called with the gateway's URL and what to do.
"use strict";
const client = require("prom-client");
const [url, step] = process.argv.slice(2);
const registry = new client.Registry();
const gateway = new client.Pushgateway(url, {}, registry);
const group = { jobName: "js", groupings: { path: "a b" } };
const registers = [registry];

async function main() {
  if (step === "push") {
    new client.Gauge({ name: "temperature", help: "How warm it is.", labelNames: ["room"], registers }).set({ room: 'kitchen\n"' }, 21.5);
    new client.Counter({ name: "items_total", help: "How many.", registers }).inc(3);
    new client.Histogram({ name: "latency", help: "How long.", buckets: [0.1, 1], registers }).observe(0.5);
    new client.Summary({ name: "size", help: "How large.", percentiles: [0.5], registers }).observe(7);
    await gateway.push(group);
  } else if (step === "add") {
    new client.Gauge({ name: "more", help: "What comes later.", registers }).set(1);
    await gateway.pushAdd(group);
  } else if (step === "replace") {
    new client.Gauge({ name: "only", help: "What is left.", registers }).set(1);
    await gateway.push(group);
  } else {
    await gateway.delete(group);
  }
}
main().catch((error) => { console.error(error); process.exit(1); });
