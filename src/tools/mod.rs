//! Commands beside the two faces.

pub mod spool;
