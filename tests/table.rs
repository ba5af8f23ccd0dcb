//! The acceptance table of the text format: what a body is answered with. Every row is sent by `curl` to our gateway, and
//! to a real Pushgateway, which the table must agree with except where a row says why not.

/// One body and its answer.
pub struct Row {
    /// The body.
    pub body: &'static [u8],
    /// What is answered.
    pub answer: Answer,
    /// Why a Pushgateway answers otherwise, if it does.
    pub differs: Option<&'static str>,
}

/// What a body is answered with.
pub enum Answer {
    /// 200 and nothing.
    Ok,
    /// 400: `text format parsing error in line N: …`.
    Parse(usize, &'static str),
    /// 400: `pushed metrics are invalid or inconsistent with existing metrics: …`, or its beginning up to an `…`.
    Store(&'static str),
}
use Answer::{Ok, Parse, Store};

const fn row(body: &'static [u8], answer: Answer) -> Row {
    Row { body, answer, differs: None }
}

const fn differs(body: &'static [u8], answer: Answer, why: &'static str) -> Row {
    Row { body, answer, differs: Some(why) }
}

const END: &str = "unexpected end of input stream";
const TIMESTAMPS: &str = "pushed metrics must not have timestamps";

/// The rows, in the order of the documentation of the behaviour.
pub const ROWS: &[Row] = &[
    // The end of the text
    row(b"a 1", Parse(1, END)),
    row(b"# foo", Parse(1, END)),
    row(b"# HELP a x", Parse(1, END)),
    row(b"# TYPE a counter", Parse(1, END)),
    row(b"a=1", Parse(1, END)),
    row(b"", Ok),
    row(b"\n", Ok),
    row(b"  \t ", Ok),
    row(b"# foo\n", Ok),
    // Carriage returns and blanks
    row(b"a 1\r\n", Parse(1, r#"expected float as value, got "1\r""#)),
    row(b"a 1\r", Parse(1, END)),
    row(b"# HELP a x\r\n", Ok),
    row(b"# TYPE a counter\r\n", Parse(1, r#"unknown metric type "counter\r""#)),
    row(b" \ta 1\n\n\na\tb 1\n", Parse(4, r#"expected float as value, got "b""#)),
    row(b"  a 1\n", Ok),
    row(b"\ta\t1\n", Ok),
    row(b"\n\na 1\n", Ok),
    row(b"a {x=\"y\"} 1\n", Ok),
    row(b"a{x=\"y\"}1\n", Ok),
    row(b"a{\tx\t=\t\"y\"\t,\t}\t1\n", Ok),
    row(b"a 1 \n", Parse(1, r#"expected integer as timestamp, got """#)),
    row(b"a 1\t\n", Parse(1, r#"expected integer as timestamp, got """#)),
    row(b"a\n", Parse(1, r#"expected float as value, got """#)),
    row(b"a \n", Parse(1, r#"expected float as value, got """#)),
    row(b"a{x=\"y\"}\n1\n", Parse(1, r#"expected float as value, got """#)),
    // Label sets
    row(b"a{} 1\n", Ok),
    row(b"a{x=\"y\",} 1\n", Ok),
    row(b"a{x=\"y\",,} 1\n", Parse(1, r#"invalid label name for metric "a""#)),
    row(b"a{,x=\"y\"} 1\n", Parse(1, r#"invalid label name for metric "a""#)),
    row(b"a{,} 1\n", Parse(1, r#"invalid label name for metric "a""#)),
    row(b"a{=\"y\"} 1\n", Parse(1, r#"invalid label name for metric "a""#)),
    row(b"a{1x=\"y\"} 1\n", Parse(1, r#"invalid label name for metric "a""#)),
    row(b"a{x=\"y\" z=\"w\"} 1\n", Parse(1, r#"unexpected end of label value "y""#)),
    row(b"a{x=\"y\" 1\n", Parse(1, r#"unexpected end of label value "y""#)),
    row(b"a{x=y} 1\n", Parse(1, r#"expected '"' at start of label value, found 'y'"#)),
    row(b"a{x='y'} 1\n", Parse(1, r#"expected '"' at start of label value, found '\''"#)),
    row(b"a{x:y=\"z\"} 1\n", Parse(1, "expected '=' after label name, found ':'")),
    row(b"a{x-y=\"z\"} 1\n", Parse(1, "expected '=' after label name, found '-'")),
    row(b"a{\"b\"} 1\n", Parse(1, "expected '=' after label name, found '}'")),
    row(b"a{x=\"y\nz\"} 1\n", Parse(1, r#"label value "y" contains unescaped new-line"#)),
    row(b"a{x=\"\r\t\0\"} 1\n", Ok),
    row(b"a{x=\"\\\\ \\n \\\"\"} 1\n", Ok),
    row(b"a{x=\"\\t\"} 1\n", Parse(1, r"invalid escape sequence '\t'")),
    row(b"a{x=\"\\x\"} 1\n", Parse(1, r"invalid escape sequence '\x'")),
    row(b"# HELP a \\\\ \\n \\\"\na 1\n", Ok),
    row(b"# HELP a \\t\na 1\n", Parse(1, r"invalid escape sequence '\t'")),
    row(b"# HELP a x\\\na 1\n", Parse(1, "invalid escape sequence '\\\n'")),
    row(b"a{x=\"\xff\"} 1\n", Parse(1, r#"invalid label value "\xff""#)),
    differs(
        b"# HELP a \xff\na 1\n",
        Parse(1, r#"invalid help text "\xff""#),
        "Prometheus refuses a scrape with such a help text, so one push would take everybody's metrics down",
    ),
    row(b"# \xff\n", Ok),
    row(b"a{x=\"1\",x=\"2\"} 1\n", Parse(1, r#"duplicate label names for metric "a""#)),
    row(b"a{x=\"1\",x=\"1\"} 1\n", Parse(1, r#"duplicate label names for metric "a""#)),
    row(b"a{__name__=\"b\"} 1\n", Parse(1, r#"label name "__name__" is reserved"#)),
    row(b"a{\"__name__\"=\"b\"} 1\n", Parse(1, r#"label name "__name__" is reserved"#)),
    row(b"a{__x=\"1\"} 1\n", Store("collected metric \"a\" { …")),
    row(b"a{x=\"\"} 1\n", Ok),
    // Metric names
    row(b"a:b 1\n:a 1\na: 1\n::: 1\n", Ok),
    row(b"1a 1\n", Parse(1, "invalid metric name")),
    row("Π 1\n".as_bytes(), Parse(1, "invalid metric name")),
    row("\u{feff}a 1\n".as_bytes(), Parse(1, "invalid metric name")),
    row(b"\0 1\n", Parse(1, "invalid metric name")),
    row(b"<html>\n", Parse(1, "invalid metric name")),
    row(b"} 1\n", Parse(1, "invalid metric name")),
    row(b"a-b 1\n", Parse(1, r#"expected float as value, got "-b""#)),
    row(b"a.b 1\n", Parse(1, r#"expected float as value, got ".b""#)),
    row("a\u{a0}1\n".as_bytes(), Parse(1, r#"expected float as value, got "\u00a01""#)),
    // Values
    row(b"a 1\nb +1\nc -1\nd 1.\ne .5\nf 1e3\ng 1E+3\nh +.5e-3\ni 007\nj 5e-324\n", Ok),
    row(b"a 1.7976931348623157e308\nb 1e-400\n", Ok),
    row(b"a NaN\nb nan\nc NAN\n", Ok),
    row(b"a Inf\nb inf\nc +Inf\nd -Inf\ne Infinity\nf -iNFiNiTY\n", Ok),
    row(b"a +NaN\n", Parse(1, r#"expected float as value, got "+NaN""#)),
    row(b"a -NaN\n", Parse(1, r#"expected float as value, got "-NaN""#)),
    row(b"a 1e\n", Parse(1, r#"expected float as value, got "1e""#)),
    row(b"a 1e400\n", Parse(1, r#"expected float as value, got "1e400""#)),
    row(b"a 1.7976931348623159e308\n", Parse(1, r#"expected float as value, got "1.7976931348623159e308""#)),
    row(b"a .e5\n", Parse(1, r#"expected float as value, got ".e5""#)),
    row(b"a --1\n", Parse(1, r#"expected float as value, got "--1""#)),
    row(b"a 1d\n", Parse(1, r#"expected float as value, got "1d""#)),
    row(b"a 0x10\n", Parse(1, r#"expected float as value, got "0x10""#)),
    row(b"a 0x1p4\n", Parse(1, r#"expected float as value, got "0x1p4""#)),
    row(b"a 0x1.8p0\n", Parse(1, r#"expected float as value, got "0x1.8p0""#)),
    row(b"a 0o10\n", Parse(1, r#"expected float as value, got "0o10""#)),
    row(b"a 0b1\n", Parse(1, r#"expected float as value, got "0b1""#)),
    row(b"a 1_000\n", Parse(1, r#"expected float as value, got "1_000""#)),
    row(b"a 1,5\n", Parse(1, r#"expected float as value, got "1,5""#)),
    row(b"a 1.2.3\n", Parse(1, r#"expected float as value, got "1.2.3""#)),
    row(b"a \"1\"\n", Parse(1, r#"expected float as value, got "\"1\"""#)),
    row(b"a foo\n", Parse(1, r#"expected float as value, got "foo""#)),
    // Timestamps
    row(b"a 1 1395066363000\n", Store(TIMESTAMPS)),
    row(b"a 1 0\n", Store(TIMESTAMPS)),
    row(b"a 1 -1\n", Store(TIMESTAMPS)),
    row(b"a 1 +5\n", Store(TIMESTAMPS)),
    row(b"a 1 1.5\n", Parse(1, r#"expected integer as timestamp, got "1.5""#)),
    row(b"a 1 x\n", Parse(1, r#"expected integer as timestamp, got "x""#)),
    row(b"a 1 1_0\n", Parse(1, r#"expected integer as timestamp, got "1_0""#)),
    row(b"a 1 9223372036854775808\n", Parse(1, r#"expected integer as timestamp, got "9223372036854775808""#)),
    row(b"a 1 # hi\n", Parse(1, r##"expected integer as timestamp, got "#""##)),
    row(b"a 1 2 3\n", Parse(1, r#"spurious string after timestamp: " 3""#)),
    // Comments
    row(b"#foo\n#\n# UNIT a s\n# type a counter\na 1\n", Ok),
    row(b"#TYPE a counter\n#HELP a x\na 1\n", Ok),
    row(b"#\tTYPE\ta\tcounter\na 1\n", Ok),
    row(b"#TYPE a counter\n#TYPE a gauge\n", Parse(2, SECOND_TYPE)),
    row(b"#\tTYPE\ta\tcounter\n# TYPE a gauge\n", Parse(2, SECOND_TYPE)),
    row(b"#HELP a x\n# HELP a y\n", Parse(2, r#"second HELP line for metric name "a""#)),
    row(b"# TYPE a\n# TYPE\n# HELP a\n# HELP a \na 1\n", Ok),
    row(b"#   HELP   a   x  y  \na 1\n", Ok),
    row(b"# TYPE a CoUnTeR\n# TYPE b GAUGE\n# TYPE c summary\n# TYPE d untyped\n# TYPE e histogram\n", Ok),
    row(b"# TYPE a gauge_histogram\n# TYPE b gaugehistogram\n", Ok),
    row(b"# TYPE a unknown\n", Parse(1, r#"unknown metric type "unknown""#)),
    row(b"# TYPE a info\n", Parse(1, r#"unknown metric type "info""#)),
    row(b"# TYPE a stateset\n", Parse(1, r#"unknown metric type "stateset""#)),
    row(b"# TYPE a counter foo\n", Parse(1, r#"unknown metric type "counter foo""#)),
    row(b"# TYPE a counter \n", Parse(1, r#"unknown metric type "counter ""#)),
    row(b"# TYPE a counter\n# TYPE a counter\n", Parse(2, SECOND_TYPE)),
    row(b"a 1\n# TYPE a counter\n", Parse(2, SECOND_TYPE)),
    row(b"# HELP a x\n# HELP a x\n", Parse(2, r#"second HELP line for metric name "a""#)),
    row(b"a 1\n# HELP a x\n", Ok),
    row(b"# HELP 1a x\n", Parse(1, "invalid metric name in comment")),
    row(b"# TYPE a counter\n# HELP b x\n", Ok),
    // Families
    row(b"a{x=\"1\"} 1\nb 1\na{x=\"2\"} 1\n", Ok),
    row(b"a 1\na 2\n", Store("collected metric \"a\" { …")),
    row(b"a{x=\"1\",y=\"2\"} 1\na{y=\"2\",x=\"1\"} 1\n", Store("collected metric \"a\" { …")),
    row(b"a{job=\"p\"} 1\na{job=\"q\"} 1\n", Store("collected metric \"a\" { …")),
    row(b"# TYPE s summary\n# TYPE s_sum counter\n", Parse(2, SECOND_TYPE_S)),
    row(b"# TYPE h histogram\n# HELP h_bucket foo\nh_count 1\n", Ok),
    row(
        b"s_sum 1\n# TYPE s summary\ns_count 1\n",
        Store("collected …"),
    ),
    row(b"# TYPE h histogram\nh_bucket{le=\"1\"} 1\n", Ok),
    row(
        b"# TYPE h histogram\nh_bucket{le=\"2\"} 5\nh_bucket{le=\"1\"} 9\nh_bucket{le=\"+Inf\"} 3\nh_count 7\n",
        Ok,
    ),
    row(b"# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"1.0\"} 2\nh_bucket{le=\"NaN\"} 2\n", Ok),
    row(b"# TYPE h histogram\nh_bucket 1\nh 1\nh_count NaN\n", Ok),
    row(b"# TYPE h histogram\nh_bucket{le=\"1\"} 1e300\nh_bucket{le=\"2\"} 1.5\n", Ok),
    row(
        b"# TYPE h histogram\nh_bucket{le=\"1\"} -1\n",
        Parse(2, r#"negative bucket population for histogram "h""#),
    ),
    row(b"# TYPE h histogram\nh_count -1\n", Parse(2, r#"negative count for histogram "h""#)),
    row(
        b"# TYPE h histogram\nh_bucket{le=\"x\"} 1\n",
        Parse(2, r#"expected float as value for 'le' label, got "x""#),
    ),
    row(b"# TYPE h histogram\nh_created 1\nh_count 1\n", Ok),
    row(b"# TYPE s summary\ns_bucket 1\ns_count 1\n", Ok),
    row(b"# TYPE a counter\na_total 1\na 1\n", Ok),
    row(
        b"# TYPE s summary\ns{quantile=\"2\"} 1\ns{quantile=\"0.5\"} 1\ns{quantile=\"0.5\"} 2\ns{quantile=\"NaN\"} 1\n",
        Ok,
    ),
    row(b"# TYPE s summary\ns 3\n", Ok),
    row(
        b"# TYPE s summary\ns{quantile=\"x\"} 1\n",
        Parse(2, r#"expected float as value for 'quantile' label, got "x""#),
    ),
    row(b"h_bucket{le=\"1\"} 1\nh_sum 1\nh_count 1\n", Ok),
    row(b"# TYPE g gauge\ng{le=\"1\",quantile=\"2\"} 1\n# TYPE c counter\nc{le=\"x\"} -1\n", Ok),
    row(b"# TYPE c counter\nc NaN\n", Ok),
    // OpenMetrics
    row(b"a 1\n# EOF\nb 1\n", Ok),
    row(b"a 1 # {t=\"x\"} 1\n", Parse(1, r##"expected integer as timestamp, got "#""##)),
    // Quoted names
    row(b"{\"a\",x=\"y\"} 1\n", Ok),
    row(b"{x=\"y\",\"a\"} 1\n", Ok),
    row(b"a{\"x\"=\"y\"} 1\n", Ok),
    row(b"\"a\" 1\n", Ok),
    row(b"# TYPE \"a\" counter\na 1\n", Ok),
    row(b"{\"my.metric\"} 1\n", Parse(1, r#"invalid metric name "my.metric""#)),
    row(b"{\"a\\\"b\"} 1\n", Parse(1, r#"invalid metric name "a\"b""#)),
    row(b"a{\"x.y\"=\"z\"} 1\n", Parse(1, r#"invalid label name "x.y""#)),
    row(b"# HELP \"a.b\" hi\n", Parse(1, r#"invalid metric name "a.b""#)),
    row(b"{\"a\",\"b\"} 1\n", Parse(1, r#"multiple metric names for metric "a""#)),
    row(b"{x=\"y\"} 1\n", Parse(1, "invalid metric name")),
    row(b"{\"\"} 1\n", Parse(1, r#"invalid label name for metric """#)),
    row(b"{\"a\":1}\n", Parse(1, "unexpected end of metric name ':'")),
    differs(b"{} 1\n", Parse(1, "invalid metric name"), "a Pushgateway up to 1.11.2 closes the connection"),
    row(b"\"a\nb\" 1\n", Parse(1, r#"metric name "a" contains unescaped new-line"#)),
];

const SECOND_TYPE: &str = r#"second TYPE line for metric name "a", or TYPE reported after samples"#;
const SECOND_TYPE_S: &str = r#"second TYPE line for metric name "s", or TYPE reported after samples"#;

/// Bodies too large to write down, with a note; all are accepted.
pub fn large_bodies() -> Vec<(&'static str, Vec<u8>)> {
    let labels: String = (0..1000).map(|i| format!("l{i}=\"x\",")).collect();
    vec![
        ("a label value of 1 MB", format!("a{{x=\"{}\"}} 1\n", "y".repeat(1_000_000)).into_bytes()),
        ("a comment of 10 MB", format!("# {}\n", "y".repeat(10_000_000)).into_bytes()),
        ("1000 labels", format!("a{{{labels}}} 1\n").into_bytes()),
        ("a name of 100 kB", format!("{} 1\n", "n".repeat(100_000)).into_bytes()),
    ]
}

/// Rows that are read otherwise where every UTF-8 name is allowed.
pub const UTF8_ROWS: &[Row] = &[
    row(b"{\"my.metric\"} 1\n", Ok),
    row(b"{\"a\\\"b\"} 1\n", Ok),
    row(b"a{\"x.y\"=\"z\"} 1\n", Ok),
    row(b"# HELP \"a.b\" hi\n", Ok),
    row(b"{\"\xff\"} 1\n", Parse(1, r#"invalid metric name "\xff""#)),
];
