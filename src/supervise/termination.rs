//! What Kubernetes shows of a container that has ended: the text in its termination log.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};

/// Where the kubelet reads it (`terminationMessagePath`), 4096 bytes of it.
const TERMINATION_LOG: &str = "/dev/termination-log";
const MESSAGE_BYTES_MAX: usize = 4096;

/// Leaves a message, if there is such a file, and nothing in it: what the command has written there is more to the point.
pub fn leave_message(text: &str) {
    let mut end = text.len().min(MESSAGE_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let file =
        File::options().write(true).custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW).open(TERMINATION_LOG);
    let Ok(mut file) = file else { return };
    let is_empty_file = file.metadata().is_ok_and(|metadata| {
        metadata.len() == 0 && !metadata.file_type().is_fifo() && metadata.file_type().is_file()
    });
    if is_empty_file {
        // It is a service to those who look; nothing depends on it.
        let _ = file.write_all(&text.as_bytes()[..end]);
    }
}
