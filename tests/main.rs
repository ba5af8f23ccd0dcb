//! Tests of the program as its users meet it, and of its formats, in one binary.
#![allow(clippy::disallowed_methods, reason = "a test may start processes the ordinary way")]
#![allow(unsafe_code, reason = "a test sets up what a caller can set up")]
#![allow(missing_docs, reason = "what a test does is in its name")]

mod acceptance;
mod alerts;
mod clients;
mod drop_in;
mod edge_cases;
mod end_to_end;
mod exposition;
mod gateway;
mod gateway_access;
mod gateway_api;
mod gateway_limits;
mod gateway_promises;
mod gateway_storage;
mod harness;
mod packaging;
mod page;
mod supervisor;
mod table;
mod tidy;
