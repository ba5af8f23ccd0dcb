//! How much of an exposition is read.

use super::labels::Validation;

/// What is read at most. Bounds are checked while reading, so that a reader never holds much more than they admit.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Samples of one exposition: lines of a text; in protobuf metrics, buckets, quantiles, spans and exemplars.
    pub samples: usize,
    /// Labels of one sample.
    pub labels: usize,
    /// Bytes of a metric's or label's name.
    pub name_bytes: usize,
    /// Bytes of a label's value.
    pub label_value_bytes: usize,
}

impl Limits {
    /// Everything is read.
    pub const NONE: Self = Self {
        samples: usize::MAX,
        labels: usize::MAX,
        name_bytes: usize::MAX,
        label_value_bytes: usize::MAX,
    };

    /// # Errors
    /// Where a name is too long.
    pub(super) fn name(&self, name: &[u8]) -> Result<(), Exceeded> {
        if name.len() > self.name_bytes { Err(Exceeded::NameBytes) } else { Ok(()) }
    }

    /// # Errors
    /// Where a label's value is too long.
    pub(super) fn label_value(&self, value: &[u8]) -> Result<(), Exceeded> {
        if value.len() > self.label_value_bytes { Err(Exceeded::LabelValueBytes) } else { Ok(()) }
    }
}

/// Which limit an exposition is beyond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Exceeded {
    /// See [`Limits::samples`].
    #[error("too many samples")]
    Samples,
    /// See [`Limits::labels`].
    #[error("too many labels on one sample")]
    Labels,
    /// See [`Limits::name_bytes`].
    #[error("a name is too long")]
    NameBytes,
    /// See [`Limits::label_value_bytes`].
    #[error("the value of a label is too long")]
    LabelValueBytes,
}

/// What is read of an exposition.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// Which names.
    pub validation: Validation,
    /// How much.
    pub limits: Limits,
}

impl From<Validation> for Rules {
    fn from(validation: Validation) -> Self {
        Self { validation, limits: Limits::NONE }
    }
}
