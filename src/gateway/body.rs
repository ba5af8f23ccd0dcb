//! The body of an answer: pieces that are sent as they are.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

use super::load::{HeldBytes, Served};

/// Pieces, and what they count as until the kernel has all of them.
#[derive(Default)]
pub(super) struct Body {
    pieces: VecDeque<Bytes>,
    bytes: usize,
    counted: Option<Arc<Counted>>,
}

/// What is given back when the last piece is gone.
struct Counted {
    _served: Served,
    _held: HeldBytes,
}

impl Body {
    /// Bytes that are still to be sent.
    pub(super) fn len(&self) -> usize {
        self.bytes
    }

    /// The same body, which counts as held, and its request as being served, until the kernel has all of it.
    pub(super) fn counted(self, served: Served, held: HeldBytes) -> Self {
        Self { counted: Some(Arc::new(Counted { _served: served, _held: held })), ..self }
    }
}

impl<B: Into<Bytes>> From<B> for Body {
    fn from(bytes: B) -> Self {
        Self::from_iter([bytes.into()])
    }
}

impl FromIterator<Bytes> for Body {
    fn from_iter<P: IntoIterator<Item = Bytes>>(pieces: P) -> Self {
        let pieces: VecDeque<Bytes> = pieces.into_iter().filter(|piece| !piece.is_empty()).collect();
        let bytes = pieces.iter().map(Bytes::len).sum();
        Self { pieces, bytes, counted: None }
    }
}

/// A piece that has been given away.
struct Unsent {
    bytes: Bytes,
    _counted: Option<Arc<Counted>>,
}

impl AsRef<[u8]> for Unsent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(bytes) = self.pieces.pop_front() else { return Poll::Ready(None) };
        self.bytes -= bytes.len();
        let piece = Bytes::from_owner(Unsent { bytes, _counted: self.counted.clone() });
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes as u64)
    }
}
