//! Go's textual forms: floats as `strconv` reads and prints them, strings as `%q` quotes them.
//!
//! Clients, dashboards and tests compare these texts, so they are those of the server we stand in for.

use std::fmt::Write as _;

use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};

/// Reads a float as `expfmt` does: Go's `strconv.ParseFloat` without hexadecimal, `_` and `p`.
///
/// Refuses what overflows, unlike Rust's own parser, and signed NaNs; accepts every spelling of infinity.
pub fn parse_float(token: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(token).ok()?;
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let value: f64 = text.parse().ok()?;
    let is_word = unsigned.starts_with(|c: char| c.is_ascii_alphabetic());
    if value.is_nan() {
        // A signed NaN is no number in Go.
        return (unsigned.len() == text.len()).then_some(value);
    }
    (value.is_finite() || is_word).then_some(value)
}

/// First decimal exponent that is written in exponent form (`strconv`'s `%g` with the shortest precision).
const EXPONENT_FORM_FROM: i32 = 6;
/// Last negative decimal exponent that is written without one.
const PLAIN_FORM_FROM: i32 = -4;

/// Appends a float in the form of `strconv.FormatFloat(f, 'g', -1, 64)`, with a zero that has no sign: the shortest
/// digits that read back as the same float, with an exponent below 1e-4 and from 1e6 on.
pub fn write_float(out: &mut Vec<u8>, value: f64) {
    if value.is_nan() {
        out.extend_from_slice(b"NaN");
    } else if value.is_infinite() {
        out.extend_from_slice(if value > 0.0 { b"+Inf" } else { b"-Inf" });
    } else if value == 0.0 {
        out.push(b'0');
    } else {
        write_finite(out, value);
    }
}

/// The same as text.
pub fn format_float(value: f64) -> String {
    let mut out = Vec::with_capacity(24);
    write_float(&mut out, value);
    String::from_utf8(out).expect("numbers are ASCII")
}

/// The same, with the sign of zero: Go's form everywhere but in the text format.
pub fn format_signed_float(value: f64) -> String {
    if value == 0.0 && value.is_sign_negative() { "-0".to_owned() } else { format_float(value) }
}

fn write_finite(out: &mut Vec<u8>, value: f64) {
    // Rust's `{:e}` has the same shortest digits: `-1.2345e-7`.
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').expect("`{:e}` always has an exponent");
    let exponent: i32 = exponent.parse().expect("the exponent of `{:e}` is a decimal number");
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |m| ("-", m));
    let digits: Vec<u8> = mantissa.bytes().filter(|b| *b != b'.').collect();
    out.extend_from_slice(sign.as_bytes());
    if (PLAIN_FORM_FROM..EXPONENT_FORM_FROM).contains(&exponent) {
        write_plain_form(out, &digits, exponent);
    } else {
        write_exponent_form(out, &digits, exponent);
    }
}

fn write_exponent_form(out: &mut Vec<u8>, digits: &[u8], exponent: i32) {
    out.push(digits[0]);
    if digits.len() > 1 {
        out.push(b'.');
        out.extend_from_slice(&digits[1..]);
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    out.extend_from_slice(format!("e{sign}{:02}", exponent.unsigned_abs()).as_bytes());
}

fn write_plain_form(out: &mut Vec<u8>, digits: &[u8], exponent: i32) {
    // Digits before the decimal point; none or less for a number below one.
    let before = exponent + 1;
    if before <= 0 {
        out.extend_from_slice(b"0.");
        out.extend(std::iter::repeat_n(b'0', before.unsigned_abs() as usize));
        out.extend_from_slice(digits);
        return;
    }
    let before = before.unsigned_abs() as usize;
    if before >= digits.len() {
        out.extend_from_slice(digits);
        out.extend(std::iter::repeat_n(b'0', before - digits.len()));
    } else {
        out.extend_from_slice(&digits[..before]);
        out.push(b'.');
        out.extend_from_slice(&digits[before..]);
    }
}

/// Quotes bytes as Go's `%q` does a string: invalid UTF-8 as `\xff`, what cannot be printed as an escape.
pub fn quote(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() + 2);
    out.push('"');
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            push_escaped(&mut out, c, '"');
        }
        for byte in chunk.invalid() {
            push_hex(&mut out, *byte);
        }
    }
    out.push('"');
    out
}

/// Quotes one byte as Go's `%q` does a character: `'x'`, with bytes from 0x80 on as the code point of that number.
pub fn quote_byte(byte: u8) -> String {
    let mut out = String::from("'");
    push_escaped(&mut out, char::from(byte), '\'');
    out.push('\'');
    out
}

fn push_escaped(out: &mut String, c: char, delimiter: char) {
    match c {
        '\x07' => out.push_str("\\a"),
        '\x08' => out.push_str("\\b"),
        '\x0c' => out.push_str("\\f"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\x0b' => out.push_str("\\v"),
        '\\' => out.push_str("\\\\"),
        c if c == delimiter => {
            out.push('\\');
            out.push(c);
        }
        c if is_printable(c) => out.push(c),
        c if u32::from(c) < 0x80 => push_hex(out, c as u8),
        c => {
            let code = u32::from(c);
            let escape = if code < 0x1_0000 { format!("\\u{code:04x}") } else { format!("\\U{code:08x}") };
            out.push_str(&escape);
        }
    }
}

fn push_hex(out: &mut String, byte: u8) {
    write!(out, "\\x{byte:02x}").expect("writing to a String cannot fail");
}

/// Go's `unicode.IsPrint`: letters, marks, numbers, punctuation, symbols and the ASCII space.
fn is_printable(c: char) -> bool {
    use GeneralCategoryGroup::{Letter, Mark, Number, Punctuation, Symbol};
    c == ' ' || matches!(c.general_category_group(), Letter | Mark | Number | Punctuation | Symbol)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_have_gos_form() {
        let cases = [
            (0.0, "0"),
            (-0.0, "0"),
            (1.0, "1"),
            (-1.0, "-1"),
            (100_000.0, "100000"),
            (999_999.5, "999999.5"),
            (123_456.7, "123456.7"),
            (0.000_123, "0.000123"),
            (0.5, "0.5"),
            (0.05, "0.05"),
            (1e6, "1e+06"),
            (1_234_567.0, "1.234567e+06"),
            (123_456_789.123, "1.23456789123e+08"),
            (9_007_199_254_740_992.0, "9.007199254740992e+15"),
            (1e-5, "1e-05"),
            (-1.5e-5, "-1.5e-05"),
            (5e-324, "5e-324"),
            (1.797_693_134_862_315_7e308, "1.7976931348623157e+308"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
            (f64::NAN, "NaN"),
        ];
        for (value, text) in cases {
            assert_eq!(format_float(value), text);
        }
    }

    #[test]
    fn floats_are_read_as_go_reads_them() {
        for (text, value) in [
            ("+1", 1.0),
            ("1.", 1.0),
            (".5", 0.5),
            ("+.5e-3", 0.0005),
            ("007", 7.0),
            ("1E+3", 1000.0),
            ("1e-400", 0.0),
            ("Inf", f64::INFINITY),
            ("+inf", f64::INFINITY),
            ("-iNFiNiTY", f64::NEG_INFINITY),
        ] {
            assert_eq!(parse_float(text.as_bytes()), Some(value), "{text}");
        }
        assert!(parse_float(b"nan").is_some_and(f64::is_nan));
        for text in [
            "",
            "+NaN",
            "-NaN",
            "1e",
            "1e400",
            "1.7976931348623159e308",
            ".e5",
            "--1",
            "1d",
            "0x10",
            "0x1p4",
            "0o10",
            "1_000",
            "1,5",
            "1.2.3",
            "\"1\"",
            "foo",
            "infinit",
            ".",
            "+",
        ] {
            assert_eq!(parse_float(text.as_bytes()), None, "{text}");
        }
        assert_eq!(parse_float(b"\xff"), None);
    }

    #[test]
    fn strings_are_quoted_as_go_quotes_them() {
        for (bytes, quoted) in [
            (&b"1\r"[..], r#""1\r""#),
            (b"a\"b\\", r#""a\"b\\""#),
            (b"\xff", r#""\xff""#),
            ("\u{a0}1Π".as_bytes(), r#""\u00a01Π""#),
            (b"\0\x7f", r#""\x00\x7f""#),
            ("\u{1f600}\u{e0001}".as_bytes(), "\"\u{1f600}\\U000e0001\""),
        ] {
            assert_eq!(quote(bytes), quoted);
        }
        assert_eq!(quote_byte(b'y'), "'y'");
        assert_eq!(quote_byte(b'\''), r"'\''");
        assert_eq!(quote_byte(b'\n'), r"'\n'");
        assert_eq!(quote_byte(0xff), "'ÿ'");
    }

    proptest::proptest! {
        #[test]
        fn a_float_reads_back_as_itself(value: f64) {
            let text = format_float(value);
            let back = parse_float(text.as_bytes()).expect("what we write is a number");
            proptest::prop_assert!(back.total_cmp(&value).is_eq() || (back.is_nan() && value.is_nan()) || (value == 0.0 && back == 0.0));
        }
    }
}
