//! What a stranger can cost at most.

use std::time::Duration;

/// Bytes of a pushed body.
pub const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes of the group's labels, once for each metric that is pushed.
pub const GROUP_LABEL_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes of a text that says what is wrong.
pub const FAILURE_BYTES_MAX: usize = 64 * 1024;
/// Time in which a body must have arrived.
pub const BODY_READ_MAX: Duration = Duration::from_mins(1);
/// Time in which the headers of a request must have arrived, and that a connection may be idle: longer than clients keep
/// theirs, so that no push meets a connection that is being closed.
pub const HEADER_READ_MAX: Duration = Duration::from_mins(2);
/// Connections at a time; more wait in the kernel's backlog.
pub const CONNECTIONS_MAX: usize = 16 * 1024;
/// Time that requests in flight have to end after the gateway was told to.
pub const DRAIN_MAX: Duration = Duration::from_secs(10);
/// Time for answers to reach their clients when no request is being served any more.
pub const FLUSH_MAX: Duration = Duration::from_secs(1);
/// Bodies from this size on are read and judged on a thread of their own, so that they delay nobody.
pub const INLINE_BODY_BYTES_MAX: usize = 256 * 1024;
