//! How much a message would cost, told from the wire before anything is made of it: two bytes can stand for an empty
//! message of a hundred.

use prost::bytes::Buf as _;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use super::DecodeError;
use crate::exposition::limits::{Exceeded, Limits};

/// Field number of a family's metrics.
pub(super) const METRIC: u32 = 4;

/// Numbers of a native histogram that count as one sample.
const NUMBERS_A_SAMPLE: usize = 16;

/// What is in a field.
enum Holds {
    /// A label.
    Label,
    /// A message with such fields, which counts as a sample.
    Sample(Shape),
    /// A message with such fields.
    Message(Shape),
    /// Numbers, packed or one at a time.
    Numbers,
}
use Holds::{Label, Message, Numbers, Sample};

/// Fields that may be there many times, by their numbers in `metrics.proto`.
type Shape = &'static [(u32, Holds)];

const EXEMPLAR: Shape = &[(1, Label)];
const BUCKET: Shape = &[(3, Message(EXEMPLAR))];
const HISTOGRAM: Shape = &[
    (3, Sample(BUCKET)),
    (9, Sample(&[])),
    (10, Numbers),
    (11, Numbers),
    (12, Sample(&[])),
    (13, Numbers),
    (14, Numbers),
    (16, Sample(EXEMPLAR)),
];
const COUNTER: Shape = &[(2, Message(EXEMPLAR))];
const SUMMARY: Shape = &[(3, Sample(&[]))];
const METRIC_SHAPE: Shape =
    &[(1, Label), (3, Message(COUNTER)), (4, Message(SUMMARY)), (7, Message(HISTOGRAM))];

/// Counts samples over a whole body.
pub(super) struct Scale<'a> {
    limits: &'a Limits,
    samples: usize,
    numbers: usize,
}

impl<'a> Scale<'a> {
    pub(super) fn new(limits: &'a Limits) -> Self {
        Self { limits, samples: 0, numbers: 0 }
    }

    /// Weighs one metric.
    pub(super) fn metric(&mut self, message: &[u8]) -> Result<(), DecodeError> {
        self.sample()?;
        self.message(message, METRIC_SHAPE, &mut 0)
    }

    fn sample(&mut self) -> Result<(), Exceeded> {
        self.samples += 1;
        let weight = self.samples.saturating_add(self.numbers / NUMBERS_A_SAMPLE);
        if weight > self.limits.samples { Err(Exceeded::Samples) } else { Ok(()) }
    }

    /// Of a message that is there many times all parts are one message to a decoder, so their labels are counted together.
    fn message(&mut self, message: &[u8], shape: Shape, labels: &mut usize) -> Result<(), DecodeError> {
        for field in fields(message) {
            let (number, bytes) = field?;
            let Some((_, holds)) = shape.iter().find(|(of, _)| *of == number) else { continue };
            match (holds, bytes) {
                (Label, _) => {
                    *labels += 1;
                    if *labels > self.limits.labels {
                        return Err(Exceeded::Labels.into());
                    }
                }
                (Numbers, bytes) => {
                    self.numbers += bytes.map_or(1, <[u8]>::len);
                    if self.numbers / NUMBERS_A_SAMPLE > self.limits.samples {
                        return Err(Exceeded::Samples.into());
                    }
                }
                (Sample(shape), Some(bytes)) => {
                    self.sample()?;
                    self.message(bytes, shape, &mut 0)?;
                }
                (Message(shape), Some(bytes)) => self.message(bytes, shape, labels)?,
                // Not what the schema says: decoding will find it out.
                (Sample(_) | Message(_), None) => {}
            }
        }
        Ok(())
    }
}

/// The metrics of a family, undecoded.
pub(super) fn metrics(family: &[u8]) -> impl Iterator<Item = Result<&[u8], DecodeError>> {
    fields(family).filter_map(|field| match field {
        Ok((METRIC, Some(bytes))) => Some(Ok(bytes)),
        Ok(_) => None,
        Err(error) => Some(Err(error)),
    })
}

/// The fields of a message with their numbers and, where they have a length, their bytes. Ends after the first fault.
fn fields(message: &[u8]) -> impl Iterator<Item = Result<(u32, Option<&[u8]>), DecodeError>> {
    let mut rest = message;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let field = field(&mut rest).ok_or(DecodeError::Malformed);
        if field.is_err() {
            rest = &[];
        }
        Some(field)
    })
}

fn field<'a>(rest: &mut &'a [u8]) -> Option<(u32, Option<&'a [u8]>)> {
    let (number, wire_type) = decode_key(rest).ok()?;
    if wire_type != WireType::LengthDelimited {
        skip_field(wire_type, number, rest, DecodeContext::default()).ok()?;
        return Some((number, None));
    }
    let length = usize::try_from(decode_varint(rest).ok()?).ok()?;
    let bytes = rest.get(..length)?;
    rest.advance(length);
    Some((number, Some(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_a_message_in_parts_are_counted_together() {
        // metric { counter { exemplar { label {} } } }, the counter again and again.
        let part = [0x1a, 4, 0x12, 2, 0x0a, 0];
        let limits = Limits { labels: 3, ..Limits::NONE };
        assert_eq!(Scale::new(&limits).metric(&part.repeat(3)), Ok(()));
        assert_eq!(Scale::new(&limits).metric(&part.repeat(4)), Err(Exceeded::Labels.into()));
    }
}
