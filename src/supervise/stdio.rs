//! Standard descriptors that the caller has closed.

use std::fs::File;
use std::os::fd::{AsRawFd as _, IntoRawFd as _};

/// Puts `/dev/null` on each of the descriptors 0 to 2 that is closed, so that none of ours gets its number. It closes again
/// when the command is executed, which finds the descriptors as our caller left them.
pub fn keep_standard_descriptors_free() {
    while let Ok(null) = File::options().read(true).write(true).open("/dev/null") {
        if null.as_raw_fd() > 2 {
            return;
        }
        let _ = null.into_raw_fd();
    }
}
