//! Go's `gob` (<https://pkg.go.dev/encoding/gob>), as far as a file of a Pushgateway needs it: read into a tree of values.

use std::collections::HashMap;

/// A value, whatever Go type it had.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// A number, or true and false as 1 and 0.
    Number(u64),
    /// Text, bytes, and what encodes itself.
    Bytes(Vec<u8>),
    /// A slice or an array.
    List(Vec<Value>),
    /// Keys and values.
    Map(Vec<(Value, Value)>),
    /// Fields by their names; those that are zero are not there.
    Struct(HashMap<String, Value>),
}

impl Value {
    /// A field of a struct.
    pub(super) fn field(&self, name: &str) -> Option<&Value> {
        match self {
            Self::Struct(fields) => fields.get(name),
            _ => None,
        }
    }

    pub(super) fn entries(&self) -> &[(Value, Value)] {
        match self {
            Self::Map(entries) => entries,
            _ => &[],
        }
    }

    pub(super) fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    pub(super) fn text(&self) -> Option<&str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    #[allow(clippy::cast_possible_wrap)]
    fn signed(&self) -> Option<i64> {
        match self {
            // The lowest bit says whether the others are to be turned over.
            Self::Number(number) if number & 1 == 1 => Some(!((number >> 1) as i64)),
            Self::Number(number) => Some((number >> 1) as i64),
            _ => None,
        }
    }
}

type TypeId = i64;

/// How values of a type are laid out.
#[derive(Debug, Clone)]
enum Layout {
    Number,
    Bytes,
    List(TypeId),
    Map(TypeId, TypeId),
    Struct(Vec<(String, TypeId)>),
}

const INT: TypeId = 2;
const STRING: TypeId = 6;
/// Types that Go has given numbers to, which describe all others.
const WIRE_TYPE: TypeId = 16;
const COMMON: TypeId = 18;

fn fields(fields: &[(&str, TypeId)]) -> Layout {
    Layout::Struct(fields.iter().map(|(name, id)| ((*name).to_owned(), *id)).collect())
}

fn known_types() -> HashMap<TypeId, Layout> {
    HashMap::from([
        (1, Layout::Number),
        (INT, Layout::Number),
        (3, Layout::Number),
        (4, Layout::Number),
        (5, Layout::Bytes),
        (STRING, Layout::Bytes),
        (
            WIRE_TYPE,
            fields(&[
                ("array", 17),
                ("slice", 19),
                ("struct", 20),
                ("map", 23),
                ("encoder", 24),
                ("encoder", 24),
                ("encoder", 24),
            ]),
        ),
        (17, fields(&[("common", COMMON), ("element", INT), ("length", INT)])),
        (COMMON, fields(&[("name", STRING), ("id", INT)])),
        (19, fields(&[("common", COMMON), ("element", INT)])),
        (20, fields(&[("common", COMMON), ("fields", 22)])),
        (21, fields(&[("name", STRING), ("id", INT)])),
        (22, Layout::List(21)),
        (23, fields(&[("common", COMMON), ("key", INT), ("element", INT)])),
        (24, fields(&[("common", COMMON)])),
    ])
}

/// What a type definition says; nothing where it is none.
fn layout(definition: &Value) -> Option<Layout> {
    let id = |value: &Value, name| value.field(name)?.signed();
    if let Some(map) = definition.field("map") {
        return Some(Layout::Map(id(map, "key")?, id(map, "element")?));
    }
    if let Some(list) = definition.field("slice").or_else(|| definition.field("array")) {
        return id(list, "element").map(Layout::List);
    }
    if let Some(of) = definition.field("struct") {
        let Some(Value::List(fields)) = of.field("fields") else { return Some(Layout::Struct(Vec::new())) };
        let field = |field: &Value| Some((field.field("name")?.text()?.to_owned(), id(field, "id")?));
        return fields.iter().map(field).collect::<Option<_>>().map(Layout::Struct);
    }
    definition.field("encoder").map(|_| Layout::Bytes)
}

/// Values within values that are read at most.
const DEPTH_MAX: usize = 32;

struct Reader<'a> {
    rest: &'a [u8],
    types: HashMap<TypeId, Layout>,
}

/// Reads the first value of a stream; nothing where the bytes are no stream, or end too early.
pub(super) fn decode(bytes: &[u8]) -> Option<Value> {
    let mut reader = Reader { rest: bytes, types: known_types() };
    loop {
        let length = usize::try_from(reader.number()?).ok()?;
        let (message, after) = reader.rest.split_at_checked(length)?;
        reader.rest = message;
        let id = Value::Number(reader.number()?).signed()?;
        if id > 0 {
            if !matches!(reader.types.get(&id)?, Layout::Struct(_)) {
                // Stands where a struct would have the number of a field.
                reader.number().filter(|zero| *zero == 0)?;
            }
            return reader.value(id, 0);
        }
        let definition = reader.value(WIRE_TYPE, 0)?;
        reader.types.insert(id.checked_neg()?, layout(&definition)?);
        reader.rest = after;
    }
}

impl Reader<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*byte)
    }

    /// One byte up to 127, else the negated number of bytes that follow, the highest first.
    fn number(&mut self) -> Option<u64> {
        let first = self.byte()?;
        if first < 128 {
            return Some(u64::from(first));
        }
        let length = first.wrapping_neg();
        (length <= 8).then_some(())?;
        (0..length).try_fold(0, |number, _| Some(number << 8 | u64::from(self.byte()?)))
    }

    fn length(&mut self) -> Option<usize> {
        // Whatever is counted takes at least a byte.
        usize::try_from(self.number()?).ok().filter(|length| *length <= self.rest.len())
    }

    fn value(&mut self, id: TypeId, depth: usize) -> Option<Value> {
        (depth < DEPTH_MAX).then_some(())?;
        Some(match self.types.get(&id)?.clone() {
            Layout::Number => Value::Number(self.number()?),
            Layout::Bytes => {
                let length = self.length()?;
                let (bytes, rest) = self.rest.split_at_checked(length)?;
                self.rest = rest;
                Value::Bytes(bytes.to_vec())
            }
            Layout::List(element) => {
                let length = self.length()?;
                Value::List((0..length).map(|_| self.value(element, depth + 1)).collect::<Option<_>>()?)
            }
            Layout::Map(key, element) => {
                let length = self.length()?;
                let mut entry = || Some((self.value(key, depth + 1)?, self.value(element, depth + 1)?));
                Value::Map((0..length).map(|_| entry()).collect::<Option<_>>()?)
            }
            Layout::Struct(fields) => self.fields(&fields, depth)?,
        })
    }

    /// Each field comes with its distance from the one before; 0 ends them.
    fn fields(&mut self, fields: &[(String, TypeId)], depth: usize) -> Option<Value> {
        let mut values = HashMap::new();
        let mut at = 0_usize;
        loop {
            let distance = usize::try_from(self.number()?).ok()?;
            if distance == 0 {
                return Some(Value::Struct(values));
            }
            at = at.checked_add(distance)?;
            let (name, id) = fields.get(at - 1)?;
            values.insert(name.clone(), self.value(*id, depth + 1)?);
        }
    }
}
