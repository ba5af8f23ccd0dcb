//! Whether the gateway is well.

use hyper::StatusCode;

use super::{Answer, TEXT, answer};
use crate::store::Store;

/// 200 if changes can be made, else 500, which takes the gateway out of service as a Pushgateway does.
pub(in crate::gateway) fn health(store: &Store) -> Answer {
    match store.health() {
        Ok(()) => answer(StatusCode::OK, TEXT, "OK"),
        Err(error) => answer(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{error}\n")),
    }
}
