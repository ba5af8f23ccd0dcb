//! Whether the gateway is well, and its end.

use hyper::StatusCode;

use super::{Answer, TEXT, answer, empty};
use crate::gateway::error::Failure;
use crate::store::{Change, Store};

/// It serves.
pub(in crate::gateway) fn health() -> Answer {
    answer(StatusCode::OK, TEXT, "OK")
}

/// 200 if changes can be made; what was pushed before is served in any case.
pub(in crate::gateway) fn writable(store: &Store) -> Result<Answer, Failure> {
    store.writable()?;
    Ok(health())
}

/// Deletes everything, in one change.
pub(in crate::gateway) async fn wipe(store: &Store) -> Result<Answer, Failure> {
    store.durable(store.make(Change::Wipe)?).await?;
    Ok(empty(StatusCode::ACCEPTED))
}

/// What is said before the gateway ends.
pub(in crate::gateway) fn goodbye() -> Answer {
    answer(StatusCode::OK, TEXT, "Requesting termination... Goodbye!")
}

/// The gateway is not to be ended by a request.
pub(in crate::gateway) fn no_lifecycle() -> Answer {
    answer(StatusCode::FORBIDDEN, TEXT, "Lifecycle API is not enabled.")
}

/// Nor by one that only looks.
pub(in crate::gateway) fn quit_by_get() -> Answer {
    answer(StatusCode::METHOD_NOT_ALLOWED, TEXT, "Only POST or PUT requests allowed.")
}
