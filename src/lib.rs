//! jobmon supervises batch jobs and serves what became of them to Prometheus.
//!
//! Prometheus pulls; a batch job is gone before it is scraped, and its outcome is the metric that matters most. So one
//! program has two faces: the **supervisor** runs a command, records how it went, takes the metrics that the command writes
//! into a FIFO, and delivers all of it; the **gateway**, a drop-in for the Pushgateway, takes deliveries and is scraped.
//!
//! # Two laws
//!
//! 1. **Monitoring never harms the job.** It never delays, changes or prevents it, whatever is broken.
//! 2. **An answer is true.** A push answered 200 is in the next scrape and, with a journal, there after a crash; and no push can
//!    break a scrape. Of a run's push that newer ones of its group have overtaken, what they have not said is (`store::order`).
//!
//! # The map
//!
//! ```text
//!                     main ──► cli            every flag and variable, unjudged
//!                       │
//!                     config                  judged, with defaults; opens nothing
//!            ┌──────────┴───────────┐
//!            ▼                      ▼
//!        supervise               gateway      the two faces never import each other
//!            │                      │
//!         deliver                 store       only `store::writer` changes the store
//!            └──────────┬───────────┘
//!                       ▼
//!             grouping ─► exposition          import nothing of ours above them
//! ```
//!
//! `run` has the words that both faces have for the end of a run. `tools` are commands beside the faces, such as `jobmon spool`. `logging` is started by `main` and used through `tracing`;
//! `config` knows where reports go ([`deliver::Target`]).
//!
//! # How data flows
//!
//! * A run: command → `spawn` → child; FIFO → `fifo` → `collect` → families; ended → `reap` → outcome → `report` →
//!   `deliver::courier` → a `lane` for each push gateway, what waits in the `spool` before it, and into the spool what does not
//!   arrive; and the textfile → exit code.
//! * A push: `gateway::listen` → `gateway::access` (who is it?) → [`gateway::route`] (what for?) → `gateway::promises` (what
//!   does it promise?) → [`gateway::encoding`] → [`exposition`] → `store::writer`: check → apply → `store::journal`, on
//!   disk → 200.
//! * A promise: `store::promises` → [`store::Store::keep_promises`], when it falls due → `store::writer` → journal.
//! * A scrape: [`gateway::negotiate`] → `store::Snapshot` → `store::segments`, rendered where something has changed →
//!   `store::expose` → socket.
//!
//! # Invariants
//!
//! * `exposition` and `grouping` cannot fail for lack of a resource, and no input makes them panic.
//! * The supervisor never waits for the network before the command runs, nor longer than its deadline after it has ended. It
//!   has one thread, no runtime, no TLS and no DNS until the command has been started.
//! * What could not be delivered is on disk before the run ends. What touches file systems that may hang is done on threads
//!   that nobody waits for longer than he said.
//! * Only `supervise::reap` calls wait. Only `supervise::signals`, `spawn` and `reap` hold unsafe code (and `main` its entry
//!   point's attribute).
//! * Only `store::writer` changes the store. Readers hold snapshots.
//! * There is no global state, and no lock is held across an await.
//! * Time is a parameter of everything pure: `supervise::state`, `deliver::backoff`, the store's changes.
//!
//! # Where to change what
//!
//! To forward one more signal, or one less: `supervise::state::Run::pass_on`. To limit what a stranger can send:
//! [`config::Limits`]. To add a metric of a run: `supervise::report`. To change what its pushes promise: `supervise::promise`,
//! and `deliver::promises` for how that is written. To add an option: [`cli::RUN_OPTIONS`], then [`config::run_config`]. To
//! change what a run does when: [`supervise::state`]. To change an answer of the gateway: `gateway::error`; what the API says
//! about a group: `gateway::handlers::groups`, and `gateway/openapi.json`. To add a family that the gateway makes of each
//! group: `store::own`; which of a job's pushes counts when they come out of order: `store::order`. To add a flag of the gateway: [`cli::GATEWAY_FLAGS`], then [`config::gateway_config`].
//!
//! # Modules, in reading order
//!
//! [`exposition`], [`grouping`], [`run`], [`cli`], [`config`], [`supervise`], [`deliver`], [`store`], [`gateway`], [`tools`],
//! [`logging`].

pub mod cli;
pub mod config;
pub mod deliver;
pub mod exposition;
pub mod gateway;
pub mod grouping;
pub mod logging;
pub mod run;
pub mod store;
pub mod supervise;
pub mod tools;
