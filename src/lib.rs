//! jobmon
pub mod exposition;
pub mod grouping;
