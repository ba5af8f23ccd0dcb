//! House rules that no lint knows.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::project;

/// Lines of a source file, without its tests.
const FILE_LINES_MAX: usize = 500;
/// Lines of a function; one fits a screen.
const FUNCTION_LINES_MAX: usize = 70;

/// Which modules each module may import: the arrows of the map in `lib.rs`.
const ARROWS: [(&str, &[&str]); 11] = [
    ("cli", &[]),
    ("config", &["cli", "deliver", "exposition", "grouping"]),
    ("deliver", &["exposition", "grouping", "run"]),
    ("exposition", &[]),
    ("gateway", &["config", "exposition", "grouping", "run", "store"]),
    ("grouping", &["exposition"]),
    ("logging", &[]),
    ("run", &[]),
    ("store", &["exposition", "grouping", "run"]),
    ("supervise", &["config", "deliver", "exposition", "grouping", "logging", "run"]),
    ("tools", &["cli", "config", "deliver"]),
];

fn files(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("a directory").flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Source files by their path below `src`, without their tests.
fn sources() -> BTreeMap<String, String> {
    let root = project().join("src");
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("text");
        let code = text.split("\n#[cfg(test)]").next().unwrap_or_default().to_owned();
        (path.strip_prefix(&root).expect("below src").to_string_lossy().into_owned(), code)
    };
    files(&root, "rs").into_iter().map(read).collect()
}

#[test]
fn files_and_functions_are_short() {
    let mut long = Vec::new();
    for (path, text) in sources() {
        let lines: Vec<&str> = text.lines().collect();
        if lines.len() > FILE_LINES_MAX {
            long.push(format!("{path} has {} lines", lines.len()));
        }
        for (start, line) in lines.iter().enumerate() {
            let trimmed = line.trim_start();
            let is_function = ["fn ", "pub fn ", "pub(super) fn ", "pub(in", "async fn ", "pub async fn "]
                .iter()
                .any(|p| trimmed.starts_with(p))
                && trimmed.contains("fn ");
            if !is_function || trimmed.ends_with(';') {
                continue;
            }
            let end_brace = format!("{}}}", &line[..line.len() - trimmed.len()]);
            let length = lines[start..].iter().position(|l| **l == end_brace).unwrap_or_default();
            if length > FUNCTION_LINES_MAX {
                long.push(format!("{path}:{} is a function of {length} lines", start + 1));
            }
        }
    }
    assert!(long.is_empty(), "{long:#?}");
}

#[test]
fn imports_follow_the_arrows_of_the_map() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let module = path.split(['/', '.']).next().unwrap_or_default();
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == module) else { continue };
        for part in text.split("crate::").skip(1) {
            let imported: String = part.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
            if imported != module
                && ARROWS.iter().any(|(name, _)| *name == imported)
                && !allowed.contains(&imported.as_str())
            {
                wrong.push(format!("{path} imports {imported}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn unsafe_code_is_where_it_belongs() {
    let allowed = ["main.rs", "supervise/reap.rs", "supervise/signals.rs", "supervise/spawn.rs"];
    for (path, text) in sources() {
        let has_unsafe =
            text.lines().any(|line| line.contains("unsafe") && !line.trim_start().starts_with("//"));
        assert!(!has_unsafe || allowed.contains(&path.as_str()), "{path}");
    }
}

#[test]
fn every_option_is_documented() {
    let readme = fs::read_to_string(project().join("README.md")).expect("text");
    for option in jobmon::cli::RUN_OPTIONS {
        assert!(readme.contains(&format!("`--{}", option.name)), "--{} is not in the README", option.name);
    }
    for flag in jobmon::cli::GATEWAY_FLAGS {
        assert!(readme.contains(&format!("`--{}", flag.name)), "--{} is not in the README", flag.name);
    }
}

#[test]
fn every_metric_of_a_run_is_documented() {
    let readme = fs::read_to_string(project().join("README.md")).expect("text");
    let report = fs::read_to_string(project().join("src/supervise/report.rs")).expect("text");
    let names: Vec<&str> = report.split('"').filter(|text| text.starts_with("jobmon_")).collect();
    assert!(names.len() > 20, "{names:?}");
    for name in names {
        assert!(readme.contains(name), "{name} is not in the README");
    }
}

#[test]
fn no_test_is_switched_off() {
    let switched_off = ["#[ign", "ore"].concat();
    let all = files(&project().join("tests"), "rs").into_iter().chain(files(&project().join("src"), "rs"));
    for path in all {
        assert!(!fs::read_to_string(&path).expect("text").contains(&switched_off), "{}", path.display());
    }
}

/// The list of edge cases has 65 lines.
#[test]
fn every_edge_case_has_a_test() {
    let tests = files(&project().join("tests/edge_cases"), "rs");
    let all: String = tests.iter().map(|path| fs::read_to_string(path).expect("text")).collect();
    let missing: Vec<_> = (1..=65).filter(|n| !all.contains(&format!("\nfn e{n:02}_"))).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
