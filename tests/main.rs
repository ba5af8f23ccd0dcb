//! Tests of the program as its users meet it, and of its formats, in one binary.

mod exposition;
mod table;
